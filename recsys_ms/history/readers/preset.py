"""What a preset is: a mapping with a name and an explanation."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from recsys_ms.history.readers.mapping import FieldMapping

PresetKind: TypeAlias = Literal["run", "model", "task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A mapping with a name and an explanation.

    Attributes
    ----------
    name : str
        What ``--preset`` takes.
    kind : {"run", "model", "task"}
        What the rows become: runs of a history, or cards of a catalog.
    files : str
        The files it is for.
    text : str
        What it does, and what to know about the data.
    mapping : FieldMapping
        The mapping itself.
    """

    name: str
    kind: PresetKind
    files: str
    text: str
    mapping: FieldMapping
