"""The neighbour graph: symmetric, regular, connected while it is whole, and nobody's choice."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import LocalProtocolError
from secagg.masking.graph import Graph, build_graph, window_quota

SEED = b"s" * 32


def graph(n: int, degree: int, seed: bytes = SEED) -> Graph:
    return build_graph([f"n{index:03d}" for index in range(n)], degree=degree, seed=seed)


def windows(made: Graph) -> list[frozenset[str]]:
    """Return every run of k/2 consecutive places, one from each place on."""
    twice = made.circle * 2
    return [frozenset(twice[at : at + made.half]) for at in range(len(made.circle))]


def connected(made: Graph, nodes: Collection[str]) -> bool:
    """Tell whether one can walk between any two of `nodes` over `nodes` only."""
    left = set(nodes)
    front = [left.pop()] if left else []
    while front:
        reached = made.neighbours(front.pop()) & left
        left -= reached
        front += reached
    return not left


sizes = st.integers(3, 60)
degrees = st.integers(2, 70)
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.req("M-06")
@settings(deadline=None, max_examples=60)
@given(sizes, degrees, seeds)
def test_it_is_symmetric_regular_and_connected(n: int, degree: int, seed: bytes) -> None:
    made = graph(n, degree, seed)
    expected = min(n - 1, degree + degree % 2)
    for node in made.circle:
        neighbours = made.neighbours(node)
        assert node not in neighbours
        assert len(neighbours) == expected
        assert all(node in made.neighbours(peer) for peer in neighbours)
    assert connected(made, made.circle)


@pytest.mark.req("M-26")
@settings(deadline=None, max_examples=60)
@given(sizes, degrees, seeds)
def test_of_two_neighbours_exactly_one_sends_a_key(n: int, degree: int, seed: bytes) -> None:
    made = graph(n, degree, seed)
    sent = []
    for node in made.circle:
        ahead, behind = made.successors(node), made.predecessors(node)
        assert not ahead & behind
        assert ahead | behind == made.neighbours(node)
        assert all(node in made.predecessors(peer) for peer in ahead)
        assert all(node in made.successors(peer) for peer in behind)
        sent.append(len(ahead))
    assert max(sent) - min(sent) <= (0 if made.half or n % 2 else 1), "nobody does more than others"


@pytest.mark.parametrize("degree", [9, 10, 10_000])
def test_from_n_minus_1_up_it_is_complete(degree: int) -> None:
    made = graph(10, degree)
    assert made.half == 0
    assert all(made.neighbours(node) == set(made.circle) - {node} for node in made.circle)


def test_an_odd_degree_is_rounded_up() -> None:
    assert graph(30, 9) == graph(30, 10)
    assert graph(30, 27).half == 14
    assert graph(30, 28) == graph(30, 27)
    assert graph(29, 27).half == 0, "28 of 28 others is everybody"


@pytest.mark.req("M-06")
def test_the_order_follows_from_the_seed_and_from_nothing_else() -> None:
    assert graph(40, 10, b"a" * 32).circle != graph(40, 10, b"b" * 32).circle
    nodes = [f"n{index:03d}" for index in range(40)]
    assert build_graph(nodes[::-1], degree=10, seed=SEED) == graph(40, 10)


@pytest.mark.req("M-06")
def test_each_place_goes_to_each_node_alike() -> None:
    draws = 2000
    first = [graph(5, 2, bytes([i % 256, i // 256]) * 16).circle[0] for i in range(draws)]
    counts = [first.count(f"n{index:03d}") for index in range(5)]
    chi_square = sum((count - draws / 5) ** 2 / (draws / 5) for count in counts)
    assert chi_square < 33.4, "a fair draw exceeds this once in a million seeds (4 degrees)"


def test_a_node_outside_has_no_place() -> None:
    for made in (graph(3, 2), graph(20, 4)):
        for ask in (made.neighbours, made.successors, made.predecessors):
            with pytest.raises(LocalProtocolError, match="z is not in the graph"):
                ask("z")


@pytest.mark.req("M-25")
@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(5, 40), seeds)
def test_whole_means_that_every_window_holds_its_quota(
    data: st.DataObject, n: int, seed: bytes
) -> None:
    made = graph(n, 2 * data.draw(st.integers(1, (n - 2) // 2)), seed)
    dead = set(data.draw(st.lists(st.sampled_from(made.circle), max_size=n // 2)))
    survivors = set(made.circle) - dead
    threshold = data.draw(st.integers(1, 2 * made.half))
    by_hand = all(len(window & survivors) >= window_quota(threshold) for window in windows(made))
    assert made.is_whole(survivors, threshold) is by_hand
    if by_hand:
        alive = [len(made.neighbours(node) & survivors) for node in made.circle]
        assert min(alive) >= threshold, "live windows leave every owner enough share holders"


@pytest.mark.req("M-25")
def test_strangers_are_no_survivors_and_the_complete_graph_always_is_whole() -> None:
    made = graph(20, 6)
    lost = windows(made)[3]
    assert not made.is_whole([*(set(made.circle) - lost), "x1", "x2", "x3"], 1)
    assert graph(20, 19).is_whole([], 10)


@pytest.mark.req("M-25", "P-04")
@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(5, 40), seeds)
def test_the_honest_stay_connected_while_no_window_holds_a_quota_of_colluders(
    data: st.DataObject, n: int, seed: bytes
) -> None:
    half = data.draw(st.integers(1, (n - 2) // 2))
    made = graph(n, 2 * half, seed)
    dead = set(data.draw(st.lists(st.sampled_from(made.circle), max_size=n)))
    survivors = (set(made.circle) - dead) | set(made.circle[::half])  # one in each window at least
    quota = data.draw(st.integers(1, min(len(window & survivors) for window in windows(made))))
    threshold = 2 * quota - 1
    assert window_quota(threshold) == quota
    assert made.is_whole(survivors, threshold)
    colluders: set[str] = set()
    for node in data.draw(st.permutations(made.circle)):  # as many as fit, nearly
        if max(len(window & (colluders | {node})) for window in windows(made)) < quota:
            colluders.add(node)
    honest = survivors - colluders
    assert connected(made, honest)
    assert all(window & honest for window in windows(made))
    shares = [len(made.neighbours(node) & colluders) for node in set(made.circle) - colluders]
    assert max(shares, default=0) < threshold, "colluding holders cannot open a secret"


@pytest.mark.req("M-25", "P-04")
def test_a_quota_of_colluders_in_two_windows_does_cut_the_honest_apart() -> None:
    made = graph(20, 6)
    colluders = {*made.circle[0:3], *made.circle[10:13]}
    assert made.is_whole(made.circle, 5), "nobody can see it"
    assert not connected(made, set(made.circle) - colluders)


@pytest.mark.req("M-25")
@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_cutting_an_arc_out_of_the_circle_is_refused(threshold: int) -> None:
    made = graph(24, 6)
    arc_gone = set(made.circle) - {*made.circle[4:7], *made.circle[15:18]}
    assert not connected(made, arc_gone), "two sums would come apart"
    assert not made.is_whole(arc_gone, threshold)
    one_left = arc_gone | {made.circle[5], made.circle[16]}
    assert connected(made, one_left)
    assert made.is_whole(one_left, threshold) is (threshold == 1)
