"""Settings from texts, TOML and JSON."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from recsys_ms.core.configured import changed, check_range, differing, plain, text_of, values_of
from recsys_ms.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    count: int = 3
    share: float = 0.5
    strict: bool = False
    kind: Literal["a", "b"] = "a"
    name: str = "x"
    limit: float | None = None
    scores: tuple[str, ...] | None = None
    sizes: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    ("field", "given", "wanted"),
    [
        ("count", "8", 8),
        ("count", np.int64(8), 8),
        ("share", 1, 1.0),
        ("share", "0.25", 0.25),
        ("share", np.float32(0.5), 0.5),
        ("strict", "true", True),
        ("kind", "b", "b"),
        ("limit", "none", None),
        ("limit", "2", 2.0),
        ("scores", "none", ()),
        ("scores", None, None),
        ("scores", "parc+logme", ("parc", "logme")),
        ("scores", ["parc"], ("parc",)),
        ("sizes", "1+2", (1, 2)),
        ("sizes", [3, 4], (3, 4)),
    ],
)
def test_what_a_value_becomes(field: str, given: object, wanted: object) -> None:
    found = getattr(changed(Example(), {field: given}, owner="Example"), field)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("field", "given", "told"),
    [
        ("count", "3.5", r"count is '3\.5', expected a whole number"),
        ("count", True, "count is True, expected a whole number"),
        ("count", 2.0, r"count is 2\.0"),
        ("share", "much", "expected a number"),
        ("share", False, "expected a number"),
        ("strict", 1, "expected true or false"),
        ("kind", "c", "expected one of a, b"),
        ("name", 3, "expected a text"),
        ("scores", "parc+", "expected a list"),
        ("sizes", ["a"], "of a whole number"),
        ("vaule", 1, "unknown setting 'vaule'; its settings are count, kind"),
    ],
)
def test_what_no_value_can_be(field: str, given: object, told: str) -> None:
    with pytest.raises(UsageError, match=f"Example: .*{told}"):
        changed(Example(), {field: given}, owner="Example")


def test_texts_and_json_lead_back() -> None:
    settings = Example(count=9, limit=2.0, scores=("a", "b"), sizes=(), strict=True)
    told = differing(settings, Example())
    assert set(told) == {"count", "limit", "scores", "sizes", "strict"}
    texts = {name: text_of(value) for name, value in told.items()}
    assert changed(Example(), texts, owner="Example") == settings
    assert changed(Example(), plain(values_of(settings)), owner="Example") == settings


@dataclass(frozen=True)
class Bounded:
    value: float


@pytest.mark.parametrize(
    ("value", "bounds", "told"),
    [
        (0, {"least": 1}, "Bounded: value is 0, expected a finite number, at least 1"),
        (0.0, {"above": 0, "most": 1}, "expected a finite number, above 0, at most 1"),
        (1.5, {"above": 0, "most": 1}, "value is 1.5"),
        (float("nan"), {}, "value is nan"),
        (float("inf"), {"least": 0}, "value is inf"),
    ],
)
def test_numbers_outside_a_range_are_refused(value: float, bounds: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_range(Bounded(value), "value", **bounds)
    for inside in (1, 1.0):
        check_range(Bounded(inside), "value", **bounds)
