"""For how many dropouts each part of the noise is needed."""

from __future__ import annotations

import itertools

import pytest

from secagg.dp.levels import SEED_SIZE, check_seeds, choose_levels, excess_count, level_for
from secagg.errors import ConfigError, LocalProtocolError


@pytest.mark.req("X-02")
@pytest.mark.parametrize("count", [1, 2, 4, 15])
@pytest.mark.parametrize(("nodes", "quorum"), [(3, 3), (5, 4), (10, 7), (30, 20), (1000, 667)])
def test_levels_rise_from_0_to_all_that_may_be_missing(nodes: int, quorum: int, count: int) -> None:
    levels = choose_levels(nodes, quorum, count)
    assert levels[0] == 0
    assert levels[-1] == nodes - quorum
    assert list(levels) == sorted(set(levels))
    assert len(levels) <= count + 1
    assert all(after <= 2 * before for before, after in itertools.pairwise(levels[1:]))


def test_the_usual_levels() -> None:
    assert choose_levels(30, 20) == (0, 2, 3, 5, 10)
    assert choose_levels(10, 7) == (0, 1, 2, 3)
    assert choose_levels(5, 5) == (0,)


@pytest.mark.parametrize(
    ("nodes", "quorum", "count"), [(5, 6, 4), (5, 0, 4), (5, 4, 0), (5, 4, 16)]
)
def test_numbers_out_of_range_are_refused(nodes: int, quorum: int, count: int) -> None:
    with pytest.raises(ConfigError):
        choose_levels(nodes, quorum, count)


@pytest.mark.req("X-04")
def test_the_level_is_the_least_that_is_enough() -> None:
    levels = (0, 2, 3, 5, 10)
    assert [level_for(dropouts, levels) for dropouts in range(11)] == [0, 1, 1, 2, 3, 3, *[4] * 5]
    assert [excess_count(dropouts, levels) for dropouts in (0, 1, 3, 5, 6)] == [4, 3, 2, 1, 0]
    assert level_for(99, ()) == excess_count(99, ()) == 0
    assert excess_count(0, (0,)) == 0
    with pytest.raises(LocalProtocolError):
        level_for(11, levels)


@pytest.mark.req("X-03")
@pytest.mark.parametrize("sizes", [(), (32,), (32, 32, 32), (32, 31), (32, 33), (0, 32)])
def test_there_is_one_seed_of_32_bytes_for_each_level_but_the_first(sizes: tuple[int, ...]) -> None:
    check_seeds([b"s" * SEED_SIZE] * 2, (0, 1, 2))
    check_seeds([], (0,))
    check_seeds([], ())
    with pytest.raises(LocalProtocolError) as caught:
        check_seeds([b"s" * size for size in sizes], (0, 1, 2))
    assert "sss" not in str(caught.value)
