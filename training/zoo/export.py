"""From a recorded study to the embedded history: runs, curves, cards and scores as Parquet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import write_atomic
from recsys_ms.history.history import History
from recsys_ms.history.store.curves import CURVE_SCHEMA
from recsys_ms.history.store.schema import RUN_SCHEMA
from recsys_ms.scores.label_embeddings import LabelEncoder
from training.zoo.bench import Bench
from training.zoo.cards import model_cards, task_cards
from training.zoo.encoders import encoders_at_hand, names_vector
from training.zoo.scoring import read_scores
from training.zoo.study import Study
from training.zoo.vectors import TaskVectors

#: Rows of ``score_seconds`` that are not scores: the time that all scores of a pair share.
FEATURES: Final = "features"
DECOMPOSITION: Final = "decomposition"
#: One row a score of a pair, and two for what its scores share.
SECONDS_SCHEMA: Final = pa.schema(
    [
        pa.field(c.TASK_ID, pa.string()),
        pa.field(c.MODEL_ID, pa.string()),
        pa.field("score", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
#: One row a task, source or target, and text encoder.
LABEL_SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("encoder", pa.string()),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
_CARDS: Final = ("models", "tasks", "scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written, and what is missing.

    Attributes
    ----------
    n_runs, n_failed : int
        Runs, and those of them that failed.
    n_models, n_tasks : int
        Cards.
    n_scored : int
        Pairs with scores.
    n_missing : int
        Runs of the study that are not recorded yet.
    missing : tuple of str
        A sentence for each missing part of the export; empty where it is complete.
    n_bytes : int
        Of all files.
    """

    n_runs: int
    n_failed: int
    n_models: int
    n_tasks: int
    n_scored: int
    n_missing: int
    missing: tuple[str, ...]
    n_bytes: int


def export_study(study: Study, bench: Bench, out: Path) -> ExportReport:
    """Write runs, curves, cards, scores and vectors of class names of ``study`` into ``out``.

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
    out.mkdir(parents=True, exist_ok=True)
    _write(out, "runs", _table(frame, RUN_SCHEMA))
    curves = history.curves(frame[c.RUN_ID].tolist())
    _write(out, "curves", _table(curves, CURVE_SCHEMA))
    found = _score_files(study, bench)
    _write(out, "score_seconds", pa.Table.from_pylist(list(_seconds(found)), SECONDS_SCHEMA))
    encoders = encoders_at_hand(study)
    labels = pa.Table.from_pylist(list(_label_vectors(study, encoders)), LABEL_SCHEMA)
    _write(out, "label_vectors", labels)
    vectors = TaskVectors.of(encoders)
    catalog = Catalog.from_cards(
        models=model_cards(study, bench, vectors), tasks=task_cards(study, vectors)
    ).with_scores(_score_table(found))
    catalog.write(out)
    for name in _CARDS:
        # Once more, compressed as the others: the package is downloaded with these files.
        if (out / f"{name}.parquet").is_file():
            _write(out, name, pq.read_table(out / f"{name}.parquet"))
    n_missing = len(wanted) - len(frame)
    return ExportReport(
        n_runs=len(frame),
        n_failed=int((frame[c.STATUS] == "failed").sum()),
        n_models=len(catalog.models),
        n_tasks=len(catalog.tasks),
        n_scored=len(catalog.scores.frame),
        n_missing=n_missing,
        missing=tuple(_missing(study, catalog, n_missing, found, labels.num_rows)),
        n_bytes=sum(path.stat().st_size for path in out.glob("*.parquet")),
    )


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_pandas(frame[list(schema.names)], schema, preserve_index=False)
    return table.replace_schema_metadata(None)


def _write(out: Path, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomic(out / f"{name}.parquet", sink.getvalue().to_pybytes())


def _score_files(study: Study, bench: Bench) -> list[dict[str, Any]]:
    """What was recorded of pairs, task by task."""
    files = (
        read_scores(bench, model, task_id) for task_id in study.targets for model in study.models()
    )
    return [found for found in files if found is not None]


def _score_table(found: Sequence[dict[str, Any]]) -> ScoreTable:
    rows = [
        {c.TASK_ID: each["task_id"], c.MODEL_ID: each["model_id"]}
        | {name: score["value"] for name, score in each["scores"].items()}
        for each in found
        if "error" not in each
    ]
    return ScoreTable(pd.DataFrame(rows)) if rows else ScoreTable.empty()


def _seconds(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in found:
        pair = {c.TASK_ID: each["task_id"], c.MODEL_ID: each["model_id"]}
        if "error" in each:
            yield pair | {"score": FEATURES, "status": "failed", "reason": each["error"]}
            continue
        fine = pair | {"status": "ok", "reason": ""}
        yield fine | {"score": FEATURES, "seconds": each["seconds_features"]}
        yield fine | {"score": DECOMPOSITION, "seconds": each["seconds_shared"]}
        for name, score in each["scores"].items():
            told = {key: score[key] for key in ("seconds", "status", "reason")}
            yield pair | {"score": name} | told


def _label_vectors(study: Study, encoders: Sequence[LabelEncoder]) -> Iterator[dict[str, Any]]:
    """Mean vectors of class names by every encoder that is there."""
    for encoder in encoders:
        for kind, ids in (("source", study.sources), ("task", study.targets)):
            for task_id in ids:
                vector = names_vector(encoder, study.book.get(task_id).class_names)
                yield {"id": task_id, "kind": kind, "encoder": encoder.name, "vector": vector}


def _missing(
    study: Study, catalog: Catalog, n_missing: int, found: Sequence[dict[str, Any]], n_labels: int
) -> Iterator[str]:
    """Say what is missing from the export, and how to get it."""
    if n_missing:
        yield f"{n_missing} runs of the study are not recorded yet; run it"
    n_pairs = len(study.models()) * len(study.targets)
    if len(found) < n_pairs:
        yield f"{n_pairs - len(found)} of {n_pairs} pairs are not scored yet; score them"
    n_refused = sum("error" in each for each in found)
    if n_refused:
        yield f"{n_refused} pairs have no scores; score_seconds.parquet says why"
    encoders = {tuple(each["encoders"]) for each in found}
    if len(encoders) > 1:
        yield f"EMMS was computed with different encoders, {sorted(encoders)}; score again"
    elif encoders == {()}:
        yield "EMMS was not computed, since no encoder was there; score again once one is"
    without = set(catalog.models.index) ^ {model.model_id for model in study.models()}
    if without:
        yield f"{sorted(without)} have no card, since they could not be built or pre-trained"
    if catalog.tasks["embedding"].isna().any():
        yield "task cards have no vectors of images, since the proxy is absent"
    if not n_labels:
        yield "no vectors of class names, since no encoder of the study is there"
