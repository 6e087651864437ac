"""The safe reader of YAML: every text gives plain data or a typed error, soon."""

import time
from contextlib import suppress

import pytest

from recsys_ms.core.errors import DataError
from recsys_ms.history.readers.formats.plain_values import settings_of
from recsys_ms.history.readers.yaml_text import yaml_value

#: Thousands of millions of entries in short texts.
_ALIASES = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
_MERGES = "a: &a {k0: 1, k1: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
_HOSTILE = {
    "empty int": "x: !!int ''\nmodel: m\n",
    "int of letters": "x: !!int maybe",
    "hex without digits": "x: !!int 0x",
    "bool": "x: !!bool maybe\nmodel: m\n",
    "float": "x: !!float x",
    "empty float": "x: !!float ''",
    "timestamp": "x: !!timestamp x",
    "month 99": "x: 2001-99-99",
    "binary": 'x: !!binary "\u00ff"',
    "merge tag": "x: !!merge y",
    "merge of a number": "<<: 3",
    "code": "x: !!python/object/apply:os.system ['true']",
    "list as a key": "? [a]\n: b",
    "ordered map": "x: !!omap [a]",
    "surrogate": "x: \ud800",
    "NUL": "x: \x00",
    "deep list": "x: " + "[" * 100_000,
    "deep dict": "{a: " * 5_000,
    "deep block": "- " * 50_000,
    "deep but closed": "x: " + "[" * 500 + "]" * 500,
    "holds itself": "a: &a [*a, *a]",
    "holds itself as a dict": "&a {b: *a, c: *a}",
    "aliases": _ALIASES,
    "merges of one mapping": "a: &a {b: 1}\nc: {<<: [" + "*a," * 100_000 + "]}",
    "base 60": "x: 1" + ":59" * 100_000,
    "long integer": "x: " + "9" * 5_000,
    "long hex": "x: 0x" + "f" * 500_000,
    "too large": "x: " + "a" * (3 << 20),
    "two documents": "a: 1\n---\nb: 2\n",
    "a list": "[1, 2]",
    "a text": "just text",
}


@pytest.mark.parametrize("text", _HOSTILE.values(), ids=_HOSTILE)
def test_a_hostile_text_is_a_typed_error_soon(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"not plain data|expected settings|entries|levels"):
        settings_of(text)
    assert time.perf_counter() - started < 5.0


def test_merges_of_merges_take_no_time() -> None:
    # PyYAML before 6.0.4 keeps every entry, and is stopped; later ones keep one of each key.
    started = time.perf_counter()
    with suppress(ValueError):
        assert set(settings_of(_MERGES)["k"]) == {"k0", "k1"}
    assert time.perf_counter() - started < 5.0


def test_an_error_of_a_constructor_names_its_line() -> None:
    with pytest.raises(DataError, match=r"line 2: '' does not have the type !!int"):
        yaml_value("model: m\nx: !!int ''\n")


def test_ordinary_settings_are_read_as_yaml_has_them() -> None:
    text = (
        "base: &base {lr: 0.1, epochs: 3}\n"
        "run: {<<: *base, epochs: 5}\n"
        "seed: !!int '7'\nname: resnet18\nwhen: 2024-01-02\nlist: [1, x, null, true]\n"
    )
    assert settings_of(text) == {
        "base": {"lr": 0.1, "epochs": 3},
        "run": {"lr": 0.1, "epochs": 5},
        "seed": 7,
        "name": "resnet18",
        "when": "2024-01-02",
        "list": [1, "x", None, True],
    }
    assert settings_of("") == {}


def test_tuples_and_paths_of_python_are_plain_data() -> None:
    text = (
        "betas: !!python/tuple\n- 0.9\n- 0.999\nsize: !!python/tuple [[1, 2], 3]\n"
        "root: !!python/object/apply:pathlib.PosixPath\n- /\n- data\n- birds\n"
    )
    assert settings_of(text) == {
        "betas": [0.9, 0.999],
        "size": [[1, 2], 3],
        "root": "/data/birds",
    }
    for odd in ("{a: 1}", "[&a [*a]]", "5", "[[1]]"):
        with suppress(ValueError):
            settings_of(f"x: !!python/object/apply:pathlib.Path {odd}")
        with suppress(ValueError):
            settings_of(f"x: !!python/tuple {odd}")
