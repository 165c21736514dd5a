"""Who spoils rounds is found by leaving nodes out (S-17)."""

from __future__ import annotations

import math
import random

import pytest

from nodes.session.presence import Presence
from nodes.session.suspicion import Suspicion

pytestmark = pytest.mark.req("S-17")


def names(n: int) -> list[str]:
    return [f"n{index:03d}" for index in range(n)]


def search(
    suspicion: Suspicion, nodes: list[str], spoilers: set[str], least: int
) -> tuple[set[str], int, int]:
    """Return who was found, in how many lost rounds, and most of them in a row."""
    found: set[str] = set()
    lost = row = longest = 0
    for _ in range(100):
        cohort = suspicion.choose([node for node in nodes if node not in found], least)
        assert len(cohort) >= least
        if spoilers & set(cohort):
            lost, row = lost + 1, row + 1
            longest = max(longest, row)
            if (one := suspicion.spoilt(cohort)) is not None:
                found.add(one)
        else:
            row = 0
            suspicion.summed(cohort)
    return found, lost, longest


@pytest.mark.parametrize("n", [4, 7, 10, 64, 100])
def test_one_spoiler_costs_about_log_n_rounds(n: int) -> None:
    nodes = names(n)
    for spoiler in nodes[:: max(1, n // 20)]:
        suspicion = Suspicion()
        found, lost, longest = search(suspicion, nodes, {spoiler}, n // 2)
        assert found == {spoiler}
        assert lost <= 2 * math.ceil(math.log2(n)) + 6
        assert longest < 10  # rounds in a row that end a run
        assert suspicion.suspects == ()


@pytest.mark.parametrize("seed", range(20))
def test_several_spoilers_are_found_one_after_the_other(seed: int) -> None:
    nodes = names(20)
    spoilers = set(random.Random(seed).sample(nodes, 3))
    found, _, _ = search(Suspicion(), nodes, spoilers, 7)
    assert found == spoilers


def test_who_was_found_is_the_first_suspect_the_next_time() -> None:
    suspicion, nodes = Suspicion(), names(8)
    assert search(suspicion, nodes, {"n003"}, 4)[0] == {"n003"}
    assert suspicion.spoilt(nodes) == "n003"  # at once
    suspicion.summed(nodes)  # it gave an input to a sum
    assert suspicion.spoilt(nodes) is None
    assert set(suspicion.suspects) == set(nodes)


def test_suspects_that_give_nothing_do_not_keep_the_others_out() -> None:
    suspicion, nodes = Suspicion(), names(8)
    suspicion.spoilt(nodes)
    asked: set[str] = set()
    for _ in range(8):
        asked |= set(suspicion.choose(nodes, 4))
        suspicion.summed(())
    assert asked == set(nodes)


def test_nobody_is_left_out_where_all_are_needed() -> None:
    suspicion, nodes = Suspicion(), names(5)
    assert suspicion.choose(nodes, 5) == nodes
    suspicion.spoilt(nodes)
    assert suspicion.choose(nodes, 5) == nodes
    assert len(suspicion.choose(nodes, 4)) == 4
    suspicion.summed(nodes)
    assert suspicion.choose(nodes, 2) == nodes


def test_presence_lets_the_spoiler_sit_out() -> None:
    presence, nodes = Presence(), names(6)
    for node in nodes:
        presence.admit(node, 0.0)
    found, round_id = None, 1
    while found is None:
        cohort = presence.cohort(round_id, 3)
        round_id += 1
        if "n004" in cohort:
            found = presence.spoilt(cohort, round_id)
        else:
            presence.summed(cohort)
    assert found == "n004"
    assert "n004" not in presence.cohort(round_id, 3)
    assert "n004" in presence.cohort(round_id + 1, 3)
