"""Gaussian process regression on meta features, for histories of a few thousand rows."""

from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from recsys_ms.catalog.encoding import INDICATOR, NUMBER
from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import as_generator
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.design import (
    Design,
    FeatureDesign,
    check_columns,
    check_fit_input,
    linear_form,
    n_columns_of,
    n_rows_of,
)
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions, field_codes, linear_fields
from recsys_ms.learners.product_shapley import by_field, shapley_of_products

#: Test rows whose kernel is held at once.
_CHUNK: Final = 2000
#: Bounds of every logarithmic parameter, and of the noise.
_BOUNDS: Final = (-8.0, 4.0)
_NOISE_BOUNDS: Final = (-8.0, 2.0)
_START_SCALE: Final = -1.5
_START_NOISE: Final = -3.0
_N_PARTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """Options of :class:`KernelHead`.

    Attributes
    ----------
    max_rows : int
        More training rows are refused: time grows with their cube. Default 5000.
    n_tuning_rows : int
        Rows, drawn at random, by whose marginal likelihood the kernel is tuned. Default 400.
    max_iterations : int
        Iterations of that tuning. Default 60.
    """

    max_rows: int = 5000
    n_tuning_rows: int = 400
    max_iterations: int = 60

    def __post_init__(self) -> None:
        for name in ("max_rows", "n_tuning_rows", "max_iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"KernelConfig.{name} is {getattr(self, name)}; at least 1")


class KernelHead(Head):
    """Mean of a Gaussian process whose kernel knows numbers and words.

    With ``z`` the numbers of a row, ``b`` its indicators (scaled so that a row has norm 1 on
    average) and ``R(z, z') = exp(−½ Σ_f s_f ‖z_f − z'_f‖²)`` with one scale per card field f, the
    kernel is ``v₁R + v₂ b·b' + v₃ (b·b') R + v₄ z·z'``: smooth in the numbers, additive in the
    words, and an interaction of both. Scales, variances and noise maximise the marginal likelihood
    of a sample of the training rows (Rasmussen and Williams 2006, Eq. 5.8 and 5.9).

    Parameters
    ----------
    config : KernelConfig, optional
        Options.
    """

    kind: ClassVar[str] = "kernel"
    default_config: ClassVar[KernelConfig] = KernelConfig()

    config: Learned[KernelConfig]
    _columns: Learned["_Columns"]
    #: The training rows: a Gaussian process answers by them.
    _rows: Learned["_Rows"]
    _weights: Learned[FloatArray]
    _parameters: Learned[FloatArray]
    _target: Learned[tuple[float, float]]

    def fit(
        self,
        design: Design,
        target: FloatArray,
        *,
        groups: IntArray | None = None,
        rng: RngLike = None,
    ) -> Self:
        """Tune the kernel and solve for the weights; ``groups`` is not used.

        Raises
        ------
        DataError
            No rows, lengths that differ, or a target that is not finite.
        UsageError
            More rows than ``config.max_rows``.
        """
        check_fit_input(design, target, groups)
        n_rows = n_rows_of(design)
        if n_rows > self.config.max_rows:
            raise UsageError(
                f"KernelHead: {n_rows} training rows, max_rows is {self.config.max_rows}; "
                "use LinearHead or LightGBMHead for a history of this size"
            )
        columns = _Columns.of(design)
        rows = columns.split(linear_form(design))
        scale = float(target.std())
        self._target = (float(target.mean()), scale if scale > 0.0 else 1.0)
        standard = (target - self._target[0]) / self._target[1]
        chosen = np.arange(n_rows)
        if n_rows > self.config.n_tuning_rows:
            drawn = as_generator(rng).choice(n_rows, self.config.n_tuning_rows, replace=False)
            chosen = np.sort(drawn)
        self._parameters = self._tuned(rows.take(chosen), standard[chosen])
        gram = _kernel(_parts(rows, rows), self._parameters)
        gram[np.diag_indices(n_rows)] += np.exp(self._parameters[-1])
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True)
        self._weights = scipy.linalg.cho_solve(factor, standard)
        self._columns, self._rows = columns, rows
        return self

    def predict(self, design: Design) -> FloatArray:
        """Predicted target of each row, shape (n_rows,).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``.
        """
        self._require_fitted()
        columns, rows = self._columns, self._rows
        check_columns(n_columns_of(design), columns.n_columns)
        matrix = linear_form(design)
        predicted = np.empty(matrix.shape[0])
        for start in range(0, matrix.shape[0], _CHUNK):
            part = columns.split(matrix[start : start + _CHUNK])
            kernel = _kernel(_parts(part, rows), self._parameters)
            # einsum adds up each row alike; a matrix product may not, depending on their number.
            predicted[start : start + _CHUNK] = np.einsum("ij,j->i", kernel, self._weights)
        return self._target[0] + self._target[1] * predicted

    def contributions(self, design: Design) -> HeadContributions:
        """Shapley values of the card fields.

        A field that is not known counts as if all training rows were alike in its numbers (a factor
        of 1 in R) and as if it said no words and no numbers elsewhere. The base is the prediction
        without any field. See :func:`recsys_ms.learners.product_shapley.shapley_of_products`.
        """
        self._require_fitted()
        columns, rows = self._columns, self._rows
        check_columns(n_columns_of(design), columns.n_columns)
        matrix = linear_form(design)
        names, codes = field_codes(linear_fields(design))
        first, words, joint, products = np.exp(self._parameters[-_N_PARTS - 1 : -1]).tolist()
        amounts = np.empty((matrix.shape[0], len(names)))
        sizes = np.bincount(rows.fields)
        scales = np.exp(self._parameters[rows.fields]) / sizes[rows.fields]
        chunk = max(1, _CHUNK // max(len(names), 1))
        for start in range(0, matrix.shape[0], chunk):
            part = columns.split(matrix[start : start + chunk])
            factors, in_products = by_field(
                part.numbers, rows.numbers, codes[columns.numbers], len(names), scales=scales
            )
            _, in_words = by_field(part.words, rows.words, codes[columns.words], len(names))
            additive = words * in_words + products / max(rows.fields.size, 1) * in_products
            amounts[start : start + chunk] = shapley_of_products(
                factors, in_words, self._weights, alone=first, joint=joint
            ) + np.einsum("pij,j->ip", additive, self._weights)
        center, scale = self._target
        base = center + scale * first * float(self._weights.sum())
        return HeadContributions(base=base, fields=names, amounts=scale * amounts)

    def _tuned(self, rows: "_Rows", target: FloatArray) -> FloatArray:
        from scipy.optimize import minimize

        parts = _parts(rows, rows)
        n_scales = len(parts.distances)
        start = np.concatenate(
            [np.full(n_scales, _START_SCALE), [0.0, -1.0, -1.0, -1.0], [_START_NOISE]]
        )
        bounds = [_BOUNDS] * (n_scales + _N_PARTS) + [_NOISE_BOUNDS]
        found = minimize(
            _negative_evidence,
            start,
            args=(parts, target),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": self.config.max_iterations},
        )
        parameters: FloatArray = np.asarray(found.x, dtype=np.float64)
        return parameters


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Rows split for the kernel."""

    numbers: FloatArray
    fields: IntArray
    words: sp.csr_array

    def take(self, rows: IntArray) -> "_Rows":
        return _Rows(numbers=self.numbers[rows], fields=self.fields, words=self.words[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """Which columns of a design are numbers, of which field, and which are words."""

    n_columns: int
    numbers: IntArray
    fields: IntArray
    words: IntArray
    word_scale: float

    @classmethod
    def of(cls, design: Design) -> "_Columns":
        matrix = linear_form(design)
        if isinstance(design, FeatureDesign):
            kinds, names = design.kinds, design.linear_fields
            numbers = np.flatnonzero(kinds == NUMBER)
            words = np.flatnonzero(kinds == INDICATOR)
        else:
            fractional = (matrix != 0).astype(np.float64) - matrix
            kept = np.asarray(np.abs(fractional).sum(axis=0)).ravel() > 0.0
            numbers, words = np.flatnonzero(kept), np.flatnonzero(~kept)
            names = tuple(str(i) for i in range(matrix.shape[1]))
        fields = field_codes([names[i] for i in numbers])[1]
        per_row = float(matrix[:, words].power(2).sum()) / matrix.shape[0]
        return cls(
            n_columns=int(matrix.shape[1]),
            numbers=numbers,
            fields=fields,
            words=words,
            word_scale=float(np.sqrt(per_row)) if per_row > 0.0 else 1.0,
        )

    def split(self, matrix: sp.csr_array) -> _Rows:
        words = sp.csr_array(matrix[:, self.words] / self.word_scale)
        words.sort_indices()
        return _Rows(numbers=matrix[:, self.numbers].toarray(), fields=self.fields, words=words)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """Squared distances per field and inner products, each of shape (n_left, n_right)."""

    distances: tuple[FloatArray, ...]
    words: FloatArray
    products: FloatArray


def _parts(left: _Rows, right: _Rows) -> _Parts:
    from scipy.spatial.distance import cdist

    n_fields = int(left.fields.max()) + 1 if left.fields.size else 0
    distances = []
    for field in range(n_fields):
        own = left.fields == field
        square = cdist(left.numbers[:, own], right.numbers[:, own], "sqeuclidean")
        distances.append(square / int(own.sum()))
    return _Parts(
        distances=tuple(distances),
        words=(left.words @ right.words.T).toarray(),
        products=sp.csr_array(left.numbers) @ right.numbers.T / max(left.fields.size, 1),
    )


def _smooth(parts: _Parts, parameters: FloatArray) -> FloatArray:
    total = np.zeros_like(parts.words)
    for log_scale, distance in zip(parameters, parts.distances, strict=False):
        total += np.exp(log_scale) * distance
    smooth: FloatArray = np.exp(-0.5 * total)
    return smooth


def _kernel(parts: _Parts, parameters: FloatArray) -> FloatArray:
    smooth = _smooth(parts, parameters)
    n_scales = len(parts.distances)
    variances = np.exp(parameters[n_scales : n_scales + _N_PARTS])
    kernel: FloatArray = (
        (variances[0] + variances[2] * parts.words) * smooth
        + variances[1] * parts.words
        + variances[3] * parts.products
    )
    return kernel


def _negative_evidence(
    parameters: FloatArray, parts: _Parts, target: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log marginal likelihood (up to a constant) and its gradient."""
    smooth = _smooth(parts, parameters)
    n_scales = len(parts.distances)
    variances = np.exp(parameters[n_scales : n_scales + _N_PARTS])
    noise = float(np.exp(parameters[-1]))
    pieces = (
        variances[0] * smooth,
        variances[1] * parts.words,
        variances[2] * parts.words * smooth,
        variances[3] * parts.products,
    )
    gram = pieces[0] + pieces[1] + pieces[2] + pieces[3]
    gram[np.diag_indices(target.size)] += noise
    factor = scipy.linalg.cholesky(gram, lower=True)
    inverse = scipy.linalg.cho_solve((factor, True), np.eye(target.size))
    weights = inverse @ target
    value = 0.5 * float(target @ weights) + float(np.log(np.diag(factor)).sum())
    # ∂/∂θ = ½ tr((K⁻¹ − ααᵀ) ∂K/∂θ); both matrices are symmetric, so the trace is a sum.
    outer = 0.5 * (inverse - np.outer(weights, weights))
    through_smooth = outer * (pieces[0] + pieces[2])
    gradient = np.empty_like(parameters)
    for i, distance in enumerate(parts.distances):
        gradient[i] = -0.5 * np.exp(parameters[i]) * float((through_smooth * distance).sum())
    for i, piece in enumerate(pieces):
        gradient[n_scales + i] = float((outer * piece).sum())
    gradient[-1] = noise * float(np.trace(outer))
    return value, gradient
