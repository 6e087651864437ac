"""The prior of (task, model) pairs: one for cold tasks, cold models and both.

The standardised outcome of model m on task t is taken as

    y(t, m) = f(m) + g(t, m) + h(t, m) + s(t, m)ᵀ w + noise

f: what a model is worth anywhere, with covariance Σ_c b_c K_c(m, m') over *components* of model
cards (the model itself, its architecture, its source …); g: what similar tasks share, with
covariance (Σ_v a_v k_v(t, t')) (Σ_c d_c K_c(m, m')) over *views* of tasks (images, class names,
card); h: the effect of one task alone, with covariance [t = t'] Σ_c o_c K_c; s: transferability
scores of the pair. All variances and lengths are settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.gaussian.kernels import Compared, Gathered, Given, Kernel, Scaled, Smooth
from recsys_ms.learners.gaussian.process import Evidence
from recsys_ms.learners.gaussian.vectors import known_rows

_START: Final = {"main": -1.5, "shared": -2.0, "own": -3.0, "score": -3.0, "view": 0.0,
                 "length": 0.0, "noise": -1.5}  # fmt: skip
_PRIOR_SD: Final = 2.5
#: Bounds of every setting's logarithm, and iterations of the search.
BOUNDS: Final = {"": (-9.0, 3.0)}
MAX_ITERATIONS: Final = 40

#: The component that is 1 for a model with itself alone.
ITSELF: Final = "itself"


@dataclass(frozen=True, slots=True, eq=False)
class Entities:
    """Tasks or models: their ids, labels and vectors, each by its name.

    Attributes
    ----------
    ids : tuple of str
    labels : mapping of str to tuple of str or None
        Entities with equal labels are alike; ``None`` is unknown and like no other.
    vectors : mapping of str to ndarray of shape (n_entities, n_dimensions)
        In units of the median distance of two training entities; NaN throughout a row is unknown.
    """

    ids: tuple[str, ...]
    labels: Mapping[str, tuple[str | None, ...]]
    vectors: Mapping[str, FloatArray]

    def take(self, rows: IntArray) -> "Entities":
        """Some of them."""
        return Entities(
            ids=tuple(self.ids[int(i)] for i in rows),
            labels={
                name: tuple(labels[int(i)] for i in rows) for name, labels in self.labels.items()
            },
            vectors={name: table[rows] for name, table in self.vectors.items()},
        )

    def compare(self, other: "Entities") -> dict[str, FloatArray]:
        """Masks of equal ids and labels, and squared distances by each vector.

        A distance is infinite where a vector is unknown, and 0 of an entity to itself.
        """
        from scipy.spatial.distance import cdist

        same = _equal(self.ids, other.ids)
        found = {ITSELF: same}
        for name, own in self.labels.items():
            found[name] = np.maximum(_equal(own, other.labels[name]), same)
        for name, left in self.vectors.items():
            right = other.vectors[name]
            rows, columns = known_rows(left), known_rows(right)
            distance = np.full(same.shape, np.inf)
            distance[np.ix_(rows, columns)] = cdist(left[rows], right[columns], "sqeuclidean")
            distance[same > 0.0] = 0.0
            found[name] = distance
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Some (task, model) pairs.

    Attributes
    ----------
    tasks, models : Entities
    task, model : ndarray of shape (n_rows,)
        Positions there.
    scores : ndarray of shape (n_rows, n_scores)
        Transferability scores, standardised; 0 where unknown.
    """

    tasks: Entities
    models: Entities
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

    def compare(self, other: "Pairs") -> Compared:
        """What :func:`pair_kernel` needs: entities compared, which pairs have them, and scores."""
        tasks, models = self.tasks.compare(other.tasks), self.models.compare(other.models)
        for name in self.models.vectors:
            # Vectors of models come in their unit: their length scale is not a setting.
            models[name] = np.exp(-0.5 * models[name])
        return {
            **{f"task {name}": matrix for name, matrix in tasks.items()},
            **{f"model {name}": matrix for name, matrix in models.items()},
            "tasks": np.ix_(self.task, other.task),
            "models": np.ix_(self.model, other.model),
            "scores": self.scores @ other.scores.T / max(self.scores.shape[1], 1),
        }


def pair_kernel(views: Sequence[str], components: Sequence[str], n_scores: int) -> Kernel:
    """Covariance of :class:`Pairs` with these views of tasks and components of models."""

    def mixed(kind: str) -> Kernel:
        first, *others = (Scaled(f"{kind} {name}", Given(f"model {name}")) for name in components)
        return Gathered("models", sum(others, start=first))

    kernel = mixed("main") + Gathered("tasks", Given(f"task {ITSELF}")) * mixed("own")
    if views:
        first, *others = (Smooth({f"task {view}": f"length {view}"}, power=-2) for view in views)
        # The first view's variance is in those of the components.
        scaled = (Scaled(f"view {view}", k) for view, k in zip(views[1:], others, strict=True))
        kernel += Gathered("tasks", sum(scaled, start=first)) * mixed("shared")
    return kernel + Scaled("score", Given("scores")) if n_scores else kernel


def pair_evidence(kernel: Kernel, rows: Pairs, target: FloatArray) -> Evidence:
    """Of the settings, with a weak prior: one that the data say nothing about stays at its start.

    Parameters
    ----------
    kernel : Kernel
        A :func:`pair_kernel`.
    rows : Pairs
    target : ndarray of shape (n_rows,)
        Standardised outcomes.
    """
    return Evidence(
        kernel=kernel, compared=rows.compare(rows), target=target, start=_START, sd=_PRIOR_SD
    )


def _equal(left: Sequence[str | None], right: Sequence[str | None]) -> FloatArray:
    """1 where two labels are equal, 0 elsewhere; an unknown one equals no other."""
    places = {label: i for i, label in enumerate(dict.fromkeys([*left, *right]))}
    a = np.array([-1 if label is None else places[label] for label in left], dtype=np.int64)
    b = np.array([-2 if label is None else places[label] for label in right], dtype=np.int64)
    equal: FloatArray = (a[:, None] == b).astype(np.float64)
    return equal
