from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.number_style import NumberStyle, Unread
from recsys_ms.history.readers.templates import (
    bind_template,
    parse_nested,
    plain_text,
    split_template,
)


def fill(text, **columns):
    cells = {name.replace("_SPACE_", " "): column for name, column in columns.items()}
    n_rows = len(next(iter(cells.values())))
    return bind_template(text, list(cells), target="model_id").apply(cells, n_rows)


def test_slots_and_literals_are_joined_by_row():
    filled = fill(
        "{Architecture}@{Source_SPACE_Dataset}!".replace("_SPACE_", " "),
        Architecture=["resnet50", "alexnet"],
        Source_SPACE_Dataset=["a", "b"],
    )
    assert filled == ["resnet50@a!", "alexnet@b!"]


def test_names_with_any_character_are_columns():
    cells = {"#labels": ["3"], "a:b": ["x"], "val.top-1 (%)": ["9"], "a|b": ["p"]}
    for name, column in cells.items():
        assert bind_template(f"{{{name}}}", list(cells), target="value").apply(cells, 1) == column


def test_a_template_with_an_empty_slot_is_empty():
    assert fill("{a}@{b}", a=["x", None, "z"], b=["1", "2", None]) == ["x@1", None, None]


def test_doubled_braces_are_plain():
    assert fill("{{{a}}}", a=["x"]) == ["{x}"]
    assert split_template("a}}b") == [("a}b", False)]


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a", "a}", "{a{b}}", "{ }"])
def test_braces_without_partner_are_refused(text):
    with pytest.raises(UsageError, match="brace"):
        split_template(text)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("{'lr': 0.1, 'x': {'y': 'deep'}}", 0.1),  # Python literal
        ('{"lr": 0.1}', 0.1),  # JSON
        ({"lr": 0.1}, 0.1),
        ("{'lr': ''}", None),
        ("{'other': 1}", None),
        ("{broken", None),
        ("plain", None),
        (None, None),
        (3, None),
    ],
)
def test_keys_look_into_dicts_however_they_are_spelt(cell, wanted):
    assert fill("{configs.lr}", configs=[cell]) == [wanted]


def test_keys_reach_deep_and_into_lists():
    assert fill("{c.x.y}", c=["{'x': {'y': 'deep'}}"]) == ["deep"]
    assert fill("{c.0}", c=["['ViT', 'Swin']"]) == ["ViT"]
    assert fill("{c.7}", c=["['ViT']"]) == [None]


def test_the_longest_column_name_wins_over_keys():
    cells = {"configs": ['{"lr": 1}'], "configs.lr": ["2"]}
    assert bind_template("{configs.lr}", list(cells), target="value").apply(cells, 1) == ["2"]


@pytest.mark.parametrize("path", ["a.__class__", "a.__class__.__mro__", "a.real", "a.0.__init__"])
def test_no_path_is_an_attribute(path):
    # A path is keys of a dict; a text, a number or a list has none of these.
    for cell in ("text", 3, [1], "[1]"):
        assert fill(f"{{{path}}}", a=[cell]) == [None]


@pytest.mark.parametrize("slot", ["a[0]", "a!r", "a()", "__import__('os')", "0"])
def test_what_format_strings_would_evaluate_is_no_column(slot):
    with pytest.raises(UsageError, match="no column"):
        bind_template(f"{{{slot}}}", ["a"], target="model_id")


def test_a_python_literal_is_never_evaluated():
    assert parse_nested("{'a': __import__('os').getcwd()}") is None
    assert parse_nested("[" * 100_000) is None
    assert parse_nested("{(1, 2): 3}") is None
    assert parse_nested(r'{"a": "\ud800"}') is None


def test_formats():
    assert fill("lr={lr:.3f}", lr=["0.1", "1e-2", "abc", None]) == [
        "lr=0.100",
        "lr=0.010",
        Unread("'abc' cannot be written in the format '.3f'"),
        None,
    ]
    assert fill("{n:>6}|", n=["12"]) == ["    12|"]
    for wrong in ("{a:>1000000000}", "{a:c}"):
        with pytest.raises(UsageError, match="format"):
            bind_template(wrong, ["a"], target="model_id")


@pytest.mark.parametrize("spec", [".3f", "d", "e", "g", "n", "x", "b", "%", ",", "_", ">8", "s"])
@pytest.mark.parametrize(
    "cell",
    [
        10**400,
        10**308,
        -(10**18),
        "9" * 400,
        "1" + "0" * 5_000,
        "abc",
        "0,913",
        "91.3%",
        "007",
        0.5,
        float("nan"),
        float("inf"),
        True,
        [1],
        {"a": 1},
        datetime(2026, 1, 1, tzinfo=UTC),
        Decimal("1.5"),
        b"x",
    ],
    ids=lambda cell: repr(cell)[:12],
)
def test_every_format_of_every_cell_is_a_text_or_says_why_not(spec, cell):
    (filled,) = fill(f"{{a:{spec}}}", a=[cell])
    if isinstance(filled, Unread):
        assert "cannot be written in the format" in filled.reason
    else:
        assert filled.encode()
        # A date formatted as a number would be the text of the format itself.
        assert filled != spec


def test_a_number_of_two_readings_is_not_cut_to_a_format():
    assert isinstance(fill("{a:.3}", a=["0,913"])[0], Unread)
    bound = bind_template("{a:.1f}", ["a"], target="split")
    assert bound.apply({"a": ["0,913"]}, 1, NumberStyle(decimal=",")) == ["0.9"]


def test_an_unknown_column_lists_the_columns_with_close_matches_first():
    with pytest.raises(UsageError, match=r"did you mean \{Architecture\}\?.*Oracle") as error:
        bind_template("{architecture}", ["Architecture", "Oracle"], target="model_id")
    assert "--map model_id" in str(error.value)


def test_a_template_without_slots_names_the_option_that_was_meant():
    with pytest.raises(UsageError, match=r"--map model_id='\{model\}'"):
        bind_template("model", ["model"], target="model_id")
    with pytest.raises(UsageError, match=r"--set metric='accuracy'"):
        bind_template("accuracy", ["model"], target="metric")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("x", "x"),
        (224.0, "224"),
        (0.5, "0.5"),
        (True, "true"),
        (7, "7"),
        ([1], "[1]"),
        (1e20, "1e+20"),
    ],
)
def test_plain_text(cell, text):
    assert plain_text(cell) == text


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"])))
def test_literals_stay_as_they_are(text):
    filled = bind_template(f"{text}{{a}}", ["a"], target="model_id").apply({"a": ["x"]}, 1)
    assert filled == [f"{text}x"]
