"""What preflight finds in a privacy ledger, and the offer that a node leaves for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from keys import Role
from nodes import ledger_checks
from nodes.cli import secagg
from nodes.config import load_coordinator_config, load_node_config
from nodes.context import open_membership
from nodes.coordinator_daemon import CHECKPOINT, CoordinatorDaemon, fresh_run
from nodes.loop import wall_clock
from nodes.node_daemon import MEMORY, OFFER, NodeDaemon
from nodes.preflight import Finding, preflight
from nodes.privacy_ledger import LEDGER, FileLedger, head_path
from nodes.session.events import OfferSeen, ParticipantState, RunState, SessionStep
from nodes.session.offer import build_offer
from nodes.session.privacy import cost_of
from nodes.store import load_offer, save_memory, save_offer, save_run
from secagg.dp.events import Unprotected
from secagg.dp.ledger import LedgerSetBackError
from secagg.dp.receipts import make_receipt
from secagg.errors import ConfigError
from secagg.wire.codec import encode
from secagg.wire.messages import RoundOffer, Welcome
from tests.support.federation import Federation
from tests.support.private import DELTA, EPSILON, MULTIPLIER, N

PRIVACY = {
    "unit": "client",
    "epsilon": EPSILON,
    "delta": DELTA,
    "noise_multiplier": MULTIPLIER,
    "spare": 0.0,
}
RUN = b"R" * 16


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    settings: dict[str, Any] = {"privacy": PRIVACY, "collusion": 0.0, "dropout": 0.1}
    with Federation(folder, N, rounds=2, **settings) as made:
        made.endpoint = "tcp://127.0.0.1:9"  # nothing listens on discard
        yield made


@pytest.fixture
def hub(federation: Federation) -> Iterator[Path]:
    """coordinator.toml, with an empty state folder."""
    path = federation.coordinator_config()
    state = federation.folder / "hub-state"
    yield path
    for file in state.glob("*") if state.exists() else ():
        file.unlink()


@pytest.fixture
def node(federation: Federation) -> Iterator[Path]:
    """node.toml of site-1, whose policy requires what the coordinator gives."""
    budget = {"require": "client", "epsilon": EPSILON, "delta": DELTA, "collusion": 0.0}
    path = federation.node_config("site-1", **budget)
    state = federation.folder / "site-1-state"
    state.mkdir(mode=0o700, exist_ok=True)
    yield path
    for file in state.glob("*"):
        file.unlink()


def findings(path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in preflight(path)}


def offer_of(hub: Path, **changes: object) -> RoundOffer:
    config = load_coordinator_config(hub)
    state = fresh_run(config, os.urandom)
    names = tuple(f"site-{index}" for index in range(N))
    return msgspec.structs.replace(build_offer(config.plan(), state, names, 1), **changes)


def charged(state: Path, offer: RoundOffer, rounds: int, run: bytes = RUN) -> FileLedger:
    state.mkdir(mode=0o700, exist_ok=True)
    ledger, cost = FileLedger(state / LEDGER), cost_of(offer)
    for round_id in range(1, rounds + 1):
        ledger.spend(run, round_id, cost.unit, cost.event, now=1.7e9)
    return ledger


@pytest.mark.req("B-08", "B-10")
def test_a_node_is_told_what_its_policy_leaves_and_when_nothing_is_left(
    hub: Path, node: Path, federation: Federation
) -> None:
    state = federation.folder / "site-1-state"
    assert "0 rounds of unit 'client', epsilon 0 of 40 spent" in findings(node)["ledger"].detail
    offer = offer_of(hub)
    charged(state, offer, 1)
    found = findings(node)["ledger"]
    assert found.passed
    assert "1 rounds of unit 'client'" in found.detail
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    text = node.read_text().replace("epsilon = 40.0", "epsilon = 5.0")
    node.write_text(text)
    found = findings(node)["ledger"]
    assert not found.passed
    assert "policy.epsilon is 5: no round is left" in found.detail
    assert "what was spent stays spent" in found.hint


@pytest.mark.req("B-06", "B-10")
@pytest.mark.parametrize("damage", ["edited", "removed", "shorter"])
def test_a_damaged_or_older_ledger_is_found_on_both_sides(
    hub: Path, node: Path, federation: Federation, damage: str
) -> None:
    for path, name in ((node, "site-1-state"), (hub, "hub-state")):
        state = federation.folder / name
        charged(state, offer_of(hub), 2)
        ledger = state / LEDGER
        if damage == "edited":
            ledger.write_bytes(ledger.read_bytes().replace(b'"round":1', b'"round":7'))
        elif damage == "removed":
            ledger.unlink()
        else:
            ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
        found = findings(path)["ledger"]
        assert not found.passed
        assert "newest whole copy" in found.hint
        assert head_path(ledger).exists()


@pytest.mark.req("S-22", "B-06")
def test_a_coordinator_whose_ledger_lost_rounds_of_its_checkpoint_does_not_start(
    hub: Path, federation: Federation
) -> None:
    state = federation.folder / "hub-state"
    state.mkdir(mode=0o700, exist_ok=True)
    config = load_coordinator_config(hub)
    fresh = fresh_run(config, os.urandom)
    run = RunState(
        fresh.run_id, 3, 1, fresh.params, fresh.reference, fresh.optimiser, noise_multiplier=0.19
    )
    save_run(state / CHECKPOINT, run, config.plan().training)
    charged(state, offer_of(hub), 1, run=fresh.run_id)
    found = findings(hub)["ledger"]
    assert not found.passed
    assert "lacks 1 of them, from round 2 on: it was set back or removed" in found.detail
    with pytest.raises(LedgerSetBackError, match="lacks 1 of them") as caught:
        CoordinatorDaemon(config, emit=[].append).run()
    assert "choose another coordinator.state folder" in caught.value.hint
    cost = cost_of(offer_of(hub))
    FileLedger(state / LEDGER).spend(fresh.run_id, 2, cost.unit, cost.event, now=1.7e9)
    assert findings(hub)["ledger"].passed


@pytest.mark.req("S-18")
def test_a_coordinator_is_told_what_its_next_round_takes_or_why_there_is_none(
    hub: Path, federation: Federation
) -> None:
    found = findings(hub)
    assert found["privacy"].passed, found["privacy"]
    assert "a round of 8 nodes takes epsilon to 19.7 of 40" in found["privacy"].detail
    charged(federation.folder / "hub-state", offer_of(hub), 2)
    found = findings(hub)
    assert found["ledger"].passed
    assert not found["privacy"].passed
    assert "beyond privacy.epsilon = 40" in found["privacy"].detail
    assert "secagg privacy plan" in found["privacy"].hint
    text = hub.read_text().replace("noise_multiplier = 0.19", "noise_multiplier = 3.0")
    hub.write_text(text)
    found = findings(hub)
    assert "too strong to read a mean" in found["privacy"].detail


def welcome(run: bytes = RUN, receipt: bytes = b"") -> Welcome:
    return Welcome(run, "1", 1, 0.0, 2.0, 0, 2, receipt)


@pytest.mark.req("B-07", "B-11")
def test_a_receipt_that_the_coordinator_kept_shows_a_ledger_that_was_set_back(
    hub: Path, node: Path, federation: Federation
) -> None:
    config = load_node_config(node)
    members = open_membership(federation.places.nodes["site-1"], None, Role.NODE, wall_clock())
    state = federation.folder / "site-1-state"
    ledger = charged(state, offer_of(hub), 2)
    signed = make_receipt(members.identity, ledger.history()).to_bytes()
    check = ledger_checks.ledger_receipt
    assert check(config, members, b"") == "the coordinator has none yet"
    assert check(config, members, signed).startswith("the ledger has the 2 rounds")
    assert "counts for nothing" in check(config, members, signed[:-1] + bytes([signed[-1] ^ 1]))
    assert "counts for nothing" in check(config, members, b"garbage")
    for file in (state / LEDGER, head_path(state / LEDGER)):
        file.unlink()
    with pytest.raises(LedgerSetBackError, match="has 0 entries, but a receipt signed by this"):
        check(config, members, signed)


@pytest.mark.req("G-11", "G-10")
def test_the_newest_offer_is_held_against_policy_and_ledger(
    hub: Path, node: Path, federation: Federation
) -> None:
    config = load_node_config(node)
    members = open_membership(federation.places.nodes["site-1"], None, Role.NODE, wall_clock())
    state, check = federation.folder / "site-1-state", ledger_checks.last_offer
    assert check(config, members, welcome()) == "none of this run has come yet"
    offer = offer_of(hub)
    save_offer(state / OFFER, offer)
    read = load_offer(state / OFFER)
    assert read is not None
    assert encode(read) == encode(offer) == (state / OFFER).read_bytes()
    assert check(config, members, welcome()) == "none of this run has come yet"
    save_memory(state / MEMORY, ParticipantState({RUN: offer.round_id}))
    assert check(config, members, welcome()) == "another round like round 1 would be taken"
    assert check(config, members, welcome(b"S" * 16)) == "none of this run has come yet"
    charged(state, offer, 2)
    with pytest.raises(ConfigError, match=r"another round like the last: .*epsilon = 40") as caught:
        check(config, members, welcome())
    assert "if you agree to such rounds" in caught.value.hint


@pytest.mark.req("G-11", "G-10")
def test_policy_check_reads_the_offer_that_a_node_left(
    hub: Path, node: Path, federation: Federation
) -> None:
    place = federation.folder / "site-1-state" / OFFER
    daemon: Any = object.__new__(NodeDaemon)
    daemon._state, daemon._emit = place.parent, [].append
    weak = offer_of(hub, dp=None, ring_bits=20)
    for offer, code, says in ((offer_of(hub), 0, "allowed"), (weak, 7, "REFUSED")):
        daemon._act(SessionStep(events=(OfferSeen(offer),)), SimpleNamespace())
        result = CliRunner().invoke(secagg, ["policy", "check", str(node), "--offer", str(place)])
        assert result.exit_code == code, result.output
        assert says in result.output
    place.write_bytes(b"\x06nonsense")
    with pytest.raises(ConfigError, match=r"offer\.bin") as caught:
        load_offer(place)
    assert "of this version" in caught.value.hint
    assert load_offer(place.with_name("none.bin")) is None


@pytest.mark.req("G-11")
def test_no_round_hangs_on_an_offer_that_cannot_be_kept(
    hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    daemon: Any = object.__new__(NodeDaemon)
    daemon._state, daemon._emit = tmp_path / "gone", [].append
    daemon._act(SessionStep(events=(OfferSeen(offer_of(hub)),)), SimpleNamespace())
    assert "offer.not.kept" in caplog.text


def test_rounds_without_noise_are_shown_and_held_against_no_budget(
    tmp_path: Path, federation: Federation
) -> None:
    path = federation.node_config("site-2")
    found = findings(path)["ledger"]
    assert found.detail == "0 rounds; the policy sets no budget"
    ledger = FileLedger(tmp_path / LEDGER)
    ledger.spend(RUN, 1, "none", Unprotected(), now=1.0)
    assert len(ledger.history()) == 1
    assert np.isinf(ledger.history().spent("none", 1e-5))
