"""The statistics alarm as often as they say, and of what they should."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from secagg.ring import reduce
from secagg.types import RingVector
from tests.support.statistics import RATE, Battery

DIM, BITS = 8192, 19


def draws(count: int, seed: int = 1) -> list[RingVector]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1 << BITS, DIM, dtype=np.uint32) for _ in range(count)]


@functools.cache
def uniform_p_values() -> list[dict[str, float]]:
    found = []
    for vector in draws(4000):
        battery = Battery()
        battery.uniform("x", vector, BITS)
        found.append(battery.p_values)
    return found


@pytest.mark.parametrize("kind", ["mean", "bit 0", "bit 18", "low byte", "high byte", "neighbours"])
def test_p_values_of_uniform_data_are_not_too_small(kind: str) -> None:
    """Of 4000 draws no more than by chance have p < 1/100 and < 1/1000; seeds are fixed."""
    found = [p_values[f"x: {kind}"] for p_values in uniform_p_values()]
    for level in (1e-2, 1e-3):
        expected = level * len(found)
        below = sum(p < level for p in found)
        assert below <= expected + 4 * math.sqrt(expected) + 1


def test_a_battery_of_uniform_data_is_silent_at_its_rate() -> None:
    alarms = 0
    for index, vector in enumerate(draws(300, seed=2)):
        battery = Battery()
        battery.uniform("x", vector, BITS)
        battery.independent("x", vector, np.arange(DIM, dtype=np.uint32), BITS)
        battery.guesses("x", index % 7 + 3, 12)
        alarms += bool(battery.alarms(rate=1e-2))
        assert not battery.alarms()
    assert alarms <= 3 + 4 * math.sqrt(3)


@pytest.mark.parametrize(
    ("label", "change"),
    [
        ("mean", lambda x: x - (x >> 3)),
        ("bit 18", lambda x: x & 0x3FFFF),
        ("bit 0", lambda x: x & ~np.uint32(1)),
        ("low byte", lambda x: x & ~np.uint32(3)),
        ("high byte", lambda x: x % (3 << 17)),
        ("neighbours", lambda x: np.repeat(x[::2], 2)),
    ],
)
def test_what_is_not_uniform_alarms(label: str, change: Callable[[RingVector], RingVector]) -> None:
    battery = Battery()
    battery.uniform("x", change(draws(1)[0]), BITS)
    assert f"x: {label}" in battery.alarms()


def test_the_pair_statistics_alarm_of_what_they_are_for() -> None:
    one, two, three = draws(3)
    ramp = (np.arange(DIM) * 60).astype(np.uint32)
    battery = Battery()
    battery.unrelated("fresh", one, two, BITS)
    battery.no_coincidences("fresh", np.array([one, two, three]), BITS)
    battery.independent("fresh", one, ramp, BITS)
    battery.alike("fresh", one & 255, two & 255)
    battery.guesses("fresh", 60, 100)
    battery.rare("fresh", 3, of=10**5, chance=2.0**-16)
    battery.distinct("fresh", [b"a", b"b"])
    assert not battery.alarms()
    partly = np.where(np.arange(DIM) < 64, one, two)
    weak = reduce(ramp + (one & np.uint32(0xFFFF)), BITS)
    negated = reduce(-one, BITS)
    plants: list[Callable[[Battery], None]] = [
        lambda b: b.unrelated("same", one, one, BITS),
        lambda b: b.unrelated("negated", one, negated, BITS),
        lambda b: b.no_coincidences("same in part", np.array([one, three, partly]), BITS),
        lambda b: b.no_coincidences("negated", np.array([one, negated]), BITS),
        lambda b: b.independent("narrow mask", weak, ramp, BITS),
        lambda b: b.alike("other bytes", one & 127, two & 255),
        lambda b: b.guesses("mostly right", 80, 100),
        lambda b: b.guesses("mostly wrong", 20, 100),
        lambda b: b.rare("often", 20, of=10**5, chance=2.0**-16),
        lambda b: b.distinct("twice", [b"a", b"b", b"a"]),
    ]
    for plant in plants:
        battery = Battery()
        plant(battery)
        assert battery.alarms()


def test_a_rate_is_for_the_whole_battery() -> None:
    battery = Battery({str(index): 2e-7 for index in range(4)})
    assert len(battery.alarms(rate=RATE)) == 4
    battery.p_values |= {f"more {index}": 1.0 for index in range(6)}
    assert not battery.alarms(rate=RATE)


def test_too_few_values_for_a_chi_square_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Battery().uniform("x", np.zeros(100, dtype=np.uint32), BITS)
