"""Values are checked by annotations: every kind of annotation, what fits it and what does not."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import pytest
import scipy.sparse as sp

from recsys_ms.core.declared import (
    ANY_NUMBER,
    SORTED,
    PositionsIn,
    Shape,
    Within,
    check_declared,
    stored_by_others,
)
from recsys_ms.core.errors import ArtifactError, DataError, UsageError
from recsys_ms.core.types import FloatArray, IntArray


class Entry(TypedDict, total=False):
    name: str
    inner: "list[Entry]"


def broken() -> sp.csr_array:
    """A sparse array whose last index is outside."""
    found = sp.csr_array(np.eye(3))
    found.indices[-1] = 1_000_000
    return found


FITS: list[tuple[Any, object]] = [
    (int, 3),
    (int, np.int64(3)),
    (float, 3),
    (float, 0.5),
    (float, np.float32(0.5)),
    (bool, True),
    (str, "a"),
    (None, None),
    (Any, [1, float("nan")]),
    (object, 1),
    (int | None, None),
    (int | str, "a"),
    (Literal["a", "b"], "b"),
    (Literal[1], 1),
    (tuple[int, ...], ()),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (list[float], [1.0, 2]),
    (Sequence[str], ["a"]),
    (Mapping[str, int], {"a": 1}),
    (dict[str, Any], {"a": [None]}),
    (FloatArray, np.arange(3.0)),
    (FloatArray, np.arange(3)),
    (IntArray, np.arange(3, dtype=np.uint8)),
    (np.ndarray, np.arange(3)),
    (Annotated[float, ANY_NUMBER], float("nan")),
    (Annotated[tuple[float, float], ANY_NUMBER], (float("-inf"), 1.0)),
    (Annotated[FloatArray, ANY_NUMBER], np.array([np.nan])),
    (Annotated[float, Within(least=0.0, most=1.0)], 1.0),
    (Annotated[float | None, Within(above=0)], None),
    (Annotated[FloatArray, Within(above=0.0)], np.empty(0)),
    (Annotated[IntArray, SORTED], np.array([1, 1, 2])),
    (Annotated[tuple[str, ...], SORTED], ("a", "b")),
    (sp.csr_array, sp.csr_array(np.eye(3))),
    (Entry, {"name": "a", "inner": [{"name": "b"}]}),
]
MISFITS: list[tuple[Any, object, str]] = [
    (int, 3.0, "x is 3.0 of type float, expected a whole number"),
    (int, True, "expected a whole number"),
    (int, 2**63, "of 64 bits"),
    (float, "1", "expected a number"),
    (float, True, "expected a number"),
    (float, float("nan"), "x is nan, expected a finite number"),
    (float, 10**30, "expected a number"),
    (bool, 1, "expected true or false"),
    (str, None, "expected a text"),
    (None, 0, "expected"),
    (int | None, "a", "expected a whole number"),
    (int | str, 0.5, "whole number .* or a text"),
    (Literal["a", "b"], "c", "one of 'a', 'b'"),
    (Literal[1], True, "one of 1"),
    (tuple[int, ...], [1], "expected tuple"),
    (tuple[int, ...], (1, "a"), r"x\[1\] is 'a'"),
    (tuple[int, str], (1,), "expected tuple"),
    (list[float], [1.0, float("inf")], r"x\[1\] is inf"),
    (Sequence[str], ["a", 1], "expected Sequence"),
    (dict[str, int], {1: 1}, "a key of x is 1"),
    (dict[str, int], {"a": "b"}, r"x\['a'\] is 'b'"),
    (dict[str, int], [], "expected an object"),
    (FloatArray, [1.0], "expected an array of float64"),
    (FloatArray, np.array(["a"]), "an array of <U1"),
    (FloatArray, np.array([1.0, np.nan, np.inf]), "x has 2 numbers that are not finite"),
    (IntArray, np.arange(3.0), "an array of float64, expected an array of int64"),
    (
        Annotated[float, Within(least=0.0, most=1.0)],
        1.5,
        "x is 1.5, expected at least 0, at most 1",
    ),
    (Annotated[float, Within(above=0.0)], 0.0, "expected above 0"),
    (Annotated[IntArray, Within(least=0)], np.array([3, -1]), "x is -1 to 3, expected at least 0"),
    (
        Annotated[FloatArray, Shape("a", "b")],
        np.arange(3.0),
        r"expected one axis for each of \(a, b\)",
    ),
    (Annotated[IntArray, SORTED], np.array([2, 1]), "x is not sorted"),
    (Annotated[tuple[str, ...], SORTED], ("a", "a"), "x is not sorted"),
    (sp.csr_array, broken(), "not a whole sparse array"),
    (sp.csr_array, sp.csr_array(np.array([[np.nan]])), "not finite"),
    (sp.csr_array, 1, "csr_array"),
    (Entry, {"inner": [{"name": 1}]}, "name is 1"),
    (Entry, [], "expected Entry"),
]


@pytest.mark.parametrize(("hint", "value"), FITS)
def test_what_fits(hint: Any, value: object) -> None:
    check_declared({"x": value}, {"x": hint})


@pytest.mark.parametrize(("hint", "value", "message"), MISFITS)
def test_what_does_not_fit(hint: Any, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_declared({"x": value}, {"x": hint})


def test_axes_of_one_name_have_one_length() -> None:
    hints = {
        "ids": Annotated[tuple[str, ...], Shape("model")],
        "table": Annotated[FloatArray, Shape("model", "factor")],
        "at": Annotated[IntArray, Shape("row"), PositionsIn("model", each=True)],
    }
    whole = {"ids": ("a", "b"), "table": np.zeros((2, 5)), "at": np.array([0, 1, 1])}
    check_declared(whole, hints)
    for name, value, message in (
        ("ids", ("a",), "table has 2 along the axis 'model', and ids has 1"),
        ("at", np.array([0, 2]), "at has positions from 0 to 2, and ids is of length 2"),
        ("at", np.array([-1, 1]), "at has positions from -1"),
        ("at", np.array([1, 1]), "at does not have every position in ids"),
    ):
        with pytest.raises(DataError, match=message):
            check_declared({**whole, name: value}, hints)


def test_errors_of_stored_values_are_of_one_class() -> None:
    for error in (KeyError("a"), UsageError("no"), ZeroDivisionError(), MemoryError()):
        with (
            pytest.raises(ArtifactError, match="it cannot answer"),
            stored_by_others("it cannot answer"),
        ):
            raise error
    with pytest.raises(UsageError), stored_by_others("x", let_through=(UsageError,)):
        raise UsageError("about the question")
