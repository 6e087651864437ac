"""Declared state: what is stored comes back as what it was, and runs nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_ms.core.declared import ANY_NUMBER
from recsys_ms.core.errors import ArtifactError, NotFittedError, NotSavableError
from recsys_ms.core.state import AsText, Derived, Learned, State, Stateful, declares
from recsys_ms.core.types import FloatArray
from recsys_ms.serving.artifact import load_artifact, save_artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    size: int = 3
    names: tuple[str, ...] | None = ("a",)


@dataclass(frozen=True, slots=True, eq=False)
class Scale(Stateful):
    center: FloatArray
    length: float


class Part(Stateful):
    """Its subclasses are found by the annotation of their base."""

    weight: Learned[float]

    def fit(self, weight: float):
        self.weight = weight
        return self


class SmallPart(Part):
    rows: Learned[sp.csr_array | None] = None


class ByHand:
    """As classes did before there was a mechanism."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state(self) -> State:
        return State(values={"value": self.value})

    @classmethod
    def from_state(cls, state: State) -> "ByHand":
        return cls(state.values["value"])


class Whole(Stateful):
    config: Learned[Settings]
    ids: Learned[tuple[str, ...]]
    nested: Learned[dict[Any, Any]]
    table: Learned[Mapping[str, tuple[Part, FloatArray, float]]]
    scale: Learned[Scale]
    old: Learned[ByHand]
    text: Learned[Annotated[Part | None, AsText(lambda part: f"w={part.weight}", str)]]
    total: Derived[float]
    cache = None

    def fit(self):
        self.config = Settings(size=4, names=None)
        self.ids = ("z", "a")
        self.nested = {"z": [1, (2, None)], "a": {3: float("nan")}}
        self.nested |= {("k", 1): float("-inf"), 2: True}
        rows = sp.csr_array(np.eye(3)[:, :2])
        small = SmallPart().fit(0.5)
        small.rows = rows
        by_column = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        self.table = {
            "z": (small, np.arange(3, dtype=np.int8), 1.5),
            "a": (Part().fit(2.0), by_column, np.float64(2.5)),
        }
        self.scale = Scale(np.array([1, 2], dtype=np.float32), 0.1)
        self.old = ByHand(7)
        self.text = Part().fit(0.25)
        self._derive()
        return self

    def _derive(self) -> None:
        self.total = sum(part.weight for part, _, _ in self.table.values())


def through_a_file(state: State, folder) -> State:
    save_artifact(state, folder / "saved", manifest={})
    return load_artifact(folder / "saved")[0]


def test_everything_comes_back_as_it_was(tmp_path):
    whole = Whole().fit()
    whole.cache = "what the class has a default for is not stored"
    again = Whole.from_state(through_a_file(whole.state(), tmp_path))
    assert again.config == Settings(size=4, names=None)
    assert again.ids == ("z", "a")
    assert list(again.nested) == ["z", "a", ("k", 1), 2]
    assert again.nested["z"] == [1, (2, None)]
    assert np.isnan(again.nested["a"][3])
    assert again.nested["k", 1] == float("-inf")
    assert again.nested[2] is True
    assert list(again.table) == ["z", "a"]
    small, index, weight = again.table["z"]
    assert type(small) is SmallPart
    assert (small.weight, weight, index.dtype) == (0.5, 1.5, np.int8)
    assert type(small.rows) is sp.csr_array
    np.testing.assert_array_equal(small.rows.toarray(), np.eye(3)[:, :2])
    part, table, weight = again.table["a"]
    assert type(part) is Part
    assert (part.weight, weight) == (2.0, 2.5)
    # The order in memory decides how products are added up, and so the last bits of an answer.
    assert table.flags.f_contiguous
    np.testing.assert_array_equal(table, np.arange(6.0).reshape(2, 3))
    assert again.scale.center.dtype == np.float32
    assert again.scale.length == 0.1
    assert again.old.value == 7
    assert again.text == "w=0.25"
    assert again.total == whole.total == 2.5
    assert again.cache is None


class Narrow(Stateful):
    arrays: Learned[list[Annotated[NDArray[Any], ANY_NUMBER]]]


def test_arrays_are_stored_in_the_narrowest_type_that_keeps_every_value(tmp_path):
    narrow = Narrow()
    narrow.arrays = [
        np.array([0.5, -0.0, np.nan, np.inf]),
        np.array([0.1]),
        np.array([1e300]),
        np.array([2**31 - 1, -(2**31)]),
        np.array([2**31]),
        np.empty(0),
    ]
    stored = narrow.state().arrays
    kept = [stored[f"arrays.{i}"].dtype.name for i in range(6)]
    assert kept == ["float32", "float64", "float64", "int32", "int64", "float32"]
    again = Narrow.from_state(through_a_file(narrow.state(), tmp_path))
    for before, after in zip(narrow.arrays, again.arrays, strict=True):
        assert after.dtype == before.dtype
        assert after.tobytes() == before.tobytes()


def test_values_are_json():
    whole = Whole().fit()
    json.dumps(whole.state().values, allow_nan=False)


def test_before_fit_there_is_no_state():
    with pytest.raises(NotFittedError, match="Whole is not fitted"):
        Whole().state()


class Careless(Stateful):
    kept: Learned[Any]

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kept": 1, "forgot": 2}, "Careless cannot be saved: forgot is not declared"),
        ({"kept": object()}, "Careless cannot be saved: kept is a object"),
        ({"kept": [1, {2}]}, r"Careless cannot be saved: kept\.1 is a set"),
        ({"kept": Part().fit(1.0)}, "kept is a Part, and is declared as plain data"),
        ({"kept": np.array(["a"], dtype=object)}, "kept is an array of object"),
        ({"kept": lambda: 1}, "kept is a function"),
    ],
)
def test_what_cannot_be_stored_is_named(values, told):
    with pytest.raises(NotSavableError, match=told):
        Careless(**values).state()


def test_a_file_names_no_class_that_was_not_declared():
    state = Whole().fit().state()
    for name in ("subprocess.Popen", "builtins.eval", f"{__name__}.ByHand", f"{__name__}.Careless"):
        values = {**state.values, "scale": {"object": name, "fields": {}}}
        changed = State(
            values=values, arrays=state.arrays, texts=state.texts, children=state.children
        )
        with pytest.raises(ArtifactError, match="expected Scale or a loaded subclass"):
            Whole.from_state(changed)


def test_a_state_of_another_version_is_refused():
    state = Part().fit(1.0).state()
    with pytest.raises(ArtifactError, match="of Part is nothing, expected weight"):
        Part.from_state(State())
    with pytest.raises(ArtifactError, match="of SmallPart is weight, expected rows, weight"):
        SmallPart.from_state(state)


def test_of_a_class_that_was_defined_again_the_newest_is_taken():
    def define():
        class Again(Part):
            pass

        return Again

    class Owner(Stateful):
        part: Learned[Part]

    owner, _, newest = Owner(), define(), define()
    owner.part = newest().fit(3.0)
    assert type(Owner.from_state(owner.state()).part) is newest


def test_who_declares_something():
    class Nothing(Stateful):
        pass

    class Worked(Stateful):
        only: Derived[int]

    assert declares(Part)
    assert declares(Scale)
    assert not declares(Nothing)
    assert not declares(Worked)
