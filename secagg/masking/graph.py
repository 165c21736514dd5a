"""Who masks with whom: the neighbour graph, from randomness that no single party picks.

The seed is a hash over the offer and every node's signed key advert, so the coordinator fixes it
only together with keys it does not choose. The graph is a random Harary graph: nodes in a random
circle, each joined to the k/2 nearest on either side; with k = n - 1 it is the complete graph.

Source: specs/30-masking.md section 3; Bell et al. 2020, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from secagg.errors import LocalProtocolError
from secagg.primitives.kdf import digest
from secagg.tags import GRAPH
from secagg.types import NodeId

__all__ = ["graph_seed", "neighbours_of"]


def graph_seed(offer_hash: bytes, advert_digests: Sequence[tuple[NodeId, bytes]]) -> bytes:
    """Return the 32-byte seed over the offer and all adverts, in order of node id (M-06)."""
    parts = [part for node, advert in advert_digests for part in (node.encode(), advert)]
    return digest(GRAPH, offer_hash, *parts)


def neighbours_of(
    node: NodeId, nodes: Sequence[NodeId], *, degree: int, seed: bytes
) -> frozenset[NodeId]:
    """Return the nodes that `node` masks with and shares its secrets among.

    Args:
        node: One of `nodes`.
        nodes: All nodes that advertised keys.
        degree: Wanted k. From n - 1 up the graph is complete; below, an odd k is rounded up.
        seed: From `graph_seed`.

    Raises:
        LocalProtocolError: `node` is not one of `nodes`.
    """
    if node not in nodes:
        raise LocalProtocolError(f"{node} is not in the graph")
    n, half = len(nodes), -(-degree // 2)
    if 2 * half >= n - 1:
        return frozenset(nodes) - {node}
    circle = sorted(nodes, key=lambda other: digest(GRAPH, seed, other.encode()))
    place = circle.index(node)
    return frozenset(circle[(place + step) % n] for step in range(-half, half + 1) if step)
