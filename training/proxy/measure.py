"""What a CLIP makes of held-out images of the sources: the figures that choose and describe it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.factory import get_tokenizer
from sklearn.linear_model import LogisticRegression

from recsys_ms.core.types import FloatArray
from recsys_ms.scores.label_texts import class_texts
from training.proxy.data import Part, as_pixels, source_images, standardised
from training.proxy.design import Design

_BATCH = 250
_N_PROBE_TRAIN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFigures:
    """Fractions of held-out images of one source.

    Attributes
    ----------
    n_images, n_classes : int
    zero_shot : float
        Right class of the source by the nearest "a photo of a ...".
    zero_shot_all : float
        The same among the classes of all sources.
    retrieval : float
        Of class names: share whose nearest image of the source is of the class.
    linear_probe : float
        Right class by a logistic regression on the image features of 1,000 training images.
    pixels : float
        The same on grey images of 16 x 16 pixels: what no training gives.
    """

    n_images: int
    n_classes: int
    zero_shot: float
    zero_shot_all: float
    retrieval: float
    linear_probe: float
    pixels: float


def measure(design: Design, model: Any, part: Part) -> dict[str, SourceFigures]:
    """Figures of each source on its held-out images.

    Parameters
    ----------
    design : Design
    model : CLIP
        On the CPU, in evaluation mode.
    part : {"validation", "test"}
    """
    sets = {source: source_images(design, source, part) for source in design.sources}
    tokenizer = get_tokenizer("", context_length=model.context_length)
    prompts = {
        source: class_texts(range(len(data.class_names)), data.class_names)
        for source, data in sets.items()
    }
    with torch.inference_mode():
        texts = {
            source: model.encode_text(tokenizer(list(listed)), normalize=True).numpy()
            for source, listed in prompts.items()
        }
    everything = np.concatenate(list(texts.values()))
    figures = {}
    first = 0
    for source, data in sets.items():
        features = image_features(design, model, data.images)
        own = features @ texts[source].T
        whole = (features @ everything.T).argmax(axis=1)
        train = source_images(design, source, "train")
        seen = train.images[:_N_PROBE_TRAIN]
        known = train.labels[:_N_PROBE_TRAIN]
        figures[source] = SourceFigures(
            n_images=len(features),
            n_classes=len(data.class_names),
            zero_shot=_share(own.argmax(axis=1), data.labels),
            zero_shot_all=_share(whole - first, data.labels),
            retrieval=_share(data.labels[own.argmax(axis=0)], np.arange(own.shape[1])),
            linear_probe=_probe(
                image_features(design, model, seen), known, features, data.labels, 100.0
            ),
            pixels=_probe(_grey(seen), known, _grey(data.images), data.labels, 1.0),
        )
        first += len(data.class_names)
    return figures


def image_features(design: Design, model: Any, images: Any) -> FloatArray:
    """Unit rows of shape (n_images, embed_dim)."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            pixels = standardised(as_pixels(images[start : start + _BATCH]), design)
            rows.append(model.encode_image(pixels, normalize=True).float().numpy())
    return np.concatenate(rows)


def _probe(x: FloatArray, y: Any, held_out: FloatArray, labels: Any, strength: float) -> float:
    learner = LogisticRegression(C=strength, max_iter=300).fit(x, y)
    return _share(learner.predict(held_out), labels)


def _grey(images: Any) -> FloatArray:
    n, side = images.shape[:2]
    block = side // 16
    grey = images.mean(axis=3).reshape(n, 16, block, 16, block) / 255.0
    pixels: FloatArray = grey.mean(axis=(2, 4)).reshape(n, -1)
    return pixels


def _share(found: Any, wanted: Any) -> float:
    return float(np.mean(np.asarray(found) == np.asarray(wanted)))
