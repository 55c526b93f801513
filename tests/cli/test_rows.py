import pytest

from zeroproof.cli.runs import open_run
from zeroproof.cli.tables import column_names
from zeroproof.errors import DataError


@pytest.mark.parametrize(
    ("text", "names"),
    [("y", ("y",)), (" a , b ", ("a", "b")), ('"a, b",c', ("a, b", "c")), ("5", ("5",))],
)
def test_names_are_split_as_in_a_csv_file(text, names):
    assert column_names(text, "--target") == names


@pytest.mark.parametrize("text", ["", ",", "a,", "a, a"])
def test_a_list_that_names_nothing_or_one_column_twice_is_refused(text):
    with pytest.raises(DataError, match="--target must list column names, each once, got"):
        column_names(text, "--target")


def targets_and_features(folder):
    run = open_run(folder)
    return run.targets, run.features


def test_several_targets_and_chosen_features(fit, table, tmp_path, method):
    path = table(
        '"a, b",c,d,"e, f",name\n' + "".join(f"{i},{i * i},{i**3},{i},n\n" for i in range(9))
    )
    outcome = fit(path, "--target", '"e, f",d', "--features", 'c,"a, b"', *method)
    assert outcome.code == 0
    assert targets_and_features(tmp_path / "run") == (("e, f", "d"), ("c", "a, b"))


@pytest.mark.parametrize("name", ["5", "null", "1e3", "true", "[a]", "{x}", "a: b", "# c", "~"])
def test_a_column_may_have_any_name(fit, table, tmp_path, quick, name):
    path = table(f"x,{name}\n" + "".join(f"{i},{i}\n" for i in range(5)))
    assert fit(path, "--target", name, *quick).code == 0
    assert targets_and_features(tmp_path / "run") == ((name,), ("x",))


ROWS = "1,2\n2,3\n3,5\n"
BAD_TABLES = {
    "empty file": ("", "y", "must hold a table, got an empty file"),
    "header alone": ("x,y\n", "y", "must have at least one row below its header"),
    "near target": ("x,Yield\n" + ROWS, "yield", "got none; did you mean 'Yield'?"),
    "text feature": (
        "x,y\n1,2\nlow,3\n",
        "y",
        "column 'x': 1 × 'low', first in line 3; --missing-",
    ),
    "advice": ("x,y\n1,2\nlow,3\n", "y", "; --features takes other columns"),
    "empty cell": ("x,y\n1,2\n,3\n", "y", "missing cells in 1 of 2 rows ('x' 1); --drop-missing"),
    "inf feature": ("x,y\n1,2\ninf,3\n", "y", "column 'x': 1 × 'inf', first in line 3"),
    "bound": ("x,y\n1,2\n2,<3\n", "y", "1 cells are bounds (1 × <3), and no fit here uses bounds"),
    "nan": ("x,y\n1,2\n2,nan\n", "y", "1 × nan; --nan bottom: there is no finite value, or --nan "),
    "all ⊥": ("x,y,z\n1,inf,1\n2,#DIV/0!,1\n", "z,y", "target 'y': no finite value in any row"),
    "ragged": ("x,y\n" + ROWS + "2,3,4\n", "y", "line 5: must have 2 cells as the header, got 3"),
    "name twice": ("x,x,y\n1,2,3\n", "y", "columns left out whose name stands twice: x"),
    "quotes": ('x,y\n1,"2\n', "y", "must close its quotes, got an odd number of them"),
    "no feature": ("y\n1\n2\n", "y", "must have a column besides the targets to predict from"),
    "target twice": ("x,y\n" + ROWS, "y,y", "--target must list column names, each once"),
    "no target": ("x,y\n" + ROWS, "", "--target must list column names, each once, got ''"),
    "clash": ("x,y,y_low\n1,2,3\n2,3,4\n", "y,y_low", "must not be named as what is said of"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_refused(refused, table, tmp_path, name):
    content, target, sentence = BAD_TABLES[name]
    path = table(content)
    words = ("fit", path, "--target", target, "--out", tmp_path / "deep" / "run")
    assert sentence in refused(*words)
    assert list(tmp_path.iterdir()) == [path]


def test_several_problems_are_told_in_one_message_that_fits_a_screen(zeroproof, table, tmp_path):
    names = [f"c{k}" for k in range(30)]
    rows = ["".join(f"{word}," for _ in names) + "nan" for word in ("1", "bad", "3", "4", "5", "6")]
    path = table(",".join(names) + ",y\n" + "\n".join(rows) + "\n")
    outcome = zeroproof("fit", path, "--target", "y", "--out", tmp_path / "run")
    assert (outcome.code, outcome.out) == (2, "")
    lines = outcome.err.splitlines()
    assert len(lines) == 10
    assert "'y': 6 × nan" in lines[1]
    assert "'c0': 1 × 'bad', first in line 3" in lines[2]
    assert lines[-1] == "  and 23 more"


@pytest.mark.parametrize(
    ("kind", "content", "sentence"),
    [
        ("train", "x,y\n1,2\n1,3\n", "some feature must vary, got constant columns x"),
        ("solve", "x,y\n1,2\n1,3\n", "X must have a column that varies, got 1 constant columns"),
        ("train", "x,y\n1,2\n1e31,3\n", "column 'x' must not exceed 1e+30 in size, got 1e+31 in"),
        ("solve", "x,y\n1,2\n1e101,3\n", "X must stay below 1e+100 in size: change its unit"),
    ],
)
def test_what_a_method_cannot_fit_is_refused(refused, table, tmp_path, kind, content, sentence):
    path = table(content)
    words = ("fit", path, "--target", "y", "--out", tmp_path / "deep" / "run", "--method", kind)
    assert sentence in refused(*words)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there(refused, tmp_path):
    sentence = refused("fit", tmp_path / "no.csv", "--target", "y", "--out", tmp_path / "run")
    assert sentence.endswith("no.csv must be a readable file: No such file or directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("train", "constant columns tell nothing: c"),
        ("solve", "columns ['c', 'd'] are constant or duplicates and tell nothing"),
    ],
)
def test_a_warning_is_a_sentence_on_standard_error(fit, table, kind, sentence):
    path = table("x,c,d,y\n" + "".join(f"{i},7,{i},{i}\n" for i in range(9)))
    steps = ("--steps", 5) if kind == "train" else ()
    outcome = fit(path, "--target", "y", "--method", kind, *steps)
    assert outcome.code == 0
    assert outcome.err == f"zeroproof: warning: {sentence}\n"
