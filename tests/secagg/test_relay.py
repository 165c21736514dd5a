"""What nodes give for each other comes back by giver and number, from memory or a file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.spool import FileSpool
from secagg.masking.graph import build_graph
from secagg.relay import MemorySpool, Relay


@given(items=st.lists(st.lists(st.binary(max_size=300), max_size=8), min_size=1, max_size=5))
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_every_item_comes_back(
    kind: str, items: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spool = MemorySpool() if kind == "memory" else FileSpool(tmp_path_factory.getbasetemp())
    relay = Relay(spool)
    for giver, given_items in enumerate(items):
        relay.put(f"node-{giver}", given_items)
    for giver, given_items in enumerate(items):
        for number, item in enumerate(given_items):
            assert relay.get(f"node-{giver}", number) == item


@pytest.mark.parametrize(("n", "degree"), [(5, 4), (6, 9), (20, 8), (21, 7), (130, 20)])
def test_slots_number_the_neighbours_and_begin_with_the_successors(n: int, degree: int) -> None:
    names = [f"node-{index}" for index in range(n)]
    graph = build_graph(names, degree=degree, seed=b"s" * 32)
    for node in names:
        around = graph.around(node)
        assert len(set(around)) == len(around)
        assert set(around) == graph.neighbours(node)
        assert graph.seats(node) == {peer: graph.around(peer).index(node) for peer in around}
        ahead = graph.ahead(node)
        assert set(ahead) == graph.successors(node)
        assert around[: len(ahead)] == ahead


def test_the_file_has_no_name(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    name = spool.append(b"sealed shares")
    assert list(tmp_path.iterdir()) == []
    assert spool.read(name, 7, 6) == b"shares"
