"""The reading side of the inbox: files to runs and rejects, then into the archive."""

import gzip
import json
import logging
import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from recsys_ms.core.errors import DataError, StorageError
from recsys_ms.core.files import fsync_directory
from recsys_ms.history.inbox import FORMAT, FORMAT_KEY, PROBLEM_KEY
from recsys_ms.history.quarantine import ReadBatch, Reject
from recsys_ms.history.run import Run
from recsys_ms.history.schema import runs_to_table

_LOG = logging.getLogger(__name__)

#: Readers whose rejects hold the JSON fields of one run.
JSON_READERS: Final = ("inbox", "run")
_FILES_PER_BATCH: Final = 10_000


def list_inbox(folder: Path) -> list[Path]:
    """Finished files of an inbox, oldest first; half-written ones start with a dot.

    Raises
    ------
    DataError
        There is no such folder.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix == ".json" and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise DataError(
            f"{folder}: the inbox cannot be read ({error.strerror}); name a folder of run files"
        ) from error


def read_inbox(paths: Sequence[Path], done: list[Path]) -> Iterator[ReadBatch]:
    """Read inbox files, each one run.

    Parameters
    ----------
    paths : sequence of Path
        What :func:`list_inbox` gave.
    done : list of Path
        Gets every file that was read; the others stay where they are.
    """
    for start in range(0, len(paths), _FILES_PER_BATCH):
        runs: list[Run] = []
        files: list[str] = []
        rejects: list[Reject] = []
        for path in paths[start : start + _FILES_PER_BATCH]:
            try:
                data = path.read_bytes()
            except OSError as error:
                _LOG.warning("%s: left in the inbox, it cannot be read (%s)", path, error)
                continue
            done.append(path)
            text = data.decode(errors="surrogateescape")
            try:
                runs.append(parse_run(text))
                files.append(path.name)
            except DataError as error:
                rejects.append(
                    Reject(file=path.name, line=None, reason=str(error), raw=text, reader="inbox")
                )
        yield ReadBatch(runs=runs_to_table(runs), rejects=tuple(rejects), file=tuple(files))


def parse_run(text: str) -> Run:
    """Run from the text of an inbox file.

    Raises
    ------
    DataError
        Not UTF-8, not JSON, or not the fields of a run.
    """
    try:
        text.encode()
        payload = json.loads(text)
    except UnicodeEncodeError as error:
        raise DataError("the file is not UTF-8; an inbox file is UTF-8 JSON") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the file is not whole JSON ({error})") from error
    if not isinstance(payload, dict):
        raise DataError(f"the file holds a {type(payload).__name__}, wanted the fields of one run")
    version = payload.pop(FORMAT_KEY, FORMAT)
    if version != FORMAT:
        raise DataError(f"format {version!r} is unknown; this version of recsys-ms reads {FORMAT}")
    problem = payload.pop(PROBLEM_KEY, None)
    if problem is not None:
        raise DataError(f"{problem}; correct the fields and take {PROBLEM_KEY!r} out")
    return Run.from_payload(payload)


def retry_json(reject: Reject) -> ReadBatch:
    """Read a reject of one of :data:`JSON_READERS` again."""
    try:
        table = runs_to_table([parse_run(reject.raw)])
    except DataError as error:
        again = Reject(
            file=reject.file,
            line=reject.line,
            reason=str(error),
            raw=reject.raw,
            reader=reject.reader,
            options=reject.options,
        )
        return ReadBatch(runs=runs_to_table([]), rejects=(again,))
    return ReadBatch(runs=table, file=reject.file)


def archive_inbox(paths: Sequence[Path], archive: Path) -> None:
    """Bundle files in one ``archive/<date>/inbox-<time>.tar.gz``, then delete them.

    Killed in between, the files are still in the inbox: they are duplicates at the next ingest.

    Raises
    ------
    StorageError
        The archive cannot be written, or a file not deleted; the files stay.
    """
    if not paths:
        return
    now = datetime.now(UTC)
    folder = archive / now.strftime("%Y-%m-%d")
    bundle = folder / f"inbox-{now.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}.tar.gz"
    temporary = bundle.with_name(f".{bundle.name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_bundle(paths, temporary)
        temporary.replace(bundle)
        fsync_directory(folder)
        for path in paths:
            path.unlink(missing_ok=True)
        fsync_directory(paths[0].parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{bundle}: the inbox files cannot be archived ({error.strerror or error}); their runs "
            "are in the history and the files in the inbox, where the next ingest finds them again"
        ) from error


def _write_bundle(paths: Sequence[Path], bundle: Path) -> None:
    with bundle.open("wb") as handle:
        with (
            gzip.GzipFile(fileobj=handle, mode="wb", compresslevel=6) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as tar,
        ):
            for path in paths:
                tar.add(path, arcname=path.name, recursive=False)
        handle.flush()
        os.fsync(handle.fileno())
