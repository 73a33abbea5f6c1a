import csv
import io
import math

import pytest

from autoseg.digits import as_csv, as_text, rounded


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4311.370592, 4311.3706),
        (0.5, 0.5),
        (0.123456, 0.1235),
        (0.0123456, 0.01235),
        (3.58418e-9, 3.584e-9),
        (-3.58418e-9, -3.584e-9),
        (0.0, 0.0),
        (1e15 + 0.3, 1e15 + 0.25),
        (math.inf, math.inf),
    ],
)
def test_a_number_keeps_four_decimals_and_four_significant_digits(value, expected):
    assert rounded(value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (12.345, 2, "12.35"),
        (0.12, 2, "0.12"),
        (0.1, 2, "0.10"),
        (0.012, 2, "0.012"),
        (3.584e-9, 3, "3.6e-09"),
        (-0.0004, 2, "-0.0004"),
        (0.0, 3, "0.000"),
        (-0.0, 2, "0.00"),
        (-1e-17, 2, "0.00"),  # rounding of a sum
        (1234567.0, 0, "1234567"),
    ],
)
def test_a_table_never_shows_zero_for_what_is_small(value, decimals, text):
    assert as_text(value, decimals) == text
    assert as_text(1.5, 1, sign="+") == "+1.5"
    assert as_text(1234.5, 1, grouped=",") == "1,234.5"


def test_a_table_is_written_whatever_a_structure_is_called():
    rows = [["case", "structure"], ["001", 'so "called", ü\n']]
    assert list(csv.reader(io.StringIO(as_csv([*rows, ["2", "a\0b"]])))) == [*rows, ["2", "a\ufffdb"]]


@pytest.mark.parametrize("name", ["=1+1", "+P1", "-P1", "@P1"])
def test_names_stay_as_they_are_so_that_tables_can_be_joined(name):
    """What spreadsheets compute of such names is told in docs/reference/outputs.md."""
    assert as_csv([[name, 1]]) == f"{name},1\n"
