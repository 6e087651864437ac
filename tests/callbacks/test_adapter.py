"""Names that frameworks log, to metric and split, in the callbacks as in the readers of logs."""

from pathlib import Path

import pandas as pd
import pytest
from recorded_runs import only

from recsys_ms.callbacks.adapter import Adapter
from recsys_ms.history.history import History
from recsys_ms.history.recorder.recording import recording


@pytest.mark.parametrize(
    ("name", "metric", "split"),
    [
        ("val_acc", "acc", "val"),
        ("val/acc", "acc", "val"),
        ("val.acc", "acc", "val"),
        ("val-acc", "acc", "val"),
        ("training_acc", "acc", "training"),
        ("evaluation/acc", "acc", "evaluation"),
        ("dev_f1", "f1", "dev"),
        ("test/loss/total", "loss/total", "test"),
        ("value_acc", "value_acc", "own"),
        ("acc", "acc", "own"),
    ],
)
def test_metric_and_split_of_a_name(name: str, metric: str, split: str) -> None:
    run = recording("nowhere", model_id="m", task_id="t", metric="acc", direction="max")
    assert Adapter(run, None, unnamed="own").parts(name) == (metric, split)


@pytest.mark.parametrize("training", ["train_acc", "training/acc", "train-acc"])
def test_values_of_the_training_are_not_the_outcome(tmp_path: Path, training: str) -> None:
    history = History.open(tmp_path / "H")
    run = recording(history.path, model_id="m", task_id="t", metric="acc", direction="max")
    adapter = Adapter(run, None, unnamed=None)
    adapter.begin()
    adapter.log({training: 0.99, "val.acc": 0.5, "val_samples_per_second": 7}, epoch=1.0)
    adapter.end()
    history.ingest_inbox()
    row = only(history)
    assert (row["value"], row["split"], row["metric"]) == (0.5, "val", "acc")
    assert sorted(history.curves()["value"]) == [0.5, 0.99]
    assert not pd.isna(history.curves()["split"]).any()
