"""Networks: built by timm from a seed, measured, trained and tested. Nothing here touches disk."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from recsys_ms.core.rng import named_stream, seed_from
from training.zoo.study import Architecture, TrainingRecipe
from training.zoo.tasks.base import ImageSet

#: Pixel mean and spread that images are standardised with, the same for every model and task.
PIXEL_MEAN = 0.5
PIXEL_SPREAD = 0.25


#: Called with the number of an epoch, from 1, and its mean loss.
AfterEpoch: TypeAlias = Callable[[int, float], None]


class DivergedError(ArithmeticError):
    """The training loss became infinite or NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Size of an architecture at one input size.

    Attributes
    ----------
    n_parameters : int
        Without the classifier.
    gmacs : float
        10^9 multiply-adds for one image: half of torch's count of floating point operations in
        convolutions, matrix products and attention.
    macts : float
        10^6 outputs of convolution and linear layers for one image.
    hidden_width : int
        Channels that the classifier sees.
    n_layers : int
        Convolution and linear layers.
    """

    n_parameters: int
    gmacs: float
    macts: float
    hidden_width: int
    n_layers: int


@contextmanager
def seeded(seed: int, *names: str) -> Iterator[None]:
    """Run torch's initialisers on a stream of their own, and leave its global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(named_stream(seed, *names)))
        yield


def build(architecture: Architecture, n_classes: int, seed: int) -> nn.Module:
    """Make an untrained network; the same seed gives the same weights."""
    with seeded(seed, "zoo", "weights", architecture.name):
        network: nn.Module = timm.create_model(
            architecture.name, pretrained=False, num_classes=n_classes, **architecture.options
        )
    return network


def with_new_head(network: nn.Module, n_classes: int, seed: int, task_id: str) -> nn.Module:
    """Replace the classifier by a new, random one for ``n_classes``."""
    with seeded(seed, "zoo", "head", task_id):
        cast(Any, network).reset_classifier(n_classes)
    return network


def family_of(architecture: Architecture) -> str:
    """Name of timm's module that defines the architecture."""
    return str(timm.models.model_entrypoint(architecture.name).__module__).rsplit(".", 1)[-1]


def measure(architecture: Architecture, image_size: int) -> Measured:
    """Count parameters, multiply-adds and activations on one image of ``image_size`` pixels."""
    network = build(architecture, 0, 0)
    gmacs, macts, n_layers = count_operations(network, image_size)
    return Measured(
        n_parameters=sum(p.numel() for p in network.parameters()),
        gmacs=gmacs,
        macts=macts,
        hidden_width=int(cast(Any, network).num_features),
        n_layers=n_layers,
    )


def count_operations(network: nn.Module, image_size: int) -> tuple[float, float, int]:
    """10^9 multiply-adds and 10^6 activations of one image, and the number of layers.

    See :class:`Measured` for what counts.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    n_outputs = 0

    def count(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal n_outputs
        n_outputs += output.numel()

    hooks = [layer.register_forward_hook(count) for layer in layers]
    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() / 2e9, n_outputs / 1e6, len(layers)


def to_tensors(data: ImageSet, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised images (n, 3, side, side) as float32, and labels (n,) as int64."""
    # Copies: data sets are shared between runs and read-only.
    images = torch.tensor(data.images).to(device).permute(0, 3, 1, 2).float()
    images = images.div_(255.0).sub_(PIXEL_MEAN).div_(PIXEL_SPREAD)
    # Channels last: a fifth faster on a CPU for most of the small convolutional networks.
    images = images.contiguous(memory_format=torch.channels_last)
    return images, torch.tensor(data.labels).to(device)


def train(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    recipe: TrainingRecipe,
    seed: int,
    after_epoch: AfterEpoch = lambda epoch, loss: None,
) -> None:
    """Train in place: AdamW, one-cycle learning rate with a fifth of warm-up, cross entropy.

    Incomplete batches are left out. Dropout and stochastic depth, where an architecture has them,
    draw from a stream that ``seed`` fixes.

    Parameters
    ----------
    after_epoch : callable of (int, float)
        Told of every epoch, from 1, and its mean loss. May switch the network to evaluation.

    Raises
    ------
    DivergedError
        The loss is no longer finite.
    """
    network.to(memory_format=torch.channels_last)
    batches = len(images) // recipe.batch_size
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches, pct_start=0.2
    )
    rng = named_stream(seed, "zoo", "order of images")
    with seeded(seed, "zoo", "dropout"):
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            losses = []
            order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
            for start in range(0, batches * recipe.batch_size, recipe.batch_size):
                chosen = order[start : start + recipe.batch_size]
                batch = augmented(images[chosen], recipe, rng)
                loss = nn.functional.cross_entropy(network(batch), labels[chosen])
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise DivergedError(f"loss is {losses[-1]} in epoch {epoch}")
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            after_epoch(epoch, sum(losses) / len(losses))


def augmented(
    images: torch.Tensor, recipe: TrainingRecipe, rng: np.random.Generator
) -> torch.Tensor:
    """Move and mirror a batch as its recipe wants: one shift a batch, a mirror an image."""
    if recipe.mirror:
        turned = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    if recipe.shift:
        side, most = images.shape[-1], recipe.shift
        down, right = rng.integers(0, 2 * most + 1, 2)
        padded = nn.functional.pad(images, (most,) * 4, mode="replicate")
        images = padded[:, :, down : down + side, right : right + side]
    return images.contiguous(memory_format=torch.channels_last)


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of images whose highest output is their label."""
    network.eval()
    n_correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), 250):
            outputs = network(images[start : start + 250])
            n_correct += int((outputs.argmax(1) == labels[start : start + 250]).sum())
    return n_correct / len(images)


class Stopwatch:
    """CPU seconds of this process and wall seconds since the start."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds, all threads of the process."""
        return time.process_time() - self._cpu

    @property
    def wall_seconds(self) -> float:
        """Wall seconds."""
        return time.perf_counter() - self._wall
