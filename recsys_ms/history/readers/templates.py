"""Templates over the columns of a table: ``"{Architecture}@{Source Dataset}"``, ``"{configs.lr}"``.

The syntax is like that of Python format strings, but a slot in braces is a column, or a column and
keys inside the dict it holds, and never an attribute. The module also reads single cells: dicts,
and the text of any value.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from recsys_ms.core.errors import DataError, UsageError, did_you_mean
from recsys_ms.core.json_text import parse_json
from recsys_ms.history.readers.number_style import PLAIN_NUMBERS, Formatted, NumberStyle, Unread

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*[^{}\s][^{}]*)\}|[^{}]+|[{}]")
_SPEC: Final = re.compile(r"[<>^=]?[+ -]?0?\d{0,2}[,_]?(\.\d{1,2})?[bdeEfFgGnosxX%]?")
#: Characters of a name in a list of names.
_SHOWN: Final = 80
#: Longest text that is remembered once it was parsed, and longest that may be a Python literal.
_MAX_REMEMBERED: Final = 4_096
_MAX_LITERAL: Final = 65_536


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

    def apply(
        self, columns: Mapping[str, Sequence[Any]], n_rows: int, style: NumberStyle = PLAIN_NUMBERS
    ) -> list[Any]:
        """Fill the template in for every row, from cells by column (``None`` where empty).

        The result is ``None`` where any slot is empty, and an ``Unread`` where a cell does not fit
        the format of its slot. A template that is one slot without a format keeps the type of the
        cell, every other one gives text.
        """
        if len(self.parts) == 1 and isinstance(self.parts[0], _Slot) and not self.parts[0].spec:
            return _cells(self.parts[0], columns)
        pieces: list[Sequence[str | Unread | None]] = []
        for part in self.parts:
            if isinstance(part, str):
                pieces.append([part] * n_rows)
            else:
                cells = _cells(part, columns)
                pieces.append([_formatted(cell, part.spec, style) for cell in cells])
        return [_joined(row) for row in zip(*pieces, strict=True)]

    @property
    def has_format(self) -> bool:
        """Whether a slot has a format, which a cell may not fit."""
        return any(isinstance(part, _Slot) and part.spec for part in self.parts)

    @property
    def columns(self) -> set[str]:
        """Names of the columns in its slots."""
        return {part.column for part in self.parts if isinstance(part, _Slot)}


def _joined(row: Sequence[str | Unread | None]) -> str | Unread | None:
    if len(row) == 1:
        return row[0]
    texts = [piece for piece in row if isinstance(piece, str)]
    if len(texts) == len(row):
        return "".join(texts)
    return None if None in row else next(piece for piece in row if isinstance(piece, Unread))


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


def bind_template(
    text: str,
    columns: Sequence[str],
    *,
    target: str,
    repeated: Mapping[str, Sequence[str]] | None = None,
) -> BoundTemplate:
    """Find the columns that the template of the field ``target`` names.

    ``repeated`` has the names that several columns of the table have, and what each is called.

    Raises
    ------
    UsageError
        It names no column, several of one name, or has a format that is not allowed.
    UnknownColumnError
        It names a column that does not exist; the message lists those that do.
    """
    pieces = split_template(text)
    if not any(is_slot for _, is_slot in pieces):
        hint = f"--map {target}='{{{text}}}'" if text in columns else f"--set {target}={text!r}"
        raise UsageError(f"--map {target}: template {text!r} names no column; did you mean {hint}?")
    binder = _Binder(columns, repeated or {}, target)
    return BoundTemplate(tuple(binder.slot(p) if is_slot else p for p, is_slot in pieces))


class _Binder:
    """Finds the columns of the slots of one template."""

    def __init__(
        self, columns: Sequence[str], repeated: Mapping[str, Sequence[str]], target: str
    ) -> None:
        self._columns = columns
        self._repeated = repeated
        self._known = {*columns, *repeated}
        self._target = target

    def slot(self, name: str) -> _Slot:
        path, spec = self._path(name), ""
        if path is None and ":" in name:
            before, spec = name.rsplit(":", 1)
            path = self._path(before)
        if path is None:
            raise UnknownColumnError(
                f"--map {self._target}: the table has no column {name!r}"
                f"{did_you_mean(name, self._columns[:1_000], form='{{{}}}')}; its columns are: "
                f"{named(self._columns)}"
            )
        if path[0] in self._repeated:
            ways = " or ".join(f"{{{each}}}" for each in self._repeated[path[0]][:5])
            raise UsageError(
                f"--map {self._target}: {len(self._repeated[path[0]])} columns are named "
                f"{path[0]!r}; say which, from left to right: {ways}"
            )
        if not _SPEC.fullmatch(spec):
            raise UsageError(
                f"--map {self._target}: the format {spec!r} of {{{name}}} is not one of numbers or "
                "text of at most two digits, such as .3f or >8"
            )
        return _Slot(*path, spec)

    def _path(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """Column and keys: the longest dotted beginning of ``name`` that is a column wins."""
        words = name.split(".")
        for n_words in range(len(words), 0, -1):
            column = ".".join(words[:n_words])
            if column in self._known:
                return column, tuple(words[n_words:])
        return None


def named(names: Sequence[str], n: int = 40) -> str:
    """The first names of a list, and the number of the others."""
    more = f" and {len(names) - n} more" if len(names) > n else ""
    shown = (name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…" for name in names[:n])
    return ", ".join(shown) + more if names else "none"


def parse_nested(value: object) -> Any:
    """Dict or list that ``value`` is or spells, as JSON or as a Python literal; else ``None``.

    It may be shared with other callers: do not change it.
    """
    if isinstance(value, str):
        if value[:1] not in ("{", "["):
            return None
        return _remembered(value) if len(value) <= _MAX_REMEMBERED else _parse_text(value)
    return value if isinstance(value, (dict, list)) else None


def _parse_text(text: str) -> Any:
    try:
        found = parse_json(text)
    except DataError:
        if len(text) > _MAX_LITERAL:
            return None
        try:
            # Tuples become lists; keys that JSON does not know are refused.
            found = parse_json(json.dumps(ast.literal_eval(text), ensure_ascii=False, default=str))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    return found if isinstance(found, (dict, list)) else None


_remembered: Final = lru_cache(maxsize=10_000)(_parse_text)


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


def _formatted(cell: object, spec: str, style: NumberStyle) -> str | Unread | None:
    if cell is None or isinstance(cell, Unread):
        return cell
    text = plain_text(cell)
    if not spec:
        return text
    shown = f"{text[:80]!r} cannot be written in the format {spec!r}"
    value = style.scalar(cell)
    if isinstance(value, str) and not spec.endswith("s"):
        read = style.read(value)
        if isinstance(read, Unread) and read.sign:
            return Unread(f"{shown}: {read.reason}")
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    for each in (value, text) if is_number else (text,):
        try:
            found = format(each, spec)
            return found if each is text else Formatted(found)
        except (ValueError, TypeError, OverflowError):
            # The format of a number on a text, that of a text on a number, or a number too large.
            continue
    return Unread(shown)


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
