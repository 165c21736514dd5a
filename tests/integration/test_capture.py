"""From a capture file to alerts, by commands alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fl_core.config import ModelConfig
from fl_core.data.table import open_table
from fl_core.detector import Detector
from fl_core.parameters import initial_parameters
from tests.data.frames import ethernet, ipv4, pcap, tcp

REPO = Path(__file__).parents[2]
START = 1_700_000_000_000_000  # microseconds


def secagg(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "nodes", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def quiet(rng: np.random.Generator, count: int) -> list[tuple[int, bytes]]:
    """A device that talks about once a second, in packets of a few sizes."""
    times = START + np.cumsum(rng.uniform(0.7e6, 1.3e6, count)).astype(int)
    sizes = rng.integers(40, 120, count)
    return [
        (int(time), ethernet(0x0800, ipv4(6, tcp(443, 50_000, bytes(int(size))))))
        for time, size in zip(times, sizes, strict=True)
    ]


def test_a_flood_in_a_capture_raises_alerts(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    benign, attack = tmp_path / "benign.pcap", tmp_path / "attack.pcap"
    benign.write_bytes(pcap(quiet(rng, 600)))
    before = quiet(rng, 100)
    flood = [
        (before[-1][0] + 500 * k, ethernet(0x0800, ipv4(6, tcp(1024 + k, 80)))) for k in range(400)
    ]
    attack.write_bytes(pcap([*before, *flood]))
    secagg("features", str(benign), "--out", str(tmp_path / "benign.csv"))
    table = open_table(tmp_path / "benign.csv")
    rows = table.read(table.features)
    assert rows.values.shape == (600, 115)
    model = ModelConfig(input_dim=115)
    detector = Detector.fit_head(
        initial_parameters(model, 0),
        model,
        rows.values[100:450],
        rows.values[450:],
        device="pump",
        feature_names=table.features,
    )
    detector.save(tmp_path / "model.safetensors")
    model_option = ("--model", str(tmp_path / "model.safetensors"))
    out = secagg("detect", *model_option, "--data", str(attack))
    alerts = [json.loads(line) for line in out.splitlines()]
    assert {alert["device"] for alert in alerts} == {"pump"}
    assert sum(alert["row"] > 110 for alert in alerts) >= 380
    assert all(alert["time"] > START / 1e6 for alert in alerts)
    # The same rows by way of a CSV give the same alerts.
    secagg("features", str(attack), "--out", str(tmp_path / "attack.csv"))
    again = secagg("detect", *model_option, "--data", str(tmp_path / "attack.csv"))
    scores = [json.loads(line)["score"] for line in again.splitlines()]
    # float32 sums in batches of another size differ in the last digits
    assert scores == pytest.approx([alert["score"] for alert in alerts], rel=1e-4)
