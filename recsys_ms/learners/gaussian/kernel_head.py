"""Gaussian process regression on meta features, for histories of a few thousand rows."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import scipy.sparse as sp

from recsys_ms.catalog.encoding import INDICATOR, NUMBER
from recsys_ms.core.configured import check_range
from recsys_ms.core.declared import Shape, Within
from recsys_ms.core.errors import UsageError
from recsys_ms.core.state import Learned
from recsys_ms.core.types import FloatArray, IntArray
from recsys_ms.learners.design import Design
from recsys_ms.learners.gaussian.kernels import Compared, Given, Kernel, Scaled, Smooth
from recsys_ms.learners.gaussian.process import NOISE, Evidence, Process, fit
from recsys_ms.learners.head import Head
from recsys_ms.learners.head_contributions import HeadContributions, field_codes
from recsys_ms.learners.product_shapley import by_field, shapley_of_products

#: Test rows whose kernel is held at once.
_CHUNK: Final = 2000
_BOUNDS: Final = {"": (-8.0, 4.0), NOISE: (-8.0, 2.0)}
_START: Final = {"rate": -1.5, "smooth": 0.0, "": -1.0, NOISE: -3.0}


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
        check_range(self, "max_rows", "n_tuning_rows", "max_iterations", least=1)


class KernelHead(Head):
    """Mean of a Gaussian process whose kernel knows numbers and words.

    With ``z`` the numbers of a row, ``b`` its indicators (scaled so that a row has norm 1 on
    average) and ``R(z, z') = exp(−½ Σ_f s_f ‖z_f − z'_f‖²)`` with one rate per card field f, the
    kernel is ``v₁R + v₂ b·b' + v₃ (b·b') R + v₄ z·z'``: smooth in the numbers, additive in the
    words, and an interaction of both. Rates, variances and noise maximise the marginal likelihood
    of a sample of the training rows. ``fit`` raises a ``UsageError`` for more rows than
    ``config.max_rows``; ``groups`` is not used.

    Contributions are Shapley values: a field that is not known counts as if all training rows were
    alike in its numbers (a factor of 1 in R) and as if it said no words and no numbers elsewhere.
    The base is the prediction without any field. See
    :func:`recsys_ms.learners.product_shapley.shapley_of_products`.

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
    _weights: Learned[Annotated[FloatArray, Shape("row")]]
    _logs: Learned[dict[str, float]]
    _target: Learned[tuple[float, float]]

    def _fit(
        self, design: Design, target: FloatArray, groups: IntArray | None, rng: np.random.Generator
    ) -> None:
        n_rows = design.n_rows
        if n_rows > self.config.max_rows:
            raise UsageError(
                f"KernelHead: {n_rows} training rows, max_rows is {self.config.max_rows}; "
                "use LinearHead or LightGBMHead for a history of this size"
            )
        self._columns = _Columns.of(design)
        self._rows = self._columns.split(design.linear())
        scale = float(target.std())
        self._target = (float(target.mean()), scale if scale > 0.0 else 1.0)
        standard = (target - self._target[0]) / self._target[1]
        chosen = np.arange(n_rows)
        if n_rows > self.config.n_tuning_rows:
            chosen = np.sort(rng.choice(n_rows, self.config.n_tuning_rows, replace=False))
        kernel, part = self._columns.kernel(), self._rows.take(chosen)
        evidence = Evidence(
            kernel=kernel, compared=part.compare(part), target=standard[chosen], start=_START
        )
        self._logs = fit(evidence, _BOUNDS, self.config.max_iterations)
        self._weights = Process(kernel, self._logs).condition(self._rows, standard).weights

    def _predict(self, design: Design) -> FloatArray:
        matrix, kernel = design.linear(), self._columns.kernel()
        predicted = np.empty(matrix.shape[0])
        for start in range(0, matrix.shape[0], _CHUNK):
            part = self._columns.split(matrix[start : start + _CHUNK])
            covariance = kernel(self._logs, part.compare(self._rows))
            # einsum adds up each row alike; a matrix product may not, depending on their number.
            predicted[start : start + _CHUNK] = np.einsum("ij,j->i", covariance, self._weights)
        return self._target[0] + self._target[1] * predicted

    def _contributions(self, design: Design) -> HeadContributions:
        columns, rows = self._columns, self._rows
        matrix = design.linear()
        names, codes = field_codes(design.linear_fields)
        setting = {name: float(np.exp(log)) for name, log in self._logs.items()}
        amounts = np.empty((matrix.shape[0], len(names)))
        sizes = np.bincount(rows.fields)
        scales = np.array([setting[f"rate {field}"] / sizes[field] for field in rows.fields])
        chunk = max(1, _CHUNK // max(len(names), 1))
        for start in range(0, matrix.shape[0], chunk):
            part = columns.split(matrix[start : start + chunk])
            factors, in_products = by_field(
                part.numbers, rows.numbers, codes[columns.numbers], len(names), scales=scales
            )
            _, in_words = by_field(part.words, rows.words, codes[columns.words], len(names))
            products = setting["products"] / max(rows.fields.size, 1) * in_products
            amounts[start : start + chunk] = shapley_of_products(
                factors, in_words, self._weights, alone=setting["smooth"], joint=setting["joint"]
            ) + np.einsum("pij,j->ip", setting["words"] * in_words + products, self._weights)
        center, scale = self._target
        base = center + scale * setting["smooth"] * float(self._weights.sum())
        return HeadContributions(base=base, fields=names, amounts=scale * amounts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Rows split for the kernel; ``fields`` has the field of each column of ``numbers``."""

    numbers: Annotated[FloatArray, Shape("row", "number")]
    fields: Annotated[IntArray, Shape("number"), Within(least=0)]
    words: Annotated[sp.csr_array, Shape("row", "word")]

    def take(self, rows: IntArray) -> "_Rows":
        return _Rows(numbers=self.numbers[rows], fields=self.fields, words=self.words[rows])

    def compare(self, other: "_Rows") -> Compared:
        """Mean squared distances by field, and inner products."""
        from scipy.spatial.distance import cdist

        found: dict[str, Any] = {
            "one": np.ones(()),
            "words": (self.words @ other.words.T).toarray(),
            "products": sp.csr_array(self.numbers) @ other.numbers.T / max(self.fields.size, 1),
        }
        for field in np.unique(self.fields):
            own = self.fields == field
            square = cdist(self.numbers[:, own], other.numbers[:, own], "sqeuclidean")
            found[f"distance {field}"] = square / int(own.sum())
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """Which columns of a design are numbers, of which field, and which are words."""

    numbers: Annotated[IntArray, Shape("number"), Within(least=0)]
    fields: Annotated[IntArray, Shape("number"), Within(least=0)]
    words: Annotated[IntArray, Shape("word"), Within(least=0)]
    word_scale: Annotated[float, Within(above=0.0)]

    @classmethod
    def of(cls, design: Design) -> "_Columns":
        matrix = design.linear()
        numbers = np.flatnonzero(design.kinds == NUMBER)
        words = np.flatnonzero(design.kinds == INDICATOR)
        fields = field_codes([design.linear_fields[i] for i in numbers])[1]
        per_row = float(matrix[:, words].power(2).sum()) / matrix.shape[0]
        return cls(
            numbers=numbers,
            fields=fields,
            words=words,
            word_scale=float(np.sqrt(per_row)) if per_row > 0.0 else 1.0,
        )

    def split(self, matrix: sp.csr_array) -> _Rows:
        words = sp.csr_array(matrix[:, self.words] / self.word_scale)
        words.sort_indices()
        return _Rows(numbers=matrix[:, self.numbers].toarray(), fields=self.fields, words=words)

    def kernel(self) -> Kernel:
        smooth = Smooth({f"distance {f}": f"rate {f}" for f in np.unique(self.fields)})
        mixed = Scaled("smooth", Given("one")) + Scaled("joint", Given("words"))
        products = Scaled("products", Given("products"))
        return mixed * smooth + Scaled("words", Given("words")) + products
