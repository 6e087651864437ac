"""The bench: carries out one pre-training or one fine-tuning, and keeps or records its result."""

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from recsys_ms.core.errors import DataError, RecsysError, StorageError
from recsys_ms.core.files import sha256_file, write_atomic
from recsys_ms.history.inbox.inbox import CurvePoint, record_run
from training.zoo.networks import Stopwatch, accuracy, build, to_tensors, train, with_new_head
from training.zoo.study import FineTuning, Model
from training.zoo.tasks.base import ImageSet, ImageTask, Split
from training.zoo.tasks.registry import TaskBook

_LOG = logging.getLogger(__name__)

#: What a training may die of and still be a result worth recording. A full disk is not among them.
TRAINING_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecsysError,
    RuntimeError,
    TypeError,
    ValueError,
)


class PretrainingFailedError(RecsysError, RuntimeError):
    """The model has no weights, since its pre-training failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where work is done.

    Attributes
    ----------
    history : Path
        Folder of the history that runs are recorded in.
    work : Path
        Folder of the checkpoints. May be deleted; they are then made again.
    device : str
        ``cpu`` or ``cuda``.
    scores : str
        Folder of the scores within ``work``.
    book : TaskBook
        The tasks by their ids.
    """

    history: Path
    work: Path
    device: str = "cpu"
    scores: str = "scores"
    book: TaskBook = field(default_factory=TaskBook)

    def weights_path(self, model: Model) -> Path:
        """Safetensors file of a pre-trained model."""
        return self.work / "checkpoints" / f"{model.model_id}-{model.digest}.safetensors"

    def outcome_path(self, model: Model) -> Path:
        """JSON file that says how the pre-training went; written after the weights."""
        return self.weights_path(model).with_suffix(".json")

    def outcome(self, model: Model) -> dict[str, Any] | None:
        """How the pre-training of ``model`` went, or None if it has not been done."""
        path = self.outcome_path(model)
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def pretrain(self, model: Model) -> None:
        """Train ``model`` on its source from scratch and keep weights and accuracy.

        A failure is kept as well: its fine-tunings are then recorded as failed.
        """
        if model.recipe is None or model.source is None:
            return
        self.weights_path(model).parent.mkdir(parents=True, exist_ok=True)
        watch, started = Stopwatch(), datetime.now(UTC)
        result: dict[str, Any] = {"model": asdict(model), "started_at": started.isoformat()}
        try:
            network, result["accuracy"] = self._trained_on_source(model)
        except TRAINING_ERRORS as error:
            _LOG.warning("pre-training of %s failed: %s", model.model_id, error)
            result["error"] = f"{type(error).__name__}: {error}"
        else:
            weights = {name: t.contiguous().cpu() for name, t in network.state_dict().items()}
            write_atomic(self.weights_path(model), save_safetensors(weights))
            result["sha256"] = sha256_file(self.weights_path(model))
        result["cpu_seconds"] = round(watch.cpu_seconds, 3)
        result["wall_seconds"] = round(watch.wall_seconds, 3)
        write_atomic(self.outcome_path(model), json.dumps(result, indent=1).encode())

    def _trained_on_source(self, model: Model) -> tuple[nn.Module, float]:
        recipe, source = model.recipe, model.source
        if recipe is None or source is None:
            raise DataError(f"{model.model_id} starts at random and has no source to train on")
        data = {
            split: self.images(source, split, n, model)
            for split, n in (("train", recipe.n_train), ("test", recipe.n_test))
        }
        network = build(model.architecture, len(data["train"].class_names), model.seed)
        network.to(self.device)
        train(network, *to_tensors(data["train"], torch.device(self.device)), recipe, model.seed)
        return network, accuracy(network, *to_tensors(data["test"], torch.device(self.device)))

    def finetune(self, run: FineTuning) -> str:
        """Carry out ``run`` and record it, whatever becomes of it; returns its status.

        Raises
        ------
        StorageError
            The run cannot be put in the inbox.
        """
        watch, started = Stopwatch(), datetime.now(UTC)
        tags = {
            "device": self.device,
            "machine": _machine(),
            "torch": str(torch.__version__),
            "timm": str(timm.__version__),
        }
        value = fingerprint = revision = None
        curve: list[CurvePoint] = []
        try:
            sets = self._data(run)
            # Drawing the images is paid once a process and belongs to no run.
            watch = Stopwatch()
            fingerprint = sets["train"].fingerprint[:16] + sets["test"].fingerprint[:16]
            network, revision = self._start(run, len(sets["train"].class_names))
            value = self._train(network, sets, run, curve)
        except TRAINING_ERRORS as error:
            _LOG.warning("%s on %s failed: %s", run.model.model_id, run.task_id, error)
            tags["error"] = f"{type(error).__name__}: {error}"[:500]
        tags["cpu_seconds"] = f"{watch.cpu_seconds:.3f}"
        tags["wall_seconds"] = f"{watch.wall_seconds:.3f}"
        record_run(
            self.history,
            run_id=run.run_id,
            model_id=run.model.model_id,
            model_revision=revision,
            task_id=run.task_id,
            metric="accuracy",
            direction="max",
            value=value,
            value_kind="last",
            status="failed" if value is None else "finished",
            split="test",
            epoch=float(run.recipe.epochs),
            seed=run.seed,
            hyperparameters=_hyperparameters(run),
            # CPU seconds are not GPU seconds: without a GPU only the tags have them.
            cost_gpu_seconds=watch.wall_seconds if self.device == "cuda" else None,
            started_at=started,
            finished_at=datetime.now(UTC),
            dataset_fingerprint=fingerprint,
            source=run.study,
            tags=tags,
            curve=curve,
            on_error="raise",
        )
        return "failed" if value is None else "finished"

    def images(self, task_id: str, split: Split, n_samples: int, model: Model) -> ImageSet:
        """Images of a task as a model sees them; ``model.seed`` is that of all data."""
        return dataset(self.book.get(task_id), split, n_samples, model.seed, model.image_size)

    def _data(self, run: FineTuning) -> dict[Split, ImageSet]:
        model = replace(run.model, seed=run.data_seed)
        return {
            "train": self.images(run.task_id, "train", run.recipe.n_train, model),
            "test": self.images(run.task_id, "test", run.recipe.n_test, model),
        }

    def _train(
        self,
        network: nn.Module,
        sets: dict[Split, ImageSet],
        run: FineTuning,
        curve: list[CurvePoint],
    ) -> float:
        """Train and test; returns the last test accuracy and appends all values to ``curve``."""
        device = torch.device(self.device)
        tested = to_tensors(sets["test"], device)
        n_steps = run.recipe.n_train // run.recipe.batch_size

        def look(epoch: int, loss: float) -> None:
            curve.append((epoch * n_steps, float(epoch), "loss", "train", loss))
            if run.recipe.is_tested(epoch):
                value = accuracy(network, *tested)
                curve.append((epoch * n_steps, float(epoch), "accuracy", "test", value))

        train(network, *to_tensors(sets["train"], device), run.recipe, run.seed, look)
        return curve[-1][-1]

    def _start(self, run: FineTuning, n_classes: int) -> tuple[nn.Module, str]:
        """Network with the weights of the run's model and a new head, and the weights' name."""
        network, revision = self.network(run.model)
        return with_new_head(network, n_classes, run.seed, run.task_id).to(self.device), revision

    def network(self, model: Model) -> tuple[nn.Module, str]:
        """The network of a model, with its head (of two classes at a random start), and its name.

        Raises
        ------
        PretrainingFailedError
            It has no weights.
        """
        if model.source is None:
            return build(model.architecture, 2, model.seed), f"random-{model.digest}"
        outcome = self.outcome(model)
        if outcome is None or "error" in outcome:
            why = "not done yet" if outcome is None else outcome["error"]
            raise PretrainingFailedError(f"{model.model_id}: {why}")
        network = build(model.architecture, len(self.book.get(model.source).class_names), 0)
        network.load_state_dict(load_safetensors(self._weights(model, outcome["sha256"])))
        return network, str(outcome["sha256"])[:16]

    def _weights(self, model: Model, sha256: str) -> bytes:
        path = self.weights_path(model)
        try:
            if sha256_file(path) != sha256:
                raise DataError(f"{path}: altered since it was written; delete it and its .json")
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=64)
def dataset(task: ImageTask, split: Split, n_samples: int, seed: int, size: int) -> ImageSet:
    """Images of a task; drawn once a process, shared by all runs, never written to."""
    data = task.sample(split, n_samples, seed=seed, size=size)
    data.images.setflags(write=False)
    data.labels.setflags(write=False)
    return data


def _hyperparameters(run: FineTuning) -> dict[str, Any]:
    return {
        "lr": run.recipe.learning_rate,
        "epochs": run.recipe.epochs,
        "batch_size": run.recipe.batch_size,
        "weight_decay": run.recipe.weight_decay,
        "optimizer": "adamw",
        "schedule": "one-cycle",
        "n_train": run.recipe.n_train,
    }


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"
