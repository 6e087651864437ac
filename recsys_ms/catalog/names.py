"""Parses model names: architecture, tag of the weights, tokens, pre-training data.

Every function returns ``None`` or an empty tuple where a name does not say.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.optional import require

#: Images (or image-text pairs) of the data sets that names of weights mention, as their papers
#: state them. ``clip`` and ``openai`` stand for the smallest published training set of that method.
PRETRAINING_IMAGES: Final[dict[str, float]] = {
    "in1k": 1.28e6,
    "imagenet": 1.28e6,
    "in12k": 1.2e7,
    "in21k": 1.4e7,
    "in22k": 1.4e7,
    "places365": 1.8e6,
    "inat2021": 2.7e6,
    "cc12m": 1.2e7,
    "m30m": 3.0e7,
    "m38m": 3.8e7,
    "yfcc100m": 9.9e7,
    "lvd142m": 1.42e8,
    "jft": 3.0e8,
    "jft300m": 3.0e8,
    "openai": 4.0e8,
    "clip": 4.0e8,
    "laion400m": 4.0e8,
    "laiona": 9.0e8,
    "ig1b": 9.4e8,
    "seer": 1.0e9,
    "datacomp1b": 1.4e9,
    "laion2b": 2.3e9,
    "dfn2b": 2.0e9,
    "merged2b": 2.0e9,
    "swag": 3.6e9,
    "dfn5b": 5.0e9,
    "webli": 1.0e10,
    "datacompxl": 1.28e10,
}

_FAMILIES: Final = "look up the families of architectures"
_IMAGENET: Final = re.compile(r"(?:imagenet|in)[-_]?(1k|12k|21k|22k)(?![0-9a-z])")
#: Names that stay parsed: every query encodes all models again.
_CACHED: Final = 1 << 17
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_LETTERS_AND_NUMBERS: Final = re.compile(r"[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """Parts of a model id: ``owner/architecture.tag`` (timm) or ``owner/architecture@tag``."""

    owner: str | None
    architecture: str
    tag: str | None


@lru_cache(maxsize=_CACHED)
def parse_model_id(model_id: str) -> ModelName:
    """Split ``owner/architecture.tag`` or ``architecture@tag``; parts that are absent are ``None``.

    A ``.`` counts only before a word with a letter in it, so that version numbers (``yolov8.1``)
    stay whole.
    """
    owner, slash, rest = model_id.rpartition("/")
    for pattern in (r"@", r"\.(?=[A-Za-z0-9]*[A-Za-z_])"):
        parts = re.split(pattern, rest, maxsplit=1)
        if len(parts) == 2 and all(parts):
            return ModelName(owner=owner if slash else None, architecture=parts[0], tag=parts[1])
    return ModelName(owner=owner if slash else None, architecture=rest, tag=None)


@lru_cache(maxsize=_CACHED)
def name_tokens(text: str) -> tuple[str, ...]:
    """Lower-case pieces of a name, sorted, each once.

    A piece that mixes letters and numbers counts whole and by its runs of two or more letters:
    ``"ResNet50-D"`` gives ``("d", "resnet", "resnet50")``.
    """
    tokens: set[str] = set()
    for piece in _SEPARATORS.split(text.lower()):
        if not piece:
            continue
        tokens.add(piece)
        runs = _LETTERS_AND_NUMBERS.findall(piece)
        if len(runs) > 1:
            tokens.update(run for run in runs if len(run) > 1 and run.isalpha())
    return tuple(sorted(tokens))


@lru_cache(maxsize=_CACHED)
def pretraining_images(*texts: str | None) -> float | None:
    """Images of the largest data set that the texts name, or ``None`` when they name none."""
    found: list[float] = []
    for text in texts:
        if text is None:
            continue
        plain = _IMAGENET.sub(r"in\1", text.lower())
        found.extend(
            PRETRAINING_IMAGES[piece]
            for piece in _SEPARATORS.split(plain)
            if piece in PRETRAINING_IMAGES
        )
    return max(found, default=None)


def timm_family(architecture: str) -> str:
    """Family of an architecture that timm knows, the name of the timm module that defines it."""
    timm = require("timm", extra="embed", purpose=_FAMILIES)
    return str(timm.model_entrypoint(architecture).__module__).rpartition(".")[2]


def with_timm_families(catalog: Catalog) -> Catalog:
    """Fill in the family of models whose card does not say it, from timm's own modules.

    The architecture is the card's, or the one in the model id. A catalog is completed once, when
    cards are made: answers of a ranker do not depend on the installed timm.
    """
    frame = catalog.models
    missing = frame[frame["family"].isna()]
    architecture = {
        str(model_id): str(card) if card else parse_model_id(str(model_id)).architecture
        for model_id, card in zip(missing.index, missing["architecture"], strict=True)
    }
    known = set(require("timm", extra="embed", purpose=_FAMILIES).list_models())
    return catalog.with_models(
        ModelCard(model_id=model_id, family=timm_family(name))
        for model_id, name in architecture.items()
        if name in known
    )
