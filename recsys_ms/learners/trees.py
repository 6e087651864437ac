"""Gradient-boosted trees: LightGBM for regression, or for ranking within tasks (LambdaRank)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp

from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import seed_from
from recsys_ms.core.state import Learned, State
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.booster import MAX_DEPTH, BoostedTrees, TrainedTrees
from recsys_ms.learners.design import Design
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions

Objective: TypeAlias = Literal["regression", "lambdarank"]

#: LightGBM takes labels up to 31, one bit short of where its gains overflow.
N_LABELS: Final = 32
#: LightGBM refuses longer queries.
_MAX_QUERY: Final = 10_000
#: Least slope of the line from ranking scores to targets, in standard deviations of both.
_LEAST_SLOPE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LightGBMConfig:
    """Options of :class:`LightGBMHead`.

    Attributes
    ----------
    objective : {"regression", "lambdarank"}
        What to learn. Default ``"regression"``.
    n_trees : int
        Boosting rounds. Default 400; there is no early stopping, which would cost a small history
        the rows it stops by.
    learning_rate : float
        Default 0.03.
    n_leaves : int
        Leaves of a tree; at most a fifth of the rows are used. Default 15.
    min_rows_in_leaf : int or None
        ``None`` (default): a hundredth of the rows, at least 3 and at most 20.
    feature_fraction, row_fraction : float
        Share of columns a tree sees, and of rows. Defaults 0.5 and 0.8.
    min_rank_rows, min_rank_groups : int
        With fewer training rows, or fewer groups of two rows or more, LambdaRank has too few pairs
        to learn from and regression is fitted in its place. Defaults 1000 and 10.
    n_threads : int
        Default 1. The answer does not depend on it.
    """

    objective: Objective = "regression"
    n_trees: int = 400
    learning_rate: float = 0.03
    n_leaves: int = 15
    min_rows_in_leaf: int | None = None
    feature_fraction: float = 0.5
    row_fraction: float = 0.8
    min_rank_rows: int = 1000
    min_rank_groups: int = 10
    n_threads: int = 1

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise UsageError(
                f"LightGBMConfig.objective is {self.objective!r}; "
                f"choose one of {', '.join(get_args(Objective))}"
            )
        check_range(self, "n_trees", "min_rank_groups", "n_threads", least=1)
        check_range(self, "n_leaves", least=2)
        check_range(self, "min_rank_rows", least=0)
        check_range(self, "learning_rate", "feature_fraction", "row_fraction", above=0, most=1)
        if self.min_rows_in_leaf is not None:
            check_range(self, "min_rows_in_leaf", least=1)


class LightGBMHead(Head):
    """Boosted trees on the tree form of a design; NaN and category codes are understood.

    LambdaRank learns the order within groups: each group's targets become integer labels, its
    quantiles from 0 (worst) to 31, with the explicit gains of :func:`label_gains`. Its raw score
    has no unit, so a least-squares line over the training rows brings it to the target's scale.

    Contributions are Shapley values of the columns, summed over those of each card field: TreeSHAP,
    the exact algorithm of Lundberg et al. (2020, Algorithm 2), as LightGBM has it. What is not
    known of a row follows both branches of a split in proportion to the training rows there
    (path-dependent). The base is the mean over the training rows.

    Parameters
    ----------
    config : LightGBMConfig, optional
        Options.

    Attributes
    ----------
    objective_ : str
        What was really fitted: LambdaRank falls back to regression on a small history.
    """

    kind: ClassVar[str] = "lightgbm"
    default_config: ClassVar[LightGBMConfig] = LightGBMConfig()

    config: Learned[LightGBMConfig]
    objective_: Learned[Objective]
    #: ``None`` where there was nothing to split by: then :attr:`_constant` is the answer.
    _trees: Learned[BoostedTrees | None]
    _constant: Learned[float | None]
    _line: Learned[tuple[float, float]]

    def state(self) -> State:
        """Everything that ``from_state`` needs; the trees as arrays."""
        self._require_fitted()
        if isinstance(self._trees, TrainedTrees):
            self._trees = self._trees.stored()
        return super().state()

    def _fit(
        self, design: Design, target: FloatArray, groups: IntArray | None, rng: np.random.Generator
    ) -> None:
        matrix, categorical = design.trees(), list(design.categorical)
        seed = seed_from(rng)
        self._trees, self._constant, self._line = None, None, (0.0, 1.0)
        self.objective_ = self._fitting_objective(target, groups)
        if matrix.shape[1] == 0 or np.ptp(target) == 0.0:
            self._constant = float(target.mean())
            return
        import lightgbm as lgb

        if self.objective_ == "lambdarank" and groups is not None:
            queries = _queries(groups)
            order = np.argsort(queries, kind="stable")
            data = lgb.Dataset(
                matrix[order],
                label=group_labels(target, groups)[order],
                group=np.unique(queries, return_counts=True)[1],
                categorical_feature=categorical,
            )
        else:
            data = lgb.Dataset(matrix, label=target, categorical_feature=categorical)
        parameters = self._parameters(target.size, seed)
        found = lgb.train(parameters, data, num_boost_round=self.config.n_trees)
        self._trees = TrainedTrees(found)
        if self.objective_ == "lambdarank":
            self._line = _least_squares_line(self._raw(matrix), target)

    def _predict(self, design: Design) -> FloatArray:
        matrix = design.trees()
        if self._constant is not None:
            return np.full(matrix.shape[0], self._constant)
        offset, slope = self._line
        return offset + slope * self._raw(matrix)

    def _contributions(self, design: Design) -> HeadContributions:
        matrix, fields = design.trees(), design.tree_fields
        if self._trees is None or matrix.shape[0] == 0:
            base = self._line[0] if self._constant is None else self._constant
            return HeadContributions.of_columns(base, np.zeros(matrix.shape), fields)
        values = self._trees.contributions(matrix, n_threads=self.config.n_threads)
        offset, slope = self._line
        # The last column is the expected value, the same in every row.
        base = offset + slope * float(values[0, -1])
        return HeadContributions.of_columns(base, slope * values[:, :-1], fields)

    def _fitting_objective(self, target: FloatArray, groups: IntArray | None) -> Objective:
        if self.config.objective == "regression" or groups is None:
            return "regression"
        n_useful = int((np.unique(groups, return_counts=True)[1] > 1).sum())
        enough = (
            target.size >= self.config.min_rank_rows and n_useful >= self.config.min_rank_groups
        )
        return "lambdarank" if enough else "regression"

    def _parameters(self, n_rows: int, seed: int) -> dict[str, Any]:
        config = self.config
        in_leaf = config.min_rows_in_leaf or int(np.clip(n_rows // 100, 3, 20))
        parameters: dict[str, Any] = {
            "objective": self.objective_,
            "learning_rate": config.learning_rate,
            "num_leaves": max(2, min(config.n_leaves, n_rows // 5)),
            "min_data_in_leaf": in_leaf,
            "min_sum_hessian_in_leaf": 1e-3,
            "min_data_per_group": 2 * in_leaf,
            # The default bins of three rows hide single models of a small history.
            "min_data_in_bin": 1 if n_rows < N_LABELS * 100 else 3,
            "feature_fraction": config.feature_fraction,
            "bagging_fraction": config.row_fraction,
            "bagging_freq": 1 if config.row_fraction < 1.0 else 0,
            # Far above what trees of so few leaves reach.
            "max_depth": MAX_DEPTH,
            "feature_pre_filter": False,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": config.n_threads,
            "verbosity": -1,
        }
        if self.objective_ == "lambdarank":
            parameters["label_gain"] = list(label_gains())
            parameters["lambdarank_truncation_level"] = N_LABELS
        return parameters

    def _raw(self, matrix: FloatArray | sp.csr_array) -> FloatArray:
        if self._trees is None or matrix.shape[0] == 0:
            return np.zeros(matrix.shape[0])
        return self._trees.predict(matrix, n_threads=self.config.n_threads)


def label_gains() -> tuple[float, ...]:
    """Gain of each label 0 … 31: 2^(5·label/31) − 1, so that the best counts 31 and the median 4.7.

    LightGBM's own gains, 2^label − 1, would leave everything below the best label without weight.
    """
    return tuple(2.0 ** (5.0 * label / (N_LABELS - 1)) - 1.0 for label in range(N_LABELS))


def group_labels(target: FloatArray, groups: IntArray) -> IntArray:
    """Integer label of each row (n_rows,): its quantile within its group, 0 (worst) to 31.

    Ties are equal; the largest target of a group with a spread gets 31, the smallest 0. Groups need
    not be sorted.
    """
    labels = np.zeros(target.size, dtype=np.int64)
    order = np.lexsort((target, groups))
    _, starts = np.unique(groups[order], return_index=True)
    for own in np.split(order, starts[1:]):
        _, rank, counts = np.unique(target[own], return_inverse=True, return_counts=True)
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        last = max(int(below[-1]), 1)
        labels[own] = np.rint(below[rank] / last * (N_LABELS - 1)).astype(np.int64)
    return labels


def _queries(groups: IntArray) -> IntArray:
    """Groups as LightGBM queries; a group that is too long is divided over several."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    parts = -(-sizes // _MAX_QUERY)
    order = np.argsort(codes, kind="stable")
    place = np.empty(codes.size, dtype=np.int64)
    place[order] = np.arange(codes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first = np.cumsum(parts) - parts
    queries: IntArray = first[codes] + place % parts[codes]
    return queries


def _least_squares_line(score: FloatArray, target: FloatArray) -> tuple[float, float]:
    centered = score - score.mean()
    square = float(centered @ centered)
    if square == 0.0:
        return float(target.mean()), 1.0
    # A flat or falling line would lose or turn round the order that was learned.
    least = _LEAST_SLOPE * float(target.std()) / float(score.std())
    slope = max(float(centered @ target) / square, least)
    return float(target.mean()) - slope * float(score.mean()), slope
