"""A node's rules, one by one, against a coordinator that the test plays."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.ckks.coefficients import read_sum
from secagg.ckks.sealing import make_key
from secagg.ckks.views import elements_seed
from secagg.errors import LocalProtocolError
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import (
    CommitteeKeys,
)
from tests.support.ckks import ByHand, ckks_setup, new_client, refused, ring_in, terms_in
from tests.support.fleet import COORDINATOR, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.randomness import InsecureLabelledRng

SETUP = ckks_setup(5)
COHORT = SETUP.cohort
ME = COHORT[1]
OUTSIDER_SETUP = ckks_setup(10, committee={"size": 6, "threshold": 2})
WEIGHING = ckks_setup(6, max_weight=4, weighs=True)


# --- what the caller must get right ---------------------------------------------------------------


@pytest.mark.req("H-07")
@pytest.mark.parametrize("value", [1 << 15, -(1 << 15) - 1])
def test_an_input_beyond_its_bits_is_refused_before_anything_is_sent(value: int) -> None:
    new_client(values=(1 << 15) - 1)
    new_client(values=-(1 << 15))
    with pytest.raises(LocalProtocolError, match="16 bits"):
        new_client(values=[value, *[0] * (SETUP.dim - 1)])


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(SETUP.dim + 1, np.uint32),
        np.zeros((SETUP.dim, 1), np.uint32),
        np.zeros(SETUP.dim, np.uint64),
        np.full(SETUP.dim, 1 << SETUP.ring_bits, np.uint32),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(LocalProtocolError):
        CkksClient(
            SETUP, vector, TestSigner(ME), coordinator=COORDINATOR, rng=InsecureLabelledRng(1, "")
        )


def test_a_node_outside_the_cohort_and_a_round_without_terms_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="cohort"):
        new_client(node="stranger")
    with pytest.raises(LocalProtocolError, match="terms"):
        new_client(make_setup(5))


@pytest.mark.req("H-16")
def test_a_distance_is_disclosed_just_where_the_coordinator_weighs() -> None:
    for distance in (None, -1.0, float("nan")):
        with pytest.raises(LocalProtocolError, match="distance"):
            new_client(WEIGHING, distance=distance)
    for value in (0.0, -1.0, float("nan"), float("inf"), 2.5):
        with pytest.raises(LocalProtocolError, match="distance"):
            new_client(distance=value)
    for setup, distance, told in (
        (SETUP, None, None),
        (WEIGHING, 2.47, 20),
        (WEIGHING, 0.0, 0),
        (WEIGHING, float("inf"), 64),
    ):
        (out,) = new_client(setup, distance=distance).start(0.0).send
        assert out.message.distance == told  # type: ignore[union-attr]


def test_a_client_starts_once() -> None:
    client = new_client()
    client.start(0.0)
    with pytest.raises(LocalProtocolError):
        client.start(0.0)


# --- the committee --------------------------------------------------------------------------------


def shown(by_hand: ByHand, *nodes: NodeId) -> CommitteeKeys:
    return CommitteeKeys(by_hand.setup.round_id, tuple(by_hand.keys[node] for node in nodes))


@pytest.mark.req("H-03")
def test_any_sorted_part_of_the_committee_with_enough_answers_will_do() -> None:
    for size in range(1, 6):
        for members in itertools.combinations(COHORT, size):
            by_hand = ByHand(SETUP)
            message = shown(by_hand, *members)
            if ME in members and size >= terms_in(SETUP).committee.answers:
                assert by_hand.tell(ME, message).send == ()
                by_hand.shown = message.keys
                by_hand.collect([ME])
                assert sorted([*by_hand.boxes[ME], ME]) == list(members)
            else:
                refused(by_hand, ME, message)


@pytest.mark.req("H-03")
@pytest.mark.parametrize(
    "order", [(1, 0, 2, 3, 4), (0, 1, 1, 2, 3), (0, 1, 2, 3, 4, 4), (4, 3, 2, 1, 0)]
)
def test_keys_out_of_order_or_twice_are_refused(order: tuple[int, ...]) -> None:
    by_hand = ByHand(SETUP)
    refused(by_hand, ME, shown(by_hand, *(COHORT[i] for i in order)), "sorted part")


@pytest.mark.req("H-03")
def test_a_committee_of_the_coordinators_choice_is_refused() -> None:
    by_hand = ByHand(OUTSIDER_SETUP)
    committee = by_hand.committee
    outsiders = [node for node in OUTSIDER_SETUP.cohort if node not in committee]
    assert len(committee) == 6
    assert len(outsiders) == 4
    for bad in (
        sorted([*committee, outsiders[0]]),
        sorted([*committee[1:], outsiders[0]]),
        outsiders,
        OUTSIDER_SETUP.cohort,
    ):
        for node in (outsiders[1], outsiders[0]):
            again = ByHand(OUTSIDER_SETUP)
            refused(again, node, shown(again, *bad), "part of the committee")
    by_hand.show()
    by_hand.collect()
    assert all(len(by_hand.boxes[node]) == 6 for node in outsiders)
    assert all(len(by_hand.boxes[node]) == 5 for node in committee)


@pytest.mark.req("H-04")
@pytest.mark.parametrize("node", [ME, COHORT[0]])
def test_a_key_that_its_node_did_not_sign_is_refused(node: NodeId) -> None:
    """The coordinator's own key in the place of a member's: it could open what is sealed."""
    evil = HybridKeys(b"e" * 32)
    for signer in (TestSigner(COORDINATOR), TestSigner(COHORT[4])):
        by_hand = ByHand(SETUP)
        forged = make_key(SETUP, signer, evil)
        for victim in (COHORT[2], COHORT[0]):
            by_hand = ByHand(SETUP)
            by_hand.keys[victim] = changed(forged, node_id=victim)  # type: ignore[arg-type, assignment]
            refused(by_hand, node, shown(by_hand, *COHORT), "forged|altered")


@pytest.mark.req("H-04")
@pytest.mark.parametrize(
    "other",
    [
        replace(SETUP, run_id=b"s" * 16),
        replace(SETUP, round_id=8),
        replace(SETUP, offer_hash=bytes(32)),
    ],
)
def test_a_key_of_another_run_round_or_offer_is_refused(other: RoundSetup) -> None:
    by_hand, old = ByHand(SETUP), ByHand(other)
    by_hand.keys[COHORT[3]] = old.keys[COHORT[3]]
    refused(by_hand, ME, shown(by_hand, *COHORT), "forged")


@pytest.mark.req("H-04")
@pytest.mark.req("H-05")
def test_two_nodes_keys_cannot_be_swapped() -> None:
    by_hand = ByHand(SETUP)
    one, two = COHORT[2:4]
    by_hand.keys[one], by_hand.keys[two] = (
        changed(by_hand.keys[two], node_id=one),  # type: ignore[arg-type]
        changed(by_hand.keys[one], node_id=two),  # type: ignore[arg-type]
    )
    refused(by_hand, ME, shown(by_hand, *COHORT), "forged")


@pytest.mark.req("H-04")
def test_another_key_that_i_signed_is_not_mine() -> None:
    """Of a copy of this node, say: what others seal to it I could not open."""
    by_hand = ByHand(SETUP)
    by_hand.keys[ME] = make_key(SETUP, TestSigner(ME), HybridKeys(b"o" * 32))
    refused(by_hand, ME, shown(by_hand, *COHORT), "my own key is altered")


# --- the secret -----------------------------------------------------------------------------------


@pytest.mark.req("H-06")
def test_input_and_secret_are_forgotten_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[rlwe.Secret] = []
    fresh = rlwe.Secret.fresh

    def noted(ring: rlwe.Ring, terms: int) -> rlwe.Secret:
        made.append(fresh(ring, terms))
        return made[-1]

    monkeypatch.setattr(rlwe.Secret, "fresh", noted)
    by_hand = ByHand(SETUP)
    by_hand.show()
    assert len(made) == 5
    assert len({secret.coefficients.tobytes() for secret in made}) == 5
    client = by_hand.client(ME)
    assert not client._message.size
    secret = made[1].coefficients
    assert not any(value is made[1] or value is secret for value in vars(client).values())
    with pytest.raises(LocalProtocolError, match="once"):
        made[1].encrypt(np.zeros((1, 2048), np.int64), bytes(32))


@pytest.mark.req("H-06")
def test_a_second_list_of_keys_gets_no_second_ciphertext() -> None:
    by_hand = ByHand(SETUP)
    by_hand.show()
    refused(by_hand, ME, shown(by_hand, *COHORT), "while sealed")
    by_hand.collect([COHORT[0]])
    refused(by_hand, COHORT[0], shown(by_hand, *COHORT), "while uploaded")
    refused(by_hand, COHORT[2], CommitteeKeys(8, ()), "while sealed")


@pytest.mark.req("H-06")
def test_the_same_input_never_gives_the_same_ciphertext() -> None:
    uploads = set()
    for _ in range(3):
        by_hand = ByHand(SETUP).deal()
        uploads |= {chunk.data for chunks in by_hand.chunks.values() for chunk in chunks}
    assert len(uploads) == 15


@pytest.mark.req("H-06")
def test_ciphertexts_are_under_the_elements_of_the_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node opens its own, with its secret, under them and under no others."""
    made: list[rlwe.Secret] = []
    fresh, ring, terms = rlwe.Secret.fresh, ring_in(SETUP), terms_in(SETUP)

    def noted(ring: rlwe.Ring, terms: int) -> rlwe.Secret:
        made.append(fresh(ring, terms))
        return made[-1]

    monkeypatch.setattr(rlwe.Secret, "fresh", noted)
    by_hand = ByHand(SETUP).deal()
    for index, node in enumerate(COHORT):
        total = by_hand.total({node: 1})
        for seed, right in ((elements_seed(SETUP), True), (bytes(32), False)):
            read = read_sum(
                rlwe.open_sum(ring, made[index], total, seed),
                terms.ring,
                dim=SETUP.dim,
                ring_bits=SETUP.ring_bits,
                value_bits=terms.value_bits,
                weight=1,
            )
            assert (read is not None) is right
            if read is not None:
                assert np.array_equal(read, by_hand.fleet.inputs[node])


@pytest.mark.req("H-06")
def test_secrets_and_errors_are_as_wide_as_the_terms_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    fresh, encrypt = rlwe.Secret.fresh, rlwe.Secret.encrypt

    def noted(secret: rlwe.Secret, *args: object, error_terms: int = 1) -> rlwe.Residues:
        seen.append((int(np.abs(secret.coefficients).max()), error_terms))
        return encrypt(secret, *args, error_terms=error_terms)  # type: ignore[arg-type]

    monkeypatch.setattr(rlwe.Secret, "encrypt", noted)
    monkeypatch.setattr(rlwe.Secret, "fresh", fresh)
    ByHand(WEIGHING).show()
    ring = terms_in(WEIGHING).ring
    assert ring.error_terms > 1
    assert {errors for _, errors in seen} == {ring.error_terms}
    assert all(ring.secret_terms // 4 < largest <= ring.secret_terms for largest, _ in seen)
