"""What a round's offer fixes about client-level noise. Source: specs/50-dp.md section 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from secagg.errors import ConfigError

__all__ = ["DISCRETE_GAUSSIAN", "MECHANISMS", "SKELLAM", "NoiseTerms"]

DISCRETE_GAUSSIAN: Final = "discrete-gaussian"
SKELLAM: Final = "skellam"
MECHANISMS: Final = (DISCRETE_GAUSSIAN, SKELLAM)


@dataclass(frozen=True, slots=True)
class NoiseTerms:
    """Client-level noise of one round.

    Raises:
        ConfigError: a number is out of range.
    """

    mechanism: str
    """One of `MECHANISMS`: the distribution of every node's share."""
    clip: float
    """C: greatest L2 norm of a node's joint vector, in units of its segments."""
    scale: int
    """M: the integer length of C before rounding; a step is C/M."""
    noise_multiplier: float
    """z: standard deviation of the sum's noise, in units of the L2 sensitivity after rounding."""
    honest: int
    """h: contributors that do not collude, whose shares together give that noise."""
    rotation: bool = False
    """Whether the vector is rotated at random before rounding, by signs drawn from the offer."""
    drop_levels: tuple[int, ...] = ()
    """Numbers of dropouts at which a part of every share can be taken back, rising from 0; ()
    leaves the excess in (specs/55-excess-noise.md)."""
    stretch: float = 1.0
    """Variance of a round's noise over (z·Δ₂)²: above 1 where a round also carries noise of earlier
    ones (specs/54-correlated-noise.md)."""

    def __post_init__(self) -> None:
        if self.mechanism not in MECHANISMS:
            raise ConfigError(
                f"noise mechanism {self.mechanism!r}", hint=f"use one of: {', '.join(MECHANISMS)}"
            )
        for name in ("clip", "noise_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="use a positive number")
        if not 8 <= self.scale < 1 << 24:
            raise ConfigError(f"scale is {self.scale}", hint="use 8 to 16777215 steps")
        if self.honest < 1:
            raise ConfigError(f"noise from {self.honest} honest nodes", hint="use 1 or more")
        if not 1 <= self.stretch < math.inf:
            raise ConfigError(f"stretch is {self.stretch}", hint="use 1 or more")
        levels = self.drop_levels
        if levels and (levels[0] != 0 or list(levels) != sorted(set(levels))):
            raise ConfigError("drop_levels do not rise from 0", hint="use 0, then larger numbers")
