import dataclasses

import pytest

from recsys_ms.catalog.cards import MODEL_FIELDS, TASK_FIELDS, ModelCard, TaskCard
from recsys_ms.core.errors import DataError


def test_the_tables_of_kinds_name_every_field():
    assert tuple(MODEL_FIELDS) == tuple(f.name for f in dataclasses.fields(ModelCard))
    assert tuple(TASK_FIELDS) == tuple(f.name for f in dataclasses.fields(TaskCard))


def test_everything_but_the_id_may_be_unknown():
    card = ModelCard(model_id="m")
    values = dataclasses.asdict(card)
    assert values.pop("model_id") == "m"
    assert values.pop("traits") == {}
    assert set(values.values()) == {None}
    assert TaskCard(task_id="t").direction is None


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("model_id", "", "not empty"),
        ("architecture", "", "not empty"),
        ("architecture", 3, "text"),
        ("n_parameters", 0, "at least 1"),
        ("n_parameters", 1.5, "whole number"),
        ("n_parameters", True, "finite number"),
        ("n_parameters", float("nan"), "None where it is unknown"),
        ("gmacs", 0.0, "positive"),
        ("gmacs", float("inf"), "finite"),
        ("source_accuracy", 91.3, "divide percent by 100"),
        ("embedding", (), "finite numbers"),
        ("embedding", (1.0, float("nan")), "finite numbers"),
        ("embedding", [1.0], "tuple"),
        ("traits", {"a": None}, "mapping"),
        ("traits", {"a": float("nan")}, "mapping"),
        ("traits", None, "mapping"),
    ],
)
def test_values_that_a_model_card_cannot_hold(field, value, match):
    with pytest.raises(DataError, match=match) as error:
        ModelCard(**{"model_id": "m", field: value})
    assert field in str(error.value)


def test_values_that_a_task_card_cannot_hold():
    with pytest.raises(DataError, match="direction is 'up', expected"):
        TaskCard(task_id="t", direction="up")
    with pytest.raises(DataError, match="class_names"):
        TaskCard(task_id="t", class_names=("a", 1))
    with pytest.raises(DataError, match="difficulty"):
        TaskCard(task_id="t", difficulty=-0.1)
