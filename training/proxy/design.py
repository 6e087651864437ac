"""The design of the small CLIP: its towers, its data, its training. One TOML file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_ms.core.errors import UsageError
from training.toml_files import checked_keys, read_toml
from training.zoo.study import Study, read_study


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """How many images of each source are seen.

    Attributes
    ----------
    n_train : int
        Of the training split.
    n_validation, n_test : int
        Of the test split, disjoint: the first for choices, the second for the figures.
    n_train_of : mapping of source to int
        Where it differs.
    """

    n_train: int
    n_validation: int
    n_test: int
    n_train_of: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How the towers are trained: AdamW, at a rate that rises, stays and falls.

    Attributes
    ----------
    steps : int
        Batches.
    warm_up, cool_down : int
        Of them the first, in which the learning rate rises, and the last, in which it falls.
    learning_rate, weight_decay : float
        Peak rate; decay of weights, not of gains, offsets and tables.
    partial : float
        Chance that a caption names one factor alone, where its class has several.
    checkpoint_every : int
        Steps.
    """

    steps: int
    warm_up: int
    cool_down: int
    learning_rate: float
    weight_decay: float
    partial: float
    checkpoint_every: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.checkpoint_every < 1:
            raise UsageError(
                f"proxy: steps {self.steps} and checkpoint_every {self.checkpoint_every} must be "
                "at least 1"
            )
        if self.warm_up < 0 or not 0 <= self.cool_down <= self.steps:
            raise UsageError(
                f"proxy: warm_up {self.warm_up} and cool_down {self.cool_down} of {self.steps} "
                "steps; expected neither negative, and no longer cool_down than steps"
            )
        if not 0.0 <= self.partial <= 1.0:
            raise UsageError(f"proxy: partial {self.partial} is a share in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How images are varied; see ``proxy.toml`` for units."""

    zoom: float
    shift: float
    turn: float
    mirror: tuple[str, ...]
    contrast: float
    cast: float
    gray: float
    invert: float
    halve: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All that decides the small CLIP.

    Attributes
    ----------
    name : str
    seed : int
    study : Study
        The laboratory's; its sources are the training data.
    model : mapping
        ``model_cfg`` of open_clip.
    preprocess : mapping
        ``preprocess_cfg`` of open_clip.
    data : DataPlan
    batch : mapping of source to int
        Images of a batch.
    training : TrainingPlan
    augmentation : Augmentation

    Raises
    ------
    UsageError
        A batch names something else than sources of the study.
    """

    name: str
    seed: int
    study: Study
    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    data: DataPlan
    batch: Mapping[str, int]
    training: TrainingPlan
    augmentation: Augmentation

    def __post_init__(self) -> None:
        named = {*self.batch, *self.data.n_train_of, *self.augmentation.mirror}
        strange = sorted(named - set(self.study.sources))
        if strange or not self.batch:
            raise UsageError(
                f"proxy {self.name!r}: {strange or 'an empty batch'}; it learns from sources of "
                f"the study alone: {', '.join(self.study.sources)}"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """What is learned from, in the order of the batch."""
        return tuple(self.batch)


def read_design(path: str | Path, images: str | Path | None = None) -> Design:
    """Read a design from TOML.

    Parameters
    ----------
    path : str or Path
    images : str or Path, optional
        Folder of the image sets, in place of the one that the study names.

    Raises
    ------
    UsageError
        No such file, not TOML, a key missing or unknown, or an invalid value.
    """
    document = read_toml(path, "design")
    with checked_keys(path, "training/proxy/proxy.toml"):
        head = document["proxy"]
        augmentation = document["augmentation"]
        return Design(
            name=str(head["name"]),
            seed=int(head["seed"]),
            study=read_study(Path(path).parent / head["study"], images),
            model=document["model"],
            preprocess=document["preprocess"],
            data=DataPlan(**document["data"]),
            batch=document["batch"],
            training=TrainingPlan(**document["training"]),
            augmentation=Augmentation(
                **augmentation | {"mirror": tuple(augmentation.get("mirror", ()))}
            ),
        )
