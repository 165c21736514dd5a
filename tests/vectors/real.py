"""The state machines of `secagg` in the dress of the slow ones: bytes in, bytes and events out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secagg import steps
from secagg.ckks.coordinator import CkksCoordinator
from secagg.errors import AuthenticationError, DecodeError, RemoteProtocolError, ReplayError
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.primitives import kem
from secagg.roles import ClientRole, CoordinatorRole
from secagg.round_setup import RoundSetup
from secagg.wire.codec import decode, encode
from tests.vectors.ckks_terms import ckks_terms
from tests.vectors.slow import COORDINATOR, Refused, Reply

__all__ = [
    "Encapsulate",
    "RealCoordinator",
    "RealMaskingNode",
    "RealNode",
    "TestIdentity",
    "layer_of",
    "setup_of",
]

LAYERS: Final = (
    (DecodeError, "decode"),
    (AuthenticationError, "authentication"),
    (ReplayError, "replay"),
    (RemoteProtocolError, "protocol"),
)
Encapsulate = Callable[[str, bytes], tuple[bytes, bytes]]


def layer_of(error: RemoteProtocolError) -> str:
    """Return the layer that an error class stands for."""
    return next(layer for kind, layer in LAYERS if isinstance(error, kind))


class TestIdentity:
    """An Ed25519 identity from its 32 private bytes."""

    __test__ = False

    def __init__(self, node_id: str, private: bytes) -> None:
        self.node_id = node_id
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def setup_of(setup: Mapping[str, Any]) -> RoundSetup:
    """Return the checked set-up of a vector file."""
    values = {name: value for name, value in setup.items() if name != "weights"}
    for name in ("run_id", "offer_hash"):
        values[name] = bytes.fromhex(setup[name])
    values["cohort"] = tuple(setup["cohort"])
    values["signing_keys"] = {
        node: bytes.fromhex(key) for node, key in setup["signing_keys"].items()
    }
    if "ckks" in setup:
        values["ckks"] = ckks_terms(setup)
        del values["value_bits"]
        values |= {"threshold": 1, "neighbours": 1}  # of masking
    return RoundSetup(**values)


class RealNode:
    """A client with all that it draws taken from a vector file.

    Args:
        role: Makes the client, given its source of randomness.
        stream: What that source gives.
        encapsulate: (receiver, its ML-KEM key) to (secret, capsule).
    """

    def __init__(
        self,
        role: Callable[[Callable[[int], bytes]], ClientRole],
        *,
        stream: bytes,
        encapsulate: Encapsulate,
    ) -> None:
        self._stream, self._encapsulate = stream, encapsulate
        self._role = role(self._draw)

    def _draw(self, size: int) -> bytes:
        drawn, self._stream = self._stream[:size], self._stream[size:]
        assert len(drawn) == size, "the role draws more than the vector file holds"
        return drawn

    def _checked(self, peer: str, key: bytes) -> tuple[bytes, bytes]:
        kem.check_public(peer, key)  # as the function does that this one stands in for
        return self._encapsulate(peer, key)

    def start(self) -> Reply:
        return _reply(self._role.start(0.0))

    def receive(self, sender: str, data: bytes) -> Reply:
        with patch.object(kem, "encapsulate", self._checked):
            return _guarded(lambda: self._role.receive(decode(data, sender=sender), 0.0))


class RealMaskingNode(RealNode):
    """`MaskingClient` of a node in a vector file.

    Args:
        setup: The round.
        name: Its id.
        node: Its entry in the vector file.
        encapsulate: (receiver, its ML-KEM key) to (secret, capsule).
    """

    def __init__(
        self, setup: RoundSetup, name: str, *, node: Mapping[str, Any], encapsulate: Encapsulate
    ) -> None:
        drawn = [node[key] for key in ("round_secret", "self_seed", "coin_seed", "agreement")]
        drawn += [*node["round_polynomial"], *node["self_polynomial"]]

        def role(draw: Callable[[int], bytes]) -> ClientRole:
            return MaskingClient(
                setup,
                np.array(node["input"], dtype=np.uint32),
                TestIdentity(name, bytes.fromhex(node["identity"])),
                coordinator=COORDINATOR,
                rng=draw,
            )

        stream = bytes.fromhex("".join(drawn))
        super().__init__(role, stream=stream, encapsulate=encapsulate)


class RealCoordinator:
    """The coordinator of a round, with a clock of its own.

    Args:
        setup: The round.
        weights: What it gives to nodes, where it weighs them.
    """

    def __init__(self, setup: RoundSetup, weights: Mapping[str, int] | None = None) -> None:
        self._now = 0.0
        self.role: CoordinatorRole = (
            MaskingCoordinator(setup)
            if setup.ckks is None
            else CkksCoordinator(
                setup,
                weigh=lambda nodes: {node: (weights or {})[node] for node in nodes},
            )
        )

    def start(self) -> Reply:
        return _reply(self.role.start(self._now))

    def receive(self, sender: str, data: bytes) -> Reply:
        return _guarded(lambda: self.role.receive(sender, decode(data, sender=sender), self._now))

    def on_timeout(self) -> Reply:
        self._now += 1000.0
        return _reply(self.role.on_timeout(self._now))


def _guarded(receive: Callable[[], steps.Step]) -> Reply:
    try:
        return _reply(receive())
    except RemoteProtocolError as error:
        raise Refused(layer_of(error), error.peer) from error


def _reply(step: steps.Step) -> Reply:
    reply = Reply([(out.to, encode(out.message)) for out in step.send])
    for event in step.events:
        match event:
            case steps.PhaseEntered():
                reply.events.append(["entered", event.phase])
            case steps.PeerBlamed():
                reply.events.append(["blamed", event.peer])
            case steps.PeersMissed():
                reply.events.append(["missed", event.phase, list(event.peers)])
            case steps.RoundFailed():
                reply.events.append(["failed", str(event.reason)])
            case steps.ViewFixed():
                reply.events.append(["view", event.digest.hex()])
            case steps.SumReady():
                weights = [list(event.weights)] if set(event.weights) != {1} else []
                reply.events.append(["sum", list(event.contributors), *weights])
                reply.total = event.total.tolist()
            case _:
                raise TypeError(event)
    return reply
