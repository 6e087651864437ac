"""From what cards say to factors: a Gaussian process over the views of tasks, or of models.

Each view of a card (a task's images, its class names, what else its card says; a model's
architecture, its card) has a kernel, and what the views explain of the factors is learned by
marginal likelihood, so that a view that says nothing gets no weight. Views of many cards are seen
through at most :data:`N_LANDMARKS` of them (Williams & Seeger 2001), and the training rows are
reduced to as many as there are features, which keeps the cost linear in the number of cards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self

import numpy as np

from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.rng import named_stream
from recsys_ms.core.state import Derived, Learned, Stateful
from recsys_ms.core.types import FloatArray
from recsys_ms.learners.gaussian.kernels import Compared, Given, Kernel, Scaled
from recsys_ms.learners.gaussian.process import NOISE, Evidence, Process, fit
from recsys_ms.learners.gaussian.vectors import known_rows, median_distance

#: Cards that a view is seen through; with at most so many the kernel is exact.
N_LANDMARKS: Final = 160
#: Log-normal prior of each variance: around .3 of the factors' variance, a factor of 20 either way.
_PRIOR_LOG_MEAN: Final = float(np.log(0.3))
_PRIOR_LOG_SD: Final = 3.0
#: Bounds of the log variances; the noise has the narrower one.
_BOUNDS: Final = {"view": (-7.0, 2.0), NOISE: (-4.0, 1.0)}
_MAX_ITERATIONS: Final = 25


@dataclass(frozen=True, slots=True, eq=False)
class ViewKernel:
    """Features whose inner products are a Gaussian kernel of a view.

    Attributes
    ----------
    landmarks : ndarray of shape (n_landmarks, n_dimensions)
    length : float
        Length scale: the median distance of the cards.
    whitening : ndarray of shape (n_landmarks, n_features)
    """

    landmarks: Annotated[FloatArray, Shape("landmark", "dimension")]
    length: Annotated[float, Within(above=0.0)]
    whitening: Annotated[FloatArray, Shape("landmark", "feature")]

    @classmethod
    def fit(cls, vectors: FloatArray) -> Self:
        """Learn from vectors (n_rows, n_dimensions), NaN throughout where unknown."""
        known = vectors[known_rows(vectors)]
        if len(known) > N_LANDMARKS:
            drawn = named_stream(0, "landmarks").permutation(len(known))[:N_LANDMARKS]
            known = known[np.sort(drawn)]
        landmarks = np.unique(known, axis=0)
        length = median_distance(landmarks)
        values, axes = np.linalg.eigh(_gaussian(landmarks, landmarks, length))
        kept = values > 1e-6 * values.max(initial=1.0)
        whitening = np.ascontiguousarray(axes[:, kept] / np.sqrt(values[kept]))
        return cls(landmarks, length, whitening)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Features (n_rows, n_features); 0 where the view is unknown."""
        known = known_rows(vectors)
        found = np.zeros((len(vectors), self.whitening.shape[1]))
        if known.any():
            near = _gaussian(vectors[known], self.landmarks, self.length)
            found[known] = near @ self.whitening
        return found


def _gaussian(rows: FloatArray, columns: FloatArray, length: float) -> FloatArray:
    squared = (rows**2).sum(axis=1)[:, None] + (columns**2).sum(axis=1) - 2.0 * rows @ columns.T
    found: FloatArray = np.exp(-0.5 * np.maximum(squared, 0.0) / length**2)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Features of each view, (n_rows, n_features)."""

    features: dict[str, FloatArray]

    def compare(self, other: "_Rows") -> Compared:
        return {name: own @ other.features[name].T for name, own in self.features.items()}


class CardProcess(Stateful):
    """Predicts factors, each with mean 0 and variance 1 over the training rows, from views.

    ``targets = sum over views of sqrt(variance) features · coefficients + noise``, with standard
    normal coefficients.
    """

    _kernels: Learned[dict[str, ViewKernel]]
    _logs: Learned[dict[str, float]]
    #: The training rows, or fewer rows that tell as much, and their targets.
    _rows: Learned[_Rows]
    _target: Learned[Annotated[FloatArray, Shape("row", "factor")]]
    _process: Derived[Process]

    @classmethod
    def fit(
        cls,
        views: Mapping[str, FloatArray],
        targets: FloatArray,
        weighing: FloatArray | None = None,
    ) -> Self:
        """Learn from training rows.

        Parameters
        ----------
        views : mapping of str to ndarray of shape (n_rows, n_dimensions), at least one
            NaN throughout where a row's view is unknown.
        targets : ndarray of shape (n_rows, n_factors)
            Mean 0; factors that vary less than others count less for the variances.
        weighing : ndarray of shape (n_factors, n_columns), optional
            The variances are those of ``targets @ weighing``, about 1. Default: of the targets.
        """
        found = cls()
        found._kernels = {name: ViewKernel.fit(vectors) for name, vectors in views.items()}
        found._rows, found._target = _reduced(found._seen(views), targets)
        share = float(np.log(0.3 / len(views)))
        evidence = Evidence(
            kernel=found._kernel(),
            compared=found._rows.compare(found._rows),
            target=found._target if weighing is None else found._target @ weighing,
            start={"view": share, NOISE: float(np.log(0.6))},
            mean=_PRIOR_LOG_MEAN,
            sd=_PRIOR_LOG_SD,
            n_silent=len(targets) - len(found._target),
        )
        found._logs = fit(evidence, _BOUNDS, _MAX_ITERATIONS)
        found._derive()
        return found

    @property
    def variances(self) -> dict[str, float]:
        """Variance of the factors that each view explains, and ``noise``."""
        found = {name: float(np.exp(self._logs[f"view {name}"])) for name in self._kernels}
        return {**found, NOISE: self._noise}

    def features(self, views: Mapping[str, FloatArray]) -> FloatArray:
        """Features of rows, scaled by what each view explains, (n_rows, n_features)."""
        seen = self._seen(views).features.items()
        return np.hstack([np.exp(0.5 * self._logs[f"view {name}"]) * each for name, each in seen])

    def predict(self, views: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Mean (n_rows, n_factors) and variance (n_rows,) of the factors of new rows."""
        mean, variance, missing = self._posterior(views)
        return mean, variance + missing + self._noise

    def weights(
        self, views: Mapping[str, FloatArray], training: Mapping[str, FloatArray]
    ) -> FloatArray:
        """What each training row adds to the mean of some rows: (n_rows, n_training).

        The mean is these weights times the training targets.
        """
        shared = self._process.covariance(self._seen(views), self._seen(training))
        return shared / self._noise

    def predict_left_out(
        self, views: Mapping[str, FloatArray], targets: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The same for training rows, each as if its own factors were unknown (leave one out)."""
        mean, variance, missing = self._posterior(views)
        left = np.maximum(1.0 - variance / self._noise, 1e-3)
        return targets - (targets - mean) / left[:, None], self._noise / left + missing

    def _posterior(
        self, views: Mapping[str, FloatArray]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean, variance of what the features tell, and prior variance of what they miss."""
        rows, total = self._seen(views), sum(self.variances.values()) - self._noise
        prior = (self.features(views) ** 2).sum(axis=1)
        # A row of which nothing is known may be anywhere; so may the part that a view misses.
        missing = np.maximum(total - prior, 0.0)
        return self._process.mean(rows), prior - self._process.explained(rows), missing

    @property
    def _noise(self) -> float:
        return float(np.exp(self._logs[NOISE]))

    def _seen(self, views: Mapping[str, FloatArray]) -> _Rows:
        return _Rows({name: kernel(views[name]) for name, kernel in self._kernels.items()})

    def _kernel(self) -> Kernel:
        first, *others = (Scaled(f"view {name}", Given(name)) for name in self._kernels)
        return sum(others, start=first)

    def _derive(self) -> None:
        self._process = Process(self._kernel(), self._logs).condition(self._rows, self._target)


def _reduced(rows: _Rows, targets: FloatArray) -> tuple[_Rows, FloatArray]:
    """Fewer rows with the same inner products of features and targets; the others are 0."""
    joined = np.hstack([*rows.features.values(), targets])
    if len(joined) <= joined.shape[1]:
        return rows, targets
    triangle = np.linalg.qr(joined, mode="r")
    ends = np.cumsum([each.shape[1] for each in rows.features.values()])
    *parts, target = (np.ascontiguousarray(part) for part in np.split(triangle, ends, axis=1))
    return _Rows(dict(zip(rows.features, parts, strict=True))), target
