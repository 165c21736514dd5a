"""The neighbour graph: symmetric, regular, connected, and from everybody's keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import LocalProtocolError
from secagg.masking.graph import graph_seed, neighbours_of


def graph(n: int, degree: int, seed: bytes = b"s" * 32) -> dict[str, frozenset[str]]:
    nodes = [f"n{index:03d}" for index in range(n)]
    return {node: neighbours_of(node, nodes, degree=degree, seed=seed) for node in nodes}


@pytest.mark.req("M-06")
@settings(deadline=None, max_examples=60)
@given(st.integers(3, 60), st.integers(2, 70), st.binary(min_size=32, max_size=32))
def test_it_is_symmetric_regular_and_connected(n: int, degree: int, seed: bytes) -> None:
    edges = graph(n, degree, seed)
    expected = min(n - 1, degree + degree % 2)
    for node, neighbours in edges.items():
        assert node not in neighbours
        assert len(neighbours) == expected
        assert all(node in edges[peer] for peer in neighbours)
    reached, front = set(), {next(iter(edges))}
    while front:
        reached |= front
        front = set().union(*(edges[node] for node in front)) - reached
    assert reached == set(edges)


def test_from_n_minus_1_up_it_is_complete() -> None:
    for degree in (9, 10, 10_000):
        assert all(len(neighbours) == 9 for neighbours in graph(10, degree).values())


@pytest.mark.req("M-06")
def test_another_seed_gives_another_graph() -> None:
    assert graph(40, 10, b"a" * 32) != graph(40, 10, b"b" * 32)


@pytest.mark.req("M-06")
def test_the_seed_depends_on_the_offer_and_on_every_advert() -> None:
    adverts = [(f"n{index}", bytes([index]) * 32) for index in range(5)]
    seeds = {graph_seed(b"o" * 32, adverts), graph_seed(b"p" * 32, adverts)}
    for index in range(5):
        changed = [*adverts]
        changed[index] = (adverts[index][0], b"x" * 32)
        seeds.add(graph_seed(b"o" * 32, changed))
        seeds.add(graph_seed(b"o" * 32, adverts[:index] + adverts[index + 1 :]))
        renamed = [*adverts]
        renamed[index] = ("other", adverts[index][1])
        seeds.add(graph_seed(b"o" * 32, renamed))
    assert len(seeds) == 2 + 3 * 5


def test_a_node_outside_has_no_place() -> None:
    with pytest.raises(LocalProtocolError):
        neighbours_of("z", ["a", "b", "c"], degree=2, seed=b"s" * 32)
