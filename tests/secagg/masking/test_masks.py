"""The algebra: pair masks cancel, self-masks come off, each is its seed's keystream."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from secagg.masking import masks
from secagg.primitives.kdf import derive
from secagg.tags import SELF_MASK
from secagg.types import RingVector
from tests.secagg.primitives.test_prg import slow_mask

DIM = 50
NODES = ("a", "b", "c", "d")
CONTEXT = (b"r" * 16, bytes(8), b"o" * 32)
SEEDS = {
    frozenset(pair): "".join(pair).encode().ljust(32, b".")
    for pair in itertools.combinations(NODES, 2)
}


def pair_masks(me: str, *peers: str) -> RingVector:
    vector = np.zeros(DIM, dtype=np.uint32)
    due = [masks.pair_mask(SEEDS[frozenset((me, peer))], me=me, peer=peer) for peer in peers]
    masks.apply_masks(vector, due)
    return vector


@pytest.mark.req("M-01")
def test_pair_masks_cancel_in_the_sum() -> None:
    total = np.zeros(DIM, dtype=np.uint32)
    for node in NODES:
        total += pair_masks(node, *(peer for peer in NODES if peer != node))
    assert not total.any()
    assert pair_masks("a", "b").any()


@pytest.mark.req("M-07")
def test_a_pair_mask_by_hand() -> None:
    by_hand = slow_mask(SEEDS[frozenset("ab")], DIM)
    assert np.array_equal(pair_masks("a", "b"), by_hand)
    assert np.array_equal(pair_masks("b", "a"), np.negative(by_hand))


@pytest.mark.req("M-01")
def test_the_lower_id_adds_and_the_higher_one_subtracts() -> None:
    """By id, not by who encapsulated: both ends must come to opposite signs by themselves."""
    for me, peer in itertools.permutations(NODES, 2):
        seed, negative = masks.pair_mask(b"s" * 32, me=me, peer=peer)
        assert seed == b"s" * 32
        assert negative == (peer < me)


@pytest.mark.req("M-17")
def test_a_self_mask_by_hand() -> None:
    vector = np.zeros(DIM, dtype=np.uint32)
    masks.apply_masks(vector, [masks.self_mask(b"s" * 32, CONTEXT)])
    assert np.array_equal(vector, slow_mask(derive(b"s" * 32, SELF_MASK, *CONTEXT), DIM))
    masks.apply_masks(vector, [masks.self_mask(b"s" * 32, CONTEXT, negative=True)])
    assert not vector.any()


@pytest.mark.req("M-17")
@pytest.mark.parametrize("part", range(3))
def test_a_self_mask_is_bound_to_run_round_and_offer(part: int) -> None:
    other = list(CONTEXT)
    other[part] = b"x" * len(other[part])
    assert masks.self_mask(b"s" * 32, tuple(other)) != masks.self_mask(b"s" * 32, CONTEXT)  # type: ignore[arg-type]


def test_masks_are_applied_in_place_and_modulo_the_word() -> None:
    vector = np.full(DIM, 0xFFFFFFFF, dtype=np.uint32)
    masks.apply_masks(vector, [(b"s" * 32, False)])
    assert np.array_equal(vector, slow_mask(b"s" * 32, DIM) - np.uint32(1))
    masks.apply_masks(vector, [])
    masks.apply_masks(vector, iter([(b"s" * 32, True)]))
    assert (vector == 0xFFFFFFFF).all()
