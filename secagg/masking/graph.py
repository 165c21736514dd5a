"""Who masks with whom: a random circle in which each node is joined to its nearest on both sides.

The circle follows from randomness that all nodes committed to before any of it was known, so no
single party picks it. Each node is joined to the k/2 nearest on either side; with k = n - 1 the
graph is complete. A sparse graph hides what it should only while enough neighbours survive, which
every node checks for the whole circle before it reveals anything.

Source: specs/30-masking.md section 3; Bell et al. 2020, section 4 (random Harary graphs).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import LocalProtocolError
from secagg.primitives.kdf import digest
from secagg.tags import GRAPH
from secagg.types import NodeId

__all__ = ["Graph", "build_graph", "window_quota"]


def window_quota(threshold: int) -> int:
    """Return w: survivors that every window of k/2 places must hold, for Shamir threshold t (M-25).

    With fewer than w colluders in every window each window keeps an honest survivor. With
    t = 2w - 1 the two windows of a node's share holders then hold at most 2(w - 1) < t colluders.
    """
    return threshold // 2 + 1


@dataclass(frozen=True, slots=True)
class Graph:
    """The neighbour graph of one round, from `build_graph`."""

    circle: tuple[NodeId, ...]
    """All nodes in their random order."""
    half: int
    """k/2: how many nodes on either side are neighbours; 0 if the graph is complete."""
    place: dict[NodeId, int]
    """Node to its index in `circle`."""

    def successors(self, node: NodeId) -> frozenset[NodeId]:
        """Return the neighbours to whom `node` sends a key, about half of them (M-26)."""
        return frozenset(self.ahead(node))

    def predecessors(self, node: NodeId) -> frozenset[NodeId]:
        """Return the neighbours that send `node` a key: all that are no successors."""
        return self.neighbours(node) - self.successors(node)

    def neighbours(self, node: NodeId) -> frozenset[NodeId]:
        """Return the nodes that `node` masks with and shares its secrets among."""
        return frozenset(self.around(node))

    def ahead(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return the successors of `node` in the order of their slots, from 0 on."""
        n, place = len(self.circle), self._of(node)
        if self.half:
            return self._run(place + 1, self.half)
        opposite = n % 2 == 0 and place < n // 2  # of two opposite nodes the first sends
        return self._run(place + 1, (n - 1) // 2 + int(opposite))

    def around(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return the neighbours of `node` in the order of their slots, its successors first."""
        n, half, place = len(self.circle), self.half, self._of(node)
        if not half:
            return self._run(place + 1, n - 1)
        return self._run(place + 1, half) + self._run(place + n - half, half)

    def seats(self, node: NodeId) -> dict[NodeId, int]:
        """Return each neighbour of `node` with the slot that `node` has among that one's own.

        Of k neighbours, the one in slot s has `node` in its slot k - 1 - s.
        """
        around = self.around(node)
        return {peer: len(around) - 1 - slot for slot, peer in enumerate(around)}

    def is_whole(self, survivors: Collection[NodeId], threshold: int) -> bool:
        """Tell whether `survivors` leave every window of k/2 consecutive places its quota (M-25).

        Then the honest among them are connected, and the sum over all of them is all that the
        masks give away. The complete graph always is whole.
        """
        if not self.half:
            return True
        _, windows = self._windows(survivors, self.half)
        return bool(windows.min() >= window_quota(threshold))

    def has_holders(self, nodes: Collection[NodeId], threshold: int) -> bool:
        """Tell whether each of `nodes` has enough of its neighbours among them for t shares."""
        if not self.half:
            return len(nodes) >= threshold
        present, windows = self._windows(nodes, 2 * self.half + 1)  # a node and its neighbours
        owners = np.roll(present, -self.half)  # each window's middle
        return bool((windows[owners > 0] >= threshold).all())

    def _windows(
        self, nodes: Collection[NodeId], width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each place whether it is one of `nodes`, and how many of the next `width`."""
        wanted = set(nodes)
        present = np.array([node in wanted for node in self.circle], dtype=np.int64)
        ahead = np.concatenate([[0], np.cumsum(np.concatenate([present, present[:width]]))])
        return present, ahead[width : width + len(present)] - ahead[: len(present)]

    def _run(self, start: int, count: int) -> tuple[NodeId, ...]:
        """Return `count` consecutive nodes of the circle, fewer than all."""
        start %= len(self.circle)
        end = start + count
        return self.circle[start:end] + self.circle[: max(0, end - len(self.circle))]

    def _of(self, node: NodeId) -> int:
        place = self.place.get(node)
        if place is None:
            raise LocalProtocolError(f"{node} is not in the graph")
        return place


def build_graph(nodes: Sequence[NodeId], *, degree: int, seed: bytes) -> Graph:
    """Return the graph over `nodes`.

    Args:
        nodes: All nodes that advertised keys, distinct.
        degree: Wanted k. From n - 1 up the graph is complete; below, an odd k is rounded up.
        seed: 32 bytes that nobody could choose (M-06).
    """
    circle = tuple(sorted(nodes, key=lambda node: digest(GRAPH, seed, node.encode())))
    half = -(-degree // 2)
    if 2 * half >= len(circle) - 1:
        half = 0
    return Graph(circle, half, {node: index for index, node in enumerate(circle)})
