"""PACTran: PAC-Bayes bounds on the risk of a classifier on top of the source model."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize
from scipy.special import digamma, gammaln, rel_entr, softmax

from recsys_ms.core.errors import ProbeSetError, UsageError
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.scores.checks import Classes, Features, check_classes, check_features
from recsys_ms.scores.leep import checked_pair

_MAX_ITERATIONS: Final = 10_000
#: Corrections L-BFGS remembers: evaluations are expensive, memory is not.
_MEMORY: Final = 20
#: Distance to the optimum at which the search ends, and up to which its answer is taken, both in
#: units of the optimum.
_GAP: Final = 1e-12
_ACCEPTED_GAP: Final = 1e-6
#: Above this squares of features, summed, come near the largest number there is.
_LARGEST: Final = 1e100

#: Weights of the prior; the bound is a difference of two log beta functions of its size.
_ALPHAS: Final = (1e-9, 1e6)
_MAX_DIRICHLET_STEPS: Final = 1000
#: Gain in nats per example below which the variational bound counts as reached.
_DIRICHLET_GAIN: Final = 1e-10


@dataclass(frozen=True, slots=True)
class LogisticOptimum:
    """Optimum of a ridge-penalised multinomial logistic regression on centred features.

    Penalised ``weights`` (n_features, n_classes), free ``intercepts`` (n_classes,), the mean
    ``cross_entropy`` in nats, and the ``trace`` of its Hessian with respect to the weights.
    """

    weights: FloatArray
    intercepts: FloatArray
    cross_entropy: float
    trace: float


def pactran_gaussian(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    prior_variance: float | None = None,
    weight_decay: float | None = None,
) -> float:
    """PACTran-Gaussian: minus a PAC-Bayes bound on the risk of a linear classifier of the features.

    After Ding et al. (2022), "PACTran: PAC-Bayesian Metrics for Estimating the Transferability of
    Pretrained Models to Classification Tasks". With prior N(0, σ₀² I) and posterior N(W, σ² I) over
    the D × K weights of a softmax classifier, the mean cross-entropy L to second order, and
    temperature λ, the bound E L + KL / λ is smallest at

        1 / σ² = 1 / σ₀² + λ / (K·D) · Tr ∇²L(W),

    where it is

        L(W) + ‖W‖² / (2·λ·σ₀²) + K·D / (2·λ) · log(1 + λ·σ₀² / (K·D) · Tr ∇²L(W)).

    W minimises the first two terms: it is a ridge-penalised multinomial logistic regression with
    weight decay 1 / (λ·σ₀²). The third term is small where the optimum is flat.

    Parameters
    ----------
    features : array-like of shape (n_probe, n_features)
        Model outputs on the probe set.
    labels : array-like of shape (n_probe,)
        Target classes, of any names.
    prior_variance : float or None
        σ₀². ``None`` (default) is 1 / n_features: logits of features of unit scale then have prior
        variance 1 for any number of them.
    weight_decay : float or None
        1 / (λ·σ₀²), so that λ = 1 / (weight_decay · prior_variance). ``None`` (default) is
        1 / n_probe.

    Returns
    -------
    float
        Minus the bound, nats per example; higher means easier transfer. At most 0.

    Raises
    ------
    ProbeSetError
        Wrong shapes, NaN, labels of fewer than two classes, features so large that the
        regression does not converge, or a bound that is not finite.
    UsageError
        A variance or decay that is not a positive number.

    Notes
    -----
    The bound's terms in λ and the confidence alone are left out, as in the paper: they do not
    depend on the features. Features are centred; intercepts are free, have no prior and take no
    part in the trace. So adding a constant to a feature, or rotating the features, changes nothing,
    but their scale matters. Constant features give −H(Y), minus the labels' entropy. One example a
    class needs no special treatment.

    Both defaults are the middle of the grids in the authors' released evaluation, which sums the
    second derivatives over the examples where the formula has their mean; this is the formula.

    Takes O(n_probe · n_features · min(n_probe, n_features)) once and O(n_probe · rank · n_classes)
    a step, of which there are hundreds where the classes are separable.
    """
    matrix = check_features(features)
    n_probe, n_features = matrix.shape
    classes = check_classes(labels, n_probe)
    variance = _positive("prior_variance", prior_variance, 1.0 / n_features)
    decay = _positive("weight_decay", weight_decay, 1.0 / n_probe)
    optimum = logistic_optimum(matrix, classes, weight_decay=decay)
    n_weights = n_features * classes.n_classes
    flatness = 0.5 * n_weights * decay * variance * math.log1p(optimum.trace / (n_weights * decay))
    penalty = 0.5 * decay * float(np.square(optimum.weights).sum())
    bound: float = optimum.cross_entropy + penalty + flatness
    if not math.isfinite(bound):
        raise ProbeSetError(
            f"features: the bound is {bound} with prior_variance {variance:.3g} and weight_decay "
            f"{decay:.3g}; take smaller ones"
        )
    return min(-bound, 0.0)


def logistic_optimum(
    features: Features, classes: Classes, *, weight_decay: float
) -> LogisticOptimum:
    """Minimise mean cross-entropy + weight_decay / 2 · ‖W‖² over W and free intercepts.

    Solved in the principal axes of the features, which span every optimal W, each axis in units in
    which the objective's curvature is at most 1 (Böhning's bound of the softmax Hessian).
    ``ProbeSetError`` for features above 1e100, or without convergence.
    """
    peak = float(np.abs(features).max())
    if peak > _LARGEST:
        raise ProbeSetError(f"features: values up to {peak:.3g} are too large; scale them down")
    matrix = features.astype(np.float64)
    # The mean of large values is off by their rounding; the second time it is off by its own.
    matrix -= matrix.mean(axis=0)
    matrix -= matrix.mean(axis=0)
    left, singular, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    units = np.sqrt(np.square(singular) / (2.0 * classes.n_probe) + weight_decay)
    objective = _LogisticObjective(left * (singular / units), classes, weight_decay / units**2)
    solution = objective.minimum(weight_decay)
    cross_entropy, errors = objective.losses(solution)
    # p (1 − p) of every class: the errors are p, or p − 1 for the label's own.
    curvatures = (np.abs(errors) * (1.0 - np.abs(errors))).sum(axis=1)
    norms = np.square(left * singular).sum(axis=1)
    return LogisticOptimum(
        weights=right.T @ (solution[:-1] / units[:, None]),
        intercepts=solution[-1] * objective.intercept_column,
        cross_entropy=cross_entropy,
        trace=float(norms @ curvatures) / classes.n_probe,
    )


def pactran_dirichlet(source_probs: ArrayLike, labels: ArrayLike, *, alpha: float = 1.0) -> float:
    """PACTran-Dirichlet: minus a PAC-Bayes bound on the risk of LEEP's predictor.

    After Ding et al. (2022), "PACTran: PAC-Bayesian Metrics for Estimating the Transferability of
    Pretrained Models to Classification Tasks". The predictor is P(y | x) = Σ_z V_yz · θ(x)_z; each
    column V_z has the prior Dirichlet(a), a_y = alpha · P(y) with the labels' shares P(y). At
    λ = n_probe the smallest bound is −1/n · log ∫ Π_i P(y_i | x_i) dPrior(V), which is bounded from
    above by the variational free energy of source classes q_i and columns V:

        −1/n · { Σ_z [log B(a_z) − log B(a)] + Σ_i Σ_z q_iz · log(θ_iz / q_iz) },
        a_z = a + Σ_i q_iz · e(y_i),

    where B is the multivariate beta function and e(y) a unit vector. Steps
    q_iz ∝ θ_iz · exp(ψ(a_{z, y_i}) − ψ(Σ_y a_zy)) lower it until nothing is gained.

    Parameters
    ----------
    source_probs, labels
        As for :func:`~recsys_ms.scores.leep.leep`.
    alpha : float
        Weight of the prior, in examples per source class, from 1e-9 to 1e6.

    Returns
    -------
    float
        Minus the bound, nats per example, at most 0; higher means easier transfer.

    Raises
    ------
    ProbeSetError
        As for :func:`~recsys_ms.scores.leep.leep`.
    UsageError
        ``alpha`` is out of range.

    Notes
    -----
    Unlike LEEP it charges for every source class that is used, so one example a class and a source
    class for each example does not look perfect. Exact, with no step, where every row has a
    single 1. A source class of probability 0 on every example keeps its prior and costs nothing.

    The authors' released code divides by n_probe · n_classes; here, as in the formula, it is
    n_probe. The order of models of a task is the same.
    """
    probs, classes = checked_pair(source_probs, labels)
    if not _ALPHAS[0] <= alpha <= _ALPHAS[1]:
        raise UsageError(
            f"pactran: alpha is {alpha!r}; it must lie in [{_ALPHAS[0]:g}, {_ALPHAS[1]:g}], "
            "where the bound keeps its digits"
        )
    prior = alpha * classes.counts / classes.n_probe
    rows_of = classes.rows()
    with np.errstate(divide="ignore"):
        logs = np.log(probs)
    shares, reached = probs, -math.inf
    for _ in range(_MAX_DIRICHLET_STEPS):
        posterior = prior[:, None] + np.stack([shares[rows].sum(axis=0) for rows in rows_of])
        gain = _log_beta(posterior) - _log_beta(prior[:, None])
        evidence = float(gain.sum() - rel_entr(shares, probs).sum()) / classes.n_probe
        if not evidence - reached > _DIRICHLET_GAIN:
            break
        reached = evidence
        expected = digamma(posterior) - digamma(posterior.sum(axis=0))
        shares = np.empty_like(probs)
        for code, rows in enumerate(rows_of):
            shares[rows] = softmax(logs[rows] + expected[code], axis=1)
    return min(reached, 0.0)


def _log_beta(parameters: FloatArray) -> FloatArray:
    """Log of the multivariate beta function of each column."""
    logs: FloatArray = gammaln(parameters).sum(axis=0) - gammaln(parameters.sum(axis=0))
    return logs


def _positive(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    if not (math.isfinite(given) and given > 0.0):
        raise UsageError(f"pactran: {name} is {given!r}, expected a positive number")
    return float(given)


class _LogisticObjective:
    """Mean cross-entropy plus ridge penalty, of scaled weights over a row of scaled intercepts.

    ``axes`` are the features in scaled principal axes (n_probe, rank), ``decays`` the weight decay
    of each axis in its units.
    """

    #: The intercepts' column in their units: its square is the reciprocal of their curvature.
    intercept_column: Final = math.sqrt(2.0)

    def __init__(self, axes: FloatArray, classes: Classes, decays: FloatArray) -> None:
        column = np.full((axes.shape[0], 1), self.intercept_column)
        self._design = np.hstack([axes, column])
        self._codes: IntArray = classes.codes
        self._rows = np.arange(classes.n_probe)
        self._decays = np.append(decays, 0.0)[:, None]
        self._shape = (decays.size + 1, classes.n_classes)
        # Intercepts have no decay of their own; the smallest one makes their share of the gap a
        # cautious guess, where that of the weights is exact.
        self._curvatures = np.append(decays, decays.min())[:, None]
        self._gap = math.inf

    def minimum(self, weight_decay: float) -> FloatArray:
        """Scaled weights, the last row the scaled intercepts."""
        result: OptimizeResult = minimize(
            self._value,
            np.zeros(math.prod(self._shape)),
            jac=True,
            method="L-BFGS-B",
            callback=self._stop_when_close,
            options={
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
                "maxcor": _MEMORY,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        value, _ = self._value(result.x)
        if not self._gap <= _ACCEPTED_GAP * value:
            raise ProbeSetError(
                f"features: the regression with weight_decay {weight_decay:.3g} did not converge; "
                "scale the features to unit variance, or raise weight_decay"
            )
        solution: FloatArray = result.x.reshape(self._shape)
        return solution

    def losses(self, solution: FloatArray) -> tuple[float, FloatArray]:
        """Mean cross-entropy, and softmax minus labels, shape (n_probe, n_classes).

        Both keep their digits where the labels are all but certain: 1 − p is never formed.
        """
        errors: FloatArray = self._design @ solution
        errors -= errors.max(axis=1, keepdims=True)
        own = errors[self._rows, self._codes]
        np.exp(errors, out=errors)
        errors[self._rows, self._codes] = 0.0
        others = errors.sum(axis=1)
        sums = np.exp(own) + others
        losses = np.where(own == 0.0, np.log1p(others), np.log(sums) - own)
        errors /= sums[:, None]
        errors[self._rows, self._codes] = -others / sums
        return float(losses.mean()), errors

    def _value(self, flat: FloatArray) -> tuple[float, FloatArray]:
        """Objective and gradient; remembers how far the minimum may still be below."""
        solution = flat.reshape(self._shape)
        loss, errors = self.losses(solution)
        gradient = self._design.T @ errors / self._codes.size + self._decays * solution
        # A function of curvature at least c lies at most g² / 2c above its minimum.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            self._gap = 0.5 * float((np.square(gradient) / self._curvatures).sum())
        value = loss + 0.5 * float((self._decays * np.square(solution)).sum())
        return value, gradient.ravel()

    def _stop_when_close(self, intermediate_result: OptimizeResult) -> None:
        if self._gap <= _GAP * intermediate_result.fun:
            raise StopIteration
