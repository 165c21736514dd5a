"""Preflight finds what is wrong before a run, and says how to mend it."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from keys.authority import open_root
from keys.store import read_public
from nodes.cli import secagg
from nodes.config import load_coordinator_config, load_node_config
from nodes.coordinator_daemon import CoordinatorDaemon
from nodes.demo import DemoPlan, run_demo
from nodes.node_daemon import NodeDaemon
from nodes.preflight import Finding, preflight
from nodes.rehearsal import build_simulation
from nodes.store import hold_state
from secagg.errors import ConfigError
from tests.support.federation import Federation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path, 3) as made:
        made.endpoint = "tcp://127.0.0.1:9"  # nothing listens on discard
        yield made


def findings(path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in preflight(path)}


def test_a_node_without_a_coordinator_is_told_which_part_is_missing(federation: Federation) -> None:
    found = findings(federation.node_config("site-0"))
    good = {name for name, finding in found.items() if finding.passed}
    checks = {"versions", "configuration", "keys", "roster", "scheme", "data", "state", "ledger"}
    assert good == checks
    assert "nothing answers at tcp://127.0.0.1:9" in found["network"].detail
    assert "firewall" in found["network"].hint


def test_a_node_and_a_running_coordinator_agree(federation: Federation) -> None:
    coordinator = federation.start_coordinator()
    found = findings(federation.node_config("site-0"))
    assert all(finding.passed for finding in found.values()), found
    assert "round 0 of 3" in found["coordinator"].detail
    assert "clock" in found
    hub = findings(federation.folder / "coordinator.toml")
    assert hub["port"].detail == "the coordinator is running"
    assert hub["cohort"].detail == "3 active nodes, a round starts with 3 or more"
    assert not any(record["event"] == "joined" for record in coordinator.seen)


def test_a_revoked_node_is_told_so(federation: Federation) -> None:
    root = open_root(federation.places.root)
    root.revoke("site-0", now=int(time.time()), reason="lost")
    newest = read_public(federation.places.root / "roster.json", 1 << 20)
    (federation.places.coordinator / "roster.json").write_bytes(newest)
    federation.start_coordinator()
    found = findings(federation.node_config("site-0"))
    assert not found["coordinator"].passed
    assert "does not admit this node's transport key" in found["coordinator"].detail
    (federation.places.nodes["site-0"] / "roster.json").write_bytes(newest)
    assert "site-0" in findings(federation.node_config("site-0"))["keys"].detail
    assert not findings(federation.node_config("site-0"))["keys"].passed


def test_loose_permissions_broken_data_and_wrong_role_are_found(federation: Federation) -> None:
    path = federation.node_config("site-1")
    secret = federation.places.nodes["site-1"] / "identity.secret"
    secret.chmod(0o644)
    found = findings(path)
    assert not found["keys"].passed
    assert "chmod" in found["keys"].hint
    secret.chmod(0o600)
    data = federation.folder / "site-1.csv"
    rows = data.read_text().splitlines()
    rows[4] = "x" + rows[4]
    data.write_text("\n".join(rows) + "\n")
    found = findings(path)
    assert not found["data"].passed
    assert "f0" in found["data"].detail
    path.write_text(path.read_text().replace("keys/nodes/site-1", "keys/coordinator"))
    found = findings(path)
    assert "certified as coordinator, not as node" in found["keys"].detail


def test_a_taken_port_and_a_thin_roster_are_found(federation: Federation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        federation.start_coordinator()
        federation.coordinator.kill()
        path = federation.folder / "coordinator.toml"
        text = path.read_text().replace("tcp://127.0.0.1:*", bind)
        path.write_text(text.replace("min_nodes = 3", "min_nodes = 4"))
        found = findings(path)
    assert "cannot listen on" in found["port"].detail
    assert "3 active nodes, run.min_nodes is 4" in found["cohort"].detail


def test_a_running_node_is_not_disturbed(federation: Federation) -> None:
    path = federation.node_config("site-2")
    with hold_state(federation.folder / "site-2-state"):
        found = findings(path)
    assert found["coordinator"].detail.startswith("the node is running")
    assert "network" not in found


def test_the_command_prints_rows_mends_and_exit_code_7(federation: Federation) -> None:
    path = federation.node_config("site-0")
    result = CliRunner().invoke(secagg, ["preflight", "--config", str(path)])
    assert result.exit_code == 7
    assert "FAIL  network" in result.stdout
    assert "mend: start the coordinator" in result.stdout
    result = CliRunner().invoke(secagg, ["preflight", "--json", "--config", str(path)])
    assert {row["name"] for row in json.loads(result.stdout)} >= {"versions", "keys", "network"}


# --- schemes --------------------------------------------------------------------------------------


def test_a_scheme_that_finds_its_libraries_names_them(federation: Federation) -> None:
    path = federation.node_config("site-0", schemes=["masking", "ckks"])
    found = findings(path)["scheme"]
    assert found.passed
    assert found.detail.startswith("masking; ckks, tenseal 0.3.")


@pytest.mark.parametrize("library", ["tenseal.sealapi", "zstandard"])
def test_a_missing_library_is_found_on_both_sides_and_ends_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    with Federation(tmp_path, 3, scheme="ckks") as federation:
        federation.endpoint = "tcp://127.0.0.1:9"
        node = federation.node_config("site-0")
        hub = federation.coordinator_config()
        masking = federation.node_config("site-1", schemes=["masking"])
        monkeypatch.setitem(sys.modules, library, None)
        for path in (node, hub):
            found = findings(path)["scheme"]
            assert not found.passed
            assert library in found.detail
            assert "pip install tenseal" in found.hint
        assert findings(masking)["scheme"] == Finding("scheme", True, "masking")
        with pytest.raises(ConfigError, match="lacks a package"):
            NodeDaemon(load_node_config(node), emit=[].append)
        with pytest.raises(ConfigError, match="lacks a package"):
            CoordinatorDaemon(load_coordinator_config(hub), emit=[].append)
        plan = DemoPlan(tmp_path / "run", scheme="ckks")
        with pytest.raises(ConfigError, match="lacks a package"):
            run_demo(plan, emit=[].append)
        assert not plan.folder.exists()
        with pytest.raises(ConfigError, match="lacks a package"):
            build_simulation(3, 1, dropout=0.0, scheme="ckks", source=None)
