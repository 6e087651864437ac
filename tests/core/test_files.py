"""Files of others are opened safely; caches of arrays are whole or absent."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import ArtifactError, DataError, StorageError
from recsys_ms.core.files import open_regular, read_arrays, read_regular, write_arrays


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, max_bytes=5) == b"12345"
    with open_regular(path) as handle:
        assert handle.read(3) == b"123"
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", max_bytes=5, follow=True) == b"12345"
    with pytest.raises(ArtifactError, match=r"more than 4 bytes"):
        read_regular(path, max_bytes=4, raises=ArtifactError)


def test_a_file_whose_size_is_a_fiction_is_read_and_bounded() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("this system has no /proc")
    assert read_regular(path, max_bytes=1 << 20).startswith(b"Name:")
    with pytest.raises(DataError, match="more than 10 bytes"):
        read_regular(path, max_bytes=10)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("raises", [DataError, ArtifactError, StorageError])
def test_nothing_else_is_opened(tmp_path: Path, raises: type[DataError], *, follow: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        expected = {
            "pipe": "is a pipe",
            "folder": "is a folder",
            "socket": "is a socket",
            "zero": "is a device" if follow else "is a link",
            "loop": "cannot be read" if follow else "is a link",
            "lost": "cannot be read" if follow else "is a link",
            "absent": "cannot be read",
            "n\0ul": "cannot be read",
            "half\ud800": "cannot be read",
            "x" * 5000: "cannot be read",
        }
        for name, message in expected.items():
            with pytest.raises(raises, match=message):
                read_regular(tmp_path / name, max_bytes=10, follow=follow, raises=raises)


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
