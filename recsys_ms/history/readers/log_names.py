"""Names that all readers of logs share: readers, columns, ids of runs, options for a field."""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from recsys_ms.core import columns as c
from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.templates import split_template

#: ``Reject.reader`` of texts of logs, and of runs of logs with missing fields.
LOG_READER: Final = "log"
LOG_RUN_READER: Final = "log-run"

#: Columns that templates see of every log besides ``_file``, ``_stem`` and ``_line``.
LOG_COLUMNS: Final = ("_folder", "_path", "_run_id")
#: Tag that says where a run's log is.
LOG_TAG: Final = "log"

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def log_run_id(identity: str) -> str:
    """``run_id`` of a run of a log: the framework's own id, or a digest of the place of its log."""
    kind, _, rest = identity.partition(":")
    if _SAFE_ID.fullmatch(rest):
        return f"{kind}-{rest}"
    return f"{kind}-{hashlib.sha256(rest.encode(errors='backslashreplace')).hexdigest()[:32]}"


def options_for(missing: Sequence[str]) -> str:
    """Options that give the fields which a log does not."""
    ways = {
        c.METRIC: "--set metric=NAME (or --map value='{SERIES}')",
        c.DIRECTION: "--set direction=max or --set direction=min",
    }
    return "; ".join(
        ways.get(name, f"--map {name}='{{COLUMN}}' or --set {name}=TEXT") for name in missing
    )


def named(names: Sequence[str], n: int = 40) -> str:
    """The first names of a list, and the number of the others."""
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more if names else "none"


def series_slot(mapping: FieldMapping) -> str | None:
    """Name of the series in ``--map value='{NAME}'``.

    Raises
    ------
    UsageError
        The template is more than one name in braces.
    """
    text = mapping.map.get(c.VALUE)
    if text is None:
        return None
    pieces = split_template(text)
    if len(pieces) != 1 or not pieces[0][1]:
        raise UsageError(
            f"--map value={text!r}: for logs, value is the name of one series in braces, such as "
            "--map value='{eval_accuracy}'"
        )
    return pieces[0][0]
