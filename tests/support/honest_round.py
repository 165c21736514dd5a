"""An honest round of five nodes, replayed up to any message, and what to tell a node instead."""

from __future__ import annotations

import pytest

from secagg.errors import RemoteProtocolError
from secagg.masking import adverts
from secagg.masking.client import MaskingClient, Phase
from secagg.primitives import kem
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.wire.messages import (
    KeyAdvert,
    Message,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    Survivors,
    UnmaskRequest,
    UploadTurn,
)
from tests.support.fleet import COORDINATOR, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.scripts import Recording

SETUP = make_setup(5, dim=70)
SPARSE = make_setup(12, dim=8, neighbours=4, threshold=5, colluders=1, quorum=8)
ROUND = Recording(SCHEMES["masking"], SETUP)
ME, OTHER = "node-0002", "node-0004"
RECEIVED: tuple[type[Message], ...] = (
    PeerKeys,
    PeerEncapsulations,
    PeerShares,
    UploadTurn,
    Survivors,
    UnmaskRequest,
)
"""What a node is told in a round on the complete graph, in order."""
STAGE = {kind: stage for stage, kind in enumerate(RECEIVED)}


def client_before(kind: type[Message]) -> tuple[MaskingClient, Message]:
    """Return a client that awaits a message of `kind`, and the honest one."""
    client = ROUND.client(ME, STAGE[kind])
    assert isinstance(client, MaskingClient)
    return client, ROUND.to_client[ME][STAGE[kind]]


def refuses(client: MaskingClient, message: Message, match: str) -> None:
    """Check that a client blames the coordinator for a message, and that its round is over."""
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        client.receive(message, 0.0)
    assert caught.value.peer == COORDINATOR
    assert client.phase is Phase.OVER
    with pytest.raises(RemoteProtocolError):
        client.receive(message, 0.0)


def with_advert(message: PeerKeys, new: KeyAdvert) -> PeerKeys:
    """Return a consistent lie: another advert of a node, with the digest that belongs to it."""
    node = new.node_id
    changed_adverts = tuple(new if a.node_id == node else a for a in message.adverts)
    digest = adverts.advert_digest(new)
    digests = tuple((n, digest if n == node else d) for n, d in message.digests)
    return changed(message, adverts=changed_adverts, digests=digests)  # type: ignore[return-value]


def without(message: PeerKeys, *nodes: str) -> PeerKeys:
    """Return a consistent list of keys without those of `nodes`."""
    return changed(
        message,
        digests=tuple(pair for pair in message.digests if pair[0] not in nodes),
        adverts=tuple(advert for advert in message.adverts if advert.node_id not in nodes),
    )


def advert_of(setup: RoundSetup, node: str, **keys: bytes) -> KeyAdvert:
    """Return a validly signed advert of a node, for any round."""
    base = {"agreement_key": b"\x09" + bytes(31)}
    base["kem_key"] = kem.public_key(kem.private_key(bytes(64)))
    return adverts.make_advert(
        setup, TestSigner(node), **{**base, **keys}, commitments=(b"r" * 32, b"s" * 32, b"c" * 32)
    )
