"""Tasks of image files: every layout, and sets that cannot be read."""

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ms.core.errors import DataError, UsageError

pytest.importorskip("PIL", reason="the tasks need pillow (extra embed)")

from PIL import Image

from training.zoo.tasks.base import ImageSet
from training.zoo.tasks.pictures import PictureTask
from training.zoo.tasks.registry import TASKS, TaskBook

pytestmark = pytest.mark.zoo

CLASSES = ("apple", "pear", "plum")
#: Levels of red that tell the class of an image.
LEVELS = (40, 120, 200)
N_EACH = 12


def picture(label: int, number: int, width: int = 24, height: int = 20) -> Image.Image:
    """A plain image in the class's red, with noise in blue that makes it one of a kind."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = LEVELS[label]
    pixels[..., 2] = np.random.default_rng(100 * label + number).integers(0, 256, (height, width))
    return Image.fromarray(pixels)


def encoded(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def rows() -> list[tuple[int, int]]:
    return [(label, number) for number in range(N_EACH) for label in range(len(CLASSES))]


def columns(**changed: list) -> dict[str, list]:
    return {
        "image": [encoded(picture(*row)) for row in rows()],
        "label": [label for label, _ in rows()],
        "class_name": [CLASSES[label] for label, _ in rows()],
        "split": ["train" if number < 8 else "test" for _, number in rows()],
    } | changed


def in_parquet(tmp_path: Path, table: dict[str, list]) -> str:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table(table), path)
    return str(path)


def in_folders(root: Path, numbers: range = range(N_EACH)) -> str:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in numbers:
            picture(label, number).save(root / name / f"{number:02d}.png")
    return str(root)


def in_splits(root: Path, test: str) -> str:
    in_folders(root / "train", range(8))
    in_folders(root / test, range(8, N_EACH))
    return str(root)


def in_list(root: Path, *, header: str = "file_name,label,split") -> str:
    root.mkdir()
    lines = [header]
    for (label, number), split in zip(rows(), columns()["split"], strict=True):
        name = f"{CLASSES[label]}-{number}.png"
        picture(label, number).save(root / name)
        lines.append(
            f"{name},{CLASSES[label]},{split}"[: None if "split" in header else -len(split) - 1]
        )
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(root)


def task(path: str) -> PictureTask:
    return PictureTask(task_id="fruit", domain="photos", description="Fruit.", path=path)


def sample(path: str, split: str = "train", n: int = 12, size: int = 16, seed: int = 0) -> ImageSet:
    return task(path).sample(split, n, seed=seed, size=size)


def without(names: str) -> dict[str, list]:
    return {name: values for name, values in columns().items() if name not in names.split()}


LAYOUTS = {
    "parquet": lambda place: in_parquet(place, columns()),
    "parquet without splits": lambda place: in_parquet(place, without("split")),
    "parquet of structs": lambda place: in_parquet(
        place, columns(image=[{"bytes": data, "path": "x"} for data in columns()["image"]])
    ),
    "folders": lambda place: in_folders(place / "set"),
    "train and test": lambda place: in_splits(place / "set", "test"),
    "train and val": lambda place: in_splits(place / "set", "val"),
    "list": lambda place: in_list(place / "set"),
    "list without splits": lambda place: in_list(place / "set", header="file_name,label"),
}


@pytest.fixture(params=LAYOUTS)
def path(request, tmp_path) -> str:
    return LAYOUTS[request.param](tmp_path)


def test_labels_are_those_of_the_files(path):
    assert task(path).class_names == CLASSES
    for split in ("train", "test"):
        data = sample(path, split)
        assert data.images.shape == (12, 16, 16, 3)
        assert data.images.dtype == np.uint8
        np.testing.assert_array_equal(data.images[:, 8, 8, 0], np.take(LEVELS, data.labels))
        np.testing.assert_array_equal(np.bincount(data.labels), [4, 4, 4])


def test_a_set_is_a_function_of_seed_and_split(path):
    assert sample(path).fingerprint == sample(path).fingerprint
    assert sample(path).fingerprint != sample(path, seed=1).fingerprint
    assert sample(path).fingerprint != sample(path, "test").fingerprint


def test_no_test_image_occurs_in_training(path):
    made = task(path)
    counts = [made.count(split, seed=0) for split in ("train", "test")]
    assert counts == [24, 12]
    train, test = (
        {image.tobytes() for image in sample(path, split, n).images}
        for split, n in zip(("train", "test"), counts, strict=True)
    )
    assert len(train) == 24
    assert len(test) == 12
    assert not train & test


def test_more_images_than_there_are(path):
    with pytest.raises(UsageError, match="13 test images asked for, 12 exist; lower n_train"):
        sample(path, "test", 13)


def test_fewer_images_are_a_part_of_more(tmp_path):
    made = in_parquet(tmp_path, columns())
    few, many = ({i.tobytes() for i in sample(made, n=n).images} for n in (9, 24))
    assert few < many


def test_class_names_may_be_the_labels(tmp_path):
    assert task(in_parquet(tmp_path, without("class_name"))).class_names == ("0", "1", "2")


def test_labels_may_have_gaps(tmp_path):
    gaps = columns(label=[10 * label - 3 for label, _ in rows()])
    data = sample(in_parquet(tmp_path, gaps), n=24)
    np.testing.assert_array_equal(data.images[:, 8, 8, 0], np.take(LEVELS, data.labels))


def test_the_middle_square_is_seen(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    table = {"image": [encoded(Image.fromarray(wide))] * 6, "label": [0, 1] * 3}
    data = sample(in_parquet(tmp_path, table), n=4, size=10)
    assert data.images.min() == 255


def test_grey_images_have_three_channels(tmp_path):
    grey = [encoded(picture(*row).convert("L")) for row in rows()]
    data = sample(in_parquet(tmp_path, columns(image=grey)))
    np.testing.assert_array_equal(data.images[..., 0], data.images[..., 2])


def mnist_files(root: Path, n: int = 30) -> None:
    """The four files of MNIST's own format, with ``n`` images a part whose row is their label."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, level in (("train", 200), ("t10k", 100)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        for number, label in enumerate(labels):
            images[number, 2 * label : 2 * label + 2] = level
            images[number, 27, number % 28] = 1 + number
        header = struct.pack(">IIII", 0x803, n, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, n)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_a_set_of_torchvision(tmp_path):
    pytest.importorskip("torchvision", reason="it reads its own sets")
    mnist_files(tmp_path)
    path = f"torchvision:MNIST:{tmp_path}"
    assert task(path).is_present
    assert task(path).class_names[3] == "3 - three"
    for split, level in (("train", 200), ("test", 100)):
        data = sample(path, split, n=20, size=28)
        assert data.images[:, :20].max() == level
        np.testing.assert_array_equal(data.images[:, :20, 0, 0].argmax(axis=1) // 2, data.labels)


@pytest.mark.parametrize(
    ("name", "message"),
    [("NoSuchSet", "no data set 'NoSuchSet'"), ("MNIST", "torchvision cannot read it")],
)
def test_sets_that_torchvision_does_not_have(tmp_path, name, message):
    pytest.importorskip("torchvision", reason="it reads its own sets")
    with pytest.raises(DataError, match=message):
        sample(f"torchvision:{name}:{tmp_path}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (without("image"), "no column 'image'; it has"),
        (without("label"), "no column 'label'; it has"),
        (columns(split=["train", "holdout"] * 18), "row 1 is of split 'holdout'; expected 'train'"),
        (columns(label=[0] * 36), "1 classes; a task needs two"),
        (columns(label=[0, None, 1] * 12), "row 1 has no label"),
        (columns(image=["x.png"] * 36), "image is string, expected bytes"),
        (columns(image=[{"path": "x.png"}] * 36), "image is struct<path: string>, expected bytes"),
    ],
)
def test_parquet_that_is_no_set(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        sample(in_parquet(tmp_path, table))


@pytest.mark.parametrize("content", [b"no image", b"", None])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content):
    table = columns(image=[content, *columns()["image"][1:]])
    with pytest.raises(DataError, match="image 0 cannot be read"):
        sample(in_parquet(tmp_path, table), n=24)


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        sample(str(tmp_path / "set.parquet"))


def test_classes_of_one_split_only(tmp_path):
    root = Path(in_splits(tmp_path / "set", "test"))
    (root / "train" / "quince").mkdir()
    picture(0, 0).save(root / "train" / "quince" / "0.png")
    with pytest.raises(DataError, match=r"classes \['quince'\] are in one of train and test only"):
        sample(str(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n", "a row an image"),
        ("name,label\na.png,1\n", "expected the columns file_name and label"),
        ("file_name,label\na.png,1\nb.png,\n", "row 1 has no label"),
        ("file_name,label,split\na.png,1,train\nb.png,2,later\n", "row 1 is of split 'later'"),
    ],
)
def test_invalid_lists(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        sample(str(tmp_path))


def test_a_file_that_the_list_names_and_nobody_has(tmp_path):
    lines = ["file_name,label", *(f"none-{n}.png,{n % 2}" for n in range(6))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="cannot be read"):
        sample(str(tmp_path), n=2)


def test_a_place_where_nothing_is(tmp_path):
    nowhere = task(str(tmp_path / "none"))
    assert not nowhere.is_present
    with pytest.raises(DataError, match="the task needs its images there"):
        nowhere.sample("train", 4, seed=0, size=16)


@pytest.mark.parametrize(
    ("split", "n", "size", "message"),
    [
        ("validation", 10, 32, "split 'validation' is unknown"),
        ("train", 0, 32, "ask for at least one"),
        ("train", 10, 4, "8 or more"),
    ],
)
def test_invalid_requests(tmp_path, split, n, size, message):
    with pytest.raises(UsageError, match=message):
        sample(in_parquet(tmp_path, columns()), split, n, size)


def test_a_book_has_drawn_tasks_and_files(tmp_path):
    fruit = task(in_parquet(tmp_path, columns()))
    nowhere = PictureTask(task_id="none", domain="x", description="x", path=str(tmp_path / "no"))
    book = TaskBook((fruit, nowhere))
    assert book.get("fruit") is fruit
    assert book.get("letters") is TASKS["letters"]
    assert [book.absent(each) for each in ("fruit", "none", "letters")] == [False, True, False]
    assert book.at_most("fruit", "train", 500, seed=0) == 24
    assert book.at_most("fruit", "test", 5, seed=0) == 5
    assert book.at_most("letters", "train", 500, seed=0) == 500
    with pytest.raises(UsageError, match=r"'imagenet' is unknown; the laboratory has .*'fruit'"):
        book.get("imagenet")


def test_a_book_has_no_task_twice(tmp_path):
    fruit = task(str(tmp_path))
    with pytest.raises(UsageError, match=r"tasks \['fruit'\] are declared twice"):
        TaskBook((fruit, fruit))
    drawn = PictureTask(task_id="letters", domain="x", description="x", path="x")
    with pytest.raises(UsageError, match=r"tasks \['letters'\] are declared twice"):
        TaskBook((drawn,))


@pytest.mark.shared_data
def test_the_image_sets_beside_the_checkout(shared_data):
    path = shared_data / "images" / "cifar10.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    data = sample(str(path), "test", n=50, size=32)
    assert data.class_names[0] == "airplane"
    np.testing.assert_array_equal(np.bincount(data.labels), [5] * 10)
    assert data.images.std() > 30
