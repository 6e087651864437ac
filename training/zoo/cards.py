"""Cards of a study's models and tasks, for the catalog."""

import logging
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from recsys_ms.architectures.archi2vec import Archi2Vec
from recsys_ms.architectures.facts import architecture_card
from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.core.types import FloatArray
from training.zoo.bench import TRAINING_ERRORS, Bench, dataset
from training.zoo.networks import build, family_of, measure
from training.zoo.study import Architecture, Study
from training.zoo.tasks.base import ImageSet
from training.zoo.vectors import TaskVectors

_LOG = logging.getLogger(__name__)

#: Side of the grey images that the simple model of ``difficulty`` sees.
GREY_SIDE = 16
_TIMM_CLASSES: Final = 1000


def grey_pixels(data: ImageSet) -> FloatArray:
    """Images as grey vectors of 16 x 16 pixels in [0, 1], shape (n_samples, 256).

    The side of the images must be a multiple of 16.
    """
    n, side = data.images.shape[:2]
    block = side // GREY_SIDE
    grey = data.images.mean(axis=3) / 255.0
    blocks = grey.reshape(n, GREY_SIDE, block, GREY_SIDE, block)
    pixels: FloatArray = blocks.mean(axis=(2, 4)).reshape(n, -1)
    return pixels


def simple_accuracy(train: ImageSet, test: ImageSet) -> float:
    """Test accuracy of a multinomial logistic regression (L2, C = 1) on :func:`grey_pixels`."""
    learner = LogisticRegression(C=1.0, max_iter=2000)
    learner.fit(grey_pixels(train), train.labels)
    return float(np.mean(learner.predict(grey_pixels(test)) == test.labels))


def model_cards(study: Study, bench: Bench, vectors: TaskVectors) -> list[ModelCard]:
    """One card a model whose pre-training succeeded or is not needed.

    An architecture that cannot be built has no card: its runs are failed runs.
    """
    cards = []
    embedder = Archi2Vec.embedded()
    read = {source: vectors.names(study.book.get(source).class_names) for source in study.sources}
    for architecture in study.architectures:
        try:
            shared = _shared(architecture, study.image_size, embedder)
        except TRAINING_ERRORS as error:
            _LOG.warning("%s: no cards of its models, %s", architecture.name, error)
            continue
        for model in (m for m in study.models() if m.architecture == architecture):
            outcome = bench.outcome(model) or {}
            if model.source is None:
                cards.append(replace(shared, model_id=model.model_id, pretrained_domain="none"))
            elif "accuracy" in outcome:
                source = study.book.get(model.source)
                own: dict[str, str | float] = {
                    "pretraining_cpu_seconds": float(outcome["cpu_seconds"]),
                    "source_family": source.domain,
                }
                cards.append(
                    replace(
                        shared,
                        model_id=model.model_id,
                        pretrained_domain=model.source,
                        n_source_classes=len(source.class_names),
                        source_accuracy=outcome["accuracy"],
                        source_label_embedding=read[model.source],
                        traits={**shared.traits, **own},
                    )
                )
    return cards


def _shared(architecture: Architecture, image_size: int, embedder: Archi2Vec) -> ModelCard:
    """What is the same for all weights of an architecture, under the name of the architecture."""
    size = measure(architecture, image_size)
    # With a classifier like timm's, since the embedded vectors are of architectures with theirs.
    traced = architecture_card(
        architecture.name,
        build(architecture, _TIMM_CLASSES, 0),
        torch.zeros(1, 3, image_size, image_size),
        embedder,
    )
    return ModelCard(
        model_id=architecture.name,
        architecture=architecture.name,
        family=family_of(architecture),
        n_parameters=size.n_parameters,
        gmacs=size.gmacs,
        macts=size.macts,
        input_size=image_size,
        hidden_width=size.hidden_width,
        n_layers=size.n_layers,
        licence="Apache-2.0",
        embedding=traced.embedding,
        cluster=traced.cluster,
        traits={f"option_{name}": str(value) for name, value in architecture.options.items()},
    )


def task_cards(study: Study, vectors: TaskVectors) -> list[TaskCard]:
    """One card a target task."""
    cards = []
    for task_id in study.targets:
        task = study.book.get(task_id)
        recipe = study.finetuning_of(task_id)
        train = dataset(task, "train", recipe.n_train, study.seed, study.image_size)
        test = dataset(task, "test", recipe.n_test, study.seed, study.image_size)
        card = TaskCard(
            task_id=task_id,
            domain=task.domain,
            n_samples=recipe.n_train,
            n_classes=len(task.class_names),
            image_size=study.image_size,
            n_channels=3,
            difficulty=simple_accuracy(train, test),
            class_names=task.class_names,
            metric="accuracy",
            direction="max",
            traits={"description": task.description},
        )
        cards.append(vectors.on(card, study))
    return cards
