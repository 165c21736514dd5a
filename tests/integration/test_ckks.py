"""Rounds of ckks by real processes over real sockets: both weight modes, and nodes that die."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nodes.config import load_coordinator_config
from nodes.session.plan import HEAVIEST
from nodes.store import load_run
from tests.support.federation import Federation, Record

pytestmark = pytest.mark.timeout(240)


def of_kind(records: list[Record], event: str) -> list[Record]:
    return [record for record in records if record["event"] == event]


def test_a_run_ends_with_a_detector_everywhere_and_its_phases_are_those_of_the_scheme(
    tmp_path: Path,
) -> None:
    with Federation(tmp_path, 3, rounds=2, scheme="ckks") as federation:
        federation.start_all()
        assert federation.coordinator.seen[-1]["scheme"] == "ckks"
        assert federation.coordinator.wait_for("run.over")["complete"]
        for name, node in federation.nodes.items():
            node.drain()
            assert node.popen.returncode == 0
            assert federation.report(name)["rounds"] == {"joined": 2, "included": 2}
            assert (tmp_path / f"{name}-state/detector.safetensors").exists()
        records = federation.coordinator.drain()
        phases = [record["phase"] for record in of_kind(records, "phase.changed")]
        assert phases == 2 * ["keys", "input", "signatures", "opening"]
        for done in of_kind(records, "round.done"):
            assert done["contributors"] == federation.names
            assert done["weights"] == [1, 1, 1]
            assert 0 < done["weight"] <= 1, "the mean of what the nodes gave themselves"
        assert not of_kind(records, "peer.rejected")


@pytest.mark.req("H-15")
def test_nodes_killed_after_their_upload_and_before_the_opening_are_in_the_sum(
    tmp_path: Path,
) -> None:
    with Federation(tmp_path, 6, rounds=1, scheme="ckks") as federation:
        federation.start_coordinator()
        uploading, signing, opening, *others = federation.names
        doomed = {uploading: "CipherChunk", signing: "SurvivorSignature", opening: "SumShare"}
        for name in others:
            federation.start_node(name)
        for name, message in doomed.items():
            federation.start_node(name, "--die-before", message)
        done = federation.coordinator.wait_for("round.done")
        assert done["contributors"] == sorted({signing, opening, *others})
        for name in doomed:
            federation.nodes[name].popen.wait(30)
            assert federation.nodes[name].popen.returncode == -signal.SIGKILL
        assert not of_kind(federation.coordinator.seen, "round.lost")


@pytest.mark.req("H-11", "H-16")
def test_the_coordinator_weighs_those_who_agreed_to_it(tmp_path: Path) -> None:
    with Federation(tmp_path, 5, rounds=1, scheme="ckks", weights="coordinator") as federation:
        federation.start_coordinator()
        assert federation.coordinator.seen[-1]["weights"] == "coordinator"
        reserved, *others = federation.names
        federation.start_node(reserved, weights=["private"])
        for name in others:
            federation.start_node(name)
        refused = federation.coordinator.wait_for("node.refused")
        assert (refused["node"], refused["reason"]) == (reserved, "weights_forbidden")
        assert "policy.weights" in refused["explanation"]
        done = federation.coordinator.wait_for("round.done")
        assert done["contributors"] == others
        assert all(1 <= weight <= HEAVIEST for weight in done["weights"])
        assert max(done["weights"]) == HEAVIEST
        assert federation.coordinator.wait_for("run.over")["complete"]
        config = load_coordinator_config(tmp_path / "coordinator.toml")
        state = load_run(tmp_path / "hub-state/checkpoint.safetensors", config.plan().training)
        assert state is not None
        assert sorted(state.distances) == others, "what is smoothed outlives the coordinator"
