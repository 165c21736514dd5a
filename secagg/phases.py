"""What the roles of every scheme with phases have in common: who owes what until when.

A phase of the coordinator closes when all that are still in the round have answered, or at its
deadline with those who have. A node's phases follow one another once; what does not fit the phase
it is in ends the round for it. Schemes give tables of what each phase accepts and how it closes.

Source: specs/30-masking.md section 4, specs/36-ckks.md section 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np

from secagg.dp.levels import check_seeds, excess_count, level_for
from secagg.errors import (
    AuthenticationError,
    LocalProtocolError,
    RemoteProtocolError,
    ReplayError,
)
from secagg.round_setup import RoundSetup
from secagg.steps import (
    Event,
    InputRejected,
    Lazy,
    Outgoing,
    PeerBlamed,
    PeersMissed,
    PhaseEntered,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import AbortReason, NodeId, RingVector, Rng, Signer
from secagg.uploads import BadUpload
from secagg.wire.messages import (
    UPLOAD_SLOTS,
    ExcessRequest,
    ExcessSeeds,
    Message,
    RoundMessage,
)

__all__ = [
    "Accepts",
    "Closes",
    "Fault",
    "PhasedClient",
    "PhasedCoordinator",
    "Takes",
    "same",
]

Takes: TypeAlias = dict[tuple[Any, type[RoundMessage]], Callable[[Any, Any, float], Step]]
"""Phase of a client and type of message to what it does."""
Accepts: TypeAlias = dict[
    Any,
    tuple[type[RoundMessage] | tuple[type[RoundMessage], ...], Callable[[Any, NodeId, Any], bool]],
]
"""Phase of a coordinator to the messages it takes and what these do: tell whether their sender has
given all that it owes. `Fault`, `BadUpload` and `AuthenticationError` cost it its place."""
Closes: TypeAlias = dict[Any, tuple[AbortReason | None, Callable[[Any, float], Step]]]
"""Phase to why the round fails if too few have answered, and to what comes next if not; None where
nobody need answer."""

_NEW: Final = "new"
_OVER: Final = "over"


class Fault(Exception):
    """A message that costs its sender its place in the round."""


class PhasedClient(ABC):
    """A node's role; phases are strings of which the first is "new" and the last "over".

    Args:
        setup: The checked offer.
        vector: This node's input, shape (setup.dim,), values below 2^ring_bits; checked only.
        signer: This node's identity.
        coordinator: Where messages go.
        rng: Source of secrets.
        excess: Seeds of components 1, 2, … of the noise in `vector`, 32 bytes each, one for each of
            `setup.noise_levels` but the first.

    Raises:
        LocalProtocolError: vector or seeds do not fit the set-up, or the node is not in the cohort.
    """

    _ACCEPTS: ClassVar[Takes] = {}
    _TRAINING: ClassVar[StrEnum]
    """The phase in which the others may still train."""
    _TURNS: ClassVar[Collection[StrEnum]] = ()
    """Phases in which others may have their turns before this node or after it."""
    _ANSWERED: ClassVar[StrEnum]
    """The phase of a node that owes nothing, but may be asked for what its noise is too much."""
    _phase: StrEnum

    def __init__(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        excess: tuple[bytes, ...] = (),
    ) -> None:
        check_seeds(excess, setup.noise_levels)
        if vector.shape != (setup.dim,) or vector.dtype != np.uint32:
            raise LocalProtocolError(
                f"an input of shape {vector.shape} for {setup.dim} coordinates"
            )
        if setup.ring_bits < 32 and vector.max(initial=0) >> setup.ring_bits:
            raise LocalProtocolError("an input coordinate lies outside the ring")
        if signer.node_id not in setup.cohort:
            raise LocalProtocolError(f"{signer.node_id} is not in the cohort")
        self._setup, self._signer, self._me = setup, signer, signer.node_id
        self._coordinator, self._rng = coordinator, rng
        self._excess, self._contributors = excess, 0

    @property
    def phase(self) -> StrEnum:
        """The current phase."""
        return self._phase

    def receive(self, message: Message, now: float) -> Step:
        """Take the next message of the coordinator; see `secagg.roles.ClientRole.receive`."""
        handler = None
        if isinstance(message, RoundMessage):
            handler = self._ACCEPTS.get((self._phase, type(message)))
        if handler is None or not isinstance(message, RoundMessage):  # M-21, H-17
            raise self._fault(f"{type(message).__name__} while {self._phase.value}")
        if message.round_id != self._setup.round_id:
            raise self._fault(f"{type(message).__name__} of round {message.round_id}")
        return handler(self, message, now)

    def on_timeout(self, now: float) -> Step:
        """Give up: the coordinator has been silent for too long."""
        del now
        if self._phase == _OVER:
            return Step(done=True)
        silent_in = self._phase
        self._end()
        if silent_in is self._ANSWERED:  # its input may well be in the sum, with all its noise
            return Step(done=True)
        reason = f"the coordinator was silent while {silent_in.value}"
        return Step(events=(InputRejected(reason),), done=True)

    def _reply(self, now: float, *messages: Message, events: tuple[Event, ...] = ()) -> Step:
        send = tuple(Outgoing(self._coordinator, message) for message in messages)
        if self._phase == _OVER:
            return Step(send, events, done=True)
        # The coordinator may use up each phase, and turns one after the other.
        phases = 3
        if self._phase in self._TURNS:
            phases += -(-len(self._setup.cohort) // UPLOAD_SLOTS)
        longest = self._setup.input_timeout if self._phase is self._TRAINING else 0.0
        return Step(send, events, now + longest + phases * self._setup.phase_timeout)

    def _check_cosigners(
        self,
        signatures: Sequence[tuple[NodeId, bytes]],
        among: Collection[NodeId],
        verify: Callable[[NodeId, bytes], None],
    ) -> None:
        """End the round unless enough distinct nodes signed what this node did (M-11, H-10).

        Args:
            signatures: Node and its signature.
            among: Who may have signed.
            verify: Raises AuthenticationError where a signature is not of this node's view.
        """
        signers = [node for node, _ in signatures]
        if signers != sorted(set(signers)) or not set(signers) <= set(among):
            raise self._fault("the co-signers are not distinct nodes of the round")
        if len(signers) < self._setup.cosigners:
            raise self._fault(f"{len(signers)} co-signatures, {self._setup.cosigners} needed")
        for node, signature in signatures:
            try:
                verify(node, signature)
            except AuthenticationError as error:
                raise self._fault(f"showed a false co-signature ({error})") from error

    def _settle(self, contributors: int) -> None:
        """End the round, but for the seeds that may be asked for (X-05).

        Args:
            contributors: Size of the set that this node co-signed and is in.
        """
        dropouts = len(self._setup.cohort) - contributors
        due = self._excess[level_for(dropouts, self._setup.noise_levels) :]
        self._end()
        if due:
            self._phase = self._ANSWERED
            self._excess, self._contributors = due, contributors

    def _on_excess_request(self, message: ExcessRequest, now: float) -> Step:
        if message.contributors != self._contributors:
            raise self._fault(
                f"{message.contributors} contributors, where {self._contributors} are co-signed"
            )
        self._check_view(message.signatures)
        seeds = self._excess
        self._end()
        return self._reply(now, ExcessSeeds(self._setup.round_id, seeds))

    @abstractmethod
    def _check_view(self, signatures: Sequence[tuple[NodeId, bytes]]) -> None:
        """End the round unless these are enough co-signatures of this node's view."""

    def _fault(self, what: str) -> RemoteProtocolError:
        """End the round for this node and blame the coordinator."""
        self._end()
        return RemoteProtocolError(self._coordinator, what)

    @abstractmethod
    def _end(self) -> None:
        """Enter the last phase, and forget what the round was about."""


class PhasedCoordinator(ABC):
    """The coordinator's role; phases are strings, the first "new" and the last "over"."""

    _ACCEPTS: ClassVar[Accepts] = {}
    _CLOSES: ClassVar[Closes] = {}
    _EXCESS: ClassVar[StrEnum]
    """The phase in which the sum is known, and nodes may give back what noise is too much."""
    _phase: StrEnum

    def __init__(self, setup: RoundSetup) -> None:
        self._setup = setup
        self._deadline: float | None = None
        self._waiting: set[NodeId] = set()  # still owe this phase's message
        self._gone: set[NodeId] = set()  # dropped for good: no later phase waits for them
        self._answered: set[NodeId] = set()  # gave it
        self._result: SumReady | None = None  # until the excess is in
        self._excess: dict[NodeId, tuple[bytes, ...]] = {}

    @property
    def phase(self) -> StrEnum:
        """The current phase."""
        return self._phase

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Take a message of a node; see `secagg.roles.CoordinatorRole.receive`."""
        accepted = self._ACCEPTS.get(self._phase)
        if accepted is None or not isinstance(message, accepted[0]):  # M-21, H-17
            raise RemoteProtocolError(sender, f"{type(message).__name__} while {self._phase.value}")
        if message.round_id != self._setup.round_id:
            raise ReplayError(sender, f"{type(message).__name__} of round {message.round_id}")
        if sender in self._answered:
            raise ReplayError(sender, f"a second {type(message).__name__}")
        if sender not in self._waiting:
            raise RemoteProtocolError(sender, f"not in the round while {self._phase.value}")
        try:
            complete = accepted[1](self, sender, message)
        except (Fault, BadUpload, AuthenticationError) as fault:
            self._forget(sender)
            return self._advance(now, PeerBlamed(sender, str(fault)))
        if complete:
            self._waiting.discard(sender)
            self._answered.add(sender)
        return self._advance(now)

    def drop(self, node: NodeId, now: float) -> Step:
        """Stop waiting for `node`, in this phase and in every later one."""
        self._gone.add(node)
        self._forget(node)
        return self._advance(now)

    def on_timeout(self, now: float) -> Step:
        """Close the phase with those who answered, or end turns whose time is up (M-15, H-15)."""
        late = self._late(now)
        for node in late:
            self._forget(node)
        missed = (PeersMissed(self._phase.value, late),) if late else ()
        return self._advance(now, *missed)

    def _advance(self, now: float, *events: Event) -> Step:
        """Give the next nodes their turn, and close the phase if nobody is waited for any more."""
        send = self._give_turns(now)
        if self._waiting or self._phase in (_NEW, _OVER):
            return Step(send, events, self._deadline, done=self._phase == _OVER)
        reason, close = self._CLOSES[self._phase]
        if reason is not None and len(self._answered) < self._needed:  # M-14, H-15
            return self._fail(reason, *events)
        closed = close(self, now)
        events = (*events, *closed.events)
        if self._waiting or closed.done:
            return Step(closed.send, events, closed.deadline, closed.done)
        after = self._advance(now)  # all that the new phase would wait for are gone
        send = Lazy.chain(closed.send, after.send)
        return Step(send, (*events, *after.events), after.deadline, after.done)

    def _enter(self, phase: StrEnum, nodes: Collection[NodeId], deadline: float | None) -> Step:
        self._phase, self._deadline = phase, deadline
        self._waiting, self._answered = set(nodes) - self._gone, set()
        return Step(events=(PhaseEntered(phase.value, tuple(nodes)),), deadline=deadline)

    def _begin(self, phase: StrEnum, now: float) -> Step:
        """Leave "new" for the first phase, in which the nodes train."""
        if self._phase != _NEW:
            raise LocalProtocolError("a coordinator's role starts once")
        return self._enter(phase, self._setup.cohort, now + self._setup.input_timeout)

    def _fail(
        self,
        reason: AbortReason,
        *events: Event,
        alive: int | None = None,
        needed: int | None = None,
    ) -> Step:
        failed = RoundFailed(
            reason,
            len(self._answered) if alive is None else alive,
            self._needed if needed is None else needed,
        )
        self._end()
        return Step(events=(*events, failed), done=True)

    # --- after the sum ---------------------------------------------------------------------------

    def _release(
        self,
        result: SumReady,
        now: float,
        *,
        asked: Iterable[NodeId],
        signatures: Sequence[tuple[NodeId, bytes]],
        events: Sequence[Event] = (),
    ) -> Step:
        """Report the sum, first asking for what noise in it is too much (X-04).

        Args:
            result: The sum.
            now: The time.
            asked: Contributors that have given all they owed.
            signatures: Enough co-signatures of the view that the sum is over.
            events: What else to report.
        """
        self._end()
        self._result = result
        if not self._excess_due(result):
            return self._report(*events)
        nodes = sorted(set(asked) - self._gone)
        contributors = len(result.contributors)
        request = ExcessRequest(self._setup.round_id, contributors, tuple(signatures))
        step = self._enter(self._EXCESS, nodes, now + self._setup.phase_timeout)
        return Step(same(nodes, request), (*events, *step.events), step.deadline)

    def _excess_due(self, result: SumReady) -> int:
        """Return how many components of each node's noise are too many."""
        dropouts = len(self._setup.cohort) - len(result.contributors)
        return excess_count(dropouts, self._setup.noise_levels)

    def _on_excess_seeds(self, sender: NodeId, message: ExcessSeeds) -> bool:
        if self._result is None:
            raise LocalProtocolError("no sum in the phase after it")
        if len(message.seeds) != self._excess_due(self._result):
            raise Fault("it gives other seeds of its noise than it was asked for")
        self._excess[sender] = message.seeds
        return True

    def _close_excess(self, now: float) -> Step:
        del now
        return self._report()

    def _report(self, *events: Event) -> Step:
        if self._result is None:
            raise LocalProtocolError("no sum to report")
        done = replace(self._result, excess=self._excess)
        self._result, self._excess = None, {}
        self._end()
        return Step(events=(*events, done), done=True)

    @property
    @abstractmethod
    def _needed(self) -> int:
        """How many have to answer in this phase."""

    def _late(self, now: float) -> tuple[NodeId, ...]:
        """Return whose time is up."""
        del now
        return tuple(sorted(self._waiting))

    @abstractmethod
    def _give_turns(self, now: float) -> Sequence[Outgoing]:
        """Return what tells nodes that it is their turn, in a phase that has turns."""

    def _forget(self, node: NodeId) -> None:
        """Expect nothing more of a node in this phase."""
        self._waiting.discard(node)

    @abstractmethod
    def _end(self) -> None:
        """Enter the last phase, and forget what is not released."""


def same(nodes: Iterable[NodeId], message: RoundMessage) -> tuple[Outgoing, ...]:
    """Return one message for all nodes."""
    return tuple(Outgoing(node, message) for node in nodes)
