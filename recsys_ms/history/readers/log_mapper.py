"""Runs of logs as runs of the history: what the log says, what the mapping adds, what lacks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.readers.batch import SourceBatch
from recsys_ms.history.readers.choice import Asked, Chosen, choose_value
from recsys_ms.history.readers.expressions import ColumnKind, Expressions, kinds_of
from recsys_ms.history.readers.fields import JsonField, missing_rows
from recsys_ms.history.readers.log_names import (
    LOG_COLUMNS,
    LOG_READER,
    LOG_RUN_READER,
    LOG_TAG,
    digest_of,
    log_run_id,
    resolves,
    series_slot,
    slots,
    slots_of,
    ways_to_say,
)
from recsys_ms.history.readers.logged import BadLog, LoggedRun
from recsys_ms.history.readers.mapping import (
    PSEUDO_COLUMNS,
    BoundMapping,
    FieldMapping,
    bind_mapping,
)
from recsys_ms.history.readers.rows import MappedRows, stem
from recsys_ms.history.readers.table import RUN_FIELDS
from recsys_ms.history.readers.templates import plain_text
from recsys_ms.history.recorder.journal import ERROR_TAG
from recsys_ms.history.store.curves import curve_table
from recsys_ms.history.store.schema import build_runs

_OPEN_FIELDS: Final = {c.HYPERPARAMETERS, c.TAGS}
#: Fields that are decided together with the series; a column of their name is no statement.
_BY_SERIES: Final = (c.METRIC, c.DIRECTION, c.SPLIT, c.VALUE_KIND, c.VALUE, c.EPOCH)
_PLAIN: Final = tuple(
    name for name in RUN_FIELDS if name not in _BY_SERIES and name not in _OPEN_FIELDS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedLogs:
    """What became of some runs of logs.

    Attributes
    ----------
    batch : ReadBatch
        Runs and rejects.
    lacking : tuple of tuple of str
        For each reject that lacks required fields, which.
    columns, series : tuple of str
        Names that templates may use.
    """

    batch: ReadBatch
    lacking: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    series: tuple[str, ...]

    def with_rejects(self, rejects: Sequence[Reject]) -> "MappedLogs":
        """The same with more rejects."""
        return replace(self, batch=replace(self.batch, rejects=(*self.batch.rejects, *rejects)))


class LogMapper:
    """A mapping applied to the runs of logs of one format, batch after batch.

    Parameters
    ----------
    format_name : str
        The format.
    mapping : FieldMapping
        Fields that the log does not say, or should say otherwise.
    """

    def __init__(self, format_name: str, mapping: FieldMapping) -> None:
        self._format = format_name
        self.mapping = mapping
        self._expressions = Expressions(mapping.columns, mapping.where)
        self._kinds: dict[str, ColumnKind] = {}
        self._series_name = series_slot(mapping)
        self._json = {name: JsonField(name) for name in _OPEN_FIELDS}
        self._options = json.dumps(
            {"format": format_name, "mapping": json.loads(mapping.to_json())},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )

    def map(self, runs: Sequence[LoggedRun]) -> MappedLogs:
        """Turn runs of logs into runs and rejects."""
        names, columns = self._columns(runs)
        bound = self._bind(names)
        keep, computed = self._expressions.evaluate(columns, len(runs), self._kinds)
        columns.update(computed)
        rows = [row for row in range(len(runs)) if keep[row]]
        kept = [runs[row] for row in rows]
        cells = {
            name: [column[row] for row in rows]
            for name, template in bound.templates.items()
            for column in (template.apply(columns, len(runs)),)
        }
        said = [_Said(run, bound, cells, row) for row, run in enumerate(kept)]
        chosen = [self._choose(each) for each in said]
        failed = self._failed(chosen)
        problems = {row: each.problem for row, each in enumerate(chosen) if each.problem}
        lacks = {row: _lacking(each, chosen[row]) for row, each in enumerate(said)}
        lacking = {row: fields for row, fields in lacks.items() if fields}
        for row, fields in lacking.items():
            told = f"the log does not say {', '.join(fields)}: give {ways_to_say(fields)}"
            problems[row] = "; ".join(filter(None, (told, problems.get(row, ""))))
        good = [row for row in range(len(kept)) if row not in problems]
        arrays = self._arrays(kept, said, chosen, cells, bound, failed)
        taken = pa.array(good, pa.int64())
        built = build_runs({name: array.take(taken) for name, array in arrays.items()}, len(good))
        problems |= {good[at]: reason for at, reason in built.problems.items()}
        passed = [kept[good[at]] for at in built.rows.tolist()]
        batch = ReadBatch(
            runs=built.runs,
            rejects=tuple(self._reject(kept[row], problems[row]) for row in sorted(problems)),
            n_left_out=len(runs) - len(kept),
            file=tuple(run.file for run in passed),
            lines=None if any(run.line is None for run in passed) else _lines(passed),
            progress=tuple(run.progress for run in passed),
            curves=curve_table(built.runs[c.RUN_ID].to_pylist(), [run.series for run in passed]),
        )
        return MappedLogs(
            batch=batch,
            lacking=tuple(lacking.values()),
            columns=_inner_names(runs),
            series=tuple(dict.fromkeys(each.name for run in runs for each in run.series)),
        )

    def bad(self, bad: BadLog, place: Path) -> Reject:
        """Quarantine entry of a text that cannot be read."""
        options = json.loads(self._options)
        options |= {"place": str(place), "raw_sha256": digest_of(bad.raw)}
        return Reject(
            file=str(bad.file.resolve()),
            line=bad.line,
            reason=bad.reason,
            raw=bad.raw,
            reader=LOG_READER,
            options=json.dumps(options, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        )

    def _reject(self, run: LoggedRun, reason: str) -> Reject:
        return Reject(
            file=run.file,
            line=run.line,
            reason=reason,
            raw=run.to_json(),
            reader=LOG_RUN_READER,
            options=self._options,
        )

    def _columns(self, runs: Sequence[LoggedRun]) -> tuple[list[str], dict[str, list[Any]]]:
        names = list(dict.fromkeys(name for run in runs for name in run.columns))
        names = [name for name in names if name not in LOG_COLUMNS]
        # A log of another run may have more: what an expression could use stays known.
        names += [
            n for n in self._kinds if n not in names and n not in (*PSEUDO_COLUMNS, *LOG_COLUMNS)
        ]
        columns: dict[str, list[Any]] = {
            name: [_cell(run.columns.get(name)) for run in runs] for name in names
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
            self._kinds |= kinds_of(fresh)
        return names, columns

    def _bind(self, names: Sequence[str]) -> BoundMapping:
        """Bind the mapping to the columns of a batch; what no run has yet is empty, no error."""
        visible = [*names, *LOG_COLUMNS]
        known = {*visible, *PSEUDO_COLUMNS, *self.mapping.columns}
        absent = [slot for slot in slots(self.mapping) if not resolves(slot, known)]
        templates = {
            field: text
            for field, text in self.mapping.map.items()
            if not any(slot in absent for slot in slots_of(text))
        }
        plain = FieldMapping(map=templates, set=self.mapping.set, columns=self.mapping.columns)
        bound = bind_mapping(plain, visible, fields=RUN_FIELDS, open_fields=_OPEN_FIELDS)
        # Unknown fields are refused even where their template is not bound.
        bind_mapping(
            FieldMapping(set=dict.fromkeys(self.mapping.map, "")),
            (),
            fields=RUN_FIELDS,
            open_fields=_OPEN_FIELDS,
        )
        said = self.mapping.map.keys() | self.mapping.set.keys()
        return BoundMapping(
            templates={
                name: template
                for name, template in bound.templates.items()
                if name in said or name not in (*_BY_SERIES, *_OPEN_FIELDS)
            },
            constants=bound.constants,
        )

    def _choose(self, said: "_Said") -> Chosen:
        asked = Asked(
            series=self._series_name,
            metric=said.text(c.METRIC),
            split=said.text(c.SPLIT),
            direction=said.text(c.DIRECTION),
            value_kind=said.given(c.VALUE_KIND),
            unit=self.mapping.unit,
        )
        return choose_value(said.run, asked, wanted=said.text(c.STATUS) in (None, "finished"))

    def _failed(self, chosen: Sequence[Chosen]) -> dict[int, dict[str, str]]:
        """Tags of runs that failed by what stands in the place of their value."""
        values = [each.fields.get(c.VALUE) for each in chosen]
        marked = missing_rows([None if v is None else v for v in values], self.mapping.missing)
        marked = {row: marker for row, marker in marked.items() if values[row] is not None}
        tags = {row: {"missing": marker} for row, marker in marked.items()}
        for row, each in enumerate(chosen):
            if each.diverged:
                tags[row] = {ERROR_TAG: f"no finite {each.diverged}"}
        return tags

    def _arrays(
        self,
        runs: Sequence[LoggedRun],
        said: Sequence["_Said"],
        chosen: Sequence[Chosen],
        cells: Mapping[str, list[Any]],
        bound: BoundMapping,
        failed: Mapping[int, dict[str, str]],
    ) -> dict[str, pa.Array]:
        texts: dict[str, list[str | None]] = {
            name: [each.text(name) for each in said] for name in _PLAIN
        }
        texts[c.RUN_ID] = [
            text or log_run_id(run.identity)
            for text, run in zip(texts[c.RUN_ID], runs, strict=True)
        ]
        texts[c.SOURCE] = [text or self._format for text in texts[c.SOURCE]]
        texts[c.STATUS] = [
            "failed" if row in failed and text in (None, "finished") else text or "finished"
            for row, text in enumerate(texts[c.STATUS])
        ]
        for name in (c.METRIC, c.DIRECTION, c.SPLIT, c.VALUE_KIND):
            texts[name] = [_text(each.fields.get(name)) for each in chosen]
        texts[c.EPOCH] = [
            one.given(c.EPOCH) or _text(each.fields.get(c.EPOCH))
            for one, each in zip(said, chosen, strict=True)
        ]
        arrays = {name: pa.array(column, pa.string()) for name, column in texts.items()}
        values = [
            None if row in failed else each.fields.get(c.VALUE) for row, each in enumerate(chosen)
        ]
        arrays[c.VALUE] = pa.array(values, pa.float64())
        for name in _OPEN_FIELDS:
            extra = {
                row: {LOG_TAG: run.identity, **failed.get(row, {})} for row, run in enumerate(runs)
            }
            mapped = MappedRows(
                fields={**cells, name: _whole(name, runs, cells)},
                rows=list(range(len(runs))),
                batch=SourceBatch(columns={}, lines=[], raws=None),
                n_left_out=0,
            )
            column = self._json[name].compose(
                mapped, bound.constants, extra if name == c.TAGS else None
            )
            if column is not None:
                arrays[name] = pa.array(column, pa.string())
        return arrays


class _Said:
    """What the mapping and the log say of one run."""

    __slots__ = ("_bound", "_cells", "_row", "run")

    def __init__(
        self, run: LoggedRun, bound: BoundMapping, cells: Mapping[str, list[Any]], row: int
    ) -> None:
        self.run = run
        self._bound = bound
        self._cells = cells
        self._row = row

    def given(self, name: str) -> str | None:
        """Text of a field by the mapping alone."""
        if name in self._cells:
            return _text(self._cells[name][self._row])
        return self._bound.constants.get(name)

    def text(self, name: str) -> str | None:
        """Text of a field by the mapping, else by the log."""
        text = self.given(name)
        return text if text is not None and text.strip() else _text(self.run.fields.get(name))


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


def _lacking(said: _Said, chosen: Chosen) -> tuple[str, ...]:
    plain = [name for name in (c.MODEL_ID, c.TASK_ID) if said.text(name) is None]
    return (*plain, *chosen.lacking)


def _lines(runs: Sequence[LoggedRun]) -> tuple[int, ...]:
    return tuple(run.line or 0 for run in runs)


def _cell(cell: Any) -> Any:
    return None if cell == "" else cell


def _text(cell: Any) -> str | None:
    return cell if cell is None or type(cell) is str else plain_text(cell)


def _whole(name: str, runs: Sequence[LoggedRun], cells: Mapping[str, list[Any]]) -> list[Any]:
    mapped = cells.get(name)
    return [
        run.fields.get(name) if mapped is None or mapped[row] is None else mapped[row]
        for row, run in enumerate(runs)
    ]
