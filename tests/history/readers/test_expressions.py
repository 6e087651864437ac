from datetime import UTC, datetime

import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.expressions import Expressions, kinds_of
from recsys_ms.history.readers.number_style import NumberStyle, Unread

ROWS = {
    "model": ["FTD_inception_v3_AID", "FTD_resnet50_DTD", None],
    "Source Dataset": ["a", "b", "c"],
    "acc": ["1013.5", "2", "n/a"],
    "configs": ["{'lr': 0.01, 'x': 'y'}", '{"lr": 0.1}', None],
    "hash": ["2076635211270705557", "-8870765052217615123", "1"],
}


def evaluate(expressions, rows=ROWS):
    n_rows = len(next(iter(rows.values())))
    return expressions.evaluate(rows, n_rows, kinds_of(rows))


def column(expression, rows=ROWS):
    return evaluate(Expressions({"c": expression}, None), rows)[1]["c"]


def kept(where, rows=ROWS):
    return evaluate(Expressions({}, where), rows)[0]


def test_text_numbers_and_dicts():
    assert column("regexp_extract(model, '^FTD_(.+)_([^_]+)$', 1)") == [
        "inception_v3",
        "resnet50",
        None,
    ]
    assert column("acc * 2") == [2027.0, 4.0, None]
    assert column("configs->>'lr'") == ["0.01", "0.1", None]
    assert column("\"Source Dataset\" || '!'") == ["a!", "b!", "c!"]


def test_a_number_that_needs_an_option_is_refused_and_not_unknown():
    cells = {"n": ["1,013.5", "2", "x", "7"]}
    first, *others = column("n * 2", cells)
    assert isinstance(first, Unread)
    assert (first.sign, "column 'n'" in first.reason) == ("decimal", True)
    assert others == [4.0, None, 14.0]
    style = NumberStyle(decimal=".")
    found = Expressions({"c": "n * 2"}, None, style).evaluate(cells, 4, kinds_of(cells, style))
    assert found[1]["c"] == [2027.0, 4.0, None, 14.0]


def test_long_whole_numbers_stay_exact():
    assert kept("hash = 2076635211270705557") == [True, False, False]
    assert column("hash") == ROWS["hash"]


def test_a_computed_column_sees_those_before_it():
    found = evaluate(Expressions({"a": "acc + 1", "b": "a * 10"}, "b > 30"))
    assert found[1]["b"] == [10145.0, 30.0, None]
    # The third cell is not a number: the row is left for the reader to refuse, not dropped unseen.
    assert found[0] == [True, False, True]


def test_a_predicate_that_is_null_leaves_the_row_out():
    assert kept("model = 'FTD_resnet50_DTD'") == [False, True, False]
    assert kept("model IS NULL") == [False, False, True]


def test_the_type_of_a_column_is_the_callers_to_keep():
    expressions = Expressions({}, "v > 5")
    kinds = kinds_of({"v": ["1", "10"]})
    assert expressions.evaluate({"v": ["1", "10"]}, 2, kinds)[0] == [False, True]
    assert expressions.evaluate({"v": ["x", "7"]}, 2, kinds)[0] == [True, True]


def test_kinds_of_columns():
    assert kinds_of({**ROWS, "none": [None], "mixed": ["1", "x", "y"]}) == {
        "model": "text",
        "Source Dataset": "text",
        "acc": "number",
        "configs": "json",
        "hash": "text",
        "none": "text",
        "mixed": "text",
    }


def test_times_and_typed_cells():
    moments = [datetime(2026, 1, 1, tzinfo=UTC), None]
    assert kept("t > '2025-12-31'", {"t": moments}) == [True, False]
    assert kept("b = 'true'", {"b": [True, False]}) == [True, False]
    assert column("d->>'a'", {"d": [{"a": 1}, {"a": float("nan")}]}) == ["1", None]


def test_an_empty_text_is_an_empty_cell():
    assert column("replace(model, model, '')") == [None, None, None]


@pytest.mark.parametrize(
    "where",
    [
        "1); DROP TABLE source; --",
        "1, 2",
        "SELECT 1",
        "a; b",
        "nosuch = 1",
        "count(*) > 1",
        "(SELECT count(*) FROM read_text('/etc/hostname')) > 0",
        "(SELECT count(*) FROM '/etc/hostname') > 0",
        "row_number() OVER () > 1",
        "CAST(model AS INTEGER) = 1",
        "unnest([1, 2]) = 1",
        "",
    ],
)
def test_what_is_not_one_expression_over_the_row_is_refused(where):
    with pytest.raises(UsageError, match="--where"):
        kept(where)


def test_a_refused_expression_says_what_its_columns_hold():
    with pytest.raises(UsageError, match=r"Columns it names: model \(string\)"):
        kept("model > 3")


def test_names_that_need_quotes_and_names_that_differ_by_case():
    assert kept('"a""b" = \'x\' AND "#n" = 1', {'a"b': ["x"], "#n": ["1"]}) == [True]
    with pytest.raises(UsageError, match="more than one 'Model'"):
        kept("model = 'x'", {"Model": ["x"], "model": ["y"]})
    with pytest.raises(UsageError, match="more than one 'a'"):
        evaluate(Expressions({"A": "a"}, None), {"a": ["x"]})


def test_a_comment_hides_nothing():
    assert kept("model IS NULL -- OR true") == [False, False, True]


def test_without_expressions_everything_is_kept():
    assert evaluate(Expressions({}, None)) == ([True] * 3, {})
