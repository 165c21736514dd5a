import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fl_core.data.table import Block, count_rows, open_table, parse_time
from fl_core.errors import DataError
from tests.data.tables import write_table

BROKEN = {
    "empty file": (b"", "is empty"),
    "only blank": (b"\n\n", "is empty"),
    "no header": (b"1,2\n3,4\n", "line 1 holds numbers"),
    "a column twice": (b"a,a\n1,2\n", "column 2 repeats 'a' in line 1"),
    "a column without a name": (b"a,,c\n1,2,3\n", "column 2 has no name in line 1"),
    "text": (b"a,b\n1,2\n3,x4\n", r"row 2 \(line 3\), column 'b': 'x4' is not a number"),
    "underscore": (b"a,b\n1,2\n3,1_000\n", r"row 2 \(line 3\), column 'b': '1_000'"),
    "nan": (b"a,b\n1,2\nnan,4\n", r"row 2 \(line 3\), column 'a' is nan, not a finite"),
    "infinity": (b"a,b\n1,-inf\n", r"row 1 \(line 2\), column 'b' is -inf, not a finite"),
    "too large": (b"a,b\n1,1e999\n", r"row 1 \(line 2\), column 'b' is 1e999, not a finite"),
    "an empty cell": (b"a,b\n1,\n", r"row 1 \(line 2\), column 'b' is empty"),
    "a row too short": (b"a,b\n1,2\n3\n", r"row 2 \(line 3\) has 1 columns, the header has 2"),
    "a row too long": (b"a,b\n1,2,3\n", r"row 1 \(line 2\) has 3 columns, the header has 2"),
    "text after a blank line": (b"a,b\n1,2\n\n?,4\n", r"row 2 \(line 4\), column 'a': '\?'"),
    "latin-1 in a cell": (b"a,b\n1,2\n\xe9,4\n", r"row 2 \(line 3\) is not UTF-8"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "line 1 is not UTF-8"),
    "a quoted comma": (b'a,b\n"1,5",2\n', r"row 1 \(line 2\), column 'a': '1,5' is not a number"),
    "binary": (b"\x00\xff\xfe\n\x00", "line 1 is not UTF-8"),
}


def read(path: Path) -> Block:
    table = open_table(path)
    return table.read(table.features)


@pytest.mark.req("F-20")
@pytest.mark.parametrize("case", BROKEN)
def test_broken_tables_are_one_line_that_says_where(tmp_path, case):
    content, message = BROKEN[case]
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.req("F-20")
def test_a_fault_far_down_is_found_by_row_and_column(tmp_path):
    path = write_table(tmp_path / "long.csv", 5000, columns=("a", "b", "c"))
    lines = path.read_text().splitlines()
    lines[4321] = lines[4321].rsplit(",", 1)[0] + ",oops"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=re.escape("row 4321 (line 4322), column 'c': 'oops'")):
        read(path)


@pytest.mark.req("F-20")
def test_a_file_cut_off_in_its_last_row_says_so(tmp_path):
    path = tmp_path / "cut.csv"
    path.write_text("a,b\n1,2\n3")
    with pytest.raises(DataError, match="row 2") as caught:
        read(path)
    assert "cut off" in caught.value.hint


@pytest.mark.req("F-20")
def test_a_missing_column_is_named(tmp_path):
    path = write_table(tmp_path / "t.csv", 3)
    with pytest.raises(DataError, match="column 'c' and 1 more is missing in line 1"):
        open_table(path).read(["a", "c", "d"])


@pytest.mark.req("F-20")
def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)


@pytest.mark.req("F-21")
def test_columns_are_found_by_name_and_others_ignored(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("note,b,time,a,device\nhello,2,10.5,1,cam\nworld,4,11.5,3,door\n")
    rows = open_table(path).read(["a", "b"], side=["time", "device"])
    assert rows.values.tolist() == [[1, 2], [3, 4]]
    assert rows.side == {"time": ["10.5", "11.5"], "device": ["cam", "door"]}


@pytest.mark.req("F-21")
def test_without_names_all_but_the_side_columns_are_features(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("timestamp,x,label,y\n2024-05-01T00:00:00,1,0,2\n")
    assert open_table(path).features == ("x", "y")


@pytest.mark.parametrize(
    "text",
    [
        "a;b\n1;2\n3;4\n",
        "a\tb\n1\t2\n3\t4\n",
        "\ufeffa,b\r\n1,2\r\n3,4\r\n",
        'a,b\n"1",2\n3,4',
        "a,b\n\n1,2\n\n3,4\n\n",
    ],
    ids=["semicolon", "tab", "bom and crlf", "quotes", "blank lines"],
)
def test_harmless_spellings_are_read(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert read(path).values.tolist() == [[1, 2], [3, 4]]
    assert count_rows(path) == 2


@pytest.mark.req("F-22")
def test_only_wanted_rows_are_parsed(tmp_path):
    path = write_table(tmp_path / "t.csv", 6000)
    lines = path.read_text().splitlines()
    lines[7] = "not,wanted"
    path.write_text("\n".join(lines))
    block = open_table(path).read(["b", "a"], rows=[0, 5, 2500, 5999])
    assert block.values[:, 1].tolist() == [0, 5, 2500, 5999]
    assert block.rows == [1, 6, 2501, 6000]


@pytest.mark.req("F-22")
def test_memory_beyond_the_result_is_bounded(tmp_path):
    names = tuple(f"c{i}" for i in range(60))
    path = write_table(tmp_path / "t.csv", 8000, columns=names)
    tracemalloc.start()
    try:
        block = open_table(path).read(names, rows=range(8000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert block.values.nbytes == 8000 * 60 * 8
    assert peak < 2.5 * block.values.nbytes


def test_a_wide_range_of_numbers_is_read_exactly(tmp_path):
    values = np.array([[1e-300, -2.5e17], [0.1, 1.7976931348623157e308]])
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "\n".join(",".join(map(repr, row.tolist())) for row in values))
    np.testing.assert_array_equal(read(path).values, values)


def test_times_without_a_zone_are_utc():
    assert parse_time("1970-01-01 00:01:00", "t") == 60.0
    assert parse_time("1e3", "t") == 1000.0
    assert parse_time("2024-05-01T02:00:00+02:00", "t") == parse_time("2024-05-01T00:00:00", "t")


@pytest.mark.req("F-20")
@pytest.mark.parametrize(("text", "message"), [("soon", "'soon' is not a time"), ("nan", "'nan'")])
def test_what_is_no_time_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        parse_time(text, "row 1, column 'time'")
