"""What a round's set-up refuses, and why; what an id may be."""

from dataclasses import replace

import pytest

from secagg.errors import ConfigError
from secagg.types import check_node_id
from tests.support.fleet import TestSigner, make_setup, with_ckks_terms


@pytest.mark.req("M-02")
@pytest.mark.parametrize(
    ("n", "neighbours", "colluders"),
    [(3, 2, 0), (5, 4, 1), (10, 9, 3), (10, 9, 8), (5, 3, 0), (9, 7, 2), (11, 9, 6)],
)
def test_on_the_complete_graph_the_threshold_exceeds_half_and_the_colluders(
    n: int, neighbours: int, colluders: int
) -> None:
    """Also where an odd degree, rounded up, makes the graph complete."""
    least = max(n // 2, colluders) + 1
    options = {"neighbours": neighbours, "colluders": colluders, "quorum": n}
    make_setup(n, **options, threshold=least)
    make_setup(n, **options, threshold=n)
    for threshold in (0, least - 1, n + 1):
        with pytest.raises(ConfigError) as caught:
            make_setup(n, **options, threshold=threshold)
        assert f"{least} to {n}" in caught.value.hint


@pytest.mark.req("M-02")
@pytest.mark.parametrize(("n", "neighbours", "holders"), [(40, 10, 11), (40, 11, 13), (8, 5, 7)])
def test_a_sparse_threshold_does_not_exceed_the_holders(
    n: int, neighbours: int, holders: int
) -> None:
    options = {"neighbours": neighbours, "colluders": 1, "quorum": n}
    for threshold in (2, holders):
        make_setup(n, **options, threshold=threshold)
    for threshold in (0, 1, holders + 1):
        with pytest.raises(ConfigError) as caught:
            make_setup(n, **options, threshold=threshold)
        assert f"2 to {holders}" in caught.value.hint


@pytest.mark.req("M-03")
@pytest.mark.req("M-11")
@pytest.mark.parametrize("colluders", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("n", [3, 4, 5, 10, 11, 100])
def test_co_signatures_of_two_views_share_an_honest_signer(n: int, colluders: int) -> None:
    if colluders + 2 > n:
        return
    threshold = max(n // 2, colluders) + 1
    setup = make_setup(n, threshold=threshold, colluders=colluders, quorum=n)
    c = setup.cosigners
    assert 2 * c - n > colluders  # what two sets of c of n share at least
    assert c >= threshold
    assert c == threshold or 2 * (c - 1) - n <= colluders  # and no more than that takes


@pytest.mark.req("M-03")
@pytest.mark.parametrize(
    ("n", "threshold", "colluders", "least"),
    [
        (3, 2, 0, 3),  # two contributors could each subtract their own input
        (5, 3, 0, 3),
        (5, 3, 1, 4),  # c = 4
        (10, 6, 0, 6),
        (10, 6, 3, 7),
        (10, 8, 3, 8),  # c is no less than the threshold
        (10, 9, 8, 10),  # one honest input would be read off the sum
        (100, 67, 33, 67),
    ],
)
def test_the_quorum_holds_all_co_signers_and_two_honest_nodes(
    n: int, threshold: int, colluders: int, least: int
) -> None:
    options = {"threshold": threshold, "colluders": colluders}
    make_setup(n, **options, quorum=least)
    make_setup(n, **options, quorum=n)
    for quorum in (0, least - 1, n + 1):
        with pytest.raises(ConfigError) as caught:
            make_setup(n, **options, quorum=quorum)
        assert f"{least} to {n}" in caught.value.hint


@pytest.mark.req("M-03")
def test_with_all_but_one_colluding_no_quorum_hides_anything() -> None:
    with pytest.raises(ConfigError) as caught:
        make_setup(4, threshold=4, colluders=3, quorum=4)
    assert "fewer colluding" in caught.value.hint


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
        {"colluders": -1},
        {"colluders": 5},
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
        make_setup(3, **keys("a", "b"), threshold=2, quorum=2, neighbours=2)


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


@pytest.mark.req("X-02")
def test_levels_of_noise_end_where_the_quorum_does() -> None:
    """Ten nodes, quorum 7: noise for two dropouts would be too little with three."""
    for levels in ((), (0, 3), (0, 1, 2, 3), (0, 6), (0, 1, 4)):
        assert make_setup(10, noise_levels=levels).noise_levels == levels
    for levels in ((0,), (0, 2), (0, 7), (0, 9), (0, 10)):
        with pytest.raises(ConfigError, match="dropouts") as caught:
            make_setup(10, noise_levels=levels)
        assert caught.value.hint == "end the levels with 3"
    assert make_setup(10, noise_levels=(0,), quorum=10).noise_levels == (0,)


@pytest.mark.req("X-02")
@pytest.mark.parametrize("levels", [(1, 3), (0, 2, 1, 3), (0, 0, 3), (0, 3, 3), tuple(range(17))])
def test_levels_of_noise_rise_from_0(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="rise from 0"):
        make_setup(30, noise_levels=levels)


@pytest.mark.req("X-02")
def test_where_the_coordinator_weighs_noise_has_no_levels() -> None:
    setup = with_ckks_terms(make_setup(10), max_weight=2, weighs=True)
    with pytest.raises(ConfigError, match="weigh alike"):
        replace(setup, noise_levels=(0, 3))
