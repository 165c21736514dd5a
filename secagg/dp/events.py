"""What a round did to privacy, in the numbers that its cost follows from.

An event documents a mechanism completely: the accountant needs nothing else, now or in ten years,
and the ledger keeps events, not ε. So a field never changes its meaning, and a new one has a
default under which old entries read as they were meant. Source: specs/58-accounting.md section 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from secagg.dp.terms import MECHANISMS
from secagg.errors import ConfigError

__all__ = [
    "UNITS",
    "PrivacyEvent",
    "SampledGaussian",
    "SumNoise",
    "Unprotected",
    "ZeroConcentrated",
    "event_from_dict",
]

UNITS: Final = ("client", "record", "none")
"""Whom an event protects: a node's whole contribution, one of its rows, nobody."""

_MOST: Final = 1 << 53  # what every reader of JSON holds exactly
_COARSEST_GRID: Final = 0.125


@dataclass(frozen=True, slots=True)
class SumNoise:
    """One sum over nodes, each of which added its share of discrete noise to integers.

    Neighbours: one contribution, or zeros in its place. What reaches anybody is the sum modulo a
    power of two, or anything computed from it.

    Raises:
        ConfigError: a number is out of range, or the parts do not make up the share.
    """

    TYPE: ClassVar[str] = "sum-noise"
    mechanism: str
    """One of `secagg.dp.terms.MECHANISMS`."""
    share_variance: float
    """Variance parameter of one node's share, in squared steps."""
    shares: int
    """Shares that count: of the fewest contributors that do not collude, the protected one among
    them (Z-01)."""
    l2: float
    """Greatest L2 norm of one contribution, in steps, after rounding (Z-02)."""
    l1: float
    """Its greatest L1 norm, in steps."""
    dim: int
    """Coordinates of the sum."""
    truncation: float = 0.0
    """Probability, at most, that any share was cut or is not of the named distribution."""
    parts: tuple[float, ...] = ()
    """Variances of the independent draws that a share is made of; () means a single one."""

    def __post_init__(self) -> None:
        if self.mechanism not in MECHANISMS:
            raise ConfigError(
                f"noise mechanism {self.mechanism!r}", hint=f"use one of: {', '.join(MECHANISMS)}"
            )
        for name in ("share_variance", "l2", "l1"):
            _check(name, getattr(self, name), above=0.0)
        if self.l1 < self.l2:
            raise ConfigError(
                f"l1 is {self.l1:g}, below l2 = {self.l2:g}",
                hint="no vector is shorter in L1 than in L2: use a greater l1",
            )
        _count("shares", self.shares)
        _count("dim", self.dim)
        _probability("truncation", self.truncation)
        for part in self.parts:
            _check("a part of the share", part, above=0.0)
        total = math.fsum(self.parts)
        if self.parts and not math.isclose(total, self.share_variance, rel_tol=1e-9):
            raise ConfigError(
                f"parts of {total:g} in all make up a share of {self.share_variance:g}",
                hint="use parts that add up to share_variance",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON takes it; `event_from_dict` is the way back."""
        return _to_dict(self)


@dataclass(frozen=True, slots=True)
class SampledGaussian:
    """Steps of DP-SGD on one node: Poisson sampling, clipped records, Gaussian noise on a grid.

    Neighbours: one record more or less.

    Raises:
        ConfigError: a number is out of range.
    """

    TYPE: ClassVar[str] = "sampled-gaussian"
    noise_multiplier: float
    """Standard deviation of the noise over the L2 sensitivity of the sum after rounding."""
    sampling_rate: float
    """Probability, for every record and step on its own, to be in the batch; in (0, 1]."""
    steps: int
    """Noised batches."""
    grid: float = _COARSEST_GRID
    """Step of the noise's grid over its standard deviation, at most; 0 for a continuous one."""

    def __post_init__(self) -> None:
        _check("noise_multiplier", self.noise_multiplier, above=0.0)
        _check("sampling_rate", self.sampling_rate, above=0.0, most=1.0)
        _count("steps", self.steps)
        _check("grid", self.grid, most=_COARSEST_GRID)

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON takes it; `event_from_dict` is the way back."""
        return _to_dict(self)


@dataclass(frozen=True, slots=True)
class ZeroConcentrated:
    """Anything that somebody else has proved to be ρ-zCDP (Bun and Steinke 2016).

    Raises:
        ConfigError: a number is out of range.
    """

    TYPE: ClassVar[str] = "zero-concentrated"
    rho: float
    """ρ: the Rényi divergence of order α between neighbours is at most ρα, for every α > 1."""
    delta_extra: float = 0.0
    """Probability, at most, that what was done differs from the mechanism that has ρ."""

    def __post_init__(self) -> None:
        _check("rho", self.rho)
        _probability("delta_extra", self.delta_extra)

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON takes it; `event_from_dict` is the way back."""
        return _to_dict(self)


@dataclass(frozen=True, slots=True)
class Unprotected:
    """A round without noise: its ε is infinite, and so is every sum with it."""

    TYPE: ClassVar[str] = "unprotected"

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON takes it; `event_from_dict` is the way back."""
        return _to_dict(self)


PrivacyEvent: TypeAlias = SumNoise | SampledGaussian | ZeroConcentrated | Unprotected
_KINDS: Final[tuple[type[PrivacyEvent], ...]] = (
    SumNoise,
    SampledGaussian,
    ZeroConcentrated,
    Unprotected,
)


def event_from_dict(fields: Mapping[str, Any]) -> PrivacyEvent:
    """Read what `to_dict` made.

    Fields with a default may be missing, so that entries older than the field can be read. Nothing
    else may, and nothing unknown may be there: a reader that passed over a field would undercount.

    Raises:
        ConfigError: the kind is unknown, or a field is missing, unknown, of a wrong type or out of
            range.
    """
    for kind in _KINDS:
        if fields.get("event") == kind.TYPE:
            return _parse({name: fields[name] for name in fields if name != "event"}, kind)
    raise ConfigError(  # Z-03
        f"privacy event {fields.get('event')!r}",
        hint=f"use one of: {', '.join(kind.TYPE for kind in _KINDS)}; a newer version may know it",
    )


def _parse(fields: dict[str, Any], kind: type[PrivacyEvent]) -> PrivacyEvent:
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - known):
        raise ConfigError(  # Z-03
            f"{kind.TYPE} with {', '.join(map(repr, unknown))}",
            hint="read it with the version that wrote it",
        )
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{kind.TYPE}: {error}", hint="restore the entry as written") from error


def _to_dict(event: PrivacyEvent) -> dict[str, Any]:
    """Return kind and fields, tuples as lists: equal to what JSON gives back."""
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    return {
        "event": event.TYPE,
        **{name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()},
    }


def _check(name: str, value: float, *, above: float | None = None, most: float = math.inf) -> None:
    """Refuse NaN, ±inf, negative numbers, and what is not above `above` or exceeds `most`."""
    least = value >= 0 if above is None else value > above
    if not (math.isfinite(value) and least and value <= most):  # Z-03
        bounds = ("0 or more" if above is None else f"more than {above:g}") + (
            f", {most:g} at most" if most < math.inf else ""
        )
        raise ConfigError(f"{name} is {value}", hint=f"use {bounds}")


def _probability(name: str, value: float) -> None:
    if not 0 <= value < 1:  # Z-03
        raise ConfigError(f"{name} is {value}", hint="use a probability below 1")


def _count(name: str, value: int) -> None:
    if not 1 <= value <= _MOST:  # Z-03
        raise ConfigError(f"{name} is {value}", hint="use a whole number from 1")
