"""The record of a score in the table of scores."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from recsys_ms.scores.checks import LabelKind
from recsys_ms.scores.probe import Probe

#: Kinds of a score that takes labels of every kind.
ANY_LABELS: Final[tuple[LabelKind, ...]] = ("classes", "multilabel", "regression")


@dataclass(frozen=True, slots=True)
class Method:
    """A transferability score.

    Attributes
    ----------
    name : str
        Name in reports and in columns of a history.
    title : str
        Name in tables for people.
    compute : callable of Probe to float
        Computes it; raises ``ProbeSetError`` where it cannot.
    unit : str
        Unit of its value.
    kinds : tuple of str
        Kinds of labels it takes.
    needs : str
        ``source_probs`` or ``label_embeddings`` where it needs those; else empty.
    is_linear : bool
        Whether it reads the shared decomposition.
    """

    name: str
    title: str
    compute: Callable[[Probe], float]
    unit: str = ""
    kinds: tuple[LabelKind, ...] = ("classes",)
    needs: str = ""
    is_linear: bool = False

    def why_not(self, probe: Probe) -> str:
        """Why it does not apply to a probe set; empty where it does."""
        if probe.kind not in self.kinds:
            return f"of labels that are {' or '.join(self.kinds)}, not {probe.kind}"
        if self.needs and getattr(probe, self.needs) is None:
            return f"needs {self.needs}"
        return ""
