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

_NOISE_GRID: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, np.inf)
_N_SHOWN: Final = (3, 10)


@dataclass(frozen=True, slots=True, eq=False)
class ResidualCorrection:
    """Residuals of past tasks, and the noise that makes conditioning on a few of them work best.

    Attributes
    ----------
    residuals : ndarray of shape (n_tasks, n_models)
        Held-out residuals in standard deviations; 0 where there is none (the expected value).
    noise : float
        Variance of the independent part, in units of the mean squared residual; infinite where no
        correction was better.
    """

    residuals: FloatArray
    noise: float

    @classmethod
    def fit(cls, residuals: FloatArray, *, seed: int) -> Self:
        """Choose the noise by conditioning each past task on 3 and 10 of its own residuals.

        Parameters
        ----------
        residuals : ndarray of shape (n_tasks, n_models)
            NaN where there is none.
        seed : int
            Chooses which residuals are shown.
        """
        filled = np.nan_to_num(residuals)
        errors = np.zeros(len(_NOISE_GRID))
        for task in range(residuals.shape[0]):
            known = np.flatnonzero(~np.isnan(residuals[task]))
            for n_shown in _N_SHOWN:
                if known.size < n_shown + 2:
                    continue
                rng = named_stream(seed, "correction", str(task), str(n_shown))
                shown = np.sort(rng.permutation(known)[:n_shown])
                hidden = np.setdiff1d(known, shown)
                others = np.delete(filled, task, axis=0)
                for position, noise in enumerate(_NOISE_GRID):
                    expected = _condition(others, shown, filled[task, shown], noise)[hidden]
                    errors[position] += float(np.mean((filled[task, hidden] - expected) ** 2))
        # Ties (no task was long enough to try) go to no correction.
        best = len(errors) - 1 - int(np.argmin(errors[::-1]))
        return cls(filled, float(_NOISE_GRID[best]))

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
        rows = self.residuals
        if without_task >= 0:
            rows = np.delete(rows, without_task, axis=0)
        return _condition(rows, observed, residual, self.noise)

    def state(self) -> State:
        """Both attributes."""
        finite = self.noise if np.isfinite(self.noise) else None
        return State(values={"noise": finite}, arrays={"residuals": self.residuals})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore from :meth:`state`."""
        noise = state.values["noise"]
        return cls(
            np.asarray(state.arrays["residuals"], dtype=np.float64),
            float("inf") if noise is None else float(noise),
        )


def _condition(
    residuals: FloatArray, observed: IntArray, values: FloatArray, noise: float
) -> FloatArray:
    """``K_*o (K_oo + s²I)⁻¹ e`` with ``K = RᵀR / n_tasks``, solved in the smaller dimension."""
    n_tasks, n_models = residuals.shape
    if observed.size == 0 or n_tasks == 0 or not np.isfinite(noise):
        return np.zeros(n_models)
    seen = residuals[:, observed]
    variance = max(float(np.mean(residuals**2)), 1e-12)
    strength = n_tasks * noise * variance
    # Push-through identity: Rᵀ(R_o R_oᵀ + λI)⁻¹R_o = RᵀR_o(R_oᵀR_o + λI)⁻¹, n_tasks × n_tasks.
    coefficients = np.linalg.solve(seen @ seen.T + strength * np.eye(n_tasks), seen @ values)
    expected: FloatArray = residuals.T @ coefficients
    return expected
