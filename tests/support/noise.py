"""Rounds whose inputs hold noise in components, part of which may be given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.dp.excess import Components, remove_excess
from secagg.dp.levels import choose_levels, level_for
from secagg.dp.sampler import keystream, sampler_for
from secagg.dp.terms import SKELLAM, NoiseTerms
from secagg.roles import Scheme
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector
from tests.support.fleet import Fleet, Outcome, as_inputs
from tests.support.randomness import InsecureLabelledRng

Integers = NDArray[np.int64]
_TARGET = 1e6  # variance; a share has a deviation of some hundred steps


def with_levels(setup: RoundSetup, levels: tuple[int, ...] | None = None) -> RoundSetup:
    """Return `setup` with levels of noise, by default those that real rounds get."""
    chosen = choose_levels(len(setup.cohort), setup.quorum) if levels is None else levels
    return replace(setup, noise_levels=chosen)


class NoisyFleet(Fleet):
    """A round of `scheme` over small inputs with noise.

    Args:
        scheme: Which.
        setup: The round, with levels of noise.
        seed: As for `Fleet`.
        mechanism: Which noise.
    """

    def __init__(
        self, scheme: Scheme, setup: RoundSetup, *, seed: int = 1, mechanism: str = SKELLAM
    ) -> None:
        super().__init__(scheme, setup, seed=seed)
        nodes, colluders = len(setup.cohort), setup.colluders
        honest = nodes - setup.noise_levels[-1] - colluders
        terms = NoiseTerms(mechanism, 1.0, 1000, 1.0, honest, drop_levels=setup.noise_levels)
        share = _TARGET / honest
        self.components = Components.of(terms, share, nodes=nodes, colluders=colluders)
        rng = np.random.default_rng(seed)
        self.values: dict[NodeId, Integers] = {
            node: rng.integers(-1000, 1001, setup.dim) for node in setup.cohort
        }
        self.parts = {node: self._parts(node) for node in setup.cohort}
        """Node to its components 0, 1, …"""
        noisy = {node: self.values[node] + sum(self.parts[node]) for node in setup.cohort}
        self.inputs = as_inputs(setup, noisy)
        self.clients = {node: self.client(node) for node in setup.cohort}

    def _parts(self, node: NodeId) -> list[Integers]:
        own = InsecureLabelledRng(self.seed, f"{node} 0")
        sources = [own, *map(keystream, self.excess[node])]
        return [
            sampler_for(self.components.mechanism, variance)
            .draw(self.setup.dim, source)
            .astype(np.int64)
            for variance, source in zip(self.components.variances, sources, strict=True)
        ]

    def level(self, contributors: Iterable[NodeId]) -> int:
        """Return the last level that is needed."""
        dropouts = len(self.setup.cohort) - len(tuple(contributors))
        return level_for(dropouts, self.setup.noise_levels)

    def due(self, contributors: tuple[NodeId, ...]) -> dict[NodeId, tuple[bytes, ...]]:
        """Return what each contributor is to give back."""
        needed = self.level(contributors)
        return {node: self.excess[node][needed:] for node in contributors}

    def sum_with(
        self, contributors: tuple[NodeId, ...], silent: Iterable[NodeId] = ()
    ) -> RingVector:
        """Return the sum with the needed components, and of the silent nodes with all."""
        total, needed, keep_all = (
            np.zeros(self.setup.dim, np.int64),
            self.level(contributors),
            {*silent},
        )
        for node in contributors:
            parts = self.parts[node]
            total += self.values[node]
            total += sum(parts if node in keep_all else parts[: needed + 1])
        return ring.from_signed(total, self.setup.ring_bits)

    def without_excess(
        self, outcome: Outcome, excess: Mapping[NodeId, tuple[bytes, ...]] | None = None
    ) -> RingVector:
        """Return the sum of a round as the session computes it."""
        assert outcome.total is not None
        given = outcome.excess if excess is None else excess
        return remove_excess(outcome.total, given, self.components, self.setup.ring_bits)
