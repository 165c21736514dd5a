"""What the coordinator weighs, holds and takes for an answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from secagg.ckks.coordinator import CkksCoordinator
from secagg.ckks.sealing import make_key
from secagg.ckks.weighting import coarse
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    Message,
    SealedSecret,
    SumShare,
    WeightedSurvivors,
)
from tests.support.ckks import CKKS, ckks_setup
from tests.support.fleet import COORDINATOR, Fleet, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.scripts import Recording, rewritten, snapshot

SETUP = ckks_setup(5)
COHORT = SETUP.cohort
WEIGHING = ckks_setup(6, max_weight=4, weighs=True)


def started(setup: RoundSetup = SETUP) -> CkksCoordinator:
    role = CkksCoordinator(setup)
    role.start(0.0)
    return role


# --- weights --------------------------------------------------------------------------------------


def weigh_as(weights: Mapping[int, int] | None = None, *, least: int = 1) -> dict[NodeId, int]:
    return {n: (weights or {}).get(i, least) for i, n in enumerate(WEIGHING.cohort)}


def test_the_coordinator_weighs_by_something_and_starts_once() -> None:
    with pytest.raises(LocalProtocolError, match="weighs"):
        CkksCoordinator(WEIGHING)
    with pytest.raises(LocalProtocolError, match="terms"):
        CkksCoordinator(make_setup(5))
    role = started()
    with pytest.raises(LocalProtocolError, match="once"):
        role.start(0.0)


@pytest.mark.req("H-01")
@pytest.mark.req("H-11")
@pytest.mark.parametrize(
    "weights", [(1,) * 6, (4,) * 6, (4, 1, 2, 3, 4, 1), (0, 4, 3, 3, 4, 2), (2, 1, 1, 1, 1, 1)]
)
def test_the_weighted_sum_is_exact(weights: tuple[int, ...]) -> None:
    given = dict(zip(WEIGHING.cohort, weights, strict=True))
    seen: list[Mapping[NodeId, float]] = []
    uploaded: set[NodeId] = set()

    def weigh(distances: Mapping[NodeId, float]) -> dict[NodeId, int]:
        seen.append(dict(distances))
        return given

    def note(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if isinstance(message, CipherChunk):
            uploaded.add(sender)
        return [message]

    fleet = Fleet(CKKS, WEIGHING, weigh=weigh)
    outcome = fleet.play(note)
    nodes = tuple(node for node, weight in given.items() if weight)
    assert seen == [{node: coarse(d) / 8 for node, d in fleet.distances.items()}]
    assert uploaded == set(nodes)  # nobody uploads for nothing
    assert outcome.contributors == nodes
    assert outcome.weights == tuple(weight for weight in weights if weight)
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(nodes, outcome.weights))
    assert not outcome.blamed
    assert not outcome.errors


@pytest.mark.req("H-11")
@pytest.mark.parametrize(
    "given",
    [
        weigh_as({0: 5}),
        weigh_as({0: -1}),
        {**weigh_as(), "stranger": 1},
        dict(list(weigh_as().items())[1:]),
    ],
)
def test_weights_out_of_range_are_the_callers_fault(given: dict[NodeId, int]) -> None:
    fleet = Fleet(CKKS, WEIGHING, weigh=lambda _: given)
    with pytest.raises(LocalProtocolError, match="weight"):
        fleet.play()


@pytest.mark.req("H-11")
@pytest.mark.req("H-15")
def test_a_cohort_that_dropouts_made_uneven_opens_nothing() -> None:
    """(4, 1, 1, 1, 1, 1) has the effective size 3.9; without two of the light ones it is 2.6."""
    setup = ckks_setup(6, max_weight=4, weighs=True, dropout=0.4, collusion=0.1)
    assert (setup.quorum, setup.colluders) == (4, 0)
    heavy = dict(zip(setup.cohort, (4, 1, 1, 1, 1, 1), strict=True))
    told: list[Message] = []

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if isinstance(message, WeightedSurvivors):
            told.append(message)
        lost = sender in setup.cohort[4:] and isinstance(message, CipherChunk)
        return [] if lost else [message]

    outcome = Fleet(CKKS, setup, weigh=lambda _: heavy).play(fault)
    assert outcome.total is None
    assert outcome.failed is not None
    assert outcome.failed.reason is AbortReason.COHORT_TOO_UNEVEN
    assert not told


@pytest.mark.req("H-15")
def test_too_many_without_a_weight_are_too_few_inputs() -> None:
    for weighted in range(6):
        given = {n: int(i < weighted) for i, n in enumerate(WEIGHING.cohort)}
        outcome = Fleet(CKKS, WEIGHING, weigh=lambda _, given=given: given).play()
        if weighted >= WEIGHING.quorum:
            assert outcome.contributors == WEIGHING.cohort[:weighted]
        else:
            assert outcome.failed is not None
            assert outcome.failed.reason is AbortReason.TOO_FEW_INPUTS


# --- what is held and shown -----------------------------------------------------------------------


@pytest.mark.req("H-18")
def test_boxes_are_in_the_spool_and_ciphertexts_nowhere() -> None:
    """Once a turn is over, no byte string of an upload is found in the coordinator's state."""
    recording = Recording(CKKS, SETUP)
    last = max(i for i, (_, m) in enumerate(recording.to_coordinator) if isinstance(m, CipherChunk))
    role = recording.coordinator(last + 1)
    assert isinstance(role, CkksCoordinator)
    role._uploads._boxes = None  # type: ignore[assignment]
    picture = repr(snapshot(role))
    sent = [m for _, m in recording.to_coordinator[: last + 1]]
    uploads = [m.data for m in sent if isinstance(m, CipherChunk)]
    uploads += [box for m in sent if isinstance(m, SealedSecret) for box in m.boxes]
    assert len(uploads) == 5 + 5 * 4
    assert not [data for data in uploads if repr(data[200:300])[2:-1] in picture]


def test_the_spool_is_the_one_that_was_given() -> None:
    class Spool:
        parts: list[bytes] = []  # noqa: RUF012

        def append(self, data: bytes) -> int:
            self.parts.append(data)
            return len(self.parts) - 1

        def read(self, name: int, start: int, size: int) -> bytes:
            return self.parts[name][start : start + size]

    fleet = Fleet(CKKS, SETUP)
    fleet.coordinator = CkksCoordinator(SETUP, spool=Spool)
    assert fleet.play().total is not None
    assert len(Spool.parts) == 5


@pytest.mark.req("H-18")
def test_when_it_is_over_the_sum_of_ciphertexts_is_gone() -> None:
    fleet = Fleet(CKKS, SETUP)
    assert fleet.play().total is not None
    assert isinstance(fleet.coordinator, CkksCoordinator)
    assert not fleet.coordinator._uploads.total.size
    assert not fleet.coordinator._uploads._open


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.req("H-13")
@pytest.mark.parametrize(
    "change",
    [
        lambda m: changed(m, share=b""),
        lambda m: changed(m, share=m.share[:-1]),
        lambda m: changed(m, share=b"\xff" * len(m.share)),
        lambda m: changed(m, unopened=("node-0003",)),
        lambda m: changed(m, share=b"", unopened=("stranger",)),
    ],
)
def test_an_answer_that_is_none_costs_its_sender_its_say(change: object) -> None:
    liar = COHORT[0]

    def lies(sender: NodeId, to: NodeId, message: Message) -> Message | None:
        return change(message) if sender == liar and isinstance(message, SumShare) else None  # type: ignore[operator]

    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(rewritten(lies))
    assert outcome.blamed == {liar}
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())


def test_a_key_of_the_coordinators_own_is_of_no_use() -> None:
    """It is no member of the cohort: nobody signed it that the roster knows."""
    key = make_key(SETUP, TestSigner(COORDINATOR), HybridKeys(b"e" * 32))
    with pytest.raises(RemoteProtocolError):
        started().receive(COORDINATOR, Announcement(7, key, None), 0.0)
