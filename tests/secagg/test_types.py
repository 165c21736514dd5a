"""What a round's set-up refuses, and why."""

import pytest

from secagg.errors import ConfigError
from secagg.types import check_node_id
from tests.support.fleet import TestSigner, make_setup


@pytest.mark.req("M-02")
@pytest.mark.parametrize(("n", "neighbours"), [(3, 2), (5, 4), (10, 9), (40, 10), (41, 11)])
def test_the_threshold_exceeds_half_of_the_holders(n: int, neighbours: int) -> None:
    holders = neighbours + 1
    least = holders // 2 + 1
    make_setup(n, neighbours=neighbours, threshold=least)
    make_setup(n, neighbours=neighbours, threshold=holders)
    for threshold in (0, least - 1, holders + 1):
        with pytest.raises(ConfigError) as caught:
            make_setup(n, neighbours=neighbours, threshold=threshold)
        assert str(least) in caught.value.hint


@pytest.mark.req("M-03")
@pytest.mark.parametrize("n", [3, 4, 5, 10, 100])
def test_the_quorum_exceeds_half_of_the_cohort_and_is_at_least_three(n: int) -> None:
    least = max(3, n // 2 + 1)
    make_setup(n, quorum=least)
    make_setup(n, quorum=n)
    for quorum in (0, least - 1, n + 1):
        with pytest.raises(ConfigError) as caught:
            make_setup(n, quorum=quorum)
        assert str(least) in caught.value.hint


def keys(*nodes: str) -> dict[str, object]:
    return {"cohort": nodes, "signing_keys": {node: TestSigner(node).public for node in nodes}}


@pytest.mark.parametrize(
    "changes",
    [
        keys("b", "a", "c", "d", "e"),
        keys("a", "a", "b", "c", "d"),
        {"signing_keys": {}},
        {"neighbours": 1},
        {"neighbours": 5},
        {"ring_bits": 7},
        {"ring_bits": 33},
        {"dim": 0},
        {"chunk_values": 0},
        {"chunk_values": 12},
    ],
)
def test_numbers_at_odds_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make_setup(5, **changes)


@pytest.mark.req("M-03")
def test_two_nodes_hide_nobody() -> None:
    with pytest.raises(ConfigError, match="cannot hide"):
        make_setup(2, threshold=2, quorum=2, neighbours=2)


def test_the_last_chunk_may_be_short() -> None:
    assert make_setup(3, dim=33, chunk_values=32).n_chunks == 2
    assert make_setup(3, dim=32, chunk_values=32).n_chunks == 1


@pytest.mark.req("M-07")
def test_the_context_names_run_round_and_offer() -> None:
    base = make_setup(3)
    assert base.context == (base.run_id, (7).to_bytes(8, "little"), base.offer_hash)


@pytest.mark.parametrize("node", ["a", "0", "camera-7.site_2", "a" * 63])
def test_good_ids(node: str) -> None:
    assert check_node_id(node) == node


@pytest.mark.parametrize(
    "node", ["", "A", "-a", ".a", "_a", "a" * 64, "a b", "a\n", "é", "a/b", "../a"]
)
def test_bad_ids(node: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_node_id(node)
    assert caught.value.hint
