"""A weighted mean of heads; the weights are learned on held-out folds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

import numpy as np

from recsys_ms.core.configured import check_range
from recsys_ms.core.errors import UsageError
from recsys_ms.core.state import Derived, Learned
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.design import Design, group_folds
from recsys_ms.learners.gaussian.kernel_head import KernelConfig, KernelHead
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.trees import LightGBMHead

#: Makes a fresh, unfitted head.
HeadFactory: TypeAlias = Callable[[], Head]

#: Weight of the pull to equal weights, as a share of the squared error that equal weights leave.
_PULL: Final = 0.1
#: Relative error below which predictions count as perfect.
_LEAST_ERROR: Final = 1e-3
#: Weight of the condition that the weights add up to 1; they are normalised afterwards.
_SUM: Final = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """Options of :class:`EnsembleHead`.

    Attributes
    ----------
    n_folds : int
        Folds that the weights are learned on; folds of whole groups where groups are given.
        Default 5.
    """

    n_folds: int = 5

    def __post_init__(self) -> None:
        check_range(self, "n_folds", least=2)


class EnsembleHead(Head):
    """Weighted mean of several heads: stacked regression (Wolpert 1992, Breiman 1996).

    Every head predicts each fold after learning from the others. The weights, at least 0 with sum
    1, minimise the squared error of these predictions with a slight pull towards equal weights;
    then every head learns from all rows. With groups the folds are of whole groups, so that the
    weights are those for rows of a group that training did not have. Contributions are the weighted
    sum of those in every head, each by that head's rule.

    Parameters
    ----------
    config : EnsembleConfig, optional
        Options.
    heads : mapping of name to callable, optional
        Each makes a fresh head. Default :func:`default_heads`. With fewer than two groups or rows a
        fold, the weights are equal.

    Attributes
    ----------
    weights_ : dict of str to float
        Weight of each head.
    fold_errors_ : dict of str to float
        Root mean squared error of each head on the folds left out; empty where there were none.
    """

    kind: ClassVar[str] = "ensemble"
    default_config: ClassVar[EnsembleConfig] = EnsembleConfig()

    config: Learned[EnsembleConfig]
    weights_: Learned[dict[str, float]]
    fold_errors_: Learned[dict[str, float]]
    _heads: Learned[dict[str, Head]]
    #: Not stored: a restored blend that is fitted again uses the default heads.
    _factories: Derived[Mapping[str, HeadFactory] | None] = None

    def __init__(
        self,
        config: EnsembleConfig | None = None,
        /,
        *,
        heads: Mapping[str, HeadFactory] | None = None,
        **params: object,
    ) -> None:
        super().__init__(config, **params)
        self._factories = heads
        if heads is not None and not heads:
            raise UsageError("EnsembleHead: no heads given, expected at least one")

    def _fit(
        self, design: Design, target: FloatArray, groups: IntArray | None, rng: np.random.Generator
    ) -> None:
        factories = self._factories or default_heads(design.n_rows)
        names = list(factories)
        fold_stream, *streams = rng.spawn(1 + len(names))
        folds = self._folds(target.size, groups, fold_stream)
        weights = np.full(len(names), 1.0 / len(names))
        self.fold_errors_ = {}
        if len(names) > 1 and folds is not None:
            left_out = np.empty((target.size, len(names)))
            for column, name in enumerate(names):
                left_out[:, column] = _left_out_predictions(
                    factories[name], design, target, groups, folds, streams[column]
                )
            errors = np.sqrt(np.mean((left_out - target[:, None]) ** 2, axis=0))
            self.fold_errors_ = dict(zip(names, errors.tolist(), strict=True))
            weights = simplex_weights(left_out, target)
        self._heads = {
            name: factories[name]().fit(design, target, groups=groups, rng=stream)
            for name, stream, weight in zip(names, streams, weights, strict=True)
            if weight > 0.0
        }
        self.weights_ = {
            name: float(weight) for name, weight in zip(names, weights, strict=True) if weight > 0
        }

    def _predict(self, design: Design) -> FloatArray:
        total = np.zeros(design.n_rows)
        for name, head in self._heads.items():
            total += self.weights_[name] * head.predict(design)
        return total

    def _contributions(self, design: Design) -> HeadContributions:
        return HeadContributions.sum_of(
            [
                head.contributions(design).weighted(self.weights_[name])
                for name, head in self._heads.items()
            ]
        )

    @property
    def heads(self) -> Mapping[str, Head]:
        """The fitted heads that have a weight above 0."""
        self._require_fitted()
        return dict(self._heads)

    def _folds(
        self, n_rows: int, groups: IntArray | None, rng: np.random.Generator
    ) -> IntArray | None:
        # Shuffled first, since rows are often sorted; as a grouping of single rows the folds differ
        # by one row at most.
        grouping = rng.permutation(n_rows) if groups is None else groups
        if np.unique(grouping).size < 2 * self.config.n_folds:
            return None
        return group_folds(grouping, self.config.n_folds)


def default_heads(n_rows: int) -> dict[str, HeadFactory]:
    """Ridge, LightGBM and, up to its limit of rows, the Gaussian process."""
    heads: dict[str, HeadFactory] = {LinearHead.kind: LinearHead, LightGBMHead.kind: LightGBMHead}
    if n_rows <= KernelConfig().max_rows:
        heads[KernelHead.kind] = KernelHead
    return heads


def simplex_weights(predictions: FloatArray, target: FloatArray) -> FloatArray:
    """Weights, at least 0 with sum 1, whose blend of ``predictions`` is closest to ``target``.

    ``predictions`` (n_rows, n_heads) are those on rows that the heads did not learn from. The
    weights (n_heads,) minimise the squared error plus a small multiple of the squared distance to
    equal weights.
    """
    from scipy.optimize import nnls

    n_heads = predictions.shape[1]
    spread = float(np.linalg.norm(target - target.mean()))
    if spread == 0.0:
        return np.full(n_heads, 1.0 / n_heads)
    equal = target - predictions.mean(axis=1)
    # Perfect predictions leave no error; the floor still shares the weight between equals.
    pull = np.sqrt(_PULL) * max(float(np.linalg.norm(equal)) / spread, _LEAST_ERROR)
    # Since the weights add up to 1, taking the mean of the target off both sides changes nothing.
    rows = np.vstack(
        [
            (predictions - target.mean()) / spread,
            pull * np.eye(n_heads),
            np.full((1, n_heads), _SUM),
        ]
    )
    right = np.concatenate(
        [(target - target.mean()) / spread, np.full(n_heads, pull / n_heads), [_SUM]]
    )
    weights, _ = nnls(rows, right)
    normalised: FloatArray = weights / weights.sum()
    return normalised


def _left_out_predictions(
    factory: HeadFactory,
    design: Design,
    target: FloatArray,
    groups: IntArray | None,
    folds: IntArray,
    rng: np.random.Generator,
) -> FloatArray:
    predicted = np.empty(target.size)
    for fold, stream in enumerate(rng.spawn(int(folds.max()) + 1)):
        kept, left_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        head = factory().fit(
            design.take(kept),
            target[kept],
            groups=None if groups is None else groups[kept],
            rng=stream,
        )
        predicted[left_out] = head.predict(design.take(left_out))
    return predicted
