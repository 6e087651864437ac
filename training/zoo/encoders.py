"""Text encoders that a study names: for EMMS, and for the vectors of class names on cards."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from recsys_ms.scores.label_embeddings import Float32Array, LabelEncoder
from recsys_ms.scores.label_encoders import OpenClipEncoder, TransformersEncoder
from recsys_ms.scores.label_texts import class_texts
from training.zoo.study import Study

_LOG = logging.getLogger(__name__)

#: The file without which a folder holds no model, by library.
_SETTINGS: Final = {"open-clip": "open_clip_config.json", "transformers": "config.json"}


def encoders_at_hand(study: Study) -> list[LabelEncoder]:
    """Encoders of the study whose files are there; the others are named in a warning.

    Raises
    ------
    DataError
        A folder holds something else than a model; told when the encoder is first used.
    """
    found: list[LabelEncoder] = []
    for spec in study.encoders:
        library, _, folder = spec.partition(":")
        if not (Path(folder) / _SETTINGS[library]).is_file():
            _LOG.warning("%s: left out, it has no %s", spec, _SETTINGS[library])
            continue
        kind = OpenClipEncoder if library == "open-clip" else TransformersEncoder
        found.append(kind(Path(folder)))
    return found


def class_vectors(encoder: LabelEncoder, class_names: Sequence[str]) -> Float32Array:
    """Unit vectors of class names in the prompt of EMMS, shape (n_classes, width)."""
    return encoder.encode(class_texts(np.arange(len(class_names)), class_names))


def names_vector(encoder: LabelEncoder, class_names: Sequence[str]) -> tuple[float, ...]:
    """Mean of the unit vectors of class names, to single precision, shape (width,)."""
    mean = class_vectors(encoder, class_names).mean(axis=0, dtype=np.float64)
    return tuple(map(float, mean.astype(np.float32)))
