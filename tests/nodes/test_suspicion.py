"""Who spoils rounds is found by leaving nodes out (S-17)."""

from __future__ import annotations

import random

import pytest

from nodes.session.presence import Presence
from nodes.session.suspicion import Suspicion

pytestmark = pytest.mark.req("S-17")


def names(n: int) -> list[str]:
    return [f"n{index:03d}" for index in range(n)]


def played(
    nodes: list[str], spoils: object, *, least: int, rounds: int, late: float = 0.0, seed: int = 0
) -> tuple[list[str], int, int]:
    """Return who was named, how many rounds failed, and how many in a row, as a session plays."""
    presence, chance = Presence(), random.Random(seed)
    for node in nodes:
        presence.admit(node, 0.0)
    named: list[str] = []
    lost = row = longest = 0
    for round_id in range(1, rounds + 1):
        cohort = presence.cohort(round_id, least)
        assert len(cohort) >= least
        punctual = [node for node in cohort if chance.random() >= late]
        for node in set(cohort) - set(punctual):
            presence.missed(node, round_id + 1)
        if spoils(cohort):  # type: ignore[operator]
            lost, row = lost + 1, row + 1
            longest = max(longest, row)
            if (found := presence.spoilt(cohort, round_id + 1)) is not None:
                named.append(found)
        else:
            row = 0
            presence.summed(punctual)
    return named, lost, longest


@pytest.mark.parametrize("late", [0.0, 0.05])
@pytest.mark.parametrize("n", [4, 7, 10, 50, 100])
def test_one_spoiler_is_named_again_and_again_and_nobody_else(n: int, late: float) -> None:
    """It comes back after its time on the bench, and goes on."""
    nodes = names(n)
    for seed in range(10):
        spoiler = random.Random(seed).choice(nodes)
        named, lost, longest = played(
            nodes, lambda c, s=spoiler: s in c, least=n // 2 + 1, rounds=60, late=late, seed=seed
        )
        assert set(named) == {spoiler}
        assert longest < 10  # rounds in a row that end a run
        assert lost < 30


@pytest.mark.parametrize("seed", range(20))
def test_who_spoils_only_at_the_side_of_another_does_not_get_that_one_named(seed: int) -> None:
    """It sees the cohorts, and would like an honest node to be the one that is left."""
    nodes, chance = names(12), random.Random(seed)
    spoiler, victim = chance.sample(nodes, 2)
    named, _, longest = played(
        nodes,
        lambda cohort: spoiler in cohort and victim in cohort and chance.random() < 0.6,
        least=7,
        rounds=200,
        seed=seed,
    )
    assert set(named) <= {spoiler, victim}
    assert longest < 10


def test_several_spoilers_do_not_leave_nobody_to_ask() -> None:
    nodes = names(20)
    for seed in range(10):
        spoilers = set(random.Random(seed).sample(nodes, 3))
        named, _, _ = played(nodes, lambda c, s=spoilers: s & set(c), least=8, rounds=200)
        assert set(named) & spoilers


def test_once_it_has_stopped_everybody_is_asked_again() -> None:
    suspicion, nodes = Suspicion(), names(8)
    suspicion.spoilt(nodes)
    first = suspicion.choose(nodes, 3)
    assert len(first) == 4
    suspicion.summed(first)
    second = suspicion.choose(nodes, 3)
    assert set(second) == set(nodes) - set(first)
    suspicion.summed(second)
    assert suspicion.candidates == ()
    assert suspicion.choose(nodes, 3) == nodes


def test_the_one_that_is_left_stays_the_first_candidate() -> None:
    suspicion, nodes = Suspicion(), names(8)
    suspicion.spoilt(nodes)
    assert suspicion.spoilt(["n003", "n004"]) is None
    assert suspicion.spoilt(["n003", "n005"]) == "n003"
    assert suspicion.spoilt(nodes) == "n003"
    suspicion.summed(nodes)
    assert suspicion.spoilt(nodes) is None


def test_a_candidate_that_is_away_keeps_nobody_out() -> None:
    suspicion, nodes = Suspicion(), names(10)
    suspicion.spoilt(nodes)
    away, left = "n000", nodes[1:]
    for _ in range(4):
        cohort = suspicion.choose(left, 4)
        assert away not in cohort
        suspicion.summed(cohort)
    assert suspicion.choose(left, 4) == left


def test_where_rounds_of_fewer_do_not_come_about_everybody_is_asked_again() -> None:
    suspicion, nodes = Suspicion(), names(10)
    suspicion.spoilt(nodes)
    assert len(suspicion.choose(nodes, 4)) == 5
    suspicion.give_up()
    assert suspicion.choose(nodes, 4) == nodes


def test_a_second_spoiler_starts_the_search_anew() -> None:
    suspicion, nodes = Suspicion(), names(8)
    suspicion.spoilt(nodes[:4])
    assert suspicion.spoilt(nodes[4:]) is None
    assert set(suspicion.candidates) == set(nodes[4:])


def test_nobody_is_left_out_where_all_are_needed() -> None:
    suspicion, nodes = Suspicion(), names(5)
    suspicion.spoilt(nodes)
    assert suspicion.choose(nodes, 5) == nodes
    assert len(suspicion.choose(nodes, 4)) == 4
