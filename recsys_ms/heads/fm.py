"""Second-order factorization machine (Rendle 2010), learned by coordinate descent (Rendle 2011).

``ŷ(x) = w₀ + Σ_j w_j x_j + Σ_{i<j} <v_i, v_j> x_i x_j`` (Eq. 1), computed in one pass of
O(n_factors · nonzeros) by ``½ Σ_f [(Σ_j v_jf x_j)² − Σ_j v_jf² x_j²]`` (Eq. 5).

The linear part is solved exactly (a ridge regression on what the interactions leave over), each
``v_jf`` by its closed form given the rest, so the objective never rises and there is no learning
rate. How strongly the interactions are held back is, by default, measured on the design itself: see
:func:`noise_level`.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numba import njit
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from threadpoolctl import threadpool_limits

from recsys_ms.core.compiled import Compiled
from recsys_ms.core.errors import DataError, NotFittedError, UsageError
from recsys_ms.core.rng import as_generator
from recsys_ms.core.state import State
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.heads.base import Design, Head
from recsys_ms.heads.design import linear_form

#: Conjugate gradients stop at this residual, relative to the right-hand side.
_EXACT = 1e-12
#: Up to here the spectrum of the interactions is found densely; Lanczos needs some room.
_DENSE_COLUMNS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorizationMachineConfig:
    """Settings of :class:`FactorizationMachineHead`.

    Attributes
    ----------
    n_factors : int
        Length of each v_j; 0 leaves ridge regression.
    l2_linear : float
        Penalty on Σ w_j², above 0. With standardised targets 1 is one run's worth of doubt per
        one-hot column.
    l2_factors : float or None
        Penalty on Σ_j s_j ‖v_j‖², at least 0, with s_j the Euclidean norm of column j (the weighted
        trace norm of Salakhutdinov & Srebro 2010). ``None`` takes ``noise_margin`` times
        :func:`noise_level`.
    noise_margin : float
        Only used when ``l2_factors`` is ``None``; above 0. 1 admits nothing weaker than noise.
    max_sweeps : int
        Upper bound on passes over all parameters.
    tolerance : float
        Stop when a sweep lowers the objective by less than this share of it.
    """

    n_factors: int = 8
    l2_linear: float = 1.0
    l2_factors: float | None = None
    noise_margin: float = 1.0
    max_sweeps: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.n_factors < 0 or self.max_sweeps < 1:
            raise UsageError(
                f"FactorizationMachineConfig: n_factors={self.n_factors}, "
                f"max_sweeps={self.max_sweeps}; wanted at least 0 and at least 1"
            )
        for name, value, inside in (
            ("l2_linear", self.l2_linear, self.l2_linear > 0.0),
            ("l2_factors", self.l2_factors or 0.0, (self.l2_factors or 0.0) >= 0.0),
            ("noise_margin", self.noise_margin, self.noise_margin > 0.0),
            ("tolerance", self.tolerance, self.tolerance >= 0.0),
        ):
            if not (math.isfinite(value) and inside):
                raise UsageError(
                    f"FactorizationMachineConfig: {name} is {value}; wanted a finite number, "
                    "l2_linear and noise_margin above 0, the others at least 0"
                )


class FactorizationMachineHead(Head):
    """Factorization machine regressor of a standardised outcome.

    Columns should be of comparable size: one-hot columns as 0 and 1, dense ones standardised.

    Parameters
    ----------
    config : FactorizationMachineConfig, optional
        Settings.

    Attributes
    ----------
    intercept_ : float
        w₀, not penalised.
    coefficients_ : ndarray of shape (n_columns,)
        w; 0 for a column that was empty in training.
    factors_ : ndarray of shape (n_factors, n_columns)
        v, one row per factor.
    l2_factors_ : float
        The penalty that was used.
    objective_ : tuple of float
        Penalised squared error after each sweep, never rising.
    converged_ : bool
        Whether the tolerance was met within ``max_sweeps``.
    """

    kind: ClassVar[str] = "fm"

    def __init__(self, config: FactorizationMachineConfig | None = None) -> None:
        self.config = config or FactorizationMachineConfig()
        self._fitted = False

    def fit(
        self,
        design: Design,
        target: FloatArray,
        *,
        groups: IntArray | None = None,
        rng: RngLike = None,
    ) -> Self:
        """Learn from ``design`` (n_rows, n_columns) and ``target`` (n_rows,); ignores ``groups``.

        Raises
        ------
        DataError
            Non-finite numbers, no row, or another number of targets than rows.
        """
        rows = _checked_design(design)
        y = np.asarray(target, dtype=np.float64)
        if y.shape != (rows.shape[0],) or y.size == 0 or not np.isfinite(y).all():
            raise DataError(
                f"fm: target of shape {y.shape} for {rows.shape[0]} rows, or with a NaN or infinite "
                "entry; wanted one finite number per row, at least one row"
            )
        # One BLAS thread: the order of its sums is then the same on every machine size.
        with threadpool_limits(limits=1, user_api="blas"):
            self._learn(rows, y, as_generator(rng))
        self._fitted = True
        return self

    def predict(self, design: Design) -> FloatArray:
        """Predicted target of each row, shape (n_rows,).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``, or non-finite numbers.
        """
        rows = self._known_columns(design)
        return self.intercept_ + rows @ self.coefficients_ + _interactions(rows, self.factors_)

    def linear_contributions(self, design: Design) -> sp.csr_array:
        """The exact share of each column in the linear part: ``w_j x_ij``, (n_rows, n_columns).

        A prediction is ``intercept_``, plus a row's sum of these, plus
        :meth:`interaction_contribution`.
        """
        rows = self._known_columns(design)
        return sp.csr_array(
            (rows.data * self.coefficients_[rows.indices], rows.indices.copy(), rows.indptr.copy()),
            shape=rows.shape,
        )

    def interaction_contribution(self, design: Design) -> FloatArray:
        """What the interactions add to each prediction (Eq. 5), shape (n_rows,)."""
        return _interactions(self._known_columns(design), self.factors_)

    def state(self) -> State:
        """Everything that :meth:`from_state` needs."""
        self._require_fitted()
        return State(
            values={
                "config": asdict(self.config),
                "intercept": self.intercept_,
                "l2_factors": self.l2_factors_,
                "objective": list(self.objective_),
                "converged": self.converged_,
            },
            arrays={"coefficients": self.coefficients_, "factors": self.factors_},
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Restore a fitted head; predictions equal the saved one's bit for bit."""
        head = cls(FactorizationMachineConfig(**state.values["config"]))
        head.intercept_ = float(state.values["intercept"])
        head.l2_factors_ = float(state.values["l2_factors"])
        head.objective_ = tuple(map(float, state.values["objective"]))
        head.converged_ = bool(state.values["converged"])
        head.coefficients_ = np.asarray(state.arrays["coefficients"], dtype=np.float64)
        head.factors_ = np.ascontiguousarray(state.arrays["factors"], dtype=np.float64)
        head._fitted = True
        return head

    def _learn(self, rows: sp.csr_array, y: FloatArray, rng: np.random.Generator) -> None:
        config, (n_rows, n_columns) = self.config, rows.shape
        columns = rows.tocsc()
        starts, indices = columns.indptr.astype(np.int64), columns.indices.astype(np.int64)
        sizes = column_sizes(rows)
        w0, w = _solve_linear(rows, columns, y, np.zeros(n_columns), config.l2_linear, _EXACT)
        v, penalty = self._start(rows, y - w0 - rows @ w, sizes, rng)
        weights = penalty * sizes
        # The linear part need not be more exact than the sweep that it is a part of.
        precision = max(_EXACT, 1e-2 * config.tolerance)
        interaction, work = _interactions(rows, v), np.empty(n_rows)
        objective: list[float] = []
        converged = False
        while not converged and len(objective) < config.max_sweeps:
            if v.size:
                w0, w = _solve_linear(
                    rows, columns, y - interaction, w, config.l2_linear, precision
                )
            error = y - w0 - rows @ w - interaction
            if v.size:
                _sweep_factors(starts, indices, columns.data, weights, v, error, work)
                # Afresh from v, so that the rounding of a million updates cannot pile up.
                interaction = _interactions(rows, v)
                error = y - w0 - rows @ w - interaction
            objective.append(
                float(np.square(error).sum())
                + config.l2_linear * float(np.square(w).sum())
                + float((weights * np.square(v)).sum())
            )
            converged = v.size == 0 or (
                len(objective) > 1
                and objective[-2] - objective[-1] <= config.tolerance * objective[-2]
            )
        self.intercept_, self.coefficients_, self.factors_ = w0, w, v
        self.l2_factors_ = penalty
        self.objective_, self.converged_ = tuple(objective), converged

    def _start(
        self, rows: sp.csr_array, error: FloatArray, sizes: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, float]:
        config = self.config
        nothing = np.zeros((config.n_factors, sizes.size))
        if config.n_factors == 0 or not (sizes.max(initial=0.0) > 0.0 and np.abs(error).max() > 0):
            return nothing, config.l2_factors or 0.0
        interactions = _InteractionMatrix(rows, sizes)
        penalty = config.l2_factors
        if penalty is None:
            penalty = config.noise_margin * noise_level(interactions, error, rng=rng)
        return interactions.start(error, config.n_factors, penalty, rng), penalty

    def _known_columns(self, design: Design) -> sp.csr_array:
        self._require_fitted()
        rows = _checked_design(design)
        if rows.shape[1] != self.coefficients_.size:
            raise DataError(
                f"fm: a design of {rows.shape[1]} columns for a head fitted on "
                f"{self.coefficients_.size}; encode it with the encoder used in training"
            )
        return rows

    def _require_fitted(self) -> None:
        if not self._fitted:
            raise NotFittedError("FactorizationMachineHead is not fitted; call fit() first")


def column_sizes(rows: sp.csr_array, *, n_rounds: int = 20) -> FloatArray:
    """How much room for noise each column has in the interactions, its weight in their penalty.

    With independent errors of variance 1 the interaction of columns i and j picks up noise of
    variance ``B_ij = Σ_r x_ri² x_rj²``. The sizes s balance it: ``Σ_{i≠j} B_ij / (s_i s_j)`` is about
    1 for every j (Sinkhorn & Knopp 1967), so that one penalty is as strict with the interactions
    of a one-hot column as with those of a dense column, which meets every other one. For one-hot
    tasks × models it is the weighted trace norm of Salakhutdinov & Srebro (2010).

    Parameters
    ----------
    rows : csr_array of shape (n_rows, n_columns)
        Design.
    n_rounds : int
        Rounds of balancing; each reads the design twice.

    Returns
    -------
    ndarray of shape (n_columns,)
        0 for a column that meets no other one.
    """
    squares = sp.csr_array((rows.data**2, rows.indices, rows.indptr), shape=rows.shape)
    fourth = np.bincount(rows.indices, rows.data**4, minlength=rows.shape[1])
    transposed = squares.T.tocsr()
    norms = np.sqrt(np.asarray(squares.sum(axis=0)))
    sizes = norms.copy()
    for _ in range(n_rounds):
        inverse = np.where(sizes > 0.0, 1.0, 0.0) / np.where(sizes > 0.0, sizes, 1.0)
        room = transposed @ (squares @ inverse) - fourth * inverse
        # Rounding leaves a trace where a column meets no other one.
        room[room <= 1e-9 * norms**2] = 0.0
        sizes = np.sqrt(sizes * room)
    return sizes


class _InteractionMatrix:
    """``D (Xᵀ diag(e) X − diag(Xᵀ² e)) D`` with ``D = diag(s_j^-1/2)``, never formed when large.

    With all factors at zero, minus this plus the penalty is (half) the curvature of the objective:
    a direction lowers it only where an eigenvalue exceeds the penalty.
    """

    def __init__(self, rows: sp.csr_array, sizes: FloatArray) -> None:
        self.rows = rows
        self.transposed = rows.T.tocsr()
        self.squares_transposed = sp.csr_array(
            (self.transposed.data**2, self.transposed.indices, self.transposed.indptr),
            shape=self.transposed.shape,
        )
        self.shrink = np.where(sizes > 0.0, 1.0, 0.0) / np.sqrt(np.where(sizes > 0.0, sizes, 1.0))

    def top(
        self, error: FloatArray, n_wanted: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Largest eigenvalues (n,), falling, and their vectors (n, n_columns); n ≤ n_wanted."""
        diagonal = self.squares_transposed @ error

        def product(z: FloatArray) -> FloatArray:
            u = self.shrink * z.ravel()
            full = self.transposed @ (error * (self.rows @ u)) - diagonal * u
            return np.asarray(self.shrink * full)

        n = self.shrink.size
        if n <= max(_DENSE_COLUMNS, 4 * n_wanted):
            matrix = np.column_stack([product(unit) for unit in np.eye(n)])
            values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
        else:
            operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
            try:
                # One per cent is finer than what separates one draw of noise from the next.
                values, vectors = eigsh(
                    operator, k=n_wanted, which="LA", tol=1e-2, v0=rng.standard_normal(n)
                )
            except ArpackNoConvergence as error_with_part:
                values, vectors = error_with_part.eigenvalues, error_with_part.eigenvectors
        order = np.argsort(-values, kind="stable")[:n_wanted]
        return values[order], np.ascontiguousarray(vectors[:, order].T)

    def start(
        self, error: FloatArray, n_factors: int, penalty: float, rng: np.random.Generator
    ) -> FloatArray:
        """Factors along the directions that beat the penalty, each at its own best length.

        Others start, and stay, at zero: the penalty would draw them back there.
        """
        factors = np.zeros((n_factors, self.shrink.size))
        values, vectors = self.top(error, n_factors, rng)
        for f in range(values.size):
            direction = (self.shrink * vectors[f])[None, :]
            response = 2.0 * _interactions(self.rows, direction)
            strength = float(response @ response)
            if values[f] > penalty and strength > 0.0:
                factors[f] = direction[0] * math.sqrt(2.0 * (values[f] - penalty) / strength)
        return factors


def noise_level(
    interactions: _InteractionMatrix,
    error: FloatArray,
    *,
    rng: np.random.Generator,
    n_draws: int = 3,
) -> float:
    """The penalty below which a factorization machine would fit pure noise of this design.

    Flipping the signs of what the linear part left over keeps the size of the noise and the shape
    of the design, and destroys every interaction; the largest eigenvalue is then what noise
    reaches: parallel analysis (Horn 1965), for interactions.

    Parameters
    ----------
    interactions : _InteractionMatrix
        The design.
    error : ndarray of shape (n_rows,)
        What the linear part leaves over.
    rng : Generator
        Source of the signs.
    n_draws : int
        Number of flips whose eigenvalues are averaged.

    Returns
    -------
    float
        At least 0, in units of the target.
    """
    levels = np.zeros(n_draws)
    for draw in range(n_draws):
        flipped = error * rng.choice((-1.0, 1.0), error.size)
        values, _ = interactions.top(flipped, 1, rng)
        levels[draw] = max(0.0, float(values[0])) if values.size else 0.0
    return float(levels.mean())


def _solve_linear(
    rows: sp.csr_array,
    columns: sp.csc_array,
    target: FloatArray,
    w: FloatArray,
    l2: float,
    precision: float,
) -> tuple[float, FloatArray]:
    """Ridge regression with a free intercept: conjugate gradients from ``w``, diagonal scaling."""
    n_rows = target.size
    transposed = columns.T

    def product(direction: FloatArray) -> FloatArray:
        image = rows @ direction
        return np.asarray(transposed @ (image - image.mean()) + l2 * direction)

    means = np.asarray(columns.sum(axis=0)) / n_rows
    squares = np.bincount(rows.indices, rows.data**2, minlength=w.size)
    scale = 1.0 / (np.maximum(squares - n_rows * means**2, 0.0) + l2)
    goal = transposed @ (target - target.mean())
    solution = w.copy()
    residual = goal - product(solution)
    stop = precision * math.sqrt(float(goal @ (scale * goal)))
    direction = np.zeros_like(w)
    previous = math.inf
    for _ in range(10 * w.size):
        scaled = scale * residual
        size = float(residual @ scaled)
        if math.sqrt(size) <= stop:
            break
        direction = scaled + (size / previous) * direction
        image = product(direction)
        step = size / float(direction @ image)
        solution += step * direction
        residual -= step * image
        previous = size
    return float(target.mean() - means @ solution), solution


def _interactions(rows: sp.csr_array, factors: FloatArray) -> FloatArray:
    """Second term of Eq. 5 for every row, one pass over the nonzeros."""
    if factors.shape[0] == 0:
        return np.zeros(rows.shape[0])
    squares = sp.csr_array((rows.data**2, rows.indices, rows.indptr), shape=rows.shape)
    sums = rows @ np.ascontiguousarray(factors.T)
    total = -(squares @ np.square(factors).sum(axis=0))
    # Factor by factor, so that a row adds up in the same order whatever rows stand beside it.
    for f in range(factors.shape[0]):
        total += np.square(sums[:, f])
    return np.asarray(0.5 * total)


def _sweep_factors_loop(
    starts: IntArray,
    indices: IntArray,
    data: FloatArray,
    penalties: FloatArray,
    factors: FloatArray,
    error: FloatArray,
    sums: FloatArray,
) -> None:
    n_factors, n_columns = factors.shape
    for f in range(n_factors):
        sums[:] = 0.0
        for j in range(n_columns):
            v = factors[f, j]
            if v != 0.0:
                for t in range(starts[j], starts[j + 1]):
                    sums[indices[t]] += v * data[t]
        for j in range(n_columns):
            v = factors[f, j]
            slope = 0.0
            curvature = 0.0
            for t in range(starts[j], starts[j + 1]):
                i = indices[t]
                # The derivative of ŷ by v_jf (Rendle 2010, Eq. 4); it does not contain v_jf.
                h = data[t] * (sums[i] - v * data[t])
                slope += h * error[i]
                curvature += h * h
            if curvature + penalties[j] <= 0.0:
                continue
            best = (slope + v * curvature) / (curvature + penalties[j])
            step = best - v
            factors[f, j] = best
            for t in range(starts[j], starts[j + 1]):
                i = indices[t]
                x = data[t]
                error[i] -= step * x * (sums[i] - v * x)
                sums[i] += step * x


# No threads: columns share rows, and a back-test runs many fits side by side without the lock.
_sweep_factors = Compiled(
    _sweep_factors_loop,
    "void(i8[::1], i8[::1], f8[::1], f8[::1], f8[:, ::1], f8[::1], f8[::1])",
    compiler=njit,
    nogil=True,
    fastmath={"reassoc", "contract"},
)


def _checked_design(design: Design) -> sp.csr_array:
    rows = linear_form(design).astype(np.float64)
    if rows.ndim != 2 or not np.isfinite(rows.data).all():
        raise DataError(
            f"fm: a design of shape {rows.shape}, or with a NaN or infinite entry; "
            "wanted finite rows × columns, unknown values encoded as columns of their own"
        )
    if not rows.has_canonical_format:
        # Summing repeated entries works in place, and the caller's matrix is not ours.
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
