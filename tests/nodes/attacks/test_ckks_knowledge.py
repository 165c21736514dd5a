"""What an attacker on ckks can compute, by rounds whose secrets are known."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.linear import combination
from secagg.ckks.views import terms_of

PRIME = 65_521


@pytest.mark.parametrize(
    ("rows", "target", "factors"),
    [
        ([[1, 0], [0, 1]], [3, 4], [3, 4]),
        ([[1, 1], [1, 0]], [0, 1], [1, PRIME - 1]),
        ([[1, 1, 1], [0, 1, 1]], [1, 0, 0], [1, PRIME - 1]),
        ([[2]], [1], [32_761]),
        ([[1, 1]], [1, 0], None),
        ([], [1], None),
        ([[1, 0], [2, 0]], [0, 1], None),
    ],
)
def test_combinations(rows: list[list[int]], target: list[int], factors: list[int] | None) -> None:
    assert combination(rows, target, PRIME) == factors


def test_random_combinations_are_found_again() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.integers(0, PRIME, (4, 6))
        wanted = rng.integers(0, PRIME, 4)
        target = (rows * wanted[:, None] % PRIME).sum(axis=0) % PRIME
        assert combination(rows.tolist(), target.tolist(), PRIME) == wanted.tolist()


def _trusting(accomplices: int = 0) -> CkksPuppet:
    puppet = CkksPuppet(7, 64, 1, trusting=True, accomplices=accomplices)
    puppet.until_upload()
    return puppet


@pytest.mark.req("A-02")
def test_one_sum_that_is_large_enough_is_no_gain() -> None:
    puppet = _trusting()
    puppet.finish()
    played = puppet.judge("")
    assert (played.here, played.outcome) == ("nothing", "one sum over 7 inputs")


@pytest.mark.req("A-02")
def test_sums_from_which_no_single_input_follows_are_a_gain_all_the_same() -> None:
    puppet = _trusting()
    puppet.finish()
    puppet.ask(puppet.view(puppet.nodes[:5]))
    assert puppet.judge("").here == "2 partial sums opened, max error 0"


@pytest.mark.req("A-02")
def test_an_input_follows_from_three_sums() -> None:
    """x0 = (x0 + x1) + (x0 + x2) − (x1 + x2), halved: no two of them differ by one input."""
    puppet = _trusting()
    first, second, third = puppet.nodes[:3]
    for pair in ((first, second), (first, third), (second, third)):
        puppet.ask(puppet.view(pair))
    played = puppet.judge("")
    assert played.revealed
    assert "inputs of 3 nodes recovered" in played.here


@pytest.mark.req("A-02")
@pytest.mark.parametrize(("answering", "revealed"), [(3, True), (2, False)])
def test_as_many_answers_are_needed_as_open_a_sum(answering: int, revealed: bool) -> None:
    puppet = _trusting()
    assert terms_of(puppet.setup).committee.answers == 3
    puppet.ask(puppet.view([puppet.victim]), puppet.nodes[:answering])
    assert puppet.judge("").revealed is revealed


@pytest.mark.req("A-02")
@pytest.mark.parametrize(("accomplices", "revealed"), [(2, True), (1, False)])
def test_accomplices_add_the_shares_that_were_dealt_to_them(
    accomplices: int, revealed: bool
) -> None:
    puppet = _trusting(accomplices)
    puppet.ask(puppet.view([puppet.victim]), puppet.nodes[:1])
    assert puppet.judge("").revealed is revealed


@pytest.mark.req("A-02")
def test_an_input_in_the_clear_is_noticed() -> None:
    puppet = _trusting()
    held = vars(puppet.roles[puppet.victim])
    ring, terms = held["_ring"], terms_of(puppet.setup).ring
    x = puppet.inputs[puppet.victim].astype(np.int64)
    x -= (x >> (puppet.setup.ring_bits - 1)) << puppet.setup.ring_bits
    message = np.zeros((1, terms.degree), dtype=np.int64)
    message[0, :64] = x << terms.noise_bits
    clear = ring.context.transform(ring.residues_of(message), forward=True)
    assert not puppet.judge("").revealed
    puppet.tape.ciphers[puppet.victim] = clear
    assert puppet.judge("").here == "input of node-00 recovered, max error 0"


@pytest.mark.req("A-02")
def test_a_claim_that_is_not_right_reveals_nothing() -> None:
    puppet = _trusting()
    puppet.ask(puppet.view([puppet.victim]))
    assert puppet.judge("").revealed
    rng = np.random.default_rng(2)
    drawn = rng.integers(0, 1 << 16, 64).astype(np.uint32)
    puppet.inputs[puppet.victim] = drawn
    assert not puppet.judge("").revealed
