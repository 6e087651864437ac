"""How long a study takes: every architecture is timed for a moment, the rest is arithmetic."""

from dataclasses import dataclass

import torch
from torch import nn

from training.zoo.networks import Stopwatch, accuracy, build
from training.zoo.study import Architecture, Study, TrainingRecipe

_BATCH = 40
_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Size of a study.

    Attributes
    ----------
    n_pretrainings, n_finetunings : int
    seconds_per_image : dict of str to float
        CPU seconds to train on one image once, by architecture, on one core.
    cpu_seconds : float
        Of the whole study, without what is done already; images are drawn once and not counted.
    """

    n_pretrainings: int
    n_finetunings: int
    seconds_per_image: dict[str, float]
    cpu_seconds: float


def estimate(study: Study) -> Estimate:
    """Time each architecture on a few batches of noise and add up (about a second each)."""
    torch.set_num_threads(1)
    models, runs = study.models(), study.finetunings()
    times = {a.name: _seconds_per_image(a, study.image_size) for a in study.architectures}
    work = [(m.architecture.name, m.recipe) for m in models if m.recipe is not None]
    work += [(run.model.architecture.name, run.recipe) for run in runs]
    return Estimate(
        n_pretrainings=sum(m.recipe is not None for m in models),
        n_finetunings=len(runs),
        seconds_per_image={name: training for name, (training, _) in times.items()},
        cpu_seconds=sum(_seconds(recipe, *times[name]) for name, recipe in work),
    )


def _seconds(recipe: TrainingRecipe, training: float, testing: float) -> float:
    n_tests = sum(recipe.is_tested(epoch) for epoch in range(1, recipe.epochs + 1))
    return recipe.n_train * recipe.epochs * training + recipe.n_test * n_tests * testing


def _seconds_per_image(architecture: Architecture, size: int) -> tuple[float, float]:
    """CPU seconds per image of training (forward, backward, update) and of testing."""
    layout = torch.channels_last
    network = build(architecture, 10, 0).to(memory_format=layout)
    images = torch.zeros(_BATCH, 3, size, size).to(memory_format=layout)
    labels = torch.arange(_BATCH) % 10
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    training = Stopwatch()
    for step in range(_STEPS + 1):
        # The first step allocates and is left out.
        training = Stopwatch() if step == 1 else training
        torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
        optimizer.step()
        optimizer.zero_grad()
    trained = training.cpu_seconds
    testing = Stopwatch()
    for _ in range(_STEPS):
        accuracy(network, images, labels)
    return trained / (_STEPS * _BATCH), testing.cpu_seconds / (_STEPS * _BATCH)
