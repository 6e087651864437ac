import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.templates import (
    bind_template,
    parse_nested,
    plain_text,
    scalar,
    split_template,
    to_number,
    without_thousands,
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
        None,
        None,
    ]
    assert fill("{n:>6}|", n=["12"]) == ["    12|"]
    with pytest.raises(UsageError, match="format"):
        bind_template("{a:>1000000000}", ["a"], target="model_id")


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("-1", -1),
        ("0.01", 0.01),
        ("1e-3", 1e-3),
        (":800", ":800"),
        ("007", "007"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ("1_000", "1_000"),
        ("", ""),
        (None, None),
    ],
)
def test_scalar_reads_only_what_spells_a_number(text, value):
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1,013.01", 1013.01),
        ("1,234,567", 1234567.0),
        ("0,5", None),
        ("1,23", None),
        ("12", 12.0),
        ("1_000", None),
        ("abc", None),
        (" 3 ", 3.0),
        (True, None),
        (None, None),
        (10**400, None),
    ],
)
def test_numbers_and_thousands_separators(text, wanted):
    assert to_number(text) == wanted


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**12))
def test_thousands_separators_round_trip(number):
    assert int(without_thousands(f"{number:,}")) == number


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"])))
def test_literals_stay_as_they_are(text):
    filled = bind_template(f"{text}{{a}}", ["a"], target="model_id").apply({"a": ["x"]}, 1)
    assert filled == [f"{text}x"]
