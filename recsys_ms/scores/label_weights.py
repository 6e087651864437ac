"""Finds the weights of foundation models on disk or in the hub's cache, and fingerprints them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

from safetensors import SafetensorError

from recsys_ms.core.errors import DataError, RecsysError, UsageError
from recsys_ms.core.files import sha256_file
from recsys_ms.core.optional import require
from recsys_ms.core.types import JsonDict

#: The extra that brings torch, transformers and open_clip.
EXTRA: Final = "embed"
#: Prefixes of open_clip for a name on the Hugging Face hub and for a folder.
HUB: Final = "hf-hub:"
FOLDER: Final = "local-dir:"

_SAFE: Final = (
    "*.json",
    "*.txt",
    "*.model",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)
# Of a repository without safetensors alone: the same numbers in two formats are fetched once.
_OLDER: Final = (*_SAFE, "pytorch_model*.bin", "open_clip_pytorch_model.bin")
# Errors of transformers, open_clip, safetensors and torch.load (which refuses pickled code).
_READ_ERRORS: Final = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    EOFError,
    AssertionError,
    SafetensorError,
    UnpicklingError,
)
_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".pth"})
_WORDS: Final = frozenset({".json", ".txt", ".model"})
_VOCABULARIES: Final = frozenset({"tokenizer.json", "vocab.json", "vocab.txt"})


def short_name(source: str | Path) -> str:
    """Last part of a folder, all of a name on the hub."""
    text = str(source).removeprefix(HUB).removeprefix(FOLDER)
    path = Path(text).expanduser()
    return path.resolve().name if isinstance(source, Path) or path.is_dir() else text


def model_folder(source: str | Path) -> Path:
    """Folder that holds a model: itself, or the place in the Hugging Face hub's cache.

    A name in the cache is not looked up in the hub again, so that an embedding does not change
    because a repository did; ``HF_HUB_OFFLINE=1`` forbids downloads. A ``Path``, or a text that
    starts with ``/``, ``.`` or ``~``, is never looked up there. ``UsageError`` where there is no
    such folder, or weights are neither in the cache nor downloadable.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not _files(path, _WEIGHTS):
            raise UsageError(
                f"{path}: holds no weights ({', '.join(sorted(_WEIGHTS))}); pass the folder that "
                "save_pretrained wrote"
            )
        return path
    name = str(source)
    if isinstance(source, Path) or name.startswith(("/", ".", "~")) or path.exists():
        raise UsageError(
            f"{source}: is not a folder; pass the folder that save_pretrained wrote, or a name on "
            "the Hugging Face hub"
        )
    return _hub_folder(name)


def read_settings(folder: Path, name: str) -> JsonDict:
    """JSON settings in a model's folder, read without the library that wrote them."""
    path = folder / name
    with reading(str(path)):
        settings = json.loads(path.read_bytes())
    if not isinstance(settings, dict):
        raise DataError(f"{path}: holds {type(settings).__name__}, expected settings by name")
    return settings


def check_vocabulary(folder: Path) -> None:
    """Raise ``DataError`` for a folder without a vocabulary.

    transformers makes an empty one: all texts of one length would have one embedding.
    """
    names = {path.name for path in folder.iterdir()}
    if not names & _VOCABULARIES and not any(name.endswith(".model") for name in names):
        raise DataError(
            f"{folder}: holds no vocabulary ({', '.join(sorted(_VOCABULARIES))} or *.model); save "
            "the tokenizer beside the model"
        )


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the weights, settings and vocabularies in ``folder``."""
    return _digest([(path.name, sha256_file(path)) for path in _files(folder, _WEIGHTS | _WORDS)])


def fingerprint(kind: str, name: str, **settings: str | int | None) -> str:
    """Digest of an encoder's class, name and settings, weights among them."""
    return _digest([kind, name, sorted(settings.items())])


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn errors of libraries about missing or damaged files of a model into ``DataError``."""
    try:
        yield
    except RecsysError:
        raise
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{what}: cannot be read as a model ({type(error).__name__}: {reason}); fetch the "
            "weights again, or pass a folder that holds configuration, vocabulary and weights"
        ) from error


def _hub_folder(name: str) -> Path:
    hub = require("huggingface_hub", extra=EXTRA, purpose=f"find the weights of {name}")
    failure: Exception | None = None
    for is_local, patterns in ((True, _OLDER), (False, _SAFE), (False, _OLDER)):
        options = {"allow_patterns": list(patterns), "local_files_only": is_local}
        try:
            found = Path(hub.snapshot_download(name, **options))
        except (OSError, ValueError) as error:
            failure = error
            continue
        if _files(found, _WEIGHTS):
            return found
    reason = "its repository holds none" if failure is None else type(failure).__name__
    raise UsageError(
        f"{name}: no weights in the cache of the Hugging Face hub, and no download ({reason}); "
        f"pass a local folder, or run once with a network: hf download {name}"
    ) from failure


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
