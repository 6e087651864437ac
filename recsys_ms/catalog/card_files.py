"""Tables of one kind of cards: as a frame, as Parquet, as JSON lines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pandas as pd
import pyarrow as pa

from recsys_ms.catalog.cards import NUMERIC_KINDS, FieldKind, ModelCard, TaskCard, field_kinds
from recsys_ms.core.errors import DataError, did_you_mean, kind_of
from recsys_ms.core.files import file_errors
from recsys_ms.core.json_text import parse_json

Card = TypeVar("Card", ModelCard, TaskCard)

_ARROW: Final[Mapping[FieldKind, pa.DataType]] = {
    "text": pa.string(),
    "direction": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "fraction": pa.float64(),
    "vector": pa.list_(pa.float64()),
    "names": pa.list_(pa.string()),
    "traits": pa.string(),
}
#: Costs of a model that hold at its input size only.
_AT_ONE_SIZE: Final = ("gmacs", "macts")


@dataclass(frozen=True)
class CardTable(Generic[Card]):
    """How cards of one kind are kept.

    Rows are dicts of fields without the id, by id. In a frame unknown numbers are NaN, other
    unknown fields None, and traits a dict.
    """

    name: str
    make: type[Card]

    @property
    def kinds(self) -> Mapping[str, FieldKind]:
        """Kind of each field, the id first."""
        make: Any = self.make
        return field_kinds(make)

    @property
    def id_name(self) -> str:
        """Name of the id."""
        return next(iter(self.kinds))

    def frame(self, rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
        """A frame of rows, sorted by id."""
        keys = sorted(rows)
        index = pd.Index(keys, name=self.id_name, dtype=object)
        columns: dict[str, pd.Series[Any]] = {}
        for name, kind in list(self.kinds.items())[1:]:
            values = [_coerced(rows[key].get(name), kind) for key in keys]
            dtype = "float64" if kind in NUMERIC_KINDS else object
            columns[name] = pd.Series(values, index=index, dtype=dtype)
        return pd.DataFrame(columns, index=index)

    def normalised(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame as :meth:`frame` makes it; ``DataError`` for unknown columns, repeated ids."""
        extra = sorted(set(map(str, frame.columns)) - set(self.kinds))
        if extra:
            raise DataError(
                f"the catalog frame of {self.id_name} has the unknown columns {', '.join(extra)}; "
                "put them into the column 'traits', a dict a row"
            )
        keyed = frame.set_index(self.id_name) if self.id_name in frame.columns else frame
        repeated = keyed.index[keyed.index.duplicated()]
        if len(repeated):
            raise DataError(
                f"the catalog frame has {self.id_name} {str(repeated[0])!r} twice; keep one row an "
                "id, or merge two catalogs with Catalog.merged"
            )
        return self.frame(_rows(keyed))

    def folded(self, cards: Iterable[Card]) -> pd.DataFrame:
        """A frame of cards; among cards of one id the first that knows a field says it."""
        rows: dict[str, dict[str, Any]] = {}
        for card in cards:
            key, *values = (getattr(card, name) for name in self.kinds)
            row = dict(zip(list(self.kinds)[1:], values, strict=True))
            rows[key] = _laid_over(row, rows[key]) if key in rows else row
        return self.frame(rows)

    def overlaid(self, below: pd.DataFrame, above: pd.DataFrame) -> pd.DataFrame:
        """Both frames; where both know a field, ``above`` wins."""
        rows = _rows(below)
        for key, over in _rows(above).items():
            rows[key] = _laid_over(rows[key], over) if key in rows else over
        return self.frame(rows)

    def cards(self, frame: pd.DataFrame) -> list[Card]:
        """Cards of a frame, by id."""
        return [self._card(values) for values in self._known(frame)]

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> list[Card]:
        """Cards of dicts, ids among their fields; ``DataError`` for an unknown field."""
        cards = []
        for row in rows:
            unknown = sorted(set(row) - set(self.kinds))
            if unknown:
                plural = "s" * (len(unknown) > 1)
                hint = did_you_mean(unknown[0], self.kinds)
                raise DataError(f"a card has no field{plural} {', '.join(unknown)}{hint}")
            cards.append(self._card({n: _coerced(v, self.kinds[n]) for n, v in row.items()}))
        return cards

    def from_jsonl(self, text: str) -> list[Card]:
        """Cards of JSON lines."""
        return self.from_rows(_row(line) for line in text.split("\n") if line.strip())

    def to_jsonl(self, frame: pd.DataFrame) -> str:
        """One card a line, unknown fields left out."""
        kept = ({n: v for n, v in row.items() if v != {}} for row in self._known(frame))
        return "".join(f"{_json(row)}\n" for row in kept)

    def to_parquet(self, frame: pd.DataFrame) -> bytes:
        """One row a card, traits as JSON."""
        import pyarrow.parquet as pq

        schema = pa.schema([(name, _ARROW[kind]) for name, kind in self.kinds.items()])
        plain = [row | {"traits": _json(row["traits"])} for row in self._known(frame)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(plain, schema=schema), sink)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def read(self, folder: Path) -> list[Card]:
        """Cards of ``folder``, Parquet or else JSON lines; none where there is no table.

        ``DataError`` where it is not a table of cards, ``StorageError`` where it cannot be read.
        """
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("parquet", "jsonl")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return []
        with (
            file_errors(f"{path}: cannot be read"),
            not_cards(f"{path}: ", "Catalog.write"),
        ):
            if path.suffix == ".jsonl":
                return self.from_jsonl(path.read_text(encoding="utf-8"))
            import pyarrow.parquet as pq

            return self.from_rows(pq.read_table(path).to_pylist())

    def _card(self, values: Mapping[str, Any]) -> Card:
        make: Any = self.make
        card: Card = make(**values)
        return card

    def _known(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """Known fields of each card as a card holds them, the id and traits always."""
        found = []
        for key, row in _rows(frame).items():
            values = {n: _coerced(row.get(n), k) for n, k in list(self.kinds.items())[1:]}
            known = {name: value for name, value in values.items() if value is not None}
            found.append({self.id_name: key, **known})
        return found


def not_cards(what: str, writer: str) -> AbstractContextManager[None]:
    """Turns errors of the block into a ``DataError``: not a table of cards."""
    return file_errors(
        f"{what}not a table of cards",
        f"write it with {writer}",
        catch=(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
        raises=DataError,
    )


MODELS: Final = CardTable("models", ModelCard)
TASKS: Final = CardTable("tasks", TaskCard)


def _row(line: str) -> dict[str, Any]:
    found = parse_json(line, finite=True)
    if not isinstance(found, dict):
        raise DataError(f"a card is {kind_of(found)}, expected an object")
    return found


def _rows(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    # Column by column: ``frame.loc`` row by row costs seconds on 20,000 cards.
    names = [str(name) for name in frame.columns]
    columns = [frame[name].tolist() for name in frame.columns]
    return {
        str(key): dict(zip(names, values, strict=True))
        for key, *values in zip(frame.index, *columns, strict=True)
    }


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = {n: below[n] if _is_unknown(v) else v for n, v in above.items()}
    sizes = [row.get("input_size") for row in (below, above)]
    if not any(map(_is_unknown, sizes)) and sizes[0] != sizes[1]:
        # Costs hold at one input size: those of another are not this card's.
        result |= {name: above[name] for name in _AT_ONE_SIZE}
    result["traits"] = {**(below.get("traits") or {}), **(above.get("traits") or {})}
    return result


def _is_unknown(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and isnan(value))


def _coerced(value: Any, kind: FieldKind) -> Any:
    """``value`` of a frame, Parquet or JSON table as the card field holds it; None if unknown."""
    if _is_unknown(value):
        return {} if kind == "traits" else None
    if kind in ("vector", "names"):
        if isinstance(value, str):
            raise DataError(f"a card's {kind} are the text {value!r}; expected a list")
        return tuple(map(float if kind == "vector" else str, value))
    if kind == "count":
        return int(value)
    if kind in NUMERIC_KINDS:
        return float(value)
    if kind == "traits":
        return dict(parse_json(value)) if isinstance(value, str) else dict(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        raise DataError(f"a text of a card is {kind_of(value)}")
    return str(value)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
