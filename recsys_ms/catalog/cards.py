"""What is known of a model or a task besides its runs. ``None`` always means unknown, never 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, Literal, TypeAlias

from recsys_ms.core.errors import DataError
from recsys_ms.core.types import Direction

#: ``text``; ``count`` (a whole number of at least 1); ``number`` (finite, positive); ``fraction``
#: (in [0, 1]); ``vector`` (finite floats); ``names`` (texts); ``traits`` (text or number by name).
FieldKind: TypeAlias = Literal["text", "count", "number", "fraction", "vector", "names", "traits"]

#: Kinds that are floats in the catalog's frames, NaN where unknown.
NUMERIC_KINDS: Final = frozenset({"count", "number", "fraction"})

#: Kind of each field of a model card, in the order of the card.
MODEL_FIELDS: Final[Mapping[str, FieldKind]] = {
    "model_id": "text",
    "architecture": "text",
    "family": "text",
    "n_parameters": "count",
    "gmacs": "number",
    "macts": "number",
    "input_size": "count",
    "hidden_width": "count",
    "n_layers": "count",
    "pretrained_domain": "text",
    "pretrained_tag": "text",
    "n_source_classes": "count",
    "source_accuracy": "fraction",
    "licence": "text",
    "embedding": "vector",
    "cluster": "text",
    "source_label_embedding": "vector",
    "traits": "traits",
}

#: Kind of each field of a task card, in the order of the card.
TASK_FIELDS: Final[Mapping[str, FieldKind]] = {
    "task_id": "text",
    "domain": "text",
    "n_samples": "count",
    "n_classes": "count",
    "image_size": "count",
    "n_channels": "count",
    "difficulty": "fraction",
    "class_names": "names",
    "metric": "text",
    "direction": "text",
    "embedding": "vector",
    "label_embedding": "vector",
    "embedding_source": "text",
    "traits": "traits",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a pre-trained model; every field but the id may be ``None`` (unknown).

    Attributes
    ----------
    model_id : str
        The id that runs use.
    architecture : str or None
        Name of the architecture, for example ``"vit_base_patch16_224"``.
    family : str or None
        Group of architectures, for example ``"vision_transformer"``.
    n_parameters : int or None
        Number of parameters.
    gmacs : float or None
        10^9 multiply-adds for one input of ``input_size``.
    macts : float or None
        10^6 activations for one input of ``input_size``.
    input_size : int or None
        Side of the input image, pixels.
    hidden_width : int or None
        Channels of the last feature layer.
    n_layers : int or None
        Depth in layers or blocks, as the source counts them.
    pretrained_domain : str or None
        Data the weights were trained on.
    pretrained_tag : str or None
        Name of the weights among those of one architecture.
    n_source_classes : int or None
        Classes of the data the weights were trained on.
    source_accuracy : float or None
        Accuracy on that data, fraction.
    licence : str or None
        Licence of the weights.
    embedding : tuple of float or None
        Vector of the architecture (archi2vec).
    cluster : str or None
        Cluster of the architecture.
    source_label_embedding : tuple of float or None
        Vector of the names of the classes the weights were trained on; comparable with a task's
        ``label_embedding`` where one text encoder made both.
    traits : mapping of str to str or float
        Anything else that is known.

    Raises
    ------
    DataError
        A value outside what the field may hold.
    """

    model_id: str
    architecture: str | None = None
    family: str | None = None
    n_parameters: int | None = None
    gmacs: float | None = None
    macts: float | None = None
    input_size: int | None = None
    hidden_width: int | None = None
    n_layers: int | None = None
    pretrained_domain: str | None = None
    pretrained_tag: str | None = None
    n_source_classes: int | None = None
    source_accuracy: float | None = None
    licence: str | None = None
    embedding: tuple[float, ...] | None = None
    cluster: str | None = None
    source_label_embedding: tuple[float, ...] | None = None
    traits: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, MODEL_FIELDS, f"model card {self.model_id!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCard:
    """What is known of a task; every field but the id may be ``None`` (unknown).

    Attributes
    ----------
    task_id : str
        The id that runs use.
    domain : str or None
        Kind of data, for example ``"satellite"``.
    n_samples : int or None
        Training examples.
    n_classes : int or None
        Target classes.
    image_size : int or None
        Side of the images, pixels.
    n_channels : int or None
        Channels of the images.
    difficulty : float or None
        Accuracy of a simple model on the task, fraction: low is difficult.
    class_names : tuple of str or None
        Names of the target classes.
    metric : str or None
        Metric the task is measured in.
    direction : {"max", "min"} or None
        Whether higher or lower values of the metric are better.
    embedding : tuple of float or None
        Vector of the task's images (proxy embedding).
    label_embedding : tuple of float or None
        Vector of the names of its classes.
    embedding_source : str or None
        What made both vectors; those of two sources are not compared.
    traits : mapping of str to str or float
        Anything else that is known.

    Raises
    ------
    DataError
        A value outside what the field may hold.
    """

    task_id: str
    domain: str | None = None
    n_samples: int | None = None
    n_classes: int | None = None
    image_size: int | None = None
    n_channels: int | None = None
    difficulty: float | None = None
    class_names: tuple[str, ...] | None = None
    metric: str | None = None
    direction: Direction | None = None
    embedding: tuple[float, ...] | None = None
    label_embedding: tuple[float, ...] | None = None
    embedding_source: str | None = None
    traits: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"task card {self.task_id!r}"
        _check(self, TASK_FIELDS, where)
        if self.direction not in (None, "max", "min"):
            raise DataError(f"{where}: direction {self.direction!r} must be 'max' or 'min'")


def check_field(value: object, kind: FieldKind) -> str | None:
    """Why ``value`` cannot stand in a card field of ``kind``, or ``None`` where it can."""
    if kind == "text":
        return None if isinstance(value, str) and value else "must be a text that is not empty"
    if kind == "vector":
        wanted = "must be a tuple of finite numbers that is not empty"
        return None if isinstance(value, tuple) and value and all(map(_finite, value)) else wanted
    if kind == "names":
        fine = isinstance(value, tuple) and all(isinstance(name, str) for name in value)
        return None if fine else "must be a tuple of texts"
    if kind == "traits":
        fine = isinstance(value, Mapping) and all(
            isinstance(name, str) and (isinstance(trait, str) or _finite(trait))
            for name, trait in value.items()
        )
        return None if fine else "must be a mapping of text to text or finite number"
    return _check_number(value, kind)


def _check_number(value: object, kind: FieldKind) -> str | None:
    if not isinstance(value, (int, float)) or not _finite(value):
        return "must be a finite number; use None where it is unknown"
    if kind == "count":
        whole = isinstance(value, int) and value >= 1
        return None if whole else "must be a whole number of at least 1; None where it is unknown"
    if kind == "number":
        return None if value > 0 else "must be positive; use None where it is unknown"
    return None if 0.0 <= value <= 1.0 else "must be a fraction in [0, 1]; divide percent by 100"


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _check(card: "ModelCard | TaskCard", kinds: Mapping[str, FieldKind], where: str) -> None:
    for name, kind in kinds.items():
        value = getattr(card, name)
        if value is None and not name.endswith("_id") and kind != "traits":
            continue
        problem = check_field(value, kind)
        if problem is not None:
            raise DataError(f"{where}: {name} is {value!r} and {problem}")
