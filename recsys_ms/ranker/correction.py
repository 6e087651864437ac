"""What a few observed outcomes say of the other models: a Gaussian process over past tasks.

The held-out residuals of past tasks (outcome minus blend) are draws of "what a task wants besides
what is expected of it". Their second moments are the prior covariance of models, with independent
noise on top; given some residuals of a new task, the others follow by conditioning.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys_ms.core.rng import named_stream
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.history.interactions import Interactions
from recsys_ms.history.standardize import standardize
from recsys_ms.ranker.scale import ScalePrior

_NOISE_GRID: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)
#: Numbers of observed outcomes the noise is chosen for; a task uses the nearest from below.
_N_SHOWN: Final = (1, 3, 10, 30)
_N_DRAWS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class ResidualCorrection:
    """Residuals of past tasks, and the noise that makes conditioning on a few of them work best.

    Attributes
    ----------
    residuals : ndarray of shape (n_tasks, n_models)
        Held-out residuals in standard deviations; 0 where there is none (the expected value).
    noise : ndarray of shape (len(_N_SHOWN),)
        Variance of the independent part for 1, 3, 10 and 30 observed outcomes, in units of the
        mean squared residual; infinite where no correction was better.
    """

    residuals: FloatArray
    noise: FloatArray

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        held_out_value: FloatArray,
        tasks: IntArray,
        *,
        seed: int,
    ) -> Self:
        """Choose the noise by playing past tasks as new ones, with a few outcomes shown.

        Shown outcomes are standardised by what they and the *other* tasks say of the task's
        location and spread, as they will be in service: with few outcomes that is itself a guess,
        and a correction that trusts it does harm.

        Parameters
        ----------
        interactions : Interactions
            Training interactions.
        held_out_value : ndarray of shape (n_interactions,)
            Predictions that did not see the task; NaN where there is none.
        tasks : ndarray of shape (n_tasks,)
            Which tasks to keep.
        seed : int
            Chooses which outcomes are shown.
        """
        score = standardize(interactions, "zscore").scores
        residual = score - held_out_value
        residual_sd = float(np.sqrt(np.nanmean(residual**2)))
        rows = [
            np.flatnonzero((interactions.task_index == task) & ~np.isnan(residual))
            for task in tasks
        ]
        filled = np.zeros((tasks.size, interactions.n_models))
        for position, own in enumerate(rows):
            filled[position, interactions.model_index[own]] = residual[own]
        prior = ScalePrior.fit(interactions)
        errors = np.zeros((len(_N_SHOWN), len(_NOISE_GRID)))
        for position, task in enumerate(tasks):
            own = rows[position]
            others = np.delete(filled, position, axis=0)
            metric = interactions.metrics[int(task)]
            without = prior.excluding(int(task))
            rng = named_stream(seed, "correction", interactions.task_ids[int(task)])
            for line, n_shown in enumerate(_N_SHOWN):
                for _ in range(_N_DRAWS):
                    order = rng.permutation(own)
                    shown, hidden = order[:n_shown], order[n_shown:]
                    outcomes = interactions.outcomes[shown]
                    if hidden.size < 2 or not without.can_place(metric, outcomes):
                        continue
                    value = held_out_value[shown]
                    scale = without.posterior(
                        metric, predicted=value, outcomes=outcomes, residual_sd=residual_sd
                    )
                    given = (outcomes - scale.center) / scale.scale - value
                    columns = interactions.model_index
                    for column, noise in enumerate(_NOISE_GRID):
                        expected = _condition(others, columns[shown], given, noise)
                        error = residual[hidden] - expected[columns[hidden]]
                        errors[line, column] += float(np.mean(error**2))
        # Ties go to no correction, the last of the grid.
        best = errors.shape[1] - 1 - np.argmin(errors[:, ::-1], axis=1)
        noise = np.array(_NOISE_GRID)[best]
        for line in range(1, noise.size):
            if not errors[line].any():
                # No past task has so many runs: trust as with the next smaller number.
                noise[line] = noise[line - 1]
        return cls(filled, noise)

    def expected(
        self, observed: IntArray, residual: FloatArray, *, without_task: int = -1
    ) -> FloatArray:
        """Expected residual of every model, shape (n_models,).

        Parameters
        ----------
        observed : ndarray of shape (n_observed,)
            Models whose residual is known.
        residual : ndarray of shape (n_observed,)
            Their residuals.
        without_task : int
            A past task to leave out (a task must not explain itself), -1 for none.
        """
        if observed.size == 0:
            return np.zeros(self.residuals.shape[1])
        rows, noise = self._trusted(observed.size, without_task)
        return _condition(rows, observed, residual, noise)

    def shares(self, asked: IntArray, observed: IntArray, *, without_task: int = -1) -> FloatArray:
        """How much each observed residual counts in :meth:`expected`, (n_asked, n_observed).

        Parameters
        ----------
        asked : ndarray of shape (n_asked,)
            Models whose residual is expected.
        observed : ndarray of shape (n_observed,)
            Models whose residual is known.
        without_task : int
            As in :meth:`expected`.
        """
        if observed.size == 0:
            return np.zeros((asked.size, 0))
        rows, noise = self._trusted(observed.size, without_task)
        return _condition_shares(rows, asked, observed, noise)

    def covariance(
        self, asked: IntArray, observed: IntArray, *, without_task: int = -1
    ) -> FloatArray:
        """Covariance of the residuals of some models, given those observed, (n_asked, n_asked).

        The covariance of the process whose mean is :meth:`expected`, scaled such that a residual of
        which nothing is known has the mean square of past ones.

        Parameters
        ----------
        asked : ndarray of shape (n_asked,)
            Models; -1 for one without runs, whose residual is independent of all others.
        observed : ndarray of shape (n_observed,)
            Models whose residual is known.
        without_task : int
            As in :meth:`expected`.
        """
        rows, noise = self._trusted(observed.size, without_task)
        variance = max(float(np.mean(rows**2)), 1e-12) if rows.size else 1.0
        alone = np.eye(asked.size) * variance
        if len(rows) == 0 or not np.isfinite(noise):
            return alone
        own = np.where(asked >= 0, rows[:, asked], 0.0)
        shares = _condition_shares(rows, np.maximum(asked, 0), observed, noise)
        shares[asked < 0] = 0.0
        kernel = own.T @ own / len(rows) - shares @ (rows[:, observed].T @ own) / len(rows)
        together = (kernel + noise * alone) / (1.0 + noise)
        together[asked < 0, asked < 0] = variance
        return (together + together.T) / 2

    def _trusted(self, n_observed: int, without_task: int) -> tuple[FloatArray, float]:
        """Residuals of the other tasks, and the noise for so many observed outcomes."""
        rows = self.residuals
        if without_task >= 0:
            rows = np.delete(rows, without_task, axis=0)
        nearest = max(int(np.searchsorted(_N_SHOWN, n_observed, side="right")) - 1, 0)
        return rows, float(self.noise[nearest])

    def state(self) -> State:
        """Both attributes."""
        return State(arrays={"residuals": self.residuals, "noise": self.noise})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore from :meth:`state`."""
        return cls(
            np.asarray(state.arrays["residuals"], dtype=np.float64),
            np.asarray(state.arrays["noise"], dtype=np.float64),
        )


def _condition(
    residuals: FloatArray, observed: IntArray, values: FloatArray, noise: float
) -> FloatArray:
    """``K_*o (K_oo + s²I)⁻¹ e`` with ``K = RᵀR / n_tasks``, solved in the smaller dimension."""
    n_tasks, n_models = residuals.shape
    if observed.size == 0 or n_tasks == 0 or not np.isfinite(noise):
        return np.zeros(n_models)
    seen = residuals[:, observed]
    strength = _strength(residuals, noise)
    # Push-through identity: Rᵀ(R_o R_oᵀ + λI)⁻¹R_o = RᵀR_o(R_oᵀR_o + λI)⁻¹.
    if n_tasks <= observed.size:
        weights = np.linalg.solve(seen @ seen.T + strength * np.eye(n_tasks), seen @ values)
    else:
        inner = seen.T @ seen + strength * np.eye(observed.size)
        weights = seen @ np.linalg.solve(inner, values)
    expected: FloatArray = residuals.T @ weights
    return expected


def _condition_shares(
    residuals: FloatArray, asked: IntArray, observed: IntArray, noise: float
) -> FloatArray:
    """``K_ao (K_oo + s²I)⁻¹``: the matrix of :func:`_condition` for some models."""
    n_tasks = residuals.shape[0]
    if n_tasks == 0 or not np.isfinite(noise):
        return np.zeros((asked.size, observed.size))
    seen, own = residuals[:, observed], residuals[:, asked]
    strength = _strength(residuals, noise)
    if n_tasks <= observed.size:
        shares: FloatArray = own.T @ np.linalg.solve(
            seen @ seen.T + strength * np.eye(n_tasks), seen
        )
    else:
        inner = seen.T @ seen + strength * np.eye(observed.size)
        shares = own.T @ seen @ np.linalg.inv(inner)
    return shares


def _strength(residuals: FloatArray, noise: float) -> float:
    return len(residuals) * noise * max(float(np.mean(residuals**2)), 1e-12)
