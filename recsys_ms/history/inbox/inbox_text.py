"""The text of an inbox file: a run, how far its recorder had come, and what it had logged."""

import json
from dataclasses import dataclass
from typing import Any, Final

from recsys_ms.core.errors import DataError
from recsys_ms.history.inbox.inbox import CURVE_KEY, FORMAT, FORMAT_KEY, PROBLEM_KEY, PROGRESS_KEY
from recsys_ms.history.recorder.journal import Point
from recsys_ms.history.run import Run

_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class FileRun:
    """What an inbox file holds.

    Attributes
    ----------
    run : Run
        The run.
    points : tuple of Point
        All values that were logged; empty where the file has no curve.
    progress : int or None
        See ``ReadBatch.progress``.
    """

    run: Run
    points: tuple[Point, ...]
    progress: int | None


def parse_file(text: str) -> FileRun:
    """Read the text of an inbox file.

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
    progress = payload.pop(PROGRESS_KEY, None)
    if progress is not None and not (_is_whole(progress) and progress >= 0):
        raise DataError(f"{PROGRESS_KEY}: got {progress!r}, wanted a whole number from 0")
    points = _points(payload.pop(CURVE_KEY, None))
    return FileRun(Run.from_payload(payload), points, progress)


def _points(rows: Any) -> tuple[Point, ...]:
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise DataError(f"{CURVE_KEY}: got a {type(rows).__name__}, wanted a list of values")
    return tuple(_point(row, number) for number, row in enumerate(rows))


def _point(row: Any, number: int) -> Point:
    match row:
        case [step, epoch, str(metric), split, int() | float() as value] if (
            (step is None or _is_whole(step))
            and (epoch is None or _is_number(epoch))
            and metric
            and (split is None or isinstance(split, str))
            and _is_number(value)
        ):
            return Point(step, None if epoch is None else float(epoch), metric, split, float(value))
    raise DataError(
        f"{CURVE_KEY}: entry {number} is {str(row)[:100]}, wanted [step, epoch, metric, split, "
        "value] of a whole number, a number, a text, a text and a number; all but metric and value "
        "may be null"
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _INT64


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)
