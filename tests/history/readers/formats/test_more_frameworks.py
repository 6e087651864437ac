"""Logs of ten more tools: files that the tools themselves wrote, read through ``ingest``."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from history.readers.frameworks.recorded import WAYS, framework_log

from recsys_ms.core import columns as c
from recsys_ms.core.errors import UsageError
from recsys_ms.history.history import History
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

#: Modules that each tool needs to write its log now.
NEEDS = {
    "dvclive": ("dvclive",),
    "mmengine": ("mmengine", "torch"),
    "keras_tuner": ("keras_tuner", "torch"),
    "ray": ("ray",),
    "sentence_transformers": ("sentence_transformers",),
    "lm_eval": ("lm_eval",),
    "mteb": ("mteb",),
    "autogluon": ("autogluon.tabular",),
}
DETECTRON = [
    {"iteration": 19, "lr": 0.001, "total_loss": 2.5, "time": 0.1},
    {"iteration": 39, "bbox/AP": 31.5, "bbox/AP50": 52.0, "total_loss": 1.5},
    {"iteration": 59, "bbox/AP": 30.0, "bbox/AP50": 53.0, "total_loss": 1.25},
]
CONFIG = """
MODEL: {WEIGHTS: 'detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/model_final.pkl'}
DATASETS: {TRAIN: [balloons_train], TEST: [balloons_val]}
SOLVER: {MAX_ITER: 60, BASE_LR: 0.001}
SEED: 7
"""


@pytest.fixture(params=WAYS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def lay_out(tool: str) -> tuple[Path, dict[str, Any]]:
        folder = framework_log(request.param, tool, tmp_path / tool, NEEDS[tool])
        return folder, json.loads((folder / "expected.json").read_text())

    (tmp_path / "logs").mkdir()
    for tool in NEEDS:
        (tmp_path / tool).mkdir()
    return lay_out


def ingested(folder: Path, to: Path, **mapping: Any) -> pd.DataFrame:
    history = History.open(to)
    report = history.ingest(read_log(folder, FieldMapping(**mapping)))
    assert (report.n_quarantined, report.n_left_out) == (0, 0)
    runs = history.runs()
    again = history.ingest(read_log(folder, FieldMapping(**mapping)))
    assert (again.n_new, again.n_updated, again.n_duplicate) == (0, 0, len(runs))
    return runs


def written_detectron(folder: Path, rows: list[dict[str, float]], config: str = CONFIG) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(config)
    return folder


def test_dvclive(log: Any, tmp_path: Path) -> None:
    folder, expected = log("dvclive")
    # Its plots are not tables of their own.
    assert (len(find_logs(folder).logs), find_logs(folder).second) == (1, ())
    runs = ingested(
        folder,
        tmp_path / "H",
        map={"model_id": "{params.model}", "task_id": "{params.dataset}"},
        set={"metric": "eval/accuracy"},
    )
    [run] = runs.to_dict("records")
    assert run[c.VALUE] == max(expected["eval/accuracy"]) == 0.75
    assert (run[c.MODEL_ID], run[c.TASK_ID], run[c.DIRECTION]) == ("resnet18", "birds", "max")
    curves = History.open(tmp_path / "H").curves()
    assert sorted(curves[curves.metric == "loss"].value) == sorted(expected["train/loss"])
    assert curves[curves.metric == "f1"].value.tolist() == expected["test_f1"]


def test_dvclive_without_its_plots(tmp_path: Path) -> None:
    # As in a repository in which .gitignore leaves them out.
    summary = {"eval": {"accuracy": 0.75}, "step": 3}
    for folder in ("dvclive", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.json").write_text(json.dumps(summary))
    [log] = find_logs(tmp_path).logs
    assert (log.format_name, log.place.name) == ("dvclive", "dvclive")
    said = {"model_id": "m", "task_id": "t", "metric": "eval/accuracy"}
    [batch] = list(read_log(tmp_path, FieldMapping(set=said)))
    assert batch.runs["value"].to_pylist() == [0.75]


def test_mmengine(log: Any, tmp_path: Path) -> None:
    folder, expected = log("mmengine")
    runs = ingested(
        folder, tmp_path / "H", map={"task_id": "{config.data_root}"}, set={"model_id": "linear"}
    )
    [run] = runs.to_dict("records")
    # save_best names the metric, which MMPretrain logs in percent.
    assert run[c.VALUE] == pytest.approx(max(expected["accuracy/top1"]) / 100.0)
    assert (run[c.STATUS], run[c.SPLIT], run[c.SEED]) == ("finished", "val", 0)
    assert run[c.TASK_ID] == "data/points/"
    assert json.loads(run[c.HYPERPARAMETERS])["optim_wrapper"]["optimizer"]["lr"] == 0.1


def test_keras_tuner(log: Any, tmp_path: Path) -> None:
    folder, expected = log("keras_tuner")
    runs = ingested(
        folder, tmp_path / "H", map={"task_id": "{experiment}"}, set={"model_id": "dense"}
    )
    assert sorted(runs[c.VALUE]) == pytest.approx(sorted(expected.values()))
    assert set(runs[c.DIRECTION]) == {"max"}
    assert set(runs[c.TASK_ID]) == {"points"}
    assert all("lr" in json.loads(text) for text in runs[c.HYPERPARAMETERS])


def test_ray(log: Any, tmp_path: Path) -> None:
    folder, _ = log("ray")
    runs = ingested(
        folder,
        tmp_path / "H",
        map={"model_id": "{config.model}", "task_id": "{experiment}"},
        set={"metric": "accuracy"},
    )
    # By hand from write_ray.py: the best of .5, .75, .625, plus the rate. (Ray tells the last.)
    best = {json.loads(r[c.HYPERPARAMETERS])["lr"]: r[c.VALUE] for _, r in runs.iterrows()}
    assert best == {0.0: 0.75, 0.125: 0.875}
    assert set(runs[c.STATUS]) == {"finished"}
    assert set(runs[c.TASK_ID]) == {"birds"}


def test_sentence_transformers(log: Any, tmp_path: Path) -> None:
    folder, expected = log("sentence_transformers")
    # One metric for three kinds of evaluation is asked for.
    with pytest.raises(UsageError, match="metric"):
        ingested(folder, tmp_path / "H")
    file = folder / "output" / "eval" / "similarity_evaluation_sts-dev_results.csv"
    [run] = ingested(file, tmp_path / "H", set={"metric": "cosine_spearman"}).to_dict("records")
    assert run[c.VALUE] == pytest.approx(expected["sts-dev_spearman_cosine"])
    assert (run[c.MODEL_ID], run[c.TASK_ID]) == ("someone/tiny-bert", "sts-dev")
    file = folder / "output" / "eval" / "Information-Retrieval_evaluation_birds_results.csv"
    [run] = ingested(file, tmp_path / "I", set={"metric": "cosine-MRR@10"}).to_dict("records")
    assert run[c.VALUE] == pytest.approx(expected["birds_cosine_mrr@10"])


def test_lm_eval(log: Any, tmp_path: Path) -> None:
    folder, expected = log("lm_eval")
    [run] = ingested(folder, tmp_path / "H").to_dict("records")
    assert run[c.VALUE] == expected["acc,none"]
    assert (run[c.METRIC], run[c.DIRECTION]) == ("acc", "max")
    assert (run[c.MODEL_ID], run[c.TASK_ID]) == ("EleutherAI/pythia-14m", "colours")
    assert json.loads(run[c.HYPERPARAMETERS])["num_fewshot"] == 0
    curves = History.open(tmp_path / "H").curves()
    assert sorted(curves.metric) == ["acc", "acc_norm"]


def test_lm_eval_documents_of_many_tasks_and_of_version_0_3(tmp_path: Path) -> None:
    # The settings of the tasks of MMLU are longer than what is looked at.
    tasks = {f"mmlu_{at}": {"acc,none": 0.5, "acc_stderr,none": 0.1} for at in range(60)}
    settings = {task: {"task": task, "doc_to_text": "x" * 2_000} for task in tasks}
    document = {"results": tasks, "configs": settings, "versions": {}, "model_name": "gpt2"}
    (tmp_path / "results_2024.json").write_text(json.dumps(document))
    assert len(ingested(tmp_path, tmp_path / "H", set={c.METRIC: "acc"})) == 60
    old = {
        "results": {"piqa": {"acc": 0.625, "acc_stderr": 0.1, "acc_norm": 0.75}},
        "versions": {"piqa": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=gpt2,dtype=float16"},
    }
    (tmp_path / "results_2024.json").write_text(json.dumps(old))
    [run] = ingested(tmp_path, tmp_path / "old", set={c.METRIC: "acc"}).to_dict("records")
    assert (run[c.MODEL_ID], run[c.TASK_ID], run[c.VALUE]) == ("gpt2", "piqa", 0.625)
    (tmp_path / "results_2024.json").write_text(json.dumps({"results": {"acc": 1, "b": 2}}))
    assert not find_logs(tmp_path).logs


def test_mteb(log: Any, tmp_path: Path) -> None:
    folder, expected = log("mteb")
    runs = ingested(folder, tmp_path / "H")
    found = dict(zip(runs[c.TASK_ID], runs[c.VALUE], strict=True))
    assert found == {
        "ColoursClassification": expected["ColoursClassification"]["default"],
        "ColoursMultilingual/en": expected["ColoursMultilingual"]["en"],
        "ColoursMultilingual/de": expected["ColoursMultilingual"]["de"],
    }
    assert set(runs[c.MODEL_ID]) == {"someone/tiny-encoder"}
    assert set(runs[c.MODEL_REVISION]) == {"abc123"}
    assert set(runs[c.DIRECTION]) == {"max"}


def test_autogluon(log: Any, tmp_path: Path) -> None:
    folder, expected = log("autogluon")
    for name, metric in (("class", "accuracy"), ("number", "neg_root_mean_squared_error")):
        runs = ingested(
            folder / f"leaderboard_{name}.csv", tmp_path / name, set={"task_id": "planted"}
        )
        found = dict(zip(runs[c.MODEL_ID], runs[c.VALUE], strict=True))
        assert found == pytest.approx(expected[name])
        assert set(runs[c.METRIC]) == {metric}
        assert set(runs[c.DIRECTION]) == {"max"}
        assert set(runs[c.SPLIT]) == {"test"}


def test_detectron2(tmp_path: Path) -> None:
    folder = written_detectron(tmp_path / "output", DETECTRON)
    [run] = ingested(folder, tmp_path / "H", set={"metric": "bbox/AP"}).to_dict("records")
    assert run[c.VALUE] == pytest.approx(0.315)
    assert run[c.MODEL_ID] == "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    assert (run[c.TASK_ID], run[c.SEED], run[c.STATUS]) == ("balloons_train", 7, "finished")
    assert (run[c.SPLIT], run[c.DIRECTION]) == ("test", "max")


def test_two_trainings_in_one_file_of_detectron2(tmp_path: Path) -> None:
    rows = [*DETECTRON, *({**row, "bbox/AP": 40.0} for row in DETECTRON)]
    folder = written_detectron(tmp_path / "output", rows)
    runs = ingested(folder, tmp_path / "H", set={"metric": "bbox/AP"})
    assert sorted(runs[c.VALUE]) == pytest.approx([0.315, 0.4])


def test_a_cut_last_line_costs_the_line(tmp_path: Path) -> None:
    folder = written_detectron(tmp_path / "output", DETECTRON)
    with (folder / "metrics.json").open("a") as file:
        file.write('{"iteration": 79, "bbox/AP": 3')
    reader = read_log(folder, FieldMapping(set={"metric": "bbox/AP"}))
    history = History.open(tmp_path / "H")
    report = history.ingest(reader)
    assert (report.n_new, report.n_quarantined) == (1, 0)
    assert history.runs()[c.VALUE].tolist() == pytest.approx([0.315])
    assert any("line 4" in text and '"iteration": 79' in text for text in reader.warnings)


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder = tmp_path / "runs" / "birds" / "resnet18"
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate([0.5, 0.75, 0.625]):
            writer.add_scalar("val/accuracy", value, step)
            writer.add_scalar("train/loss", 1.0 / (1 + step), step)
    # A resumed training logs a step again, into another file.
    with SummaryWriter(str(folder), filename_suffix=".resumed") as writer:
        writer.add_scalar("val/accuracy", 0.7, 1)
        writer.add_scalar("val/accuracy", 0.6875, 3)
    (folder / "hparams.yaml").write_text("lr: 0.1\nseed: 5\n")
    runs = ingested(
        tmp_path / "runs",
        tmp_path / "H",
        map={"task_id": "{experiment}", "model_id": "{run}"},
        set={"metric": "accuracy"},
    )
    [run] = runs.to_dict("records")
    assert run[c.VALUE] == pytest.approx(0.7)
    assert (run[c.TASK_ID], run[c.MODEL_ID], run[c.SEED]) == ("birds", "resnet18", 5)
    curves = History.open(tmp_path / "H").curves()
    accuracy = curves[curves.metric == "accuracy"].sort_values("step")
    assert accuracy.value.tolist() == pytest.approx([0.5, 0.7, 0.625, 0.6875])


def test_hyperparameters_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "r")) as writer:
        writer.add_hparams({"lr": 0.5, "model": "vit"}, {"accuracy": 0.9}, run_name=".")
    [run] = ingested(
        tmp_path / "r",
        tmp_path / "H",
        map={"model_id": "{hparams.model}"},
        set={"metric": "accuracy", "task_id": "t"},
    ).to_dict("records")
    assert (run[c.MODEL_ID], run[c.VALUE]) == ("vit", pytest.approx(0.9))
    assert json.loads(run[c.HYPERPARAMETERS]) == {"lr": 0.5, "model": "vit"}


def test_event_files_beside_another_log_are_a_second_record(tmp_path: Path) -> None:
    folder = written_detectron(tmp_path / "output", DETECTRON)
    for place in (folder, folder / "runs"):
        place.mkdir(exist_ok=True)
        (place / "events.out.tfevents.1.host").write_bytes(b"")
    found = find_logs(tmp_path)
    assert [log.format_name for log in found.logs] == ["detectron2"]
    assert [log.place for log in found.second] == [folder.resolve(), folder.resolve() / "runs"]
    reader = read_log(folder, FieldMapping(set={"metric": "bbox/AP"}))
    assert any("2 logs repeat" in text and "tensorboard" in text for text in reader.warnings)


def test_a_cut_event_file_keeps_what_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "r")) as writer:
        for step in range(4):
            writer.add_scalar("val/accuracy", 0.25 * step, step)
    [file] = (tmp_path / "r").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    history = History.open(tmp_path / "H")
    said = {"metric": "accuracy", "task_id": "t", "model_id": "m"}
    history.ingest(read_log(tmp_path / "r", FieldMapping(set=said)))
    assert history.runs()[c.VALUE].tolist() == [0.5]


def test_lists_of_epochs(tmp_path: Path) -> None:
    history = {
        "loss": [1.5, 1.0, 0.75],
        "accuracy": [0.4, 0.5, 0.6],
        "val_loss": [1.25, 1.5, 1.0],
        "val_accuracy": [0.5, 0.625, 0.5625],
    }
    (tmp_path / "history.json").write_text(json.dumps(history))
    [run] = ingested(
        tmp_path / "history.json",
        tmp_path / "H",
        set={"metric": "accuracy", "model_id": "m", "task_id": "t"},
    ).to_dict("records")
    # That of the validation, at epoch 1.
    assert (run[c.VALUE], run[c.SPLIT], run[c.EPOCH]) == (0.625, "val", 1.0)
    curves = History.open(tmp_path / "H").curves()
    assert sorted(curves[curves.metric == "loss"].value) == [0.75, 1.0, 1.0, 1.25, 1.5, 1.5]


@pytest.mark.parametrize(
    "text",
    [
        '{"loss": [1.0, 2.0], "val_loss": [1.0]}',
        '{"loss": [1.0, null], "val_loss": [1.0, {}]',
        '{"loss": [1.0, 2.0], "val_loss": [1.0, 1' + "0" * 400 + "]}",
    ],
)
def test_lists_of_epochs_that_are_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.json").write_text(text)
    said = {"metric": "loss", "model_id": "m", "task_id": "t"}
    history = History.open(tmp_path / "H")
    report = history.ingest(read_log(tmp_path / "history.json", FieldMapping(set=said)))
    assert (report.n_new, report.n_quarantined) == (0, 1)


def test_other_lists_are_left_alone(tmp_path: Path) -> None:
    for name, document in {
        "boxes.json": {"boxes": [1, 2], "labels": [1, 2]},
        "losses.json": {"loss": [1.0, 2.0], "names": ["a", "b"]},
        "nested.json": {"loss": [[1.0]], "val_loss": [[1.0]]},
    }.items():
        (tmp_path / name).write_text(json.dumps(document))
    assert find_logs(tmp_path).logs == ()


@pytest.mark.parametrize("several", [False, True])
def test_mteb_before_version_1_11(tmp_path: Path, several: bool) -> None:
    scores = {"accuracy": 0.75, "f1": 0.5, "main_score": 0.75}
    document = {
        "dataset_revision": "abc",
        "mteb_dataset_name": "Massive" if several else "Banking77Classification",
        "mteb_version": "1.0.2",
        "test": {"evaluation_time": 3.5, **({"de": scores, "en": scores} if several else scores)},
    }
    folder = tmp_path / "results" / "someone__tiny" / "rev"
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(document))
    runs = ingested(tmp_path / "results", tmp_path / "H")
    tasks = ["Massive/de", "Massive/en"] if several else ["Banking77Classification"]
    assert sorted(runs[c.TASK_ID]) == tasks
    assert set(runs[c.VALUE]) == {0.75}
    assert set(runs[c.MODEL_ID]) == {"someone/tiny"}


def test_similarities_of_mteb_before_version_1_11(tmp_path: Path) -> None:
    document = {
        "mteb_dataset_name": "STS12",
        "mteb_version": "1.0.2",
        "test": {"cos_sim": {"pearson": 0.75, "spearman": 0.5}, "evaluation_time": 1.0},
    }
    (tmp_path / "STS12.json").write_text(json.dumps(document))
    said = {"metric": "cos_sim/spearman", "model_id": "m"}
    [run] = ingested(tmp_path / "STS12.json", tmp_path / "H", set=said).to_dict("records")
    assert (run[c.TASK_ID], run[c.VALUE], run[c.DIRECTION]) == ("STS12", 0.5, "max")
