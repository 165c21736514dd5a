"""Do the checks of secrecy catch anything? Weaknesses are planted, and each must be caught.

Most of `PLANTS` leave the sum exact; each says which checks must catch it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secagg.masking import masks, pairs, recovery
from secagg.primitives.kdf import derive
from secagg.primitives.prg import accumulate
from secagg.tags import PAIR_MASK
from secagg.types import NodeId, RingVector
from tests.support.secrecy import BITS, CHECKS, Evidence, gather, setup_at

NOTHING = b""
"""A seed that stands for no mask."""
Patch = pytest.MonkeyPatch


def replace_masks(patch: Patch, name: str, planted: Callable[..., masks.Mask]) -> None:
    """Replace a function of `masks` for nodes and for the coordinator."""
    patch.setattr(masks, name, planted)
    patch.setattr(recovery, name, planted)
    patch.setattr(
        masks,
        "accumulate",
        lambda total, seed, **sign: accumulate(total, seed, **sign) if seed else None,
    )


def replace_keystream(patch: Patch, change: Callable[[RingVector], RingVector]) -> None:
    """Replace the keystream of all masks by what `change` makes of it."""

    def planted(total: RingVector, seed: bytes, *, negative: bool = False) -> None:
        mask = np.zeros_like(total)
        accumulate(mask, seed)
        mask = change(mask)
        total += -mask if negative else mask

    patch.setattr(masks, "accumulate", planted)


def replace_seeds(
    patch: Patch, choose: Callable[[frozenset[NodeId], tuple[bytes, ...], bytes], bytes]
) -> None:
    """Replace the mask seed of each pair by what `choose` makes of pair, binding and seed."""
    honest = pairs._pair

    def planted(shared: bytes, pair: Any, binding: Any) -> pairs.PairSecret:
        secret = honest(shared, pair, binding)
        seed = choose(frozenset(pair), binding, secret.mask_seed)
        return pairs.PairSecret(seed, secret._root)

    patch.setattr(pairs, "_pair", planted)


def no_masks(patch: Patch) -> None:
    patch.setattr(masks, "accumulate", lambda total, seed, **sign: None)


def only_self_masks(patch: Patch) -> None:
    replace_masks(patch, "pair_mask", lambda seed, **pair: (NOTHING, False))


def only_pair_masks(patch: Patch) -> None:
    replace_masks(patch, "self_mask", lambda seed, context, **sign: (NOTHING, False))


def both_sides_add(patch: Patch) -> None:
    replace_masks(patch, "pair_mask", lambda seed, **pair: (seed, False))


def self_masks_not_bound_to_the_round(patch: Patch) -> None:
    def planted(seed: bytes, context: Any, *, negative: bool = False) -> masks.Mask:
        return seed, negative

    replace_masks(patch, "self_mask", planted)


def pairs_not_bound_to_the_round(patch: Patch) -> None:
    kept: dict[frozenset[NodeId], bytes] = {}
    replace_seeds(patch, lambda pair, binding, seed: kept.setdefault(pair, seed))


def one_pair_not_bound_to_the_round(patch: Patch) -> None:
    kept: dict[frozenset[NodeId], bytes] = {}
    stuck = frozenset(setup_at(0).cohort[:2])

    def choose(pair: frozenset[NodeId], binding: tuple[bytes, ...], seed: bytes) -> bytes:
        return kept.setdefault(pair, seed) if pair == stuck else seed

    replace_seeds(patch, choose)


def one_seed_for_two_pairs(patch: Patch) -> None:
    kept: dict[tuple[bytes, ...], bytes] = {}
    cohort = setup_at(0).cohort
    twins = {frozenset(cohort[:2]), frozenset(cohort[2:4])}

    def choose(pair: frozenset[NodeId], binding: tuple[bytes, ...], seed: bytes) -> bytes:
        return kept.setdefault(binding[:-1], seed) if pair in twins else seed

    replace_seeds(patch, choose)


def one_seed_for_all_pairs(patch: Patch) -> None:
    kept: dict[tuple[bytes, ...], bytes] = {}
    replace_seeds(patch, lambda pair, binding, seed: kept.setdefault(binding[:-1], seed))


def sixteen_seeds(patch: Patch) -> None:
    replace_seeds(patch, lambda pair, binding, seed: derive(bytes([seed[0] & 15]), PAIR_MASK))


def top_bit_cleared(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32((1 << BITS - 1) - 1))


def masks_of_twelve_bits(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32(0xFFF))


def constant_low_bits(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32(0xFFFFFFF0))


def one_bit_leans(patch: Patch) -> None:
    """The lowest bit of a mask is set in 9 of 16 coordinates."""
    replace_keystream(patch, lambda mask: mask | (mask >> 29 == 7).astype(np.uint32))


def keystream_starts_again(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: np.resize(mask[:2048], len(mask)))


def one_key_for_both_boxes(patch: Patch) -> None:
    honest = pairs.PairSecret.seal_key

    def planted(self: pairs.PairSecret, *, sender: NodeId, receiver: NodeId) -> bytes:
        one, other = sorted((sender, receiver))
        return honest(self, sender=one, receiver=other)

    patch.setattr(pairs.PairSecret, "seal_key", planted)


def generators_stuck(patch: Patch) -> None:
    """Nothing is patched: the rounds are played with generators that repeat themselves."""


STUCK = (generators_stuck, self_masks_not_bound_to_the_round)
"""Plants that show only where nodes draw the same secrets in every round."""
EVERYWHERE = {
    "uploads",
    "sums_before_unmasking",
    "sums_after_unmasking",
    "late_uploads",
    "two_rounds",
    "two_nodes",
    "single_masks",
    "which_input",
}
UNMASKED = {"sums_after_unmasking", "two_rounds", "two_nodes", "single_masks", "which_input"}
PLANTS: dict[Callable[[Patch], None], set[str]] = {
    no_masks: EVERYWHERE | {"plain_update"},
    only_self_masks: UNMASKED | {"plain_update"},
    only_pair_masks: {"late_uploads", "sums_before_unmasking", "single_masks"},
    both_sides_add: {"exact_sum"},
    generators_stuck: {"all_else"},
    self_masks_not_bound_to_the_round: {"single_masks"},
    pairs_not_bound_to_the_round: {"two_rounds", "which_input", "single_masks"},
    one_pair_not_bound_to_the_round: {"single_masks"},
    one_seed_for_two_pairs: {"single_masks"},
    one_seed_for_all_pairs: {"sums_after_unmasking", "two_nodes", "single_masks"},
    sixteen_seeds: {"single_masks"},
    top_bit_cleared: {"uploads", "late_uploads", "sums_after_unmasking", "single_masks"},
    masks_of_twelve_bits: EVERYWHERE | {"plain_update"},
    constant_low_bits: EVERYWHERE,
    one_bit_leans: {"late_uploads", "single_masks"},
    keystream_starts_again: EVERYWHERE,
    one_key_for_both_boxes: {"all_else"},
}
"""What must catch each; the other checks may."""


def planted(plant: Callable[[Patch], None], patch: Patch) -> Evidence:
    """Return the evidence of rounds with a weakness."""
    plant(patch)
    return gather(seed=1 if plant in STUCK else None)


@pytest.mark.req("T-01")
@pytest.mark.req("M-07")
@pytest.mark.req("M-08")
@pytest.mark.req("M-17")
@pytest.mark.req("M-23")
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_failure_is_caught(
    plant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = planted(plant, monkeypatch)
    missed = {name for name in PLANTS[plant] if not CHECKS[name](evidence).alarms()}
    assert not missed


def test_every_check_catches_something() -> None:
    assert set().union(*PLANTS.values()) == set(CHECKS)
