"""``recsys-ms retract``: take runs back that should not count, or bring them back."""

import json
from typing import Annotated

import typer
from rich.text import Text

from recsys_ms.cli.console import counted, show, show_json, show_table
from recsys_ms.cli.options import DEFAULT_HISTORY, HistoryOption, JsonFlag, open_history

_N_SHOWN = 10
_COLUMNS = ("run_id", "task_id", "model_id", "metric", "value", "status", "ingest_id")


def retract(
    ingest: Annotated[
        str | None,
        typer.Argument(help="Id of an ingest; see recsys-ms ingests.", show_default=False),
    ] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    run_ids: Annotated[
        list[str] | None, typer.Option("--run-id", help="A run; may be given several times.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="DuckDB predicate over runs, such as \"task_id = 'x' AND value > 1\"."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the retraction.")] = "",
    undo: Annotated[
        bool,
        typer.Option(
            "--undo", help="Bring retracted runs back; INGEST may be the id of a retraction."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which runs it would be.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take runs back: they are kept and count no longer. --undo brings them back.

    Of INGEST, --run-id and --where all that are given must hold.
    """
    done = open_history(history).retract(
        ingest, run_ids=run_ids or None, where=where, reason=reason, undo=undo, dry_run=dry_run
    )
    if as_json:
        runs = done.runs[list(_COLUMNS)].to_json(orient="records")
        show_json(
            {
                "ingest_id": done.ingest_id,
                "n_runs": done.n_runs,
                "undo": undo,
                "dry_run": dry_run,
                "version": done.version,
                "runs": json.loads(runs),
            }
        )
        return
    if done.n_runs:
        rows = done.runs[list(_COLUMNS)].head(_N_SHOWN).itertuples(index=False)
        show_table("", _COLUMNS, rows)
    if done.n_runs > _N_SHOWN:
        show(Text(f"and {done.n_runs - _N_SHOWN} more"))
    show(Text(_told(done.n_runs, done.ingest_id, undo=undo, dry_run=dry_run)))


def _told(n_runs: int, name: str, *, undo: bool, dry_run: bool) -> str:
    runs = counted(n_runs, "run")
    action = "brought back" if undo else "retracted"
    if dry_run:
        return f"{runs} would be {action}; nothing was changed"
    if not n_runs:
        state = "retracted" if undo else "in use"
        return f"0 runs {action}: none of those chosen is {state}"
    way_back = "" if undo else f"; they are kept: recsys-ms retract {name} --undo brings them back"
    return f"{runs} {action}{way_back}"
