"""The base of every learner on features: checks, fit, prediction and what each field adds to it."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Self, final

import numpy as np

from recsys_ms.core.configured import Configured
from recsys_ms.core.declared import Within
from recsys_ms.core.errors import DataError
from recsys_ms.core.state import Learned, Stateful
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.design import Design, DesignLike, as_design, check_fit_input
from recsys_ms.learners.head_contributions import HeadContributions


class Head(Configured, Stateful, ABC):
    """A regressor from a design matrix to a standardised outcome.

    ``fit``, ``predict`` and ``contributions`` are finished here; a subclass gives ``_fit``,
    ``_predict`` and ``_contributions``, which may rely on the checks. A second ``fit`` forgets the
    first. Inputs are never written to. Predictions for a row do not depend on the other rows of the
    call. What is learned is declared (:mod:`recsys_ms.core.state`): restored, a head predicts the
    same bit for bit.

    Parameters
    ----------
    config : dataclass instance, optional
        Frozen settings, of the class of ``default_config``. Default: that one.
    **params : object
        Its fields by name, in place of ``config``: ``LinearHead(penalty=2.0)``.
    """

    kind: ClassVar[str]

    _n_columns: Learned[Annotated[int, Within(least=0)]]

    @final
    def fit(
        self,
        design: DesignLike,
        target: FloatArray,
        *,
        groups: IntArray | None = None,
        rng: RngLike = None,
    ) -> Self:
        """Learn from ``design`` (n_rows, n_columns) and ``target`` (n_rows,), higher is better.

        ``groups`` (n_rows,) says which task a row belongs to. Heads that rank within tasks, or hold
        out rows to choose a setting, need it for new tasks; the others ignore it.

        Raises
        ------
        DataError
            No rows, lengths that differ, or a target that is not finite.
        """
        rows = as_design(design)
        check_fit_input(rows, target, groups)
        self._n_columns = rows.n_linear
        self._fit(rows, np.asarray(target, dtype=np.float64), groups, np.random.default_rng(rng))
        return self

    @final
    def predict(self, design: DesignLike) -> FloatArray:
        """Predicted target of each row, shape (n_rows,).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``.
        """
        return self._predict(self._checked(design))

    @final
    def contributions(self, design: DesignLike) -> HeadContributions:
        """What each card field adds to each prediction, in the unit of the target.

        ``base`` plus a row's contributions is its prediction, up to rounding; the class of a head
        says by which rule it divides what fields do together.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``.
        """
        return self._contributions(self._checked(design))

    def _checked(self, design: DesignLike) -> Design:
        self._require_fitted()
        rows = as_design(design)
        if rows.n_linear != self._n_columns:
            raise DataError(
                f"the design has {rows.n_linear} columns, expected {self._n_columns} as in fit; "
                "encode with the encoder that the head was fitted with"
            )
        return rows

    @abstractmethod
    def _fit(
        self,
        design: Design,
        target: FloatArray,
        groups: IntArray | None,
        rng: np.random.Generator,
    ) -> None: ...

    @abstractmethod
    def _predict(self, design: Design) -> FloatArray: ...

    @abstractmethod
    def _contributions(self, design: Design) -> HeadContributions: ...
