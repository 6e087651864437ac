"""Captions of the sources: what is said of an image, and of which other images it is true too.

Many images of a batch share a class, a class shares factors with others, and the two sets of photos
share objects. So a caption carries the classes it is true of, and no image of one of them counts as
a negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from recsys_ms.core.types import BoolArray, IntArray
from recsys_ms.scores.label_texts import CLASS_TEMPLATE

#: A class: its source and its name.
ClassId: TypeAlias = tuple[str, str]

_PHOTO_TEMPLATES: Final = (
    CLASS_TEMPLATE,
    "a small photo of the {}.",
    "a cropped photo of a {}.",
    "a picture of a {}.",
    "{}",
)
_DRAWN_TEMPLATES: Final = (
    "a photo of {}.",
    "a drawing of {}.",
    "an image of {}.",
    "{}",
)
#: Names of photos that hold for other classes as well.
_ALSO: Final[Mapping[ClassId, tuple[ClassId, ...]]] = MappingProxyType(
    {
        ("cifar10", "airplane"): (("caltech100", "airplanes"),),
        ("caltech100", "airplanes"): (("cifar10", "airplane"),),
        ("caltech100", "crocodile"): (("caltech100", "crocodile_head"),),
        ("caltech100", "flamingo"): (("caltech100", "flamingo_head"),),
        ("cifar10", "automobile"): (("caltech100", "car_side"),),
        ("cifar10", "dog"): (("caltech100", "dalmatian"),),
        ("cifar10", "cat"): (("caltech100", "wild_cat"),),
        ("cifar10", "ship"): tuple(("caltech100", n) for n in ("ferry", "ketch", "schooner")),
        ("cifar10", "bird"): tuple(
            ("caltech100", n)
            for n in ("emu", "flamingo", "flamingo_head", "ibis", "pigeon", "rooster")
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Wording:
    """Ways of saying the same.

    Attributes
    ----------
    captions : tuple of str
        Each says the same.
    holds : tuple of int
        Classes that it is true of.
    """

    captions: tuple[str, ...]
    holds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CaptionBook:
    """What may be said of the images of each class.

    Attributes
    ----------
    classes : tuple of (source, name)
        All classes; a class is a place here.
    whole : tuple of Wording
        What names each class.
    partial : tuple of tuple of Wording
        What names one factor of each; empty where its class has one only.
    """

    classes: tuple[ClassId, ...]
    whole: tuple[Wording, ...]
    partial: tuple[tuple[Wording, ...], ...]

    def draw(
        self, labels: IntArray, partial: float, rng: np.random.Generator
    ) -> tuple[list[str], BoolArray]:
        """Captions for a batch: one for each class in it, some of them of a factor alone.

        Parameters
        ----------
        labels : ndarray of shape (n_images,)
            Class of each image.
        partial : float
            Chance of a factor, where a class has several.
        rng : Generator

        Returns
        -------
        captions : list of str, n_captions
            No two alike.
        truth : ndarray of bool, shape (n_images, n_captions)
            Whether a caption is true of an image; every image has one.
        """
        said: dict[str, Wording] = {}
        for label in np.unique(labels):
            choices = self.partial[label]
            if choices and rng.random() < partial:
                wording = choices[int(rng.integers(len(choices)))]
            else:
                wording = self.whole[label]
            said[wording.captions[int(rng.integers(len(wording.captions)))]] = wording
        truth = np.zeros((len(self.classes), len(said)), dtype=bool)
        for column, wording in enumerate(said.values()):
            truth[list(wording.holds), column] = True
        return list(said), truth[labels]


def caption_book(names: Mapping[str, Sequence[str]]) -> CaptionBook:
    """All captions of some sources.

    Parameters
    ----------
    names : mapping of source to sequence of str
        Class names.
    """
    classes = tuple((source, name) for source, listed in names.items() for name in listed)
    place = {each: index for index, each in enumerate(classes)}
    whole, partial = [], []
    for source, name in classes:
        templates, phrases = _phrases(source, name)
        also = [place[other] for other in _ALSO.get((source, name), ()) if other in place]
        holds = (place[source, name], *also)
        plain = CLASS_TEMPLATE.format(_tidy(name))
        captions = [t.format(phrase) for phrase in phrases for t in templates]
        whole.append(Wording(tuple(dict.fromkeys((plain, *captions))), holds))
        partial.append(
            tuple(
                Wording(
                    tuple(template.format(phrase) for template in templates),
                    tuple(
                        index
                        for index, (other, like) in enumerate(classes)
                        if other == source and factor in _factors(source, like)
                    ),
                )
                for factor, phrase in _factors(source, name).items()
            )
        )
    return CaptionBook(classes, tuple(whole), tuple(partial))


def _tidy(name: str) -> str:
    return name.replace("_", " ")


def _phrases(source: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Templates of a source, and what stands in them for a class."""
    if source == "capitals":
        return _DRAWN_TEMPLATES, (f"the capital letter {name}", f"the letter {name}")
    if source == "scenes":
        shape, _, quadrant = name.partition(" ")
        corner = quadrant.replace("-", " ")
        return _DRAWN_TEMPLATES, (
            f"a {shape} in the {corner}",
            f"a {shape} in the {corner} corner",
            name,
        )
    if source == "patterns":
        return _DRAWN_TEMPLATES, (name, f"a pattern of {name}", f"a texture with {name}")
    return _PHOTO_TEMPLATES, (_tidy(name),)


def _factors(source: str, name: str) -> dict[str, str]:
    """Factors of a class, and how each is said; none where the class is not made of several."""
    first, _, second = name.partition(" ")
    if source == "scenes":
        corner = second.replace("-", " ")
        return {first: f"a {first}", second: f"a shape in the {corner}"}
    if source == "patterns":
        return {first: f"a {first} pattern", second: second}
    if source == "capitals":
        return {"letter": "a capital letter"}
    return {}
