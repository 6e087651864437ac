"""Turns fields of runs, as lists of cells, into the Arrow columns that are checked and stored."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.readers.templates import parse_nested, plain_text, text_of
from recsys_ms.history.run import RULES, check_field, value_problem

#: Fields a mapping may give: those of a run that the history does not set itself.
RUN_FIELDS: Final = tuple(name for name in c.RUN_COLUMNS if name != c.INGESTED_AT)
#: Fields that hold names of their own, as ``hyperparameters.NAME``.
OPEN_FIELDS: Final = {c.HYPERPARAMETERS, c.TAGS}
#: Fields that hold numbers.
NUMBER_FIELDS: Final = tuple(n for n in RUN_FIELDS if RULES[n].kind in ("number", "integer"))
#: Characters of the sets of hyperparameters and tags that are remembered as JSON.
_CACHE_CHARACTERS: Final = 16 << 20


def missing_rows(
    cells: Sequence[Any], markers: Sequence[str], numbers: NumberStyle
) -> dict[int, str]:
    """Marker of every row whose value is one; an empty marker means the empty cell."""
    if not markers:
        return {}
    numeric = {n: marker for marker in markers if (n := numbers.number(marker)) is not None}
    found: dict[int, str] = {}
    for row, cell in enumerate(cells):
        text = "" if cell is None else plain_text(cell).strip()
        if text in markers:
            found[row] = text
        elif numeric and (number := numbers.number(cell)) in numeric and number is not None:
            found[row] = numeric[number]
    return found


def check_constants(constants: Mapping[str, str], mapping: FieldMapping) -> None:
    """Refuse constants that no run could have; ``UsageError`` names the first.

    A value that is set is wrong for a finished run if it is not finite; the status is then set too,
    or mapped.
    """
    for name, text in constants.items():
        try:
            if name in NUMBER_FIELDS:
                style = mapping.value_numbers if name == c.VALUE else mapping.numbers
                found = style.read(text)
                if isinstance(found, Unread):
                    raise DataError(found.reason)
                value = check_field(name, found, from_text=True)
                status = constants.get(c.STATUS, "" if c.STATUS in mapping.map else "finished")
                problem = value_problem(value, status) if name == c.VALUE else None
                if problem is not None:
                    raise DataError(problem)
            elif name in OPEN_FIELDS:
                check_field(name, _json_text(name, text, {}, {}, mapping.numbers))
            elif name in RULES:
                check_field(name, text, from_text=True)
        except DataError as error:
            raise UsageError(f"--set {name}={text}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class RunColumns:
    """Columns of runs as text, and the cells that should be numbers and are not.

    ``arrays`` are for :func:`recsys_ms.history.store.schema.build_runs`, null where a cell could
    not be read; ``unread`` has such cells by row and field.
    """

    arrays: Mapping[str, pa.Array]
    unread: Mapping[int, Mapping[str, Unread]]

    def reason(self, row: int) -> str:
        """What is wrong with the numbers of a row."""
        return "; ".join(f"{name}: {each.reason}" for name, each in self.unread[row].items())


class RunArrays:
    """Makes the columns of runs, batch after batch, by a mapping; remembers the JSON it made."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping
        self._cache: dict[str, str] = {}
        self._cached = 0

    def of(
        self,
        fields: Mapping[str, Sequence[Any]],
        n_rows: int,
        constants: Mapping[str, str],
        tags: Mapping[int, Mapping[str, str]],
    ) -> RunColumns:
        """Columns of ``n_rows`` runs.

        ``fields`` has cells by field, ``None`` where empty, ``constants`` the fields that are the
        same in every row, ``tags`` more tags by row. Entries such as ``hyperparameters.lr`` are
        joined to the dict of their field, and replace those in it.
        """
        arrays: dict[str, pa.Array] = {}
        unread: dict[int, dict[str, Unread]] = {}
        for name in RUN_FIELDS:
            column: Iterable[Any] | None = fields.get(name)
            if name in OPEN_FIELDS:
                column = self._json(name, fields, n_rows, constants, tags if name == c.TAGS else {})
            elif name in NUMBER_FIELDS:
                if column is None and name in constants:
                    column = [constants[name]] * n_rows
                if column is not None:
                    column = self._numbers(name, column, unread)
            if column is not None:
                arrays[name] = pa.array(map(text_of, column), pa.string())
            elif name in constants and name not in OPEN_FIELDS:
                arrays[name] = pa.repeat(constants[name], n_rows)
        return RunColumns(arrays=arrays, unread=unread)

    def _numbers(
        self, name: str, cells: Iterable[Any], unread: dict[int, dict[str, Unread]]
    ) -> list[Any]:
        """Cells with text as Python reads numbers; ``None``, and an entry, where it is none."""
        is_value = name == c.VALUE
        style = self._mapping.value_numbers if is_value else self._mapping.numbers
        known: dict[str, str | Unread] = {}
        found: list[Any] = []
        for row, cell in enumerate(cells):
            if not isinstance(cell, str) or not cell.strip():
                found.append(cell)
                continue
            read = known.get(cell)
            if read is None:
                read = known[cell] = self._explained(style.read(cell), is_value=is_value)
            if isinstance(read, Unread):
                unread.setdefault(row, {})[name] = read
            found.append(None if isinstance(read, Unread) else read)
        return found

    def _explained(self, found: str | Unread, *, is_value: bool) -> str | Unread:
        """What was not read, with the option that settles it; only a value has unit and spread."""
        if isinstance(found, str) or found.sign in ("decimal", ""):
            return found
        if not is_value:
            return Unread(f"{found.reason}, expected a number")
        if found.sign == "percent":
            unit = self._mapping.unit
            if unit is not None:
                return Unread(f"{found.reason}, but --unit {unit} says that values are a {unit}")
        return replace(found, reason=found.way_out)

    def _json(
        self,
        name: str,
        fields: Mapping[str, Sequence[Any]],
        n_rows: int,
        constants: Mapping[str, str],
        extra: Mapping[int, Mapping[str, str]],
    ) -> list[str] | None:
        """JSON by row; text that is not a dict is passed on, to be refused with its row."""
        prefix = f"{name}."
        single = {n.removeprefix(prefix): v for n, v in fields.items() if n.startswith(prefix)}
        fixed = {n.removeprefix(prefix): v for n, v in constants.items() if n.startswith(prefix)}
        whole = fields.get(name)
        if whole is None and name in constants:
            whole = [constants[name]] * n_rows
        if whole is None and not single and not fixed and not extra:
            return None
        composed: list[str] = []
        for row, cells in enumerate(zip(whole or [None] * n_rows, *single.values(), strict=True)):
            more = extra.get(row, {})
            # repr keeps 1, 1.0 and True apart, which are one key of a dict.
            key = repr((name, cells, more))
            if key not in self._cache:
                entries = {
                    n: cell for n, cell in zip(single, cells[1:], strict=True) if cell is not None
                }
                text = _json_text(name, cells[0], {**fixed, **entries}, more, self._mapping.numbers)
                self._remember(key, text)
                composed.append(text)
            else:
                composed.append(self._cache[key])
        return composed

    def _remember(self, key: str, text: str) -> None:
        if self._cached >= _CACHE_CHARACTERS:
            self._cache.clear()
            self._cached = 0
        self._cache[key] = text
        self._cached += len(key) + len(text)


def _json_text(
    field: str,
    whole: Any,
    entries: Mapping[str, Any],
    more: Mapping[str, str],
    numbers: NumberStyle,
) -> str:
    base = {} if whole is None else parse_nested(whole)
    if not isinstance(base, dict):
        return plain_text(whole)
    if field == c.TAGS:
        base = {key: plain_text(value) for key, value in base.items() if value is not None}
    typed = plain_text if field == c.TAGS else numbers.scalar
    return json.dumps({**base, **{n: typed(v) for n, v in entries.items()}, **more}, default=str)
