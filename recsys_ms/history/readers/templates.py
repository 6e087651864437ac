"""Templates over the columns of a table: ``"{Architecture}@{Source Dataset}"``, ``"{configs.lr}"``.

The syntax is that of Python format strings, read by this module alone: what stands in the braces is
a column, or a column and keys inside the dict it holds, and never an attribute.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final

from recsys_ms.core.errors import UsageError

_SPEC: Final = re.compile(r"[<>^=]?[+ -]?0?\d{0,2}[,_]?(\.\d{1,2})?[bcdeEfFgGnosxX%]?")
_THOUSANDS: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_INTEGER: Final = re.compile(r"-?(0|[1-9]\d{0,17})")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: Distinct texts of dicts that are remembered parsed.
_CACHE_SIZE: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Slot:
    """What stands between two braces, once the columns are known."""

    column: str
    keys: tuple[str, ...]
    spec: str


@dataclass(frozen=True, slots=True)
class BoundTemplate:
    """A template whose columns were found.

    Attributes
    ----------
    text : str
        The template as written.
    parts : tuple of str or slot
        Literal text and slots, in order.
    """

    text: str
    parts: tuple["str | _Slot", ...]

    def apply(self, columns: Mapping[str, Sequence[Any]], n_rows: int) -> list[Any]:
        """Fill the template in for every row.

        Parameters
        ----------
        columns : mapping of column name to sequence of length ``n_rows``
            Cells; ``None`` where empty.
        n_rows : int
            Number of rows.

        Returns
        -------
        list of length n_rows
            ``None`` where any slot is empty. A template that is one slot without a format keeps the
            type of the cell, every other one gives text.
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

    @property
    def nested(self) -> tuple[str, ...]:
        """Slots that look inside a column, as ``column.key``."""
        slots = (part for part in self.parts if isinstance(part, _Slot) and part.keys)
        return tuple(".".join((slot.column, *slot.keys)) for slot in slots)


def split_template(text: str) -> list[tuple[str, bool]]:
    """Split into ``(piece, is_slot)``; ``{{`` and ``}}`` are plain braces.

    Raises
    ------
    UsageError
        A brace without its partner, an empty slot, or a slot within a slot.
    """
    pieces: list[tuple[str, bool]] = []
    literal, at = "", 0
    while at < len(text):
        char = text[at]
        if char in "{}" and text[at : at + 2] == char * 2:
            literal, at = literal + char, at + 2
        elif char == "{":
            end = text.find("}", at)
            name = text[at + 1 : end]
            if end < 0 or "{" in name or not name.strip():
                raise UsageError(
                    f"template {text!r}: the brace at position {at + 1} encloses no column; "
                    "write {Column}, and {{ for a plain brace"
                )
            if literal:
                pieces.append((literal, False))
            pieces.append((name, True))
            literal, at = "", end + 1
        elif char == "}":
            raise UsageError(
                f"template {text!r}: the brace at position {at + 1} closes nothing; "
                "write }} for a plain brace"
            )
        else:
            literal, at = literal + char, at + 1
    if literal:
        pieces.append((literal, False))
    return pieces


def bind_template(text: str, columns: Sequence[str], *, target: str) -> BoundTemplate:
    """Find the columns that a template names.

    Parameters
    ----------
    text : str
        The template.
    columns : sequence of str
        Columns there are.
    target : str
        The field it is for, named in errors.

    Raises
    ------
    UsageError
        It names no column, one that does not exist, or has a format that is not allowed. The
        message lists the columns, the likely ones first.
    """
    pieces = split_template(text)
    if not any(is_slot for _, is_slot in pieces):
        hint = f"--map {target}='{{{text}}}'" if text in columns else f"--set {target}={text!r}"
        raise UsageError(f"--map {target}: template {text!r} names no column; did you mean {hint}?")
    known = set(columns)
    parts: list[str | _Slot] = []
    for piece, is_slot in pieces:
        parts.append(_slot(piece, known, columns, target) if is_slot else piece)
    return BoundTemplate(text, tuple(parts))


def _slot(name: str, known: set[str], columns: Sequence[str], target: str) -> _Slot:
    path = _path(name, known)
    spec = ""
    if path is None and ":" in name:
        before, spec = name.rsplit(":", 1)
        path = _path(before, known)
    if path is None:
        raise no_such_column(name, columns, target=f"--map {target}")
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


def no_such_column(name: str, columns: Sequence[str], *, target: str) -> UsageError:
    """Error that lists the columns, with the likely ones first."""
    by_folded = {column.casefold(): column for column in columns}
    near = [
        by_folded[match] for match in get_close_matches(name.casefold(), list(by_folded), 3, 0.5)
    ]
    hint = f"; did you mean {' or '.join(f'{{{column}}}' for column in near)}?" if near else ""
    return UsageError(
        f"{target}: the table has no column {name!r}{hint} Its columns are: {', '.join(columns)}"
    )


def parse_nested(value: object) -> Any:
    """Dict or list that ``value`` is or spells, as JSON or as a Python literal; else ``None``."""
    if isinstance(value, (dict, list)):
        return value
    if not isinstance(value, str) or value[:1] not in "{[":
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    try:
        # Tuples become lists; keys that JSON does not know, and half surrogate pairs, are refused.
        text = json.dumps(found, ensure_ascii=False, default=str)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    found = json.loads(text)
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
        # A number's format on a cell that holds none: the cell says nothing this template can use.
        return None


def _cells(slot: _Slot, columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    cells = columns[slot.column]
    if not slot.keys:
        return list(cells)
    return list(map(_reader(slot.keys), cells))


def _reader(keys: tuple[str, ...]) -> Callable[[object], Any]:
    cache: dict[str, Any] = {}

    def read(cell: object) -> Any:
        if not isinstance(cell, str):
            return _walk(parse_nested(cell), keys)
        if cell not in cache:
            if len(cache) >= _CACHE_SIZE:
                cache.clear()
            cache[cell] = _walk(parse_nested(cell), keys)
        return cache[cell]

    return read


def _walk(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return None if value == "" else value
