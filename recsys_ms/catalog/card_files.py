"""Tables of cards as Parquet and JSON lines."""

import json
from collections.abc import Callable, Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd
import pyarrow as pa

from recsys_ms.catalog.cards import NUMERIC_KINDS, FieldKind, ModelCard, TaskCard
from recsys_ms.core.errors import DataError, StorageError

Card = TypeVar("Card", ModelCard, TaskCard)

_ARROW: Final[Mapping[FieldKind, pa.DataType]] = {
    "text": pa.string(),
    "count": pa.int64(),
    "number": pa.float64(),
    "fraction": pa.float64(),
    "vector": pa.list_(pa.float64()),
    "names": pa.list_(pa.string()),
    "traits": pa.string(),
}


def is_unknown(value: object) -> bool:
    """Whether a cell says nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and isnan(value))


def coerced(value: Any, kind: FieldKind) -> Any:
    """``value`` of a frame, Parquet or JSON table as the card field holds it; None if unknown.

    Raises
    ------
    DataError
        One text where the field holds several.
    """
    if is_unknown(value):
        return {} if kind == "traits" else None
    if kind in ("vector", "names") and isinstance(value, str):
        raise DataError(f"a card's {kind} are the text {value!r}; wanted a list")
    if kind == "count":
        return int(value)
    if kind in NUMERIC_KINDS:
        return float(value)
    if kind == "vector":
        return tuple(map(float, value))
    if kind == "names":
        return tuple(map(str, value))
    if kind == "traits":
        return dict(json.loads(value)) if isinstance(value, str) else dict(value)
    return str(value)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def to_jsonl(rows: list[dict[str, Any]]) -> bytes:
    """One card a line, unknown fields left out."""
    kept = ({n: v for n, v in row.items() if n != "traits" or v} for row in rows)
    return "".join(f"{_json(row)}\n" for row in kept).encode()


def to_parquet(rows: list[dict[str, Any]], kinds: Mapping[str, FieldKind]) -> bytes:
    """One row a card, traits as JSON."""
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _ARROW[kind]) for name, kind in kinds.items()])
    plain = [row | {"traits": _json(row.get("traits", {}))} for row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(plain, schema=schema), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def cards_of(
    rows: Iterable[dict[str, Any]], kinds: Mapping[str, FieldKind], card: Callable[..., Card]
) -> list[Card]:
    """Cards of rows.

    Raises
    ------
    DataError
        A field that no card has.
    """
    cards = []
    for row in rows:
        unknown = sorted(set(row) - set(kinds))
        if unknown:
            raise DataError(f"no card has the field{'s' * (len(unknown) > 1)} {', '.join(unknown)}")
        cards.append(card(**{n: coerced(v, kinds[n]) for n, v in row.items()}))
    return cards


def parsed(text: str) -> list[dict[str, Any]]:
    """Rows of JSON lines."""
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_cards(
    root: Path, name: str, kinds: Mapping[str, FieldKind], card: Callable[..., Card]
) -> list[Card]:
    """Cards of a table in a folder, Parquet or else JSON lines; none where there is no table.

    Raises
    ------
    DataError
        Not a table of cards.
    StorageError
        It cannot be read.
    """
    path = next(
        (p for p in (root / f"{name}.parquet", root / f"{name}.jsonl") if p.is_file()), None
    )
    if path is None:
        return []
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path).to_pylist()
        else:
            rows = parsed(path.read_text(encoding="utf-8"))
        cards = cards_of(rows, kinds, card)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}: not a table of cards ({error}); write it with Catalog.write"
        ) from error
    return cards
