"""Receipts that are not what they seem, and what a node remembers of cohorts and of days."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from nodes.session.coordinator import State
from nodes.session.events import (
    OfferRejected,
    OfferSeen,
    PeerRejected,
    ReceiptKept,
    RoundDone,
    RoundEnded,
    RunOver,
)
from nodes.session.journal import MemoryJournal
from nodes.session.ledger import MemoryLedger
from nodes.session.offer import check_offer
from nodes.session.policy import NodePolicy, PolicyFacts
from nodes.store import load_memory, save_memory
from secagg.dp.events import Unprotected
from secagg.dp.ledger import History
from secagg.dp.receipts import make_receipt
from secagg.errors import OfferRefused
from secagg.types import NodeId
from secagg.wire.messages import Heartbeat, Hello, Message, Welcome
from tests.support.fleet import COORDINATOR, TestSigner
from tests.support.private import (
    EPSILON,
    KEYS,
    LINES,
    NAMES,
    RUN,
    SCHEMES,
    N,
    guard,
    noise_of,
    private_offer,
    private_plan,
    private_policy,
    private_run,
)
from tests.support.run import Run

# --- receipts ------------------------------------------------------------------------------------


def welcomed_with(run: Run, name: NodeId, receipt: bytes) -> None:
    """Let the coordinator give a node a receipt, whatever it kept."""
    run.coordinator._receipts._kept[name] = receipt


def receipt_of(name: NodeId, ledger: MemoryLedger | History) -> bytes:
    history = ledger if isinstance(ledger, History) else ledger.history()
    return make_receipt(TestSigner(name), history).to_bytes()


@pytest.mark.req("B-07")
def test_a_node_whose_ledger_was_set_back_learns_it_when_it_joins_and_ends() -> None:
    run = private_run(plan=private_plan(rounds=2))
    run.boot()
    run.play()
    assert {event.node for event in run.of(ReceiptKept)} == set(run.names)
    stored = {event.node: event.receipt for event in run.of(ReceiptKept)}
    second = private_run(plan=private_plan(rounds=1, dropout=0.15))
    second.ledgers = {**run.ledgers, COORDINATOR: MemoryLedger(), "node-5": MemoryLedger()}
    second.policies = {name: NodePolicy(collusion=0.0) for name in second.names}
    second.coordinator = second.make_coordinator(replace(second.state, run_id=b"S" * 16))
    second.coordinator._receipts._kept.update(stored)
    second.boot()
    second.play()
    (over,) = second.of(RunOver, "node-5")
    assert not over.complete
    assert "this process's ledger has 0 entries" in over.reason
    assert "set back" in over.reason
    assert "newest whole copy" in over.reason
    assert not second.of(OfferSeen, "node-5")
    (done,) = second.of(RoundDone)
    assert set(done.contributors) == set(second.names) - {"node-5"}


@pytest.mark.req("B-11")
@pytest.mark.parametrize("kind", ["forged", "another's", "garbage", "older"])
def test_a_receipt_that_says_nothing_stops_nobody(kind: str) -> None:
    run = private_run(plan=private_plan(rounds=1))
    longer = MemoryLedger()
    longer.spend(b"elsewhere-------", 1, "none", Unprotected(), now=1.0)
    genuine = receipt_of("node-1", longer)
    given = {
        "forged": genuine[:-1] + bytes([genuine[-1] ^ 1]),
        "another's": receipt_of("node-2", longer),
        "garbage": b"no receipt",
        "older": receipt_of("node-1", MemoryLedger()),
    }[kind]
    welcomed_with(run, "node-1", given)
    run.boot()
    run.play()
    (done,) = run.of(RoundDone)
    assert "node-1" in done.contributors


@pytest.mark.req("B-07")
@pytest.mark.parametrize("bad", [b"garbage", receipt_of("node-2", MemoryLedger())])
def test_garbage_for_a_receipt_is_blamed_on_its_sender_and_not_kept(bad: bytes) -> None:
    """As is another node's; a node cannot put a receipt in somebody else's name either."""
    run = private_run(plan=private_plan(rounds=1, dropout=0.15))
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    node, kept = run.participants["node-1"], run.coordinator._receipts.of("node-1")
    for message in (Hello("0", 1, 1, 0.0, bad), Heartbeat(0, "idle", bad)):
        sealed: Message = message
        frame = bytes(node._sealed(sealed)[1])
        step = run.coordinator.receive("node-1", frame, 0.0)
        assert [type(event) for event in step.events] == [PeerRejected]
        assert "ledger receipt" in step.events[0].reason  # type: ignore[union-attr]
        assert not step.send
    assert run.coordinator._receipts.of("node-1") == kept


def test_a_probe_is_told_the_receipt_as_a_hello_is() -> None:
    run = private_run(plan=private_plan(rounds=1))
    run.boot()
    run.play()
    kept = run.coordinator._receipts.of("node-1")
    welcome = run.coordinator._welcome("node-1", 0.0)
    assert isinstance(welcome, Welcome)
    assert welcome.receipt == kept != b""


# --- what a policy remembers ---------------------------------------------------------------------


@pytest.mark.req("G-08")
def test_rounds_of_a_day_are_counted_over_restarts() -> None:
    policy = NodePolicy(collusion=0.0, max_rounds_a_day=2)
    plan = private_plan(rounds=4, privacy=None, max_failures=1)
    plan = replace(plan, privacy=replace(plan.privacy, unit="none"))
    run = private_run(plan=plan, policy=policy)
    run.boot()
    run.play()
    assert len(run.of(RoundDone)) == 2
    for name in run.names:
        (rejected,) = run.of(OfferRejected, name)
        assert rejected.reason == "too_many_rounds"
        assert "max_rounds_a_day = 2: this node began 2 rounds" in rejected.explanation
    idle = guard(policy, MemoryLedger())
    for _ in range(2):  # accepted, never trained: nothing is charged
        idle.judge(msgspec.structs.replace(private_offer(), dp=None, ring_bits=20), RUN, run.now)
    with pytest.raises(OfferRefused, match="max_rounds_a_day"):
        idle.judge(msgspec.structs.replace(private_offer(), dp=None, ring_bits=20), RUN, run.now)
    again = guard(policy, run.ledgers["node-0"])  # type: ignore[arg-type]
    again.begun = run.disk["node-0"].begun
    assert len(again.begun) == 2
    with pytest.raises(OfferRefused, match="max_rounds_a_day"):
        again.judge(msgspec.structs.replace(private_offer(), dp=None, ring_bits=20), RUN, run.now)
    later = run.now + 86_401
    offer = run.of(OfferSeen, "node-0")[0].offer
    assert again.judge(msgspec.structs.replace(offer, round_id=9), RUN, later)


@pytest.mark.req("G-07")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_cohort_that_is_too_similar_is_refused_also_after_a_restart(
    scheme: str, tmp_path: Path
) -> None:
    policy = private_policy(min_difference=2)
    run = private_run(plan=private_plan(rounds=1, scheme=scheme), policy=policy)
    run.boot()
    run.play()
    state = run.disk["node-0"]
    assert state.last_sum == tuple(run.names)
    save_memory(tmp_path / "memory.json", state)
    assert load_memory(tmp_path / "memory.json") == state
    run.disk["node-0"] = load_memory(tmp_path / "memory.json")  # type: ignore[assignment]
    run.boot("node-0")
    judged = run.participants["node-0"]._guard
    assert judged.previous == tuple(run.names)
    offer = private_offer(scheme, N - 1)
    with pytest.raises(OfferRefused, match="the cohort differs by one node") as caught:
        judged.judge(offer, b"T" * 16, run.now)
    assert caught.value.reason == "cohort_too_similar"
    fresh = guard(policy)
    assert fresh.judge(offer, b"T" * 16, run.now), "there was no sum before"


@pytest.mark.req("G-09")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sum_that_is_too_similar_is_not_co_signed(scheme: str) -> None:
    """The second offer is to all, and one drops out: then the sum is one node off."""
    gone: list[str] = []

    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        second = len(run.of(RoundDone)) == 1 and run.coordinator.state is State.ROUND
        if second and sender == "node-6":
            gone.append(sender)
            return []
        return [frame]

    plan = private_plan(rounds=2, scheme=scheme, dropout=0.15, max_failures=1, liveness=20.0)
    run = private_run(plan=plan, policy=private_policy(min_difference=2), deliver=deliver)
    run.boot()
    run.play()
    assert gone
    assert len(run.of(RoundDone)) == 1
    for name in set(run.names) - {"node-6"}:
        outcomes = [event.outcome for event in run.of(RoundEnded, name)]
        assert any(
            f"policy.toml line {LINES['min_difference']}: min_difference = 2" in outcome
            for outcome in outcomes
        ), outcomes
        assert run.disk[name].last_sum == tuple(run.names), "of the sum that came about"
    journals = [run.journals[name] for name in run.names]
    assert all(isinstance(journal, MemoryJournal) for journal in journals)


@pytest.mark.req("G-09")
def test_a_member_that_opens_a_sum_without_its_input_is_not_asked_about_it() -> None:
    judged = guard(private_policy(min_difference=3))
    judged.previous = NAMES
    assert judged.too_similar(NAMES[1:]) == ""
    assert "min_difference" in judged.too_similar(NAMES[:-1])
    assert judged.too_similar(NAMES) == ""


def test_a_policy_is_checked_by_the_offer_alone_where_nothing_is_remembered() -> None:
    offer = private_offer()
    setup = check_offer(
        offer,
        RUN,
        node_id=NAMES[0],
        policy=private_policy(),
        signing_key=KEYS.get,
        facts=PolicyFacts(members=N, unit="client", epsilon_after=EPSILON),
    )
    assert setup.noise_levels == noise_of(offer).drop_levels
