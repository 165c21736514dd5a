"""Real processes under client-level noise: ledgers on disks, a death, a budget that runs out."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodes.cli import secagg
from nodes.node_daemon import OFFER
from nodes.privacy_ledger import read_ledger
from nodes.session.privacy import CLIENT
from nodes.store import load_receipts
from secagg.dp.receipts import Receipt
from tests.support.federation import Federation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EPSILON, DELTA = 40.0, 0.1
PRIVACY: dict[str, Any] = {
    "unit": "client",
    "epsilon": EPSILON,
    "delta": DELTA,
    "noise_multiplier": 0.135,  # one round fits, two do not
    "clip": 100.0,  # nobody is clipped, so all weights count in full
    "spare": 0.0,
}
BUDGET: dict[str, Any] = {
    "require": "client",
    "epsilon": EPSILON,
    "delta": DELTA,
    "collusion": 0.0,
}


def shown(state: Path) -> dict[str, Any]:
    """What `secagg privacy show` says of a state folder, whose whole chain it verifies."""
    arguments = ["privacy", "show", str(state), "--delta", str(DELTA), "--json"]
    result = CliRunner().invoke(secagg, arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.req("B-01", "B-07", "S-18", "G-11", "T-08")
def test_a_budget_ends_a_run_cleanly_and_every_ledger_says_what_was_spent(tmp_path: Path) -> None:
    options: dict[str, Any] = {"collusion": 0.0, "dropout": 0.13, "farewell_timeout": 90.0}
    options["liveness"] = 12.0  # eight nodes start at once, on however few cores
    with Federation(tmp_path, 8, rounds=3, privacy=PRIVACY, **options) as federation:
        federation.start_coordinator()
        victim, *others = federation.names
        for name in others:
            federation.start_node(name, **BUDGET)
        dying = federation.start_node(victim, "--die-before", "UnmaskAnswer", **BUDGET)
        dying.popen.wait(200)
        assert dying.popen.returncode == -signal.SIGKILL
        back = federation.start_node(victim, **BUDGET)
        hub = federation.coordinator
        done = hub.wait_for("round.done", seconds=200)
        assert done["contributors"] == federation.names, "its input was in when it was killed"
        assert done["loss"] is None
        assert 0 < done["epsilon"] <= EPSILON
        over = hub.wait_for("run.over", seconds=200)
        assert over["complete"]
        assert "the privacy budget ends the run after 1 rounds" in over["reason"]
        assert hub.popen.wait(60) == 0
        assert sum(record["event"] == "round.started" for record in hub.seen) == 1
        for name, process in {**federation.nodes, victim: back}.items():
            assert process.popen.wait(90) == 0, name
            state = federation.folder / f"{name}-state"
            assert (state / "detector.safetensors").exists()
            assert [row["unit"] for row in shown(state)["rounds"]] == ["client"]
            history = read_ledger(state / "privacy.jsonl").history
            assert history.spent(CLIENT, DELTA) == done["epsilon"]
            policy = str(federation.folder / f"{name}.toml")
            arguments = ["policy", "check", policy, "--offer", str(state / OFFER)]
            assert CliRunner().invoke(secagg, arguments).exit_code == 0
        assert len(shown(federation.folder / "hub-state")["rounds"]) == 1
        receipts = load_receipts(federation.folder / "hub-state" / "receipts")
        assert set(receipts) == set(federation.names)
        for name, data in receipts.items():
            receipt = Receipt.from_bytes(data, sender=name)
            receipt.verify(name, federation.identity(name).signing_key)
            assert receipt.count == 1
        assert "cannot" not in back.log.read_text()
