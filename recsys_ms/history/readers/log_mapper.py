"""Turns runs of logs into runs of the history, by what the log and the mapping give."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.core.errors import UsageError
from recsys_ms.core.known_metrics import accepted
from recsys_ms.history.quarantine import ReadBatch, Reject, digest_of
from recsys_ms.history.readers.choice import Asked, Chosen, choose_value
from recsys_ms.history.readers.expressions import ColumnKind, Expressions, kinds_of
from recsys_ms.history.readers.fields import (
    OPEN_FIELDS,
    RUN_FIELDS,
    RunArrays,
    RunColumns,
    check_constants,
    missing_rows,
)
from recsys_ms.history.readers.logged import BadLog, LoggedRun, real
from recsys_ms.history.readers.mapping import (
    PSEUDO_COLUMNS,
    BoundMapping,
    FieldMapping,
    bind_mapping,
)
from recsys_ms.history.readers.rows import apply_mapping, canonical, stem
from recsys_ms.history.readers.templates import named, split_template, text_of
from recsys_ms.history.recorder.journal import ERROR_TAG
from recsys_ms.history.store.curves import Series, curve_table
from recsys_ms.history.store.schema import build_runs

#: ``Reject.reader`` of texts of logs, and of runs of logs with missing fields.
LOG_READER: Final = "log"
LOG_RUN_READER: Final = "log-run"

#: Columns that templates see of every log besides ``_file``, ``_stem`` and ``_line``.
LOG_COLUMNS: Final = ("_folder", "_path", "_run_id")
#: Tag that says where a run's log is.
LOG_TAG: Final = "log"

#: Fields that a log may state itself, and columns that only say where the log lies.
_NAMES: Final = (c.MODEL_ID, c.TASK_ID)
_OF_PLACE: Final = frozenset({"_folder", "_path", "_file", "_stem"})

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Fields that are chosen together with the series; a column of their name does not set them.
_BY_SERIES: Final = (c.METRIC, c.DIRECTION, c.SPLIT, c.VALUE_KIND, c.VALUE, c.EPOCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedLogs:
    """Runs of logs as runs and rejects.

    ``missing`` has the required fields that are missing in each reject without some,
    ``contradiction`` says of the first run with one what its direction contradicts; ``columns`` and
    ``series`` are names that templates may use.
    """

    batch: ReadBatch
    missing: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    series: tuple[str, ...]
    contradiction: str = ""


class LogMapper:
    """Applies a mapping to the runs of logs of one format, batch by batch.

    Fields of the mapping complete those of the log, and replace them; but what a log states of its
    model and its task is not replaced by the name of a folder or file (``{_folder}``).
    :attr:`contradicted` counts where the two differ, for :meth:`warnings`.
    """

    def __init__(self, format_name: str, mapping: FieldMapping) -> None:
        self._format = format_name
        self.mapping = mapping
        self._expressions = Expressions(mapping.columns, mapping.where, mapping.numbers)
        self._kinds: dict[str, ColumnKind] = {}
        self._series_name = series_slot(mapping)
        check_constants(mapping.set, mapping)
        self._defaults = tuple(n for n in _NAMES if _is_of_place(mapping.map.get(n, "")))
        self._run_arrays = RunArrays(mapping)
        #: By field, value of the mapping and value of the log: runs.
        self.contradicted: Counter[tuple[str, str, str]] = Counter()
        self._options = {"format": format_name, "mapping": json.loads(mapping.to_json())}

    def map(self, runs: Sequence[LoggedRun]) -> MappedLogs:
        """Turn runs of logs into runs and rejects."""
        names, columns = self._columns(runs)
        bound = self._bind(names)
        cells, rows, unfit = apply_mapping(
            bound, self._expressions, columns, len(runs), self._kinds, self.mapping.numbers
        )
        kept = [runs[row] for row in rows]
        texts = [_RunTexts(run, bound, cells, row, self._defaults) for row, run in enumerate(kept)]
        chosen = [self._choose(each) for each in texts]
        failed = self._failed(chosen)
        given = self._arrays(kept, texts, chosen, cells, bound, failed)
        problems = {row: given.reason(row) for row in given.unread} | unfit
        problems |= {row: each.problem for row, each in enumerate(chosen) if each.problem}
        missing: list[tuple[str, ...]] = []
        for row, each in enumerate(texts):
            plain = [name for name in _NAMES if each.text(name) is None]
            absent = (*plain, *chosen[row].missing)
            self.contradicted.update(each.contradictions())
            if absent:
                missing.append(absent)
                reason = f"the log does not say {', '.join(absent)}: give {options_for(absent)}"
                problems[row] = "; ".join(filter(None, (reason, problems.get(row, ""))))
        good = [row for row in range(len(kept)) if row not in problems]
        taken = pa.array(good, pa.int64())
        built = build_runs(
            {name: array.take(taken) for name, array in given.arrays.items()},
            len(good),
            units=[chosen[row].unit for row in good],
        )
        problems |= {good[at]: reason for at, reason in built.problems.items()}
        taken_rows = [good[at] for at in built.rows.tolist()]
        passed = [kept[row] for row in taken_rows]
        lines = [run.line for run in passed]
        batch = ReadBatch(
            runs=built.runs,
            rejects=tuple(self._reject(kept[row], problems[row]) for row in sorted(problems)),
            n_left_out=len(runs) - len(kept),
            file=tuple(run.file for run in passed),
            lines=None if None in lines else tuple(line or 0 for line in lines),
            progress=tuple(run.progress for run in passed),
            curves=curve_table(
                built.runs[c.RUN_ID].to_pylist(),
                [_series_in_unit(kept[row], chosen[row]) for row in taken_rows],
            ),
        )
        return MappedLogs(
            batch=batch,
            missing=tuple(missing),
            columns=_inner_names(runs),
            series=tuple(dict.fromkeys(each.name for run in runs for each in run.series)),
            contradiction=next(filter(None, (each.contradiction for each in chosen)), ""),
        )

    def warnings(self) -> list[str]:
        """What the mapping says otherwise than the logs, with both facts."""
        found = []
        for name in _NAMES:
            differ = {key[1:]: n for key, n in self.contradicted.items() if key[0] == name}
            if not differ:
                continue
            stated = sorted({log for _, log in differ})
            given = sorted({said for said, _ in differ})
            n_runs = f"{sum(differ.values())} {self._format} runs"
            template = self.mapping.map.get(name)
            if name in self._defaults:
                found.append(
                    f"{name}: {n_runs} state it themselves ({len(stated)} different: "
                    f"{named(stated, 5)}), which was taken; --map {name}={template!r} is for logs "
                    f"that do not. To use the folder all the same: --column at=_folder "
                    f"--map {name}='{{at}}'"
                )
            else:
                option = f"--set {name}" if template is None else f"--map {name}={template!r}"
                found.append(
                    f"{name}: {n_runs} state {named(stated, 5)}; {option} gives "
                    f"{named(given, 5)}, which was taken: leave it out to take what the logs state"
                )
        return found

    def bad(self, bad: BadLog, place: Path) -> Reject:
        """Quarantine entry of a text that cannot be read."""
        options = {**self._options, "place": str(place), "raw_sha256": digest_of(bad.raw)}
        return Reject(
            file=str(real(bad.file)),
            line=bad.line,
            reason=bad.reason,
            raw=bad.raw,
            reader=LOG_READER,
            options=canonical(options),
        )

    def _reject(self, run: LoggedRun, reason: str) -> Reject:
        return Reject(
            file=run.file,
            line=run.line,
            reason=reason,
            raw=run.to_json(),
            reader=LOG_RUN_READER,
            options=canonical(self._options),
        )

    def _columns(self, runs: Sequence[LoggedRun]) -> tuple[list[str], dict[str, list[Any]]]:
        names = list(dict.fromkeys(name for run in runs for name in run.columns))
        names = [name for name in names if name not in LOG_COLUMNS]
        # A log of another run may have more: what an expression could use stays known.
        names += [
            n for n in self._kinds if n not in names and n not in (*PSEUDO_COLUMNS, *LOG_COLUMNS)
        ]
        columns: dict[str, list[Any]] = {
            name: [None if cell == "" else cell for cell in (run.columns.get(name) for run in runs)]
            for name in names
        }
        paths = [Path(run.file) for run in runs]
        of_runs = list(zip(runs, paths, strict=True))
        columns |= {
            "_file": [path.name for path in paths],
            "_stem": [stem(path) for path in paths],
            "_line": [run.line for run in runs],
            "_folder": [run.columns.get("_folder", path.parent.name) for run, path in of_runs],
            "_path": [str(path) for path in paths],
            "_run_id": [log_run_id(run.identity) for run in runs],
        }
        if runs:
            fresh = {name: cells for name, cells in columns.items() if name not in self._kinds}
            self._kinds |= kinds_of(fresh, self.mapping.numbers)
        return names, columns

    def _bind(self, names: Sequence[str]) -> BoundMapping:
        """Bind the mapping to the columns of a batch; a template may wait for a later batch."""
        bound = bind_mapping(
            self.mapping,
            [*names, *LOG_COLUMNS],
            fields=RUN_FIELDS,
            open_fields=OPEN_FIELDS,
            skip_unknown=True,
        )
        given = self.mapping.map.keys() | self.mapping.set.keys()
        by_log = {*_BY_SERIES, *OPEN_FIELDS} - given
        return replace(
            bound, templates={n: each for n, each in bound.templates.items() if n not in by_log}
        )

    def _choose(self, texts: "_RunTexts") -> Chosen:
        asked = Asked(
            series=self._series_name,
            metric=texts.text(c.METRIC),
            split=texts.text(c.SPLIT),
            direction=texts.text(c.DIRECTION),
            value_kind=texts.given(c.VALUE_KIND),
            unit=self.mapping.unit,
        )
        return choose_value(texts.run, asked, wanted=texts.text(c.STATUS) in (None, "finished"))

    def _failed(self, chosen: Sequence[Chosen]) -> dict[int, dict[str, str]]:
        """Tags of runs that failed: by a marker as their value, or without a finite value."""
        values = [each.fields.get(c.VALUE) for each in chosen]
        marked = missing_rows(values, self.mapping.missing, self.mapping.value_numbers)
        tags = {
            row: {"missing": marker} for row, marker in marked.items() if values[row] is not None
        }
        for row, each in enumerate(chosen):
            if each.diverged:
                tags[row] = {ERROR_TAG: f"no finite {each.diverged}"}
        return tags

    def _arrays(
        self,
        runs: Sequence[LoggedRun],
        texts: Sequence["_RunTexts"],
        chosen: Sequence[Chosen],
        cells: Mapping[str, list[Any]],
        bound: BoundMapping,
        failed: Mapping[int, dict[str, str]],
    ) -> RunColumns:
        fields: dict[str, list[Any]] = {**cells}
        for name in RUN_FIELDS:
            if name in OPEN_FIELDS:
                whole = cells.get(name) or [None] * len(runs)
                of_logs = [run.fields.get(name) for run in runs]
                fields[name] = [
                    log if cell is None else cell for cell, log in zip(whole, of_logs, strict=True)
                ]
            elif name in _BY_SERIES:
                fields[name] = [each.fields.get(name) for each in chosen]
            else:
                fields[name] = [each.text(name) for each in texts]
        for name, default in ((c.SOURCE, self._format), (c.STATUS, "finished")):
            fields[name] = [text or default for text in fields[name]]
        for row, run in enumerate(runs):
            fields[c.RUN_ID][row] = fields[c.RUN_ID][row] or log_run_id(run.identity)
            fields[c.EPOCH][row] = texts[row].given(c.EPOCH) or fields[c.EPOCH][row]
            if row in failed:
                fields[c.VALUE][row] = None
                if fields[c.STATUS][row] == "finished":
                    fields[c.STATUS][row] = "failed"
        tags = {row: {LOG_TAG: run.identity, **failed.get(row, {})} for row, run in enumerate(runs)}
        return self._run_arrays.of(fields, len(runs), bound.constants, tags)


@dataclass(frozen=True, slots=True)
class _RunTexts:
    """What the mapping and the log say of one run."""

    run: LoggedRun
    bound: BoundMapping
    cells: Mapping[str, list[Any]]
    row: int
    defaults: tuple[str, ...]

    def given(self, name: str) -> str | None:
        """Text of a field by the mapping alone."""
        if name in self.cells:
            return text_of(self.cells[name][self.row])
        return self.bound.constants.get(name)

    def text(self, name: str) -> str | None:
        """Text of a field by the mapping, else by the log; the other way round for a folder."""
        given, stated = self.given(name), text_of(self.run.fields.get(name))
        if given is None or not given.strip():
            return stated
        return stated if stated and name in self.defaults else given

    def contradictions(self) -> Iterator[tuple[str, str, str]]:
        """Field, text by the mapping and text by the log, where the two differ."""
        for name in _NAMES:
            given, stated = self.given(name), text_of(self.run.fields.get(name))
            if given and stated and given != stated:
                yield name, given, stated


def _is_of_place(template: str) -> bool:
    """Whether a template only says where the log lies."""
    slots = {piece for piece, is_slot in split_template(template) if is_slot}
    return bool(slots) and slots <= _OF_PLACE


def _series_in_unit(run: LoggedRun, chosen: Chosen) -> Sequence[Series]:
    """Series of a run, those of the value's metric in the unit of the value."""
    if chosen.unit is None:
        return run.series
    percent = accepted(chosen.metric, chosen.unit).divisor > 1.0
    return [
        replace(each, percent=percent) if (each.metric or each.name) == chosen.metric else each
        for each in run.series
    ]


def _inner_names(runs: Sequence[LoggedRun]) -> tuple[str, ...]:
    """Columns as templates name them: of a dict, its keys too."""
    found: dict[str, None] = {}
    for run in runs:
        for name, cell in run.columns.items():
            if isinstance(cell, dict) and cell:
                found |= dict.fromkeys(f"{name}.{key}" for key in cell)
            elif name not in LOG_COLUMNS:
                found[name] = None
    return tuple(found)


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
