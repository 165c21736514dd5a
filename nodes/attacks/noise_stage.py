"""Rounds in which nodes noise their inputs, and what is left of the noise that a sum is due.

What an attacker gains is computed from the seeds that it got: components that it can subtract from
an opened sum, of the honest nodes in it, and that the sum needed. Source: specs/55-excess-noise.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import NOTHING, Played
from secagg.ckks import parameters as ckks
from secagg.dp.encoding import PrivateEncoding, PrivateSegment
from secagg.dp.excess import Components, new_seeds
from secagg.dp.levels import choose_levels, level_for
from secagg.dp.terms import DISCRETE_GAUSSIAN, NoiseTerms
from secagg.masking import parameters as masking
from secagg.types import NodeId
from secagg.wire.messages import ExcessRequest, ExcessSeeds

__all__ = ["LEAST", "NoiseStage", "TrustingNoise", "missing_noise"]

LEAST: Final = 7
"""Nodes of a round with two levels of noise beside 0."""


def _components(n: int, dim: int, quorum: int, colluders: int) -> Components:
    terms = NoiseTerms(
        mechanism=DISCRETE_GAUSSIAN,
        clip=1.0,
        scale=1024,
        noise_multiplier=1.0,
        honest=quorum - colluders,
        drop_levels=choose_levels(n, quorum),
    )
    encoding = PrivateEncoding((PrivateSegment("update", dim, 1.0),), terms)
    return Components.of(terms, encoding.share_variance, nodes=n, colluders=colluders)


@dataclass(slots=True)
class TrustingNoise:
    """Nodes that believe what the server says of dropouts, and answer every time."""

    components: Components
    given: dict[NodeId, int] = field(default_factory=dict)
    """Node to how many components, the last ones, the server has seeds of."""

    def ask(self, nodes: Collection[NodeId], contributors: int) -> None:
        """Tell nodes a number of contributors, and have the seeds that it does not need."""
        level = level_for(self.components.nodes - contributors, self.components.levels)
        for node in nodes:
            seeds = len(self.components.variances) - 1 - level
            self.given[node] = max(self.given.get(node, 0), seeds)


def missing_noise(
    components: Components, honest: Collection[NodeId], given: Mapping[NodeId, int]
) -> str:
    """Return how much of the noise that a sum is due it has, in words; "" if all of it.

    Args:
        components: Of the round.
        honest: Contributors of the sum that do not collude.
        given: Node to how many components, the last ones, can be subtracted.
    """
    due = math.fsum(components.variances) * components.honest
    whole = len(components.variances)
    left = math.fsum(
        math.fsum(components.variances[: whole - given.get(node, 0)]) for node in honest
    )
    if left >= due * (1 - 1e-9):
        return ""
    return f"{left / due:.0%} of the noise that the sum over {len(honest)} honest nodes is due"


class NoiseStage:
    """A round of real nodes with noise in components, before a coordinator in evil hands.

    Args:
        scheme: "masking" or "ckks".
        n: Nodes, at least `LEAST`.
        dim: Coordinates of an input.
        seed: Of the inputs.
    """

    def __init__(self, scheme: str, n: int, dim: int, seed: int) -> None:
        made = ckks.choose(n) if scheme == "ckks" else masking.choose(n)
        self.components = _components(n, dim, made.quorum, made.colluders)
        names = [f"node-{index:02d}" for index in range(n)]
        self.seeds = {name: new_seeds(self.components, os.urandom) for name in names}
        changes = {"noise_levels": self.components.levels}
        self.puppet: Puppet | CkksPuppet
        if scheme == "ckks":
            self.puppet = CkksPuppet(
                n, dim, seed, accomplices=made.colluders, changes=changes, excess=self.seeds
            )
        else:
            self.puppet = Puppet(
                n,
                dim,
                seed,
                rng=os.urandom,
                accomplices=made.colluders,
                changes=changes,
                excess=self.seeds,
            )
        self.given: dict[NodeId, int] = {}
        self.trusting = TrustingNoise(self.components)
        self.puppet.until_upload()

    def honest(self, members: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Return those that do not collude."""
        return tuple(node for node in members if node not in self.puppet.accomplices)

    def cosign(self, views: Mapping[NodeId, tuple[NodeId, ...]]) -> dict[NodeId, bytes]:
        """Show each node its own set of survivors; return what was co-signed."""
        puppet = self.puppet
        puppet.tape.cosigned.clear()
        if isinstance(puppet, CkksPuppet):
            puppet.survivors({node: puppet.view(members) for node, members in views.items()})
        else:
            puppet.survivors(views)
        return dict(puppet.tape.cosigned)

    def open(self, nodes: Collection[NodeId], signed: Mapping[NodeId, bytes]) -> None:
        """Have nodes unmask or open, by these co-signatures."""
        puppet = self.puppet
        if isinstance(puppet, CkksPuppet):
            shown = sorted(signed.items())
            puppet.open({node: shown for node in nodes if node in puppet.members(node)})
            return
        puppet.tape.cosigned |= signed
        puppet.unmask({node: tuple(signed) for node in nodes})

    def ask(
        self, nodes: Collection[NodeId], contributors: int, signed: Mapping[NodeId, bytes]
    ) -> None:
        """Ask for seeds; those that are what the node drew its noise from are kept."""
        request = ExcessRequest(
            self.puppet.setup.round_id, contributors, tuple(sorted(signed.items()))
        )
        for node in nodes:
            for out in self.puppet.tell(node, request):
                if isinstance(out, ExcessSeeds) and out.seeds:
                    count = len(out.seeds)
                    if out.seeds == self.seeds[node][-count:]:
                        self.given[node] = max(self.given.get(node, 0), count)

    def judge(self, members: Collection[NodeId]) -> Played:
        """Return how it went, where the sum over `members` was to be opened."""
        honest = self.honest(members)
        elsewhere = missing_noise(self.components, honest, self.trusting.given)
        played = self.puppet.judge(elsewhere or NOTHING)
        if played.here == NOTHING and self._opened(honest):
            here = missing_noise(self.components, honest, self.given) or NOTHING
            played = dataclasses.replace(played, here=here)
        return played

    def _opened(self, honest: Collection[NodeId]) -> bool:
        puppet = self.puppet
        if isinstance(puppet, CkksPuppet):
            return puppet.holdings().released(puppet.inputs) > 0
        return puppet.loot().released(puppet.inputs, least=2) == len(honest)
