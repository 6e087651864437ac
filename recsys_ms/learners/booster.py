"""Boosted trees as arrays of our own, checked, and answered by LightGBM's C library.

LightGBM's reader trusts its text: an index outside an array, or a branch that leads back, ends the
process. So trees are kept as arrays, which are checked whole, and the text is written from them.
LightGBM's Python package is not needed to answer: it loads scikit-learn and with it
``scipy.stats``, half a second, and stored trees need nothing but the library beside it.
"""

import ctypes
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_ms.core.declared import ANY_NUMBER, Shape, Within
from recsys_ms.core.errors import DataError
from recsys_ms.core.state import Derived, Learned, State, Stateful
from recsys_ms.core.types import FloatArray, IntArray

if TYPE_CHECKING:
    import lightgbm

# Numbers of LightGBM's C interface (c_api.h).
_FLOAT64: Final = 1
_INT32: Final = 2
_INT64: Final = 3
_RAW: Final = 1
_CONTRIBUTIONS: Final = 3
_ROW_MAJOR: Final = 1
_PLACES: Final = ("lib/lib_lightgbm.so", "bin/lib_lightgbm.so", "../lib_lightgbm.so",
                  "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dylib")  # fmt: skip

#: Splits above a leaf: TreeSHAP calls itself once for each, and its time grows with their square.
#: Trees of a few dozen leaves have below 20.
MAX_DEPTH: Final = 64
_MAX_LEAVES: Final = 1 << 16
#: Rows are counted in 32 bits.
_MAX_ROWS: Final = 2**31 - 1
#: LightGBM wants a name for every column.
_MAX_COLUMNS: Final = 1 << 20
#: Bit 0: categorical; bit 1: unknown goes left; bits 2 and 3: what counts as unknown (nothing, 0,
#: NaN). Categories have no default side.
_CATEGORICAL: Final = 1
_DECISIONS: Final = (0, 2, 4, 6, 8, 10, 1, 5, 9)
_WORD: Final = 32

# Names of LightGBM's text for the splits and the leaves of one tree, and ours.
_OF_SPLITS: Final = {
    "split_feature": "feature",
    "threshold": "threshold",
    "decision_type": "decision",
    "left_child": "left",
    "right_child": "right",
}
_OF_LEAVES: Final = {"leaf_value": "leaf_value", "leaf_count": "leaf_count"}


class BoostedTrees(Stateful):
    """Trees of LightGBM for one output. Their numbers are LightGBM's, bit for bit.

    Splits and leaves of all trees stand one after the other. Split 0 of a tree is its root. A child
    is a later split of the tree, or ``~leaf``.

    Attributes
    ----------
    n_columns : int
        Columns of the data.
    n_leaves : ndarray of shape (n_trees,)
        A tree has one split less.
    feature, decision, left, right : ndarray of shape (n_splits,)
        Column, kind of comparison (:data:`_DECISIONS`), and children.
    threshold : ndarray of shape (n_splits,)
        Values up to it go left; of a categorical split, its place among the sets of the tree.
    leaf_value, leaf_count : ndarray of shape (n_all_leaves,)
        Output, and training rows.
    n_sets : ndarray of shape (n_trees,)
        Sets of categories of a tree.
    set_words : ndarray of shape (n_all_sets,)
        Words of each set.
    words : ndarray of shape (n_words,)
        Bits of the categories that go left.
    """

    n_columns: Learned[Annotated[int, Within(least=1, most=_MAX_COLUMNS)]]
    n_leaves: Learned[Annotated[IntArray, Shape("tree"), Within(least=1, most=_MAX_LEAVES)]]
    feature: Learned[Annotated[IntArray, Shape("split"), Within(least=0)]]
    threshold: Learned[Annotated[FloatArray, Shape("split"), ANY_NUMBER]]
    decision: Learned[Annotated[IntArray, Shape("split")]]
    left: Learned[Annotated[IntArray, Shape("split")]]
    right: Learned[Annotated[IntArray, Shape("split")]]
    leaf_value: Learned[Annotated[FloatArray, Shape("leaf")]]
    leaf_count: Learned[Annotated[IntArray, Shape("leaf"), Within(least=1, most=_MAX_ROWS)]]
    n_sets: Learned[Annotated[IntArray, Shape("tree"), Within(least=0)]]
    set_words: Learned[Annotated[IntArray, Shape("set"), Within(least=1)]]
    words: Learned[Annotated[IntArray, Shape("word"), Within(least=0, most=2**_WORD - 1)]]
    #: Training rows at each split, (n_splits,).
    _counts: Derived[IntArray]
    _engine: Derived["_Engine"]

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Trees of the text of ``lightgbm.Booster.model_to_string``.

        Raises
        ------
        DataError
            More outputs than one, trees of linear models, or trees that are too deep.
        """
        head, *parts = text.split("\n\nTree=")
        told = _entries(head)
        if told.get("num_tree_per_iteration") != "1" or "average_output" in head.split("\n"):
            raise DataError("trees of LightGBM: expected one output, the sum of the trees")
        trees = [_entries(part.partition("\n\n\n")[0]) for part in parts]
        if any(tree.get("is_linear", "0") != "0" for tree in trees):
            raise DataError("trees of LightGBM: expected constant leaves, got linear ones")
        found = cls()
        if not trees:
            raise DataError("trees of LightGBM: the text has no tree")
        found.n_columns = int(told["max_feature_idx"]) + 1
        found.n_leaves = np.array([int(tree["num_leaves"]) for tree in trees], dtype=np.int64)
        found.n_sets = np.array([int(tree["num_cat"]) for tree in trees], dtype=np.int64)
        for theirs, ours in {**_OF_SPLITS, **_OF_LEAVES}.items():
            kind = np.float64 if ours in ("threshold", "leaf_value") else np.int64
            setattr(found, ours, _joined(trees, theirs, kind))
        starts = [_numbers(tree, "cat_boundaries", np.int64) for tree in trees]
        found.set_words = np.concatenate([np.diff(each) for each in starts])
        found.words = _joined(trees, "cat_threshold", np.int64)
        found._derive()
        return found

    def predict(self, data: Any, *, n_threads: int = 1) -> FloatArray:
        """Raw scores of rows, shape (n_rows,); ``data`` is an array or a sparse matrix by rows."""
        return self._engine.predict(data, _RAW, n_threads)

    def contributions(self, data: Any, *, n_threads: int = 1) -> FloatArray:
        """Shapley values of the columns, (n_rows, n_columns + 1), the expected value last."""
        return self._engine.predict(data, _CONTRIBUTIONS, n_threads)

    def text(self) -> str:
        """The trees in LightGBM's format, with all that its answers depend on."""
        return "\n".join([*self._head(), *self._trees(), "end of trees", ""])

    def _derive(self) -> None:
        self._check()
        self._engine = _Engine(self.text(), self.n_columns)

    def _check(self) -> None:
        """Refuse what is not a forest whose indices are all inside."""
        n_splits = self.n_leaves - 1
        starts = np.cumsum(n_splits) - n_splits
        owner = np.repeat(np.arange(self.n_leaves.size), n_splits)
        for name, length, array in (
            ("splits", int(n_splits.sum()), self.feature),
            ("leaves", int(self.n_leaves.sum()), self.leaf_value),
            ("sets", int(self.n_sets.sum()), self.set_words),
            ("words", int(self.set_words.sum()), self.words),
        ):
            if array.size != length:
                raise DataError(f"the trees have {array.size} {name}, expected {length}")
        _require(self.feature < self.n_columns, "a column that is not there")
        _require(~np.isnan(self.threshold), "a threshold that is NaN")
        _require(np.isin(self.decision, _DECISIONS), "a comparison of an unknown kind")
        sets = self.threshold[(self.decision & _CATEGORICAL) > 0]
        most = np.repeat(self.n_sets, n_splits)[(self.decision & _CATEGORICAL) > 0]
        _require((sets >= 0) & (sets < most) & (sets == np.floor(sets)), "an unknown set")
        own = np.arange(owner.size) - starts[owner]
        children = np.concatenate([self.left, self.right])
        parents, trees = np.tile(own, 2), np.tile(owner, 2)
        is_split = children >= 0
        inside = np.where(
            is_split,
            (children > parents) & (children < n_splits[trees]),
            ~children < self.n_leaves[trees],
        )
        _require(inside, "a branch that leads outside or back")
        firsts = np.cumsum(self.n_leaves) - self.n_leaves
        split_of = np.where(is_split, starts[trees] + children, -1)
        leaf_of = np.where(is_split, -1, firsts[trees] + ~children)
        times = np.bincount(split_of[is_split], minlength=owner.size)
        _require(times == (own > 0), "a split with no branch to it, or with two")
        times = np.bincount(leaf_of[~is_split], minlength=self.leaf_value.size)
        _require(times == np.repeat(self.n_leaves > 1, self.n_leaves), "a leaf with no branch")
        roots = starts[self.n_leaves > 1]
        self._counts = self._rows_at(split_of.reshape(2, -1), leaf_of.reshape(2, -1), roots)

    def _rows_at(self, splits: IntArray, leaves: IntArray, roots: IntArray) -> IntArray:
        """Training rows at each split, (n_splits,); children are given as (2, n_splits)."""
        levels: list[IntArray] = []
        level = roots
        while level.size:
            if len(levels) == MAX_DEPTH:
                raise DataError(f"the trees have more than {MAX_DEPTH} splits above a leaf")
            levels.append(level)
            below = splits[:, level]
            level = below[below >= 0]
        counts: IntArray = np.where(leaves >= 0, self.leaf_count[leaves], 0).sum(axis=0)
        for level in reversed(levels):
            below = splits[:, level]
            counts[level] += np.where(below >= 0, counts[below], 0).sum(axis=0)
        if counts.max(initial=0) > _MAX_ROWS:
            raise DataError(f"the trees have more than {_MAX_ROWS} training rows")
        return counts

    def _head(self) -> Iterator[str]:
        yield "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0"
        yield f"max_feature_idx={self.n_columns - 1}"
        yield "feature_names=" + " ".join(f"c{i}" for i in range(self.n_columns))
        yield "feature_infos=" + " ".join(["none"] * self.n_columns)
        yield ""

    def _trees(self) -> Iterator[str]:
        splits = {
            theirs: list(map(repr, getattr(self, ours).tolist()))
            for theirs, ours in _OF_SPLITS.items()
        }
        splits["internal_count"] = list(map(repr, self._counts.tolist()))
        leaves = {
            theirs: list(map(repr, getattr(self, ours).tolist()))
            for theirs, ours in _OF_LEAVES.items()
        }
        split = leaf = a_set = word = 0
        for number, (n_leaves, n_sets) in enumerate(
            zip(self.n_leaves.tolist(), self.n_sets.tolist(), strict=True)
        ):
            yield f"Tree={number}\nnum_leaves={n_leaves}\nnum_cat={n_sets}"
            for name, values in splits.items():
                yield f"{name}={' '.join(values[split : split + n_leaves - 1])}"
            for name, values in leaves.items():
                yield f"{name}={' '.join(values[leaf : leaf + n_leaves])}"
            if n_sets:
                ends = np.cumsum(self.set_words[a_set : a_set + n_sets]).tolist()
                words = self.words[word : word + ends[-1]].tolist()
                yield f"cat_boundaries=0 {' '.join(map(str, ends))}"
                yield f"cat_threshold={' '.join(map(str, words))}"
                word += ends[-1]
            yield "is_linear=0\nshrinkage=1\n\n"
            split, leaf, a_set = split + n_leaves - 1, leaf + n_leaves, a_set + n_sets

    def __reduce__(self) -> tuple[Any, tuple[State]]:
        return type(self).from_state, (self.state(),)


class TrainedTrees(BoostedTrees):
    """Trees that LightGBM has just made, in its own memory: back-tests make many and keep none."""

    def __init__(self, booster: "lightgbm.Booster") -> None:
        self.booster = booster

    def predict(self, data: Any, *, n_threads: int = 1) -> FloatArray:
        """Raw scores of rows, shape (n_rows,)."""
        found = self.booster.predict(data, raw_score=True, num_threads=n_threads)
        return np.asarray(found, dtype=np.float64)

    def contributions(self, data: Any, *, n_threads: int = 1) -> FloatArray:
        """Shapley values of the columns, (n_rows, n_columns + 1), the expected value last."""
        found: Any = self.booster.predict(data, pred_contrib=True, num_threads=n_threads)
        return found.toarray() if sp.issparse(found) else np.asarray(found)

    def stored(self) -> BoostedTrees:
        """The trees as they are stored."""
        return BoostedTrees.from_text(self.booster.model_to_string())

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return type(self), (self.booster,)


def _require(holds: NDArray[np.bool_], what: str) -> None:
    if not holds.all():
        raise DataError(f"the trees have {what}")


def _entries(text: str) -> dict[str, str]:
    """The lines ``name=value`` of a part of LightGBM's text."""
    lines = (line.partition("=") for line in text.split("\n"))
    return {name: value for name, equals, value in lines if equals}


def _numbers(tree: Mapping[str, str], name: str, kind: type) -> NDArray[Any]:
    number = float if kind is np.float64 else int
    return np.array([number(each) for each in tree.get(name, "").split()], dtype=kind)


def _joined(trees: list[dict[str, str]], name: str, kind: type) -> NDArray[Any]:
    found: NDArray[Any] = np.concatenate([_numbers(tree, name, kind) for tree in trees])
    return found


class _Engine:
    """Trees in the memory of LightGBM's library; the text must be one that it can trust."""

    def __init__(self, text: str, n_columns: int) -> None:
        self._n_columns = n_columns
        self._library = _library()
        self._handle = ctypes.c_void_p()
        n_rounds = ctypes.c_int(0)
        self._call(
            "LGBM_BoosterLoadModelFromString",
            ctypes.c_char_p(text.encode()),
            ctypes.byref(n_rounds),
            ctypes.byref(self._handle),
        )

    def predict(self, data: Any, kind: int, n_threads: int) -> FloatArray:
        """Raw scores, shape (n_rows,), or contributions, (n_rows, n_columns + 1)."""
        n_rows, n_columns = data.shape
        if n_columns != self._n_columns:
            raise DataError(f"the rows have {n_columns} columns, the trees {self._n_columns}")
        size = n_rows * (n_columns + 1) if kind == _CONTRIBUTIONS else n_rows
        found = np.empty(size, dtype=np.float64)
        n_found = ctypes.c_int64(0)
        # All rounds, from the first.
        last = (
            ctypes.c_int(kind),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_char_p(f"num_threads={n_threads}".encode()),
            ctypes.byref(n_found),
            _pointer(found),
        )
        if sp.issparse(data):
            starts = np.ascontiguousarray(data.indptr)
            columns = np.ascontiguousarray(data.indices, dtype=np.int32)
            values = np.ascontiguousarray(data.data, dtype=np.float64)
            self._call(
                "LGBM_BoosterPredictForCSR",
                self._handle,
                _pointer(starts),
                ctypes.c_int(_INT64 if starts.dtype == np.int64 else _INT32),
                _pointer(columns),
                _pointer(values),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int64(starts.size),
                ctypes.c_int64(values.size),
                ctypes.c_int64(n_columns),
                *last,
            )
        else:
            dense = np.ascontiguousarray(data, dtype=np.float64)
            self._call(
                "LGBM_BoosterPredictForMat",
                self._handle,
                _pointer(dense),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(n_rows),
                ctypes.c_int32(n_columns),
                ctypes.c_int(_ROW_MAJOR),
                *last,
            )
        if n_found.value != size:
            raise DataError(f"LightGBM returned {n_found.value} numbers, expected {size}")
        return found.reshape(n_rows, -1) if kind == _CONTRIBUTIONS else found

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(*arguments) != 0:
            raise DataError(f"LightGBM: {self._library.LGBM_GetLastError().decode()}")

    def __del__(self) -> None:
        if self._handle:
            self._library.LGBM_BoosterFree(self._handle)


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("lightgbm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for place in _PLACES:
            if (Path(folder) / place).is_file():
                library = ctypes.CDLL(str(Path(folder) / place))
                library.LGBM_GetLastError.restype = ctypes.c_char_p
                return library
    # An installation that keeps its library elsewhere: slower to start, the same numbers.
    from lightgbm.basic import _LIB

    found: ctypes.CDLL = _LIB
    return found


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
