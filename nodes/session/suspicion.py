"""Which node spoils rounds, where no message tells: whoever was in all that failed.

A dealer that lies can make a round fail and stay unnamed, under masking as under ckks. It was in
every round that it spoilt, so the candidates are those who were in all of them. The next rounds ask
half of the candidates with everybody else: one that fails halves them, one that gives a sum sends
the other half in. A sum clears nobody, since who spoils rounds may choose which.

Source: specs/60-session.md section 5 (S-17).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from secagg.types import AbortReason, NodeId

__all__ = ["SPOILT", "Suspicion"]

SPOILT: Final = (
    AbortReason.BAD_SHARES,
    AbortReason.SUM_OUT_OF_RANGE,
    AbortReason.ZERO_WEIGHT,
)
"""What one node can make of a round without being named (S-17). That the weights of a sum drown in
their noise is not among it: honest nodes do that, too (S-20)."""


class Suspicion:
    """Nodes that were in every round that somebody spoilt."""

    def __init__(self) -> None:
        self._candidates: list[NodeId] = []
        self._tried: set[NodeId] = set()  # candidates that were in sums since the last failure
        self._draws = 0

    @property
    def candidates(self) -> tuple[NodeId, ...]:
        """Whom it may have been, if it is one node; none if it has stopped."""
        return tuple(self._candidates)

    def spoilt(self, cohort: Iterable[NodeId]) -> NodeId | None:
        """Note a round that failed through one of its nodes; return the one that is left, if so."""
        among = set(cohort)
        left = [node for node in self._candidates if node in among]
        found = left[0] if len(left) == 1 else None
        self._draws += 1  # others together each time: there may be several
        left = left or sorted(among)
        self._candidates = sorted(left, key=lambda node: _mixed(self._draws, node))
        self._tried = set()
        return found

    def summed(self, nodes: Iterable[NodeId]) -> None:
        """Note that these did no harm to a round that gave a sum."""
        self._tried |= set(nodes) & set(self._candidates)
        if self._tried >= set(self._candidates):  # it has stopped, or there are two
            self._candidates, self._tried = [], set()

    def give_up(self) -> None:
        """Forget whom it may have been: rounds of fewer nodes do not come about."""
        self._candidates, self._tried = [], set()

    def choose(self, ready: Sequence[NodeId], least: int) -> list[NodeId]:
        """Return whom of those that are ready to ask.

        Args:
            ready: Who may be asked.
            least: Fewest nodes of a round; as many candidates as that takes are asked.
        """
        here = [node for node in self._candidates if node in set(ready)]
        untried = [node for node in here if node not in self._tried]
        if self._tried and not untried:
            return list(ready)  # the others are away: nobody waits for them
        others = len(ready) - len(here)
        size = max(len(untried) if self._tried else -(-len(here) // 2), 1, least - others)
        asked = (untried + [node for node in here if node in self._tried])[:size]
        left_out = set(here) - set(asked)
        return [node for node in ready if node not in left_out]


def _mixed(draw: int, node: NodeId) -> bytes:
    return hashlib.sha256(f"{draw} {node}".encode()).digest()
