"""One architecture of timm: built without weights, traced, and described."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from recsys_ms.architectures.facts import graph_facts
from recsys_ms.architectures.graph import architecture_graph
from recsys_ms.architectures.subtrees import VIEWS, Words, graph_words
from recsys_ms.catalog.card_files import MODELS
from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.names import timm_family
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors, read_arrays, write_arrays
from recsys_ms.core.optional import require

_PURPOSE: Final = "build the architectures of timm"
#: Increased when the description changes; files of other versions are replaced.
_RECORD_VERSION: Final = 2
#: Writing initial values into weights that hold none.
_FILLING: Final = frozenset(
    {
        *("uniform_", "normal_", "fill_", "zero_", "clamp_", "erfinv_", "mul_", "add_", "div_"),
        *("copy_", "kaiming_uniform_", "kaiming_normal_"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimmArchitecture:
    """Description of an architecture.

    ``card`` is of the model as timm builds it, for one input of its own size, without an embedding;
    ``weights`` are cards of the weights that exist for it (GMACs are unknown at another input
    size), ``words`` those of its graph, ``seconds`` the time of building and tracing.
    """

    card: ModelCard
    weights: tuple[ModelCard, ...]
    words: Words
    seconds: float


def describe(name: str) -> TimmArchitecture:
    """Build an architecture of ``timm.list_models()`` without weights, trace it and count.

    ``DataError`` if it cannot be built or traced.
    """
    torch: Any = require("torch", extra="embed", purpose=_PURPOSE)
    timm: Any = require("timm", extra="embed", purpose=_PURPOSE)
    start = time.perf_counter()
    # Building may raise anything: an unknown name, a missing library.
    what = f"{name}: timm cannot build it"
    with file_errors(what, catch=Exception, raises=DataError), without_weights():
        model = timm.create_model(name, pretrained=False)
        image = torch.empty(1, *model.pretrained_cfg["input_size"])
    graph = architecture_graph(model, image)
    width = getattr(model, "num_features", None)
    card = ModelCard(
        model_id=name,
        architecture=name,
        family=timm_family(name),
        input_size=max(image.shape[2:]),
        hidden_width=width if isinstance(width, int) and width > 0 else None,
        **graph_facts(graph, model),
    )
    return TimmArchitecture(
        card=card,
        weights=tuple(_weights(timm, card, model)),
        words=graph_words(graph),
        seconds=time.perf_counter() - start,
    )


def described(name: str, folder: Path) -> TimmArchitecture | str:
    """Description of an architecture, from its file in ``folder`` where that is up to date.

    Where it cannot be described, the reason. ``StorageError`` if the folder cannot be written.
    """
    found = _read(folder / f"{name}.npz")
    if found is not None:
        return found
    try:
        made = describe(name)
    except DataError as error:
        return str(error)
    _write(folder / f"{name}.npz", made)
    return made


@contextmanager
def without_weights() -> Iterator[None]:
    """Build modules on the ``meta`` device, without filling weights."""
    torch: Any = require("torch", extra="embed", purpose=_PURPOSE)
    with torch.device("meta"), _not_filling()():
        yield


@cache
def _not_filling() -> Any:
    torch: Any = require("torch", extra="embed", purpose=_PURPOSE)
    overrides: Any = require("torch.overrides", extra="embed", purpose=_PURPOSE)

    class NotFilling(overrides.TorchFunctionMode):  # type: ignore[misc]
        """Passes over in-place functions that only fill a tensor without storage."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if getattr(func, "__name__", "") in _FILLING:
                # Functions of torch.nn.init come with names for everything.
                filled = args[0] if args else (kwargs or {}).get("tensor")
                if isinstance(filled, torch.Tensor) and filled.is_meta:
                    return filled
            return func(*args, **(kwargs or {}))

    return NotFilling


def _weights(timm: Any, card: ModelCard, model: Any) -> Iterator[ModelCard]:
    n_classes = int(getattr(model, "num_classes", 0) or 0)
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    n_head = sum(
        weight.numel()
        for key, weight in model.named_parameters()
        if any(key.startswith(f"{head}.") for head in heads)
    )
    n_body = sum(weight.numel() for weight in model.parameters()) - n_head
    for key, config in sorted(timm.models.get_arch_pretrained_cfgs(card.model_id).items()):
        # Configurations without weights stand for training from scratch.
        if not config.has_weights or "." not in key:
            continue
        classes = int(config.num_classes or 0)
        per_class = n_head // n_classes if n_classes else 0
        size = max(config.input_size[1:])
        tag = key.partition(".")[2]
        yield replace(
            card,
            model_id=f"{card.model_id}.{tag}",
            n_parameters=n_body + per_class * classes or None,
            gmacs=card.gmacs if size == card.input_size else None,
            input_size=size,
            pretrained_tag=tag,
            n_source_classes=classes or None,
            licence=config.license or None,
        )


@cache
def _made_by() -> str:
    """Digest of what a file depends on: releases of torch and timm, and the words' views."""
    parts = [version("torch"), version("timm"), str(_RECORD_VERSION), repr(VIEWS)]
    return sha256("\n".join(parts).encode()).hexdigest()


def _write(path: Path, made: TimmArchitecture) -> None:
    cards = [asdict(card) for card in (made.card, *made.weights)]
    about = json.dumps({"cards": cards, "seconds": made.seconds, "made_by": _made_by()})
    way_out = "check that the folder is writable and has free space"
    write_arrays(path, way_out=way_out, about=about, words=made.words)


def _read(path: Path) -> TimmArchitecture | None:
    """``None`` where the file is absent, damaged or out of date."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    try:
        about, words = json.loads(str(arrays["about"])), arrays["words"]
        if about["made_by"] != _made_by():
            return None
        card, *weights = MODELS.from_rows(about["cards"])
    except (ValueError, KeyError, TypeError):
        return None
    return TimmArchitecture(
        card=card, weights=tuple(weights), words=words, seconds=about["seconds"]
    )
