"""A run under client-level noise: what it spends, when it ends, and what it tells."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from nodes.privacy_ledger import FileLedger
from nodes.session import coordinator as session
from nodes.session.budget import check_charged
from nodes.session.events import (
    Checkpoint,
    FinalModel,
    OfferSeen,
    PeerRejected,
    RoundDone,
    RoundLost,
    RoundStarted,
    RunOver,
    RunState,
    WaitingForNodes,
)
from nodes.session.ledger import MemoryLedger
from nodes.session.privacy import CLIENT, cost_of
from nodes.telemetry import record_of
from secagg.dp.events import Unprotected
from secagg.dp.ledger import LedgerSetBackError
from secagg.errors import ConfigError
from tests.support.fleet import COORDINATOR
from tests.support.private import (
    DELTA,
    EPSILON,
    N,
    make_settings,
    private_offer,
    private_plan,
    private_policy,
    private_run,
)
from tests.support.run import DIM, Run, make_state

SCHEMES = ("masking", "ckks")


def rounds_in(run: Run, party: str) -> list[int]:
    return [entry.round_id for entry in run.ledgers[party].history().entries]


@pytest.mark.req("S-18", "B-01", "T-08")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_round_that_would_overspend_is_not_offered_and_everybody_gets_the_model(
    scheme: str,
) -> None:
    run = private_run(plan=private_plan(rounds=5, scheme=scheme))
    run.boot()
    run.play()
    done = run.of(RoundDone)
    assert [event.rounds_done for event in done] == [1, 2]
    assert len(run.of(RoundStarted)) == 2
    (over,) = run.of(RunOver)
    assert over.complete
    assert "the privacy budget ends the run after 2 rounds: one more would take epsilon" in (
        over.reason
    )
    assert f"beyond privacy.epsilon = {EPSILON:g}" in over.reason
    assert run.coordinator.run.finished
    for name in run.names:
        (final,) = run.of(FinalModel, name)
        assert final.rounds_done == 2
        assert np.array_equal(final.params, run.coordinator.run.params)
    for party in (COORDINATOR, *run.names):
        assert rounds_in(run, party) == [1, 2]
        history = run.ledgers[party].history()
        assert history.rounds(CLIENT) == 2
        assert history.spent(CLIENT, DELTA) == done[-1].epsilon <= EPSILON


@pytest.mark.req("S-18")
@pytest.mark.parametrize("epsilon", [5.0, 19.0])
def test_where_not_one_round_fits_the_run_ends_incomplete_and_all_are_told(epsilon: float) -> None:
    run = private_run(plan=private_plan(privacy=make_settings(epsilon=epsilon)))
    run.boot()
    run.play()
    assert not run.of(RoundStarted)
    assert not rounds_in(run, COORDINATOR)
    (over,) = run.of(RunOver)
    assert not over.complete
    assert "ends the run after 0 rounds" in over.reason
    for name in run.names:
        (told,) = run.of(RunOver, name)
        assert not told.complete
        assert not run.of(OfferSeen, name)


@pytest.mark.req("S-18", "B-08")
def test_what_another_run_spent_is_not_spent_again() -> None:
    ledger, offer = MemoryLedger(), private_offer()
    cost = cost_of(offer)
    ledger.spend(b"earlier run.....", 7, cost.unit, cost.event, now=1.0)
    ledger.spend(b"earlier run.....", 8, "none", Unprotected(), now=1.0)
    run = private_run(plan=private_plan(rounds=2), ledgers={COORDINATOR: ledger})
    run.boot()
    run.play()
    assert len(run.of(RoundDone)) == 1
    assert run.of(RunOver)[0].complete
    assert len(ledger.history()) == 3


@pytest.mark.req("S-18")
def test_a_run_that_the_budget_ended_stays_over_after_a_restart() -> None:
    run = private_run(plan=private_plan(rounds=5))
    run.boot()
    run.play()
    stored = [event.state for event in run.of(Checkpoint)][-1]
    run.events.clear()
    run.coordinator = run.make_coordinator(stored)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(run.now, run.now))
    run.play()
    assert not run.of(RoundStarted)
    assert all(run.of(FinalModel, name) for name in run.names)
    assert run.of(RunOver)[0].complete


# --- too few nodes for the noise -----------------------------------------------------------------


@pytest.mark.req("S-18")
def test_nodes_that_are_away_for_a_while_do_not_end_a_run_that_needs_them() -> None:
    run = private_run(plan=private_plan(rounds=2, give_up=100.0), state=make_state(rounds_done=1))
    run.boot(*run.names[:5])
    run.play(60.0)
    assert not run.of(RoundStarted), "the mean of five nodes would drown"
    assert any(event.needed == 6 for event in run.of(WaitingForNodes))
    run.boot(*run.names[5:])
    run.play()
    (done,) = run.of(RoundDone)
    assert len(done.contributors) >= 6
    assert run.of(RunOver)[0].complete


@pytest.mark.req("S-18")
def test_where_the_noise_needs_more_nodes_than_ever_come_the_end_says_so() -> None:
    run = private_run(plan=private_plan(give_up=60.0))
    run.boot(*run.names[:5])
    run.play(200.0)
    (over,) = run.of(RunOver)
    assert not over.complete
    assert "only 5 of 6 nodes for 60 s: with 5 nodes" in over.reason
    assert "too strong to read a mean" in over.reason
    assert not rounds_in(run, COORDINATOR)


@pytest.mark.req("S-18")
def test_where_all_nodes_are_too_few_for_the_noise_nobody_waits() -> None:
    run = private_run(5)
    run.boot()
    run.play(1.0)
    (over,) = run.of(RunOver)
    assert not over.complete
    assert over.reason.startswith("with 5 nodes epsilon = 40")


# --- a mean that drowns --------------------------------------------------------------------------


@pytest.mark.req("S-20")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_that_drown_in_their_noise_accuse_nobody(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that all give nothing, as honest ones may: the round is void and no search begins."""
    plan = private_plan(rounds=1, scheme=scheme, max_failures=2)
    run = private_run(plan=plan, trainer=lambda *_: None)
    run.boot()
    run.play()
    assert [event.reason for event in run.of(RoundLost)] == ["drowned_in_noise"] * 2
    assert not run.of(PeerRejected)
    assert not run.coordinator._present._suspicion.candidates
    assert {event.cohort for event in run.of(RoundStarted)} == {tuple(run.names)}
    assert rounds_in(run, "node-0") == [1, 2], "what was given was given"
    monkeypatch.setattr(session, "SPOILT", (*session.SPOILT, "drowned_in_noise"))
    searched = private_run(plan=plan, trainer=lambda *_: None)
    searched.boot()
    searched.play()
    assert searched.coordinator._present._suspicion.candidates, "this test can fail"


# --- ids and restarts ----------------------------------------------------------------------------


@pytest.mark.req("S-04", "B-01", "B-03")
def test_a_coordinator_killed_between_charge_and_checkpoint_goes_on_with_the_next_id(
    tmp_path: Path,
) -> None:
    ledger = FileLedger(tmp_path / "privacy.jsonl")
    run = private_run(plan=private_plan(rounds=1), ledgers={COORDINATOR: ledger})
    run.boot()

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> RunState:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "after_offer", killed)
        with pytest.raises(KilledError):
            run.play()
    assert rounds_in(run, COORDINATOR) == [1]
    assert not run.of(RoundStarted)
    assert not any(run.of(OfferSeen, name) for name in run.names), "it was charged, and not offered"
    run.queue.clear()
    run.events.clear()
    run.ledgers[COORDINATOR] = FileLedger(tmp_path / "privacy.jsonl")
    run.coordinator = run.make_coordinator(make_state())
    run.boot()
    run.now = 0.0
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.play()
    assert [event.round_id for event in run.of(RoundDone)] == [2]
    assert rounds_in(run, COORDINATOR) == [1, 2]
    assert rounds_in(run, "node-0") == [2]


@pytest.mark.req("B-03")
@pytest.mark.parametrize("silent", ["coordinator", "nodes"])
def test_what_was_charged_for_a_round_that_aborts_is_not_given_back(silent: str) -> None:
    """The upload arrives, or it does not: in either case it left."""
    lost: list[bytes] = []

    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        uploads = (
            len(run.of(RoundStarted)) == 1 and (to if silent == "nodes" else sender) == COORDINATOR
        )
        if uploads and run.coordinator.state is session.State.ROUND and keyed():
            lost.append(frame)
            return []
        return [frame]

    def keyed() -> bool:
        return all(rounds_in(run, name) for name in run.names)

    run = private_run(plan=private_plan(rounds=1, liveness=40.0), deliver=deliver)
    for name in run.names:
        run.ledgers[name] = MemoryLedger()
    run.boot()
    run.play()
    assert lost
    assert len(run.of(RoundLost)) == 1
    assert [event.round_id for event in run.of(RoundDone)] == [2]
    for party in (COORDINATOR, *run.names):
        assert rounds_in(run, party) == [1, 2]
    assert run.of(RoundDone)[0].epsilon == run.ledgers[COORDINATOR].history().spent(CLIENT, DELTA)


@pytest.mark.req("S-22")
def test_a_ledger_that_lacks_rounds_of_the_checkpoint_was_set_back(tmp_path: Path) -> None:
    run = private_run(plan=private_plan(rounds=2))
    run.boot()
    run.play()
    state, whole = run.coordinator.run, run.ledgers[COORDINATOR].history()
    check_charged(state, whole)
    check_charged(make_state(), MemoryLedger().history())
    shorter, others = MemoryLedger(), MemoryLedger()
    first, second = whole.entries
    shorter.spend(first.run_id, first.round_id, first.unit, first.event, now=1.0)
    others.spend(b"O" * 16, second.round_id, second.unit, second.event, now=1.0)
    for ledger, says in ((shorter, "lacks 1 of them, from round 2 on"), (others, "lacks 2")):
        with pytest.raises(LedgerSetBackError, match=says) as caught:
            check_charged(state, ledger.history())
        assert "privacy.jsonl.head back" in caught.value.hint


@pytest.mark.req("B-01")
def test_a_coordinator_that_cannot_charge_offers_nothing() -> None:
    class Full(MemoryLedger):
        def spend(self, *_: object, **__: object) -> object:  # type: ignore[override]
            raise ConfigError("no space left on device", hint="make room")

    run = private_run(ledgers={COORDINATOR: Full()})
    run.boot()
    with pytest.raises(ConfigError, match="no space left"):
        run.play()
    assert not run.of(RoundStarted)
    assert not any(run.of(OfferSeen, name) for name in run.names)


# --- what is told --------------------------------------------------------------------------------


@pytest.mark.req("E-01", "D-01", "T-08")
def test_of_a_noised_round_nothing_is_told_that_noise_does_not_cover() -> None:
    """The record has every field of the event; what is in none is told by none."""
    adaptive = make_settings(quantile=0.5)
    run = private_run(plan=private_plan(rounds=1, privacy=adaptive))
    run.boot()
    run.play()
    (done,) = run.of(RoundDone)
    record = record_of(done)
    assert record is not None
    assert set(record) == {"event", *(field.name for field in fields(RoundDone))}
    assert record["loss"] is None
    assert record["weights"] == (1,) * N
    assert record["outliers"] == ()
    assert 0 <= record["clipped"] <= N, "post-processing of a noised count"
    assert record["weight"] != 1.0, "noised"
    assert record["contributors"] == tuple(run.names), "public"
    mean = run.coordinator.run.params
    assert mean.shape == (DIM,)
    assert np.abs(mean - 0.045).max() > 0.01, "the mean update without noise is 0.045 everywhere"


@pytest.mark.req("G-01", "S-18")
def test_the_budgets_of_coordinator_and_nodes_are_their_own() -> None:
    """One node allows one round: the run goes on without it."""
    run = private_run(plan=private_plan(rounds=2, dropout=0.15))
    run.policies["node-3"] = replace(private_policy(), epsilon=20.0)
    run.boot()
    run.play()
    first, second = run.of(RoundDone)
    assert "node-3" in first.contributors
    assert "node-3" not in second.contributors
    assert rounds_in(run, "node-3") == [1]
    assert run.of(FinalModel, "node-3")
