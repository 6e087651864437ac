"""One fine-tuning run: its fields, its checks, its identity.

Standard library only, since training jobs import it through :mod:`recsys_ms.history.inbox.inbox`.
The same rules on Arrow tables are in :mod:`recsys_ms.history.store.schema`; a test holds the two
together.
"""

import hashlib
import json
import math
import numbers
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, get_args

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.types import Direction, JsonDict, Status, ValueKind

DIRECTIONS: Final = get_args(Direction)
STATUSES: Final = get_args(Status)
VALUE_KINDS: Final = get_args(ValueKind)

#: Columns that hold one point in time.
TIME_COLUMNS: Final = (c.STARTED_AT, c.FINISHED_AT, c.INGESTED_AT)
#: Columns that hold a JSON object.
JSON_COLUMNS: Final = (c.HYPERPARAMETERS, c.TAGS)
#: An ISO 8601 time that says its zone; without one the moment would have to be guessed.
ISO_WITH_ZONE: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)"
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One logged fine-tuning (DESIGN §3). Whatever the log does not say stays ``None``.

    Attributes
    ----------
    model_id, task_id, metric : str
        What was fine-tuned, on what, and what was measured. Not blank.
    direction : {"max", "min"}
        Whether higher or lower values of the metric are better.
    value : float or None
        Measured value, finite; fractions rather than percent. Required when ``status`` is
        ``finished``; a non-finite value of a failed or running run is kept as ``None``.
    status : {"finished", "failed", "running"}
        Failed runs are kept and do not count as outcomes; a running one may be updated later.
    run_id : str
        Name of the run; blank means :func:`make_run_id` of its identifying fields.
    model_revision, split, dataset_fingerprint, source, source_version : str or None
        Where model, data and record came from.
    value_kind : {"best", "last", "ema"} or None
        Which of a run's values was kept.
    epoch : float or None
        Epoch of the value.
    seed : int or None
        Random seed, 64 bit.
    hyperparameters : mapping
        JSON object of settings. Stored copied, with sorted keys.
    cost_gpu_seconds : float or None
        Cost in GPU seconds, not negative.
    started_at, finished_at, ingested_at : datetime or None
        With a time zone, kept as UTC. ``ingested_at`` is set by the history.
    tags : mapping of str to str
        Free labels.

    Raises
    ------
    DataError
        A field is missing or cannot be meant; the message lists every such field.
    """

    model_id: str
    task_id: str
    metric: str
    direction: Direction
    value: float | None = None
    status: Status = "finished"
    run_id: str = ""
    model_revision: str | None = None
    value_kind: ValueKind | None = None
    split: str | None = None
    epoch: float | None = None
    seed: int | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    cost_gpu_seconds: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    dataset_fingerprint: str | None = None
    source: str | None = None
    source_version: str | None = None
    ingested_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in _clean({name: getattr(self, name) for name in c.RUN_COLUMNS}).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_payload(cls, payload: Mapping[str, object]) -> Self:
        """Build from JSON values: times as ISO 8601 text with a zone, absent fields left out.

        Raises
        ------
        DataError
            An unknown field, a missing one, or a value that cannot be meant.
        """
        unknown = sorted(set(map(str, payload)) - set(c.RUN_COLUMNS))
        if unknown:
            raise DataError(
                f"unknown field {_show(unknown[0])}; a run has {', '.join(c.RUN_COLUMNS)}"
            )
        missing = [name for name in c.REQUIRED_COLUMNS if payload.get(name) is None]
        if missing:
            raise DataError(f"{', '.join(missing)} missing; a run cannot do without")
        given: dict[str, Any] = {k: v for k, v in payload.items() if v is not None}
        return cls(**given)

    def to_payload(self) -> JsonDict:
        """JSON values that :meth:`from_payload` takes; fields that are ``None`` are left out."""
        payload: JsonDict = {}
        for name in c.RUN_COLUMNS:
            value = getattr(self, name)
            if isinstance(value, datetime):
                payload[name] = value.isoformat()
            elif value is not None:
                payload[name] = value
        return payload


def make_run_id(fields: Mapping[str, object]) -> str:
    """Name of a run that the log does not name: ``r-`` and 32 hexadecimal digits.

    The SHA-256 (first 128 bits) of the identifying fields that are known
    (``core.columns.IDENTIFYING_COLUMNS``), each written as ``name=length:text;`` with the length in
    UTF-8 bytes, times as microseconds since 1970 UTC and hyperparameters as canonical JSON. The
    value is not identifying: the same run logged with another value is a conflict, not a new run.

    Parameters
    ----------
    fields : mapping
        Fields of a valid run; hyperparameters as a mapping or as JSON text.
    """
    parts = []
    for name in c.IDENTIFYING_COLUMNS:
        value = fields.get(name)
        if name == c.HYPERPARAMETERS:
            value = canonical_json({} if value is None else value)
        elif isinstance(value, datetime):
            value = microseconds(value)
        if value is not None:
            text = str(value)
            parts.append(f"{name}={len(text.encode())}:{text};")
    return "r-" + hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def canonical_json(value: object) -> str:
    """JSON text of an object with sorted keys and no spaces; text is parsed first.

    Raises
    ------
    DataError
        Not a JSON object: another type, keys that are not text, NaN, or values JSON does not know.
    """
    try:
        if isinstance(value, str):
            value = json.loads(value)
        if not isinstance(value, Mapping):
            raise DataError(f'{_show(value)} is not a JSON object; write {{"name": value}}')
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise DataError(f"key {_show(strange[0])} is not text")
        text = json.dumps(
            dict(value),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
        text.encode()
    except DataError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{_show(value)} cannot be written as JSON ({error})") from error
    return text


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of a time with a zone."""
    return (moment - _EPOCH) // _MICROSECOND


def check_fields(fields: Mapping[str, object]) -> str | None:
    """What is wrong with the fields of a run, or ``None``."""
    try:
        Run.from_payload(fields)
    except DataError as error:
        return str(error)
    return None


def _clean(fields: Mapping[str, object]) -> JsonDict:
    cleaned: JsonDict = {}
    problems: list[str] = []
    for name, value in fields.items():
        try:
            cleaned[name] = _CLEANERS[name](value)
        except DataError as error:
            problems.append(f"{name}: {error}")
    if not problems:
        problems += _clean_value(cleaned)
    if problems:
        raise DataError("; ".join(problems))
    if not cleaned[c.RUN_ID]:
        cleaned[c.RUN_ID] = make_run_id(cleaned)
    return cleaned


def _clean_value(cleaned: JsonDict) -> list[str]:
    value, finished = cleaned[c.VALUE], cleaned[c.STATUS] == "finished"
    if value is not None and not math.isfinite(value):
        if finished:
            return [
                f"value: got {value}, wanted a finite number; a diverged run has status 'failed'"
            ]
        cleaned[c.VALUE] = None
    elif value is None and finished:
        return ["value: missing, and a finished run has one; else its status is 'failed'"]
    return []


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"got {_show(value)}, wanted text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"got {_show(value)}, which is not valid Unicode") from error
    return value if value.strip() else None


def _required_text(value: object) -> str:
    text = _text(value)
    if text is None:
        raise DataError("missing; a run cannot do without")
    return text


def _one_of(allowed: Iterable[str], *, required: bool) -> Callable[[object], str | None]:
    names = tuple(allowed)

    def clean(value: object) -> str | None:
        text = _required_text(value) if required else _text(value)
        if text is not None and text not in names:
            raise DataError(f"got {_show(value)}, wanted {' or '.join(map(repr, names))}")
        return text

    return clean


def _number(value: object) -> float | None:
    plain = _plain_number(value)
    if plain is None:
        return None
    try:
        return float(plain)
    except OverflowError as error:
        raise DataError(f"got {_show(value)}, which is too large") from error


def _finite(value: object) -> float | None:
    number = _number(value)
    if number is not None and not math.isfinite(number):
        raise DataError(f"got {number}, wanted a finite number, or nothing when it is unknown")
    return number


def _not_negative(value: object) -> float | None:
    number = _finite(value)
    if number is not None and number < 0:
        raise DataError(f"got {number}, wanted 0 or more")
    return number


def _integer(value: object) -> int | None:
    plain = _plain_number(value)
    if plain is None:
        return None
    # Bounds first: NaN fails them, and a huge int cannot be asked whether it is finite.
    if not -_INT64_MAX <= plain <= _INT64_MAX or plain != int(plain):
        raise DataError(f"got {_show(value)}, wanted a whole number of 64 bits")
    return int(plain)


def _plain_number(value: object) -> Any:
    """``value`` as a Python number: 0-d arrays and tensors are opened, text and truth refused."""
    opened = value
    if value is not None and not isinstance(value, numbers.Real):
        try:
            opened = _plain(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"got {_show(value)}, wanted a number") from error
    if opened is not None and (isinstance(opened, bool) or not isinstance(opened, numbers.Real)):
        raise DataError(f"got {_show(value)}, wanted a number")
    return opened


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    moment = value
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise DataError(f"got {_show(value)}, wanted an ISO 8601 time") from error
    if not isinstance(moment, datetime):
        raise DataError(f"got {_show(value)}, wanted a time")
    if moment.utcoffset() is None:
        raise DataError(
            f"got {_show(value)} without a time zone, and a zone is not guessed; "
            "use for example datetime.now(UTC)"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise DataError(f"got {_show(value)}, which is out of range") from error


def _json_object(value: object) -> JsonDict:
    plain: JsonDict = json.loads(canonical_json({} if value is None else value))
    return plain


def _tags(value: object) -> dict[str, str]:
    tags = _json_object(value)
    for name, tag in tags.items():
        if not isinstance(tag, str):
            raise DataError(f"tag {name!r} is {_show(tag)}, wanted text")
    return tags


def _run_id(value: object) -> str:
    return _text(value) or ""


def _plain(value: Any) -> object:
    """Python value of a NumPy scalar or of a 0-d array or tensor."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    plain: object = item()
    return plain


def _show(value: object) -> str:
    return reprlib.repr(value)


_CLEANERS: Final[Mapping[str, Callable[[object], Any]]] = {
    c.RUN_ID: _run_id,
    c.MODEL_ID: _required_text,
    c.MODEL_REVISION: _text,
    c.TASK_ID: _required_text,
    c.METRIC: _required_text,
    c.DIRECTION: _one_of(DIRECTIONS, required=True),
    c.VALUE: _number,
    c.VALUE_KIND: _one_of(VALUE_KINDS, required=False),
    c.SPLIT: _text,
    c.EPOCH: _finite,
    c.SEED: _integer,
    c.HYPERPARAMETERS: _json_object,
    c.STATUS: _one_of(STATUSES, required=True),
    c.COST_GPU_SECONDS: _not_negative,
    c.STARTED_AT: _moment,
    c.FINISHED_AT: _moment,
    c.DATASET_FINGERPRINT: _text,
    c.SOURCE: _text,
    c.SOURCE_VERSION: _text,
    c.INGESTED_AT: _moment,
    c.TAGS: _tags,
}
