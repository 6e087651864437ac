"""JSON of others is parsed whole, or refused with one kind of error."""

import json

import pytest

from recsys_ms.core.errors import DataError
from recsys_ms.core.json_text import MAX_DEPTH, parse_json


def test_json_is_parsed_as_python_parses_it() -> None:
    document = {"a": [1, -2.5e-3, None, True, "é😀"], "b": {"c": {}}, "": [[]]}
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=1)):
        assert parse_json(text) == document
        assert parse_json(text.encode()) == document
        assert parse_json(b"\xef\xbb\xbf" + text.encode()) == document
    # A backslash before the letter: text and not half a character.
    assert parse_json(r'"\\ud800"') == "\\ud800"
    assert str(parse_json("[NaN, -Infinity]")) == "[nan, -inf]"
    assert parse_json("-" + "9" * 308) == -int("9" * 308)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not whole JSON"),
        ("{", "not whole JSON"),
        ("\0" * 99, "not whole JSON"),
        ('{"a": 1} {}', "not whole JSON"),
        (b"\xff\xfe{", "not UTF-8 .at position 0"),
        ('"\udcff"', "not UTF-8 .at position 1"),
        (r'{"a\ud83d": 1}', r"half a character .\\ud83d. stands alone"),
        (r'["\uDE00"]', "half a character"),
        ("[" * 100_000, "inside each other"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "inside each other"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "inside each other"),
        ("1" + "0" * 400, "whole number of 401 digits"),
        ("1" + "0" * 10_000, "whole number of 10001 digits"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(text)


def test_the_greatest_depth_is_read() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", "-1e400"])
def test_only_finite_numbers_where_that_is_wanted(text: str) -> None:
    assert parse_json(text) != []
    with pytest.raises(DataError, match="finite numbers"):
        parse_json(text, finite=True)
    assert parse_json("[1e308, 5, -0.5]", finite=True) == [1e308, 5, -0.5]
