"""The usual way of homomorphic aggregation, for comparison: one CKKS key, copied to every client.

Real keys, ciphertexts and decryption by SEAL through TenSEAL: a ring of 8192, primes of 60, 40 and
40 bits, scale 2^40, as tutorials and frameworks have it. The coordinator holds every upload, and
every client the key; so the coordinator and any client together read all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.knowledge import compared
from nodes.attacks.report import NOTHING, Attack, Played
from secagg import ring
from secagg.ckks.seal import load_libraries
from secagg.types import NodeId, RingVector

__all__ = ["SHARED_KEY_ATTACK", "SharedKeyRound"]

_DEGREE: Final = 8192
_PRIME_BITS: Final = (60, 40, 40)
_SCALE: Final = 2.0**40
_SHOWN: Final = 3
"""Values that are shown of what was read."""


class SharedKeyRound:
    """A round in which every client encrypts under the same key.

    Args:
        inputs: Node to its input, modulo 2^bits.
        bits: Of the inputs.
    """

    def __init__(self, inputs: Mapping[NodeId, RingVector], bits: int) -> None:
        self._api, _ = load_libraries()
        parameters = self._api.EncryptionParameters(self._api.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(_DEGREE)
        parameters.set_coeff_modulus(self._api.CoeffModulus.Create(_DEGREE, list(_PRIME_BITS)))
        level = self._api.SEC_LEVEL_TYPE.TC128
        self._context = self._api.SEALContext(parameters, True, level)
        self._encoder = self._api.CKKSEncoder(self._context)
        self._bits = bits
        key = self._api.KeyGenerator(self._context).secret_key()
        self.clients: dict[NodeId, Any] = dict.fromkeys(inputs, key)
        """Node to the key that it holds: the same one for all."""
        self.uploads = {node: self._encrypt(x, self.clients[node]) for node, x in inputs.items()}
        """Node to what the coordinator gets of it."""

    def _encrypt(self, vector: RingVector, key: Any) -> list[Any]:
        encryptor = self._api.Encryptor(self._context, key)
        values = ring.to_signed(vector, self._bits).astype(float)
        slots, upload = _DEGREE // 2, []
        for start in range(0, len(values), slots):
            plaintext, ciphertext = self._api.Plaintext(), self._api.Ciphertext()
            self._encoder.encode(values[start : start + slots].tolist(), _SCALE, plaintext)
            encryptor.encrypt_symmetric(plaintext, ciphertext)
            upload.append(ciphertext)
        return upload

    def read(self, victim: NodeId, accomplice: NodeId, dim: int) -> RingVector:
        """Return what the key of a client makes of the upload of another, shape (dim,)."""
        decryptor = self._api.Decryptor(self._context, self.clients[accomplice])
        values: list[float] = []
        for ciphertext in self.uploads[victim]:
            plaintext = self._api.Plaintext()
            decryptor.decrypt(ciphertext, plaintext)
            values += self._encoder.decode_double(plaintext)
        rounded = np.rint(np.array(values[:dim])).astype(np.int64)
        result: RingVector = (rounded & ((1 << self._bits) - 1)).astype(np.uint32)
        return result


def _shared_key(n: int, dim: int, seed: int) -> Played:
    """Let a coordinator and one client put together what they hold, in both settings."""
    puppet = CkksPuppet(n, dim, seed, accomplices=1)
    bits, victim = puppet.setup.ring_bits, puppet.victim
    usual = SharedKeyRound(puppet.inputs, bits)
    guess = usual.read(victim, puppet.accomplices[0], dim)
    match = compared({victim: 1}, guess, puppet.inputs, bits, tries=1)
    elsewhere = NOTHING
    if match is not None:
        first = ", ".join(str(x) for x in ring.to_signed(guess, bits)[:_SHOWN])
        elsewhere = f"the usual way, for comparison: {match}: {first}, …"
    puppet.until_upload()
    puppet.finish()
    return puppet.judge(elsewhere)


SHARED_KEY_ATTACK: Final = Attack(
    "shared-key",
    "coordinator and nodes",
    "put together what the coordinator and one client hold; elsewhere is, for comparison, the "
    "usual way: one CKKS key copied to every client",
    ("H-06",),
    _shared_key,
)
