"""The callbacks in real trainings, each in a process of its own."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from child import loaded_by, script_command
from recorded_runs import only, tags

import recsys_ms.callbacks
from recsys_ms.core.errors import MissingExtraError
from recsys_ms.history.history import History

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass
class Trained:
    """What trainings of one process left."""

    folder: Path
    output: str
    errors: str

    def history(self, case: str) -> History:
        return History.open(self.folder / case, create=False)

    def best(self, case: str) -> float:
        (line,) = [each for each in self.output.splitlines() if each.startswith(f"best {case} ")]
        return float(line.split()[-1])


def train(folder: Path, framework: str, *cases: str, code: int = 0) -> Trained:
    module = {"hf_trainer": "transformers"}.get(framework, framework)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (extra test): nothing can be trained with it")
    histories = [History.open(folder / case) for case in cases]
    done = subprocess.run(
        script_command(HERE / f"train_{framework}.py", folder, *cases),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])},
        check=False,
    )
    assert done.returncode == code, done.stderr
    for history in histories:
        assert history.ingest_inbox().n_quarantined == 0
        assert list(history.inbox.iterdir()) == []
    return Trained(folder, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def hf_trainer(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    # The run whose crash was caught is open until the process ends, which no crash may end.
    cases = ("success", "twice", "with", "other-rank", "monitor", "caught")
    return train(tmp_path_factory.mktemp("hf"), "hf_trainer", *cases)


@pytest.fixture(scope="module")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    # The last one ends the process, whose handlers of SIGTERM the others have changed.
    cases = ("success", "monitor", "crash", "crash-with", "sigterm")
    return train(tmp_path_factory.mktemp("lightning"), "lightning", *cases, code=-signal.SIGTERM)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    cases = ("success", "with", "unvalidated", "monitor", "crash")
    return train(tmp_path_factory.mktemp("keras"), "keras", *cases, code=1)


def names(history: History) -> dict[tuple[str, str | None], int]:
    curves = history.curves()
    counts = curves.groupby(["metric", "split"], dropna=False).size()
    return {
        (metric, None if pd.isna(split) else split): int(n) for (metric, split), n in counts.items()
    }


def test_hf_trainer_success(hf_trainer: Trained) -> None:
    history = hf_trainer.history("success")
    row = only(history)
    assert (row["status"], row["split"], row["seed"]) == ("finished", "eval", 11)
    assert row["value"] == hf_trainer.best("success")
    settings = json.loads(row["hyperparameters"])
    assert settings["learning_rate"] == 0.25
    assert settings["num_train_epochs"] == 2
    assert settings["per_device_train_batch_size"] == 4
    found = names(history)
    # Two steps an epoch, two epochs; the evaluation after the training is none of the run's.
    assert found[("loss", "train")] == 4
    assert found[("accuracy", "eval")] == found[("loss", "eval")] == 2
    assert not any("per_second" in metric or "runtime" in metric for metric, _ in found)


def test_hf_trainer_trained_twice_is_two_runs(hf_trainer: Trained) -> None:
    assert hf_trainer.history("twice").runs()["status"].tolist() == ["finished", "finished"]


def test_hf_trainer_crash(tmp_path: Path) -> None:
    check_crash(train(tmp_path, "hf_trainer", "crash", code=1).history("crash"))


def test_hf_trainer_crash_in_a_with(hf_trainer: Trained) -> None:
    check_crash(hf_trainer.history("with"))


def check_crash(history: History) -> None:
    row = only(history)
    assert row["status"] == "failed"
    assert tags(row) == {"error": "CrashError", "error_message": "out of luck"}
    assert names(history)[("loss", "train")] >= 1


def test_hf_trainer_crash_that_somebody_caught(hf_trainer: Trained) -> None:
    runs = hf_trainer.history("caught").runs()
    assert runs["status"].tolist() == ["failed", "failed"]
    assert {tags(run)["error"] for _, run in runs.iterrows()} == {
        "interrupted",
        "the process ended",
    }


def test_hf_trainer_records_in_the_first_process_alone(hf_trainer: Trained) -> None:
    assert len(hf_trainer.history("other-rank").runs()) == 0


def test_hf_trainer_monitor_that_is_never_logged(hf_trainer: Trained) -> None:
    assert "pass monitor, one of" in hf_trainer.errors
    assert "eval_accuracy" in hf_trainer.errors
    assert tags(only(hf_trainer.history("monitor"))) == {"error": "no value logged"}


def test_lightning_success(lightning: Trained) -> None:
    history = lightning.history("success")
    row = only(history)
    assert (row["status"], row["split"], row["epoch"]) == ("finished", "val", 1.0)
    assert row["value"] == pytest.approx(0.6)
    settings = json.loads(row["hyperparameters"])
    assert settings["lr"] == 0.25
    assert settings["nested"] == {"depth": 2}
    assert "ReLU" in settings["layer"]
    assert names(history) == {("acc", "val"): 2, ("loss", "val"): 2, ("loss", "train"): 2}


@pytest.mark.parametrize("case", ["crash", "crash-with"])
def test_lightning_crash(lightning: Trained, case: str) -> None:
    row = only(lightning.history(case))
    assert (row["status"], row["value"]) == ("failed", 0.5)
    assert tags(row) == {"error": "CrashError", "error_message": "out of luck"}


def test_lightning_sigterm(lightning: Trained) -> None:
    row = only(lightning.history("sigterm"))
    assert (row["status"], row["value"]) == ("failed", 0.5)
    assert tags(row)["error"] == "SIGTERM"


def test_lightning_monitor(lightning: Trained) -> None:
    history = lightning.history("monitor")
    # What is monitored is the run's metric, whatever the module calls it.
    assert only(history)["status"] == "finished"
    assert len(history.curves(metric="loss", split="val")) == 0
    assert names(history)[("acc", "val")] == 2


def test_keras_success(keras: Trained) -> None:
    history = keras.history("success")
    row = only(history)
    assert (row["status"], row["split"]) == ("finished", "val")
    assert row["value"] == keras.best("success")
    assert json.loads(row["hyperparameters"]) == {"learning_rate": 0.25, "optimizer": "SGD"}
    assert names(history) == {
        (metric, split): 2 for metric in ("accuracy", "loss") for split in ("train", "val")
    }


def test_keras_crash(keras: Trained) -> None:
    check_crash(keras.history("crash"))


def test_keras_crash_in_a_with(keras: Trained) -> None:
    check_crash(keras.history("with"))


def test_keras_takes_no_training_value_unless_told_to(keras: Trained) -> None:
    assert "pass monitor, one of accuracy, loss" in keras.errors
    assert tags(only(keras.history("unvalidated"))) == {"error": "no value logged"}


def test_keras_monitor(keras: Trained) -> None:
    row = only(keras.history("monitor"))
    assert (row["status"], row["split"]) == ("finished", "train")
    assert row["value"] == keras.best("monitor")


def test_no_framework_is_imported_with_the_package() -> None:
    code = """
        import recsys_ms, recsys_ms.callbacks
        assert "HfTrainerCallback" in dir(recsys_ms.callbacks)
    """
    heavy = ("transformers", "lightning", "keras", "torch", "pandas")
    assert loaded_by(code, *heavy) == set()


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("HfTrainerCallback", "transformers"),
        ("LightningCallback", "lightning"),
        ("KerasCallback", "keras"),
    ],
)
def test_a_framework_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.delitem(recsys_ms.callbacks.__dict__, name, raising=False)
    own = {"transformers": "hf_trainer"}.get(module, module)
    monkeypatch.delitem(sys.modules, f"recsys_ms.callbacks.{own}", raising=False)
    for each in (module, f"{module}.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, each, None)
    with pytest.raises(MissingExtraError, match=f"pip install {module}"):
        getattr(recsys_ms.callbacks, name)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="TorchCallback"):
        recsys_ms.callbacks.TorchCallback  # noqa: B018
