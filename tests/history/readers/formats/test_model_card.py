"""Model cards alone: results of the model-index as runs."""

from pathlib import Path

import pytest
from history.readers.frameworks.reading import read_log_of, series_of

from recsys_ms.history.history import History
from recsys_ms.history.readers.formats.model_card import ModelCard
from recsys_ms.history.readers.found_logs import find_logs
from recsys_ms.history.readers.logged import BadLog, Candidate, LoggedRun
from recsys_ms.history.readers.logs import read_log
from recsys_ms.history.readers.mapping import FieldMapping

FORMAT = ModelCard()
#: As ``Trainer.create_model_card`` writes it.
CARD = """---
license: apache-2.0
datasets:
- org/birds
model-index:
- name: Tiny Birds
  results:
  - task:
      name: Speech Recognition
      type: automatic-speech-recognition
    dataset:
      name: Birds
      type: org/birds
      config: 'no'
      split: validation
      args: 'no'
    metrics:
    - name: Wer
      type: wer
      value: 24.878197320341048
---

# Tiny Birds

This model is a fine-tuned version of [openai/tiny](https://huggingface.co/openai/tiny) on Birds.

The following hyperparameters were used during training:
- learning_rate: 3e-06
- seed: 42

- Transformers 4.26.0
"""
RESULT = """  - dataset:
      type: {data}
      name: {data}
    metrics:
    - type: accuracy
      value: {value}
"""


def card(folder: Path, text: str, name: str = "README.md") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def read(path: Path) -> tuple[list[LoggedRun], list[BadLog]]:
    assert FORMAT.place_of(Candidate(path)) == path
    return read_log_of(FORMAT, path)


def index(*results: str, front: str = "") -> str:
    return f"---\n{front}model-index:\n- name: named\n  results:\n{''.join(results)}---\n"


def test_a_card_is_a_run(tmp_path: Path) -> None:
    path = card(tmp_path / "model", CARD)
    history = History.open(tmp_path / "h")
    assert history.ingest(read_log(path.parent, FieldMapping(set={"direction": "min"}))).n_new == 1
    [row] = history.runs().to_dict("records")
    assert (row["model_id"], row["task_id"]) == ("openai/tiny", "org/birds/no")
    assert (row["metric"], row["value"], row["split"]) == ("wer", 24.878197320341048, "validation")
    assert (row["seed"], row["source_version"]) == (42, "transformers 4.26.0")
    assert '"learning_rate"' in row["hyperparameters"]
    assert history.ingest(read_log(path, FieldMapping(set={"direction": "min"}))).n_duplicate == 1


def test_results_of_a_leaderboard_are_those_of_the_card_s_own_model(tmp_path: Path) -> None:
    # Nobody fine-tuned the base model on a benchmark.
    text = index(
        RESULT.format(data="org/birds", value=0.5),
        RESULT.format(data="bench/mmlu", value=0.4),
        front="base_model: org/base\ndatasets: [org/birds]\n",
    )
    runs, bad = read(card(tmp_path, text))
    assert bad == []
    told = [(run.fields["model_id"], run.fields["task_id"]) for run in runs]
    assert told == [("org/base", "org/birds"), ("named", "bench/mmlu")]
    assert [run.chosen for run in runs] == ["accuracy", "accuracy"]
    assert len({run.identity for run in runs}) == 2


def test_several_metrics_are_asked_about(tmp_path: Path) -> None:
    more = (
        "    - type: f1\n      value: 0.25\n    - type: f1\n      name: other\n      value: 0.75\n"
    )
    path = card(tmp_path, index(RESULT.format(data="d", value=0.5) + more))
    [run], _ = read(path)
    assert run.chosen is None
    assert {name: each.values for name, each in series_of(run).items()} == {
        "accuracy": [0.5],
        "f1": [0.25],
        "other": [0.75],
    }
    said = {"metric": "accuracy", "direction": "max"}
    [batch] = list(read_log(path, FieldMapping(set=said)))
    assert batch.runs["value"].to_pylist() == [0.5]


def test_metrics_of_one_data_set_in_several_results_are_one_run(tmp_path: Path) -> None:
    text = RESULT.format(data="d", value=0.5)
    [run], _ = read(card(tmp_path, index(text, text.replace("accuracy", "f1"))))
    assert {each.name for each in run.series} == {"accuracy", "f1"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0.913", (0.913, False)),
        ("'0.913'", (0.913, False)),
        ("91.3", (91.3, False)),
        ("'91.3%'", (91.3, True)),
        ("1e-3", (0.001, False)),
        ("0.913 ± 0.004", None),
        ("0,913", None),
        ("true", None),
        ("{a: 1}", None),
    ],
)
def test_only_a_number_is_a_value(
    tmp_path: Path, value: str, found: tuple[float, bool] | None
) -> None:
    runs, bad = read(card(tmp_path, index(RESULT.format(data="d", value=value))))
    assert len(runs) + len(bad) == 1
    if found is None:
        assert bad[0].reason.startswith("accuracy: got ")
    else:
        [each] = runs[0].series
        assert (each.values[0], each.percent) == found


@pytest.mark.parametrize(
    "text",
    [
        "---\nmodel-index: 5\n---\n",
        "---\nmodel-index:\n- name: a\n---\n",
        "---\nmodel-index: [\n---\n",
    ],
)
def test_a_damaged_index_goes_to_quarantine(tmp_path: Path, text: str) -> None:
    runs, bad = read(card(tmp_path, f"---\n{text}---\n"))
    assert (runs, len(bad)) == ([], 1)


def test_other_texts_are_not_claimed(tmp_path: Path) -> None:
    for text in (
        "# model-index: no\n",
        "---\nlicense: mit\n---\nmodel-index:\n"[:20],
        "a\n" + CARD,
    ):
        assert FORMAT.place_of(Candidate(card(tmp_path, text))) is None


def test_the_card_of_a_run_folder_is_read_with_it(tmp_path: Path) -> None:
    path = card(tmp_path, CARD)
    (tmp_path / "all_results.json").write_text('{"eval_loss": 0.5, "train_runtime": 1.0}')
    assert FORMAT.place_of(Candidate(path)) is None
    assert [log.format_name for log in find_logs(tmp_path).logs] == ["hf-trainer"]
    [batch] = list(read_log(tmp_path, FieldMapping(set={"metric": "loss", "direction": "min"})))
    [row] = batch.runs.to_pylist()
    assert (row["model_id"], row["task_id"]) == ("openai/tiny", "org/birds/no")


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ("{type: imagefolder, name: imagefolder, config: default, args: default}", None),
        ("{type: imagefolder, name: Birds, config: default}", "Birds"),
        ("{type: org/birds, name: Birds, config: default, args: {split: test}}", "org/birds"),
        ("{type: glue, name: GLUE, config: mrpc}", "glue/mrpc"),
        ("{type: csv}", None),
        ("null", None),
    ],
)
def test_a_loader_is_no_name_of_data(tmp_path: Path, data: str, task: str | None) -> None:
    metric = "    metrics:\n    - {type: accuracy, value: 0.5}\n"
    [run], _ = read(card(tmp_path, index(f"  - dataset: {data}\n{metric}")))
    assert run.fields.get("task_id") == task


def test_metrics_of_one_type_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    # As AutoTrain and many people write ROUGE.
    label = "    - type: rouge\n      name: {}\n      value: {}\n"
    more = "".join(label.format(*each) for each in (("ROUGE-1", 40.5), ("ROUGE-L", 30.25)))
    path = card(tmp_path, index(RESULT.format(data="d", value=0.5) + more))
    said = {"metric": "ROUGE-L", "direction": "max"}
    [batch] = list(read_log(path, FieldMapping(set=said)))
    assert batch.runs["value"].to_pylist() == [30.25]


def test_a_spread_in_a_card_is_read_with_its_option(tmp_path: Path) -> None:
    # As in every card of Stable-Baselines3.
    path = card(tmp_path, index(RESULT.format(data="d", value="252.87 +/- 22.49")))
    _, [bad] = read(path)
    assert "--ignore-spread" in bad.reason
    said = {"metric": "accuracy", "direction": "max"}
    [batch] = list(read_log(path, FieldMapping(set=said, ignore_spread=True, unit="percent")))
    assert batch.rejects[0].reason.startswith("value: accuracy 252.87 %")
