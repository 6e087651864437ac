"""Logs runs with the real MLflow: python write_mlflow.py FOLDER sqlite|folder (no network)."""

import json
import logging
import math
import os
import sys
import time
import warnings
from pathlib import Path

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
os.environ["LOGNAME"] = "someone"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402


def train(name, values, *, model="resnet18", nested=False, **tags):
    with mlflow.start_run(run_name=name, nested=nested) as run:
        mlflow.log_params({"model": model, "dataset": "birds", "lr": 0.1, "depth": 18, "amp": True})
        mlflow.set_tags(tags)
        for step, value in enumerate(values):
            mlflow.log_metric("val_acc", value, step=step)
            mlflow.log_metric("epoch", step / 2, step=step)
        mlflow.log_metric("train/loss", 1.0)
    return run.info.run_id


def main(folder, kind):
    uri = f"sqlite:///{folder / 'mlflow.db'}" if kind == "sqlite" else (folder / "mlruns").as_uri()
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    ids = {}
    mlflow.set_experiment("fine-tuning")
    ids["plain"] = train("plain", [0.5, 0.9, 0.7], team="vision")
    ids["nan"] = train("nan", [math.nan, math.nan])
    ids["infinite"] = train("infinite", [math.inf, -math.inf, 0.25])
    with mlflow.start_run(run_name="parent") as parent:
        mlflow.log_param("sweep", "yes")
        ids["child"] = train("child", [0.4], nested=True)
    ids["parent"] = parent.info.run_id
    try:
        with mlflow.start_run(run_name="crashed") as run:
            ids["crashed"] = run.info.run_id
            mlflow.log_metric("val_acc", 0.2, step=3)
            raise ValueError("diverged")
    except ValueError:
        pass
    killed = client.create_run(client.get_experiment_by_name("fine-tuning").experiment_id)
    client.set_terminated(killed.info.run_id, "KILLED")
    ids["killed"] = killed.info.run_id
    running = client.create_run(killed.info.experiment_id)
    client.log_metric(running.info.run_id, "val_acc", 0.3, step=1)
    ids["running"] = running.info.run_id
    ids["deleted"] = train("deleted", [0.99])
    client.delete_run(ids["deleted"])
    with mlflow.start_run(run_name="stepless") as run:
        ids["stepless"] = run.info.run_id
        mlflow.log_params({"model": "vit", "dataset": "birds", "text": "a, b", "empty": ""})
        for value in (0.6, 0.8, 0.65):
            mlflow.log_metric("val_acc", value)
            time.sleep(0.002)
    if hasattr(mlflow, "data") and hasattr(mlflow.data, "from_pandas"):
        with mlflow.start_run(run_name="data") as run:
            ids["data"] = run.info.run_id
            frame = mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2]}), name="birds-csv")
            mlflow.log_input(frame, context="training")
            mlflow.log_param("model", "vit")
            mlflow.log_metric("val_acc", 0.6)
    mlflow.set_experiment("gone")
    ids["gone"] = train("gone", [0.1])
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    told = {}
    for name, run_id in ids.items():
        if name != "gone":
            keys = client.get_run(run_id).data.metrics
            # In the order of the steps, as its page shows them.
            told[name] = {
                key: [
                    point.value
                    for point in sorted(
                        client.get_metric_history(run_id, key), key=lambda p: (p.step, p.timestamp)
                    )
                ]
                for key in keys
            }
    (folder / "ids.json").write_text(json.dumps(ids))
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
