"""Templates over the columns of a table: ``"{Architecture}@{Source Dataset}"``, ``"{configs.lr}"``.

The syntax is like that of Python format strings, but a slot in braces is a column, or a column and
keys inside the dict it holds, and never an attribute. The module also reads single cells: numbers,
dicts, and the text of any value.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from recsys_ms.core.errors import UsageError, did_you_mean

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*[^{}\s][^{}]*)\}|[^{}]+|[{}]")
_SPEC: Final = re.compile(r"[<>^=]?[+ -]?0?\d{0,2}[,_]?(\.\d{1,2})?[bcdeEfFgGnosxX%]?")
_THOUSANDS: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_INTEGER: Final = re.compile(r"-?(0|[1-9]\d{0,17})")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A slot in braces: a column, keys inside its dicts, and a format."""

    column: str
    keys: tuple[str, ...]
    spec: str


@dataclass(frozen=True, slots=True)
class BoundTemplate:
    """A template whose columns were found: literal text and slots, in order."""

    parts: tuple["str | _Slot", ...]

    def apply(self, columns: Mapping[str, Sequence[Any]], n_rows: int) -> list[Any]:
        """Fill the template in for every row, from cells by column (``None`` where empty).

        The result is ``None`` where any slot is empty. A template that is one slot without a format
        keeps the type of the cell, every other one gives text.
        """
        if len(self.parts) == 1 and isinstance(self.parts[0], _Slot) and not self.parts[0].spec:
            return _cells(self.parts[0], columns)
        pieces: list[Sequence[str | None]] = []
        for part in self.parts:
            if isinstance(part, str):
                pieces.append([part] * n_rows)
            else:
                pieces.append([_formatted(cell, part.spec) for cell in _cells(part, columns)])
        return [
            None if None in row else "".join(text for text in row if text is not None)
            for row in zip(*pieces, strict=True)
        ]


def split_template(text: str) -> list[tuple[str, bool]]:
    """Split into ``(piece, is_slot)``; ``{{`` and ``}}`` are plain braces.

    Raises
    ------
    UsageError
        A brace without its partner, an empty slot, or a slot within a slot.
    """
    pieces: list[tuple[str, bool]] = []
    for found in _PIECE.finditer(text):
        piece, slot = found[0], found[1]
        if piece in ("{", "}"):
            raise UsageError(
                f"template {text!r}: the brace at position {found.start() + 1} has no partner, or "
                "no column inside; write {Column}, and {{ or }} for a plain brace"
            )
        if slot is not None:
            pieces.append((slot, True))
            continue
        literal = piece[:1] if piece in ("{{", "}}") else piece
        if pieces and not pieces[-1][1]:
            literal = pieces.pop()[0] + literal
        pieces.append((literal, False))
    return pieces


class UnknownColumnError(UsageError):
    """A template names a column that the table does not have."""


def bind_template(text: str, columns: Sequence[str], *, target: str) -> BoundTemplate:
    """Find the columns that the template of the field ``target`` names.

    Raises
    ------
    UsageError
        It names no column, or has a format that is not allowed.
    UnknownColumnError
        It names a column that does not exist; the message lists those that do.
    """
    pieces = split_template(text)
    if not any(is_slot for _, is_slot in pieces):
        hint = f"--map {target}='{{{text}}}'" if text in columns else f"--set {target}={text!r}"
        raise UsageError(f"--map {target}: template {text!r} names no column; did you mean {hint}?")
    known = set(columns)
    return BoundTemplate(
        tuple(_slot(p, known, columns, target) if is_slot else p for p, is_slot in pieces)
    )


def _slot(name: str, known: set[str], columns: Sequence[str], target: str) -> _Slot:
    path, spec = _path(name, known), ""
    if path is None and ":" in name:
        before, spec = name.rsplit(":", 1)
        path = _path(before, known)
    if path is None:
        raise UnknownColumnError(
            f"--map {target}: the table has no column {name!r}"
            f"{did_you_mean(name, columns, form='{{{}}}')}; its columns are: {', '.join(columns)}"
        )
    if not _SPEC.fullmatch(spec):
        raise UsageError(
            f"--map {target}: the format {spec!r} of {{{name}}} is not one of numbers or text "
            "of at most two digits, such as .3f or >8"
        )
    return _Slot(*path, spec)


def _path(name: str, known: set[str]) -> tuple[str, tuple[str, ...]] | None:
    """Column and keys: the longest dotted beginning of ``name`` that is a column wins."""
    words = name.split(".")
    for n_words in range(len(words), 0, -1):
        column = ".".join(words[:n_words])
        if column in known:
            return column, tuple(words[n_words:])
    return None


def parse_nested(value: object) -> Any:
    """Dict or list that ``value`` is or spells, as JSON or as a Python literal; else ``None``.

    It may be shared with other callers: do not change it.
    """
    if isinstance(value, str):
        return _parse_text(value) if value[:1] in ("{", "[") else None
    return value if isinstance(value, (dict, list)) else None


@lru_cache(maxsize=10_000)
def _parse_text(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    try:
        # Tuples become lists; keys that JSON does not know, and half surrogate pairs, are refused.
        json_text = json.dumps(found, ensure_ascii=False, default=str)
        json_text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    found = json.loads(json_text)
    return found if isinstance(found, (dict, list)) else None


def plain_text(value: object) -> str:
    """``value`` as the text of an id: whole floats without ``.0``, dicts as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return value.isoformat() if isinstance(value, date) else str(value)


def text_of(cell: Any) -> str | None:
    """Text of a cell; ``None`` where it is empty."""
    return cell if cell is None or type(cell) is str else plain_text(cell)


def scalar(value: Any) -> Any:
    """Number that a text spells, else the value itself: tables of text hold no types."""
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        if _FLOAT.fullmatch(value) and not re.match(r"[+-]?0\d", value):
            number = float(value)
            return number if isfinite(number) else value
    return value


def without_thousands(value: Any) -> Any:
    """``"1,013.01"`` as ``"1013.01"``; anything else, such as a decimal comma, as it is."""
    if isinstance(value, str) and "," in value and _THOUSANDS.fullmatch(value.strip()):
        return value.replace(",", "")
    return value


def to_number(value: object) -> float | None:
    """Number of a cell, NaN and infinities as such; ``None`` where it is not a number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    text = without_thousands(value)
    if not isinstance(text, str) or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _formatted(cell: object, spec: str) -> str | None:
    if cell is None:
        return None
    if not spec:
        return plain_text(cell)
    try:
        return format(scalar(without_thousands(cell)), spec)
    except (ValueError, TypeError):
        # The format of a number on a cell that is not one: empty for this template.
        return None


def _cells(slot: _Slot, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    cells = columns[slot.column]
    return [_walk(parse_nested(cell), slot.keys) for cell in cells] if slot.keys else list(cells)


def _walk(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return None if value == "" else value
