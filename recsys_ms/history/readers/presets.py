"""Named mappings of public histories and model tables, so that no one has to find them out again.

``--preset NAME`` takes one; ``--map``, ``--set``, ``--column``, ``--unit`` and ``--missing``
replace what it says of a field, ``--where`` is joined to its own by AND.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.card_presets import CARD_PRESETS
from recsys_ms.history.readers.preset import Preset, PresetKind
from recsys_ms.history.readers.run_presets import RUN_PRESETS

#: Every preset by name.
PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {preset.name: preset for preset in (*RUN_PRESETS, *CARD_PRESETS)}
)


def get_preset(name: str, *, kind: PresetKind | None = None) -> Preset:
    """Find a preset by its name.

    Raises
    ------
    UsageError
        There is none of that name, or it makes something else than ``kind``.
    """
    found = PRESETS.get(name)
    fitting = [preset.name for preset in PRESETS.values() if kind in (None, preset.kind)]
    if found is None:
        near = get_close_matches(name, fitting, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"no preset {name!r}{hint} There are: {', '.join(fitting)}")
    if kind is not None and found.kind != kind:
        raise UsageError(
            f"preset {name!r} makes a {found.kind}, not a {kind}, of a row; "
            f"those for a {kind}: {', '.join(fitting)}"
        )
    return found
