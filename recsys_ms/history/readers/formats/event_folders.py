"""Folders of scalars: TensorBoard's event files, DVCLive's plots."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

from recsys_ms.core import columns as c
from recsys_ms.core.files import open_regular
from recsys_ms.core.optional import require
from recsys_ms.core.types import JsonDict
from recsys_ms.history.readers.formats.plain_values import (
    nested_numbers,
    plain,
    read_settings,
    split_of,
    step_of,
    text_if_any,
)
from recsys_ms.history.readers.formats.stated_params import settings_fields
from recsys_ms.history.readers.logged import (
    BadLog,
    Candidate,
    LogFiles,
    LogFormat,
    LoggedRun,
)
from recsys_ms.history.readers.number_style import to_number
from recsys_ms.history.store.curves import Series

_EVENTS: Final = "events.out.tfevents."
#: What DVCLive writes in any case, and the folder that it makes unless it is told another.
_SUMMARY: Final = "metrics.json"
_FOLDER: Final = "dvclive"
_Points = list[tuple[int | None, float | None, float]]


class TensorBoard(LogFormat):
    """Folders of TensorBoard's event files, read by TensorBoard itself (extra ``tensorboard``).

    A run is a folder. Of scalars that a restarted training logged again the later ones count.
    Hyperparameters come from TensorBoard's plugin for them, and from ``hparams.yaml`` beside the
    files (Lightning). Event files of a folder in which another format found a run are a second
    record of that run and are not read. They name neither model nor data set nor a direction, and
    do not say whether the training ended.
    """

    name: ClassVar[str] = "tensorboard"
    wanted: ClassVar[str] = "events.out.tfevents.… in a run folder"
    is_second_record: ClassVar[bool] = True

    def place_of(self, candidate: Candidate) -> Path | None:
        """The folder of the event file."""
        return candidate.path.parent if candidate.path.name.startswith(_EVENTS) else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        bad: list[BadLog] = []
        points: dict[str, dict[int, float]] = {}
        hparams: JsonDict = {}
        n_events = 0
        for path in sorted(place.glob(f"{_EVENTS}*")):
            n_events += _read_events(path, points, hparams, bad)
        settings = {**read_settings(place / "hparams.yaml", files, bad), **hparams}
        folder = place.resolve()
        yield from bad
        if not n_events and bad:
            return
        fields = settings_fields(settings)
        if not points:
            fields[c.STATUS] = "running"
        yield LoggedRun(
            file=str(folder),
            identity=f"tensorboard:{folder}",
            columns={"hparams": settings, "experiment": folder.parent.name, "run": folder.name},
            fields=fields,
            series=[
                Series.of(name, metric, split, [(at, None, value) for at, value in found.items()])
                for name, found in points.items()
                for split, metric in [split_of(name)]
            ],
            progress=n_events,
        )


class DvcLive(LogFormat):
    """Folders of DVCLive: ``metrics.json``, ``plots/metrics/…tsv`` and ``params.yaml``.

    Curves come from the plots; a metric of ``metrics.json`` without one has a single value. The
    parameters are the column ``params`` and the hyperparameters.
    """

    name: ClassVar[str] = "dvclive"
    wanted: ClassVar[str] = "metrics.json in a folder dvclive, or beside plots/metrics"
    owned_folder: ClassVar[str | None] = "plots"

    def place_of(self, candidate: Candidate) -> Path | None:
        """The folder, by its metrics and plots, or its name."""
        path = candidate.path
        if path.name != _SUMMARY:
            return None
        is_own = path.parent.name == _FOLDER or (path.parent / "plots" / "metrics").is_dir()
        return path.parent if is_own else None

    def read(self, place: Path, files: LogFiles) -> Iterator[LoggedRun | BadLog]:
        """Yield the run of a folder."""
        bad: list[BadLog] = []
        params = read_settings(place / "params.yaml", files, bad)
        summary = dict(nested_numbers(read_settings(place / _SUMMARY, files, bad)))
        last = step_of(summary.pop("step", None))
        plots = place / "plots" / "metrics"
        curves: dict[str, _Points] = {}
        for path in sorted(plots.rglob("*.tsv")):
            name = path.relative_to(plots).with_suffix("").as_posix()
            curves[name] = _plot(path, files, bad)
        for name, value in summary.items():
            curves.setdefault(name, [(last, None, value)])
        folder = place.resolve()
        yield from bad
        yield LoggedRun(
            file=str(folder),
            identity=f"dvclive:{folder}",
            columns={"params": params, "experiment": folder.parent.name},
            fields=settings_fields(params),
            series=[
                Series.of(name, metric, split, points)
                for name, points in curves.items()
                for split, metric in [split_of(name)]
                if points
            ],
            progress=sum(map(len, curves.values())),
        )


def _read_events(
    path: Path, points: dict[str, dict[int, float]], hparams: JsonDict, bad: list[BadLog]
) -> int:
    """Add the scalars and hyperparameters of an event file; the number of its events."""
    purpose = f"read the event file {path.name}"
    loader: Any = require(
        "tensorboard.backend.event_processing.event_file_loader",
        extra="tensorboard",
        purpose=purpose,
    )
    plugin: Any = require(
        "tensorboard.plugins.hparams.metadata", extra="tensorboard", purpose=purpose
    )
    tensors: Any = require("tensorboard.util.tensor_util", extra="tensorboard", purpose=purpose)
    n_events = 0
    # TensorBoard warns of a record that is cut off, which what follows says in its own words.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    try:
        open_regular(path).close()
        for event in loader.EventFileLoader(str(path)).Load():
            n_events += 1
            for value in event.summary.value:
                found = value.metadata.plugin_data
                if found.plugin_name == "scalars" and value.HasField("tensor"):
                    series = points.setdefault(value.tag, {})
                    # Logged again after a restart: the later value counts, where it is now.
                    series.pop(event.step, None)
                    series[event.step] = float(tensors.make_ndarray(value.tensor))
                elif found.plugin_name == "hparams" and value.tag.endswith("session_start_info"):
                    start = plugin.parse_session_start_info_plugin_data(found.content)
                    for name, each in start.hparams.items():
                        kind = each.WhichOneof("kind")
                        if kind in ("number_value", "string_value", "bool_value"):
                            hparams[name] = plain(getattr(each, kind), finite=True)
    except Exception as error:  # noqa: BLE001 - TensorBoard's parser may raise anything at damage
        bad.append(BadLog(file=path, reason=f"not an event file that TensorBoard reads ({error})"))
    if not n_events and not bad:
        bad.append(BadLog(file=path, reason="the event file holds no event; it is cut off"))
    return n_events


def _plot(path: Path, files: LogFiles, bad: list[BadLog]) -> _Points:
    """Points of a TSV file with the columns step (or timestamp, step) and a value."""
    text = text_if_any(path, files, bad) or ""
    lines = text.split("\n")
    names = lines[0].strip("\r").split("\t")
    if "step" not in names or len(names) < 2:
        bad.append(BadLog(file=path, line=1, reason="expected the columns step and a metric"))
        return []
    at = names.index("step")
    points: dict[int, float] = {}
    for number_of_line, line in enumerate(lines[1:], start=2):
        cells = line.strip("\r").split("\t")
        if cells == [""]:
            continue
        value = to_number(cells[-1]) if len(cells) == len(names) else None
        step = step_of(to_number(cells[at])) if value is not None else None
        if value is None or step is None:
            raw = f"{lines[0]}\n{line}\n"
            reason = f"expected {len(names)} cells with numbers"
            bad.append(BadLog(file=path, line=number_of_line, reason=reason, raw=raw))
            continue
        points.pop(step, None)
        points[step] = value
    return [(step, None, value) for step, value in points.items()]
