"""``recsys-ms ingest``: logs into a history, cards and scores into a catalog."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import typer
from rich.text import Text

from recsys_ms.catalog.importer import Traits
from recsys_ms.cli.catalog_ingest import CatalogKind, ingest_into_catalog
from recsys_ms.cli.console import counted, show, show_json, show_table, warn
from recsys_ms.cli.options import (
    DEFAULT_HISTORY,
    CatalogOption,
    HistoryOption,
    JsonFlag,
    MapOption,
    SetOption,
)
from recsys_ms.core.errors import DataError, UsageError, did_you_mean
from recsys_ms.core.types import JsonDict, Unit
from recsys_ms.history.embedded import RUNS_FILE, embedded_by_name
from recsys_ms.history.findings import findings_of, first_of
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox_files import INBOX_READER, JOURNAL_READER
from recsys_ms.history.ingestion import IngestReport
from recsys_ms.history.maintenance import opened_or_made
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.readers.fields import RUN_FIELDS
from recsys_ms.history.readers.found_logs import AUTO, LOG_FORMATS, find_logs, is_table_of_log
from recsys_ms.history.readers.log_mapper import LOG_READER, LOG_RUN_READER
from recsys_ms.history.readers.logs import LogReader, read_log, replay_log
from recsys_ms.history.readers.mapping import FieldMapping, parse_assignments
from recsys_ms.history.readers.number_style import DecimalSign
from recsys_ms.history.readers.presets import PRESETS, PresetKind, get_preset
from recsys_ms.history.readers.rows import DAMAGED
from recsys_ms.history.readers.sources import TableFormat, is_table
from recsys_ms.history.readers.table import TableReader, read_table, replay_row
from recsys_ms.history.readers.templates import named
from recsys_ms.history.readers.wide import Wide, WideKind
from recsys_ms.history.run import RULES
from recsys_ms.history.store.ingest_records import COUNTS

_FORMATS = (*get_args(TableFormat), AUTO, *LOG_FORMATS)
_N_SHOWN_REJECTS = 5
_N_SHOWN_NAMES = 40


def ingest(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables (CSV, TSV, JSONL, .gz too, Parquet), or logs of training frameworks and "
            "folders of them.",
            show_default=False,
        ),
    ] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    preset: Annotated[
        str | None, typer.Option(help="A named mapping; see --presets. Options replace its parts.")
    ] = None,
    maps: MapOption = None,
    sets: SetOption = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="NAME=DUCKDB EXPRESSION: a computed column for --map."),
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option(help="What the values are: fraction or percent.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="DuckDB predicate; other rows are left out, and counted.")
    ] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="A value that means 'no result', such as -1.")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"{', '.join(_FORMATS)}. Default: a file by its suffix, a folder by what its "
            "files hold (auto).",
        ),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of CSV and TSV tables.")] = None,
    encoding: Annotated[str, typer.Option(help="Of tables of text.")] = "utf-8",
    decimal: Annotated[
        DecimalSign | None,
        typer.Option(help="Decimal sign of numbers in text; the other one separates thousands."),
    ] = None,
    ignore_spread: Annotated[
        bool | None,
        typer.Option(
            "--ignore-spread", help="Read values '0.913 ± 0.004' and '0.913 (0.004)' as 0.913."
        ),
    ] = None,
    wide: Annotated[
        WideKind | None,
        typer.Option(
            help="The table is models by tasks, and its columns are tasks, or models; the first "
            "column names the other, and each cell is a run."
        ),
    ] = None,
    row_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--row-column", help="A column of a wide table that describes the row, for --map."
        ),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(help="Keys to the records in a JSON document, such as results.items."),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Whether to keep every logged value too.")
    ] = True,
    kind: Annotated[
        Literal["runs", "model-cards", "task-cards", "scores"],
        typer.Option(
            "--as",
            help="What a row is. Cards and transferability scores need --catalog; for cards FILE "
            "may be a catalog, or embedded:timm.",
        ),
    ] = "runs",
    catalog: CatalogOption = None,
    traits: Annotated[
        Traits,
        typer.Option(help="Of cards: whether columns that are not mapped are kept as traits."),
    ] = "mapped",
    timm_families: Annotated[
        bool,
        typer.Option(
            "--timm-families", help="Fill in the family of timm models from timm (extra embed)."
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Read FILE again over what it gave before: with another mapping, or corrected.",
        ),
    ] = False,
    inbox: Annotated[
        bool, typer.Option("--inbox", help="Take in the runs that training jobs dropped.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Read the quarantine again; options replace parts of the mapping of each row, "
            "--set fields of recorded runs.",
        ),
    ] = False,
    presets: Annotated[bool, typer.Option("--presets", help="List the presets and end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take runs into a history, or cards and scores into a catalog. Again, it changes nothing."""
    if presets:
        _show_presets(as_json=as_json)
        return
    chosen = get_preset(preset) if preset else None
    base = chosen.mapping if chosen else FieldMapping()
    mapping = base.overridden(
        map=parse_assignments(maps or (), option="--map"),
        set=parse_assignments(sets or (), option="--set"),
        columns=parse_assignments(columns or (), option="--column"),
        unit=unit,
        where=where,
        missing=missing,
        decimal=decimal,
        ignore_spread=ignore_spread,
    )
    into_catalog = _catalog_kind(kind, chosen.kind if chosen else None)
    if not files and not inbox and not replay:
        raise UsageError("nothing to ingest; name files, or give --inbox, --replay or --presets")
    if replace and (into_catalog is not None or not files or inbox or replay):
        raise UsageError(
            "--replace is for logs and tables of runs that are named; leave it out for cards, "
            "scores, --inbox and --replay"
        )
    if row_columns and wide is None:
        raise UsageError("--row-column is for wide tables: give --wide tasks or --wide models")
    how: JsonDict = {
        "delimiter": delimiter,
        "encoding": encoding,
        "records": records,
        "wide": None if wide is None else Wide(columns=wide, row_columns=tuple(row_columns or ())),
    }
    if file_format is not None and file_format not in _FORMATS:
        raise UsageError(f"--format {file_format}: unknown; it is one of {', '.join(_FORMATS)}")
    if into_catalog is not None:
        if file_format not in (None, *get_args(TableFormat)):
            raise UsageError(
                f"cards and scores come from tables; --format {file_format} is a format of runs"
            )
        for name in ("records", "wide"):
            if how.pop(name) is not None:
                raise UsageError(f"--{name} is for tables of runs; leave it out")
        ingest_into_catalog(
            files or (),
            into_catalog,
            mapping,
            catalog=catalog,
            history=history,
            table={**how, "table_format": file_format},
            traits=traits,
            timm_families=timm_families,
            as_json=as_json,
        )
        return
    if traits != "mapped":
        raise UsageError("--traits is for cards; settings of runs are --map hyperparameters.NAME=…")
    with opened_or_made(history, create=bool(files)) as opened:
        reports: dict[str, IngestReport] = {}
        warnings: list[str] = []
        unused: dict[str, tuple[str, ...]] = {}
        for path in files or ():
            reader = _reader(path, mapping, file_format, how)
            reports[str(path)] = opened.ingest(reader, curves=curves, replace=replace)
            if isinstance(reader, TableReader):
                unused[str(path)] = reader.unused_columns
            warnings.extend(f"{path}: {text}" for text in reader.warnings)
        if inbox:
            reports["inbox"] = opened.ingest_inbox()
        if replay:
            given = mapping if mapping != FieldMapping() else None
            readable: dict[str, bool] = {}
            reports["replay"] = opened.replay(
                lambda reject: _retry(reject, given, readable),
                unit=unit,
                fields={name: text for name, text in mapping.set.items() if name in RULES},
            )
        _show_reports(opened, reports, warnings, unused, as_json=as_json)


def _reader(
    path: Path, mapping: FieldMapping, file_format: str | None, how: JsonDict
) -> TableReader | LogReader:
    """Reader of a table or of logs, whichever the path is."""
    embedded = embedded_by_name(path)
    if embedded is not None:
        path = embedded / RUNS_FILE
    tables: tuple[TableFormat, ...] = get_args(TableFormat)
    chosen = next((name for name in tables if name == file_format), None)
    is_document = how["records"] is not None
    is_plain = file_format is None and not path.is_dir() and (is_document or is_table(path))
    is_told = is_document or how["wide"] is not None
    if chosen or (is_plain and (is_told or not is_table_of_log(path))):
        try:
            return read_table(path, mapping, table_format=chosen, **how)
        except UsageError as error:
            logs = find_logs(path).logs if file_format is None and path.is_file() else ()
            if not logs:
                raise
            name = logs[0].format_name
            raise UsageError(
                f"{error}. It looks like a log of {name}: try --format {name}"
            ) from error
    given = {
        **how,
        "delimiter": None if is_plain else how["delimiter"],
        "encoding": None if how["encoding"] == "utf-8" else how["encoding"],
    }
    option = next((name for name, told in given.items() if told is not None), None)
    if option is not None:
        raise UsageError(f"--{option} is for tables only, not for logs of frameworks; leave it out")
    return read_log(path, mapping, log_format_name=file_format or AUTO)


def _retry(reject: Reject, mapping: FieldMapping | None, readable: dict[str, bool]) -> ReadBatch:
    if reject.reader in (LOG_READER, LOG_RUN_READER):
        return replay_log(reject, mapping, readable=readable)
    return replay_row(reject, mapping)


def _catalog_kind(kind: str, preset_kind: PresetKind | None) -> CatalogKind | None:
    """What of a catalog the rows become, ``None`` for runs; a preset decides as ``--as``."""
    options: dict[str, CatalogKind | None] = {
        "runs": None,
        "model-cards": "model",
        "task-cards": "task",
        "scores": "score",
    }
    by_preset = None if preset_kind == "run" else preset_kind
    if preset_kind is not None and kind != "runs" and options[kind] != by_preset:
        raise UsageError(
            f"the preset reads rows as {preset_kind}s, --as says {kind}; leave one out"
        )
    return by_preset or options[kind]


def _show_reports(
    history: History,
    reports: dict[str, IngestReport],
    warnings: list[str],
    unused: dict[str, tuple[str, ...]],
    *,
    as_json: bool,
) -> None:
    pending = history.quarantine.table(raw=False)
    pending = pending[~pending["resolved"].astype(bool)]
    said: list[str] = []
    for source, report in reports.items():
        if report.n_still_retracted:
            runs = counted(report.n_still_retracted, "retracted run")
            said.append(
                f"{source}: {runs} not taken in again; recsys-ms "
                "retract --undo brings them back, or read the log again with --replace"
            )
    findings = findings_of(history)
    if as_json:
        show_json(
            {
                "sources": {
                    name: {**asdict(report), "unused_columns": unused.get(name, ())}
                    for name, report in reports.items()
                },
                "version": history.version,
                "n_in_quarantine": len(pending),
                "warnings": [*warnings, *said],
                "findings": list(findings),
            }
        )
    else:
        names = (
            *COUNTS[:6],
            *(["n_retracted"] if any(each.n_retracted for each in reports.values()) else ()),
        )
        show_table(
            f"history {history.path}, version {history.version}",
            ("source", *(name[2:].replace("_", " ") for name in names), "seconds", "ingest"),
            [
                (
                    source,
                    *(getattr(report, name) for name in names),
                    f"{report.seconds:.1f}",
                    report.ingest_id,
                )
                for source, report in reports.items()
            ],
        )
        for source, others in unused.items():
            if others:
                show(Text(f"{source}: {_not_used(others)}"))
    # What readers warn of is in the log.
    for text in (*said, *first_of(findings)):
        warn(text)
    n_refused = sum(report.n_quarantined for report in reports.values())
    if n_refused and pending.empty:
        warn(
            f"{counted(n_refused, 'row')} that cannot be read: dealt with before by --replay or "
            "--replace, so nothing waits in quarantine"
        )
    elif n_refused:
        newest = pending.sort_values("seen_at", ascending=False, kind="stable")
        for row in newest.head(_N_SHOWN_REJECTS).to_dict("records"):
            line = "" if pd.isna(row["line"]) else f":{row['line']}"
            warn(f"in quarantine: {row['file']}{line}: {row['reason']}")
        rows = counted(len(pending), "row") + (" waits" if len(pending) == 1 else " wait")
        raise DataError(
            f"{rows} in quarantine ({history.quarantine.folder}), everything else was taken; "
            f"{_way_out(pending)}"
        )


def _not_used(names: tuple[str, ...]) -> str:
    """One line on columns that nothing used, with the fields that some of them may be."""
    near = [did_you_mean(name, RUN_FIELDS, form="{}") for name in names[:_N_SHOWN_NAMES]]
    first = [name + field for name, field in zip(names, near, strict=False)]
    shown = named([*first, *names[len(first) :]], _N_SHOWN_NAMES)
    return f"columns not used: {shown}; keep them with --map hyperparameters.NAME='{{{names[0]}}}'"


def _way_out(pending: pd.DataFrame) -> str:
    """What to do about rows in quarantine: a mapping cannot mend what is damaged."""
    damaged = (pending["reader"] == LOG_READER) | pending["options"].str.contains(DAMAGED)
    recorded = pending["reader"].isin((INBOX_READER, JOURNAL_READER))
    ways = []
    if not (damaged | recorded).all():
        ways.append("correct the mapping and run again with --replay")
    if recorded.any():
        n = "" if recorded.all() else f"{int(recorded.sum())} of the inbox: "
        ways.append(f"{n}run again with --replay and --set FIELD=TEXT or --unit percent")
    if damaged.any():
        n = "" if damaged.all() else f"{int(damaged.sum())} damaged: "
        ways.append(f"{n}correct the file and ingest it again with --replace")
    return "; ".join(ways)


def _show_presets(*, as_json: bool) -> None:
    if as_json:
        names = ("kind", "files", "text")
        show_json(
            {
                name: {each: getattr(preset, each) for each in names}
                | {"mapping": preset.mapping.to_json()}
                for name, preset in PRESETS.items()
            }
        )
        return
    rows = [(name, each.kind, each.files, each.text) for name, each in PRESETS.items()]
    show_table("", ("preset", "rows become", "files", "what to know"), rows, ruled=True)
