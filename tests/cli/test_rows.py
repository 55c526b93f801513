import pytest

from zeroproof.cli.runs import open_run


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


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfx,y\n1,2\n2,inf\n3,nan\n4,1\n",
        b"x,y\r\n1,2\r\n2,inf\r\n3,nan\r\n4,1\r\n",
        b"\nx,y\n\n1,2\n2,Infinity\n,\n3,NaN\n4,1\n\n",
        b'"x","y"\n"1","2"\n2, inf \n3,nan\n4,1\n',
    ],
    ids=["bom", "crlf", "blank", "quoted"],
)
def test_files_of_several_dialects_are_read(fit, table, content, quick):
    outcome = fit(table(content), "--target", "y", *quick)
    assert outcome.code == 0
    assert "fitted 4 rows" in outcome.out
    assert "2 rows have a singular target" in outcome.out


@pytest.mark.parametrize("name", ["5", "null", "1e3", "true", "[a]", "{x}", "a: b", "# c", "~"])
def test_a_column_may_have_any_name(fit, table, tmp_path, quick, name):
    path = table(f"x,{name}\n" + "".join(f"{i},{i}\n" for i in range(5)))
    assert fit(path, "--target", name, *quick).code == 0
    assert targets_and_features(tmp_path / "run") == ((name,), ("x",))


ROWS = "1,2\n2,3\n3,5\n"
BAD_TABLES = {
    "empty file": ("", "y", "must name its columns in its first line, got an empty file"),
    "header alone": ("x,y\n", "y", "must have at least one row below its header"),
    "missing target": ("x,y\n" + ROWS, "z", "must have a column 'z', got 'x', 'y'"),
    "text feature": ("x,y\n1,2\nlow,3\n", "y", "line 3, column 'x': must be a number, got 'low'; "),
    "advice": ("x,y\n1,2\nlow,3\n", "y", "or choose other columns with --features"),
    "empty cell": ("x,y\n1,2\n,3\n", "y", "line 3, column 'x': must be a number, got an empty"),
    "inf feature": ("x,y\n1,2\ninf,3\n", "y", "line 3, column 'x': must be a finite number"),
    "text target": ("x,y\n1,2\n2,<3\n", "y", "line 3, column 'y': must be a number, got '<3'; a"),
    "target advice": ("x,y\n1,2\n2,\n", "y", "a target is a number, inf, -inf, or nan for ⊥"),
    "all ⊥": (
        "x,y,z\n1,inf,1\n2,nan,1\n",
        "z,y",
        "target 'y' must have a finite value in some row",
    ),
    "ragged": ("x,y\n1,2\n2,3,4\n", "y", "line 3: must have 2 cells as the header, got 3"),
    "name twice": ("x,x,y\n1,2,3\n", "y", "must name each column once, got 'x' twice"),
    "NUL": ("x,y\n1,\0\n", "y", "line 2: must be text, got a NUL byte"),
    "latin-1": (b"x,y\n1,\xb5\n", "y", "line 2: must be UTF-8 text, got byte 0xb5"),
    "quotes": ('x,y\n1,"2\n', "y", "must be CSV, got unexpected end of data"),
    "no feature": ("y\n1\n2\n", "y", "must have a column besides the targets to predict from"),
    "target twice": ("x,y\n" + ROWS, "y,y", "--target must list column names, each once"),
    "no target": ("x,y\n" + ROWS, "", "--target must list column names, each once, got ''"),
    "clash": ("x,y,y_gap\n1,2,3\n2,3,4\n", "y,y_gap", "must not be named as the answers for other"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_refused(refused, table, tmp_path, name):
    content, target, sentence = BAD_TABLES[name]
    path = table(content)
    words = ("fit", path, "--target", target, "--out", tmp_path / "deep" / "run")
    assert sentence in refused(*words)
    assert list(tmp_path.iterdir()) == [path]


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
    assert sentence.endswith("no.csv must be a readable CSV file: No such file or directory")
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
