"""The contract of readers, over every log format there is."""

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules

import pandas as pd
import pytest
from history.readers.frameworks import mlflow_stores, optuna_stores
from history.readers.frameworks.recorded import lay_out

from recsys_ms.history.readers import formats
from recsys_ms.history.readers.found_logs import LOG_FORMATS, log_format
from recsys_ms.history.readers.logged import LogFormat
from recsys_ms.testing import ReaderContract


def _mlflow(folder: Path) -> None:
    mlflow_stores.lay_out(*mlflow_stores.STORES[-1], folder)


def _optuna(folder: Path) -> None:
    optuna_stores.lay_out(optuna_stores.versions()[-1], folder)


def _keras(folder: Path) -> None:
    text = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.4,1.1\n1,0.7,0.8,0.6,0.9\n"
    (folder / "training.csv").write_text(text)


def _lightning(folder: Path) -> None:
    text = "epoch,step,train_loss,val_acc\n0,4,1.5,\n0,5,,0.5\n1,9,1.0,\n1,10,,0.75\n"
    (folder / "metrics.csv").write_text(text)
    (folder / "hparams.yaml").write_text("lr: 0.1\nmodel: linear\n")


def _timm(folder: Path) -> None:
    text = "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n0,2.0,1.9,40.0,80.0,0.1\n"
    (folder / "summary.csv").write_text(text)
    (folder / "args.yaml").write_text("model: resnet18\nlr: 0.1\nepochs: 1\n")


def _recorded(framework: str, name: str = ".") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as whole:
            lay_out(framework, Path(whole))
            shutil.copytree(Path(whole, name), folder, dirs_exist_ok=True)

    return write


def _model_card(folder: Path) -> None:
    result = "  - dataset: {type: birds}\n    metrics:\n    - {type: accuracy, value: 0.5}\n"
    text = f"---\nmodel-index:\n- name: a\n  results:\n{result}---\n# A model\n"
    (folder / "README.md").write_text(text)


def _steps(folder: Path) -> None:
    (folder / "log.csv").write_text("epoch,lr,accuracy\n1,0.1,0.5\n2,0.1,0.75\n")


def _hf_trainer(folder: Path) -> None:
    state = {
        "best_metric": 0.75,
        "best_model_checkpoint": "out/checkpoint-2",
        "epoch": 1.0,
        "global_step": 2,
        "max_steps": 2,
        "log_history": [
            {"loss": 0.9, "learning_rate": 0.1, "epoch": 0.5, "step": 1},
            {"eval_loss": 0.7, "eval_accuracy": 0.75, "epoch": 1.0, "step": 2},
        ],
    }
    (folder / "trainer_state.json").write_text(json.dumps(state))


def _wandb(folder: Path) -> None:
    frame = pd.DataFrame(
        {
            "summary": [
                {"val/acc": 0.9, "_step": 4, "_timestamp": 1700000000.25},
                {"val/acc": 0.5},
            ],
            "config": [{"lr": 0.1, "model": "resnet18"}, {"lr": 0.2, "model": "vit"}],
            "name": ["calm-sky-1", "wild-sea-2"],
        }
    )
    frame.to_csv(folder / "export.csv")


def _wandb_chart(folder: Path) -> None:
    curve = [f'"a - val/acc{end}","b - val/acc{end}"' for end in ("", "__MIN", "__MAX")]
    rows = ['"0",' + ",".join(['"0.5","0.4"'] * 3), '"1",' + ",".join(['"0.75",""'] * 3)]
    (folder / "chart.csv").write_text("\n".join(['"Step",' + ",".join(curve), *rows, ""]))


def _detectron2(folder: Path) -> None:
    rows = [{"iteration": 19, "total_loss": 2.5}, {"iteration": 39, "bbox/AP": 31.5}]
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text("SOLVER: {MAX_ITER: 40}\n")


def _tensorboard(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("val/accuracy", 0.5, 1)


def _epoch_lists(folder: Path) -> None:
    (folder / "history.json").write_text('{"loss": [1.5, 1.0], "val_loss": [1.25, 1.5]}')


WRITE = {
    "epoch-lists": _epoch_lists,
    "detectron2": _detectron2,
    "mmengine": _recorded("mmengine"),
    "ray": _recorded("ray"),
    "dvclive": _recorded("dvclive"),
    "keras-tuner": _recorded("keras_tuner"),
    "lm-eval": _recorded("lm_eval"),
    "mteb": _recorded("mteb"),
    "sentence-transformers": _recorded("sentence_transformers"),
    "autogluon": _recorded("autogluon"),
    "tensorboard": _tensorboard,
    "wandb-chart": _wandb_chart,
    "mlflow": _mlflow,
    "optuna": _optuna,
    "wandb": _wandb,
    "hf-trainer": _hf_trainer,
    "timm": _timm,
    "lightning": _lightning,
    "keras": _keras,
    "ultralytics": _recorded("ultralytics", "detect/train"),
    "fastai": _recorded("fastai", "."),
    "model-card": _model_card,
    "steps": _steps,
}


@pytest.mark.parametrize("name", LOG_FORMATS.own)
class TestReaders(ReaderContract):
    @pytest.fixture(autouse=True)
    def _chosen(self, name: str) -> None:
        self._name = name

    def reader(self) -> LogFormat:
        return log_format(self._name)

    def write_log(self, folder: Path) -> None:
        WRITE[self._name](folder)


def test_no_format_is_forgotten() -> None:
    found = {
        thing.name
        for module in iter_modules(formats.__path__)
        for thing in vars(import_module(f"{formats.__name__}.{module.name}")).values()
        if isinstance(thing, type) and issubclass(thing, LogFormat) and not isabstract(thing)
    }
    assert found == set(LOG_FORMATS.own) == set(WRITE)
