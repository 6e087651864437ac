import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ms.history.readers.number_style import NumberStyle, Unread, scalar, settles, to_number

PERCENT = NumberStyle(percent=True)
SPREAD = NumberStyle(spread=True)
POINT = NumberStyle(decimal=".")
COMMA = NumberStyle(decimal=",")


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
        ("0,5", "0,5"),
        ("10%", "10%"),
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
        ("12", 12.0),
        (" 3 ", 3.0),
        ("\u00a03\u202f", 3.0),
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("\u22120.5", -0.5),
        ("\uff0d1", -1.0),
        ("1.105", 1.105),
        (10**400, None),
        ("1,013.01", None),
        ("0,5", None),
        ("1 000", None),
        ("1_000", None),
        ("\u20130.5", None),
        ("9/10", None),
        ("0x10", None),
        ("\u0661\u0662", None),
        ("1e", None),
        (".", None),
        ("+", None),
        ("abc", None),
        (True, None),
        (None, None),
    ],
)
def test_plain_numbers_have_a_point_at_most(text, wanted):
    assert to_number(text) == wanted


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("0,913", None, 0.913),
        ("1,105", 1105.0, 1.105),
        ("1.105", 1.105, 1105.0),
        ("0.913", 0.913, None),
        ("1,013.01", 1013.01, None),
        ("1.013,01", None, 1013.01),
        ("1 013", 1013.0, 1013.0),
        ("1\u202f013,5", None, 1013.5),
        ("1'013.5", 1013.5, None),
        ("12,34,567", None, None),
        ("1,234 567", None, None),
        ("1,5e-3", None, 0.0015),
        ("-2,5", None, -2.5),
        (",5", None, 0.5),
        (",", None, None),
        ("12", 12.0, 12.0),
    ],
)
def test_a_told_decimal_sign_leaves_one_reading(text, point, comma):
    assert POINT.number(text) == point
    assert COMMA.number(text) == comma


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**12), st.sampled_from([",", " ", "'", "\u00a0"]))
def test_groups_of_thousands_round_trip(number, sign):
    assert POINT.scalar(f"{number:,}".replace(",", sign)) == number


@settings(deadline=None, max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_with_a_decimal_comma_round_trip(number):
    assert COMMA.number(repr(number).replace(".", ",")) == number


@pytest.mark.parametrize(
    ("text", "sign", "words"),
    [
        ("0,913", "decimal", "0.913 with a decimal comma (--decimal ,)"),
        ("1,105", "decimal", "1105 with a decimal point (--decimal .); 1.105 with a decimal comma"),
        ("1 013", "decimal", "1013 with a decimal point"),
        ("91.3%", "percent", "percent sign"),
        ("91.3\u00a0%", "percent", "percent sign"),
        ("91,3%", "decimal", "91.3 with a decimal comma"),
        ("0.913 \u00b1 0.004", "spread", "its spread"),
        ("0.913+/-0.004", "spread", "its spread"),
        ("0.913 (0.004)", "spread", "its spread"),
        ("91.3 \u00b1 0.4%", "spread", "its spread"),
        ("0,913 \u00b1 0,004", "decimal", "0.913 with a decimal comma"),
        ("abc", "", "got 'abc', expected a number"),
        ("(0.5)", "", "expected a number"),
        ("resnet (v2)", "", "expected a number"),
        ("12 GB", "", "expected a number"),
        ("x" * 10_000, "", "a text of 10000 characters"),
        (" " * 300 + "x" + " " * 300 + "y", "", "expected a number"),
    ],
)
def test_what_is_not_read_says_what_would_settle_it(text, sign, words):
    found = NumberStyle().read(text)
    assert isinstance(found, Unread)
    assert found.sign == sign
    assert words in found.reason
    assert len(found.reason) < 300


@pytest.mark.parametrize("text", ["91.3%", "91.3 %", "91.3"])
def test_a_percent_sign_is_left_out_where_it_is_told(text):
    assert PERCENT.number(text) == 91.3


@pytest.mark.parametrize(
    "text",
    ["0.913 \u00b1 0.004", "0.913\u00b10.004", "0.913 +/- 0.004", "0.913 +- 4e-3", "0.913 (0.004)"],
)
def test_the_number_before_a_spread(text):
    assert SPREAD.number(text) == 0.913
    assert SPREAD.number("0.913") == 0.913


def test_signs_together():
    style = NumberStyle(decimal=",", percent=True, spread=True)
    for text in ("91,3 \u00b1 0,4%", "91,3% \u00b1 0,4%", "91,3 (0,4) %"):
        assert style.number(text) == 91.3
    told = COMMA.read("0.913")
    assert isinstance(told, Unread)
    assert (told.sign, "told to be ','" in told.reason) == ("", True)


def test_what_shows_how_a_sign_is_to_be_taken():
    assert [settles(cell, "decimal") for cell in ("0.9", "1.1055", "1.105", "12", 0.5, 12)] == [
        *(True, True, False, False, True, False)
    ]
    assert settles("12", "percent")
