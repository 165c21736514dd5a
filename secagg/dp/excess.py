"""A node's noise in components, of which the last can be taken back from a sum with few dropouts.

Noise has to suffice for the greatest number of dropouts; when fewer nodes are missing there is more
of it than privacy needs. So each node draws it in parts, all but the first from seeds of their own,
and gives the seeds of the superfluous parts away once it is sure who is missing. Source:
specs/55-excess-noise.md; Jiang, Wang and Chen 2024 ("Dordis"), whose scheme XNoise this is, with
coarser levels and a correction for colluding nodes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.dp.levels import SEED_SIZE, check_seeds, level_for
from secagg.dp.sampler import MIN_VARIANCE, keystream, sampler_for
from secagg.dp.terms import NoiseTerms
from secagg.errors import ConfigError, LocalProtocolError
from secagg.types import NodeId, RingVector, Rng

__all__ = [
    "Case",
    "Components",
    "ExpectedNoise",
    "draw_noise",
    "expected_excess",
    "new_seeds",
    "remove_excess",
]

_ROUND_UP: Final = 1 + 2.0**-50
"""Float errors must not leave less variance than is due."""


@dataclass(frozen=True, slots=True)
class Case:
    """The least noise that may be left when components beyond one level are gone."""

    shares: int
    """Fewest contributors that do not collude."""
    share_variance: float
    """Variance that each of them keeps, in squared steps."""
    parts: tuple[float, ...]
    """Variances of the independent draws that it is made of."""


@dataclass(frozen=True, slots=True)
class Components:
    """The variances of the parts of every node's noise.

    With at most levels[j] nodes missing, components 0 to j of all others that do not collude have
    the target variance together, or more.
    """

    mechanism: str
    """One of `secagg.dp.terms.MECHANISMS`."""
    nodes: int
    """Size n of the cohort."""
    colluders: int
    """Nodes A of it whose noise may be known to the coordinator."""
    honest: int
    """Contributors h that do not collude, whose whole noise has the target variance σ²."""
    levels: tuple[int, ...]
    """d_0 = 0 < d_1 < … < d_L: dropouts for which components 0 to j suffice; () for noise in one
    component."""
    variances: tuple[float, ...]
    """Of component 0 to L, in squared steps: v_0, v_1 − v_0, …, with v_j = σ² / (n − d_j − A)."""

    @classmethod
    def of(
        cls, terms: NoiseTerms, share_variance: float, *, nodes: int, colluders: int
    ) -> Components:
        """Return how the share of a round's terms is parted; one component without levels.

        Args:
            terms: The round's.
            share_variance: Of a node's whole noise, σ² / terms.honest.
            nodes: Size of the cohort.
            colluders: Nodes that may collude.

        Raises:
            ConfigError: the levels do not end where only `terms.honest` nodes are left that do not
                collude, or a component is too narrow to be drawn.
        """
        levels, honest = terms.drop_levels, terms.honest
        if not levels:
            return cls(terms.mechanism, nodes, colluders, honest, (), (share_variance,))
        left = [nodes - level - colluders for level in levels]
        if left[-1] != honest:
            raise ConfigError(
                f"with {levels[-1]} dropouts {left[-1]} honest contributors of {nodes} are left,"
                f" and the noise is for {honest}",
                hint=f"end drop_levels with {nodes - colluders - honest}",
            )
        sums = [share_variance * honest / count for count in left]
        parts = (sums[0], *(after - before for before, after in itertools.pairwise(sums)))
        variances = tuple(part * _ROUND_UP for part in parts)
        if min(variances) < MIN_VARIANCE:
            raise ConfigError(
                f"a component of the noise has a variance of {min(variances):g} squared steps",
                hint="use a larger scale or fewer levels",
            )
        return cls(terms.mechanism, nodes, colluders, honest, levels, variances)

    @property
    def cases(self) -> tuple[Case, ...]:
        """What an accountant has to bound: a round costs what the dearest of these does (X-09)."""
        shares = [self.nodes - level - self.colluders for level in self.levels] or [self.honest]
        parts = itertools.accumulate((part,) for part in self.variances)
        return tuple(
            Case(count, math.fsum(kept), kept) for count, kept in zip(shares, parts, strict=True)
        )


def new_seeds(components: Components, rng: Rng) -> tuple[bytes, ...]:
    """Draw fresh seeds of components 1 to L; they are secret until one is to be given back."""
    return tuple(rng(SEED_SIZE) for _ in components.variances[1:])


def draw_noise(
    components: Components, dim: int, rng: Rng, seeds: Sequence[bytes]
) -> NDArray[np.int32]:
    """Draw a node's whole noise: component 0 from `rng`, each other from its seed (X-03).

    Args:
        components: Of the round.
        dim: Coordinates.
        rng: Source of component 0, which nobody can ask for.
        seeds: From `new_seeds`, used for nothing else.

    Returns:
        Shape (dim,), dtype int32, in steps: it holds 100 standard deviations of the widest noise.

    Raises:
        LocalProtocolError: there are other seeds than components.
    """
    check_seeds(seeds, components.levels)
    first, *others = components.variances
    noise = sampler_for(components.mechanism, first).draw(dim, rng)
    for variance, seed in zip(others, seeds, strict=True):
        noise += sampler_for(components.mechanism, variance).draw(dim, keystream(seed))
    return noise


def remove_excess(
    total: RingVector,
    excess: Mapping[NodeId, Sequence[bytes]],
    components: Components,
    ring_bits: int,
) -> RingVector:
    """Return a sum without the components that nodes gave back.

    Args:
        total: Shape (dim,), values below 2^ring_bits; not changed.
        excess: Contributor to the seeds of its last components, in order.
        components: Of the round.
        ring_bits: The sum is modulo 2^ring_bits.

    Raises:
        LocalProtocolError: there are more seeds than components that have one.
    """
    left = total.copy()
    for node in sorted(excess):
        seeds = excess[node]
        if len(seeds) >= len(components.variances):
            raise LocalProtocolError(f"{len(seeds)} seeds of noise in as many components or fewer")
        given = components.variances[len(components.variances) - len(seeds) :]
        for variance, seed in zip(given, seeds, strict=True):
            noise = sampler_for(components.mechanism, variance).draw(len(left), keystream(seed))
            left -= noise.view(np.uint32)  # modulo 2^32, of which 2^ring_bits is a divisor
    return ring.reduce(left, ring_bits)


@dataclass(frozen=True, slots=True)
class ExpectedNoise:
    """Noise in a sum, as multiples of the variance σ² that privacy needs."""

    before: float
    """If nothing is given back."""
    after: float
    """If all that is too much is given back, but by silent nodes."""

    @property
    def gain(self) -> float:
        """By what factor the variance is less for it; at least 1."""
        return self.before / self.after


def expected_excess(components: Components, dropouts: int, *, silent: int = 0) -> ExpectedNoise:
    """Return the noise of a sum from which so many are missing, with and without giving back.

    More than σ² even at its best: the levels are coarse, and the colluding nodes, if there are any,
    cannot be told from the others, so that everybody makes up for them.

    Args:
        components: Of the round.
        dropouts: Nodes whose vector is not in the sum, at most the last level.
        silent: Contributors that give no seeds.

    Raises:
        LocalProtocolError: there are more dropouts than any level is for, or fewer contributors
            than silent ones.
    """
    contributors = components.nodes - dropouts
    if not 0 <= silent <= contributors:
        raise LocalProtocolError(f"{silent} silent nodes among {contributors} contributors")
    needed = level_for(dropouts, components.levels)
    whole, kept = sum(components.variances), sum(components.variances[: needed + 1])
    target = whole * components.honest
    before = contributors * whole / target
    return ExpectedNoise(before, ((contributors - silent) * kept + silent * whole) / target)
