"""The design of a study: what is pre-trained, what is fine-tuned on what, and how.

One TOML file holds it; see ``study.toml``. A study is expanded into a fixed list of pre-trainings
and fine-tunings, each with a name that depends on what it does and on nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import named_stream
from training.toml_files import checked_keys, read_toml
from training.zoo.tasks.pictures import PictureTask
from training.zoo.tasks.registry import TaskBook

RANDOM_START: Final = "random"
ENCODER_LIBRARIES: Final = ("open-clip", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A timm architecture and the options its constructor gets."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """How one network is trained: AdamW under a one-cycle schedule.

    Attributes
    ----------
    n_train, n_test, epochs, batch_size, learning_rate, weight_decay
        As their names say; counts are of images.
    shift : int
        Images are moved at random by up to so many pixels, their edges repeated.
    mirror : bool
        Half of the images are mirrored left to right.
    test_every : int
        The network is tested after the last epoch and every so many epochs before it; 0 is the
        last alone.
    """

    n_train: int
    n_test: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    shift: int = 0
    mirror: bool = False
    test_every: int = 0

    def is_tested(self, epoch: int) -> bool:
        """Whether the network is tested after ``epoch``, counted from 1."""
        left = self.epochs - epoch
        return left == 0 or (self.test_every > 0 and left % self.test_every == 0)

    def __post_init__(self) -> None:
        for name in ("n_train", "n_test", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"study: {name} is {getattr(self, name)}; it must be at least 1")
        if self.shift < 0 or self.test_every < 0:
            raise UsageError(
                f"study: shift {self.shift} and test_every {self.test_every} cannot be negative"
            )
        if self.batch_size > self.n_train:
            raise UsageError(
                f"study: batch_size {self.batch_size} exceeds n_train {self.n_train}; lower it"
            )
        if not self.learning_rate > 0.0 or self.weight_decay < 0.0:
            raise UsageError(
                f"study: learning_rate {self.learning_rate} must be positive and weight_decay "
                f"{self.weight_decay} not negative"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network to fine-tune: an architecture and where its weights come from.

    ``recipe`` is None for a random start, and so is the source.
    """

    architecture: Architecture
    source: str | None
    recipe: TrainingRecipe | None
    image_size: int
    seed: int

    @property
    def model_id(self) -> str:
        """Name in the history, ``ARCHITECTURE@SOURCE``."""
        return f"{self.architecture.name}@{self.source or RANDOM_START}"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever the weights would."""
        return _digest(asdict(self))[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """One run: a model trained on and tested on a task."""

    study: str
    model: Model
    task_id: str
    recipe: TrainingRecipe
    seed: int
    data_seed: int

    @property
    def run_id(self) -> str:
        """Name of the run: a digest of everything that decides its result."""
        return f"zoo-{_digest(asdict(self))[:24]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A whole study.

    Attributes
    ----------
    name : str
        Stands in every run as its source.
    seed : int
        Seed of the data, of the initial weights and of the order of the runs.
    image_size : int
        Side of all images in pixels.
    architectures : tuple of Architecture
    sources, targets : tuple of str
        Task ids. No task may be both.
    random_start : bool
        Whether the untrained networks are fine-tuned as well.
    pretraining, finetuning : TrainingRecipe
        ``finetuning.learning_rate`` is the first of ``learning_rates``.
    learning_rates, seeds : tuple
        Every fine-tuning is done with each of them.
    recipe_of : mapping of task id to mapping
        What of the recipe differs for a source or a target.
    n_probe : int
        Images of a target, of its training split, that scores are computed on.
    pictures : tuple of PictureTask
        Tasks of image files, besides those that are drawn.
    encoders : tuple of str
        Text encoders that class names go through, ``open-clip:FOLDER`` or ``transformers:FOLDER``.
    """

    name: str
    seed: int
    image_size: int
    architectures: tuple[Architecture, ...]
    sources: tuple[str, ...]
    random_start: bool
    targets: tuple[str, ...]
    pretraining: TrainingRecipe
    finetuning: TrainingRecipe
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    recipe_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    n_probe: int = 0
    pictures: tuple[PictureTask, ...] = ()
    encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for task_id in (*self.sources, *self.targets):
            self.book.get(task_id)
        names = [architecture.name for architecture in self.architectures]
        for what, values in (
            ("architecture", names),
            ("source", self.sources),
            ("target", self.targets),
            ("learning rate", self.learning_rates),
            ("seed", self.seeds),
        ):
            if len(set(values)) != len(values):
                raise UsageError(f"study {self.name!r}: a {what} is named twice in {values}")
        both = sorted(set(self.sources) & set(self.targets))
        if both:
            raise UsageError(
                f"study {self.name!r}: {both} are sources and targets; a model would be tested "
                "on the task it was pre-trained on, so keep the two apart"
            )
        strange = sorted(set(self.recipe_of) - {*self.sources, *self.targets})
        if strange:
            raise UsageError(f"study {self.name!r}: a recipe of {strange}, no source or target")
        for task_id, differing in self.recipe_of.items():
            is_source = task_id in self.sources
            _changed(self.pretraining if is_source else self.finetuning, task_id, differing)
            if "learning_rate" in differing and not is_source:
                raise UsageError(
                    f"study {self.name!r}: the recipe of {task_id!r} has a learning_rate; "
                    "learning_rates holds for all targets"
                )
        if not (names and self.targets and self.learning_rates and self.seeds):
            raise UsageError(
                f"study {self.name!r}: it needs an architecture, a target, a learning rate, a seed"
            )
        if not (self.sources or self.random_start):
            raise UsageError(f"study {self.name!r}: it needs a source or random_start = true")

    @property
    def book(self) -> TaskBook:
        """The tasks by their ids."""
        return TaskBook(self.pictures)

    def at_hand(self) -> "Study":
        """The study without the tasks whose files are absent; its runs keep their names."""
        left = [
            tuple(task_id for task_id in ids if not self.book.absent(task_id))
            for ids in (self.sources, self.targets)
        ]
        named = {task_id for ids in left for task_id in ids}
        recipes = {task_id: r for task_id, r in self.recipe_of.items() if task_id in named}
        return replace(self, sources=left[0], targets=left[1], recipe_of=recipes)

    def finetuning_of(self, task_id: str) -> TrainingRecipe:
        """How models are fine-tuned on a target, at the first of the learning rates."""
        return _changed(self.finetuning, task_id, self.recipe_of.get(task_id, {}))

    def models(self) -> list[Model]:
        """All models, architecture by architecture."""
        origins = [*self.sources, *([None] if self.random_start else [])]
        return [
            Model(
                architecture=architecture,
                source=source,
                recipe=None
                if source is None
                else _changed(self.pretraining, source, self.recipe_of.get(source, {})),
                image_size=self.image_size,
                seed=self.seed,
            )
            for architecture, source in product(self.architectures, origins)
        ]

    def finetunings(self) -> list[FineTuning]:
        """All runs in an order that is random but fixed by the seed.

        Time then says nothing about model or task, so a history cut at a date is a fair sample.
        """
        runs = []
        for model, task_id, rate, seed in product(
            self.models(), self.targets, self.learning_rates, self.seeds
        ):
            recipe = replace(self.finetuning_of(task_id), learning_rate=rate)
            runs.append(
                FineTuning(
                    study=self.name,
                    model=model,
                    task_id=task_id,
                    recipe=recipe,
                    seed=seed,
                    data_seed=self.seed,
                )
            )
        order = named_stream(self.seed, "zoo", "order of runs").permutation(len(runs))
        return [runs[i] for i in order]


def read_study(path: str | Path, images: str | Path | None = None) -> Study:
    """Read a study from TOML.

    Parameters
    ----------
    path : str or Path
    images : str or Path, optional
        Folder that the paths of its image sets start from, in place of the one it names (which
        starts from the folder of the study).

    Raises
    ------
    UsageError
        No such file, not TOML, a key missing or unknown, or an invalid value.
    """
    document = read_toml(path, "study")
    with checked_keys(path, "training/zoo/study.toml"):
        root = Path(images) if images is not None else Path(path).parent / _images(document)
        study = _from_document(document, root.resolve(), Path(path).parent.resolve())
    left = {f"{name}.{key}" for name, table in document.items() if isinstance(table, dict)
            for key in table}  # fmt: skip
    left |= {name for name, table in document.items() if not isinstance(table, dict) and table}
    if left:
        raise UsageError(f"{path}: {sorted(left)} are unknown; see training/zoo/study.toml")
    return study


def _images(document: dict[str, Any]) -> str:
    return str(document["study"].get("images", "."))


def _from_document(document: dict[str, Any], images: Path, here: Path) -> Study:
    """Build the study, taking out of ``document`` all that is understood."""
    head, before, after = (document[name] for name in ("study", "pretraining", "finetuning"))
    head.pop("images", None)
    rates = tuple(float(rate) for rate in after.pop("learning_rates"))
    recipes = _recipes("pretraining", before) | _recipes("finetuning", after)
    return Study(
        name=head.pop("name"),
        seed=head.pop("seed"),
        image_size=head.pop("image_size"),
        architectures=tuple(Architecture(**a) for a in document.pop("architecture")),
        sources=tuple(before.pop("sources")),
        random_start=before.pop("random_start"),
        targets=tuple(after.pop("targets")),
        learning_rates=rates,
        seeds=tuple(after.pop("seeds")),
        recipe_of=recipes,
        n_probe=after.pop("n_probe", 0),
        pictures=tuple(_picture(table, images) for table in document.pop("images", [])),
        encoders=tuple(
            _encoder(spec, here) for spec in document.get("scores", {}).pop("encoders", [])
        ),
        pretraining=_recipe(before, before.pop("learning_rate")),
        finetuning=_recipe(after, rates[0] if rates else 1.0),
    )


def _recipes(stage: str, table: dict[str, Any]) -> dict[str, Any]:
    """What of the recipe differs for tasks of this stage alone."""
    recipes: dict[str, Any] = table.pop("of", {})
    role = "sources" if stage == "pretraining" else "targets"
    strange = sorted(set(recipes) - set(table[role]))
    if strange:
        raise UsageError(f"study: [{stage}.of.{strange[0]}]: {strange[0]} is none of the {role}")
    return recipes


def _picture(table: Any, images: Path) -> PictureTask:
    names = [each.name for each in fields(PictureTask)]
    given = sorted(table) if isinstance(table, dict) else [repr(table)]
    if given != sorted(names) or not all(isinstance(value, str) for value in table.values()):
        raise UsageError(f"study: [[images]] has {given}, expected the texts {sorted(names)}")
    return PictureTask(**table | {"path": _located(table["path"], images)})


def _encoder(spec: Any, here: Path) -> str:
    library, colon, folder = str(spec).partition(":")
    if not folder or library not in ENCODER_LIBRARIES:
        raise UsageError(
            f"study: encoder {spec!r}, expected open-clip:FOLDER or transformers:FOLDER; the "
            "folder starts from that of the study"
        )
    return f"{library}{colon}{(here / folder).resolve()}"


def _located(path: str, images: Path) -> str:
    kind, colon, rest = path.rpartition(":")
    return f"{kind}{colon}{images / rest}"


def _recipe(table: dict[str, Any], learning_rate: float) -> TrainingRecipe:
    names = ("n_train", "n_test", "epochs", "batch_size", "weight_decay")
    wanted = {name: table.pop(name) for name in names}
    maybe = {name: table.pop(name) for name in ("shift", "mirror", "test_every") if name in table}
    return TrainingRecipe(learning_rate=learning_rate, **wanted, **maybe)


def _changed(recipe: TrainingRecipe, task_id: str, differing: Mapping[str, Any]) -> TrainingRecipe:
    known = {each.name for each in fields(TrainingRecipe)}
    if not isinstance(differing, Mapping):
        raise UsageError(f"study: the recipe of {task_id!r} is {differing!r}, expected a table")
    unknown = sorted(set(differing) - known)
    if unknown:
        raise UsageError(
            f"study: the recipe of {task_id!r} has {unknown}, expected some of {sorted(known)}"
        )
    return replace(recipe, **differing)


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
