"""`CkksClient` with secret and errors from a vector file, where SEAL would draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.primitives import prg
from secagg.roles import ClientRole
from secagg.round_setup import RoundSetup
from tests.vectors.real import Encapsulate, RealNode, TestIdentity
from tests.vectors.slow import COORDINATOR, Reply

__all__ = ["RealCkksNode", "encrypt_with"]

_SPARE: Final = 4096  # bytes, for words that are left out


class RealCkksNode(RealNode):
    """`CkksClient` of a node in a vector file.

    Args:
        setup: The round.
        name: Its id.
        node: Its entry in the vector file.
        encapsulate: (member, its ML-KEM key) to (secret, capsule).
    """

    def __init__(
        self, setup: RoundSetup, name: str, *, node: Mapping[str, Any], encapsulate: Encapsulate
    ) -> None:
        self._secret = _small(node["secret"])
        self._errors = np.stack([_small(block) for block in node["errors"]])

        def role(draw: Callable[[int], bytes]) -> ClientRole:
            return CkksClient(
                setup,
                np.array(node["input"], dtype=np.uint32),
                TestIdentity(name, bytes.fromhex(node["identity"])),
                coordinator=COORDINATOR,
                rng=draw,
                distance=node.get("distance"),
            )

        stream = bytes.fromhex(node["agreement"]) + _words(setup, bytes.fromhex(node["sharing"]))
        super().__init__(role, stream=stream, encapsulate=encapsulate)

    def receive(self, sender: str, data: bytes) -> Reply:
        with _drawing(self._secret, self._errors):
            return super().receive(sender, data)


def encrypt_with(
    secret: rlwe.Secret, message: NDArray[np.int64], errors: NDArray[np.int64], seed: bytes
) -> rlwe.Residues:
    """Return c = −a·s + e + m, in the form of `rlwe.Secret.encrypt`, with these errors."""
    ring = secret.ring
    nothing = np.zeros(message.shape, dtype=np.uint64)
    product = rlwe.open_sum(ring, secret, nothing, seed)  # a·s
    clear = ring.residues_of(message + errors) + ring.residues_of(-product)
    return ring.context.transform(clear % np.uint64(ring.modulus), forward=True)


@contextmanager
def _drawing(secret: NDArray[np.int64], errors: NDArray[np.int64]) -> Iterator[None]:
    def fresh(ring: rlwe.Ring, terms: int) -> rlwe.Secret:
        assert np.abs(secret).max() <= terms
        return rlwe.Secret.from_coefficients(ring, secret)

    def encrypt(
        self: rlwe.Secret, message: NDArray[np.int64], seed: bytes, *, error_terms: int
    ) -> rlwe.Residues:
        assert np.abs(errors).max() <= rlwe.ERROR_BOUND * error_terms
        return encrypt_with(self, message, errors, seed)

    with (
        patch.object(rlwe.Secret, "fresh", fresh),
        patch.object(rlwe.Secret, "encrypt", encrypt),
    ):
        yield


def _small(text: str) -> NDArray[np.int64]:
    return np.frombuffer(bytes.fromhex(text), np.int8).astype(np.int64)


def _words(setup: RoundSetup, seed: bytes) -> bytes:
    """Return the keystream that a node's sharing draws its words from."""
    assert setup.ckks is not None
    elements = setup.ckks.committee.threshold * setup.ckks.share_length
    stream = np.zeros(elements + _SPARE // 4, dtype=np.uint32)
    prg.accumulate(stream, seed)
    return stream.astype("<u4").tobytes()
