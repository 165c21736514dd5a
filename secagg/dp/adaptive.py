"""A clip that follows the norms: up when too few vectors are within it, down when too many are.

The coordinator learns how many are within the clip from a coordinate of the noised sum, so the clip
of the next round is post-processing of what was paid for.

Source: specs/50-dp.md section 9; Andrew, Thakkar, McMahan and Ramaswamy 2021, section 2.
"""

from __future__ import annotations

import math
from typing import Final

from secagg.errors import ConfigError

__all__ = [
    "MAX_CLIP",
    "MIN_CLIP",
    "QUANTILE",
    "RATE",
    "WITHIN_SHARE",
    "count_noise",
    "free_multiplier",
    "next_clip",
    "within_fraction",
]

WITHIN_SHARE: Final = 0.1
"""Part of the norm that the coordinate `within` takes: the noise on what is left weighs 0.5 % more,
and the count's has the standard deviation 5·z, n/20 at n = 100 and z = 1 as the paper advises."""
QUANTILE: Final = 0.5
"""Fraction of vectors that the clip shall leave whole: the paper's advice."""
RATE: Final = 0.2
"""The clip changes by a factor e^RATE in a round at most: the paper's advice."""
MIN_CLIP: Final = 1e-6
MAX_CLIP: Final = 1e6


def count_noise(noise_multiplier: float) -> float:
    """Return σ_b, the standard deviation of the noise on the sum of b - 1/2."""
    return noise_multiplier / (2 * WITHIN_SHARE)


def free_multiplier(noise_multiplier: float) -> float:
    """Return z_Δ, the noise on everything but the count in units of what that is clipped to.

    With `count_noise` it satisfies z_Δ = (z^-2 - (2σ_b)^-2)^(-1/2), theorem 1 of the paper.
    """
    return noise_multiplier / math.sqrt(1 - WITHIN_SHARE**2)


def within_fraction(within: float, contributors: int) -> float:
    """Return the noised fraction of contributors whose vector was within the clip.

    Args:
        within: The noised sum of b - 1/2, b 1 for a vector within the clip and else 0.
        contributors: Nodes in the sum, 1 or more.

    Returns:
        Mostly in [0, 1]; noise can put it outside.
    """
    return within / contributors + 0.5


def next_clip(
    clip: float, fraction: float, quantile: float = QUANTILE, rate: float = RATE
) -> float:
    """Return the clip of the next round: clip·exp(-rate·(fraction - quantile)).

    The difference is cut to ±1, so that noise moves the clip by a factor e^rate at most, up as far
    as down; the clip to `MIN_CLIP` … `MAX_CLIP`.

    Args:
        clip: C of the round, positive.
        fraction: What `within_fraction` gave.
        quantile: Fraction that shall be within, above 0 and below 1.
        rate: Greatest change of ln C in a round, above 0, up to 10.

    Raises:
        ConfigError: a number is out of range or not finite.
    """
    if not (0 < clip < math.inf and math.isfinite(fraction)):
        raise ConfigError(f"a clip of {clip} with the fraction {fraction} within it")
    if not (0 < quantile < 1 and 0 < rate <= 10):
        raise ConfigError(
            f"quantile {quantile} and rate {rate} of the clip",
            hint=f"use a quantile between 0 and 1 and a rate up to 10, such as {QUANTILE}, {RATE}",
        )
    error = min(1.0, max(-1.0, fraction - quantile))
    return min(MAX_CLIP, max(MIN_CLIP, clip * math.exp(-rate * error)))  # D-13
