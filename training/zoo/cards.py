"""Cards of a study's models and tasks, for the catalog."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.core.types import FloatArray
from training.zoo.bench import Bench, dataset
from training.zoo.networks import family_of, measure
from training.zoo.study import Study
from training.zoo.tasks.base import ImageSet

#: Side of the grey images that the simple model of ``difficulty`` sees.
GREY_SIDE = 16


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


def model_cards(study: Study, bench: Bench) -> list[ModelCard]:
    """One card a model whose pre-training succeeded or is not needed."""
    cards = []
    for architecture in study.architectures:
        size = measure(architecture, study.image_size)
        family = family_of(architecture)
        for model in (m for m in study.models() if m.architecture == architecture):
            outcome = bench.outcome(model) or {}
            if model.source is not None and "accuracy" not in outcome:
                continue
            traits: dict[str, str | float] = {
                f"option_{name}": str(value) for name, value in architecture.options.items()
            }
            if model.source is not None:
                traits["pretraining_cpu_seconds"] = float(outcome["cpu_seconds"])
                traits["source_family"] = study.book.get(model.source).domain
            cards.append(
                ModelCard(
                    model_id=model.model_id,
                    architecture=architecture.name,
                    family=family,
                    n_parameters=size.n_parameters,
                    gmacs=size.gmacs,
                    macts=size.macts,
                    input_size=study.image_size,
                    hidden_width=size.hidden_width,
                    n_layers=size.n_layers,
                    pretrained_domain=model.source or "none",
                    n_source_classes=len(study.book.get(model.source).class_names)
                    if model.source
                    else None,
                    source_accuracy=outcome.get("accuracy"),
                    licence="Apache-2.0",
                    traits=traits,
                )
            )
    return cards


def task_cards(study: Study) -> list[TaskCard]:
    """One card a target task."""
    cards = []
    for task_id in study.targets:
        task = study.book.get(task_id)
        recipe = study.finetuning_of(task_id)
        train = dataset(task, "train", recipe.n_train, study.seed, study.image_size)
        test = dataset(task, "test", recipe.n_test, study.seed, study.image_size)
        cards.append(
            TaskCard(
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
        )
    return cards
