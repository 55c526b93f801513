import pytest

from zeroproof.cli.tables import answer_columns, column_names
from zeroproof.errors import DataError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("y", ("y",)),
        ("a,b", ("a", "b")),
        (" a , b ", ("a", "b")),
        ('"a, b",c', ("a, b", "c")),
        ("5", ("5",)),
    ],
)
def test_names_are_split_as_in_a_csv_file(text, names):
    assert column_names(text, "--target") == names


@pytest.mark.parametrize("text", ["", " ", ",", "a,", "a,,b", "a,b,a", "a, a"])
def test_a_list_that_names_nothing_or_one_column_twice_is_refused(text):
    with pytest.raises(DataError, match="--target must list column names, each once, got"):
        column_names(text, "--target")


def test_the_columns_of_an_answer():
    assert answer_columns("y") == ("y", "y_error", "y_low", "y_high", "y_score", "y_status")
