"""Fitted state on disk: JSON, safetensors and LightGBM text, each file with its SHA-256. No pickle.

Layout of an artifact directory::

    manifest.json        format, versions, sha256 of every other file, what it was trained on
    state.json           JSON values of the state tree
    arrays.safetensors   its arrays, named by their path in the tree
    texts/NAME.txt       its texts (LightGBM models), named likewise
"""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from recsys_ms.core.errors import ArtifactError, StorageError
from recsys_ms.core.files import file_errors, fsync, sha256_file
from recsys_ms.core.state import State
from recsys_ms.core.types import JsonDict

FORMAT_NAME: Final = "recsys-ms-ranker"
#: 3: classes and attributes renamed, names of arrays in the tree (:mod:`recsys_ms.core.state`).
FORMAT_VERSION: Final = 3

_MANIFEST: Final = "manifest.json"
_STATE: Final = "state.json"
_ARRAYS: Final = "arrays.safetensors"
_TEXTS: Final = "texts"
_SEPARATOR: Final = "/"


def save_artifact(state: State, folder: Path, *, manifest: JsonDict) -> None:
    """Write ``state`` to ``folder`` atomically: to a temporary folder, synced and renamed.

    Parameters
    ----------
    state : State
        State tree of a fitted object.
    folder : Path
        Must not exist: artifacts are immutable.
    manifest : dict
        Recorded beside format and checksums (history version, seeds, back-test, …).

    Raises
    ------
    ArtifactError
        ``folder`` exists.
    StorageError
        The folder cannot be written to.
    """
    if folder.exists():
        raise ArtifactError(
            f"{folder}: already exists and artifacts are never overwritten; choose a new folder"
        )
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        _write_state(state, temporary)
        checksums = {
            str(path.relative_to(temporary)): sha256_file(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        full = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **manifest}
        full["files"] = checksums
        _write(temporary / _MANIFEST, json.dumps(full, indent=1, sort_keys=True).encode())
        for inner in (temporary / _TEXTS, temporary):
            fsync(inner)
        temporary.rename(folder)
        fsync(folder.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"{folder}: the artifact cannot be written ({error.strerror or error}); "
            "check that the folder is writable and has free space"
        ) from error


def read_manifest(folder: Path) -> JsonDict:
    """Read and check the manifest alone.

    Raises
    ------
    ArtifactError
        Missing, not JSON, of another format, or of a newer format version.
    """
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{folder}: no readable {_MANIFEST} ({error.strerror}); "
            "point to a folder written by Ranker.save or by nightly"
        ) from error
    except ValueError as error:
        raise ArtifactError(
            f"{path}: not valid JSON ({error}); the artifact is truncated or was edited, "
            "restore it or train again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_NAME:
        raise ArtifactError(f"{path}: not a {FORMAT_NAME} manifest; point to a ranker artifact")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version}, and this recsys-ms reads up to {FORMAT_VERSION}; "
            "upgrade recsys-ms, or train again with this version"
        )
    return manifest


def load_artifact(folder: Path) -> tuple[State, JsonDict]:
    """Read a state tree back, after checking the SHA-256 of every file.

    Returns
    -------
    state : State
    manifest : dict

    Raises
    ------
    ArtifactError
        A file is missing, extra, altered or truncated, or the format is newer or older.
    """
    manifest = read_manifest(folder)
    version = manifest["format_version"]
    if version < FORMAT_VERSION:
        raise ArtifactError(
            f"{folder}: format version {version}, and this recsys-ms reads {FORMAT_VERSION}; train "
            "again with this version"
        )
    expected: dict[str, str] = manifest.get("files", {})
    present = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != _MANIFEST
    }
    if present != set(expected):
        missing, extra = sorted(set(expected) - present), sorted(present - set(expected))
        raise ArtifactError(
            f"{folder}: the files differ from the manifest (missing {missing}, extra {extra}); "
            "restore the folder or train again"
        )
    for name, digest in expected.items():
        if sha256_file(folder / name) != digest:
            raise ArtifactError(
                f"{folder / name}: its SHA-256 is not the one in {_MANIFEST}; the file was altered "
                "or truncated, restore it or train again"
            )
    return _read_state(folder), manifest


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _write_state(state: State, folder: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    texts: dict[str, str] = {}
    tree = _flatten(state, "", arrays, texts)
    (folder / _TEXTS).mkdir()
    for number, (name, text) in enumerate(sorted(texts.items())):
        _write(folder / _TEXTS / f"{number:03d}.txt", text.encode())
        texts[name] = f"{number:03d}.txt"
    flags = {name: array.flags for name, array in arrays.items()}
    by_column = sorted(n for n, f in flags.items() if f.f_contiguous and not f.c_contiguous)
    document = {"tree": tree, "texts": texts, "by_column": by_column}
    _write(folder / _STATE, json.dumps(document, sort_keys=True, allow_nan=False).encode())
    # safetensors stores the bytes of an array, so strided views must be laid out first. Arrays laid
    # out by column are restored so: products add up in the order of memory.
    _write(folder / _ARRAYS, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))


def _flatten(
    state: State, prefix: str, arrays: dict[str, NDArray[np.generic]], texts: dict[str, str]
) -> JsonDict:
    arrays |= {prefix + name: array for name, array in state.arrays.items()}
    texts |= {prefix + name: text for name, text in state.texts.items()}
    return {
        "values": state.values,
        "arrays": list(state.arrays),
        "texts": list(state.texts),
        "children": {
            name: _flatten(child, f"{prefix}{name}{_SEPARATOR}", arrays, texts)
            for name, child in state.children.items()
        },
    }


def _read_state(folder: Path) -> State:
    caught = (OSError, ValueError, KeyError, TypeError, SafetensorError)
    what = f"{folder}: the state does not match its format"
    with file_errors(what, "train again", catch=caught, raises=ArtifactError):
        document = json.loads((folder / _STATE).read_bytes())
        arrays = load_file(folder / _ARRAYS)
        arrays |= {name: np.asfortranarray(arrays[name]) for name in document["by_column"]}
        texts = {
            name: (folder / _TEXTS / file).read_bytes().decode()
            for name, file in document["texts"].items()
        }
        return _unflatten(document["tree"], "", arrays, texts)


def _unflatten(
    node: Any, prefix: str, arrays: dict[str, NDArray[np.generic]], texts: dict[str, str]
) -> State:
    return State(
        values=node["values"],
        arrays={name: arrays[prefix + name] for name in node["arrays"]},
        texts={name: texts[prefix + name] for name in node["texts"]},
        children={
            name: _unflatten(child, f"{prefix}{name}{_SEPARATOR}", arrays, texts)
            for name, child in node["children"].items()
        },
    )
