"""Cutting an arc out of a sparse graph: the sum over a few nodes, between walls of the dropped."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from nodes.attacks.puppet import Puppet
from nodes.attacks.report import Played
from nodes.attacks.target import TargetStage
from secagg.masking.graph import Graph, build_graph
from secagg.types import NodeId

__all__ = ["cut_arc"]

_ARC_NODES: Final = 24
_ARC_DEGREE: Final = 8
_ARC_LENGTH: Final = 5


def cut_arc(n: int, dim: int, seed: int) -> Played:
    """Name the nodes on either side of an arc as dropped, so that no mask leads out of it."""
    n = max(n, _ARC_NODES)
    changes = {"neighbours": _ARC_DEGREE, "threshold": 5, "quorum": n - 10, "colluders": 2}
    puppet = Puppet(n, dim, seed, rng=os.urandom, changes=changes)
    puppet.adverts()
    puppet.keys()
    puppet.agreement()
    puppet.sharing()
    fewer = _without(puppet.nodes, _around_an_arc(puppet.graph))
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    stage = TargetStage(n, dim, seed, rng=os.urandom, threshold=5)
    graph = build_graph(stage.names, degree=_ARC_DEGREE, seed=bytes(32))
    stage.run(neighbours={name: graph.neighbours(name) for name in stage.names})
    gone = _around_an_arc(graph)
    left = _without(stage.names, gone)
    stage.ask(left, active=left, dead=gone)
    return puppet.judge(stage.gained())


def _around_an_arc(graph: Graph) -> tuple[NodeId, ...]:
    """Return the nodes on either side of a short arc of the circle, as many as neighbours reach."""
    half, length = graph.half, _ARC_LENGTH
    return graph.circle[:half] + graph.circle[half + length : 2 * half + length]


def _without(nodes: Collection[NodeId], gone: Collection[NodeId]) -> tuple[NodeId, ...]:
    """Return nodes that are not among those gone, sorted."""
    return tuple(sorted(set(nodes) - set(gone)))
