"""Which rounds this node has fixed its view in: asked before it co-signs the view, never after.

A node co-signs one view a round (M-28), from which its one answer follows (M-13). The role's memory
keeps that promise within one process; the journal keeps it where that memory was copied: a forked
or resumed process, a second process on the same state folder. Source: specs/60-session.md section 6
(S-14).
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["AnswerJournal", "MemoryJournal"]


class AnswerJournal(Protocol):
    """The views of one node, over all runs and processes."""

    def claim(self, run_id: bytes, round_id: int, digest: bytes) -> bool:
        """Take the one view of a round, before its co-signature leaves.

        Args:
            run_id: 16 bytes.
            round_id: The round within the run.
            digest: 32 bytes, that of the view.

        Returns:
            True exactly once for a run and round, when the claim is durable; False if the round was
            claimed before, under this digest or any other.

        Raises:
            ConfigError: the claim could not be made durable; nothing may be sent.
        """
        ...


class MemoryJournal:
    """Lives as long as its process: for the simulator and tests, never for a node."""

    def __init__(self) -> None:
        self._claimed: set[tuple[bytes, int]] = set()

    def claim(self, run_id: bytes, round_id: int, digest: bytes) -> bool:
        """Take the one view of a round; see `AnswerJournal.claim`."""
        if (run_id, round_id) in self._claimed:
            return False
        self._claimed.add((run_id, round_id))
        return True
