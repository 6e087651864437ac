"""Fields of runs that are put together from several cells: hyperparameters and tags as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from recsys_ms.core import columns as c
from recsys_ms.history.readers.templates import parse_nested, plain_text, scalar, to_number

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


class JsonField:
    """``hyperparameters`` or ``tags`` as JSON text, put together from a dict and single entries."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cache: dict[str, str] = {}

    def compose(
        self,
        fields: Mapping[str, Sequence[Any]],
        n_rows: int,
        constants: Mapping[str, str],
        extra: Mapping[int, Mapping[str, str]] | None = None,
    ) -> list[str | None] | None:
        """JSON by row, or ``None`` where the field is not given.

        Parameters
        ----------
        fields : mapping of field to sequence of length ``n_rows``
            Cells. Text that is not a dict is passed on as it is, to be refused with its row.
        n_rows : int
            Number of rows.
        constants : mapping of field to str
            Fields that are the same in every row.
        extra : mapping of row to entries, optional
            Entries of single rows.
        """
        prefix = f"{self._name}."
        single = {n.removeprefix(prefix): v for n, v in fields.items() if n.startswith(prefix)}
        fixed = {n.removeprefix(prefix): v for n, v in constants.items() if n.startswith(prefix)}
        whole = fields.get(self._name)
        if whole is None and self._name in constants:
            whole = [constants[self._name]] * n_rows
        if whole is None and not single and not fixed and not extra:
            return None
        composed: list[str | None] = []
        for row, cells in enumerate(zip(whole or [None] * n_rows, *single.values(), strict=True)):
            more = extra.get(row) if extra else None
            # repr keeps 1, 1.0 and True apart, which are one key of a dict.
            key = repr((cells, more))
            if key not in self._cache:
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                entries = {
                    n: cell for n, cell in zip(single, cells[1:], strict=True) if cell is not None
                }
                self._cache[key] = self._text(cells[0], {**fixed, **entries}, more or {})
            composed.append(self._cache[key])
        return composed

    def _text(self, whole: Any, entries: Mapping[str, Any], more: Mapping[str, str]) -> str:
        base = {} if whole is None else parse_nested(whole)
        if not isinstance(base, dict):
            return plain_text(whole)
        if self._name == c.TAGS:
            base = {key: plain_text(value) for key, value in base.items() if value is not None}
        typed = plain_text if self._name == c.TAGS else scalar
        entries = {key: typed(value) for key, value in entries.items()}
        return json.dumps({**base, **entries, **more}, default=str)
