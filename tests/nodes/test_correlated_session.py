"""Epochs of correlated noise in a whole run: cancellation, attendance, and what is charged."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from fl_core.training import LocalUpdate
from nodes.cli import secagg
from nodes.session.epoch_terms import divisor_of, epoch_terms
from nodes.session.events import (
    Checkpoint,
    OfferRejected,
    RoundDone,
    RoundLost,
    RoundStarted,
    RunOver,
    TrainRequested,
)
from nodes.session.offer import noised_encoding_of
from nodes.session.policy import NodePolicy
from nodes.session.privacy import PrivacySettings
from secagg.dp.correlated import CorrelatedTerms
from secagg.dp.correlated_cost import prefix_variances
from secagg.dp.events import ZeroConcentrated
from secagg.errors import ConfigError
from secagg.wire.messages import (
    CipherChunk,
    DpTerms,
    MaskedChunk,
    Message,
    RoundOffer,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import COORDINATOR
from tests.support.run import EMBEDDING, Run, make_plan, make_state, message_of

SCHEMES = ("masking", "ckks")
UPLOADS = (MaskedChunk, CipherChunk)


def settings(**changes: Any) -> PrivacySettings:
    values: dict[str, Any] = {
        "unit": "client",
        "epsilon": 8.0,
        "excess_levels": 0,
        "epoch_rounds": 4,
        "separation": 2,
        "spare": 0.0,
    }
    return PrivacySettings(**{**values, **changes})


def no_update(node: str, request: TrainRequested) -> LocalUpdate:
    zeros = np.zeros(len(request.params), np.float32)
    return LocalUpdate(zeros, np.zeros(EMBEDDING, np.float32), 1.0, 0.0, 2.0, 100)


@dataclass
class EpochRun(Run):
    """A run that notes its offers and can lose messages of some rounds."""

    lose: tuple[str, int, tuple[type[Message], ...]] = ("", 0, ())
    """Sender ("" for `lost`), round, and the kinds of its messages that get lost."""
    lost: set[str] = field(default_factory=set)
    offers: list[RoundOffer] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.policies = {name: NodePolicy(schemes=(self.plan.scheme,)) for name in self.names}
        self.deliver = self._noting
        self.lost = set(self.names)

    def _noting(self, sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender != COORDINATOR:
            who, round_id, kinds = self.lose
            message = message_of(self, frame, sender) if round_id else None
            if isinstance(message, kinds) and sender in ({who} if who else self.lost):
                return [] if getattr(message, "round_id", None) == round_id else [frame]
        elif to == self.names[-1]:
            message = message_of(self, frame, sender)
            if isinstance(message, RoundOffer):
                self.offers.append(message)
        return [frame]

    def at(self, round_id: int) -> tuple[str, int, tuple[str, ...]]:
        """Epoch, position and cohort of a round that the last node was offered."""
        (offer,) = [offer for offer in self.offers if offer.round_id == round_id]
        epoch = terms_of(offer).correlated
        assert epoch is not None
        return epoch.epoch.hex(), epoch.position, offer.cohort

    def charges(self, who: str) -> list[tuple[int, float]]:
        """Round and ρ of everything in a ledger."""
        found = []
        for entry in self.ledgers[who].history().entries:
            assert isinstance(entry.event, ZeroConcentrated)
            assert entry.unit == "client"
            found.append((entry.round_id, entry.event.rho))
        return found

    def run_to(self, round_id: int) -> None:
        """Play until the coordinator has offered that round; its offer is still under way."""
        if not self.events:
            self.take(COORDINATOR, self.coordinator.start(self.now, self.now))
        while not any(e.round_id == round_id for e in self.of(RoundStarted)):  # type: ignore[attr-defined]
            self.deliver_one()

    def deliver_one(self) -> None:
        sender, to, frame = self.queue.popleft()
        if to == COORDINATOR:
            self.take(to, self.coordinator.receive(sender, frame, self.now))
        else:
            self.take(to, self.participants[to].receive(frame, self.now))

    def next_message(self, sender: str) -> Message | None:
        """What is delivered next, if it is of that sender."""
        source, _, frame = self.queue[0]
        return message_of(self, frame, sender) if source == sender else None


def started(scheme: str = "masking", *, n: int = 8, rounds: int = 8, **changes: Any) -> EpochRun:
    run = EpochRun(n=n, plan=make_plan(rounds=rounds, scheme=scheme, privacy=settings(**changes)))
    run.boot()
    return run


def terms_of(offer: RoundOffer) -> DpTerms:
    assert offer.dp is not None
    return offer.dp


def in_steps(offer: RoundOffer) -> tuple[CorrelatedTerms, float, int]:
    """The mechanism's terms, Δ and the dimension."""
    encoding = noised_encoding_of(offer, terms_of(offer))
    return epoch_terms(terms_of(offer), encoding), encoding.sensitivity.l2, encoding.dim


# --- what is charged ------------------------------------------------------------------------------


@pytest.mark.req("C-08", "C-15")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_both_sides_charge_every_round_and_an_epoch_in_all_what_it_costs(scheme: str) -> None:
    run = started(scheme)
    run.play()
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]
    assert len(run.of(RoundDone)) == 8
    terms, l2, dim = in_steps(run.offers[0])
    assert (terms.rounds, terms.separation, terms.honest) == (4, 2, 4)
    worst, own = run.charges(COORDINATOR), {name: run.charges(name) for name in run.names}
    for charges in (worst, *own.values()):
        assert [round_id for round_id, _ in charges] == list(range(1, 9))
    for epoch in (slice(0, 4), slice(4, 8)):
        assert sum(rho for _, rho in worst[epoch]) == pytest.approx(terms.rho(l2, dim), rel=1e-9)
        for index, name in enumerate(run.names):
            slot = index % 2
            total = sum(rho for _, rho in own[name][epoch])
            assert total == pytest.approx(terms.rho(l2, dim, slot=slot), rel=1e-9)
            given = [rho > 0 for _, rho in own[name][epoch]]
            assert given == [position % 2 == slot for position in range(4)]
    (done,) = run.of(RoundDone)[-1:]
    assert isinstance(done, RoundDone)
    assert done.epsilon is not None
    # The budget was made for exactly two epochs, and the least noise that it allows was taken.
    assert 7.9 < done.epsilon <= 8.0


@pytest.mark.req("C-12")
def test_a_charge_counts_that_shares_are_cut() -> None:
    run = started(rounds=2)
    run.play()
    for entry in run.ledgers[COORDINATOR].history().entries:
        assert isinstance(entry.event, ZeroConcentrated)
        assert entry.event.delta_extra == 4 * 2.0**-64


@pytest.mark.req("C-06")
def test_a_node_trains_in_the_rounds_of_its_slot_only() -> None:
    run = started(rounds=6)
    run.play()
    for index, name in enumerate(run.names):
        trained = [event.offer.round_id for event in run.of(TrainRequested, name)]  # type: ignore[attr-defined]
        assert trained == ([1, 3, 5] if index % 2 == 0 else [2, 4, 6])


@pytest.mark.req("C-15")
def test_an_epoch_is_no_longer_than_the_run() -> None:
    run = started(rounds=5)
    run.play()
    lengths = []
    for offer in run.offers:
        epoch = terms_of(offer).correlated
        assert epoch is not None
        lengths.append((epoch.position, epoch.rounds))
    assert lengths == [(0, 4), (1, 4), (2, 4), (3, 4), (0, 2)]
    assert terms_of(run.offers[-1]).noise_multiplier == terms_of(run.offers[0]).noise_multiplier
    (done,) = run.of(RoundDone)[-1:]
    assert isinstance(done, RoundDone)
    assert done.epsilon is not None
    assert done.epsilon <= 8.0


@pytest.mark.req("C-14")
def test_a_simulation_shows_epochs() -> None:
    args = ["simulate", "--nodes", "6", "--rounds", "2", "--no-train", "--json"]
    args += ["--epoch-rounds", "2", "--separation", "2"]
    done = CliRunner().invoke(secagg, [*args, "--unit", "client"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rounds"]
    assert [(row["outcome"], row["exact"]) for row in rows] == [("done", True)] * 2
    assert rows[-1]["epsilon"] <= 8
    refused = CliRunner().invoke(secagg, args)
    assert isinstance(refused.exception, ConfigError)
    assert 'privacy.unit = "client"' in refused.exception.hint


# --- what the noise does --------------------------------------------------------------------------


def means_of(run: EpochRun) -> NDArray[np.float64]:
    """The mean updates that the coordinator decoded, shape (rounds, dim)."""
    states = [event.state.params for event in run.of(Checkpoint) if isinstance(event, Checkpoint)]
    moves = np.diff(np.array(states, dtype=np.float64), axis=0)
    return moves[np.abs(moves).max(axis=1) > 0]


@pytest.mark.req("C-01", "C-13")
@pytest.mark.parametrize(
    ("scheme", "rotation"), [("masking", True), ("masking", False), ("ckks", True)]
)
def test_what_a_round_adds_later_rounds_take_back(scheme: str, rotation: bool) -> None:
    dim, n = 6000, 5
    plan = make_plan(
        rounds=8,
        scheme=scheme,
        privacy=settings(epoch_rounds=8, separation=4, rotation=rotation, clip=0.01),
    )
    state = make_state(params=np.zeros(dim, dtype=np.float32))
    run = EpochRun(n=n, plan=plan, state=state, trainer=no_update)
    run.boot()
    run.play()
    means = means_of(run)
    assert means.shape == (8, dim)
    terms, _, _ = in_steps(run.offers[0])
    dp = terms_of(run.offers[0])
    step = dp.clip / dp.scale / divisor_of(dp)
    covariance = terms.covariance() * (n / terms.honest) * step * step
    want = prefix_variances(covariance)
    tolerance = 6 * math.sqrt(2 / dim)  # six deviations of a variance over dim coordinates
    assert np.var(np.cumsum(means, axis=0), axis=1) == pytest.approx(want, rel=tolerance)
    # The same rounds, with their coordinates shifted against each other, take nothing back.
    shifted = np.array([np.roll(mean, 7 * t) for t, mean in enumerate(means)])
    alone = np.var(np.cumsum(shifted, axis=0), axis=1)
    independent = np.cumsum(np.diagonal(covariance))
    assert alone == pytest.approx(independent, rel=2 * tolerance)
    assert want[-1] * (1 + tolerance) < independent[-1] / 3 < alone[-1]


@pytest.mark.req("C-13")
def test_only_the_update_travels_and_the_reference_stays() -> None:
    run = started(n=5, rounds=2)
    run.play()
    assert not run.coordinator.run.reference.any()
    assert {event.weight for event in run.of(RoundDone) if isinstance(event, RoundDone)} == {1.0}
    assert in_steps(run.offers[0])[2] == run.offers[0].model_dim


# --- who goes on ----------------------------------------------------------------------------------


@pytest.mark.req("C-10", "C-16")
def test_a_node_that_restarts_refuses_until_the_next_epoch() -> None:
    run = started(spare=1.0)
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    while not isinstance(run.next_message("node-0"), UnmaskAnswer):
        run.deliver_one()
    run.deliver_one()  # it answered, so it is in the sum; then it dies and comes back at once
    run.now = 2.0  # a hello is answered once a second
    run.boot("node-0")
    run.queue.appendleft(run.queue.pop())
    run.play()
    rounds = {e.round_id: e.contributors for e in run.of(RoundDone) if isinstance(e, RoundDone)}
    assert [r for r, nodes in rounds.items() if "node-0" not in nodes] == [2, 3, 4]
    assert [run.at(r)[1] for r in rounds] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert "node-0" in run.at(2)[2]  # the coordinator counted on it
    (refused,) = run.of(OfferRejected, "node-0")
    assert isinstance(refused, OfferRejected)
    assert refused.round_id == 2
    assert "or has restarted since" in refused.explanation
    assert [round_id for round_id, _ in run.charges("node-0")] == [1, 5, 6, 7, 8]


@pytest.mark.req("C-09", "C-17")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_lost_node_waits_while_the_others_go_on_with_enough_noise(scheme: str) -> None:
    run = started(scheme)
    run.lose = ("node-3", 2, UPLOADS)
    run.play()
    rounds = {e.round_id: e.contributors for e in run.of(RoundDone) if isinstance(e, RoundDone)}
    others = tuple(name for name in run.names if name != "node-3")
    everybody = tuple(run.names)
    assert list(rounds.values()) == [everybody, others, others, others, *[everybody] * 4]
    assert [run.at(r)[1] for r in rounds] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert len({run.at(r)[0] for r in rounds}) == 2
    for offer in run.offers:
        assert offer.quorum >= terms_of(offer).honest + offer.colluders
    assert [round_id for round_id, _ in run.charges("node-3")] == [1, 2, 5, 6, 7, 8]


@pytest.mark.req("C-17")
def test_an_epoch_that_lost_too_many_ends_and_another_begins() -> None:
    run = started(n=6, spare=2.0)
    run.run_to(2)
    offer = run.offers[0]
    spare = 6 - terms_of(offer).honest - offer.colluders
    assert spare >= 1
    run.lose = ("", 2, UPLOADS)
    run.lost = set(run.names[: spare + 1])
    run.play()
    epochs = [run.at(o.round_id) for o in run.offers]
    assert [position for _, position, _ in epochs] == [0, 1, 0, 1, 2, 3, 0, 1, 2]
    assert [len(cohort) for _, _, cohort in epochs] == [6] * 9
    assert len({epoch for epoch, _, _ in epochs}) == 3
    (lost,) = run.of(RoundLost)
    assert isinstance(lost, RoundLost)
    assert lost.round_id == 2


@pytest.mark.req("C-08", "C-17")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_aborted_round_is_charged_and_ends_the_epoch(scheme: str) -> None:
    run = started(scheme, n=6, rounds=4, spare=2.0)
    run.lose = ("", 3, (SurvivorSignature,))  # all have drawn their noise and sent their input
    run.play()
    assert [event.round_id for event in run.of(RoundLost)] == [3]  # type: ignore[attr-defined]
    epochs = [run.at(offer.round_id) for offer in run.offers]
    assert [position for _, position, _ in epochs] == [0, 1, 2, 0, 1]
    assert epochs[3][0] == epochs[4][0] != epochs[0][0]
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]
    first, l2, dim = in_steps(run.offers[0])
    second, _, _ = in_steps(run.offers[3])
    due = first.rho(l2, dim, through=2) + second.rho(l2, dim)
    assert sum(rho for _, rho in run.charges(COORDINATOR)) == pytest.approx(due, rel=1e-9)
    for index, name in enumerate(run.names):
        due = first.rho(l2, dim, through=2, slot=index % 2) + second.rho(l2, dim, slot=index % 2)
        assert sum(rho for _, rho in run.charges(name)) == pytest.approx(due, rel=1e-9)


@pytest.mark.req("C-17")
def test_a_coordinator_that_restarts_begins_an_epoch() -> None:
    run = started(n=6, rounds=4, spare=2.0)
    run.run_to(3)
    (last,) = run.of(Checkpoint)[-1:]
    assert isinstance(last, Checkpoint)
    run.queue.clear()
    run.coordinator = run.make_coordinator(last.state)
    run.take(COORDINATOR, run.coordinator.start(run.now, run.now))
    run.play()
    epochs = [run.at(offer.round_id) for offer in run.offers]
    assert [position for _, position, _ in epochs] == [0, 1, 2, 0, 1]
    assert epochs[3][0] != epochs[0][0]
    assert [round_id for round_id, _ in run.charges(COORDINATOR)] == [1, 2, 3, 4, 5]
    assert run.of(RunOver) == [RunOver(complete=True, reason="all rounds done")]
