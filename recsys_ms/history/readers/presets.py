"""Named mappings of public histories and model tables, declared in ``presets.toml`` beside it.

``--preset NAME`` takes one; ``--map``, ``--set``, ``--column``, ``--unit`` and ``--missing``
replace its fields, and ``--where`` is joined to its own by AND.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from recsys_ms.core.errors import UsageError, did_you_mean
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


def _read() -> dict[str, Preset]:
    presets: dict[str, Preset] = {}
    declared = tomllib.loads(files(__package__).joinpath("presets.toml").read_text("utf-8"))
    for name, form in declared.items():
        base = presets[form.pop("base")].mapping if "base" in form else FieldMapping()
        presets[name] = Preset(
            name=name,
            kind=form.pop("kind"),
            files=form.pop("files"),
            text=" ".join(form.pop("text").split()),
            mapping=base.overridden(**form),
        )
    return presets


#: Every preset by name.
PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(_read())


def get_preset(name: str, *, kind: PresetKind | None = None) -> Preset:
    """Find a preset by its name.

    Raises
    ------
    UsageError
        The name is unknown, or the preset reads rows of another kind.
    """
    found = PRESETS.get(name)
    fitting = [preset.name for preset in PRESETS.values() if kind in (None, preset.kind)]
    if found is None:
        raise UsageError(
            f"preset {name!r} is unknown{did_you_mean(name, fitting)}; "
            f"presets are {', '.join(fitting)}"
        )
    if kind is not None and found.kind != kind:
        raise UsageError(
            f"preset {name!r} reads a {found.kind} from each row, expected a {kind}; "
            f"presets of a {kind} are {', '.join(fitting)}"
        )
    return found
