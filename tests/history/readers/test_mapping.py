import pytest

from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.readers.fields import RUN_FIELDS
from recsys_ms.history.readers.mapping import FieldMapping, bind_mapping, parse_assignments

FULL = FieldMapping(
    map={"model_id": "{a}"},
    set={"metric": "accuracy"},
    columns={"x": "a || 'b'"},
    unit="percent",
    where="a <> 'q'",
    missing=("-1", ""),
)


def bind(mapping, columns):
    return bind_mapping(
        mapping, columns, fields=RUN_FIELDS, open_fields={"hyperparameters", "tags"}
    )


def test_json_round_trip():
    assert FieldMapping.from_json(FULL.to_json()) == FULL
    assert FieldMapping.from_json("{}") == FieldMapping()


@pytest.mark.parametrize("text", ["[", "[1]", '{"nosuch": 1}', '{"unit": "per mille"}'])
def test_another_json_is_refused(text):
    with pytest.raises(DataError, match="not a stored mapping"):
        FieldMapping.from_json(text)


def test_options_replace_what_the_preset_says_of_a_field():
    laid = FULL.overridden(map={"metric": "{m}"}, set={"model_id": "one"}, missing=("n/a",))
    assert laid.map == {"metric": "{m}"}
    assert laid.set == {"model_id": "one"}
    assert laid.missing == ("n/a",)
    assert laid.unit == "percent"
    assert FULL.map == {"model_id": "{a}"}, "the preset itself must not change"


def test_predicates_are_joined_by_and():
    assert FULL.overridden(where="b = 1").where == "(a <> 'q'\n) AND (b = 1\n)"
    assert FULL.overridden().where == "a <> 'q'"
    assert FieldMapping().overridden(where="b = 1").where == "b = 1"
    assert FieldMapping().overridden().where is None


def test_a_field_is_mapped_or_set_not_both():
    with pytest.raises(UsageError, match="metric has a --map and a --set"):
        FieldMapping(map={"metric": "{m}"}, set={"metric": "accuracy"})


def test_bad_units_templates_and_names_are_refused_at_once():
    with pytest.raises(UsageError, match="per mille"):
        FieldMapping(unit="per mille")
    with pytest.raises(UsageError, match="brace"):
        FieldMapping(map={"metric": "{m"})
    with pytest.raises(UsageError, match="needs a name"):
        FieldMapping(columns={"": "1"})


@pytest.mark.parametrize("name", ["_line", "a", "A"])
def test_a_computed_column_replaces_no_other(name):
    with pytest.raises(UsageError, match=f"--column {name}: the table has a column of that name"):
        bind(FieldMapping(columns={name: "1"}), ["a"])


def test_columns_with_names_of_fields_map_themselves():
    bound = bind(FieldMapping(map={"value": "{v}"}), ["model_id", "v", "seed", "other"])
    assert set(bound.templates) == {"model_id", "value", "seed"}
    assert "metric" not in bound
    assert "seed" in bound


def test_an_unknown_field_is_named_with_what_was_meant():
    with pytest.raises(UsageError, match="did you mean model_id"):
        bind(FieldMapping(map={"modelid": "{a}"}), ["a"])
    with pytest.raises(UsageError, match=r"hyperparameters\.NAME"):
        bind(FieldMapping(set={"metric.x": "1"}), ["a"])
    assert "hyperparameters.lr" in bind(FieldMapping(map={"hyperparameters.lr": "{a}"}), ["a"])


def test_assignments():
    assert parse_assignments(["a=b=c", " d = e"], option="--map") == {"a": "b=c", "d": " e"}
    for wrong in (["a"], ["=b"]):
        with pytest.raises(UsageError, match="expected FIELD=TEXT"):
            parse_assignments(wrong, option="--map")
    with pytest.raises(UsageError, match="twice"):
        parse_assignments(["a=1", "a=2"], option="--set")
