"""Coordinators that lie about noise, ledgers that fail, receipts that are not what they seem."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nodes.privacy_ledger import FileLedger, read_ledger
from nodes.session.events import (
    OfferRejected,
    OfferSeen,
    ParticipantState,
    RoundDone,
    RoundEnded,
    RoundStarted,
    RunOver,
)
from nodes.session.guard import Guard
from nodes.session.ledger import MemoryLedger
from nodes.session.policy import NodePolicy
from nodes.session.privacy import cost_of
from secagg.dp.events import PrivacyEvent
from secagg.dp.ledger import Entry
from secagg.errors import ConfigError, DecodeError, LocalProtocolError, OfferRefused
from secagg.types import NodeId
from secagg.wire.codec import decode, encode
from secagg.wire.messages import RoundMessage, RoundOffer
from tests.support.fleet import COORDINATOR
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
from tests.support.run import Run, message_of


def refusal(offer: RoundOffer, policy: NodePolicy | None = None) -> tuple[str, str]:
    """Return code and words of a node's refusal, both empty if it takes the offer."""
    received = decode(encode(offer), sender=COORDINATOR)
    assert isinstance(received, RoundOffer)
    try:
        guard(policy).judge(received, RUN, 1e9)
    except OfferRefused as refused:
        return str(refused.reason), str(refused)
    return "", ""


def lied(scheme: str = "masking", /, **changes: object) -> RoundOffer:
    """An offer whose noise, or whose other numbers, are not what the honest one says."""
    offer = private_offer(scheme)
    noise = noise_of(offer)
    of_noise = {
        name: changes.pop(name) for name in list(changes) if name in noise.__struct_fields__
    }
    dp = msgspec.structs.replace(noise, **of_noise)
    return msgspec.structs.replace(offer, **{"dp": dp, **changes})


# --- offers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_honest_offer_is_taken(scheme: str) -> None:
    assert refusal(private_offer(scheme)) == ("", "")


@pytest.mark.req("G-01", "G-02", "G-05")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"noise_multiplier": 0.13}, "epsilon", "budget_spent"),
        ({"mechanism": "skellam", "noise_multiplier": 0.16}, "epsilon", "budget_spent"),
        ({"dp": None}, "require", "privacy_required"),
    ],
)
def test_noise_that_is_too_weak_is_refused_with_the_line_of_the_policy(
    scheme: str, changes: dict[str, object], key: str, reason: str
) -> None:
    code, words = refusal(lied(scheme, **changes))
    assert code == reason
    assert f"policy.toml line {LINES[key]}: {key} = " in words


@pytest.mark.req("S-19", "D-11")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"noise_multiplier": 1e-9}, "noise in parts of"),
        ({"noise_multiplier": 1e-160}, "noise in parts of|out of range|Numerical"),
        ({"noise_multiplier": 1e6, "scale": 64}, "noise in parts of|narrower|wrap|bits"),
        ({"honest": N + 1}, "noise from 9 nodes of 8"),
        ({"honest": 1 << 20}, "noise from 1048576 nodes of 8"),
        ({"colluders": 1, "drop_levels": ()}, "counts on 8 honest nodes, a sum has 7"),
        ({"quorum": 7}, "counts on 8 honest nodes, a sum has 7"),
        ({"mechanism": "laplace"}, "noise mechanism 'laplace'"),
        ({"mechanism": ""}, "noise mechanism"),
        ({"drop_levels": (0, 1)}, "and the noise is for 8"),
        ({"drop_levels": (0, 1), "honest": 7, "quorum": 6}, "with 7 dropouts|honest|dropouts"),
        ({"drop_levels": (1, 0)}, "do not rise from 0"),
        ({"drop_levels": (0, 0)}, "do not rise from 0"),
        ({"drop_levels": (0, 1 << 20)}, "and the noise is for 8"),
        ({"clip": 5e-324}, "clip is 5e-324"),
        ({"noise_multiplier": 5e-324}, "variance|positive|number"),
        ({"reference": b""}, "dim 0"),
    ],
)
def test_noise_that_would_not_be_there_is_refused(
    scheme: str, changes: dict[str, object], says: str
) -> None:
    code, words = refusal(lied(scheme, **changes))
    if "quorum" in changes and code == "thresholds_unsafe":
        return  # under ckks the terms are for another quorum
    assert code in ("parameters_unsafe", "budget_spent")
    if code == "parameters_unsafe":
        assert any(part in words for part in says.split("|")), words


@pytest.mark.req("D-11", "S-19")
def test_a_sum_or_a_value_that_would_not_fit_is_refused() -> None:
    masking, packed = private_offer("masking"), private_offer("ckks")
    code, words = refusal(lied("masking", ring_bits=masking.ring_bits - 1))
    assert (code, "can wrap the ring" in words) == ("parameters_unsafe", True)
    code, words = refusal(lied("masking", scale=1 << 20))
    assert (code, "can wrap the ring" in words) == ("parameters_unsafe", True)
    assert refusal(lied("ckks", value_bits=packed.value_bits - 1))[0] != ""
    assert refusal(lied("masking", clip=1e6)) == ("", ""), "a length says nothing about privacy"
    assert refusal(lied("masking", honest=1, ring_bits=32)) == ("", ""), "more noise than is due"


@pytest.mark.req("S-19")
def test_noise_is_refused_where_inputs_or_distances_are_shown() -> None:
    code, words = refusal(lied("masking", scheme="insecure-plain"))
    assert code == "parameters_unsafe"
    assert "the coordinator sees inputs with one node's noise only" in words
    packed = private_offer("ckks")
    assert packed.ckks is not None
    weighing = msgspec.structs.replace(packed.ckks, coordinator_weighs=True)
    code, words = refusal(msgspec.structs.replace(packed, ckks=weighing))
    assert code == "parameters_unsafe"
    assert "nodes disclose a distance that no noise covers" in words


@pytest.mark.req("G-05", "G-01")
def test_a_unit_that_is_only_said_is_none() -> None:
    """Settings of training that nobody can read, and no noise: unit "none", whatever they say."""
    claimed = b'{"privacy":{"unit":"record","epsilon":0.1}}'
    for unit in ("record", "client"):
        code, words = refusal(lied(dp=None, training=claimed), private_policy(require=unit))
        assert code == "privacy_required"
        assert f"policy.toml line {LINES['require']}" in words
        assert "protects nobody" in words
    code, _ = refusal(private_offer(), private_policy(require="record"))
    assert code == "privacy_required"


@pytest.mark.req("G-01")
@pytest.mark.parametrize("delta", [1e-15, 1e-18, 1e-30])
def test_where_the_delta_of_the_policy_says_nothing_the_line_of_its_budget_does(
    delta: float,
) -> None:
    code, words = refusal(private_offer(), private_policy(delta=delta))
    assert code == "budget_spent"
    assert f"line {LINES['epsilon']}" in words


@pytest.mark.req("S-19", "W-02")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300])
@pytest.mark.parametrize("field", ["clip", "noise_multiplier"])
def test_noise_that_is_no_number_is_no_message(field: str, value: float) -> None:
    with pytest.raises(DecodeError):
        decode(encode(lied(**{field: value})), sender=COORDINATOR)


@pytest.mark.req("G-05")
def test_what_was_spent_is_not_in_the_refusal_and_neither_is_the_ledgers_place(
    tmp_path: Path,
) -> None:
    ledger, offer = MemoryLedger(), private_offer()
    cost = cost_of(offer)
    for round_id in (1, 2):
        ledger.spend(b"elsewhere-------", round_id, cost.unit, cost.event, now=1.0)
    with pytest.raises(OfferRefused) as caught:
        guard(ledger=ledger).judge(offer, RUN, 1e9)
    spent = ledger.history().spent(cost.unit, 0.1)
    assert f"{spent:.2g}" not in str(caught.value)
    (tmp_path / "privacy.jsonl").write_text("no ledger\n")
    damaged = Guard(
        NAMES[0],
        private_policy(),
        FileLedger(tmp_path / "privacy.jsonl"),
        signing_key=KEYS.get,
        members=lambda: N,
    )
    with pytest.raises(OfferRefused) as caught:
        damaged.judge(offer, RUN, 1e9)
    assert caught.value.reason == "budget_spent"
    assert str(tmp_path) not in str(caught.value)
    assert "line 1 is not an entry" in caught.value.hint, "its own log says more"


@pytest.mark.req("S-06", "S-18")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_coordinator_that_offers_beyond_the_budget_of_the_nodes_gets_nothing(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.session.budget.Budget._refusal", lambda *_: "")
    plan = private_plan(rounds=4, scheme=scheme, max_failures=1)
    run = private_run(plan=plan)
    run.boot()
    run.play()
    assert len(run.of(RoundDone)) == 2
    assert len(run.of(RoundStarted)) == 3
    for name in run.names:
        (rejected,) = run.of(OfferRejected, name)
        assert rejected.reason == "budget_spent"
        assert f"policy.toml line {LINES['epsilon']}: epsilon = {EPSILON:g}" in rejected.explanation
        assert "start the node again" in rejected.explanation
        assert len(run.ledgers[name].history()) == 2
    assert "refused it: budget_spent" in run.of(RunOver)[0].reason


# --- the charge ----------------------------------------------------------------------------------


def round_messages(run: Run, name: NodeId) -> Callable[[str, str, bytes], list[bytes]]:
    """Return a filter that asks at every message of a round whether it was charged."""

    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender == name and to == COORDINATOR:
            message = message_of(run, frame, sender)
            if isinstance(message, RoundMessage):
                charged = read_ledger(run.ledgers[name]._path).history  # type: ignore[attr-defined]
                seen.append(charged.has(RUN, message.round_id))
        return [frame]

    seen: list[bool] = []
    deliver.seen = seen  # type: ignore[attr-defined]
    return deliver


@pytest.mark.req("B-01")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_round_is_on_the_disk_before_the_first_message_about_its_input(
    scheme: str, tmp_path: Path
) -> None:
    run = private_run(plan=private_plan(scheme=scheme))
    run.ledgers["node-2"] = FileLedger(tmp_path / "privacy.jsonl")
    run.deliver = round_messages(run, "node-2")
    run.boot()
    run.play()
    assert len(run.of(RoundDone)) == 2
    seen = run.deliver.seen  # type: ignore[attr-defined]
    assert len(seen) >= 8
    assert all(seen)


class Fails(MemoryLedger):
    """A ledger that cannot be charged the first time."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error: Exception | None = error

    def spend(
        self, run_id: bytes, round_id: int, unit: str, event: PrivacyEvent, *, now: float
    ) -> Entry:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return super().spend(run_id, round_id, unit, event, now=now)


@pytest.mark.req("B-01", "S-15")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "error",
    [ConfigError("disk full", hint="make room"), LocalProtocolError("no such charge")],
    ids=lambda error: type(error).__name__,
)
def test_a_node_that_cannot_charge_sends_nothing_and_stays_in_the_run(
    scheme: str, error: Exception
) -> None:
    sent: list[tuple[int, bytes]] = []

    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender == "node-4":
            message = message_of(run, frame, sender)
            if isinstance(message, RoundMessage):
                sent.append((message.round_id, frame))
        return [frame]

    run = private_run(plan=private_plan(dropout=0.15, scheme=scheme), deliver=deliver)
    run.ledgers["node-4"] = Fails(error)
    run.boot()
    run.play()
    first, second = run.of(RoundDone)
    assert "node-4" not in first.contributors
    assert "node-4" in second.contributors
    assert {round_id for round_id, _ in sent} == {second.round_id}
    ended = run.of(RoundEnded, "node-4")[0]
    assert not ended.included
    assert str(error) in ended.outcome
    assert [e.round_id for e in run.ledgers["node-4"].history().entries] == [second.round_id]


@pytest.mark.req("B-03", "S-05")
def test_a_memory_that_was_set_back_does_not_charge_a_round_twice() -> None:
    """The ledger remembers what memory.json forgot: nothing of the round leaves."""
    run = private_run(plan=private_plan(rounds=1))
    run.boot()
    run.play()
    offers = [event.offer for event in run.of(OfferSeen, "node-0")]
    run.disk["node-0"] = ParticipantState({})
    run.boot("node-0")
    node = run.participants["node-0"]
    setup = node._guard.judge(offers[0], RUN, 1e9)
    assert setup.round_id == 1
    assert "is in this process's ledger already" in node._guard.charge(RUN, offers[0], 1e9)
