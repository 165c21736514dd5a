from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from fl_core.detector import Detector
from fl_core.parameters import initial_parameters
from nodes.cli import main

SCRIPT = "from nodes.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, devices, model):
    folder = tmp_path_factory.mktemp("detect")
    params = initial_parameters(model, 0)
    heads = [
        Detector.fit_head(
            params, model, d.train, d.validation, device=d.device, feature_names=d.feature_names
        )
        for d in devices[:2]
    ]
    heads[0].save(folder / "one.safetensors")
    Detector.merge(heads).save(folder / "two.safetensors")
    rows = np.concatenate([devices[0].test_benign[:40], devices[0].test_attack[:40]])
    lines = [",".join(["time", *devices[0].feature_names])]
    lines += [",".join([str(i), *(repr(float(v)) for v in row)]) for i, row in enumerate(rows)]
    (folder / "new.csv").write_text("\n".join(lines) + "\n")
    return folder


def detect(folder, *arguments, data=None):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, "detect", *arguments],
        cwd=folder, input=data, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "detect", *arguments],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def inside(folder, monkeypatch, capsys):
    """Run the command line in this process: status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["secagg", "detect", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_alerts_are_json_lines_and_talk_is_on_standard_error(folder, inside, devices):
    detector = Detector.load(folder / "one.safetensors")
    code, out, err = inside("--model", "one.safetensors", "--data", "new.csv")
    assert code == 0, err
    alerts = [json.loads(line) for line in out.splitlines()]
    scores = detector.score(
        np.concatenate([devices[0].test_benign[:40], devices[0].test_attack[:40]])
    )
    expected = [i + 1 for i in range(80) if scores[i] > detector.threshold()]
    assert [a["row"] for a in alerts] == expected
    assert set(alerts[0]) == {"row", "time", "device", "score", "threshold"}
    assert alerts[0]["time"] == alerts[0]["row"] - 1
    assert err.startswith(f"80 rows, {len(expected)} alerts, ")


def test_a_pipe_gives_what_the_file_gives_and_all_gives_every_row(folder, inside):
    data = (folder / "new.csv").read_bytes()
    _, by_file, _ = inside("--model", "one.safetensors", "--data", "new.csv", "--all")
    by_pipe = detect(folder, "--model", "one.safetensors", "--data", "-", "--all", data=data)
    assert by_file.encode() == by_pipe.stdout
    rows = [json.loads(line) for line in by_pipe.stdout.splitlines()]
    assert len(rows) == 80
    assert all(row["alert"] == (row["score"] > row["threshold"]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["--model", "two.safetensors", "--data", "new.csv"],
            3,
            "hint: name a device, one of: dev0",
        ),
        (["--model", "two.safetensors", "--data", "new.csv", "--device", "x"], 3, "devices: dev0"),
        (["--model", "no.safetensors", "--data", "new.csv"], 3, "error: no.safetensors"),
        (["--model", "one.safetensors", "--data", "no.csv"], 3, "error: no.csv"),
        (["--model", "new.csv", "--data", "new.csv"], 3, "not a safetensors file"),
        (["--model", "one.safetensors", "--data", "no.pcap"], 3, "error: no.pcap"),
        (["--data", "new.csv"], 2, "--model"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(inside, arguments, code, text):
    found, _, err = inside(*arguments)
    assert found == code
    assert text in err


@pytest.mark.req("L-66")
def test_drift_is_a_line_of_its_own_and_detection_goes_on(folder, inside, devices):
    rows = np.tile(devices[0].test_benign, (10, 1))
    rows[1000:] = np.sign(rows[1000:]) * np.expm1(0.3 * np.log1p(np.abs(rows[1000:])))
    lines = [",".join(devices[0].feature_names)]
    lines += [",".join(repr(float(v)) for v in row) for row in rows]
    (folder / "moved.csv").write_text("\n".join(lines) + "\n")
    code, out, err = inside("--model", "one.safetensors", "--data", "moved.csv")
    assert code == 0, err
    printed = [json.loads(line) for line in out.splitlines()]
    drifts = [line for line in printed if line.get("event") == "drift"]
    alerts = [line for line in printed if "event" not in line]
    assert drifts
    assert {drift["device"] for drift in drifts} == {"dev0"}
    assert all(1000 < drift["seen"] <= 3000 for drift in drifts)
    assert err.startswith(f"3000 rows, {len(alerts)} alerts, ")
    assert err.endswith(f", drift reported {len(drifts)} times\n")


@pytest.mark.req("L-67")
def test_a_device_that_cannot_be_watched_is_said_on_standard_error(folder, inside, devices, model):
    d = devices[0]
    Detector.fit_head(
        initial_parameters(model, 0), model, d.train, d.validation[:40],
        device=d.device, feature_names=d.feature_names,
    ).save(folder / "few.safetensors")  # fmt: skip
    code, _, err = inside("--model", "few.safetensors", "--data", "new.csv")
    assert code == 0
    assert err.startswith("dev0: drift is not watched: 40 validation rows are too few")


@pytest.mark.req("L-21")
def test_a_broken_row_ends_a_file_with_its_line_and_column(folder, inside):
    lines = (folder / "new.csv").read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",abc"
    (folder / "bad.csv").write_text("\n".join(lines))
    code, _, err = inside("--model", "one.safetensors", "--data", "bad.csv")
    assert code == 3
    assert "row 3 (line 4), column 'f19': 'abc' is not a finite number" in err


@pytest.mark.req("L-22")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_followed_file_is_answered_at_once_and_ends_cleanly(folder, tmp_path, stop):
    lines = (folder / "new.csv").read_bytes().splitlines(keepends=True)
    live = tmp_path / "live.csv"
    live.write_bytes(b"".join(lines[:3]) + b"broken\n" + lines[3][:20])
    arguments = ["--model", "one.safetensors", "--data", str(live), "--follow", "--all"]
    with start(folder, *arguments) as process:
        assert json.loads(process.stdout.readline())["row"] == 1
        assert json.loads(process.stdout.readline())["row"] == 2
        with live.open("ab") as file:
            file.write(lines[3][20:])
        assert json.loads(process.stdout.readline())["row"] == 4  # 3 is the broken one
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == b""
    assert b"skipped: " in err
    assert b"row 3 (line 4) has 1 columns" in err
    assert b"3 rows, " in err
    assert b"1 rows skipped" in err
    assert b"Traceback" not in err


@pytest.mark.req("L-20")
def test_a_slow_pipe_is_answered_row_by_row(folder):
    lines = (folder / "new.csv").read_bytes().splitlines(keepends=True)
    with start(folder, "--model", "one.safetensors", "--data", "-", "--all") as process:
        process.stdin.write(lines[0])
        for number, line in enumerate(lines[1:4], start=1):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["row"] == number
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(timeout=60) == 0
        process.stderr.close()


def test_a_reader_that_goes_away_ends_it_without_noise(folder):
    lines = (folder / "new.csv").read_bytes().splitlines(keepends=True)
    with start(folder, "--model", "one.safetensors", "--data", "-", "--all") as process:
        process.stdin.write(lines[0] + lines[1])
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"".join(lines[2:]))
        process.stdin.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert b"Traceback" not in err
    assert b"Broken" not in err
