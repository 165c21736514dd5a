"""The algebra of the scheme: c_j = -a_j·s + e_j + m_j, opened by the sum of all s.

All is modulo X^N + 1 and one prime q. The a_j are public. Each node draws a secret s for the round
and encrypts one vector, block by block; sums of ciphertexts, weighted by small integers, open under
the equally weighted sum of the secrets: Σ w·c + a·Σ w·s = Σ w·m + Σ w·e, exactly.

Ciphertexts are in SEAL's NTT form, where a product of polynomials goes residue by residue.
Messages, secrets and what is opened are coefficients.

Source: specs/35-ckks-parameters.md; Cheon et al. 2017 (CKKS); Lyubashevsky, Peikert and Regev 2010
(RLWE).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.ring import Ring, add, pack, packed_size, unpack
from secagg.ckks.seal import ERROR_BOUND, Channel, Residues
from secagg.errors import LocalProtocolError

__all__ = [
    "ERROR_BOUND",
    "Residues",
    "Ring",
    "Secret",
    "add",
    "open_sum",
    "pack",
    "packed_size",
    "unpack",
]

_MAX_TERMS: Final = 64


@dataclass(eq=False, slots=True)
class Secret:
    """A short secret s: one node's, or the sum that opens a sum.

    A node's secret encrypts once: a second message under the same public elements would show the
    difference of the two.
    """

    ring: Ring
    coefficients: NDArray[np.int64] = field(repr=False)
    """Shape (N,), read-only; within ± the number of terms where the secret is fresh."""
    _key: Any = field(repr=False)
    _spent: bool = field(default=False, init=False, repr=False)

    @classmethod
    def fresh(cls, ring: Ring, terms: int) -> Secret:
        """Return the sum of `terms` of SEAL's keys, each coefficient uniform on -1, 0, 1.

        SEAL draws from its own generator, seeded by the operating system.

        Raises:
            LocalProtocolError: `terms` is not 1 to 64.
        """
        if not 1 <= terms <= _MAX_TERMS:
            raise LocalProtocolError(f"a secret is the sum of 1 to {_MAX_TERMS} keys, not {terms}")
        context = ring.context
        keys = np.zeros((1, ring.degree), dtype=np.uint64)
        with Channel(context) as channel:
            for _ in range(terms):
                key = context.api.KeyGenerator(context.handle).secret_key()
                add(keys, channel.read(key, 1), ring)
        coefficients = ring.centred(context.transform(keys, forward=False))[0]
        return cls._of(ring, coefficients, keys)

    @classmethod
    def from_coefficients(cls, ring: Ring, coefficients: NDArray[np.int64]) -> Secret:
        """Return the secret with these coefficients, shape (N,), within ±q/2.

        Raises:
            LocalProtocolError: the shape, the type or a value is wrong.
        """
        if coefficients.shape != (ring.degree,):
            raise LocalProtocolError(f"a secret has {ring.degree} coefficients")
        ring.check_small(coefficients, "a secret")
        residues = ring.residues_of(coefficients)[np.newaxis]
        keys = ring.context.transform(residues, forward=True)
        return cls._of(ring, coefficients.copy(), keys)

    @classmethod
    def _of(cls, ring: Ring, coefficients: NDArray[np.int64], keys: Residues) -> Secret:
        coefficients.flags.writeable = False
        frame = ring.context.key_frame()
        frame.residues[:] = keys
        with Channel(ring.context) as channel:
            key = channel.load(ring.context.api.SecretKey(), frame)
        return cls(ring, coefficients, key)

    def encrypt(self, message: NDArray[np.int64], seed: bytes, *, error_terms: int = 1) -> Residues:
        """Return c_j = -a_j·s + e_j + m_j for every block, in NTT form.

        SEAL encrypts zero as (-a'·s + e, a') with an a' of its own; (m_j, -a_j) added to it and
        decrypted under s is c_j. Several such encryptions are added where weights need more error.

        Args:
            message: Shape (blocks, N), int64, within ±q/2. Leave room for the other nodes'.
            seed: 32 bytes, of the round's public elements.
            error_terms: How many of SEAL's errors e_j is the sum of (R-03), 1 to 64.

        Returns:
            Shape (blocks, N), residues below q.

        Raises:
            LocalProtocolError: a shape, a type or a value is wrong, or this secret has encrypted
                before.
        """
        if not 1 <= error_terms <= _MAX_TERMS:
            raise LocalProtocolError(f"an error is the sum of 1 to {_MAX_TERMS}, not {error_terms}")
        ring, context = self.ring, self.ring.context
        if message.ndim != 2 or message.shape[1] != ring.degree:
            raise LocalProtocolError(f"a message has blocks of {ring.degree} coefficients")
        ring.check_small(message, "a message")
        if self._spent:
            raise LocalProtocolError("a secret encrypts once: draw a fresh one")
        elements = ring.public_elements(seed, len(message))
        self._spent = True
        negative = ring.residues_of(-message)
        encryptor = context.api.Encryptor(context.handle, self._key)
        decryptor = context.api.Decryptor(context.handle, self._key)
        ciphertext, shift = context.api.Ciphertext(), context.api.Ciphertext()
        plaintext = context.api.Plaintext()
        frame = context.ciphertext_frame(2, ntt=False)
        result = np.empty(message.shape, dtype=np.uint64)
        with Channel(context) as channel:
            for j in range(len(message)):
                frame.residues[0], frame.residues[1] = negative[j], elements[j]
                channel.load(shift, frame)
                context.evaluator.transform_to_ntt_inplace(shift)
                for _ in range(error_terms - 1):
                    encryptor.encrypt_zero_symmetric(ciphertext)
                    context.evaluator.sub_inplace(shift, ciphertext)
                encryptor.encrypt_zero_symmetric(ciphertext)
                context.evaluator.sub_inplace(ciphertext, shift)
                decryptor.decrypt(ciphertext, plaintext)
                result[j] = channel.read(plaintext, 1)
        return result


def open_sum(ring: Ring, secret_sum: Secret, total: Residues, seed: bytes) -> NDArray[np.int64]:
    """Return Σ m + Σ e, exact as long as it is within ±q/2.

    Args:
        ring: The ring of all of them.
        secret_sum: Σ s over the nodes in `total`, by the same weights.
        total: Σ c by `add`, shape (blocks, N), NTT form.
        seed: 32 bytes, of the round's public elements.

    Returns:
        Shape (blocks, N), of least magnitude modulo q. Noise if the secret is not the right one.

    Raises:
        LocalProtocolError: a shape or a residue is wrong.
    """
    ring.check_residues(total, "a sum of ciphertexts")
    if total.max(initial=0) >= ring.modulus:
        raise LocalProtocolError("a sum of ciphertexts: not reduced")
    context = ring.context
    elements = ring.public_elements(seed, len(total))
    decryptor = context.api.Decryptor(context.handle, secret_sum._key)
    product, plaintext = context.api.Ciphertext(), context.api.Plaintext()
    frame = context.ciphertext_frame(2, ntt=False)  # (0, a): decrypts to a·s
    opened = total.copy()
    with Channel(context) as channel:
        for j in range(len(total)):
            frame.residues[1] = elements[j]
            channel.load(product, frame)
            context.evaluator.transform_to_ntt_inplace(product)
            decryptor.decrypt(product, plaintext)
            add(opened[j : j + 1], channel.read(plaintext, 1), ring)
    return ring.centred(context.transform(opened, forward=False))
