"""A Gaussian process over (task, model) pairs: one prior for cold tasks, cold models and both.

The standardised outcome of model m on task t is taken as

    y(t, m) = f(m) + g(t, m) + h(t, m) + s(t, m)ᵀ w + noise

f: what a model is worth anywhere, with covariance Σ_c b_c K_c(m, m') over *components* of model
cards (the model itself, its architecture, its source …); g: what tasks that look alike have in
common, with covariance (Σ_v a_v k_v(t, t')) (Σ_c d_c K_c(m, m')) over *views* of tasks (images,
class names, card); h: what a task wants that no other shows, with covariance [t = t'] Σ_c o_c K_c;
s: transferability scores of the pair. Conditioning on the history gives every prediction; a task
with a few outcomes is conditioned on those as well. All variances, lengths and the noise maximise
the marginal likelihood (Rasmussen & Williams 2006, Eq. 5.8 and 5.9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import scipy.linalg

from recsys_ms.core.types import BoolArray, FloatArray, IntArray
from recsys_ms.learners.gaussian.vectors import known_rows

#: Logarithms of the settings at the start, and how strongly they are drawn there.
_START: Final = {"main": -1.5, "shared": -2.0, "own": -3.0, "score": -3.0, "view": 0.0,
                 "length": 0.0, "noise": -1.5}  # fmt: skip
_PRIOR_SD: Final = 2.5
_BOUNDS: Final = (-9.0, 3.0)
_MAX_ITERATIONS: Final = 40
#: Added to the diagonal, in units of the mean variance, against rounding.
_JITTER: Final = 1e-8

#: The component that is 1 for a model with itself alone.
ITSELF: Final = "itself"


@dataclass(frozen=True, slots=True, eq=False)
class Things:
    """Tasks or models: their ids, labels and vectors, each by what it says.

    Attributes
    ----------
    ids : tuple of str
    labels : mapping of str to tuple of str or None
        Equal labels are alike; ``None`` is unknown and like nothing.
    vectors : mapping of str to ndarray of shape (n_things, n_dimensions)
        In units of the median distance of two training things; NaN throughout a row is unknown.
    """

    ids: tuple[str, ...]
    labels: Mapping[str, tuple[str | None, ...]]
    vectors: Mapping[str, FloatArray]

    def take(self, rows: IntArray) -> "Things":
        """Some of them."""
        return Things(
            ids=tuple(self.ids[int(i)] for i in rows),
            labels={
                name: tuple(labels[int(i)] for i in rows) for name, labels in self.labels.items()
            },
            vectors={name: table[rows] for name, table in self.vectors.items()},
        )

    def same(self, other: "Things") -> BoolArray:
        """Which are one thing, shape (n_things, n_others)."""
        return _equal(self.ids, other.ids)

    def distances(self, other: "Things", name: str) -> FloatArray:
        """Squared distances by a vector; infinite where one is unknown, 0 to itself."""
        from scipy.spatial.distance import cdist

        left, right = self.vectors[name], other.vectors[name]
        rows, columns = known_rows(left), known_rows(right)
        found = np.full((len(self.ids), len(other.ids)), np.inf)
        found[np.ix_(rows, columns)] = cdist(left[rows], right[columns], "sqeuclidean")
        found[self.same(other)] = 0.0
        return found

    def alike(self, other: "Things") -> dict[str, FloatArray]:
        """A kernel for each label and vector, 1 for a thing with itself."""
        same = self.same(other)
        found = {ITSELF: same.astype(np.float64)}
        for name, own in self.labels.items():
            found[name] = (_equal(own, other.labels[name]) | same).astype(np.float64)
        for name in self.vectors:
            found[name] = np.exp(-0.5 * self.distances(other, name))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Some (task, model) pairs.

    Attributes
    ----------
    tasks, models : Things
        What they are made of.
    task, model : ndarray of shape (n_rows,)
        Positions there.
    scores : ndarray of shape (n_rows, n_scores)
        Transferability scores, standardised; 0 where unknown.
    """

    tasks: Things
    models: Things
    task: IntArray
    model: IntArray
    scores: FloatArray

    def take(self, rows: IntArray) -> "Pairs":
        """Some of the rows, with the tasks and models that they need."""
        tasks, task = np.unique(self.task[rows], return_inverse=True)
        models, model = np.unique(self.model[rows], return_inverse=True)
        return Pairs(
            tasks=self.tasks.take(tasks),
            models=self.models.take(models),
            task=task.astype(np.int64),
            model=model.astype(np.int64),
            scores=self.scores[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Two sets of pairs, as a kernel compares them.

    Attributes
    ----------
    same : ndarray of shape (n_left, n_right)
        Whether two pairs are of one task.
    distances : mapping of str to ndarray of shape (n_left_tasks, n_right_tasks)
        Squared distances of tasks by each view.
    tasks : pair of index arrays
        Takes the tasks' matrix to the pairs'.
    kernels : ndarray of shape (n_components, n_left, n_right)
        Kernels of the pairs' models.
    scores : ndarray of shape (n_left, n_right)
        Inner products of the pairs' scores.
    """

    same: BoolArray
    distances: Mapping[str, FloatArray]
    tasks: tuple[IntArray, ...]
    kernels: FloatArray
    scores: FloatArray


class PairKernel:
    """The covariance, by the logarithms of its settings."""

    def __init__(self, views: tuple[str, ...], components: tuple[str, ...], n_scores: int) -> None:
        self._views, self._components = views, components
        self.names = (
            *(f"main {c}" for c in components),
            *(f"own {c}" for c in components),
            *(f"shared {c}" for c in components if views),
            *(f"view {v}" for v in views[1:]),
            *(f"length {v}" for v in views),
            *(("score",) if n_scores else ()),
            "noise",
        )
        self.start = np.array([_START[name.split()[0]] for name in self.names])

    def compare(self, left: Pairs, right: Pairs) -> Compared:
        """What the covariance of two sets of pairs needs, whatever the settings."""
        tasks = np.ix_(left.task, right.task)
        models = np.ix_(left.model, right.model)
        alike = left.models.alike(right.models)
        return Compared(
            same=left.tasks.same(right.tasks)[tasks],
            distances={view: left.tasks.distances(right.tasks, view) for view in self._views},
            tasks=tasks,
            kernels=np.stack([alike[name][models] for name in self._components]),
            scores=left.scores @ right.scores.T / max(left.scores.shape[1], 1),
        )

    def covariance(self, log: FloatArray, left: Pairs, right: Pairs) -> FloatArray:
        """Covariance of pairs without the noise, shape (n_left, n_right)."""
        return self.covariance_of(log, self.compare(left, right))

    def covariance_of(self, log: FloatArray, compared: Compared) -> FloatArray:
        """The same of pairs that were compared."""
        setting = self._settings(log)
        total = self._mixed(setting, "main", compared)
        total += np.where(compared.same, self._mixed(setting, "own", compared), 0.0)
        if self._views:
            seen = np.sum([part for part, _ in self._all_near(setting, compared).values()], axis=0)
            total += seen[compared.tasks] * self._mixed(setting, "shared", compared)
        if "score" in setting:
            total += setting["score"] * compared.scores
        return total

    def slopes(self, log: FloatArray, compared: Compared, against: FloatArray) -> FloatArray:
        """Inner products of ``against`` with the derivative by each setting's logarithm.

        Parameters
        ----------
        log : ndarray of shape (n_settings,)
        compared : Compared
            A set of pairs with itself.
        against : ndarray of shape (n_rows, n_rows)
        """
        setting = self._settings(log)
        near = self._all_near(setting, compared)
        sides = [against.ravel(), np.where(compared.same, against, 0.0).ravel()]
        if near:
            seen = np.sum([part for part, _ in near.values()], axis=0)
            sides.append((seen[compared.tasks] * against).ravel())
        flat = compared.kernels.reshape(len(self._components), -1)
        products = flat @ np.stack(sides, axis=1)
        found = {"noise": float(np.trace(against)) * setting["noise"]}
        for column, kind in enumerate(("main", "own", "shared")[: len(sides)]):
            for row, name in enumerate(self._components):
                found[f"{kind} {name}"] = setting[f"{kind} {name}"] * float(products[row, column])
        if near:
            # Summed over the pairs of each two tasks, what is left is small.
            shared = (self._mixed(setting, "shared", compared) * against).ravel()
            shape = next(iter(compared.distances.values())).shape
            cells = (compared.tasks[0] * shape[1] + compared.tasks[1]).ravel()
            summed = np.bincount(cells, weights=shared, minlength=shape[0] * shape[1])
            for view, (part, slope) in near.items():
                found[f"view {view}"] = float(summed @ part.ravel())
                found[f"length {view}"] = float(summed @ slope.ravel())
        if "score" in setting:
            found["score"] = setting["score"] * float(np.vdot(compared.scores, against))
        return np.array([found[name] for name in self.names])

    def _settings(self, log: FloatArray) -> dict[str, float]:
        return dict(zip(self.names, np.exp(log).tolist(), strict=True))

    def _mixed(self, setting: Mapping[str, float], kind: str, compared: Compared) -> FloatArray:
        """Sum of the models' kernels with the weights of a kind."""
        weights = np.array([setting[f"{kind} {name}"] for name in self._components])
        mixed: FloatArray = np.tensordot(weights, compared.kernels, axes=1)
        return mixed

    def _all_near(
        self, setting: Mapping[str, float], compared: Compared
    ) -> dict[str, tuple[FloatArray, FloatArray]]:
        return {view: self._near(setting, compared.distances[view], view) for view in self._views}

    def _near(
        self, setting: Mapping[str, float], distances: FloatArray, view: str
    ) -> tuple[FloatArray, FloatArray]:
        """Kernel of tasks by a view, and its derivative by the logarithm of its length."""
        scaled = distances / setting[f"length {view}"] ** 2
        # The first view's weight is in those of the components.
        part = setting.get(f"view {view}", 1.0) * np.exp(-0.5 * scaled)
        return part, np.where(np.isfinite(scaled), scaled, 0.0) * part


@dataclass(frozen=True, slots=True, eq=False)
class PairProcess:
    """A conditioned process.

    Attributes
    ----------
    kernel : PairKernel
    log : ndarray of shape (n_settings,)
        Logarithms of the settings.
    rows : Pairs
        The training pairs.
    weights : ndarray of shape (n_rows,)
        ``(K + σ²I)⁻¹ y`` of the training pairs.
    factor : ndarray of shape (n_rows, n_rows)
        Lower Cholesky factor of ``K + σ²I``.
    """

    kernel: PairKernel
    log: FloatArray
    rows: Pairs
    weights: FloatArray
    factor: FloatArray

    @classmethod
    def condition(
        cls, kernel: PairKernel, log: FloatArray, rows: Pairs, target: FloatArray
    ) -> Self:
        """Condition on training pairs and their standardised outcomes (n_rows,)."""
        factor = _cholesky(kernel.covariance(log, rows, rows), float(np.exp(log[-1])))
        return cls(kernel, log, rows, scipy.linalg.cho_solve((factor, True), target), factor)

    def mean(self, asked: Pairs) -> FloatArray:
        """Expected outcomes of pairs, shape (n_asked,)."""
        found: FloatArray = self.kernel.covariance(self.log, asked, self.rows) @ self.weights
        return found

    def shares(self, asked: Pairs, seen: Pairs | None = None) -> tuple[FloatArray, FloatArray]:
        """How much each known outcome counts in the expected outcomes of pairs.

        ``k (K + σ²I)⁻¹``: the mean is linear in the outcomes (Rasmussen & Williams 2006, §2.6).

        Returns
        -------
        training, observed : ndarray of shape (n_asked, n_rows) and (n_asked, n_seen)
            ``training @ target`` is :meth:`mean`; with ``seen``, ``training @ target + observed @
            outcome`` is :meth:`updated`.
        """
        across = self.kernel.covariance(self.log, asked, self.rows)
        training = scipy.linalg.cho_solve((self.factor, True), across.T).T
        if seen is None:
            return training, np.zeros((training.shape[0], 0))
        own = self.kernel.covariance(self.log, seen, self.rows)
        of_seen = scipy.linalg.cho_solve((self.factor, True), own.T).T
        gram = self.kernel.covariance(self.log, seen, seen) - of_seen @ own.T
        between = self.kernel.covariance(self.log, asked, seen) - training @ own.T
        factor = _cholesky(gram, float(np.exp(self.log[-1])))
        observed = scipy.linalg.cho_solve((factor, True), between.T).T
        return training - observed @ of_seen, observed

    def updated(self, asked: Pairs, seen: Pairs, outcome: FloatArray) -> FloatArray:
        """Expected outcomes given some more pairs and their outcomes, shape (n_asked,)."""
        cross, own = (
            scipy.linalg.solve_triangular(
                self.factor, self.kernel.covariance(self.log, self.rows, part), lower=True
            )
            for part in (asked, seen)
        )
        gram = self.kernel.covariance(self.log, seen, seen) - own.T @ own
        between = self.kernel.covariance(self.log, asked, seen) - cross.T @ own
        factor = _cholesky(gram, float(np.exp(self.log[-1])))
        surprise = outcome - self.mean(seen)
        moved = between @ scipy.linalg.cho_solve((factor, True), surprise)
        found: FloatArray = self.mean(asked) + moved
        return found


def tuned(
    kernel: PairKernel,
    rows: Pairs,
    target: FloatArray,
    *,
    max_iterations: int = _MAX_ITERATIONS,
) -> FloatArray:
    """Logarithms of the settings that make some pairs most likely, shape (n_settings,).

    A weak normal prior around the start keeps a setting that the data say nothing about there.
    """
    from scipy.optimize import minimize

    compared = kernel.compare(rows, rows)

    def loss(log: FloatArray) -> tuple[float, FloatArray]:
        return unlikelihood(kernel, log, compared, target)

    found = minimize(
        loss,
        kernel.start,
        jac=True,
        method="L-BFGS-B",
        bounds=[_BOUNDS] * kernel.start.size,
        options={"maxiter": max_iterations},
    )
    best: FloatArray = np.asarray(found.x, dtype=np.float64)
    return best


def unlikelihood(
    kernel: PairKernel, log: FloatArray, compared: Compared, target: FloatArray
) -> tuple[float, FloatArray]:
    """Minus the log marginal likelihood and log prior of the settings, and its gradient."""
    covariance = kernel.covariance_of(log, compared)
    noise = float(np.exp(log[-1]))
    factor = _cholesky(covariance, noise)
    weights = scipy.linalg.cho_solve((factor, True), target)
    surplus = np.outer(weights, weights) - _inverse(factor)
    gradient = -0.5 * kernel.slopes(log, compared, surplus)
    away = (log - kernel.start) / _PRIOR_SD
    value = 0.5 * float(target @ weights) + float(np.log(np.diag(factor)).sum())
    return value + 0.5 * float(away @ away), gradient + away / _PRIOR_SD


def _equal(left: Sequence[str | None], right: Sequence[str | None]) -> BoolArray:
    """Where two labels are the same; unknown is the same as nothing."""
    places = {label: i for i, label in enumerate(dict.fromkeys([*left, *right]))}
    a = np.array([-1 if label is None else places[label] for label in left], dtype=np.int64)
    b = np.array([-2 if label is None else places[label] for label in right], dtype=np.int64)
    equal: BoolArray = a[:, None] == b
    return equal


def _cholesky(covariance: FloatArray, noise: float) -> FloatArray:
    size = covariance.shape[0]
    jitter = _JITTER * max(float(np.trace(covariance)) / size, 1.0)
    factor: FloatArray = scipy.linalg.cholesky(
        covariance + (noise + jitter) * np.eye(size), lower=True
    )
    return factor


def _inverse(factor: FloatArray) -> FloatArray:
    """Inverse of the matrix with this lower Cholesky factor."""
    # A third of the operations of solving for the identity.
    half = scipy.linalg.lapack.dpotri(factor, lower=True)[0]
    inverse: FloatArray = np.tril(half) + np.tril(half, -1).T
    return inverse
