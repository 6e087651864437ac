"""Training of the small CLIP: open_clip's model and loss, checkpoints, an exact resume."""

import json
import logging
import math
import time
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import get_tokenizer
from open_clip.model import CLIP

from recsys_ms.core.progress import NO_PROGRESS, Progress
from training.proxy.data import Batches
from training.proxy.design import Design, TrainingPlan
from training.proxy.loss import SharedCaptionLoss
from training.zoo.networks import DivergedError, seeded

_LOG = logging.getLogger(__name__)
#: Beyond a hundred, CLIP's temperature is cut off (Radford et al. 2021, section 2.5).
_MOST_SCALE = math.log(100.0)
_TOLD_EVERY = 100


def build(design: Design) -> CLIP:
    """Make the untrained model; the same seed gives the same weights."""
    with seeded(design.seed, "proxy", "weights"):
        return CLIP(
            embed_dim=int(design.model["embed_dim"]),
            vision_cfg=dict(design.model["vision_cfg"]),
            text_cfg=dict(design.model["text_cfg"]),
        )


def train(
    design: Design, work: Path, *, device: str = "cpu", progress: Progress = NO_PROGRESS
) -> tuple[CLIP, float]:
    """Train the model, or go on where the last checkpoint of the same design is.

    The learning rate rises, stays, and falls to nothing in the last steps (Hu et al. 2024,
    "MiniCPM", section 4.2). Until it falls, nothing depends on how many steps there will be: a
    design with more of them goes on from there, and ends as if it had never been shorter.

    Parameters
    ----------
    design : Design
    work : Path
        Folder of checkpoints.
    device : str
        A torch device.
    progress : Progress
        Shows steps.

    Returns
    -------
    model : CLIP
        On the CPU, in evaluation mode.
    seconds : float
        CPU seconds of all parts of the training.

    Raises
    ------
    DivergedError
        The loss is no longer finite.
    """
    model = build(design).to(device).to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, design)
    plan = design.training
    done, seconds = _resume(work, design, model, optimizer, device)
    batches = Batches(design)
    tokenizer = get_tokenizer("", context_length=model.context_length)
    start = time.process_time()
    steps = range(done, plan.steps)
    model.train()
    losses: list[float] = []
    for step in progress.track(steps, total=len(steps), description=design.name):
        losses.append(_step(model, batches.make(step), tokenizer, device))
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"loss is {losses[-1]} in step {step}")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, _MOST_SCALE)
        finished = step + 1
        if finished % _TOLD_EVERY == 0 or finished == plan.steps:
            _LOG.info("step %d: loss %.3f", finished, sum(losses) / len(losses))
            losses.clear()
        if finished % plan.checkpoint_every == 0 or finished == plan.steps:
            spent = seconds + time.process_time() - start
            _save(_place(work, design, finished), model, optimizer, finished, spent)
    return model.cpu().eval(), seconds + time.process_time() - start


def learning_rate(plan: TrainingPlan, step: int) -> float:
    """Rate of a step, from 0: rises, stays, falls to nothing."""
    rising = (step + 1) / plan.warm_up if plan.warm_up else 1.0
    falling = (plan.steps - step) / (plan.cool_down + 1)
    return plan.learning_rate * min(rising, 1.0, falling)


def design_digest(design: Design) -> str:
    """Digest of all that decides the weights."""
    parts = asdict(design)
    parts["study"] = [design.study.seed, list(design.study.sources)]
    # How often it is saved decides nothing.
    del parts["training"]["checkpoint_every"]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plateau_digest(design: Design) -> str:
    """Digest of all that decides the weights before the learning rate falls."""
    endless = replace(design.training, steps=1, cool_down=0, checkpoint_every=1)
    return design_digest(replace(design, training=endless))


def _step(model: CLIP, batch: Any, tokenizer: Any, device: str) -> float:
    """Gradients of one batch; its loss."""
    images = model.encode_image(batch.images.to(device), normalize=True)
    texts = model.encode_text(tokenizer(batch.captions).to(device), normalize=True)
    loss = SharedCaptionLoss()(images, texts, model.logit_scale.exp(), batch.truth.to(device))
    loss.backward()
    return float(loss.item())


def _optimizer(model: CLIP, design: Design) -> torch.optim.Optimizer:
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        table = parameter.ndim < 2 or "embedding" in name
        (kept if table else decayed).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": design.training.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=design.training.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def _place(work: Path, design: Design, step: int) -> Path:
    """Checkpoint of a step: until the learning rate falls, longer trainings share it."""
    plan = design.training
    on_plateau = step <= plan.steps - plan.cool_down
    digest = plateau_digest(design) if on_plateau else design_digest(design)
    return work / f"{digest[:16]}.pt"


def _resume(
    work: Path, design: Design, model: CLIP, optimizer: Any, device: str
) -> tuple[int, float]:
    """Load the latest checkpoint that this design can go on from: its step and its CPU seconds."""
    plan = design.training
    for latest in (plan.steps, plan.steps - plan.cool_down):
        place = _place(work, design, latest)
        state = torch.load(place, map_location=device, weights_only=True) if place.exists() else {}
        if 0 < state.get("step", 0) <= latest:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            _LOG.info("%s: goes on after step %d", place, state["step"])
            return int(state["step"]), float(state["seconds"])
    return 0, 0.0


def _save(place: Path, model: CLIP, optimizer: Any, step: int, seconds: float) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(".tmp")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "seconds": seconds,
        },
        half,
    )
    half.replace(place)
