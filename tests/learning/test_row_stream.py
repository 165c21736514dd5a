from __future__ import annotations

import io
import os

import numpy as np
import pytest

from fl_core.data.capture import Capture
from fl_core.data.extractor import FEATURE_NAMES, extract
from fl_core.errors import DataError
from fl_core.row_stream import (
    CsvRows,
    capture_batches,
    csv_batches,
    follow_bursts,
    open_batches,
    read_bursts,
)
from tests.data.frames import ethernet, ipv4, pcap, tcp

TEXT = b"time,device,a,b,extra\n1,x,1.5,2,z\n\n2,y,-3e17,4,z\n2024-05-01T12:00:00,x,5,6,z"


def pipe_with(*parts: bytes) -> int:
    read, write = os.pipe()
    for part in parts:
        os.write(write, part)
    os.close(write)
    return read


def batches(text: bytes, names=("b", "a"), bad=None):
    bursts = [text.split(b"\n")]
    return list(csv_batches(bursts, name="t.csv", feature_names=names, bad=bad))


@pytest.mark.req("L-20")
def test_columns_are_found_by_name_and_rows_keep_their_numbers():
    (batch,) = batches(TEXT)
    assert batch.values.tolist() == [[2.0, 1.5], [4.0, -3e17], [6.0, 5.0]]
    assert batch.numbers == [1, 2, 3]
    assert batch.times == [1.0, 2.0, 1714564800.0]
    assert batch.devices == ["x", "y", "x"]


@pytest.mark.req("L-20")
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_pipe_gives_the_same_rows_however_it_is_cut(monkeypatch, size):
    monkeypatch.setattr("fl_core.row_stream.BURST_BYTES", size)  # bytes a read
    bursts = read_bursts(pipe_with(TEXT), "p")
    found = list(csv_batches(bursts, name="p", feature_names=("a",)))
    assert [row for b in found for row in b.values.tolist()] == [[1.5], [-3e17], [5.0]]
    assert [number for b in found for number in b.numbers] == [1, 2, 3]


@pytest.mark.parametrize("separator", [b";", b"\t"])
def test_other_separators_quotes_and_line_ends_are_read(separator):
    text = b'a,b,"c,c"\r\n1,2,3\r\n4,"5",6\r\n'.replace(b"c,c", b"c").replace(b",", separator)
    (batch,) = batches(text, ("a", "b"))
    assert batch.values.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert batch.times == batch.devices == [None, None]


@pytest.mark.req("L-21")
@pytest.mark.parametrize(
    ("row", "text"),
    [
        (b"1,x,abc,2,z", r"row 3 \(line 5\), column 'a': 'abc' is not a finite number"),
        (b"1,x,nan,2,z", "column 'a': 'nan' is not a finite number"),
        (b"1,x,1,,z", "column 'b': '' is not a finite number"),
        (b"1,x,1,inf,z", "column 'b'"),
        (b"1,x,1,2", r"row 3 \(line 5\) has 4 columns, the header has 5"),
        (b"soon,x,1,2,z", "column 'time': 'soon' is not a time"),
        (b"1,x,\xff,2,z", r"row 3 \(line 5\) is not UTF-8"),
    ],
)
def test_a_broken_row_is_named_or_skipped(row, text):
    data = TEXT.rpartition(b"\n")[0] + b"\n" + row + b"\n9,y,7,8,z\n"
    with pytest.raises(DataError, match=text):
        batches(data)
    skipped: list[DataError] = []
    (batch,) = batches(data, bad=skipped.append)
    assert batch.numbers == [1, 2, 4]
    assert len(skipped) == 1
    with pytest.raises(DataError, match=text):
        raise skipped[0]


@pytest.mark.req("L-21")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the input is empty"),
        (b"a,c\n1,2\n", "column 'b' is missing"),
        (b"a,a\n1,2\n", "repeats 'a'"),
        (b"1,2\n3,4\n", "holds numbers"),
    ],
)
def test_a_bad_header_ends_even_a_followed_input(text, message):
    with pytest.raises(DataError, match=message):
        list(
            csv_batches(
                read_bursts(pipe_with(text), "t"), name="t", feature_names="ab", bad=lambda _: None
            )
        )


def test_a_header_alone_gives_no_rows():
    assert batches(b"a,b\n") == []


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("fl_core.row_stream.MAX_LINE_BYTES", 100)
    with pytest.raises(DataError, match="longer than 100 bytes"):
        list(read_bursts(pipe_with(b"x" * 101), "p"))


# ---------------------------------------------------------------------------------- following


class Ended(Exception):
    """The end of the test's input."""


def followed(path, steps, names=("a",), bad=None):
    """Follow `path`; each wait runs the next step, and the last one ends."""
    script = iter(steps)

    def wait():
        step = next(script, None)
        if step is None:
            raise Ended
        step()

    rows: list[float] = []
    bursts = csv_batches(follow_bursts(path, wait), name="f", feature_names=names, bad=bad)
    with pytest.raises(Ended):
        rows.extend(value for batch in bursts for value in batch.values[:, 0].tolist())
    return rows


def append(path, data):
    def step():
        with path.open("ab") as file:
            file.write(data)

    return step


@pytest.mark.req("L-22")
def test_a_growing_file_is_read_on_and_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / "live.csv"
    path.write_bytes(b"a,")
    steps = [
        append(path, b"b\n1,2\n3"),
        append(path, b"4,5"),
        append(path, b"\n"),
        append(path, b"6,7\n8,9"),
    ]
    assert followed(path, steps) == [1.0, 34.0, 6.0]


@pytest.mark.req("L-22")
def test_a_truncated_file_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "live.csv"
    path.write_bytes(b"a,b\n1,2\n3,4\n")
    assert followed(path, [lambda: path.write_bytes(b"b,a\n5,6\n")]) == [1.0, 3.0, 6.0]


@pytest.mark.req("L-22")
def test_a_rotated_file_is_followed_under_its_name(tmp_path):
    path = tmp_path / "live.csv"
    path.write_bytes(b"a,b\n1,2\n")
    steps = [
        append(path, b"3,4\n"),
        lambda: path.rename(tmp_path / "live.csv.1"),
        lambda: path.write_bytes(b"a,b\n5,6\n"),
        append(path, b"7,8\n"),
    ]
    assert followed(path, steps) == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.req("L-22")
def test_rows_written_just_before_a_rotation_are_not_lost(tmp_path):
    path, old = tmp_path / "live.csv", tmp_path / "live.csv.1"
    path.write_bytes(b"a,b\n1,2\n")

    def rotate():  # all between two looks at the file, and the last line without its end
        append(path, b"3,4\n5,6")()
        path.rename(old)
        path.write_bytes(b"a,b\n7,8\n")

    assert followed(path, [rotate]) == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.req("L-22")
def test_a_writer_may_finish_the_old_file_while_the_new_one_is_empty(tmp_path):
    path, old = tmp_path / "live.csv", tmp_path / "live.csv.1"
    path.write_bytes(b"a,b\n1,2\n")

    def rotate():
        path.rename(old)
        path.touch()

    steps = [rotate, append(old, b"3,4\n"), append(path, b"a,b\n5,6\n")]
    assert followed(path, steps) == [1.0, 3.0, 5.0]


@pytest.mark.req("L-22")
def test_the_first_rows_of_another_file_are_marked(tmp_path):
    lines = [[b"a", b"1"], [b"2"], None, [b"a", b"x"], [b"3"], [b"4"]]
    found = csv_batches(lines, name="f", feature_names=("a",), bad=lambda _: None)
    assert [(batch.values.item(), batch.anew) for batch in found] == [
        (1.0, False),
        (2.0, False),
        (3.0, True),
        (4.0, False),
    ]


@pytest.mark.req("L-21")
@pytest.mark.parametrize("cell", ["1_000", "nan", "1e999", ""])
def test_a_cell_that_training_would_refuse_is_refused_here(cell):
    with pytest.raises(DataError, match="column 'a'"):
        list(csv_batches([[b"a,b", f"{cell},2".encode()]], name="f", feature_names=("a",)))
    (batch,) = csv_batches([[b"a,b_c", b"1,x_y"]], name="f", feature_names=("a",))
    assert batch.values.item() == 1.0, "other columns may hold what they will"


@pytest.mark.req("L-22")
def test_broken_rows_of_a_followed_file_are_counted_and_passed(tmp_path):
    path = tmp_path / "live.csv"
    path.write_bytes(b"a,b\n1,2\nx,2\n")
    skipped: list[DataError] = []
    assert followed(path, [append(path, b"3\n5,6\n")], bad=skipped.append) == [1.0, 5.0]
    assert len(skipped) == 2


# ---------------------------------------------------------------------------------- captures

FRAMES = [
    (1_700_000_000_000_000 + 1000 * k, ethernet(0x0800, ipv4(6, tcp(40000 + k, 23))))
    for k in range(30)
]


@pytest.mark.req("L-20")
def test_a_capture_gives_the_extractors_rows(monkeypatch):
    monkeypatch.setattr("fl_core.row_stream._CAPTURE_ROWS", 7)
    names = [n for n in FEATURE_NAMES if not n.startswith("HH_jit")]
    data = pcap(FRAMES)
    got = list(capture_batches(io.BytesIO(data), name="c", feature_names=names))
    expected = extract(Capture(io.BytesIO(data), "c"))
    columns = [FEATURE_NAMES.index(n) for n in names]
    assert np.array_equal(np.concatenate([b.values for b in got]), expected[:, columns])
    assert [n for b in got for n in b.numbers] == list(range(1, 31))
    assert got[0].times[1] == pytest.approx(1_700_000_000.001)


@pytest.mark.req("F-13")
def test_a_capture_that_was_cut_off_is_said(tmp_path):
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap(FRAMES)[:-5])
    said: list[tuple[str, int]] = []
    with open_batches(
        str(path), FEATURE_NAMES, skipped=lambda reason, count: said.append((reason, count))
    ) as rows:
        assert sum(len(b.numbers) for b in rows) == 29
    assert said == [("capture cut off", 1)]


def test_a_capture_cannot_give_other_columns():
    with pytest.raises(DataError, match="the column 'pressure', which a capture does not give"):
        next(capture_batches(io.BytesIO(pcap(FRAMES)), name="c", feature_names=["pressure"]))


def test_inputs_are_told_apart_by_name(tmp_path):
    table, capture = tmp_path / "t.csv", tmp_path / "c.pcap"
    table.write_bytes(TEXT)
    capture.write_bytes(pcap(FRAMES))
    with open_batches(str(table), ["a"]) as rows:
        assert sum(len(b.numbers) for b in rows) == 3
    with open_batches(str(capture), FEATURE_NAMES) as rows:
        assert sum(len(b.numbers) for b in rows) == 30
    with (
        pytest.raises(DataError, match="a capture is not followed"),
        open_batches(str(capture), FEATURE_NAMES, wait=lambda: None),
    ):
        pass
    with (
        pytest.raises(DataError, match="cannot be read"),
        open_batches(str(tmp_path / "no.csv"), ["a"]),
    ):
        pass


def test_a_header_is_parsed_once_and_rows_go_on():
    rows = CsvRows(b"a,b", ["a"], "t")
    assert rows.parse([b"1,2"])[0].numbers == [1]
    assert rows.parse([b"", b"3,4"])[0].numbers == [2]


@pytest.mark.req("L-20", "L-21")
def test_rows_before_a_broken_one_are_given_out_first():
    bursts = [[b"a", b"1", b"2", b"x", b"3"]]
    found = csv_batches(bursts, name="f", feature_names=("a",))
    assert next(found).values.ravel().tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="row 3"):
        next(found)


def test_a_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input is closed"), open_batches("-", ["a"]):
        pass
