"""Fields of runs that need more than a column: the value, and JSON put together from entries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from recsys_ms.core import columns as c
from recsys_ms.core.types import BoolArray, FloatArray
from recsys_ms.history.readers.rows import MappedRows, RowMapper
from recsys_ms.history.readers.templates import parse_nested, plain_text, scalar, to_number

_MISSING_TAG: Final = "missing"
#: Distinct sets of hyperparameters or tags that are remembered as JSON.
_CACHE_SIZE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunValues:
    """The values of a batch in the unit the history keeps, and the rows that have none.

    Attributes
    ----------
    numbers : ndarray of shape (n_rows,)
        Values, percent divided by 100. NaN also where there is none; see ``empty``.
    empty : ndarray of bool, shape (n_rows,)
        Rows without a value.
    problems : mapping of row to str
        Values that are no numbers or outside their unit's range.
    failed : mapping of row to str
        Rows with a marker in the place of a value, and the marker.
    largest : float or None
        Largest finite value as the table says it.
    """

    numbers: FloatArray
    empty: BoolArray
    problems: Mapping[int, str]
    failed: Mapping[int, str]
    largest: float | None

    @classmethod
    def of(cls, mapped: MappedRows, mapper: RowMapper) -> "RunValues":
        """Read the values of the rows of ``mapped``."""
        mapping = mapper.mapping
        n_rows = len(mapped.rows)
        constant = mapper.bound.constants.get(c.VALUE)
        cells: list[Any] = mapped.fields.get(c.VALUE) or [constant] * n_rows
        cells = [None if isinstance(cell, str) and not cell.strip() else cell for cell in cells]
        failed = missing_rows(cells, mapping.missing)
        problems: dict[int, str] = {}
        numbers = np.full(n_rows, np.nan)
        empty = np.ones(n_rows, dtype=bool)
        for row, cell in enumerate(cells):
            if cell is None or row in failed:
                continue
            number = to_number(cell)
            if number is None:
                problems[row] = f"value: got {plain_text(cell)[:80]!r}, wanted a number"
            else:
                numbers[row] = number
                empty[row] = False
        finite = np.isfinite(numbers)
        largest = float(numbers[finite].max()) if finite.any() else None
        if mapping.unit is not None:
            top = 100.0 if mapping.unit == "percent" else 1.0
            for row in np.flatnonzero(finite & ~((numbers >= 0.0) & (numbers <= top))).tolist():
                problems[row] = _outside(float(numbers[row]), mapping.unit)
            if mapping.unit == "percent":
                numbers = numbers / 100.0
        return cls(numbers=numbers, empty=empty, problems=problems, failed=failed, largest=largest)

    @property
    def tags(self) -> dict[int, dict[str, str]]:
        """Tags that say which rows had a marker in the place of a value."""
        return {row: {_MISSING_TAG: marker} for row, marker in self.failed.items()}

    def status(self, mapped: MappedRows, constant: str | None) -> dict[str, list[Any]]:
        """Status by row, where a marker makes it differ from what the table says."""
        if not self.failed:
            return {}
        said = mapped.fields.get(c.STATUS) or [constant or "finished"] * len(mapped.rows)
        return {
            c.STATUS: ["failed" if row in self.failed else text for row, text in enumerate(said)]
        }


def _outside(value: float, unit: str) -> str:
    if unit == "percent":
        return f"value: {value:g} is no percentage in [0, 100]; without --unit it is kept as it is"
    if 1.0 < value <= 100.0:
        return (
            f"value: {value:g} is no fraction in [0, 1]; if the log is in percent: --unit percent"
        )
    return f"value: {value:g} is no fraction in [0, 1]; without --unit it is kept as it is"


def missing_rows(cells: list[Any], markers: tuple[str, ...]) -> dict[int, str]:
    """Marker of every row whose value is one; an empty marker means the empty cell."""
    if not markers:
        return {}
    numeric = {number: marker for marker in markers if (number := to_number(marker)) is not None}
    found: dict[int, str] = {}
    for row, cell in enumerate(cells):
        text = "" if cell is None else plain_text(cell).strip()
        if text in markers:
            found[row] = text
        elif numeric and (number := to_number(cell)) in numeric and number is not None:
            found[row] = numeric[number]
    return found


class JsonField:
    """``hyperparameters`` or ``tags`` as JSON text, put together from a dict and single entries."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cache: dict[str, str] = {}

    def compose(
        self,
        mapped: MappedRows,
        constants: Mapping[str, str],
        extra: Mapping[int, Mapping[str, str]] | None,
    ) -> list[str | None] | None:
        """JSON by row; text that is no dict is passed on as it is, to be refused with its row."""
        prefix = f"{self._name}."
        single = {
            n.removeprefix(prefix): v for n, v in mapped.fields.items() if n.startswith(prefix)
        }
        fixed = {n.removeprefix(prefix): v for n, v in constants.items() if n.startswith(prefix)}
        whole = mapped.fields.get(self._name)
        if whole is None and self._name in constants:
            whole = [constants[self._name]] * len(mapped.rows)
        if whole is None and not single and not fixed and not extra:
            return None
        columns = [whole or [None] * len(mapped.rows), *single.values()]
        names = list(single)
        composed: list[str | None] = []
        for row, cells in enumerate(zip(*columns, strict=True)):
            more = extra.get(row) if extra else None
            # repr keeps 1, 1.0 and True apart, which are one key of a dict.
            key = repr((cells, more))
            if key not in self._cache:
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                self._cache[key] = self._spell(cells, names, fixed, more or {})
            composed.append(self._cache[key])
        return composed

    def _spell(
        self,
        cells: tuple[Any, ...],
        names: list[str],
        fixed: Mapping[str, str],
        more: Mapping[str, str],
    ) -> str:
        whole, *rest = cells
        base = {} if whole is None else parse_nested(whole)
        if not isinstance(base, dict):
            return plain_text(whole)
        entries: dict[str, Any] = {
            **fixed,
            **{name: cell for name, cell in zip(names, rest, strict=True) if cell is not None},
        }
        if self._name == c.TAGS:
            base = {key: plain_text(value) for key, value in base.items() if value is not None}
            entries = {key: plain_text(value) for key, value in entries.items()}
        else:
            entries = {key: scalar(value) for key, value in entries.items()}
        return json.dumps({**base, **entries, **more}, default=str)
