"""For how many dropouts each part of a node's noise is needed.

The levels rise from 0. Component j of a node's noise is needed when more than levels[j - 1] nodes
are missing from the sum, component 0 always. Source: specs/55-excess-noise.md section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from secagg.errors import ConfigError, LocalProtocolError

__all__ = ["SEED_SIZE", "check_seeds", "choose_levels", "excess_count", "level_for"]

SEED_SIZE: Final = 32
"""Bytes from which one component of a node's noise follows."""


def choose_levels(nodes: int, quorum: int, count: int = 4) -> tuple[int, ...]:
    """Return levels that each double, from 0 to all that the quorum allows to be missing.

    Few dropouts are the rule, and the noise is the more exact the closer the next level is.

    Args:
        nodes: Size of the cohort.
        quorum: Fewest contributors, 1 to `nodes`.
        count: Levels beside 0 at most; each costs a node one more pass over its vector.

    Returns:
        0 and at most `count` larger numbers, the last `nodes` - `quorum`; (0,) if that is 0.

    Raises:
        ConfigError: a number is out of range.
    """
    if not 1 <= quorum <= nodes:
        raise ConfigError(f"a quorum of {quorum} in a cohort of {nodes}")
    if not 1 <= count < 16:
        raise ConfigError(f"{count} levels of noise", hint="use 1 to 15")
    most = nodes - quorum
    return tuple(sorted({0, *(-(-most >> step) for step in range(count))}))


def level_for(dropouts: int, levels: Sequence[int]) -> int:
    """Return the last component that is needed with so many dropouts; 0 without levels.

    Raises:
        LocalProtocolError: more are missing than any level is for.
    """
    if not levels:
        return 0
    for index, level in enumerate(levels):
        if dropouts <= level:
            return index
    raise LocalProtocolError(f"{dropouts} dropouts, and noise for {levels[-1]}")


def excess_count(dropouts: int, levels: Sequence[int]) -> int:
    """Return how many components, the last ones, are not needed with so many dropouts.

    Raises:
        LocalProtocolError: more are missing than any level is for.
    """
    return max(0, len(levels) - 1 - level_for(dropouts, levels))


def check_seeds(seeds: Sequence[bytes], levels: Sequence[int]) -> None:
    """Check that there is a seed of 32 bytes for each component but 0.

    Raises:
        LocalProtocolError: there is not.
    """
    due = max(0, len(levels) - 1)
    if len(seeds) != due or any(len(seed) != SEED_SIZE for seed in seeds):
        raise LocalProtocolError(f"not {due} seeds of noise, of {SEED_SIZE} bytes each")
