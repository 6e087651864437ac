"""What every learner on features has in common."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from recsys_ms.core.configured import Configured
from recsys_ms.core.state import Stateful
from recsys_ms.core.types import FloatArray, IntArray, RngLike
from recsys_ms.learners.design import Design as Design
from recsys_ms.learners.head_contributions import HeadContributions as HeadContributions


class Head(Configured, Stateful, ABC):
    """A regressor from a design matrix to a standardised outcome.

    A second ``fit`` forgets the first. Inputs are never written to. Predictions for a row do not
    depend on the other rows of the call. What is learned is declared
    (:mod:`recsys_ms.core.state`): restored, a head predicts the same bit for bit.

    Parameters
    ----------
    config : dataclass instance, optional
        Frozen settings, of the class of ``default_config``. Default: that one.
    **params : object
        Its fields by name, in place of ``config``: ``LinearHead(penalty=2.0)``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def fit(
        self,
        design: Design,
        target: FloatArray,
        *,
        groups: IntArray | None = None,
        rng: RngLike = None,
    ) -> Self:
        """Learn from ``design`` (n_rows, n_columns) and ``target`` (n_rows,), higher is better.

        ``groups`` (n_rows,) says which task a row belongs to; a head that ranks within tasks needs
        it, the others ignore it.
        """

    @abstractmethod
    def predict(self, design: Design) -> FloatArray:
        """Predicted target of each row, shape (n_rows,).

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``.
        """

    @abstractmethod
    def contributions(self, design: Design) -> HeadContributions:
        """What each card field adds to each prediction, in the unit of the target.

        ``base`` plus a row's contributions is its prediction, up to rounding; each head says by
        which rule it shares out what fields do together.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another number of columns than in ``fit``.
        """
