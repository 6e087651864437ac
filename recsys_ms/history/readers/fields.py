"""Turns fields of runs, as lists of cells, into the Arrow columns that are checked and stored."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.history.readers.templates import (
    parse_nested,
    plain_text,
    scalar,
    text_of,
    to_number,
    without_thousands,
)
from recsys_ms.history.run import RULES

#: Fields a mapping may give: those of a run that the history does not set itself.
RUN_FIELDS: Final = tuple(name for name in c.RUN_COLUMNS if name != c.INGESTED_AT)
#: Fields that hold names of their own, as ``hyperparameters.NAME``.
OPEN_FIELDS: Final = {c.HYPERPARAMETERS, c.TAGS}
#: Distinct sets of hyperparameters or tags that are remembered as JSON.
_CACHE_SIZE: Final = 10_000


def missing_rows(cells: Sequence[Any], markers: Sequence[str]) -> dict[int, str]:
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


class RunArrays:
    """Makes the columns of runs, batch after batch, and remembers the JSON it made."""

    def __init__(self) -> None:
        self._cache: dict[str, str] = {}

    def of(
        self,
        fields: Mapping[str, Sequence[Any]],
        n_rows: int,
        constants: Mapping[str, str],
        tags: Mapping[int, Mapping[str, str]],
    ) -> dict[str, pa.Array]:
        """Columns as text, for :func:`recsys_ms.history.store.schema.build_runs`.

        ``fields`` has cells by field, ``None`` where empty, ``constants`` the fields that are the
        same in every row, ``tags`` more tags by row. Entries such as ``hyperparameters.lr`` are
        joined to the dict of their field, and replace those in it.
        """
        arrays: dict[str, pa.Array] = {}
        for name in RUN_FIELDS:
            column: Iterable[Any] | None = fields.get(name)
            if name in OPEN_FIELDS:
                column = self._json(name, fields, n_rows, constants, tags if name == c.TAGS else {})
            elif RULES[name].kind in ("number", "integer") and column is not None:
                column = map(without_thousands, column)
            if column is not None:
                arrays[name] = pa.array(map(text_of, column), pa.string())
            elif name in constants and name not in OPEN_FIELDS:
                arrays[name] = pa.repeat(constants[name], n_rows)
        return arrays

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
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                entries = {
                    n: cell for n, cell in zip(single, cells[1:], strict=True) if cell is not None
                }
                self._cache[key] = _json_text(name, cells[0], {**fixed, **entries}, more)
            composed.append(self._cache[key])
        return composed


def _json_text(field: str, whole: Any, entries: Mapping[str, Any], more: Mapping[str, str]) -> str:
    base = {} if whole is None else parse_nested(whole)
    if not isinstance(base, dict):
        return plain_text(whole)
    if field == c.TAGS:
        base = {key: plain_text(value) for key, value in base.items() if value is not None}
    typed = plain_text if field == c.TAGS else scalar
    return json.dumps({**base, **{n: typed(v) for n, v in entries.items()}, **more}, default=str)
