"""Values of logs as plain data: numbers, texts, settings in YAML or JSON, dicts spelt in cells."""

import ast
import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.logged import BadLog, BadLogError, LogFiles
from recsys_ms.history.readers.number_style import scalar
from recsys_ms.history.readers.yaml_text import yaml_value

#: A YAML text of a few lines can expand to a billion entries; no training has so many settings.
_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 60
#: Largest whole number below which a float holds every whole number.
_MAX_STEP: Final = 2**53
_INT64: Final = range(-(2**63), 2**63)
#: Bare names in the repr of a dict with floats that are not finite.
_NAMED_FLOATS: Final = {"nan": math.nan, "NaN": math.nan, "inf": math.inf, "Infinity": math.inf}
_MAX_NESTED: Final = 8
_SPLIT: Final = re.compile(
    r"(train|training|val|valid|validation|dev|eval|evaluation|test)[_/.-](.+)", re.DOTALL
)
_PATH_SEPARATORS: Final = re.compile(r"[/\\]+")
_DATA_SUFFIX: Final = re.compile(r"\.(ya?ml|json|csv|txt|zip|tar|tar\.gz)$", re.IGNORECASE)
#: Names of files and folders that say nothing about which data they hold.
_COMMON_DATA_NAMES: Final = frozenset(
    "data dataset datasets custom custom_data config content images imgs train training val valid "
    "test input yolo yolov5 yolov8 coco_format dataset_custom data_custom tmp home root".split()
)


def number(value: Any) -> float | None:
    """``value`` as a float if it is a number, else ``None``; truth values are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def step_of(value: Any) -> int | None:
    """``value`` as a step if it is a whole number, else ``None``."""
    found = number(value)
    if found is None or not abs(found) < _MAX_STEP or found != int(found):
        return None
    return int(found)


def whole_number(value: Any) -> int | None:
    """``value`` if it is an integer of 64 bits, else ``None``."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and value in _INT64 else None


def stated(value: Any) -> str | None:
    """``value`` without surrounding spaces if it is a text that is not blank, else ``None``."""
    return (value.strip() or None) if isinstance(value, str) else None


def group_of(settings: Mapping[str, Any], key: str) -> JsonDict:
    """The object under a key; empty where there is none, or something else."""
    found = settings.get(key)
    return found if isinstance(found, dict) else {}


def not_none(fields: Mapping[str, Any]) -> JsonDict:
    """The entries that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def named_by_path(text: str | None) -> str | None:
    """Name of the data set that a path leads to: ``birds`` of ``/content/birds/data.yaml``.

    The last part that is not a common word for data, of the last two; ``None`` where both are.
    """
    parts = [part for part in _PATH_SEPARATORS.split(text or "") if part.strip(". ")]
    for part in parts[:-3:-1]:
        name = _DATA_SUFFIX.sub("", part).strip()
        if name.lower() not in _COMMON_DATA_NAMES:
            return clean(name)
    return None


def clean(text: str) -> str:
    """``text`` with lone surrogates escaped, which no UTF-8 file can hold."""
    return text.encode(errors="backslashreplace").decode()


def nested_numbers(
    part: Mapping[str, Any], *, left_out: Container[str] = (), prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, float]]:
    """Numbers of an object by name, those of objects in it as ``val/acc``.

    Names in ``left_out`` are those of its own entries.
    """
    for key, value in part.items():
        if key in left_out:
            continue
        found = number(value)
        if found is not None:
            yield prefix + key, found
        elif isinstance(value, Mapping) and depth < _MAX_NESTED:
            yield from nested_numbers(value, prefix=f"{prefix}{key}/", depth=depth + 1)


def split_of(name: str, pattern: re.Pattern[str] = _SPLIT) -> tuple[str | None, str]:
    """Split and metric of a logged name: ``val/acc``, ``val_acc`` are ``acc`` on ``val``.

    The groups of another ``pattern`` are the split and the metric.
    """
    found = pattern.fullmatch(name)
    return (found[1], found[2]) if found else (None, name)


def plain(value: Any, *, finite: bool = False) -> Any:
    """``value`` as JSON data: keys and other types as text, tuples and sets as lists.

    Parameters
    ----------
    value : object
        Any data.
    finite : bool, default False
        Write NaN, infinities and integers beyond 64 bits as text, as strict JSON needs.

    Raises
    ------
    ValueError
        Nested too deeply, or more than 100,000 entries.
    """
    n_left = _MAX_ENTRIES

    def convert(value: Any, depth: int) -> Any:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise ValueError(f"more than {_MAX_ENTRIES} entries")
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            fits = value in _INT64 if isinstance(value, int) else math.isfinite(value)
            return value if fits or not finite else str(value)
        if isinstance(value, Mapping):
            return {clean(str(key)): convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [convert(item, depth + 1) for item in value]
        return value.isoformat() if isinstance(value, date) else clean(str(value))

    return convert(value, 0)


def parse_cell(text: str) -> Any:
    """Plain data of a cell with JSON or a Python literal, NaN and infinities included.

    Raises
    ------
    ValueError
        The text is neither, or is code (a call, an attribute).
    """
    try:
        try:
            found = json.loads(text)
        except ValueError:
            found = ast.literal_eval(_NameFloats().visit(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"neither JSON nor a Python literal: {error}") from error
    return plain(found)


class _NameFloats(ast.NodeTransformer):
    """Replace ``nan`` and ``inf``, which are names to Python, by their values."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_NAMED_FLOATS[node.id]) if node.id in _NAMED_FLOATS else node


def typed(cell: Any) -> Any:
    """Value that a cell of a text table spells: number, truth value, dict or list, else itself."""
    if not isinstance(cell, str):
        return plain(cell)
    if cell in ("True", "False", "true", "false"):
        return cell in ("True", "true")
    if cell[:1] in ("{", "["):
        try:
            return parse_cell(cell)
        except ValueError:
            return cell
    return scalar(cell)


def settings_of(text: str, kind: Literal["JSON", "YAML"] = "YAML") -> JsonDict:
    """Settings of a text in YAML or JSON, where NaN and Infinity are allowed.

    Raises
    ------
    ValueError
        The text is not a mapping of plain data.
    """
    try:
        found = json.loads(text) if kind == "JSON" else yaml_value(text)
    except (ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:300]
        raise ValueError(f"not plain data in {kind} ({problem}); correct the file") from error
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"got a {type(found).__name__}, expected settings by name")
    settings: JsonDict = plain(found or {}, finite=True)
    return settings


def read_settings(path: Path, files: LogFiles, bad: list[BadLog]) -> JsonDict:
    """Settings of a YAML or (by its suffix) JSON file; empty if there is none, or a damaged one.

    A damaged file is added to ``bad``.
    """
    text = text_if_any(path, files, bad)
    if text is None:
        return {}
    try:
        return settings_of(text, "JSON" if path.suffix == ".json" else "YAML")
    except ValueError as error:
        bad.append(BadLog(file=path, reason=str(error), raw=text))
        return {}


def text_if_any(path: Path, files: LogFiles, bad: list[BadLog]) -> str | None:
    """Text of a file; ``None`` if there is none, or one that cannot be read (added to ``bad``)."""
    try:
        return files.text(path) if files.exists(path) else None
    except BadLogError as error:
        bad.append(error.bad)
        return None
