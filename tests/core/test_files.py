"""Caches of arrays: whole or absent, and absent where they are damaged."""

from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import StorageError
from recsys_ms.core.files import read_arrays, write_arrays


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npz"
    assert read_arrays(path) is None
    write_arrays(path, way_out="", x=np.arange(3), text="told")
    write_arrays(path, way_out="", x=np.arange(4), text="again")
    found = read_arrays(path)
    assert found is not None
    assert found["x"].tolist() == [0, 1, 2, 3]
    assert str(found["text"]) == "again"
    # No temporary file is left.
    assert [each.name for each in path.parent.iterdir()] == ["a.npz"]


def test_a_damaged_file_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, way_out="", x=np.arange(1000))
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    for broken in (content[:200], b"", b"no archive", bytes(flipped)):
        path.write_bytes(broken)
        assert read_arrays(path) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written .*; name another"):
        write_arrays(tmp_path / "file" / "a.npz", way_out="name another", x=np.zeros(1))
