"""Faults for `Fleet.play`, and recorded rounds that can be replayed up to any message."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from secagg.ckks.client import CkksClient
from secagg.masking.client import MaskingClient
from secagg.masking.pairs import NodeKeys, PairSecret
from secagg.roles import ClientRole, CoordinatorRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.codec import encode
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    SealedSecret,
    SealedShares,
    SumShare,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import COORDINATOR, Fault, Fleet, faithful

EXCHANGES: tuple[type[Message], ...] = (
    KeyAdvert,
    Encapsulations,
    SealedShares,
    MaskedChunk,
    SurvivorSignature,
    UnmaskAnswer,
)
"""What a node sends under masking on the complete graph, in order."""
SPARSE_EXCHANGES: tuple[type[Message], ...] = (EXCHANGES[0], Coin, *EXCHANGES[1:])
"""The same on a sparse graph."""
CKKS_EXCHANGES: tuple[type[Message], ...] = (
    Announcement,
    SealedSecret,
    CipherChunk,
    SurvivorSignature,
    SumShare,
)
"""What a node of the committee sends under ckks, in order."""


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


class RecordedKeys(NodeKeys):
    """A node's keys that encapsulate alike whenever they are asked alike.

    ML-KEM draws its own randomness, so a client that lives through a round a second time would
    otherwise send other capsules than those that the rest of the recording follows from.
    """

    def __init__(self, keys: NodeKeys, book: dict[object, tuple[PairSecret, bytes]]) -> None:
        vars(self).update(vars(keys))
        self._book = book

    def initiate(self, peer: KeyAdvert, binding: Sequence[bytes]) -> tuple[PairSecret, bytes]:
        asked = (self._node, encode(peer), *binding)
        if asked not in self._book:
            self._book[asked] = super().initiate(peer, binding)
        return self._book[asked]


@dataclass
class Recording:
    """A round of `scheme`, and fresh roles that have lived through part of it."""

    scheme: Scheme
    setup: RoundSetup
    seed: int = 1
    fault: Fault = faithful
    to_coordinator: list[tuple[NodeId, Message]] = field(default_factory=list)
    to_client: dict[NodeId, list[Message]] = field(default_factory=dict)
    _book: dict[object, tuple[PairSecret, bytes]] = field(default_factory=dict)

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
        self.setup = self.fleet.setup
        for role in self.fleet.clients.values():
            self._recorded(role)
        self.outcome = self.fleet.play(note)

    def _recorded(self, role: ClientRole) -> ClientRole:
        if isinstance(role, MaskingClient):
            role._keys = RecordedKeys(role._keys, self._book)
        return role

    def coordinator(self, n_messages: int) -> CoordinatorRole:
        """Return a coordinator that has received the first `n_messages`."""
        weigh = self.fleet.weigh if self.setup.coordinator_weighs else None
        role = self.scheme.coordinator(self.setup, weigh=weigh)
        role.start(0.0)
        for sender, message in self.to_coordinator[:n_messages]:
            role.receive(sender, message, 0.0)
        return role

    def client(self, node: NodeId, n_messages: int) -> ClientRole:
        """Return the client of `node` after its start and its first `n_messages`."""
        role = self._recorded(self.fleet.client(node))
        role.start(0.0)
        for message in self.to_client.get(node, [])[:n_messages]:
            role.receive(message, 0.0)
        return role


def snapshot(value: object) -> object:
    """Return a comparable picture of a role's whole state."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, msgspec.Struct):
        return encode(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return {str(key): snapshot(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, list | tuple | deque):
        return [snapshot(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: snapshot(getattr(value, each.name)) for each in dataclasses.fields(value)
        }
    if type(value).__module__.startswith("secagg") and hasattr(value, "__dict__"):
        return {key: snapshot(item) for key, item in vars(value).items()}
    return repr(value)


def secrets_of(client: object) -> Iterator[bytes]:
    """Yield every secret byte string that a client holds."""
    yield from getattr(client, "_excess", ())
    if isinstance(client, CkksClient):
        yield from _secrets_of_ckks(client)
        return
    for name, value in vars(client).items():
        if name in ("_round_secret", "_self_seed", "_coin_seed"):
            yield value
        elif name == "_keys":
            yield value._keys._agreement.private_bytes_raw()
            yield value._keys._kem.private_bytes_raw()
        elif name == "_pairs":
            for pair in value.values():
                yield from (pair.mask_seed, pair._root)
        elif name == "_held":
            for shares in value.values():
                yield from shares


def _secrets_of_ckks(client: CkksClient) -> Iterator[bytes]:
    if client._keys is not None:
        yield client._keys._agreement.private_bytes_raw()
        yield client._keys._kem.private_bytes_raw()
    if client._own is not None:
        yield client._own.tobytes()
    if client._message.size:
        yield client._message.tobytes()
    if client._member is not None:
        yield client._member._total.tobytes()
