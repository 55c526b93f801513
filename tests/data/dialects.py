"""Files of one table as programs write them; `python -m tests.data.dialects` reads them all.

Dialects are rebuilt from the documentation of what writes them: R, data.table, pandas, numpy,
Excel in several countries, LabVIEW, Octave, gnuplot, Fortran, spectrometers and plate readers.
"""

import bz2
import csv
import gzip
import io
import lzma
import sys
import tempfile
from pathlib import Path

import numpy as np

ROWS = 40
NUMBERS = np.round(
    np.column_stack(
        [
            np.linspace(350, 745, ROWS),
            np.random.default_rng(8).normal(size=ROWS) * 1000,
            np.random.default_rng(9).uniform(-1, 1, ROWS),
        ]
    ),
    4,
)
NAMES = "x", "y", "z"


def body(sep=",", decimal=".", form="{!r}", quote="", before="", after="", end="\n"):
    """Return the rows as text; `before` may name the row by {}."""

    def cell(number):
        return quote + form.format(float(number)).replace(".", decimal) + quote

    return "".join(
        before.format(row + 1) + sep.join(map(cell, numbers)) + after + end
        for row, numbers in enumerate(NUMBERS)
    )


def grouped(thousands, decimal, sep, quote=""):
    def cell(number):
        text = f"{number:,.4f}".replace(",", "\0").replace(".", decimal).replace("\0", thousands)
        return quote + text + quote

    return "".join(sep.join(map(cell, numbers)) + "\n" for numbers in NUMBERS)


LABVIEW = "\n".join(
    [
        "LabVIEW Measurement\t",
        "Writer_Version\t2",
        "Separator\tTab",
        "Decimal_Separator\t.",
        "X_Columns\tOne",
        "Date\t2026/01/02",
        "***End_of_Header***\t",
        "\t",
        "Channels\t2\t\t",
        "Samples\t40\t40\t",
        "X0\t0.0\t0.0\t",
        "Delta_X\t1.0\t1.0\t",
        "***End_of_Header***\t\t\t",
        "x\ty\tz\tComment",
        body("\t", after="\t"),
    ]
)
FORTRAN = "".join(
    "".join(f"{number:.10E}".replace("E", "D").rjust(25) for number in row) + "\n"
    for row in NUMBERS
)
XYZ = "x,y,z\n"

# what each holds; read means that x, y and z come back
READ = {
    "comma.csv": XYZ + body(),
    "semicolon.csv": "x;y;z\n" + body(";"),
    "tab.tsv": "x\ty\tz\n" + body("\t"),
    "bar.txt": "x|y|z\n" + body("|"),
    "aligned.dat": "   x        y     z\n" + body(" ", form="{:>14.4f}"),
    "semicolon_decimal_comma.csv": "x;y;z\n" + body(";", ","),
    "tab_decimal_comma.tsv": "x\ty\tz\n" + body("\t", ","),
    "quoted_decimal_comma.csv": XYZ + body(",", ",", quote='"'),
    "r_write_csv.csv": '"","x","y","z"\n' + body(before='"{}",'),
    "r_write_csv2.csv": '"";"x";"y";"z"\n' + body(";", ",", before='"{}";'),
    "r_write_table.txt": '"x" "y" "z"\n' + body(" ", before='"{}" '),
    "r_write_table_tab.txt": "x\ty\tz\n" + body("\t", before="{}\t"),
    "r_write_table_comma.csv": '"x","y","z"\n' + body(before='"{}",'),
    "fwrite_bar_quoted.csv": '"x"|"y"|"z"\n' + body("|", quote='"'),
    "pandas_index.csv": ",x,y,z\n" + body(before="{},"),
    "pandas_two_levels.csv": "a,a,b\n" + XYZ + body(),
    "numpy_savetxt.txt": "# x y z\n" + body(" ", form="{:.18e}"),
    "numpy_savetxt_comma.csv": "# x,y,z\n" + body(form="{:.18e}"),
    "gnuplot.dat": "# run 1\n#x\ty\tz\n" + body("\t"),
    "matlab.csv": XYZ + body(form="{:.15g}"),
    "fortran.dat": "   x      y    z\n" + FORTRAN,
    "labview.lvm": LABVIEW,
    "spectrometer.csv": "Instrument: A\nDate: 2026-01-01 10:11\nOperator: A, B and C\n\n"
    + XYZ
    + body(),
    "preamble_wide.csv": "Sample,A1,B,C,D\nDate,2026-01-01\n\n" + XYZ + body(),
    "comments.csv": "# by X, version 1.2\n# gain=3\n" + XYZ + body(),
    "comment_inside.csv": XYZ + body().replace("\n", "\n# restarted\n", 1),
    "percent_comment.dat": "% x y z of run 3\nx y z\n" + body(" "),
    "units.csv": XYZ + "s,mV,mol/L\n" + body(),
    "units_brackets.csv": ("x;y;z\n[nm];[mA];[V]\n" + body(";", ",")).encode("cp1252"),
    "german.csv": ("Messung;3\nGerät;AB 12\n\nx;y;z\ns;mV;mol/l\n" + body(";", ",")).encode(
        "cp1252"
    ),
    "excel_sep.csv": ("sep=;\r\nx;y;z\r\n" + body(";", ",", end="\r\n")).encode("cp1252"),
    "excel_unicode.txt": ("x\ty\tz\r\n" + body("\t", ",", end="\r\n")).encode("utf-16"),
    "excel_no_mark.txt": ("x\ty\tz\r\n" + body("\t", end="\r\n")).encode("utf-16-le"),
    "excel_blank_rows.csv": "x,y,z,\r\n" + body(after=",", end="\r\n") + ",,,\r\n,,,\r\n",
    "excel_title.csv": "My measurement,,\r\n,,\r\nx,y,z\r\n" + body(end="\r\n"),
    "old_mac.csv": "x,y,z\r" + body(end="\r"),
    "bom.csv": b"\xef\xbb\xbf" + (XYZ + body()).encode(),
    "thousands_quoted.csv": XYZ + grouped(",", ".", ",", '"'),
    "thousands_german.csv": "x;y;z\n" + grouped(".", ",", ";"),
    "thousands_swiss.csv": "x;y;z\n" + grouped("'", ".", ";"),
    "thousands_swiss_curled.csv": "x;y;z\n" + grouped("’", ".", ";"),
    "thousands_french.csv": "x;y;z\n" + grouped("\u202f", ",", ";"),
    "thousands_french_latin.csv": ("x;y;z\n" + grouped("\u00a0", ",", ";")).encode("cp1252"),
    "thousands_tab.tsv": "x\ty\tz\n" + grouped(",", ".", "\t"),
    "trailing.csv": "x,y,z,\n" + body(after=","),
    "trailing_rows_only.csv": XYZ + body(after=","),
    "dates.csv": "time,x,y,z\n" + body(before="2026-01-02 10:00:{:02d},"),
    "dates_decimal_comma.csv": "time;x;y;z\n" + body(";", ",", before="2026-01-02T10:00:{:02d};"),
    "text_column.csv": "name,x,y,z\n" + body(before='"sample {}, left",'),
    "lines_in_cells.csv": "note,x,y,z\n" + body(before='"line {}\nand more",'),
    "line_in_header.csv": '"x",y,"z\n(nm)"\n' + body(),
    "minus_sign.csv": "x;y;z\n" + body(";", ",").replace("-", "\u2212"),
    "spaces_after.csv": "x, y, z\n" + body(", "),
    "latin1.csv": ("x,y,zµ\n" + body()).encode("latin-1"),
    "plate.csv": "<>,1,2,3\n" + body(before="well {},"),
    "no_header.csv": body(),
    "packed.csv.gz": gzip.compress((XYZ + body()).encode()),
    "packed.csv.bz2": bz2.compress((XYZ + body()).encode()),
    "packed.csv.xz": lzma.compress((XYZ + body()).encode()),
}
# what says too little, or has lines that are no rows
REFUSED = {
    "footer.csv": XYZ + body() + "Mean,1.5,2.5\n",
    "footer_after_names.csv": "name,x,y,z\n" + body(before="s{},") + "Mean,1.5,2.5,3.5\n",
    "remarks.csv": XYZ + body() + "\n[Comments]\nSample name,A\n",
    "ragged.csv": XYZ + body() + "1,2\n" + body(),
    "thousands_or_decimals.csv": "x;y\n1;1,234\n2;5,678\n3;9,123\n",
    "dots_or_thousands.csv": "x;y\n1;1.234\n2;5.678\n3;9.123\n",
    "one_column_or_two.csv": "x\n1,50\n2,25\n3,75\n",
    "open_quote.csv": 'x,y\n1,"2\n3,4\n',
    "no_numbers.csv": "a,b\nfoo,bar\n",
    "zeros.bin": b"x,y\n1,\0\n",
}


def right(found):
    """Tell whether x, y and z are among columns of numbers, and nothing but rows."""
    return all(
        any(len(c) == ROWS and np.array_equal(np.round(c, 4), wanted) for c in found)
        for wanted in NUMBERS.T
    )


def by_zeroproof(path):
    from zeroproof.data import read_table

    table = read_table(path)
    return [table.cells(name).value for name in table.columns]


def by_pandas(path):
    import pandas as pd

    return [c.to_numpy(float) for _, c in pd.read_csv(path).select_dtypes("number").items()]


def by_pandas_sniffing(path):
    import pandas as pd

    frame = pd.read_csv(path, sep=None, engine="python").select_dtypes("number")
    return [column.to_numpy(float) for _, column in frame.items()]


def by_csv_sniffer(path):
    import pandas as pd

    text = Path(path).read_text(encoding="utf-8-sig")
    sep = csv.Sniffer().sniff(text[:8192]).delimiter
    frame = pd.read_csv(io.StringIO(text), sep=sep).select_dtypes("number")
    return [column.to_numpy(float) for _, column in frame.items()]


def misread(found):
    """Tell whether a column of numbers is neither in the file nor a count of rows."""
    known = np.round(np.r_[NUMBERS.ravel(), np.arange(100)], 4)
    columns = [np.round(c[np.isfinite(c)], 4) for c in found]
    return any(len(c) > 10 and not np.isin(c, known).all() for c in columns)


def main():
    readers = [by_zeroproof, by_pandas, by_pandas_sniffing, by_csv_sniffer]
    try:
        import duckdb

        def by_duckdb(path):
            frame = duckdb.sql(f"select * from read_csv('{path}')").df().select_dtypes("number")
            return [column.to_numpy(float) for _, column in frame.items()]

        readers.append(by_duckdb)
    except ImportError:
        pass
    counts = {reader: [0, 0, 0] for reader in readers}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (READ | REFUSED).items():
            path = Path(folder) / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            for reader in readers:
                try:
                    found = reader(path)
                    place = 0 if right(found) and name in READ else 1 if misread(found) else 2
                except Exception:
                    place = 2
                counts[reader][place] += 1
    print(f"{len(READ)} files with one reading, {len(REFUSED)} without")
    print("| reader | right | misread | refused, or no numbers |\n|---|---|---|---|")
    for reader, (good, bad, none) in counts.items():
        print(
            f"| {reader.__name__.removeprefix('by_').replace('_', ' ')} | {good} | {bad} | {none} |"
        )


if __name__ == "__main__":
    sys.exit(main())
