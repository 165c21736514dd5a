"""`secagg demo` as a user runs it: from one command to a detector that raises alerts."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fl_core.data.sources import load_device
from fl_core.detector import Detector

pytestmark = pytest.mark.timeout(300)
REPO = Path(__file__).parents[2]
REAL = REPO.parent / "shared/data/nbaiot/nbaiot_iid10.npz"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nodes", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"},
    )


def run(*arguments: str) -> tuple[str, str]:
    with start(*arguments) as process:
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]
    return out, err


def test_one_command_trains_a_detector_that_then_raises_alerts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out, err = run(
        "demo", "--rounds", "2", "--nodes", "3", "--seed", "5", "--out", str(folder), "--json"
    )
    report = json.loads(out)
    assert report == json.loads((folder / "report.json").read_text())
    assert report["rounds"] == 2
    assert (report["scheme"], report["weights"]) == ("masking", "private")
    assert "weights_of_last_round" not in report
    assert len(report["devices"]) == 3
    for methods in (*report["devices"].values(), report["mean"]):
        assert list(methods) == ["federated", "local", "random"]
        for row in methods.values():
            assert {"auc", "f1", "recall", "fpr", "fpr_at_tpr_999"} <= row.keys()
            assert 0.5 < row["auc"] <= 1.0
    assert report["bytes_sent_per_node_and_round"] > 50_000
    assert 10 < report["peak_memory_mb"]["coordinator"] < 1000
    # Plain lines, since stderr is no terminal here.
    assert "round 2/2 done: 3 nodes" in err
    assert "\x1b[" not in err
    # No party's private key is in another party's folder, and none of them is readable by others.
    secrets = list((folder / "keys").rglob("*.secret"))
    assert len(secrets) == 5
    assert len({path.read_bytes() for path in secrets}) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)
    model = folder / "model.safetensors"
    detector = Detector.load(model)
    assert set(detector.devices) == set(report["devices"])
    device = detector.devices[0]
    data = load_device("builtin", device, seed=5)
    rows = tmp_path / "new.csv"
    with rows.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(data.feature_names)
        writer.writerows(data.test_attack[:200].tolist())
    out, err = run("detect", "--model", str(model), "--data", str(rows), "--device", device)
    alerts = [json.loads(line) for line in out.splitlines()]
    expected = detector.score(data.test_attack[:200], device) > detector.threshold(device)
    assert len(alerts) == int(expected.sum()) > 50
    assert all(alert["score"] > alert["threshold"] for alert in alerts)
    assert {alert["device"] for alert in alerts} == {device}
    assert "rows/s" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_process(tmp_path: Path, number: signal.Signals) -> None:
    demo = start("demo", "--rounds", "50", "--nodes", "3", "--out", str(tmp_path / "run"))
    assert demo.stderr is not None
    for line in demo.stderr:
        if line.startswith("round 1/"):
            break
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) == 4
    demo.send_signal(number)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130, err
    assert "interrupted" in err
    assert not out
    deadline = time.monotonic() + 10
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        psutil.wait_procs(children, timeout=1)
    assert not [child for child in children if child.is_running()]


def test_a_demo_that_cannot_run_says_why_in_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    for arguments, code, says in (
        (["--out", str(taken)], 5, "exists and is not an empty folder"),
        (["--nodes", "2"], 5, "error: --nodes is 2"),
        (["--weights", "coordinator"], 5, "use --scheme ckks, or --weights private"),
        (["--data", str(tmp_path / "absent")], 3, "error: "),
        (["--drop", "no_such_*"], 3, "no_such_*"),
    ):
        with start("demo", "--out", str(tmp_path / "run"), *arguments) as process:
            _, err = process.communicate(timeout=100)
        assert process.returncode == code, err
        assert says in err
        assert "hint: " in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert [path.name for path in taken.iterdir()] == ["file"]


@pytest.mark.skipif(not REAL.exists(), reason="the real N-BaIoT sample is not beside the project")
def test_the_same_command_runs_on_real_rows_and_under_ckks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["--nodes", "3", "--rounds", "2", "--drop", "HH_jit_*", "--json"]
    arguments += ["--scheme", "ckks", "--weights", "coordinator"]
    out, err = run("demo", "--data", str(REAL), "--out", str(folder), *arguments)
    report = json.loads(out)
    assert set(report["devices"]) == {"Danmini_Doorbell", "Ecobee_Thermostat", "Ennio_Doorbell"}
    assert report["mean"]["federated"]["auc"] > 0.99
    assert report["dropped_columns"] == ["HH_jit_*"]
    assert (report["scheme"], report["weights"]) == ("ckks", "coordinator")
    assert set(report["weights_of_last_round"]) == set(report["nodes"])
    assert set(report["weights_of_last_round"].values()) <= {1, 2, 3}
    assert "scheme ckks; nodes disclose their distance, and it weighs them" in err
    assert "weights of the last round: 3 for " in err
