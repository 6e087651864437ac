"""Fitted state on disk: JSON, safetensors and texts, each file with its SHA-256. No pickle.

Layout of an artifact directory::

    manifest.json        format, versions, sha256 of every other file, what it was trained on
    state.json           JSON values of the state tree
    arrays.safetensors   its arrays, named by their path in the tree
    texts/NNN.txt        its texts (the cards of the catalog), named likewise
    signature            HMAC of the manifest, where a key was given
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final, Required, TypedDict

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys_ms.core.declared import BAD_VALUE_ERRORS, check_declared
from recsys_ms.core.errors import ArtifactError, DataError
from recsys_ms.core.files import (
    file_errors,
    fsync,
    read_regular,
    reason_of,
    sha256_file,
    written_beside,
)
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.state import State
from recsys_ms.core.types import JsonDict
from recsys_ms.serving.signature import SIGNATURE_FILE, check_signature, signature_of

FORMAT_NAME: Final = "recsys-ms-ranker"
#: 3: classes and attributes renamed, names of arrays in the tree (:mod:`recsys_ms.core.state`).
#: 4: trees are arrays, no longer LightGBM's text.
FORMAT_VERSION: Final = 4

_MANIFEST: Final = "manifest.json"
_STATE: Final = "state.json"
_ARRAYS: Final = "arrays.safetensors"
_TEXTS: Final = "texts"
_SEPARATOR: Final = "/"
#: Kinds of NumPy's types that are stored.
_KINDS: Final = "biuf"
#: A ranker of a million interactions has about 100 MB; what is read is in memory twice.
_MOST_BYTES: Final = 1 << 30
_MOST_MANIFEST: Final = 1 << 26
_N_NAMED: Final = 5
_RESTORE: Final = "the artifact is truncated or was altered, restore it or train again"
#: What the parsers raise on bytes that are not theirs.
_CAUGHT: Final = (*BAD_VALUE_ERRORS, SafetensorError)


def save_artifact(
    state: State, folder: Path, *, manifest: JsonDict, key: bytes | None = None
) -> None:
    """Write ``state`` to ``folder`` atomically: to a temporary folder, synced and renamed.

    Parameters
    ----------
    state : State
        State tree of a fitted object.
    folder : Path
        Must not exist: artifacts are immutable.
    manifest : dict
        Recorded beside format and checksums (history version, seeds, back-test, …).
    key : bytes, optional
        Sign the manifest, and by it every file, with this key.

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
    way_out = "check that the folder is writable and has free space"
    what = f"{folder}: the artifact cannot be written"
    with file_errors(what, way_out), written_beside(folder) as temporary:
        temporary.mkdir(parents=True)
        _write_state(state, temporary)
        checksums = {
            str(path.relative_to(temporary)): sha256_file(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        full = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **manifest}
        full["files"] = checksums
        signed = json.dumps(full, indent=1, sort_keys=True).encode()
        _write(temporary / _MANIFEST, signed)
        if key is not None:
            _write(temporary / SIGNATURE_FILE, signature_of(signed, key))
        for inner in (temporary / _TEXTS, temporary):
            fsync(inner)


def read_manifest(folder: Path) -> JsonDict:
    """Read and check the manifest alone.

    Raises
    ------
    ArtifactError
        Missing, not JSON, of another format, of a newer format version, or a known entry of it is
        of another type.
    """
    return _read_manifest(folder)[0]


def _read_manifest(folder: Path) -> tuple[JsonDict, bytes]:
    path = folder / _MANIFEST
    try:
        data = read_regular(path, max_bytes=_MOST_MANIFEST, raises=ArtifactError)
    except ArtifactError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ArtifactError(
            f"{folder}: no readable {_MANIFEST} ({reason_of(error.__cause__)}); point to a folder "
            "written by Ranker.save or by nightly"
        ) from error
    with file_errors(f"{path}: not valid JSON", _RESTORE, catch=_CAUGHT, raises=ArtifactError):
        manifest = parse_json(data)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_NAME:
        raise ArtifactError(f"{path}: not a {FORMAT_NAME} manifest; point to a ranker artifact")
    version = manifest.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version!r:.40}, and this recsys-ms reads up to "
            f"{FORMAT_VERSION}; upgrade recsys-ms, or train again with this version"
        )
    with file_errors(f"{path}: damaged", _RESTORE, catch=DataError, raises=ArtifactError):
        check_declared({"the manifest": manifest}, {"the manifest": _Manifest})
    return manifest, data


class _Decision(TypedDict, total=False):
    publish: bool
    reason: str
    decided_by: str | None


class _Manifest(TypedDict, total=False):
    """Entries that code relies on where they are there."""

    files: Required[dict[str, str]]
    ranker: str
    config: JsonDict
    history_version: int | None
    n_tasks: int
    n_models: int
    n_interactions: int
    directions: dict[str, str]
    features: list[str]
    trained_at: str
    versions: dict[str, str]
    decision: _Decision
    checks: list[Any]
    seconds: dict[str, float]
    backtest: JsonDict | None
    newer: JsonDict | None


def load_artifact(folder: Path, *, key: bytes | None = None) -> tuple[State, JsonDict]:
    """Read a state tree back, after checking the SHA-256 of every file.

    Only regular files are opened, and each is read once: what was checked is what is parsed.

    Parameters
    ----------
    folder : Path
        The artifact.
    key : bytes, optional
        Refuse an artifact that is not signed with this key.

    Returns
    -------
    state : State
    manifest : dict

    Raises
    ------
    ArtifactError
        A file is missing, extra, altered or truncated, is not a regular file, or is not what this
        format holds; the format is newer or older; or the signature is missing or wrong.
    """
    manifest, signed = _read_manifest(folder)
    if key is not None:
        check_signature(folder, signed, key)
    version = manifest["format_version"]
    if version < FORMAT_VERSION:
        raise ArtifactError(
            f"{folder}: format version {version}, and this recsys-ms reads {FORMAT_VERSION}; train "
            "again with this version"
        )
    expected: dict[str, str] = manifest["files"]
    present = _files_in(folder) - {_MANIFEST, SIGNATURE_FILE}
    if present != set(expected):
        missing, extra = sorted(set(expected) - present), sorted(present - set(expected))
        raise ArtifactError(
            f"{folder}: the files differ from the manifest (missing {_named(missing)}, extra "
            f"{_named(extra)}); restore the folder or train again"
        )
    contents = {}
    for name, digest in expected.items():
        data = read_regular(folder / name, max_bytes=_MOST_BYTES, raises=ArtifactError)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(
                f"{folder / name}: its SHA-256 is not the one in {_MANIFEST}; the file was altered "
                "or truncated, restore it or train again"
            )
        contents[name] = data
    return _read_state(folder, contents), manifest


def _files_in(folder: Path) -> set[str]:
    """Names of all that is in a folder but folders; a link to a folder is not entered."""
    found: set[str] = set()
    for root, folders, files in os.walk(folder):
        inner = Path(root).relative_to(folder)
        links = [name for name in folders if Path(root, name).is_symlink()]
        found.update((inner / name).as_posix() for name in (*files, *links))
    return found


def _named(names: list[str]) -> str:
    return f"{names[:_N_NAMED]}" + f" and {len(names) - _N_NAMED} more" * (len(names) > _N_NAMED)


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


def _read_state(folder: Path, contents: dict[str, bytes]) -> State:
    what = f"{folder}: the state does not match its format"
    with file_errors(what, _RESTORE, catch=_CAUGHT, raises=ArtifactError):
        if absent := sorted({_STATE, _ARRAYS} - contents.keys()):
            raise DataError(f"it has no {absent[0]}")
        document = parse_json(contents[_STATE], finite=True)
        check_declared({_STATE: document}, {_STATE: _Document})
        arrays = {name: _writable(array) for name, array in load(contents[_ARRAYS]).items()}
        for name in arrays.keys() & set(document["by_column"]):
            arrays[name] = np.asfortranarray(arrays[name])
        files = {n: f"{_TEXTS}/{file}" for n, file in document["texts"].items()}
        texts = {n: contents[file].decode() for n, file in files.items() if file in contents}
        return _unflatten(document["tree"], "", arrays, texts)


class _Node(TypedDict):
    values: JsonDict
    arrays: list[str]
    texts: list[str]
    children: "dict[str, _Node]"


class _Document(TypedDict):
    tree: _Node
    texts: dict[str, str]
    by_column: list[str]


def _writable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    if array.dtype.kind not in _KINDS:
        raise DataError(f"it has an array of {array.dtype}")
    return np.array(array)


def _unflatten(
    node: Any, prefix: str, arrays: dict[str, NDArray[np.generic]], texts: dict[str, str]
) -> State:
    def own(stored: dict[str, Any], kind: str) -> dict[str, Any]:
        if absent := [name for name in node[kind] if prefix + name not in stored]:
            raise DataError(f"{kind} has no {prefix}{absent[0]}")
        return {name: stored[prefix + name] for name in node[kind]}

    return State(
        values=node["values"],
        arrays=own(arrays, "arrays"),
        texts=own(texts, "texts"),
        children={
            name: _unflatten(child, f"{prefix}{name}{_SEPARATOR}", arrays, texts)
            for name, child in node["children"].items()
        },
    )
