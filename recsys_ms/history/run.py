"""One fine-tuning run: its fields, the rule of each field, its identity.

Standard library only, since training jobs import it through :mod:`recsys_ms.history.inbox.inbox`.
:data:`RULES` is the only place that says what a field may hold; ``store/schema.py`` applies the
same rules to whole columns.
"""

import hashlib
import json
import math
import numbers
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self, TypeAlias, get_args

from recsys_ms.core import columns as c
from recsys_ms.core.errors import DataError
from recsys_ms.core.files import file_errors
from recsys_ms.core.json_text import parse_json
from recsys_ms.core.known_metrics import direction_of
from recsys_ms.core.types import Direction, JsonDict, Status, ValueKind

FieldKind: TypeAlias = Literal["text", "number", "integer", "time", "json", "tags"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field of a run may hold; an unknown field is ``None``.

    Blank text is unknown; integers have 64 bits; a time has a zone; ``json`` and ``tags`` are
    objects, kept as canonical JSON text, those of ``tags`` with text values only. ``choices`` are
    the only texts allowed, if any are given.
    """

    kind: FieldKind
    required: bool = False
    choices: tuple[str, ...] = ()
    finite: bool = True
    minimum: float = -math.inf


#: The rule of every field of a run, in the order of ``core.columns.RUN_COLUMNS``.
RULES: Final[Mapping[str, Rule]] = {
    c.RUN_ID: Rule("text"),
    c.MODEL_ID: Rule("text", required=True),
    c.MODEL_REVISION: Rule("text"),
    c.TASK_ID: Rule("text", required=True),
    c.METRIC: Rule("text", required=True),
    c.DIRECTION: Rule("text", required=True, choices=get_args(Direction)),
    # Whether a value may be missing or not finite depends on the status: see value_problem.
    c.VALUE: Rule("number", finite=False),
    c.VALUE_KIND: Rule("text", choices=get_args(ValueKind)),
    c.SPLIT: Rule("text"),
    c.EPOCH: Rule("number"),
    c.SEED: Rule("integer"),
    c.HYPERPARAMETERS: Rule("json"),
    c.STATUS: Rule("text", required=True, choices=get_args(Status)),
    c.COST_GPU_SECONDS: Rule("number", minimum=0.0),
    c.STARTED_AT: Rule("time"),
    c.FINISHED_AT: Rule("time"),
    c.DATASET_FINGERPRINT: Rule("text"),
    c.SOURCE: Rule("text"),
    c.SOURCE_VERSION: Rule("text"),
    c.INGESTED_AT: Rule("time"),
    c.TAGS: Rule("tags"),
}
#: Fields that hold a JSON object.
JSON_COLUMNS: Final = (c.HYPERPARAMETERS, c.TAGS)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT64_MAX: Final = 2**63 - 1
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One logged fine-tuning. A field that the log does not give stays ``None``.

    Attributes
    ----------
    model_id, task_id, metric : str
        The fine-tuned model, its task, and the metric measured. Not blank.
    direction : {"max", "min"} or None
        Whether higher or lower values of the metric are better; ``None`` for what is known of the
        metric (:func:`recsys_ms.core.known_metrics.find_metric`), an error for an unknown one.
    value : float or None
        Measured value, finite; fractions rather than percent. Required if ``status`` is
        ``finished``; a non-finite value of a failed or running run becomes ``None``.
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
        Missing or invalid fields; the message lists them all.
    """

    model_id: str
    task_id: str
    metric: str
    direction: Direction | None = None
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
        checked: JsonDict = {}
        problems: list[str] = []
        is_blank = isinstance(self.direction, str) and not self.direction.strip()
        if (self.direction is None or is_blank) and isinstance(self.metric, str):
            object.__setattr__(self, c.DIRECTION, direction_of(self.metric))
        for name in RULES:
            try:
                checked[name] = check_field(name, getattr(self, name))
            except DataError as error:
                problems.append(f"{name}: {error}")
        if c.VALUE in checked and c.STATUS in checked:
            problem = value_problem(checked[c.VALUE], checked[c.STATUS])
            if problem is not None:
                problems.append(f"{c.VALUE}: {problem}")
            elif checked[c.VALUE] is not None and not math.isfinite(checked[c.VALUE]):
                checked[c.VALUE] = None
        if problems:
            raise DataError("; ".join(problems))
        for name in JSON_COLUMNS:
            checked[name] = json.loads(checked[name])
        checked[c.RUN_ID] = checked[c.RUN_ID] or make_run_id(checked)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_payload(cls, payload: Mapping[str, object]) -> Self:
        """Build from JSON values: times as ISO 8601 text with a zone, absent fields left out.

        Raises
        ------
        DataError
            An unknown field, or missing or invalid fields.
        """
        unknown = sorted(set(map(str, payload)) - RULES.keys())
        if unknown:
            raise DataError(
                f"unknown field {_show(unknown[0])}; fields of a run are {', '.join(RULES)}"
            )
        given: dict[str, Any] = {k: v for k, v in payload.items() if v is not None}
        return cls(**{**dict.fromkeys(c.REQUIRED_COLUMNS), **given})

    def to_payload(self) -> JsonDict:
        """JSON values that :meth:`from_payload` takes; fields that are ``None`` are left out."""
        known = {name: getattr(self, name) for name in RULES if getattr(self, name) is not None}
        return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in known.items()}


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
            value = (value - _EPOCH) // timedelta(microseconds=1)
        if value is not None:
            text = str(value)
            parts.append(f"{name}={len(text.encode())}:{text};")
    return "r-" + hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def canonical_json(value: object) -> str:
    """JSON text of an object with sorted keys and no spaces; text is parsed first.

    Raises
    ------
    DataError
        Not a JSON object: another type, keys that are not text, NaN, or values unknown to JSON.
    """
    try:
        if isinstance(value, str):
            with file_errors(f"got {_show(value)}", catch=DataError, raises=DataError):
                value = parse_json(value)
        if not isinstance(value, Mapping):
            raise DataError(f'{_show(value)} is not a JSON object; write {{"name": value}}')
        for key in value:
            if not isinstance(key, str):
                raise DataError(f"key {_show(key)} is not text")
        text = json.dumps(
            dict(value),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{_show(value)} cannot be written as JSON ({error})") from error
    return text


def check_field(name: str, value: object, *, from_text: bool = False) -> Any:
    """Value of a field as the history keeps it: times in UTC, JSON objects as canonical text.

    ``from_text`` reads numbers from text, for tables without types.

    Raises
    ------
    DataError
        The value breaks the rule of the field.
    """
    rule = RULES[name]
    spelt = from_text and rule.kind in ("number", "integer")
    try:
        found = _READERS[rule.kind](_spelt_number(value) if spelt else value)
        if rule.choices and found is not None and found not in rule.choices:
            raise _RefusedValue(f"expected {' or '.join(map(repr, rule.choices))}")
        if rule.kind == "number" and found is not None:
            if rule.finite and not math.isfinite(found):
                raise _RefusedValue("expected a finite number, or nothing if it is unknown")
            if found < rule.minimum:
                raise _RefusedValue(f"expected {rule.minimum:g} or more")
    except _RefusedValue as refused:
        raise DataError(f"got {_show(value)}, {refused}") from refused
    if rule.required and found is None:
        is_direction = name == c.DIRECTION
        way = "its metric is unknown: give 'max' or 'min'" if is_direction else "every run needs it"
        raise DataError(f"missing; {way}")
    return found


def value_problem(value: float | None, status: str) -> str | None:
    """Why a run of this status cannot have this value, or ``None``."""
    if status != "finished":
        return None
    if value is None:
        return "missing; a finished run needs a value, a run without one has the status 'failed'"
    if not math.isfinite(value):
        return f"got {value}, expected a finite number; a diverged run has the status 'failed'"
    return None


class _RefusedValue(ValueError):
    """Says what was expected; :func:`check_field` adds what it got."""


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _RefusedValue("expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _RefusedValue("expected valid Unicode") from error
    return value if value.strip() else None


def _number(value: object) -> float | None:
    plain = _plain_number(value)
    try:
        return None if plain is None else float(plain)
    except OverflowError as error:
        raise _RefusedValue("which is too large") from error


def _integer(value: object) -> int | None:
    plain = _plain_number(value)
    if plain is None:
        return None
    # Bounds first: NaN fails them, and a huge int cannot be converted to a float.
    if not -_INT64_MAX <= plain <= _INT64_MAX or plain != int(plain):
        raise _RefusedValue("expected a whole number of 64 bits")
    return int(plain)


def _plain_number(value: object) -> Any:
    """Python number of a number, a 0-d array or a tensor; text and truth values are refused."""
    try:
        found = value if value is None or isinstance(value, numbers.Real) else _plain(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _RefusedValue("expected a number") from error
    if found is not None and (isinstance(found, bool) or not isinstance(found, numbers.Real)):
        raise _RefusedValue("expected a number")
    return found


def _spelt_number(text: object) -> object:
    """Number that a text spells, ``None`` if it is blank, else the value itself."""
    if not isinstance(text, str):
        return text
    if not text.strip():
        return None
    for kind in (int, float):
        try:
            # Python reads 1_000, no log writes it.
            return text if "_" in text else kind(text)
        except ValueError:
            pass
    return text


def _moment(value: object) -> datetime | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise _RefusedValue("expected an ISO 8601 time with its time zone")
    if moment.utcoffset() is None:
        raise _RefusedValue(
            "a time without a time zone, which is not guessed; use for example datetime.now(UTC) "
            "or 2026-01-31T12:00:00+01:00"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise _RefusedValue("which is out of range") from error


def _json(value: object) -> str:
    is_unknown = value is None or (isinstance(value, str) and not value.strip())
    return canonical_json({} if is_unknown else value)


def _tags(value: object) -> str:
    text = _json(value)
    for name, tag in json.loads(text).items():
        if not isinstance(tag, str):
            raise DataError(f"tag {name!r} is {_show(tag)}, expected text")
    return text


def _plain(value: Any) -> object:
    """Python value of a NumPy scalar or of a 0-d array or tensor."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    plain: object = item()
    return plain


def _show(value: object) -> str:
    return _SHORT.repr(value)


_READERS: Final[Mapping[FieldKind, Callable[[Any], Any]]] = {
    "text": _text,
    "number": _number,
    "integer": _integer,
    "time": _moment,
    "json": _json,
    "tags": _tags,
}
