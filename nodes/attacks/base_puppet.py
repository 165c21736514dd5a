"""What puppet coordinators of all schemes have in common: the nodes, and how they are spoken to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

import numpy as np

from nodes.attacks.knowledge import VALUE_BITS
from nodes.attacks.report import Played
from nodes.ephemeral import EphemeralIdentity
from secagg.errors import RemoteProtocolError
from secagg.roles import ClientRole
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import NodeId, RingVector
from secagg.wire.codec import decode, encode
from secagg.wire.messages import Message

__all__ = ["COORDINATOR", "BasePuppet", "inputs_for", "new_identities", "true_inputs"]

COORDINATOR = "coordinator"


def new_identities(n: int) -> dict[NodeId, EphemeralIdentity]:
    """Return `n` nodes with fresh keys."""
    names = [f"node-{index:02d}" for index in range(n)]
    return {name: EphemeralIdentity(name) for name in names}


def true_inputs(nodes: Collection[NodeId], dim: int, seed: int) -> dict[NodeId, RingVector]:
    """Draw every node's input: uniform in 16 bits, so that a lucky guess is no match."""
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, 1 << VALUE_BITS, dim).astype(np.uint32) for n in sorted(nodes)}


def inputs_for(setup: RoundSetup, seed: int) -> dict[NodeId, RingVector]:
    """Draw the inputs of a round; under `ckks` they are signed, around zero."""
    drawn = true_inputs(setup.cohort, setup.dim, seed)
    if setup.ckks is None:
        return drawn
    half, mask = np.uint32(1 << (VALUE_BITS - 1)), np.uint32((1 << setup.ring_bits) - 1)
    return {node: (vector - half) & mask for node, vector in drawn.items()}


class BasePuppet(ABC):
    """Holds the real state machines of all nodes.

    Args:
        setup: The round.
        identities: Who signs.
        seed: Of the inputs.
        accomplices: How many nodes, the last ones, are the attacker's.
    """

    clients: dict[NodeId, ClientRole]

    def __init__(
        self,
        setup: RoundSetup,
        identities: Mapping[NodeId, EphemeralIdentity],
        *,
        seed: int,
        accomplices: int,
    ) -> None:
        self.setup, self.identities = setup, identities
        self.nodes = setup.cohort
        self.accomplices = self.nodes[len(self.nodes) - accomplices :]
        self.inputs = inputs_for(setup, seed)
        self.faults: dict[NodeId, RemoteProtocolError] = {}
        self.blamed: set[str] = set()

    @property
    def victim(self) -> NodeId:
        """The node that the attacker is after."""
        return self.nodes[0]

    @property
    def alive(self) -> tuple[NodeId, ...]:
        """Nodes that have not left the round."""
        return tuple(node for node in self.nodes if node not in self.faults)

    def tell(self, node: NodeId, message: Message) -> list[Message]:
        """Send one message to a node, as bytes; a node that objects leaves the round."""
        if node in self.faults:
            return []
        received = decode(encode(message), sender=COORDINATOR)
        try:
            step = self.clients[node].receive(received, 0.0)
        except RemoteProtocolError as fault:
            self.faults[node] = fault
            self.blamed |= {fault.peer} - {node}
            return []
        for event in step.events:
            if isinstance(event, PeerBlamed):
                self.blamed.add(event.peer if event.certain else f"{event.peer} (in doubt)")
        return [decode(encode(out.message), sender=node) for out in step.send]

    def outcome(self, released: int) -> str:
        """Say how the round ended, given over how many inputs one sum was opened by right."""
        if self.faults:
            first = self.faults[min(self.faults)]
            return f"{len(self.faults)} nodes leave: {type(first).__name__}: {first.fault}"
        return f"one sum over {released} inputs" if released else "nothing opens"

    @abstractmethod
    def until_upload(self) -> None:
        """Do as an honest coordinator would until all inputs are in."""

    @abstractmethod
    def finish(self) -> None:
        """Go on as an honest coordinator would, to the end."""

    @abstractmethod
    def judge(self, elsewhere: str) -> Played:
        """Return how the play went, from what the attacker really can compute."""
