"""Searches with Ray Tune: python write_ray.py FOLDER (no network)."""

import json
import sys
from pathlib import Path

import ray
from ray import tune


def train(config):
    for epoch in range(3):
        accuracy = [0.5, 0.75, 0.625][epoch] + config["lr"]
        tune.report({"accuracy": accuracy, "loss": 1.0 / (1 + epoch), "epoch": epoch})


def main(folder):
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.grid_search([0.0, 0.125]), "model": "resnet18"},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max"),
        run_config=tune.RunConfig(name="birds", storage_path=str(folder)),
    )
    results = tuner.fit()
    best = {f"{result.config['lr']}": result.metrics["accuracy"] for result in results}
    ray.shutdown()
    # Without the pickled parts of the state, and what it says of the machine.
    [state] = folder.glob("birds/experiment_state-*.json")
    whole = json.loads(state.read_text())
    trials = [json.loads(trial) for trial, _ in whole["trial_data"]]
    kept = [{name: trial[name] for name in ("trial_id", "status", "config")} for trial in trials]
    state.write_text(json.dumps({"trial_data": [[json.dumps(trial), "{}"] for trial in kept]}))
    for path in folder.rglob("result.json"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{**row, "hostname": "host", "node_ip": "192.0.2.1"} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (*folder.rglob("progress.csv"), *folder.rglob("events.out.*")):
        path.unlink()
    (folder / "expected.json").write_text(json.dumps(best))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
