import gzip
import hashlib
import io

import pytest

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.lines import MAX_LINE_BYTES, BadLineError, Lines, open_lines


def everything(lines):
    found = []
    while True:
        try:
            line = next(lines, None)
        except BadLineError as error:
            found.append(error.bad)
            continue
        if line is None:
            return found
        found.append(line)


def test_numbers_text_and_ends():
    lines = Lines(io.BytesIO("\ufeffa\r\nb\n\nlast".encode()), "utf-8")
    assert everything(lines) == ["a\r\n", "b\n", "\n", "last"]
    assert lines.number == 4


def test_pushed_back_lines_come_again_under_their_numbers():
    lines = Lines(io.BytesIO(b"a\nb\nc\n"), "utf-8")
    taken = [next(lines), next(lines)]
    lines.push_back(taken[1:])
    assert lines.number == 1
    assert everything(lines) == ["b\n", "c\n"]
    assert lines.number == 3


def test_a_line_that_is_not_text_is_one_bad_line():
    found = everything(Lines(io.BytesIO(b"a\ncaf\xe9,1\nb\n"), "utf-8"))
    assert [found[0], found[2]] == ["a\n", "b\n"]
    assert found[1].line == 2
    assert found[1].raw == r"caf\xe9,1"
    assert "position 4" in found[1].reason
    assert found[1].final


def test_a_long_line_is_noted_and_the_rest_is_read():
    long = b"x" * (3 * MAX_LINE_BYTES) + b"\n"
    found = everything(Lines(io.BytesIO(b"a\n" + long + b"b\n"), "utf-8"))
    assert [found[0], found[2]] == ["a\n", "b\n"]
    assert str(len(long)) in found[1].reason
    assert hashlib.sha256(long).hexdigest() in found[1].reason
    assert len(found[1].raw) < 10_000


def test_a_line_of_exactly_the_limit_is_read():
    line = b"x" * (MAX_LINE_BYTES - 1) + b"\n"
    assert everything(Lines(io.BytesIO(line + b"b"), "utf-8")) == [line.decode(), "b"]


def test_a_long_last_line_without_its_end():
    found = everything(Lines(io.BytesIO(b"x" * (MAX_LINE_BYTES + 5)), "utf-8"))
    assert len(found) == 1
    assert str(MAX_LINE_BYTES + 5) in found[0].reason


def test_utf_16_is_named():
    with pytest.raises(DataError, match="UTF-16"):
        next(Lines(io.BytesIO("a\n".encode("utf-16")), "utf-8"))


def test_gzip_and_a_broken_one(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\nb\n" * 10_000))
    handle, lines = open_lines(path, "utf-8")
    with handle:
        assert len(everything(lines)) == 20_000
    path.write_bytes(path.read_bytes()[:-20])
    handle, lines = open_lines(path, "utf-8")
    with handle, pytest.raises(DataError, match="reading stopped here"):
        everything(lines)


@pytest.mark.parametrize(
    "wrong",
    "utf-16 utf-32-le utf-7 idna punycode undefined base64 rot13 hex zlib unicode_escape hz "
    "raw_unicode_escape iso2022_jp iso2022_kr cp037 shift_jisx0213 nosuch mbcs".split(),
)
def test_encodings_that_cannot_be_read_by_line_are_refused_before_reading(tmp_path, wrong):
    with pytest.raises(UsageError, match="--encoding") as error:
        open_lines(tmp_path / "absent.csv", wrong)
    assert wrong in str(error.value)


@pytest.mark.parametrize("name", ["utf-8-sig", "cp1251", "gb18030", "shift_jis", "mac_roman"])
def test_encodings_of_which_ascii_is_a_part_are_read(tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_bytes("model,acc\nm,0.5\n".encode(name))
    handle, lines = open_lines(path, name)
    with handle:
        assert list(lines) == ["model,acc\n", "m,0.5\n"]


def test_encodings(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("café".encode("latin-1"))
    handle, lines = open_lines(path, "latin-1")
    with handle:
        assert next(lines) == "café"
    with pytest.raises(DataError, match="no such file"):
        open_lines(tmp_path / "absent.csv", "utf-8")
