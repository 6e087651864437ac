"""What a score says of itself: its name, what it needs, of which labels it is, what it counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from recsys_ms.scores.checks import LabelKind
from recsys_ms.scores.probe import Probe

#: Of a score that is for labels of every kind.
ANY_LABELS: Final[tuple[LabelKind, ...]] = ("classes", "multilabel", "regression")
_CLASSES: Final[tuple[LabelKind, ...]] = ("classes",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A score.

    Attributes
    ----------
    name : str
        In reports and in columns of a history.
    title : str
        In a table.
    compute : callable of Probe to float
        Computes it; raises ``ProbeSetError`` where it cannot.
    kinds : tuple of str
        Labels it is of.
    needs : str
        ``source_probs`` or ``label_embeddings`` where it needs those; else empty.
    is_linear : bool
        Whether it reads the shared decomposition.
    unit : str
        What its value counts.
    """

    name: str
    title: str
    compute: Callable[[Probe], float]
    kinds: tuple[LabelKind, ...] = _CLASSES
    needs: str = ""
    is_linear: bool = False
    unit: str = ""

    def lacking(self, probe: Probe) -> str:
        """Why it does not apply to a probe set; empty where it does."""
        if probe.kind not in self.kinds:
            return f"of labels that are {' or '.join(self.kinds)}, not {probe.kind}"
        if self.needs and getattr(probe, self.needs) is None:
            return f"needs {self.needs}"
        return ""
