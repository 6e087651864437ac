"""Unlabelled images from folders, Parquet, lists and data sets; nothing decoded before its time."""

import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ms.cold_start.pictures import open_pictures
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.scores.images import Content, UnreadableError

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(
        importlib.util.find_spec("PIL") is None, reason="Pillow is not installed (extra embed)"
    ),
]


def pixels(seed, shape=(12, 16, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(array, kind="PNG", **options):
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(array).save(held, kind, **options)
    return held.getvalue()


def arrays_of(pictures):
    return [np.asarray(each.read().image()) for each in pictures.items]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for number in range(6):
        place = root / ("deep/er" if number % 2 else ".") / f"{number}.PNG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(pixels(number)))
    (root / "notes.txt").write_text("x")
    (root / ".thumb.png").write_bytes(b"x")
    (root / ".cache").mkdir()
    (root / ".cache" / "0.png").write_bytes(b"x")
    return root


def test_a_folder_flat_or_nested_without_what_is_hidden(photos):
    found = open_pictures(photos)
    assert [each.key for each in found.items] == [
        *("0.PNG", "2.PNG", "4.PNG"),
        *("deep/er/1.PNG", "deep/er/3.PNG", "deep/er/5.PNG"),
    ]
    for each, number in zip(found.items, (0, 2, 4, 1, 3, 5), strict=True):
        assert np.array_equal(np.asarray(each.read().image()), pixels(number))
    assert len(open_pictures(str(photos / "0.PNG"))) == 1


def test_a_sample_depends_on_paths_within_the_folder_alone(photos, tmp_path):
    chosen = open_pictures(photos).sample(3)
    keys = [each.key for each in chosen.items]
    assert len(keys) == 3
    assert keys == sorted(keys)
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    assert [each.key for each in open_pictures(moved).sample(3).items] == keys
    assert set(keys) < {each.key for each in open_pictures(photos).sample(4).items}
    assert [each.key for each in open_pictures(photos).sample(6).items] == [
        each.key for each in open_pictures(photos).items
    ]
    with pytest.raises(UsageError, match="at least 1"):
        open_pictures(photos).sample(0)


def test_what_is_not_taken_is_not_touched(photos):
    reads = []

    class Watched(list):
        def __getitem__(self, row):
            reads.append(row)
            return (super().__getitem__(row), row)

    data = Watched(pixels(i) for i in range(50))
    taken = open_pictures(data).sample(4)
    # To tell paths from images a list is looked at; pixels are not converted.
    reads.clear()
    assert len(arrays_of(taken)) == 4
    assert sorted(reads) == sorted(int(each.key) for each in taken.items)


@pytest.mark.parametrize("in_struct", [False, True])
def test_parquet_with_a_column_of_images(tmp_path, in_struct):
    data = [encoded(pixels(i)) for i in range(7)]
    column = [{"bytes": each, "path": None} for each in data] if in_struct else data
    table = pa.table({"image": column, "photo": data[::-1], "label": list(range(7))})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    found = open_pictures(tmp_path / "t.parquet")
    for number, array in enumerate(arrays_of(found)):
        assert np.array_equal(array, pixels(number))
    turned = arrays_of(open_pictures(tmp_path / "t.parquet", column="photo"))
    assert np.array_equal(turned[0], pixels(6))


def test_parquet_that_holds_no_images(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [1, 2]}), path)
    with pytest.raises(DataError, match="holds int64, expected bytes"):
        open_pictures(path)
    with pytest.raises(
        DataError, match=r"no column 'photo'; give the column of the images, one of image"
    ):
        open_pictures(path, column="photo")
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_pictures(path)
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), path)
    with pytest.raises(DataError, match="no rows"):
        open_pictures(path)
    pq.write_table(pa.table({"image": pa.array([None, encoded(pixels(1))])}), path)
    first, second = open_pictures(path).items
    with pytest.raises(UnreadableError, match="row 0: the row is empty"):
        first.read()
    assert np.array_equal(np.asarray(second.read().image()), pixels(1))


def test_arrays_images_and_paths_mean_the_same(photos):
    from PIL import Image

    array = pixels(0)
    listed = [
        array,
        array.astype(np.float32) / 255.0,
        Image.fromarray(array),
        photos / "0.PNG",
        str(photos / "0.PNG"),
    ]
    read = arrays_of(open_pictures(listed))
    assert all(np.array_equal(each, array) for each in read)
    gray = pixels(1, (9, 8))
    for form in (gray, gray[:, :, None]):
        assert np.array_equal(arrays_of(open_pictures([form]))[0], np.stack([gray] * 3, axis=2))
    stack = np.stack([pixels(i) for i in range(3)])
    assert np.array_equal(np.stack(arrays_of(open_pictures(stack))), stack)


def test_data_sets_of_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra embed)")
    images = torch.tensor(np.stack([pixels(i) for i in range(4)]).transpose(0, 3, 1, 2))
    floats = torch.utils.data.TensorDataset(images.float() / 255.0, torch.arange(4))
    for data in (floats, torch.utils.data.TensorDataset(images)):
        for number, array in enumerate(arrays_of(open_pictures(data))):
            assert np.array_equal(array, pixels(number))

    class Mapped:
        def __len__(self):
            return 2

        def __getitem__(self, row):
            return {"image": pixels(row), "label": row}

    assert np.array_equal(arrays_of(open_pictures(Mapped()))[1], pixels(1))
    normalised = torch.utils.data.TensorDataset(images.float() / 50.0 - 2.0)
    with pytest.raises(UnreadableError, match="leave out the normalisation"):
        open_pictures(normalised).items[0].read()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros((4, 4, 5), dtype=np.uint8), "of 1 or 3 channels"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "of 1 or 3 channels"),
        (np.zeros((4, 4), dtype=np.int64), "type int64"),
        (np.full((4, 4), np.nan), "expected .0, 1."),
        (b"no image", "cannot be read as an image"),
        (Path("/no/such/file.png"), "No such file"),
    ],
)
def test_one_bad_image_says_what_is_wrong(bad, why):
    picture = open_pictures([bad]).items[0]
    with pytest.raises(UnreadableError, match=why):
        picture.read().image()


@pytest.mark.parametrize("bad", [3, None, {"image": 1}, b"bytes", iter([])])
def test_sources_that_are_none(bad):
    with pytest.raises(UsageError, match="expected a folder"):
        open_pictures(bad)


def test_places_without_images(tmp_path):
    with pytest.raises(DataError, match="the folder has no images"):
        open_pictures(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_pictures(tmp_path / "no")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="not a folder"):
        open_pictures(tmp_path / "a.txt")
    with pytest.raises(DataError, match="got none"):
        open_pictures([])


def test_scans_of_sixteen_bits_keep_their_grays():
    from PIL import Image

    gray = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    held = io.BytesIO()
    Image.fromarray(gray).save(held, "PNG")
    read = np.asarray(Content("scan", held.getvalue()).image())
    assert np.array_equal(read[:, :, 0], (gray >> 8).astype(np.uint8))


def test_a_photo_is_turned_as_the_camera_was_held():
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is the right side of the file
    held = encoded(pixels(0, (4, 8, 3)), exif=exif)
    read = np.asarray(Content("photo", held).image())
    assert np.array_equal(read, np.rot90(pixels(0, (4, 8, 3)), -1))


def test_a_digest_is_of_contents():
    first, second = (Content(name, pixels(0)) for name in ("a", "b"))
    assert first.digest == second.digest
    assert first.digest != Content("a", pixels(1)).digest
    assert first.digest != Content("a", pixels(0).reshape(16, 12, 3)).digest
    assert Content("a", b"x").digest != Content("a", b"y").digest
