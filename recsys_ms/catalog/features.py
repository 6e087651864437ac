"""Meta features: the **d** of a task and the **m** of a model (Guided Recommendation).

The cards of training ids determine the columns; every other id is only looked up.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_ms.catalog.cards import MODEL_FIELDS, NUMERIC_KINDS, TASK_FIELDS, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.encoding import (
    VECTOR_FIELD,
    ColumnEncoder,
    EncodedFeatures,
    EncodingConfig,
    RawColumns,
    Tokens,
)
from recsys_ms.catalog.names import name_tokens, parse_model_id, pretraining_images
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray

_SOURCE: Final = "embedding_source"
_LOGS: Final = frozenset({"count", "number"})
_TEXTS: Final = frozenset({"text", "direction"})
#: Fields that count by their logarithm, and fields that are categories.
_MODEL_LOGS: Final = [name for name, kind in MODEL_FIELDS.items() if kind in _LOGS]
_MODEL_TEXTS: Final = [name for name, kind in MODEL_FIELDS.items() if kind in _TEXTS][1:]
_TASK_LOGS: Final = [n for n, kind in TASK_FIELDS.items() if kind in _LOGS and n != "n_channels"]
_TASK_TEXTS: Final = [
    n for n, kind in TASK_FIELDS.items() if kind in _TEXTS and n not in ("task_id", _SOURCE)
]
#: A positive number that spans this factor over the training ids counts by its logarithm.
_LOG_SPAN: Final = 10.0
#: Column of the ids, beside those of the fields.
_ID: Final = "id"

#: Cards as columns, an array a field and a row a card.
CardColumns: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Traits, and the length of the embedding, of the training cards."""

    numeric_traits: tuple[str, ...]
    log_traits: tuple[str, ...]
    text_traits: tuple[str, ...]
    n_embedding: int


class _CardEncoder(Stateful, ABC):
    """Base of the encoders of models and of tasks."""

    _encoder: Learned[ColumnEncoder]
    _layout: Learned[_Layout]

    def __init__(self, config: EncodingConfig | None = None) -> None:
        self._encoder = ColumnEncoder(config)

    @property
    def config(self) -> EncodingConfig:
        """Options of the encoding."""
        return self._encoder.config

    def fit(self, catalog: Catalog, ids: Sequence[str]) -> Self:
        """Learn vocabularies, means and scales from the cards of ``ids``, and of no other id.

        Ids without a card count as known by name only. A second call forgets the first.
        ``DataError`` if ``ids`` is empty.
        """
        return self._fit_rows(self._rows(catalog, ids))

    def transform(self, catalog: Catalog, ids: Sequence[str]) -> EncodedFeatures:
        """Features of ``ids`` in that order, one row an id, with or without a card."""
        return self._transform_rows(self._rows(catalog, ids))

    def _fit_rows(self, rows: CardColumns) -> Self:
        layout = _layout(rows)
        self._encoder.fit(self._raw(rows, layout))
        self._layout = layout
        return self

    def _transform_rows(self, rows: CardColumns) -> EncodedFeatures:
        self._require_fitted()
        return self._encoder.transform(self._raw(rows, self._layout))

    @staticmethod
    @abstractmethod
    def _rows(catalog: Catalog, ids: Sequence[str]) -> CardColumns: ...

    @staticmethod
    @abstractmethod
    def _raw(rows: CardColumns, layout: _Layout) -> RawColumns: ...


class ModelFeatureEncoder(_CardEncoder):
    """Meta features **m** of models.

    Numbers: logarithms of parameters, GMACs, activations, input size, hidden width, layers, source
    classes and of the images of the largest pre-training set that the name or card mentions; source
    accuracy; embedding; numeric traits. Categories: architecture, family, pre-training domain and
    tag, licence, cluster, text traits. Tokens: words of the architecture, of the tag and of the
    owner, taken from the model id where the card is silent.
    """

    @staticmethod
    def _rows(catalog: Catalog, ids: Sequence[str]) -> CardColumns:
        return _columns_of(catalog.models, ids)

    @staticmethod
    def _raw(rows: CardColumns, layout: _Layout) -> RawColumns:
        names = [parse_model_id(str(model_id)) for model_id in rows[_ID]]
        cards = zip(_texts(rows["architecture"]), names, strict=True)
        architecture = [card or name.architecture for card, name in cards]
        cards = zip(_texts(rows["pretrained_tag"]), names, strict=True)
        tag = [card or name.tag for card, name in cards]
        sources = zip(map(str, rows[_ID]), tag, _texts(rows["pretrained_domain"]), strict=True)
        images = [pretraining_images(*texts) for texts in sources]
        numeric, fields = _logs(rows, _MODEL_LOGS)
        numeric["log_pretraining_images"] = np.log(np.array(images, dtype=np.float64))
        numeric["source_accuracy"] = rows["source_accuracy"]
        fields["log_pretraining_images"] = "pretrained_tag"
        categorical: dict[str, Sequence[str | None]] = {n: _texts(rows[n]) for n in _MODEL_TEXTS}
        categorical["architecture"], categorical["pretrained_tag"] = architecture, tag
        tokens: dict[str, Sequence[Tokens]] = {
            "architecture_word": [name_tokens(text) for text in architecture],
            "tag_word": [name_tokens(text) if text else () for text in tag],
            "owner_word": [name_tokens(name.owner) if name.owner else () for name in names],
        }
        fields |= {"architecture_word": "architecture", "tag_word": "pretrained_tag"}
        fields["owner_word"] = "model_id"
        return _with_layout(rows, layout, numeric, categorical, tokens, fields)


class TaskFeatureEncoder(_CardEncoder):
    """Meta features **d** of tasks.

    Numbers: logarithms of samples, classes, samples per class and image size; channels; difficulty;
    embedding; numeric traits. Categories: domain, metric, direction, text traits.
    """

    def fit_cards(self, cards: Sequence[TaskCard] | CardColumns) -> Self:
        """Learn from cards outside a catalog, or from rows of :func:`card_columns`."""
        return self._fit_rows(_rows_of(cards))

    def transform_cards(self, cards: Sequence[TaskCard] | CardColumns) -> EncodedFeatures:
        """Features of tasks that only their cards describe, one row a card."""
        return self._transform_rows(_rows_of(cards))

    @staticmethod
    def _rows(catalog: Catalog, ids: Sequence[str]) -> CardColumns:
        return _columns_of(catalog.tasks, ids)

    @staticmethod
    def _raw(rows: CardColumns, layout: _Layout) -> RawColumns:
        numeric, fields = _logs(rows, _TASK_LOGS)
        numeric["log_samples_per_class"] = numeric["log_n_samples"] - numeric["log_n_classes"]
        fields["log_samples_per_class"] = "n_samples"
        for name in ("n_channels", "difficulty"):
            numeric[name] = rows[name]
        categorical: dict[str, Sequence[str | None]] = {n: _texts(rows[n]) for n in _TASK_TEXTS}
        return _with_layout(rows, layout, numeric, categorical, {}, fields)


def card_columns(cards: Sequence[TaskCard], *, hidden: Collection[str] = ()) -> CardColumns:
    """Cards as columns for several :class:`TaskFeatureEncoder`; ``hidden`` fields are unknown."""
    columns: dict[str, NDArray[Any]] = {}
    for name, kind in TASK_FIELDS.items():
        column = np.empty(len(cards), dtype=np.float64 if kind in NUMERIC_KINDS else object)
        for i, card in enumerate(cards):
            column[i] = None if name in hidden else getattr(card, name)
        columns[name] = column
    return columns


def _rows_of(cards: Sequence[TaskCard] | CardColumns) -> CardColumns:
    return cards if isinstance(cards, Mapping) else card_columns(cards)


def _columns_of(cards: pd.DataFrame, ids: Sequence[str]) -> CardColumns:
    """Columns of a table of cards, in the order of ``ids``; unknown for ids without a card."""
    rows = cards.reindex(pd.Index(ids, dtype=object))
    return {_ID: np.array(ids, dtype=object)} | {n: rows[n].to_numpy() for n in rows.columns}


def _logs(rows: CardColumns, names: Sequence[str]) -> tuple[dict[str, FloatArray], dict[str, str]]:
    numeric = {f"log_{n}": np.log(rows[n]) for n in names}
    return numeric, {f"log_{n}": n for n in names}


def _with_layout(
    rows: CardColumns,
    layout: _Layout,
    numeric: Mapping[str, FloatArray],
    categorical: Mapping[str, Sequence[str | None]],
    tokens: Mapping[str, Sequence[Tokens]],
    fields: Mapping[str, str],
) -> RawColumns:
    """Add traits and embedding to the columns that every card has."""
    all_numeric, all_fields = dict(numeric), dict(fields)
    all_categorical = dict(categorical)
    traits = [_mapping(value) for value in rows["traits"]]
    for name in layout.numeric_traits:
        values = np.array([_number(trait.get(name)) for trait in traits])
        if name in layout.log_traits:
            # A trait that was positive throughout training may be 0 or less later: unknown then.
            values = np.log(np.where(values > 0, values, np.nan))
        all_numeric[f"trait:{name}"] = values
    for name in layout.text_traits:
        given = [trait.get(name) for trait in traits]
        all_categorical[f"trait:{name}"] = [None if v is None else str(v) for v in given]
    if layout.n_embedding:
        vectors = np.full((len(rows["traits"]), layout.n_embedding), np.nan)
        for row, vector in enumerate(rows["embedding"]):
            # A vector of another length comes from another embedder: not comparable, so unknown.
            if isinstance(vector, tuple) and len(vector) == layout.n_embedding:
                vectors[row] = vector
        columns = [f"embedding_{i:04d}" for i in range(layout.n_embedding)]
        all_numeric |= dict(zip(columns, vectors.T, strict=True))
        all_fields |= dict.fromkeys(columns, VECTOR_FIELD)
    return RawColumns(
        n_rows=len(rows["traits"]),
        numeric=all_numeric,
        categorical=all_categorical,
        tokens=tokens,
        fields=all_fields,
    )


def _layout(rows: CardColumns) -> _Layout:
    """Which traits are numbers, which texts, and the commonest length of embeddings."""
    values: dict[str, list[str | float]] = {}
    for trait in rows["traits"]:
        for name, value in _mapping(trait).items():
            values.setdefault(name, []).append(value)
    texts = {n for n, known in values.items() if any(isinstance(v, str) for v in known)}
    numbers = {n: np.array(known) for n, known in values.items() if n not in texts}
    logs = {n for n, x in numbers.items() if x.min() > 0 and x.max() >= _LOG_SPAN * x.min()}
    lengths = [len(vector) for vector in rows["embedding"] if isinstance(vector, tuple)]
    commonest = max(sorted(set(lengths)), key=lengths.count) if lengths else 0
    return _Layout(tuple(sorted(numbers)), tuple(sorted(logs)), tuple(sorted(texts)), commonest)


def _texts(column: NDArray[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def _mapping(value: object) -> Mapping[str, str | float]:
    # Ids without a card come out of reindex with NaN.
    return value if isinstance(value, Mapping) else {}


def _number(value: str | float | None) -> float:
    return float("nan") if value is None or isinstance(value, str) else float(value)
