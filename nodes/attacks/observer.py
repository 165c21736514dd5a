"""Who sees a round of evil nodes or an evil network from outside, and judges it by its numbers.

The verdict does not depend on which attack was played. A gain is an input that can be read, a wrong
sum, a crash, an honest node that loses its place where the rules say that it does not, blame of one
that has nothing to do with it, or memory beyond its bound (A-02).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.knowledge import beats_chance
from nodes.attacks.report import NOTHING, Played
from secagg import ring
from secagg.round_setup import RoundSetup
from secagg.steps import RoundFailed, SumReady
from secagg.types import NodeId, RingVector
from secagg.wire.envelope import MAX_ENVELOPE
from secagg.wire.messages import UPLOAD_SLOTS, MaskedChunk

__all__ = ["Observer"]


@dataclass(slots=True)
class Observer:
    """What there is to see of one round.

    Attributes:
        setup: The round.
        inputs: The true ones.
        evil: The evil node; None if the network is evil.
        suspect: Who may be blamed beside it: the one that the network acts against.
        costs: Honest nodes that may lose their place by this attack; None if all may.
        end: How the round ended, if it did.
        left: Honest nodes that ended the round for themselves.
        crash: What an honest party raised that it may not; "" if nothing.
        copied: Most bytes that opening a frame took which is too long for one.
    """

    setup: RoundSetup
    inputs: Mapping[NodeId, RingVector] = field(repr=False)
    evil: NodeId | None
    suspect: NodeId
    costs: Collection[NodeId] | None
    end: SumReady | RoundFailed | None = None
    left: set[NodeId] = field(default_factory=set)
    crash: str = ""
    copied: int = 0
    _blamed: set[NodeId] = field(default_factory=set)
    _doubted: set[NodeId] = field(default_factory=set)
    _reasons: list[str] = field(default_factory=list)
    _captured: list[RingVector] = field(default_factory=list, repr=False)
    _held: set[NodeId] = field(default_factory=set)  # of whose upload there is a part
    _most_held: int = 0

    # --- what is seen --------------------------------------------------------------------------

    def note_blame(self, node: NodeId, reason: str, *, certain: bool = True) -> None:
        """An honest party blames a node, beyond doubt or not."""
        (self._blamed if certain else self._doubted).add(node)
        self._reasons.append(reason)

    def note_crash(self, party: NodeId, error: Exception) -> None:
        """An honest party raises what it may not."""
        self.crash = f"{party} crashes: {type(error).__name__}"
        self._reasons.append(str(error))

    def note_seen(self, chunk: MaskedChunk) -> None:
        """The attacker sees a chunk."""
        setup, start = self.setup, chunk.index * self.setup.chunk_values
        dim = max(0, min(setup.chunk_values, setup.dim - start))
        part = ring.unpack(chunk.data, dim, setup.ring_bits)
        if part is not None:
            whole = np.zeros(setup.dim, dtype=np.uint32)
            whole[start : start + len(part)] = part
            self._captured.append(whole)

    def note_held(self, sender: NodeId, *, whole: bool) -> None:
        """The coordinator takes a part of an upload, which it holds until it is whole."""
        self._held.add(sender)
        self._most_held = max(self._most_held, len(self._held))
        if whole:
            self._held.discard(sender)

    def note_dropped(self, sender: NodeId) -> None:
        """The coordinator drops what it holds of a node's upload."""
        self._held.discard(sender)

    # --- what came of it -----------------------------------------------------------------------

    @property
    def contributors(self) -> tuple[NodeId, ...]:
        """Whom the sum holds; nobody if there is none."""
        return self.end.contributors if isinstance(self.end, SumReady) else ()

    def verdict(self, elsewhere: str, more: str = "") -> Played:
        """Judge the round.

        Args:
            elsewhere: What the move gained against the target.
            more: What only this attack can gain; "" if it did not.
        """
        revealed, wrong = self._revealed(), self._wrong()
        gains = (
            f"input of {revealed[0]} recovered" if revealed else "",
            wrong,
            self.crash,
            more,
            self._lost(),
            self._framed(),
            self._overspent(),
        )
        return Played(
            elsewhere=elsewhere,
            here=next((gain for gain in gains if gain), NOTHING),
            outcome=self._outcome(wrong),
            blamed=(*sorted(self._blamed), *self._in_doubt()),
            revealed=bool(revealed),
            wrong_sum=bool(wrong),
        )

    def _outcome(self, wrong: str) -> str:
        if isinstance(self.end, SumReady):
            outcome = f"{'wrong' if wrong else 'exact'} sum over {len(self.contributors)} nodes"
        elif self.end is not None:
            outcome = f"abort: {self.end.reason.value}"
        else:
            outcome = self.crash or "no end"
        return outcome + (f" ({self._reasons[0]})" if self._reasons else "")

    def _wrong(self) -> str:
        """Say how the sum differs from that of its contributors; "" if it does not."""
        if not isinstance(self.end, SumReady):
            return ""
        excess = self.end.total.copy()
        for node, weight in zip(self.contributors, self.end.weights, strict=True):
            excess -= np.uint32(weight) * self.inputs[node]
        ring.reduce(excess, self.setup.ring_bits)
        if not excess.any():
            return ""
        if self.evil is not None and np.array_equal(excess, self.inputs[self.evil]):
            return "its input counts twice"
        return "a wrong sum was released"

    def _lost(self) -> str:
        """Say how many lost their place: they are not in the sum, or ended the round themselves."""
        if self.costs is None:
            return ""
        lost = (set(self.setup.cohort) - set(self.contributors)) | self.left
        lost -= {self.evil, *self.costs}
        return f"{len(lost)} honest nodes lost their place" if lost else ""

    def _framed(self) -> str:
        """Name a node that was blamed and did nothing, nor was anything done in its name."""
        framed = sorted(self._blamed - {self.evil, self.suspect, COORDINATOR})
        return f"{framed[0]} is blamed, who did nothing" if framed else ""

    def _in_doubt(self) -> list[str]:
        """Return those that may have broken the protocol, or another did; it costs them nothing."""
        return [f"{node} (in doubt)" for node in sorted(self._doubted - self._blamed)]

    def _overspent(self) -> str:
        """Say what memory an honest party spent beyond its bound (M-22, W-02)."""
        if self._most_held > UPLOAD_SLOTS:
            return f"the coordinator held {self._most_held} uploads, {UPLOAD_SLOTS} allowed"
        if self.copied > MAX_ENVELOPE:
            return f"{self.copied >> 20} MB were copied of a frame that is too long"
        return ""

    def _revealed(self) -> list[NodeId]:
        """Return whose input the attacker sees in what it caught and in what was released."""
        guesses = list(self._captured)
        if isinstance(self.end, SumReady):
            guesses.append(self.end.total)
            if self.evil in self.contributors:
                own = self.inputs[self.evil]
                guesses.append(ring.reduce(self.end.total - own, self.setup.ring_bits))
        honest = [node for node in self.setup.cohort if node != self.evil]
        tries = max(1, len(guesses) * len(honest))
        return [
            node
            for node in honest
            if any(
                beats_chance(int(np.count_nonzero(x == guess)), len(guess), tries=tries)
                for x in (self.inputs[node],)
                for guess in guesses
            )
        ]
