"""Reads the records of a JSON document: a list or a dict of objects, at a path inside it."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.json_text import parse_json
from recsys_ms.history.readers.lines import BadRow, open_plain

#: Column with the key of each record, where the records are the values of an object.
KEY: Final = "_key"
_MAX_KEYS: Final = 10_000
#: Bytes of the longest document: parsed, it takes up to 30 times as much.
_MAX_BYTES: Final = 32 << 20


def json_records(path: Path, records: str | None) -> list[dict[str, Any] | BadRow]:
    """Records of a document, in its order, with their keys as :data:`KEY` where it is an object.

    Parameters
    ----------
    path : Path
        JSON, ``.gz`` too.
    records : str or None
        Keys to the records, joined by dots; positions in lists are numbers. ``None`` for the
        document itself. An object whose values are all objects holds one record each; another
        object is one record.

    Raises
    ------
    DataError
        Not JSON, too long, or nothing at the path.
    """
    found = _at(path, _document(path), records)
    if isinstance(found, dict) and found and all(isinstance(each, dict) for each in found.values()):
        return [{KEY: key, **each} for key, each in found.items()]
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list):
        raise DataError(
            f"{path}: got a JSON {type(found).__name__}, expected a list or an object of records"
            + (f" at {records!r}" if records else "")
        )
    return [
        each
        if isinstance(each, dict)
        else BadRow(
            line=at,
            reason=f"got a JSON {type(each).__name__}, expected an object",
            raw=json.dumps(each, ensure_ascii=False),
        )
        for at, each in enumerate(found, start=1)
    ]


def json_keys(path: Path, rows: Iterable[tuple[int, dict[str, Any]] | BadRow]) -> list[str]:
    """Keys of all records, in the order of their first use; ``DataError`` if there are none."""
    names: dict[str, None] = {}
    first_bad: BadRow | None = None
    for row in rows:
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            continue
        names.update(dict.fromkeys(row[1]))
        if len(names) > _MAX_KEYS:
            raise DataError(
                f"{path}: line {row[0]}: more than {_MAX_KEYS} different keys so far; "
                "log what varies from run to run as a dict inside one key"
            )
    if names:
        return list(names)
    if first_bad is None:
        raise DataError(f"{path}: the file is empty; a JSON object for each row is needed")
    raise DataError(
        f"{path}: no row is a JSON object (line {first_bad.line}: {first_bad.reason}); "
        "is it another format?"
    )


def _document(path: Path) -> Any:
    try:
        with open_plain(path) as handle:
            data = handle.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{path}: cannot be read ({error.strerror})") from error
        raise DataError(f"{path}: cannot be read ({error}); copy the file again") from error
    if len(data) > _MAX_BYTES:
        raise DataError(
            f"{path}: a JSON document of more than {_MAX_BYTES} bytes; write one record a line "
            "(.jsonl), which has no limit"
        )
    try:
        return parse_json(data)
    except DataError as error:
        raise DataError(f"{path}: {error}; is it another format?") from error


def _at(path: Path, document: Any, records: str | None) -> Any:
    found = document
    for key in records.split(".") if records else ():
        inside = found
        if isinstance(inside, dict) and key in inside:
            found = inside[key]
        elif isinstance(inside, list) and key.isdecimal() and int(key) < len(inside):
            found = inside[int(key)]
        else:
            known = list(inside)[:20] if isinstance(inside, dict) else type(inside).__name__
            raise DataError(f"{path}: --records {records}: no {key!r} in {known}")
    return found
