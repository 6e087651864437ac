"""Encodes columns of mixed kind as two matrices: one for linear learners, one for trees.

Vocabularies, means and scales come from the rows given to ``fit``. Unknown is never 0: linear
learners see the training mean and an indicator column, trees see NaN or a category. So is a value
that is new since training.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Final, Self, TypeAlias

import numpy as np
import scipy.sparse as sp

from recsys_ms.catalog.column_stack import ColumnStack, TreeArray
from recsys_ms.catalog.directions import Directions
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, IntArray

Tokens: TypeAlias = tuple[str, ...] | None

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
    """Columns of ``n_rows`` models or tasks, before encoding.

    Attributes
    ----------
    n_rows : int
        Number of models or tasks.
    numeric : mapping of column name to ndarray of shape (n_rows,)
        NaN where unknown.
    categorical : mapping of column name to sequence of str or None
        None where unknown.
    tokens : mapping of column name to sequence of tuple of str, or None
        Sets of words; None where the text is unknown.
    fields : mapping of column name to str
        The card field a column comes from, where that has another name.
    """

    n_rows: int
    numeric: Mapping[str, FloatArray]
    categorical: Mapping[str, Sequence[str | None]]
    tokens: Mapping[str, Sequence[Tokens]]
    fields: Mapping[str, str]


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
        for name in ("min_count", "max_categories"):
            if getattr(self, name) < 1:
                raise UsageError(f"EncodingConfig.{name} is {getattr(self, name)}; at least 1")
        for name in ("max_tokens", "max_tree_tokens", "max_tree_directions"):
            if getattr(self, name) < 0:
                raise UsageError(f"EncodingConfig.{name} is {getattr(self, name)}; at least 0")


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
        vector = [name for name in centers if _field(raw, name) == VECTOR_FIELD]
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
        linear, trees = ColumnStack(), ColumnStack()
        self._add_numeric(raw, linear, trees)
        n_numbers = len(self._centers)
        kinds = [NUMBER] * n_numbers + [PRODUCT] * (len(linear.names) - n_numbers)
        for name in self._unknown:
            linear.add(f"{name}=unknown", _field(raw, name), ~np.isfinite(_numeric(raw, name)))
        categorical = self._add_categories(raw, linear, trees)
        self._add_tokens(raw, linear, trees)
        return EncodedFeatures(
            linear=linear.sparse(raw.n_rows),
            linear_names=tuple(linear.names),
            linear_fields=tuple(linear.fields),
            kinds=np.array(kinds + [INDICATOR] * (len(linear.names) - len(kinds)), dtype=np.int64),
            trees=trees.dense(raw.n_rows),
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

    def _add_numeric(self, raw: RawColumns, linear: ColumnStack, trees: ColumnStack) -> None:
        names = list(self._centers)
        table = _standard(raw, names, self._centers)
        standard = dict(zip(names, np.nan_to_num(table).T, strict=True))
        for name, values in standard.items():
            linear.add(name, _field(raw, name), values)
            if _field(raw, name) != VECTOR_FIELD:
                given = _numeric(raw, name)
                trees.add(name, _field(raw, name), np.where(np.isfinite(given), given, np.nan))
        vector = np.isin(names, self._directions.names)
        for i, values in enumerate(self._directions(table[:, vector]).T):
            trees.add(f"direction_{i}", VECTOR_FIELD, values)
        if self.config.quadratic:
            outside = [name for name in names if _field(raw, name) != VECTOR_FIELD]
            for first, second in combinations_with_replacement(outside, 2):
                both = standard[first] * standard[second]
                linear.add(f"{first}*{second}", _field(raw, first), both)

    def _add_categories(
        self, raw: RawColumns, linear: ColumnStack, trees: ColumnStack
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
            linear.add_block([labels[i] for i in kept], _field(raw, name), hot[:, kept])
            positions.append(len(trees.names))
            trees.add(name, _field(raw, name), codes.astype(np.float64))
        return tuple(positions)

    def _add_tokens(self, raw: RawColumns, linear: ColumnStack, trees: ColumnStack) -> None:
        for name, vocabulary in self._tokens.items():
            position = {token: i for i, token in enumerate(vocabulary)}
            rows, columns = [], []
            given = raw.tokens.get(name, (None,) * raw.n_rows)
            for row, tokens in enumerate(given):
                hits = sorted({position[t] for t in tokens or () if t in position})
                rows.extend([row] * len(hits))
                columns.extend(hits)
            block = sp.csr_array(
                (np.ones(len(rows)), (rows, columns)), shape=(raw.n_rows, len(vocabulary))
            )
            labels = tuple(f"{name}={token}" for token in vocabulary)
            linear.add_block(labels, _field(raw, name), block)
            unknown = np.array([tokens is None for tokens in given], dtype=bool)
            dense = block[:, : self.config.max_tree_tokens].toarray()
            dense[unknown] = np.nan
            for i in range(dense.shape[1]):
                trees.add(labels[i], _field(raw, name), dense[:, i])


def _numeric(raw: RawColumns, name: str) -> FloatArray:
    values = raw.numeric.get(name)
    return np.full(raw.n_rows, np.nan) if values is None else values


def _standard(
    raw: RawColumns, names: Sequence[str], centers: Mapping[str, tuple[float, float]]
) -> FloatArray:
    """Columns in standard deviations from the training mean, (n_rows, n_names), NaN unknown."""
    values = np.array([_numeric(raw, name) for name in names]).reshape(len(names), raw.n_rows).T
    center, scale = np.array([centers[name] for name in names]).reshape(len(names), 2).T
    found: FloatArray = (np.where(np.isfinite(values), values, np.nan) - center) / scale
    return found


def _field(raw: RawColumns, name: str) -> str:
    return raw.fields.get(name, name)


def _reserved_codes(given: Sequence[str | None], vocabulary: Sequence[str]) -> tuple[int, ...]:
    known = set(vocabulary)
    codes = [UNKNOWN_CODE] * any(v is None for v in given)
    return (*codes, *[OTHER_CODE] * any(v is not None and v not in known for v in given))
