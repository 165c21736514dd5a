"""Rounds over a network that loses, delays, repeats and reorders, with clocks that disagree.

Every schedule ends with an exact sum or a typed failure; an exception other than a
`RemoteProtocolError` fails a test by itself. Schedules come in two kinds: in time, where a few
messages fare badly and every party's clock has its own rate, and as walks, where the next event is
chosen without regard to time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from secagg.errors import RemoteProtocolError
from secagg.masking.coordinator import MaskingCoordinator
from secagg.round_setup import RoundSetup
from secagg.steps import Step
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import Message, UploadTurn
from tests.support.fleet import COORDINATOR, make_setup
from tests.support.schedules import ALIVE, Round, check, fates

PHASE = 30.0  # seconds, as in make_setup
ACTIONS = (*["deliver"] * 12, "repeat", "lose", "wake", "wake", "gone")


def setup_of(n: int, graph: str) -> RoundSetup:
    """Two chunks an upload; sparse graphs, with coins, are of nine nodes."""
    if graph == "complete":
        return make_setup(n, dim=11, chunk_values=8)
    return make_setup(9, dim=11, chunk_values=8, neighbours=6, threshold=3, quorum=6, colluders=0)


setups = st.builds(
    setup_of, st.integers(3, 7), st.sampled_from(["complete", "complete", "complete", "sparse"])
)
delays = st.one_of(
    st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0]).map(
        lambda phases: phases * PHASE
    ),
    st.floats(0.0, 1.0),  # within a phase: reorders, between senders and within one
)
rates = st.sampled_from([0.05, 0.2, 0.9, 1.0, 1.0, 1.1, 5.0, 20.0])


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """A round in which some messages fare badly, some clocks are wrong and some nodes die."""
    setup = draw(setups)
    nodes = st.sampled_from(setup.cohort)
    link = st.one_of(
        st.tuples(nodes, st.just(COORDINATOR), st.integers(0, 7)),
        st.tuples(st.just(COORDINATOR), nodes, st.integers(0, 7)),
    )
    plan = draw(st.dictionaries(link, st.lists(delays, max_size=3), max_size=8))
    return {
        "setup": setup,
        "network": fates(plan),
        "clocks": draw(
            st.dictionaries(st.sampled_from([COORDINATOR, *setup.cohort]), rates, max_size=3)
        ),
        "dies": draw(st.dictionaries(nodes, st.integers(0, ALIVE), max_size=2)),
        "announced": draw(st.booleans()),
        "early": draw(st.booleans()),
    }


def is_sound(played: Round) -> None:
    check(played)
    event(played.reason.value if played.reason else "sum")


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.req("M-15")
@pytest.mark.req("M-21")
@pytest.mark.req("T-04")
@settings(max_examples=300, deadline=None)
@given(schedules())
def test_any_schedule_in_time_is_exact_or_a_typed_failure(case: dict[str, Any]) -> None:
    is_sound(Round(case.pop("setup"), **case).play())


@pytest.mark.req("M-16")
@pytest.mark.req("M-22")
@settings(max_examples=200, deadline=None)
@given(
    setups,
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30),
    st.sampled_from([0.1, 0.5, 0.9, 1.0, 1.3, 2.5]),
)
def test_any_jitter_of_all_messages_is_exact_or_a_typed_failure(
    setup: RoundSetup, jitter: list[float], phases: float
) -> None:
    """Every message is late by an amount of its own."""
    count = itertools.count()

    def network(sender: NodeId, receiver: NodeId, message: Message) -> list[float]:
        return [phases * PHASE * jitter[next(count) % len(jitter)]]

    is_sound(Round(setup, network=network).play())


@pytest.mark.req("M-01")
@pytest.mark.req("M-13")
@pytest.mark.req("M-21")
@settings(max_examples=300, deadline=None)
@given(
    setups,
    st.integers(0, 80),
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 50)), max_size=40),
)
def test_any_walk_through_events_is_exact_or_a_typed_failure(
    setup: RoundSetup, calm: int, choices: list[tuple[str, int]]
) -> None:
    """The walk begins after `calm` messages that arrive in order."""
    is_sound(Round(setup).walk([("deliver", 0)] * calm + choices))


@pytest.mark.req("M-01")
@settings(max_examples=150, deadline=None)
@given(setups, st.lists(st.integers(0, 50), min_size=5, max_size=40))
def test_any_order_of_delivery_alone_is_exact(setup: RoundSetup, order: list[int]) -> None:
    """Nothing is lost and time stands still: but for the chunks of one upload, order is free.

    A node's second chunk that overtakes its first costs it its place (M-16), so each sender's own
    messages stay in order here.
    """
    played = Round(setup).start()
    for index in itertools.cycle(order):
        first: dict[tuple[NodeId, NodeId], Any] = {}
        for arrival in sorted(played.flying):
            first.setdefault((arrival.sender, arrival.receiver), arrival)
        if not first:
            break
        links = sorted(first)
        played.arrive(first[links[index % len(links)]])
    played.play()
    is_sound(played)
    assert played.contributors == setup.cohort
    assert not played.errors
    assert not played.blamed


def test_schedules_like_these_end_in_every_way() -> None:
    """The properties are not about rounds that all fail at once."""
    rng, ends = np.random.default_rng(11), Counter[AbortReason | None]()
    for seed in range(150):
        setup = setup_of(4 + seed % 3, "complete" if seed % 4 else "sparse")
        plan = {}
        for _ in range(int(rng.integers(0, 6))):
            node, index = setup.cohort[rng.integers(len(setup.cohort))], int(rng.integers(8))
            link = (node, COORDINATOR) if rng.integers(2) else (COORDINATOR, node)
            copies = rng.integers(0, 3)
            plan[*link, index] = tuple(PHASE * rng.integers(0, 4, copies))
        played = Round(setup, network=fates(plan), seed=seed).play()
        check(played)
        ends[played.reason] += 1
    assert ends[None] > 30
    assert sum(ends.values()) - ends[None] > 30
    assert len(ends) > 5


# --- planted faults ------------------------------------------------------------------------------


def test_a_chunk_that_is_folded_twice_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a coordinator that takes a repeated message for a new one."""
    honest = MaskingCoordinator.receive

    def forgetful(self: MaskingCoordinator, sender: NodeId, message: Message, now: float) -> Step:
        if self.phase == "input" and sender in self._answered:
            self._answered.discard(sender)
            self._waiting.add(sender)
            self._uploads._turns._until[sender] = now + PHASE
        return honest(self, sender, message, now)

    monkeypatch.setattr(MaskingCoordinator, "receive", forgetful)
    setup = make_setup(5, dim=8, chunk_values=8)
    one, other = setup.cohort[:2]
    twice = fates({(one, COORDINATOR, 3): (0.0, 1.0), (COORDINATOR, other, 3): (5.0,)})
    with pytest.raises(AssertionError, match="not exact"):
        check(Round(setup, network=twice).play())


def test_a_crash_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a repeated message raises something else than it may."""
    honest = MaskingCoordinator.receive

    def brittle(self: MaskingCoordinator, sender: NodeId, message: Message, now: float) -> Step:
        try:
            return honest(self, sender, message, now)
        except RemoteProtocolError as error:
            raise KeyError(sender) from error

    monkeypatch.setattr(MaskingCoordinator, "receive", brittle)
    setup = make_setup(5, dim=11, chunk_values=8)
    repeats = fates({(setup.cohort[0], COORDINATOR, 2): (0.0, 0.0)})
    with pytest.raises(KeyError):
        Round(setup, network=repeats).play()


def test_a_turn_that_nobody_ends_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a coordinator without a deadline while nodes upload."""
    honest = MaskingCoordinator.receive

    def timeless(self: MaskingCoordinator, sender: NodeId, message: Message, now: float) -> Step:
        step = honest(self, sender, message, now)
        if any(isinstance(out.message, UploadTurn) for out in step.send):
            return Step(step.send, step.events, None, step.done)
        return step

    monkeypatch.setattr(MaskingCoordinator, "receive", timeless)
    with pytest.raises(AssertionError, match="wait for ever"):
        Round(make_setup(5, dim=8)).play()
