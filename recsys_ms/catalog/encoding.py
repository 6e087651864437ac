"""Encodes columns of mixed kind as two matrices: one for linear learners, one for trees.

Vocabularies, means and scales come from the rows given to ``fit``. Unknown is never 0: linear
learners see the training mean and an indicator column, trees see NaN or a category. So is a value
that is new since training.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from typing import Any, Final, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_ms.catalog.directions import Directions
from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, IntArray

Tokens: TypeAlias = tuple[str, ...] | None
TreeArray: TypeAlias = NDArray[np.float32]

#: Codes of categorical columns for trees; the known categories follow from 2 on.
UNKNOWN_CODE: Final = 0
OTHER_CODE: Final = 1
_N_RESERVED: Final = 2

#: The card field that is many columns.
VECTOR_FIELD: Final = "embedding"
#: Kinds of linear columns (:attr:`EncodedFeatures.kinds`).
NUMBER: Final = 0
PRODUCT: Final = 1
INDICATOR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RawColumns:
    """Columns of ``n_rows`` models or tasks by name, before encoding; NaN or None is unknown."""

    n_rows: int
    numeric: Mapping[str, FloatArray]
    categorical: Mapping[str, Sequence[str | None]]
    #: Sets of words.
    tokens: Mapping[str, Sequence[Tokens]]
    #: The card field a column comes from, where that has another name.
    fields: Mapping[str, str]

    def fields_of(self, names: Iterable[str]) -> list[str]:
        """The card field of each column."""
        return [self.fields.get(name, name) for name in names]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedFeatures:
    """Features of ``n_rows`` models or tasks in both forms. Arrays are not to be written to.

    Attributes
    ----------
    linear : csr_array of shape (n_rows, n_linear), float64
        Standardised numbers (unknown: 0, the training mean, beside an indicator column), one-hot
        categories, multi-hot tokens.
    linear_names, linear_fields : tuple of str, shape (n_linear,)
        Name of each column, such as ``"family=resnet"``, and the card field it comes from.
    kinds : ndarray of shape (n_linear,)
        ``NUMBER`` (standardised), ``PRODUCT`` (of two numbers) or ``INDICATOR`` (0 or 1).
    trees : ndarray of shape (n_rows, n_trees), float32
        Numbers (unknown: NaN), the leading directions of a vector, category codes (0 unknown, 1
        rare or not in training, 2 … known) and tokens (0 or 1, NaN unknown).
    tree_names, tree_fields : tuple of str, shape (n_trees,)
        As above.
    categorical : tuple of int
        Which columns of ``trees`` are category codes.
    """

    linear: sp.csr_array
    linear_names: tuple[str, ...]
    linear_fields: tuple[str, ...]
    kinds: IntArray
    trees: TreeArray
    tree_names: tuple[str, ...]
    tree_fields: tuple[str, ...]
    categorical: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        """Number of models or tasks."""
        return int(self.trees.shape[0])


def id_features(name: str, n_ids: int) -> EncodedFeatures:
    """Features that say only which id a row is: one-hot for linear learners, a code for trees.

    Row ``i`` stands for id ``i``; the last row, which position -1 also names, stands for an id that
    training did not have: no hot column, NaN for trees.
    """
    if n_ids < 1:
        raise UsageError(f"id_features({name!r}): n_ids is {n_ids}; at least one id is needed")
    codes = np.append(np.arange(n_ids, dtype=np.float32), np.float32(np.nan))
    ones = sp.csr_array(
        (np.ones(n_ids), np.arange(n_ids), np.minimum(np.arange(n_ids + 2), n_ids)),
        shape=(n_ids + 1, n_ids),
    )
    return EncodedFeatures(
        linear=ones,
        linear_names=tuple(f"{name}={i}" for i in range(n_ids)),
        linear_fields=(name,) * n_ids,
        kinds=np.full(n_ids, INDICATOR),
        trees=codes[:, None],
        tree_names=(name,),
        tree_fields=(name,),
        categorical=(0,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingConfig:
    """Options of :class:`ColumnEncoder`.

    Attributes
    ----------
    min_count : int
        Categories and tokens in fewer training rows than this are rare: categories share one column
        with those never seen, tokens are left out. Default 2.
    max_categories : int
        Most frequent categories of a column that get a column of their own. Default 2000.
    max_tokens : int
        Most frequent tokens of a column for linear learners. Default 1000.
    max_tree_tokens : int
        Most frequent tokens of a column for trees, where they are dense. Default 96.
    max_tree_directions : int
        Leading principal directions of a vector, which trees see in place of its columns. Default
        8.
    quadratic : bool
        Whether linear learners also get products of every two numbers outside vectors. Default no.
    """

    min_count: int = 2
    max_categories: int = 2000
    max_tokens: int = 1000
    max_tree_tokens: int = 96
    max_tree_directions: int = 8
    quadratic: bool = False

    def __post_init__(self) -> None:
        check_range(self, "min_count", "max_categories", least=1)
        check_range(self, "max_tokens", "max_tree_tokens", "max_tree_directions", least=0)


class ColumnEncoder(Stateful):
    """Encodes :class:`RawColumns`; columns that say nothing about the training rows are dropped.

    A numeric column with fewer than two training values that differ, a categorical column that is
    unknown for every training row, and a token that every row has or that is rare carry no
    information and get no column. Column order: numbers, products, indicators of unknown numbers,
    categories, tokens; by name within each.
    """

    config: Learned[EncodingConfig]
    _centers: Learned[dict[str, tuple[float, float]]]
    _unknown: Learned[tuple[str, ...]]
    _directions: Learned[Directions]
    _categories: Learned[dict[str, tuple[str, ...]]]
    #: Codes below _N_RESERVED that training rows had: only those get a linear column, since a
    #: column that was never hot in training has nothing learned to say.
    _reserved: Learned[dict[str, tuple[int, ...]]]
    _tokens: Learned[dict[str, tuple[str, ...]]]

    def __init__(self, config: EncodingConfig | None = None) -> None:
        self.config = config or EncodingConfig()

    def fit(self, raw: RawColumns) -> Self:
        """Learn means, scales and vocabularies; a second call forgets the first."""
        if raw.n_rows == 0:
            raise DataError(
                "features need at least one row to fit; give the ids of the training data"
            )
        centers: dict[str, tuple[float, float]] = {}
        unknown: list[str] = []
        for name in sorted(raw.numeric):
            known = raw.numeric[name][np.isfinite(raw.numeric[name])]
            if known.size == 0:
                continue
            center, scale = float(known.mean()), float(known.std())
            # Equal values leave rounding noise; dividing by it would make up a signal.
            if scale > 1e-12 * max(1.0, abs(center)):
                centers[name] = (center, scale)
            if known.size < raw.n_rows:
                unknown.append(name)
        self._centers, self._unknown = centers, tuple(unknown)
        owners = zip(centers, raw.fields_of(centers), strict=True)
        vector = [name for name, field in owners if field == VECTOR_FIELD]
        self._directions = Directions.fit(
            vector, _standard(raw, vector, centers), self.config.max_tree_directions
        )
        self._categories = {
            name: vocabulary
            for name in sorted(raw.categorical)
            if (vocabulary := self._frequent(Counter(raw.categorical[name])))
        }
        self._reserved = {
            name: _reserved_codes(raw.categorical[name], vocabulary)
            for name, vocabulary in self._categories.items()
        }
        self._tokens = {
            name: tuple(kept[: self.config.max_tokens])
            for name in sorted(raw.tokens)
            if (kept := self._informative_tokens(raw.tokens[name]))
        }
        return self

    def transform(self, raw: RawColumns) -> EncodedFeatures:
        """Encode rows with what ``fit`` learned; a row does not depend on the others."""
        self._require_fitted()
        linear, trees = _Columns(raw.n_rows), _Columns(raw.n_rows)
        kinds = self._add_numeric(raw, linear, trees)
        categorical = self._add_categories(raw, linear, trees)
        self._add_tokens(raw, linear, trees)
        return EncodedFeatures(
            linear=sp.hstack([sp.csr_array(block) for block in linear.blocks], format="csr"),
            linear_names=tuple(linear.names),
            linear_fields=tuple(linear.fields),
            kinds=np.array(kinds + [INDICATOR] * (len(linear.names) - len(kinds)), dtype=np.int64),
            trees=np.hstack(trees.blocks).astype(np.float32),
            tree_names=tuple(trees.names),
            tree_fields=tuple(trees.fields),
            categorical=categorical,
        )

    def _frequent(self, counts: "Counter[str | None]") -> tuple[str, ...]:
        """Categories with a column of their own; ``()`` when nothing is known of any row."""
        known = {category: n for category, n in counts.items() if category is not None}
        if len(known) == 1 and None not in counts:
            return ()
        frequent = [k for k, n in known.items() if n >= self.config.min_count]
        frequent.sort(key=lambda category: (-known[category], category))
        return tuple(frequent[: self.config.max_categories])

    def _informative_tokens(self, rows: Sequence[Tokens]) -> list[str]:
        """Tokens that some rows have and some have not, most frequent first."""
        counts = Counter(token for row in rows if row is not None for token in set(row))
        n_known = sum(row is not None for row in rows)
        kept = [t for t, n in counts.items() if self.config.min_count <= n < n_known]
        return sorted(kept, key=lambda token: (-counts[token], token))

    def _add_numeric(self, raw: RawColumns, linear: "_Columns", trees: "_Columns") -> list[int]:
        """Add numbers, products and indicators of unknown numbers; kinds of the linear columns."""
        names = list(self._centers)
        table = _standard(raw, names, self._centers)
        standard = np.nan_to_num(table)
        linear.add(names, raw.fields_of(names), standard)
        outside = [i for i, field in enumerate(raw.fields_of(names)) if field != VECTOR_FIELD]
        given = [names[i] for i in outside]
        trees.add(given, raw.fields_of(given), _numbers(raw, given))
        found = self._directions(table[:, np.isin(names, self._directions.names)])
        n_found = found.shape[1]
        trees.add([f"direction_{i}" for i in range(n_found)], [VECTOR_FIELD] * n_found, found)
        pairs = [*combinations_with_replacement(outside, 2)] if self.config.quadratic else []
        first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        linear.add(
            [f"{names[i]}*{names[j]}" for i, j in pairs],
            raw.fields_of([names[i] for i in first]),
            standard[:, first] * standard[:, second],
        )
        unknown = [f"{name}=unknown" for name in self._unknown]
        linear.add(unknown, raw.fields_of(self._unknown), np.isnan(_numbers(raw, self._unknown)))
        return [NUMBER] * len(names) + [PRODUCT] * len(pairs)

    def _add_categories(
        self, raw: RawColumns, linear: "_Columns", trees: "_Columns"
    ) -> tuple[int, ...]:
        positions = []
        for name, vocabulary in self._categories.items():
            code = {category: i + _N_RESERVED for i, category in enumerate(vocabulary)}
            given = raw.categorical.get(name, (None,) * raw.n_rows)
            codes = np.array(
                [UNKNOWN_CODE if v is None else code.get(v, OTHER_CODE) for v in given],
                dtype=np.int64,
            )
            labels = (f"{name}=unknown", f"{name}=other", *(f"{name}={v}" for v in vocabulary))
            kept = [*self._reserved[name], *range(_N_RESERVED, len(labels))]
            hot = sp.csr_array(
                (np.ones(raw.n_rows), codes, np.arange(raw.n_rows + 1)),
                shape=(raw.n_rows, len(labels)),
            )
            field = raw.fields_of([name])
            linear.add([labels[i] for i in kept], field * len(kept), hot[:, kept])
            positions.append(len(trees.names))
            trees.add([name], field, codes[:, None])
        return tuple(positions)

    def _add_tokens(self, raw: RawColumns, linear: "_Columns", trees: "_Columns") -> None:
        for name, vocabulary in self._tokens.items():
            position = {token: i for i, token in enumerate(vocabulary)}
            given = raw.tokens.get(name, (None,) * raw.n_rows)
            hits = [sorted({position[t] for t in row or () if t in position}) for row in given]
            ends = np.cumsum([0, *map(len, hits)])
            block = sp.csr_array(
                (np.ones(ends[-1]), np.array([*chain(*hits)], dtype=np.int64), ends),
                shape=(raw.n_rows, len(vocabulary)),
            )
            labels = [f"{name}={token}" for token in vocabulary]
            fields = raw.fields_of([name]) * len(labels)
            linear.add(labels, fields, block)
            n_dense = self.config.max_tree_tokens
            dense = block[:, :n_dense].toarray()
            dense[[row is None for row in given]] = np.nan
            trees.add(labels[:n_dense], fields[:n_dense], dense)


class _Columns:
    """Columns being collected, with their names and the card fields they come from."""

    def __init__(self, n_rows: int) -> None:
        self.names: list[str] = []
        self.fields: list[str] = []
        self.blocks: list[NDArray[Any] | sp.csr_array] = [np.empty((n_rows, 0))]

    def add(
        self, names: Sequence[str], fields: Sequence[str], block: NDArray[Any] | sp.csr_array
    ) -> None:
        """Add columns of shape (n_rows, len(names))."""
        self.names.extend(names)
        self.fields.extend(fields)
        self.blocks.append(block)


def _numbers(raw: RawColumns, names: Sequence[str]) -> FloatArray:
    """Columns as they are, (n_rows, n_names), NaN unknown."""
    unknown = np.full(raw.n_rows, np.nan)
    values = np.array([raw.numeric.get(name, unknown) for name in names], dtype=np.float64)
    found: FloatArray = values.reshape(len(names), raw.n_rows).T
    return np.where(np.isfinite(found), found, np.nan)


def _standard(
    raw: RawColumns, names: Sequence[str], centers: Mapping[str, tuple[float, float]]
) -> FloatArray:
    """Columns in standard deviations from the training mean, (n_rows, n_names), NaN unknown."""
    center, scale = np.array([centers[name] for name in names]).reshape(len(names), 2).T
    found: FloatArray = (_numbers(raw, names) - center) / scale
    return found


def _reserved_codes(given: Sequence[str | None], vocabulary: Sequence[str]) -> tuple[int, ...]:
    known = set(vocabulary)
    codes = [UNKNOWN_CODE] * any(v is None for v in given)
    return (*codes, *[OTHER_CODE] * any(v is not None and v not in known for v in given))
