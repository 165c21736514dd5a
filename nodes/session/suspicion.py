"""Which nodes spoil rounds, where no message tells: found by leaving some out.

A dealer that lies can make a round fail and stay unnamed, under masking as under ckks. Rounds that
follow are offered to a part of the nodes. Who was in a round that gave a sum is cleared; suspects
are then added to the cleared ones, fewer each time that a round fails, until one of them alone
makes it fail: adaptive group testing (Dorfman 1943).

Source: specs/60-session.md section 5 (S-17).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from secagg.types import NodeId

__all__ = ["Suspicion"]


class Suspicion:
    """Nodes of whom at least one has spoilt a round."""

    def __init__(self) -> None:
        self._suspects: list[NodeId] = []
        self._cleared = False  # there are nodes that have given a sum since
        self._size = 0  # suspects to ask in the next round
        self._draws = 0
        self._found: set[NodeId] = set()

    @property
    def suspects(self) -> tuple[NodeId, ...]:
        """Whom it may have been; none if no round was spoilt, or all are cleared or found."""
        return tuple(self._suspects)

    def spoilt(self, cohort: Iterable[NodeId]) -> NodeId | None:
        """Note a round that failed through one of its nodes; return who it was, if that follows."""
        among = set(cohort)
        if not self._suspects and among & self._found:  # again?
            self._suspects, self._cleared = sorted(among & self._found), True
        asked = [node for node in self._suspects if node in among]
        if not asked:
            self._suspects, self._cleared = sorted(among), False
        elif self._cleared and len(asked) == 1:
            self._suspects.remove(asked[0])
            self._found.add(asked[0])
            self._size = _half(self._suspects)
            return asked[0]
        if self._cleared:
            self._suspects.sort(key=lambda node: node not in among)
            self._size = _half(asked)
        else:  # there may be several: others together, until a round gives a sum
            self._draws += 1
            self._suspects.sort(key=lambda node: _mixed(self._draws, node))
            self._size = _half(self._suspects)
        return None

    def summed(self, contributors: Iterable[NodeId]) -> None:
        """Note a round that gave a sum: its contributors are cleared."""
        fine = set(contributors)
        self._found -= fine
        left = [node for node in self._suspects if node not in fine]
        if left == self._suspects:  # who was asked gave nothing: ask others
            left = left[self._size :] + left[: self._size]
        self._suspects, self._cleared = left, bool(fine)
        self._size = _half(left)

    def choose(self, ready: Sequence[NodeId], least: int) -> list[NodeId]:
        """Return whom of those that are ready to ask.

        Args:
            ready: Who may be asked.
            least: Fewest nodes of a round; as many suspects as that takes are asked.
        """
        here = [node for node in self._suspects if node in set(ready)]
        others = len(ready) - len(here)
        left_out = set(here[max(self._size, least - others) :])
        return [node for node in ready if node not in left_out]


def _half(nodes: Sequence[NodeId]) -> int:
    return -(-len(nodes) // 2)


def _mixed(draw: int, node: NodeId) -> bytes:
    return hashlib.sha256(f"{draw} {node}".encode()).digest()
