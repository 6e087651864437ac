"""``recsys-ms ingests``: what was taken into a history, when, from where and how."""

import json

import pandas as pd

from recsys_ms.cli.console import show_json, show_table
from recsys_ms.cli.options import DEFAULT_HISTORY, HistoryOption, JsonFlag, open_history

_SHOWN = ("n_new", "n_updated", "n_duplicate", "n_quarantined", "n_retracted", "n_restored")


def ingests(history: HistoryOption = DEFAULT_HISTORY, as_json: JsonFlag = False) -> None:
    """List every ingest and every retraction of a history; "runs" is what each has now."""
    opened = open_history(history)
    found = opened.ingests()
    if as_json:
        show_json(json.loads(found.to_json(orient="records", date_format="iso")))
        return
    show_table(
        f"history {opened.path}, version {opened.version}",
        (
            "ingest",
            "operation",
            *(name[2:] for name in _SHOWN),
            "runs",
            "retracted now",
            "sources",
        ),
        [
            (
                row["ingest_id"],
                row["operation"],
                *("?" if pd.isna(row[name]) else row[name] for name in _SHOWN),
                row["n_runs"],
                row["n_runs_retracted"],
                ", ".join(row["sources"]) or row["reason"],
            )
            for row in found.to_dict("records")
        ],
    )
