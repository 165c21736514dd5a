"""The one interface of every scheme: a client and a coordinator as state machines.

A scheme sums integer vectors modulo 2^b and returns the same bits as plain addition. What it
needs to get there (four exchanges for masking, two for CKKS) is its own affair, so the shared
thing is the role, not an algebra. Rules of both roles:

* Time and randomness are arguments; all output is in the returned `Step`.
* A client speaks only when spoken to and gives one input and one answer per round, ever.
* `receive` raises `RemoteProtocolError` when a message changes nothing (out of phase, a
  duplicate); a message that costs its sender its place is a `PeerBlamed` event instead.
* Any bytes in any phase give a `Step` or a `RemoteProtocolError`, never anything else.
"""

from __future__ import annotations

from typing import Protocol

from secagg.round_setup import RoundSetup
from secagg.steps import Step
from secagg.types import NodeId, RingVector, Rng, Signer, Weigh
from secagg.wire.messages import Message

__all__ = ["ClientRole", "CoordinatorRole", "Scheme"]


class ClientRole(Protocol):
    """One node in one round."""

    def start(self, now: float) -> Step:
        """Begin; called once, after local training."""
        ...

    def receive(self, message: Message, now: float) -> Step:
        """Take a message from the coordinator.

        Raises:
            RemoteProtocolError: the coordinator broke the protocol; the role is finished.
        """
        ...

    def on_timeout(self, now: float) -> Step:
        """Give the round up: the coordinator has been silent past the deadline."""
        ...


class CoordinatorRole(Protocol):
    """The coordinator in one round."""

    def start(self, now: float) -> Step:
        """Begin to wait for the cohort."""
        ...

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Take a message from an authenticated node.

        Raises:
            RemoteProtocolError: the message changed nothing and its sender is to blame.
        """
        ...

    def drop(self, node: NodeId, now: float) -> Step:
        """Stop waiting for a node that is known to be gone or has refused."""
        ...

    def on_timeout(self, now: float) -> Step:
        """Close the phase with those who answered."""
        ...


class Scheme(Protocol):
    """A way to sum vectors of many nodes."""

    @property
    def name(self) -> str:
        """The name in offers and configuration files."""
        ...

    @property
    def private(self) -> bool:
        """Whether the coordinator is kept from reading one node's input."""
        ...

    def check(self) -> None:
        """Raise ConfigError if this machine lacks what the scheme needs."""
        ...

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
        excess: tuple[bytes, ...] = (),
    ) -> ClientRole:
        """Return the role of the node that `signer` names, with its input.

        `distance` is its consistency distance, given just where the coordinator weighs; `excess`
        the seeds of components 1, 2, … of the noise in `vector`, one for each of
        `setup.noise_levels` but the first (specs/55-excess-noise.md). They are secret.
        """
        ...

    def coordinator(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> CoordinatorRole:
        """Return the coordinator's role; `weigh` gives the weights, just where it weighs."""
        ...
