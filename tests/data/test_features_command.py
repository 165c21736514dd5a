import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fl_core.data.extractor import FEATURE_NAMES
from nodes.commands.features import command
from tests.data.frames import ethernet, ipv4, pcap, tcp

T = 1_700_000_000_000_000
FRAMES = [(T + 1000 * k, ethernet(0x0800, ipv4(6, tcp(40000 + k, 23)))) for k in range(25)]


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap([*FRAMES, (T, b"short")])[:-2])
    return path


@pytest.mark.req("F-14")
def test_a_capture_becomes_a_table(tmp_path, capture):
    out = tmp_path / "f.csv"
    result = CliRunner().invoke(command, [str(capture), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = out.read_text().splitlines()
    assert lines[0].split(",") == ["time", *FEATURE_NAMES]
    assert len(lines) == 26
    talk = result.stderr
    assert talk.startswith("25 packets, 25 rows, ")
    assert "28 channels at most" in talk
    assert "skipped 1: capture cut off" in talk


@pytest.mark.req("F-14")
def test_standard_input_to_standard_output():
    result = CliRunner().invoke(command, ["-"], input=pcap(FRAMES))
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 26


def test_only_one_device_and_a_cap(capture):
    arguments = [str(capture), "--device", "02:00:00:00:00:0A", "--max-channels", "5"]
    result = CliRunner().invoke(command, arguments)
    assert len(result.stdout.splitlines()) == 1  # the header: nobody of that address
    assert "20 channels dropped at the cap" in result.stderr
    for same in ("02:00:00:00:00:01", "02-00-00-00-00-01"):
        arguments[2] = same
        assert len(CliRunner().invoke(command, arguments).stdout.splitlines()) == 26


@pytest.mark.parametrize("given", ["doorbell", "192.168.2.300", "02:00:00:00:01", ""])
def test_an_address_that_is_none_is_refused(capture, given):
    result = CliRunner().invoke(command, [str(capture), "--device", given])
    assert result.exit_code == 2
    assert "neither a MAC nor an IP address" in result.stderr


def test_rows_come_while_the_capture_goes_on():
    script = "from nodes.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "features", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    ) as process:
        content = pcap(FRAMES[:3])
        process.stdin.write(content)
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(4)]  # hangs if rows are held back
        assert lines[3].startswith(b"1700000000.002000,")
        _, talk = process.communicate()
        assert process.returncode == 0
        assert b"3 packets, 3 rows" in talk


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pcap"], "nothing.pcap: cannot be read: No such file"),
        (["-"], "standard input: the capture is empty"),
    ],
)
def test_errors_are_two_lines_and_exit_code_3(arguments, message):
    done = subprocess.run(
        [sys.executable, "-c", "from nodes.cli import main; main()", "features", *arguments],
        input=b"",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: " + message)
    assert lines[1].startswith("hint: ")


def test_an_unwritten_table_leaves_nothing(tmp_path, capture):
    damaged = tmp_path / "d.pcap"
    damaged.write_bytes(pcap(FRAMES) + b"\xff" * 16)
    out = tmp_path / "f.csv"
    result = CliRunner().invoke(command, [str(damaged), "--out", str(out)])
    assert "record 26 is damaged" in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pcap", "d.pcap"]
