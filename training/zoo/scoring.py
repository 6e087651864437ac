"""Transferability scores of every model on every target: one JSON file a pair, made once."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from recsys_ms.core.errors import UsageError
from recsys_ms.core.files import write_atomic
from recsys_ms.core.lock import file_lock
from recsys_ms.core.progress import NO_PROGRESS, Progress
from recsys_ms.core.types import FloatArray
from recsys_ms.scores.label_embeddings import Float32Array, LabelEmbedding
from recsys_ms.scores.methods import METHODS
from recsys_ms.scores.score_all import ScoreReport, score_all
from training.zoo.bench import TRAINING_ERRORS, Bench
from training.zoo.encoders import class_vectors, encoders_at_hand
from training.zoo.networks import Stopwatch, to_tensors
from training.zoo.runner import workers
from training.zoo.study import Model, Study

_LOG = logging.getLogger(__name__)

_BATCH: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """What is scored: a model on a task.

    Attributes
    ----------
    model : Model
    task_id : str
    n_probe : int
        Training images of the task that are looked at.
    seed : int
        Of N-LEEP's mixture.
    vectors : tuple of (str, ndarray of shape (n_classes, width))
        Names of encoders, and what they make of the class names.
    key : str
        Digest of all that decides the scores.
    """

    model: Model
    task_id: str
    n_probe: int
    seed: int
    vectors: tuple[tuple[str, Float32Array], ...]
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringReport:
    """What a call of :func:`score_study` did.

    Attributes
    ----------
    n_scored, n_refused : int
        Pairs of this call with scores, and without, such as those of a failed pre-training.
    n_already : int
        Pairs whose files were there.
    n_waiting : int
        Pairs of models that are not pre-trained yet.
    encoders : tuple of str
        Names of the text encoders that EMMS was computed with.
    """

    n_scored: int
    n_refused: int
    n_already: int
    n_waiting: int
    encoders: tuple[str, ...]


def score_path(bench: Bench, model: Model, task_id: str) -> Path:
    """JSON file of the scores of a model on a task."""
    return bench.work / bench.scores / task_id / f"{model.model_id}-{model.digest}.json"


def read_scores(bench: Bench, model: Model, task_id: str) -> dict[str, Any] | None:
    """What :func:`score_pair` wrote, or None if it has not been done."""
    path = score_path(bench, model, task_id)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def score_study(
    study: Study, bench: Bench, *, n_jobs: int = 1, progress: Progress = NO_PROGRESS
) -> ScoringReport:
    """Score every pair of a model that has its weights and a target, unless that is done.

    Needs only the checkpoints and writes its own files, so it may run beside
    :func:`training.zoo.runner.run_study`; models that are not pre-trained yet are left for the
    next call. Pairs that were scored with other encoders, weights or images are scored again.

    Parameters
    ----------
    study : Study
    bench : Bench
        Its history is not looked at.
    n_jobs : int
        Processes, one torch thread each.
    progress : Progress
        Advances with every pair.

    Raises
    ------
    UsageError
        The study has no probe sets.
    LockedError
        Another process scores in this work folder.
    StorageError
        A file cannot be written; call again once it can.
    """
    if study.n_probe < 1:
        raise UsageError(f"study {study.name!r}: n_probe is {study.n_probe}; scores need images")
    with file_lock(bench.work / bench.scores / "scores.lock"):
        outcomes = {model.model_id: bench.outcome(model) for model in study.models()}
        at_hand = [m for m in study.models() if m.source is None or outcomes[m.model_id]]
        names, pairs = _pairs(study, bench, at_hand)
        todo = [pair for pair in pairs if not _is_done(bench, pair)]
        results: Counter[bool] = Counter()
        with workers(n_jobs) as submit:
            for scored in progress.track(
                submit(partial(score_pair, bench), todo), total=len(todo), description="scoring"
            ):
                results[scored] += 1
    return ScoringReport(
        n_scored=results[True],
        n_refused=results[False],
        n_already=len(pairs) - len(todo),
        n_waiting=(len(study.models()) - len(at_hand)) * len(study.targets),
        encoders=names,
    )


def score_pair(bench: Bench, pair: Pair) -> bool:
    """Score one pair and keep the result, whatever becomes of it; returns whether it has scores.

    Labels are of training images alone. What stops all scores stands under ``error``.
    """
    found: dict[str, Any] = {
        "task_id": pair.task_id,
        "model_id": pair.model.model_id,
        "key": pair.key,
        "encoders": [name for name, _ in pair.vectors],
    }
    try:
        found |= _scored(bench, pair)
    except TRAINING_ERRORS as error:
        _LOG.warning("%s on %s: not scored, %s", pair.model.model_id, pair.task_id, error)
        found["error"] = f"{type(error).__name__}: {error}"[:500]
    path = score_path(bench, pair.model, pair.task_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(found, indent=1, allow_nan=False).encode())
    return "error" not in found


def probed(
    network: nn.Module, images: torch.Tensor, *, has_head: bool
) -> tuple[FloatArray, FloatArray | None]:
    """What a network makes of standardised images, in evaluation mode and without gradients.

    Returns
    -------
    features : ndarray of shape (n_images, n_features)
        What the head sees.
    source_probs : ndarray of shape (n_images, n_source_classes), or None
        Softmax of the head; ``None`` unless ``has_head``.
    """
    network.to(memory_format=torch.channels_last)
    network.eval()
    model, features, probs = cast(Any, network), [], []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            maps = model.forward_features(images[start : start + _BATCH])
            features.append(model.forward_head(maps, pre_logits=True).flatten(1).cpu().numpy())
            if has_head:
                probs.append(model.forward_head(maps).double().softmax(1).cpu().numpy())
    return np.concatenate(features), np.concatenate(probs) if probs else None


def _pairs(study: Study, bench: Bench, models: list[Model]) -> tuple[tuple[str, ...], list[Pair]]:
    """Names of the encoders, and pairs, model by model."""
    encoders = encoders_at_hand(study)
    tasks = {task_id: study.book.get(task_id) for task_id in study.targets}
    # Once here: an encoder takes longer to load than a pair takes.
    vectors = {
        task_id: tuple((each.name, class_vectors(each, task.class_names)) for each in encoders)
        for task_id, task in tasks.items()
    }
    sizes = {
        task_id: study.book.at_most(task_id, "train", study.n_probe, seed=study.seed)
        for task_id in tasks
    }
    prints = [each.fingerprint for each in encoders]
    pairs = [
        Pair(
            model=model,
            task_id=task_id,
            n_probe=sizes[task_id],
            seed=study.seed,
            vectors=vectors[task_id],
            key=_key(_revision(bench, model), sizes[task_id], prints),
        )
        for model in models
        for task_id in study.targets
    ]
    return tuple(each.name for each in encoders), pairs


def _revision(bench: Bench, model: Model) -> str:
    outcome = bench.outcome(model) or {}
    return str(outcome.get("sha256") or outcome.get("error") or f"random-{model.digest}")


def _key(revision: str, n_probe: int, prints: list[str]) -> str:
    parts = [revision, n_probe, sorted(prints), list(METHODS)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _is_done(bench: Bench, pair: Pair) -> bool:
    found = read_scores(bench, pair.model, pair.task_id)
    if found is None or found["key"] != pair.key:
        return False
    # What failed for another reason than the weights may have been put right.
    return "error" not in found or "error" in (bench.outcome(pair.model) or {})


def _scored(bench: Bench, pair: Pair) -> dict[str, Any]:
    network, revision = bench.network(pair.model)
    data = bench.images(pair.task_id, "train", pair.n_probe, pair.model)
    images, _ = to_tensors(data, torch.device(bench.device))
    watch = Stopwatch()
    features, probs = probed(
        network.to(bench.device), images, has_head=pair.model.source is not None
    )
    seconds_features = watch.wall_seconds
    embeddings = [LabelEmbedding(name, matrix, data.labels) for name, matrix in pair.vectors]
    report = score_all(features, data.labels, probs, embeddings or None, rng=pair.seed)
    return {
        "model_revision": revision,
        "dataset_fingerprint": data.fingerprint[:32],
        "n_probe": report.n_probe,
        "n_features": report.n_features,
        "n_classes": report.n_classes,
        "rank": report.rank,
        "dead_fraction": _number(report.dead_fraction),
        "flags": list(report.flags),
        "seconds_features": round(seconds_features, 6),
        "seconds_shared": round(report.seconds_shared, 6),
        "scores": dict(_scores(report)),
    }


def _scores(report: ScoreReport) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, score in report.scores.items():
        yield (
            name,
            {
                "value": _number(score.value),
                "status": score.status,
                "reason": score.reason,
                "seconds": round(score.seconds, 6),
            },
        )


def _number(value: float) -> float | None:
    """A number as JSON has it: nothing in the place of NaN."""
    return float(value) if np.isfinite(value) else None
