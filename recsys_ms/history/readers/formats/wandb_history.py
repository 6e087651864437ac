"""Full histories of Weights & Biases: Parquet files of the ``wandb-history`` artifact."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.core.errors import DataError
from recsys_ms.history.readers.formats.exported import is_parquet, parquet_names
from recsys_ms.history.readers.formats.plain_values import split_of
from recsys_ms.history.readers.logged import BadLog, BadLogError, Candidate, LoggedRun
from recsys_ms.history.readers.parquet_rows import BROKEN_PARQUET
from recsys_ms.history.store.curves import Series

#: Spelling of NaN and infinities in the JSON of W&B.
SPELT_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: Columns that count epochs and are not metrics.
EPOCHS: Final = ("epoch", "train/epoch")
#: Folders of artifacts; without ``run-`` the id must be like W&B's own, with a version.
_FOLDERS: Final = (
    re.compile(r"run-([^/]+?)-history(?:[:\-_]?(?:v\d+|latest))?"),
    re.compile(r"([a-z0-9]{8})-history[:\-_](?:v\d+|latest)"),
)
#: Files that ``Run.download_history_exports`` writes: entity, project, run and part.
_EXPORT: Final = re.compile(r"(?P<run>.+)_(?P<part>\d+)\.runhistory\.parquet")
#: W&B's own ids have eight letters and digits; a given one may hold the separator of the name.
_OWN_ID: Final = re.compile(r".*_([a-z0-9]{8})", re.DOTALL)
#: Columns that say how far a run has come.
TIMES: Final = ("_timestamp", "_step", "_runtime")
_PART: Final = re.compile(r"\d+\.parquet")
_MAX_DEPTH: Final = 4
_BATCH_ROWS: Final = 65_536


def is_history(candidate: Candidate) -> bool:
    """Whether a file is a part of a history, or is named like one and damaged."""
    path = candidate.path
    if is_parquet(candidate):
        names = parquet_names(path)
        if names:
            return _is_history(names)
    named = _PART.fullmatch(path.name) and run_id_of(path.parent.name) is not None
    return bool(named or _EXPORT.fullmatch(path.name))


def _is_history(names: Sequence[str]) -> bool:
    return "_step" in names and bool({"_timestamp", "_runtime"} & set(names))


def run_id_of(folder: str) -> str | None:
    """Id of a run by the folder of its history, ``run-<id>-history-v0``; else ``None``."""
    found = next(filter(None, (pattern.fullmatch(folder) for pattern in _FOLDERS)), None)
    return found[1] if found else None


def history_place(path: Path) -> Path:
    """The log a part belongs to: its folder, the first of the parts by name, or the file alone."""
    if run_id_of(path.parent.name) is not None or _PART.fullmatch(path.name):
        return path.parent
    parts = _exported_parts(path) if _EXPORT.fullmatch(path.name) else []
    return parts[0] if parts else path


def read_history(place: Path) -> Iterator[LoggedRun | BadLog]:
    """Read one run from the parts of its history, without the damaged ones.

    Raises
    ------
    BadLogError
        No part can be read.
    """
    history = _History()
    bad: list[BadLog] = []
    for part in _parts(place):
        try:
            history.add(part)
        except (DataError, *BROKEN_PARQUET) as error:
            reason = f"the Parquet file is damaged ({error}); download it again"
            bad.append(BadLog(file=part, reason=reason))
    if not history.n_rows:
        empty = BadLog(file=place, reason="it contains no history; download it again")
        raise BadLogError(bad[0] if bad else empty)
    resolved = place.resolve()
    run_id = _id_of(place)
    times = (history.last.get(name) for name in TIMES)
    progress = progress_of(*times, ended=False)
    yield LoggedRun(
        file=str(resolved),
        identity=f"wandb:{run_id or resolved}",
        columns={"id": run_id} if run_id else {},
        series=history.series(),
        progress=history.n_rows if progress is None else progress,
    )
    yield from bad


def _id_of(place: Path) -> str | None:
    if place.is_dir():
        return run_id_of(place.name)
    exported = _EXPORT.fullmatch(place.name)
    if exported:
        own = _OWN_ID.fullmatch(exported["run"])
        return own[1] if own else None
    return run_id_of(place.parent.name)


def _parts(place: Path) -> list[Path]:
    if place.is_dir():
        files = sorted(place.glob("*.parquet"))
        if run_id_of(place.name) is None:
            files = [path for path in files if _PART.fullmatch(path.name)]
        return [path for path in files if is_history(Candidate(path))]
    if _EXPORT.fullmatch(place.name):
        return _exported_parts(place)
    return [place]


def _exported_parts(path: Path) -> list[Path]:
    """Parts of the run of an exported part, in order."""
    named = [
        (_EXPORT.fullmatch(each.name), each) for each in path.parent.glob("*.runhistory.parquet")
    ]
    run = path.name.rpartition("_")[0]
    parts = [(int(found["part"]), each) for found, each in named if found and found["run"] == run]
    return [each for _, each in sorted(parts)]


class _History:
    """Columns of the parts of one run, joined, and the last of its times."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.last: dict[str, float] = {}
        self._curves: dict[str, list[tuple[int | None, float | None, float]]] = defaultdict(list)

    def add(self, part: Path) -> None:
        """Add the rows of one file.

        Raises
        ------
        DataError
            Not a history.
        """
        with pq.ParquetFile(part) as table:
            if not _is_history(table.schema_arrow.names):
                raise DataError("there is no column _step with _timestamp or _runtime")
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                flat = _flat(pa.Table.from_batches([batch]))
                self._add(dict(zip(flat.column_names, flat.columns, strict=True)))

    def _add(self, columns: dict[str, pa.ChunkedArray]) -> None:
        n_rows = len(columns["_step"]) if "_step" in columns else 0
        steps = [
            int(step) if step is not None and isfinite(step) else None
            for step in _numbers(columns.get("_step"), n_rows)
        ]
        logged = [columns[name] for name in EPOCHS if name in columns]
        epochs = _numbers(logged[0] if logged else None, n_rows)
        self.n_rows += n_rows
        for name in TIMES:
            numbers = _numbers(columns.get(name), n_rows)
            known = [value for value in numbers if value is not None and isfinite(value)]
            if known:
                self.last[name] = max(self.last.get(name, known[0]), *known)
        for name, column in columns.items():
            if name.startswith("_") or name in EPOCHS:
                continue
            values = _numbers(column, n_rows)
            for step, epoch, value in zip(steps, epochs, values, strict=True):
                if value is not None:
                    self._curves[name].append((step, epoch, value))

    def series(self) -> list[Series]:
        """Every metric; where a step was logged again (a resumed run) the later row counts."""
        found = []
        for name, points in self._curves.items():
            split, metric = split_of(name)
            latest = {point[0]: point for point in points}
            ordered = [latest[step] for step in sorted(step for step in latest if step is not None)]
            without_step = [point for point in points if point[0] is None]
            found.append(Series.of(name, metric, split, ordered + without_step))
        return found


def _flat(table: pa.Table) -> pa.Table:
    """Nested metrics as columns ``name.min``, without media, which have a ``_type``."""
    for _ in range(_MAX_DEPTH):
        kinds = enumerate(table.schema.types)
        table = table.select([at for at, kind in kinds if not _is_media(kind)]).flatten()
    return table


def _is_media(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(inner.name == "_type" for inner in kind)


def _numbers(column: pa.ChunkedArray | None, n_rows: int) -> list[float | None]:
    """Values of a column as floats; ``None`` where there is no number."""
    if column is None:
        return [None] * n_rows
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return [None if value is None else float(value) for value in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [SPELT_FLOATS.get(value) for value in column.to_pylist()]
    return [None] * n_rows


def progress_of(
    timestamp: float | None, step: float | None, runtime: float | None, *, ended: bool
) -> int | None:
    """Progress of a run: time of its last row, else its step, else its seconds; then its end.

    Times are in milliseconds since 1970 and thus above any step: of two exports the one with a
    time counts.
    """
    for value, scale in ((timestamp, 1000.0), (step, 1.0), (runtime, 1.0)):
        if value is not None and 0.0 <= value < 1e12:
            return 2 * int(value * scale) + int(ended)
    return None
