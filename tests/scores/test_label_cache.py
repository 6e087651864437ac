"""Embeddings on disk: found again, never mixed up, safe with many processes and damaged files."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import DataError, MissingExtraError, ProbeSetError, StorageError
from recsys_ms.scores import label_cache
from recsys_ms.scores.label_cache import CachedEncoder
from recsys_ms.scores.label_embeddings import LabelEncoder, unit_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TEXTS = tuple(f"a photo of a {name}." for name in ("cat", "dog", "eel", "fox", "grand piano"))


class Seeded(LabelEncoder):
    """Unit vectors drawn from a seed that is the text; counts what it is asked for."""

    def __init__(self, fingerprint="seeded", width=4):
        self._fingerprint = fingerprint
        self._width = width
        self.asked = []

    name = property(lambda self: "seeded")
    width = property(lambda self: self._width)
    fingerprint = property(lambda self: self._fingerprint)

    def encode(self, texts):
        self.asked.extend(texts)
        rows = np.empty((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            digest = hashlib.sha256(f"{self.fingerprint}{text}".encode()).digest()
            row[:] = np.random.default_rng(list(digest)).standard_normal(self.width)
        return unit_rows(rows, texts, self.name)


@pytest.fixture
def filled(tmp_path):
    """A cache of all texts, and its only file."""
    CachedEncoder(Seeded(), tmp_path).encode(TEXTS)
    (path,) = files(tmp_path)
    return tmp_path, path


def files(folder):
    return sorted(folder.rglob("[!.]*.npz"))


class TestHits:
    def test_the_second_time_nothing_is_asked(self, tmp_path):
        expected = Seeded().encode(TEXTS)
        first, second = Seeded(), Seeded()
        assert np.array_equal(CachedEncoder(first, tmp_path).encode(TEXTS), expected)
        assert np.array_equal(CachedEncoder(second, tmp_path).encode(TEXTS), expected)
        assert first.asked == list(TEXTS)
        assert second.asked == []

    def test_memory_in_another_order_is_written_right(self, tmp_path):
        class Transposed(Seeded):
            def encode(self, texts):
                return np.asfortranarray(super().encode(texts))

        for _ in range(2):
            encoded = CachedEncoder(Transposed(), tmp_path).encode(TEXTS)
            assert np.array_equal(encoded, Seeded().encode(TEXTS))

    def test_order_and_repetition_do_not_matter(self, filled):
        folder, _ = filled
        encoder = Seeded()
        texts = [TEXTS[2], TEXTS[0], TEXTS[2]]
        encoded = CachedEncoder(encoder, folder).encode(texts)
        assert np.array_equal(encoded, Seeded().encode(texts))
        assert encoder.asked == []

    def test_only_missing_texts_are_embedded_and_once(self, filled):
        folder, _ = filled
        encoder = Seeded()
        texts = ["new", TEXTS[1], "newer", "new", TEXTS[0]]
        encoded = CachedEncoder(encoder, folder).encode(texts)
        assert np.array_equal(encoded, Seeded().encode(texts))
        assert encoder.asked == ["new", "newer"]

    def test_many_texts_are_written_as_they_come(self, tmp_path, monkeypatch):
        monkeypatch.setattr(label_cache, "_FILE_ROWS", 10)
        texts = [f"text {i}" for i in range(25)]

        class Failing(Seeded):
            def encode(self, part):
                if len(self.asked) >= 20:
                    raise KeyboardInterrupt
                return super().encode(part)

        with pytest.raises(KeyboardInterrupt):
            CachedEncoder(Failing(), tmp_path).encode(texts)
        encoder = Seeded()
        assert np.array_equal(
            CachedEncoder(encoder, tmp_path).encode(texts), Seeded().encode(texts)
        )
        assert encoder.asked == texts[20:]

    def test_it_is_an_encoder(self, tmp_path):
        cached = CachedEncoder(Seeded(), str(tmp_path))
        assert (cached.name, cached.width, cached.fingerprint) == ("seeded", 4, "seeded")
        again = CachedEncoder(cached, tmp_path / "second")
        assert np.array_equal(again.encode(TEXTS), Seeded().encode(TEXTS))

    def test_a_result_is_the_callers_to_write_to(self, filled):
        folder, _ = filled
        cached = CachedEncoder(Seeded(), folder)
        cached.encode(TEXTS)[:] = 0
        assert np.array_equal(cached.encode(TEXTS), Seeded().encode(TEXTS))


class TestKeys:
    def test_other_weights_are_other_entries(self, filled):
        folder, _ = filled
        other = Seeded(fingerprint="seeded with other weights")
        encoded = CachedEncoder(other, folder).encode(TEXTS)
        assert other.asked == list(TEXTS)
        assert np.array_equal(encoded, Seeded(other.fingerprint).encode(TEXTS))
        assert len(files(folder)) == 2

    def test_any_fingerprint_makes_a_folder(self, tmp_path):
        for fingerprint in ("../..", "a/b", "x" * 5000, "Ünï\0"):
            CachedEncoder(Seeded(fingerprint), tmp_path / "cache").encode(["a"])
        assert len(files(tmp_path / "cache")) == 4
        assert [path.name for path in tmp_path.iterdir()] == ["cache"]

    def test_a_file_under_another_key_is_not_believed(self, filled):
        folder, path = filled
        # As if two folders had been copied into one another.
        other = CachedEncoder(Seeded("other"), folder)
        other.encode(["x"])
        (strange,) = set(files(folder)) - {path}
        path.rename(strange.parent / path.name)
        encoder = Seeded("other")
        encoded = CachedEncoder(encoder, folder).encode(TEXTS)
        assert encoder.asked == list(TEXTS)
        assert np.array_equal(encoded, Seeded("other").encode(TEXTS))


def load_file(path):
    with np.load(path) as file:
        return dict(file)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def empty(path):
    path.write_bytes(b"")


def noise(path):
    path.write_bytes(os.urandom(300))


def flip(path, name):
    content = bytearray(path.read_bytes())
    content[content.index(load_file(path)[name].tobytes()) + 6] ^= 1
    path.write_bytes(bytes(content))


def flip_vector(path):
    flip(path, "vectors")


def flip_key(path):
    flip(path, "keys")


def flip_header(path):
    path.write_bytes(path.read_bytes().replace(b"vectors.npy", b"vecters.npy"))


def flip_type(path):
    path.write_bytes(path.read_bytes().replace(b"'<f4'", b"'<i4'"))


def other_width(path):
    np.savez(path, **load_file(path) | {"vectors": np.ones((len(TEXTS), 5), np.float32)})


def other_type(path):
    np.savez(path, **load_file(path) | {"vectors": np.ones((len(TEXTS), 4))})


def fewer_rows(path):
    content = load_file(path)
    np.savez(path, **content | {"keys": content["keys"][:-1]})


DAMAGES = [
    cut,
    empty,
    noise,
    flip_vector,
    flip_key,
    flip_header,
    flip_type,
    other_width,
    other_type,
    fewer_rows,
]


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged_files_are_computed_anew_and_replaced(self, filled, damage):
        folder, path = filled
        damage(path)
        encoder = Seeded()
        expected = Seeded().encode(TEXTS)
        assert np.array_equal(CachedEncoder(encoder, folder).encode(TEXTS), expected)
        assert encoder.asked == list(TEXTS)
        assert files(folder) == [path]
        encoder = Seeded()
        assert np.array_equal(CachedEncoder(encoder, folder).encode(TEXTS), expected)
        assert encoder.asked == []

    def test_a_damaged_file_goes_even_when_its_texts_come_in_other_company(self, filled):
        folder, path = filled
        cut(path)
        CachedEncoder(Seeded(), folder).encode(TEXTS[:2])
        assert path not in files(folder)
        assert len(files(folder)) == 1

    def test_damage_to_a_row_that_is_not_read_is_repaired_too(self, filled):
        folder, path = filled
        flip_vector(path)
        encoded = CachedEncoder(Seeded(), folder).encode(TEXTS[1:])
        assert np.array_equal(encoded, Seeded().encode(TEXTS[1:]))
        assert path not in files(folder)

    def test_a_file_that_disappears_between_listing_and_reading(self, filled, monkeypatch):
        folder, path = filled
        cached = CachedEncoder(Seeded(), folder)
        listed = [path, path.with_name("gone.npz")]
        monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(listed))
        assert np.array_equal(cached.encode(TEXTS), Seeded().encode(TEXTS))

    def test_another_process_repairs_first(self, filled):
        folder, path = filled
        whole = path.read_bytes()
        cut(path)

        class Repairing(Seeded):
            def encode(self, texts):
                path.write_bytes(whole)
                return super().encode(texts)

        CachedEncoder(Repairing(), folder).encode(TEXTS[:1])
        assert path.read_bytes() == whole

    def test_what_a_killed_writer_leaves_is_not_read(self, filled):
        folder, path = filled
        (path.parent / f".{path.name}.1.ab.tmp.npz").write_bytes(b"half")
        assert np.array_equal(CachedEncoder(Seeded(), folder).encode(TEXTS), Seeded().encode(TEXTS))


class TestErrors:
    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="cannot be written"):
            CachedEncoder(Seeded(), tmp_path / "file").encode(TEXTS)

    def test_a_file_that_cannot_be_read(self, filled):
        folder, path = filled
        path.unlink()
        path.mkdir()
        with pytest.raises(StorageError, match="cannot be written"):
            CachedEncoder(Seeded(), folder).encode(TEXTS)

    @pytest.mark.parametrize(
        "broken",
        [
            lambda rows: rows[:-1],
            lambda rows: rows[:, :-1],
            lambda rows: rows.astype(float),
            lambda rows: rows.tolist(),
            lambda rows: rows * 2,
            lambda rows: rows * np.nan,
        ],
    )
    def test_an_encoder_that_breaks_its_word_is_not_remembered(self, tmp_path, broken):
        class Broken(Seeded):
            def encode(self, texts):
                return broken(super().encode(texts))

        with pytest.raises(DataError, match="expected"):
            CachedEncoder(Broken(), tmp_path).encode(TEXTS)
        assert files(tmp_path) == []

    @pytest.mark.parametrize("texts", [[], [" "], "cat", [3]])
    def test_what_is_no_text(self, tmp_path, texts):
        with pytest.raises(ProbeSetError):
            CachedEncoder(Seeded(), tmp_path).encode(texts)


WRITER = """
    import random, sys
    from pathlib import Path
    import numpy as np
    sys.path.insert(0, sys.argv[1])
    from test_label_cache import CachedEncoder, Seeded

    folder, seed = Path(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    while not (folder.parent / "go").exists():
        pass
    for turn in range(40):
        texts = [f"text {draw.randrange(120)}" for _ in range(draw.randrange(1, 25))]
        encoded = CachedEncoder(Seeded(), folder).encode(texts)
        assert np.array_equal(encoded, Seeded().encode(texts))
        found = sorted(folder.rglob("[!.]*.npz"))
        if turn % 5 == 0 and found:
            # Damage as a failing disk leaves it: whole files, wrong content.
            victim = draw.choice(found)
            spare = victim.with_name(f".{seed}.tmp")
            spare.write_bytes(draw.randbytes(200))
            spare.replace(victim)
"""


def test_several_processes_write_read_and_damage_one_cache(tmp_path):
    folder = tmp_path / "cache"
    here = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), here, str(folder), str(seed)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for seed in range(4)
    ]
    (tmp_path / "go").touch()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    texts = [f"text {i}" for i in range(120)]
    expected = Seeded().encode(texts)
    assert np.array_equal(CachedEncoder(Seeded(), folder).encode(texts), expected)
    encoder = Seeded()
    assert np.array_equal(CachedEncoder(encoder, folder).encode(texts), expected)
    assert encoder.asked == []
    assert [path for path in folder.rglob(".*")] == []


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
def test_what_is_in_the_cache_needs_neither_model_nor_torch(tmp_path, monkeypatch):
    from test_label_encoders import save_bert

    from recsys_ms.scores.label_encoders import TransformersEncoder

    texts = ["a cat", "the dog sat", "a cat"]
    folder = save_bert(tmp_path / "bert")
    encoder = TransformersEncoder(folder)
    expected = CachedEncoder(encoder, tmp_path / "cache").encode(texts)
    assert np.array_equal(expected[:2], encoder.encode(texts[:2]))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        without.setitem(sys.modules, "transformers", None)
        cached = CachedEncoder(TransformersEncoder(folder), tmp_path / "cache")
        assert np.array_equal(cached.encode(texts), expected)
        with pytest.raises(MissingExtraError, match="torch"):
            cached.encode(["a mat"])

    save_bert(folder, seed=1)
    other = CachedEncoder(TransformersEncoder(folder), tmp_path / "cache").encode(texts)
    assert not np.allclose(other, expected, atol=0.01)


@pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed"
)
def test_clip_in_the_cache_needs_neither_model_nor_torch(tmp_path, monkeypatch):
    from test_label_encoders import save_clip

    from recsys_ms.scores.label_encoders import OpenClipEncoder

    folder = save_clip(tmp_path / "clip")
    expected = CachedEncoder(OpenClipEncoder(folder), tmp_path / "cache").encode(TEXTS)
    assert np.array_equal(expected, OpenClipEncoder(folder).encode(TEXTS))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    cached = CachedEncoder(OpenClipEncoder(folder), tmp_path / "cache")
    assert np.array_equal(cached.encode(TEXTS), expected)
    with pytest.raises(MissingExtraError):
        cached.encode(["a mat"])
