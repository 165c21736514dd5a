"""What the coordinator sees of honest rounds: every claim of tests/support/secrecy.py holds."""

from __future__ import annotations

import functools

import pytest

from secagg.masking import pairs
from secagg.wire.messages import KeyAdvert
from tests.support.secrecy import CHECKS, Evidence, gather, setup_at


@functools.cache
def honest() -> Evidence:
    return gather()


@pytest.mark.req("T-01")
@pytest.mark.req("M-23")
@pytest.mark.req("M-05")
@pytest.mark.parametrize("name", CHECKS)
def test_of_an_honest_round_the_coordinator_sees_nothing_but_the_sum(name: str) -> None:
    assert not CHECKS[name](honest()).alarms()


@pytest.mark.req("M-07")
@pytest.mark.req("M-17")
@pytest.mark.parametrize("name", [name for name in CHECKS if name != "all_else"])
def test_nor_where_the_generators_of_all_nodes_repeat_themselves(name: str) -> None:
    """Masks are bound to the round, so even then no two are alike."""
    assert not CHECKS[name](repetitive()).alarms()


@functools.cache
def repetitive() -> Evidence:
    return gather(seed=1)


# --- the seeds themselves ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.req("M-07")
@pytest.mark.timeout(600)
def test_pair_seeds_are_of_no_space_as_small_as_28_bits() -> None:
    """Vectors show a few thousand seeds at most. Of 2^17 seeds of 28 bits, some 32 pairs are equal.

    Open implementations have drawn their seeds from 28 bits; that no pair is equal has then a
    probability below 1e-13.
    """
    count, setup = 1 << 17, setup_at(0)
    one, other = setup.cohort[:2]
    mine, theirs = (pairs.NodeKeys(node, bytes([7]) * 32) for node in (one, other))
    agreement_key, kem_key = theirs.public
    hashes = (bytes(32),) * 3
    peer = KeyAdvert(0, other, 1, agreement_key, kem_key, *hashes, bytes(64))
    binding = (*setup.context, bytes(32))
    seeds = [mine.initiate(peer, binding)[0].mask_seed for _ in range(count)]
    assert len(set(seeds)) == count
    small = {int.from_bytes(seed[:4], "little") >> 4 for seed in seeds}
    assert len(small) < count  # the same search over 28 bits of each
