"""Faults for `Fleet.play`, and recorded rounds that can be replayed up to any message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from secagg.roles import ClientRole, CoordinatorRole, Scheme
from secagg.types import NodeId, RoundSetup
from secagg.wire.messages import (
    KeyAdvert,
    MaskedChunk,
    Message,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import COORDINATOR, Fault, Fleet, TestSigner, faithful
from tests.support.randomness import InsecureLabelledRng

EXCHANGES: tuple[type[Message], ...] = (
    KeyAdvert,
    SealedShares,
    MaskedChunk,
    SurvivorSignature,
    UnmaskAnswer,
)
"""What a node sends under masking, in order."""


def deaths(before: Mapping[NodeId, type[Message]]) -> Fault:
    """Return a fault that takes each node away just before it sends a message of that type."""
    dead: set[NodeId] = set()

    def fault(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
        if sender in before and isinstance(message, before[sender]):
            dead.add(sender)
        return [] if dead & {sender, receiver} else [message]

    return fault


def repeated(kind: type[Message], node: NodeId) -> Fault:
    """Return a fault that delivers each message of that type of `node` twice."""

    def fault(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
        del receiver
        again = sender == node and isinstance(message, kind)
        return [message, message] if again else [message]

    return fault


def rewritten(
    change: Callable[[NodeId, NodeId, Message], Message | None],
) -> Fault:
    """Return a fault that sends what `change` returns, or the message itself where that is None."""

    def fault(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
        changed = change(sender, receiver, message)
        return [message if changed is None else changed]

    return fault


@dataclass
class Recording:
    """A round of `scheme`, and fresh roles that have lived through part of it."""

    scheme: Scheme
    setup: RoundSetup
    seed: int = 1
    fault: Fault = faithful
    to_coordinator: list[tuple[NodeId, Message]] = field(default_factory=list)
    to_client: dict[NodeId, list[Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def note(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
            arriving = self.fault(sender, receiver, message)
            for one in arriving:
                if receiver == COORDINATOR:
                    self.to_coordinator.append((sender, one))
                else:
                    self.to_client.setdefault(receiver, []).append(one)
            return arriving

        self.fleet = Fleet(self.scheme, self.setup, seed=self.seed)
        self.outcome = self.fleet.play(note)

    def coordinator(self, n_messages: int) -> CoordinatorRole:
        """Return a coordinator that has received the first `n_messages`."""
        role = self.scheme.coordinator(self.setup)
        role.start(0.0)
        for sender, message in self.to_coordinator[:n_messages]:
            role.receive(sender, message, 0.0)
        return role

    def client(self, node: NodeId, n_messages: int) -> ClientRole:
        """Return the client of `node` after its start and its first `n_messages`."""
        role = self.scheme.client(
            self.setup,
            self.fleet.inputs[node],
            TestSigner(node),
            coordinator=COORDINATOR,
            rng=InsecureLabelledRng(self.seed, node),
        )
        role.start(0.0)
        for message in self.to_client.get(node, [])[:n_messages]:
            role.receive(message, 0.0)
        return role


def snapshot(value: object) -> object:
    """Return a comparable picture of a role's whole state."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return {str(key): snapshot(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, list | tuple):
        return [snapshot(item) for item in value]
    if type(value).__module__.startswith("secagg") and hasattr(value, "__dict__"):
        return {key: snapshot(item) for key, item in vars(value).items()}
    return repr(value)


def secrets_of(client: object) -> Iterator[bytes]:
    """Yield every secret byte string that a masking client holds."""
    for name, value in vars(client).items():
        if name in ("_round_secret", "_self_seed"):
            yield value
        elif name in ("_mask_key", "_share_key"):
            yield value.private_bytes_raw()
        elif name == "_held":
            for pair in value.values():
                yield from pair
