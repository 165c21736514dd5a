"""A reader of embeddings: sure where sites lie apart, guessing where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.errors import DataError
from fl_core.leakage import Leakage, site_leakage


@pytest.mark.req("L-80")
def test_sites_that_lie_apart_are_told_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    apart = [rng.normal(site, 0.1, (200, 5)) for site in range(3)]
    alike = [rng.normal(0, 1, (200, 5)) for _ in range(3)]
    assert site_leakage(apart, seed=0).accuracy == 1.0
    found = site_leakage(alike, seed=0)
    assert abs(found.advantage) < 0.15
    assert found.chance == pytest.approx(1 / 3)


@pytest.mark.req("L-80")
def test_a_large_site_is_no_safe_guess() -> None:
    rng = np.random.default_rng(0)
    alike = [rng.normal(0, 1, (size, 5)) for size in (400, 20, 20)]
    assert abs(site_leakage(alike, seed=0).advantage) < 0.3


def test_the_same_seed_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    some = [rng.normal(site / 2, 1, (900, 5)) for site in range(2)]
    assert site_leakage(some, seed=1) == site_leakage(some, seed=1)


def test_too_little_is_refused() -> None:
    for bad in ([np.zeros((9, 2))], [np.zeros((9, 2)), np.zeros((3, 2))]):
        with pytest.raises(DataError, match="cannot be told apart"):
            site_leakage(bad, seed=0)


def test_an_advantage_is_a_share_of_what_is_above_chance() -> None:
    assert Leakage(1.0, 0.25).advantage == 1.0
    assert Leakage(0.25, 0.25).advantage == 0.0
