"""From a recorded study to the embedded history: runs and cards as Parquet, and what they show."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import write_atomic
from recsys_ms.history.history import History
from recsys_ms.history.schema import RUN_SCHEMA
from training.zoo.bench import Bench
from training.zoo.cards import model_cards, task_cards
from training.zoo.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Number of rows written, and the runs of the study that are not recorded yet."""

    n_runs: int
    n_models: int
    n_tasks: int
    n_missing: int


def export_study(study: Study, bench: Bench, out: Path) -> ExportReport:
    """Write ``runs.parquet``, ``models.parquet`` and ``tasks.parquet`` of ``study`` into ``out``.

    Runs are ordered by their start. ``ingested_at`` is left empty: the history that takes the
    runs in sets it.

    Raises
    ------
    DataError
        The history holds no run of the study.
    """
    history = History.open(bench.history, create=False)
    history.ingest_inbox()
    frame = history.runs()
    wanted = {run.run_id for run in study.finetunings()}
    frame = frame[frame[c.RUN_ID].isin(wanted)].sort_values([c.STARTED_AT, c.RUN_ID])
    if frame.empty:
        raise DataError(f"{bench.history}: no run of study {study.name!r}; run the study first")
    frame[c.INGESTED_AT] = pd.NaT
    table = pa.Table.from_pandas(frame[list(RUN_SCHEMA.names)], RUN_SCHEMA, preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "runs.parquet", sink.getvalue().to_pybytes())
    catalog = Catalog.from_cards(models=model_cards(study, bench), tasks=task_cards(study))
    catalog.write(out)
    return ExportReport(
        n_runs=len(frame),
        n_models=len(catalog.models),
        n_tasks=len(catalog.tasks),
        n_missing=len(wanted) - len(frame),
    )
