"""Evaluates with lm-evaluation-harness: python write_lm_eval.py FOLDER (no network)."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

TASK = """task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: ["red", "blue"]
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""


def main(folder):
    data = folder / "data.jsonl"
    rows = [{"question": f"the sky {at}", "answer": at % 2} for at in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "colours.yaml").write_text(TASK.format(data=data))
    tracker = EvaluationTracker(output_path=str(folder / "results"))
    found = lm_eval.simple_evaluate(
        model="dummy",
        model_args="pretrained=EleutherAI/pythia-14m",
        tasks=["colours"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        evaluation_tracker=tracker,
        bootstrap_iters=10,
        random_seed=0,
    )
    found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=None)
    [path] = (folder / "results").rglob("results_*.json")
    document = json.loads(path.read_text())
    # What it says of the machine.
    for name in ("pretty_env_info", "cpu_name", "git_hash"):
        document.pop(name, None)
    path.write_text(json.dumps(document, indent=2))
    (folder / "expected.json").write_text(json.dumps(found["results"]["colours"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
