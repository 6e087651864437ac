"""Saved state: exact round trips, and a clear no to anything altered, truncated or newer."""

import json
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import ArtifactError, StorageError
from recsys_ms.core.state import State
from recsys_ms.serving.artifact import FORMAT_VERSION, load_artifact, save_artifact


def tree() -> State:
    rng = np.random.default_rng(0)
    child = State(
        values={"ids": ["ä", "b/c"], "nested": {"x": [1, 2.5, None]}},
        arrays={"strided": rng.normal(size=(6, 4))[::2], "ints": np.arange(3)},
        texts={"trees": "line one\nline two\n"},
    )
    return State(
        values={"alpha": 0.1 + 0.2},
        arrays={"empty": np.empty((0, 3)), "x": rng.normal(size=5)},
        children={"blend": State(children={"nmf": child})},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    before = tree()
    save_artifact(before, tmp_path / "a", manifest={"seed": 7})
    after, manifest = load_artifact(tmp_path / "a")
    assert manifest["seed"] == 7
    assert after.values == before.values
    inner_before = before.children["blend"].children["nmf"]
    inner_after = after.children["blend"].children["nmf"]
    assert inner_after.values == inner_before.values
    assert inner_after.texts == inner_before.texts
    for name, array in inner_before.arrays.items():
        np.testing.assert_array_equal(inner_after.arrays[name], array)
        assert inner_after.arrays[name].dtype == array.dtype
    assert after.arrays["empty"].shape == (0, 3)


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    save_artifact(tree(), tmp_path / "a", manifest={})
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            # Every pickle of protocol 2 or later begins with 0x80 and the protocol number.
            assert path.read_bytes()[:1] != b"\x80"
            assert path.suffix in {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize("name", ["state.json", "arrays.safetensors", "texts/000.txt"])
def test_an_altered_file_is_refused(tmp_path: Path, name: str) -> None:
    save_artifact(tree(), tmp_path / "a", manifest={})
    path = tmp_path / "a" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"SHA-256.*altered or truncated"):
        load_artifact(tmp_path / "a")


def test_truncated_missing_and_extra_files_are_refused(tmp_path: Path) -> None:
    save_artifact(tree(), tmp_path / "a", manifest={})
    arrays = tmp_path / "a" / "arrays.safetensors"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-7])
    with pytest.raises(ArtifactError, match="truncated"):
        load_artifact(tmp_path / "a")
    arrays.unlink()
    with pytest.raises(ArtifactError, match=r"missing \['arrays.safetensors'\]"):
        load_artifact(tmp_path / "a")
    arrays.write_bytes(whole)
    (tmp_path / "a" / "model.pkl").write_bytes(b"no")
    with pytest.raises(ArtifactError, match=r"extra \['model.pkl'\]"):
        load_artifact(tmp_path / "a")


@pytest.mark.parametrize(("step", "advice"), [(1, "upgrade"), (-1, "train again")])
def test_another_format_is_named(tmp_path: Path, step: int, advice: str) -> None:
    save_artifact(tree(), tmp_path / "a", manifest={})
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["format_version"] = FORMAT_VERSION + step
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=f"format version {FORMAT_VERSION + step}.*{advice}"):
        load_artifact(tmp_path / "a")


def test_a_manifest_that_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no readable manifest\.json"):
        load_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(ArtifactError, match="not a recsys-ms-ranker manifest"):
        load_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": ')
    with pytest.raises(ArtifactError, match="not valid JSON"):
        load_artifact(tmp_path)


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    save_artifact(tree(), tmp_path / "a", manifest={})
    with pytest.raises(ArtifactError, match="never overwritten"):
        save_artifact(tree(), tmp_path / "a", manifest={})


def test_an_unwritable_place_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        save_artifact(tree(), tmp_path / "file" / "a", manifest={})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
