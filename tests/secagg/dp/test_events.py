"""Events say all about a mechanism, survive JSON unchanged, and refuse nonsense."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from secagg.dp.events import (
    UNITS,
    PrivacyEvent,
    SampledGaussian,
    SumNoise,
    Unprotected,
    ZeroConcentrated,
    event_from_dict,
)
from secagg.dp.terms import DISCRETE_GAUSSIAN, SKELLAM
from secagg.errors import ConfigError

SUM = SumNoise(DISCRETE_GAUSSIAN, 0.1, 7, 3.5, 12.0, 20)
EVENTS: list[PrivacyEvent] = [
    SUM,
    SumNoise(SKELLAM, 1e-9, 1, 1.0, 1.0, 1, 2.0**-64),
    SumNoise(DISCRETE_GAUSSIAN, 3.5, 7, 3.5, 12.0, 20, 0.0, (2.0, 1.0, 0.5)),
    SampledGaussian(1.1, 0.01, 500),
    SampledGaussian(0.3, 1.0, 1, 0.0),
    ZeroConcentrated(0.25),
    ZeroConcentrated(0.0, 1e-12),
    Unprotected(),
]


@pytest.mark.req("Z-01")
@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_survives_json(event: PrivacyEvent) -> None:
    fields = json.loads(json.dumps(event.to_dict()))
    assert fields == event.to_dict()
    assert event_from_dict(fields) == event
    assert hash(event_from_dict(fields)) == hash(event)


@pytest.mark.req("Z-01")
def test_kinds_and_units_are_named_once_and_stay() -> None:
    assert UNITS == ("client", "record", "none")
    assert {event.TYPE for event in EVENTS} == {
        "sum-noise",
        "sampled-gaussian",
        "zero-concentrated",
        "unprotected",
    }
    assert SUM.to_dict() == {
        "event": "sum-noise",
        "mechanism": "discrete-gaussian",
        "share_variance": 0.1,
        "shares": 7,
        "l2": 3.5,
        "l1": 12.0,
        "dim": 20,
        "truncation": 0.0,
        "parts": [],
    }


@pytest.mark.req("Z-03")
def test_only_fields_with_a_default_may_be_missing() -> None:
    fields = SUM.to_dict()
    del fields["truncation"], fields["parts"]
    assert event_from_dict(fields) == SUM
    for name in fields:
        short = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(ConfigError) as refused:
            event_from_dict(short)
        assert refused.value.hint


@pytest.mark.req("Z-03")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"event": "sum-noise-2"}, "sum-noise-2"),
        ({"event": None}, "None"),
        ({"event": ["sum-noise"]}, "sum-noise"),
        ({"more": 1}, "more"),
        ({"shares": 7.5}, "int"),
        ({"shares": True}, "int"),
        ({"shares": "7"}, "int"),
        ({"share_variance": "0.1"}, "float"),
        ({"share_variance": None}, "float"),
        ({"parts": 0.1}, "array"),
        ({"parts": ["0.1"]}, "float"),
        ({"mechanism": "laplace"}, "laplace"),
        ({"shares": 0}, "shares"),
        ({"dim": -1}, "dim"),
        ({"dim": 1 << 60}, "dim"),
    ],
)
def test_nonsense_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        event_from_dict(SUM.to_dict() | change)
    assert refused.value.hint


@pytest.mark.req("Z-03")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize(
    ("event", "field"),
    [
        *((SUM, name) for name in ("share_variance", "l2", "l1", "truncation")),
        *((EVENTS[3], name) for name in ("noise_multiplier", "sampling_rate", "grid")),
        *((EVENTS[5], name) for name in ("rho", "delta_extra")),
    ],
)
def test_numbers_are_finite_and_not_negative(event: PrivacyEvent, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} is"):
        event_from_dict(event.to_dict() | {field: value})


@pytest.mark.req("Z-03")
@pytest.mark.parametrize(
    ("event", "change"),
    [
        (SUM, {"share_variance": 0.0}),
        (SUM, {"truncation": 1.0}),
        (SUM, {"l1": 3.0}),  # below l2: the two were swapped
        (SUM, {"parts": [0.05, 0.06]}),
        (SUM, {"parts": [0.2, -0.1]}),
        (EVENTS[3], {"noise_multiplier": 0}),
        (EVENTS[3], {"sampling_rate": 0}),
        (EVENTS[3], {"sampling_rate": 1.1}),
        (EVENTS[3], {"steps": 0}),
        (EVENTS[3], {"grid": 0.2}),
        (EVENTS[5], {"delta_extra": 1}),
    ],
)
def test_impossible_mechanisms_are_refused(event: PrivacyEvent, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        event_from_dict(event.to_dict() | change)
    assert refused.value.hint
