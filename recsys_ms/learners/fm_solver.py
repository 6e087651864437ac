"""How a factorization machine is learned: noise of a design, start, coordinate descent.

Everything here works on one design, a csr_array of shape (n_rows, n_columns) in canonical format.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from recsys_ms.core.compiled import Compiled
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.design import MatrixDesign
from recsys_ms.learners.linear import NormalEquations
from recsys_ms.learners.nmf_kernel import late_njit

#: Conjugate gradients stop at this residual, relative to the right-hand side.
_EXACT = 1e-12
#: Up to here the spectrum of the interactions is found densely; beyond, by Lanczos steps.
_DENSE_COLUMNS = 512
#: The most entries of a design that are spread out to multiply many dense columns (160 MB).
_DENSE_ENTRIES = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What ``FactorizationMachineHead`` learns; attributes are the head's, without underscores."""

    intercept: float
    coefficients: FloatArray
    factors: FloatArray
    penalty: float
    objective: tuple[float, ...]
    converged: bool

    def predict(self, rows: sp.csr_array) -> FloatArray:
        """Predicted target of each row of a design, shape (n_rows,)."""
        linear = self.intercept + rows @ self.coefficients
        return np.asarray(linear + interaction_part(rows, self.factors))


class Problem:
    """A design (n_rows, n_columns) and target (n_rows,), with what every solution of it shares."""

    def __init__(self, rows: sp.csr_array, target: FloatArray, l2_linear: float) -> None:
        self.rows = rows
        self.target = target
        self.l2_linear = l2_linear
        self.columns = rows.tocsc()
        self.sizes = column_sizes(rows)
        self.equations = NormalEquations(MatrixDesign(rows))
        self.ridge = self.equations.solve(target, l2_linear, tolerance=_EXACT)
        self.residual = target - self.ridge[0] - rows @ self.ridge[1]
        self.interactions = InteractionMatrix(rows, self.sizes)
        self._spectrum: tuple[FloatArray, FloatArray] | None = None
        # Without a residual, or without columns that meet, no interaction can be learned.
        self.can_interact = bool(
            self.sizes.max(initial=0.0) > 0.0 and np.abs(self.residual).max() > 0.0
        )

    def noise_level(self, rng: np.random.Generator, *, n_draws: int = 3) -> float:
        """The penalty below which a factorization machine would fit pure noise of this design.

        Flipping the signs of the residuals of the linear part keeps the size of the noise and the
        shape of the design, and destroys every interaction; the largest eigenvalue is then what
        noise reaches: parallel analysis (Horn 1965), for interactions. At least 0, in units of the
        target; a mean over ``n_draws`` flips, and 0 when no interaction can be learned.
        """
        if not self.can_interact:
            return 0.0
        levels = np.zeros(n_draws)
        for draw in range(n_draws):
            flipped = self.residual * rng.choice((-1.0, 1.0), self.residual.size)
            values, _ = self.interactions.top(flipped, 1, rng)
            levels[draw] = max(0.0, float(values[0])) if values.size else 0.0
        return float(levels.mean())

    def solve(
        self,
        *,
        n_factors: int,
        penalty: float,
        max_sweeps: int,
        tolerance: float,
        rng: np.random.Generator,
    ) -> Solution:
        """Learn all parameters under one penalty of the factors."""
        rows, columns, y = self.rows, self.columns, self.target
        w0, w = self.ridge
        v = np.zeros((n_factors, w.size))
        if n_factors and self.can_interact:
            if self._spectrum is None or self._spectrum[0].size < min(n_factors, w.size):
                # Of the ridge's error, which the solutions under all penalties share.
                self._spectrum = self.interactions.top(self.residual, n_factors, rng)
            v = self.interactions.start(self._spectrum, n_factors, penalty)
        starts, indices = columns.indptr.astype(np.int64), columns.indices.astype(np.int64)
        penalties = penalty * self.sizes
        # The linear part need not be more exact than the sweep that it is a part of.
        precision = max(_EXACT, 1e-2 * tolerance)
        interaction, work = interaction_part(rows, v), np.empty(y.size)

        def penalised(error: FloatArray) -> float:
            linear, quadratic = np.square(w).sum(), (penalties * np.square(v)).sum()
            return float(np.square(error).sum() + self.l2_linear * linear + quadratic)

        # Zero factors are stationary: where they are the start, ridge is the solution.
        converged = not v.any()
        objective = [penalised(self.residual)] if converged else []
        while not converged and len(objective) < max_sweeps:
            w0, w = self.equations.solve(
                y - interaction, self.l2_linear, tolerance=precision, start=w
            )
            error = y - w0 - rows @ w - interaction
            _sweep_factors(starts, indices, columns.data, penalties, v, error, work)
            # Afresh from v, so that the rounding of a million updates cannot pile up.
            interaction = interaction_part(rows, v)
            objective.append(penalised(y - w0 - rows @ w - interaction))
            if len(objective) > 1:
                converged = objective[-2] - objective[-1] <= tolerance * objective[-2]
        return Solution(
            intercept=w0,
            coefficients=w,
            factors=v,
            penalty=penalty,
            objective=tuple(objective),
            converged=converged,
        )


def column_sizes(rows: sp.csr_array, *, n_rounds: int = 20) -> FloatArray:
    """Weight of each column in the penalty of the interactions: how much noise it can pick up.

    With independent errors of variance 1 the interaction of columns i and j picks up noise of
    variance ``B_ij = Σ_r x_ri² x_rj²``. The sizes s balance it: ``Σ_{i≠j} B_ij / (s_i s_j)`` is
    about 1 for every j (Sinkhorn & Knopp 1967), so that one penalty is as strict with the
    interactions of a one-hot column as with those of a dense column, which meets every other
    one. For one-hot tasks × models it is the weighted trace norm of Salakhutdinov & Srebro (2010).

    Shape (n_columns,), 0 for a column that meets no other one; ``n_rounds`` rounds of balancing.
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
    return np.asarray(sizes)


class InteractionMatrix:
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
            first = max(0, n - n_wanted)
            values, vectors = eigh(self._dense(error, diagonal), subset_by_index=(first, n - 1))
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

    def _dense(self, error: FloatArray, diagonal: FloatArray) -> FloatArray:
        rows = self.rows
        weighted = sp.csr_array(
            (rows.data * np.repeat(error, np.diff(rows.indptr)), rows.indices, rows.indptr),
            shape=rows.shape,
        )
        if rows.shape[0] * rows.shape[1] <= _DENSE_ENTRIES and rows.nnz > 16 * rows.shape[0]:
            product = np.asarray(rows.toarray().T @ weighted.toarray())
        else:
            product = np.asarray((self.transposed @ weighted).toarray())
        product[np.diag_indices_from(product)] -= diagonal
        return np.asarray(self.shrink[:, None] * product * self.shrink)

    def start(
        self, spectrum: tuple[FloatArray, FloatArray], n_factors: int, penalty: float
    ) -> FloatArray:
        """Factors along the directions that beat the penalty, each at its own best length.

        Others start, and stay, at zero: the penalty would draw them back there.
        """
        factors = np.zeros((n_factors, self.shrink.size))
        values, vectors = spectrum
        for f in range(values.size):
            direction = (self.shrink * vectors[f])[None, :]
            response = 2.0 * interaction_part(self.rows, direction)
            strength = float(response @ response)
            if values[f] > penalty and strength > 0.0:
                factors[f] = direction[0] * math.sqrt(2.0 * (values[f] - penalty) / strength)
        return factors


def interaction_part(rows: sp.csr_array, factors: FloatArray) -> FloatArray:
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
    compiler=late_njit,
    nogil=True,
)
