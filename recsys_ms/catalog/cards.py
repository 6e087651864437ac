"""Cards describe a model or a task besides its runs. ``None`` means unknown, never 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_type_hints

from recsys_ms.core.errors import DataError
from recsys_ms.core.types import Direction

#: ``text``; ``count`` (a whole number of at least 1); ``number`` (finite, positive); ``fraction``
#: (in [0, 1]); ``vector`` (finite floats); ``names`` (texts); ``traits`` (text or number by name);
#: ``direction`` (``max`` or ``min``).
FieldKind: TypeAlias = Literal[
    "text", "count", "number", "fraction", "vector", "names", "traits", "direction"
]

#: Kinds that are floats in the catalog's frames, NaN where unknown.
NUMERIC_KINDS: Final = frozenset({"count", "number", "fraction"})

# Fields are declared once, in the cards below: an annotation says the type and the kind.
Text: TypeAlias = Annotated[str | None, "text"]
Count: TypeAlias = Annotated[int | None, "count"]
Number: TypeAlias = Annotated[float | None, "number"]
Fraction: TypeAlias = Annotated[float | None, "fraction"]
Vector: TypeAlias = Annotated[tuple[float, ...] | None, "vector"]
Names: TypeAlias = Annotated[tuple[str, ...] | None, "names"]
Traits: TypeAlias = Annotated[Mapping[str, str | float], "traits"]


class _Card:
    """Checks of both cards."""

    __slots__ = ()

    def __post_init__(self) -> None:
        card: Any = type(self)
        kinds = field_kinds(card)
        id_name = next(iter(kinds))
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is None and name != id_name and kind != "traits":
                continue
            problem = check_field(value, kind)
            if problem is not None:
                where = f"{id_name.removesuffix('_id')} card {getattr(self, id_name)!r}"
                hint = "; use None where it is unknown" * (kind in NUMERIC_KINDS)
                raise DataError(f"{where}: {name} is {value!r}, {problem}{hint}")


@cache
def field_kinds(card: type) -> Mapping[str, FieldKind]:
    """Kind of each field of a card, in the order of the card; the id comes first."""
    hints = get_type_hints(card, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard(_Card):
    """Description of a pre-trained model; every field but the id may be ``None`` (unknown).

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
        An invalid value of a field.
    """

    model_id: Annotated[str, "text"]
    architecture: Text = None
    family: Text = None
    n_parameters: Count = None
    gmacs: Number = None
    macts: Number = None
    input_size: Count = None
    hidden_width: Count = None
    n_layers: Count = None
    pretrained_domain: Text = None
    pretrained_tag: Text = None
    n_source_classes: Count = None
    source_accuracy: Fraction = None
    licence: Text = None
    embedding: Vector = None
    cluster: Text = None
    source_label_embedding: Vector = None
    traits: Traits = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCard(_Card):
    """Description of a task; every field but the id may be ``None`` (unknown).

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
        Name of the encoders of both vectors; vectors of two sources are not compared.
    traits : mapping of str to str or float
        Anything else that is known.

    Raises
    ------
    DataError
        An invalid value of a field.
    """

    task_id: Annotated[str, "text"]
    domain: Text = None
    n_samples: Count = None
    n_classes: Count = None
    image_size: Count = None
    n_channels: Count = None
    difficulty: Fraction = None
    class_names: Names = None
    metric: Text = None
    direction: Annotated[Direction | None, "direction"] = None
    embedding: Vector = None
    label_embedding: Vector = None
    embedding_source: Text = None
    traits: Traits = field(default_factory=dict)


MODEL_FIELDS: Final = field_kinds(ModelCard)
TASK_FIELDS: Final = field_kinds(TaskCard)


def check_field(value: object, kind: FieldKind) -> str | None:
    """Why ``value`` is invalid in a card field of ``kind``, or ``None`` where it is valid."""
    valid, wanted = False, _WANTED[kind]
    if kind == "text":
        valid = isinstance(value, str) and bool(value)
    elif kind == "direction":
        valid = value in ("max", "min")
    elif kind == "vector":
        valid = isinstance(value, tuple) and bool(value) and all(map(_finite, value))
    elif kind == "names":
        valid = isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    elif kind == "traits":
        valid = isinstance(value, Mapping) and all(
            isinstance(name, str) and (isinstance(trait, str) or _finite(trait))
            for name, trait in value.items()
        )
    elif not isinstance(value, (int, float)) or not _finite(value):
        wanted = "expected a finite number"
    elif kind == "count":
        valid = isinstance(value, int) and value >= 1
    else:
        valid = value > 0 if kind == "number" else 0.0 <= value <= 1.0
    return None if valid else wanted


_WANTED: Final[Mapping[FieldKind, str]] = {
    "text": "expected a text that is not empty",
    "direction": "expected 'max' or 'min'",
    "vector": "expected a tuple of finite numbers that is not empty",
    "names": "expected a tuple of texts",
    "traits": "expected a mapping of text to text or finite number",
    "count": "expected a whole number of at least 1",
    "number": "expected a positive number",
    "fraction": "expected a fraction in [0, 1]; divide percent by 100",
}


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
