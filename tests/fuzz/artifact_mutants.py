"""Changed artifacts, each made from a seed: what a person, a disk or an attacker may do to one."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

#: Values that nobody expects, as texts of JSON.
ODD_JSON = (
    "null", "true", "0", "-1", "1", "2147483648", "9223372036854775807", "-9223372036854775808",
    "1" + "0" * 30, "1" + "0" * 400, "1e308", "-1e308", "1e-320", "1e999", "NaN", "-Infinity",
    '""', '"x"', '"\\ud800"', '"\\u0000"', '"../../etc/passwd"', '"' + "y" * 5000 + '"', "[]", "{}",
    "[[]]", '{"array": "x"}', '{"float": "nan"}', '{"float": "inf"}', '{"tuple": [1, 2]}',
    '{"dict": [[1, 2]]}', '{"dict": [[[1], 2]]}', '{"object": "builtins.int"}',
    '{"a": 1, "a": 2}', "[" * 50 + "]" * 50, "[" * 200_000 + "]" * 200_000,
)  # fmt: skip
ODD_NUMBERS = (
    np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e300, -1e300, 1e-300, 3.4e38, 0.5, 1e9, 2.0**31,
    2.0**62, -(2.0**62), 7.0,
)  # fmt: skip
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int8", "uint8", "uint64", "bool")


@dataclass
class Artifact:
    """Files of an artifact by name, and what is put in their place or beside them."""

    files: dict[str, bytes]
    #: Makes something that is not a regular file at a path.
    special: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    #: Whether the digests in the manifest are set right again.
    is_resealed: bool = True

    @classmethod
    def read(cls, folder: Path) -> "Artifact":
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in found})

    def write(self, folder: Path) -> None:
        if self.is_resealed:
            self._reseal()
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name not in self.special:
                path.write_bytes(data)
        for name, make in self.special.items():
            make(folder / name)

    def _reseal(self) -> None:
        try:
            manifest = json.loads(self.files["manifest.json"])
            names = sorted(self.files.keys() - {"manifest.json"})
            manifest["files"] |= {
                name: hashlib.sha256(self.files[name]).hexdigest() for name in names
            }
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        self.files["manifest.json"] = json.dumps(manifest).encode()


def mutant(original: dict[str, bytes], seed: int) -> tuple[Artifact, str]:
    """An artifact with one to three changes, and what they are."""
    rng = np.random.default_rng(seed)
    made = Artifact(dict(original))
    kinds = [_json_value, _array, _array, _bytes, _file, _json_value]
    told = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        told.append(kinds[int(rng.integers(len(kinds)))](made, rng))
    return made, "; ".join(told)


def _json_value(made: Artifact, rng: np.random.Generator) -> str:
    """One value of a JSON document (of one line, in JSON lines) is another."""
    names = ["manifest.json", "state.json", "state.json", *(n for n in made.files if "/" in n)]
    name = str(rng.choice([each for each in names if each in made.files]))
    lines = made.files[name].decode(errors="replace").split("\n")
    is_lines = name.endswith(".txt")
    at = int(rng.integers(len(lines))) if is_lines else 0
    try:
        document = json.loads(lines[at] if is_lines else "\n".join(lines))
    except (ValueError, RecursionError):
        return f"{name} is not JSON any more"
    places = [*_places(document)]
    if not places:
        return f"{name} is empty"
    parent, key = places[int(rng.integers(len(places)))]
    odd = str(rng.choice(ODD_JSON))
    action = str(rng.choice(["replace", "replace", "replace", "delete", "copy", "swap"]))
    if action == "replace":
        parent[key] = "\u2606"
    elif action == "delete":
        del parent[key]
    elif action == "copy" and isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        other, its = places[int(rng.integers(len(places)))]
        try:
            parent[key] = json.loads(json.dumps(other[its]))
        except (LookupError, TypeError):
            return "nothing"
    text = json.dumps(document).replace('"\\u2606"', odd)
    made.files[name] = "\n".join(
        [*lines[:at], text, *lines[at + 1 :]] if is_lines else [text]
    ).encode()
    if name == "manifest.json":
        made.is_resealed = "files" not in text or rng.random() < 0.5
    return f"{name} {action} {str(key)[:40]!r}: {odd[:40]}"


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in list(pairs):
        yield node, key
        yield from _places(value)


def _array(made: Artifact, rng: np.random.Generator) -> str:
    """One array has other values, another shape or another type."""
    name = "arrays.safetensors"
    try:
        arrays = load(made.files[name])
    except Exception:  # noqa: BLE001
        return "no arrays any more"
    if not arrays:
        return "no arrays"
    own = str(rng.choice(sorted(arrays)))
    array = arrays[own].copy()
    action = str(
        rng.choice(
            [
                "value",
                "value",
                "value",
                "all",
                "type",
                "cut",
                "grow",
                "reshape",
                "swap",
                "rename",
                "empty",
            ]
        )
    )
    number = float(rng.choice(ODD_NUMBERS))
    with np.errstate(all="ignore"):
        if action == "value" and array.size:
            array.flat[int(rng.integers(array.size))] = _as(number, array.dtype)
        elif action == "all":
            array[...] = _as(number, array.dtype)
        elif action == "type":
            array = array.astype(str(rng.choice(DTYPES)))
        elif action == "cut" and array.ndim and array.shape[-1]:
            array = array[..., :-1] if rng.random() < 0.5 else array[:-1]
        elif action == "grow" and array.ndim:
            array = np.repeat(array, 2, axis=int(rng.integers(array.ndim)))
        elif action == "reshape":
            array = array.reshape(-1) if rng.random() < 0.5 else array[None]
        elif action == "swap":
            other = str(rng.choice(sorted(arrays)))
            array, arrays[other] = arrays[other], array
        elif action == "rename":
            arrays[own + "x"] = arrays.pop(own)
        elif action == "empty":
            array = array.reshape(-1)[:0]
    if action != "rename":
        arrays[own] = array
    made.files[name] = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    return f"array {own} {action} {number}"


def _as(number: float, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        clipped = int(np.clip(np.nan_to_num(number), -(2.0**62), 2.0**62))
        return max(info.min, min(info.max, clipped))
    return number


def _bytes(made: Artifact, rng: np.random.Generator) -> str:
    """Bytes of a file are others, fewer or more."""
    name = str(rng.choice(sorted(made.files)))
    data = bytearray(made.files[name])
    action = str(rng.choice(["flip", "cut", "drop", "noise", "empty", "twice", "zeros"]))
    at = int(rng.integers(len(data) + 1))
    if action == "flip" and data:
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif action == "cut":
        del data[at:]
    elif action == "drop":
        del data[at : at + int(rng.integers(1, 100))]
    elif action == "noise":
        data[at : at + 8] = rng.bytes(8)
    elif action == "empty":
        data.clear()
    elif action == "twice":
        data *= 2
    else:
        data[at : at + 8] = bytes(8)
    made.files[name] = bytes(data)
    return f"{name} {action} at {at}"


def _file(made: Artifact, rng: np.random.Generator) -> str:
    """A file is a link, a pipe, a folder, a device, too large, missing, or has another name."""
    name = str(rng.choice(sorted(made.files)))
    action = str(rng.choice([*_SPECIAL, "missing", "extra", "outside", "renamed"]))
    if action in _SPECIAL:
        made.special[name] = _SPECIAL[action]
    elif action == "missing":
        del made.files[name]
    elif action == "extra":
        made.files["texts/999.txt"] = b"more"
    elif action == "renamed":
        made.files[f"{name}x"] = made.files.pop(name)
    else:
        data = made.files.get("manifest.json", b"{}")
        made.files["manifest.json"] = data.replace(b'"state.json"', b'"../../state.json"')
        made.is_resealed = False
    return f"{name} {action}"


def _large(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(5 << 30)


_SPECIAL: dict[str, Callable[[Path], None]] = {
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "link": lambda path: path.symlink_to("/etc/hostname"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "large": _large,
}
