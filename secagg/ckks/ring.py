"""The ring of the scheme: its prime, its public elements, sums and packed bytes of its residues.

Ciphertexts are arrays of residues, shape (blocks, N): whoever only adds them needs no secret.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg import ring as packing
from secagg.ckks.seal import Context, Residues
from secagg.errors import LocalProtocolError
from secagg.primitives import prg

__all__ = ["Ring", "add", "pack", "packed_size", "ring_of", "unpack"]

_SPARE: Final = 64  # words drawn beyond those expected to be needed


class Ring:
    """Z_q[X]/(X^N + 1) with SEAL's largest fitting prime q of so many bits.

    Takes some milliseconds to build, with a trial of SEAL; share it within a process.

    Attributes:
        degree: N.
        modulus: q.
        residue_bits: ⌈log2 q⌉.
        context: SEAL set up for it.

    Raises:
        ConfigError: SEAL refuses the parameters, or calls them weaker than 128 bits for a ternary
            secret, or TenSEAL is missing or of a version that does not serve.
    """

    def __init__(self, degree: int, modulus_bits: int) -> None:
        self.context = Context(degree, modulus_bits)
        self.degree: Final = degree
        self.modulus: Final = self.context.modulus
        self.residue_bits: Final = self.modulus.bit_length()

    def __repr__(self) -> str:
        return f"Ring(degree={self.degree}, modulus={self.modulus})"

    def public_elements(self, seed: bytes, blocks: int) -> Residues:
        """Return a_0, a_1, ... in coefficient form, uniform modulo q.

        They are the first of the words below q in the AES-256-CTR keystream under `seed`, read as
        little-endian 64-bit words and cut to the bits of q: one stream for all blocks, since to set
        one up for a block takes longer than the stream. More blocks only add to the end.

        Args:
            seed: 32 bytes, a hash with a tag of its own over what the round agreed on.
            blocks: How many.

        Returns:
            Shape (blocks, degree), residues below q.

        Raises:
            LocalProtocolError: the seed is not 32 bytes.
        """
        needed = blocks * self.degree
        drawn = (needed << self.residue_bits) // self.modulus + _SPARE
        while True:
            stream = np.zeros(2 * drawn, dtype=np.uint32)
            prg.accumulate(stream, seed)
            words: Residues = stream.astype("<u4", copy=False).view("<u8")
            words &= np.uint64((1 << self.residue_bits) - 1)
            if words[:needed].max(initial=0) >= self.modulus:
                words = words[words < self.modulus]
            if len(words) >= needed:
                return words[:needed].reshape(blocks, self.degree)
            drawn += drawn // 8 + _SPARE

    def residues_of(self, values: NDArray[np.int64]) -> Residues:
        """Return `values`, within ±q/2, modulo q."""
        return (values + (values >> 63 & self.modulus)).view(np.uint64)

    def centred(self, residues: Residues) -> NDArray[np.int64]:
        """Return the representatives of least magnitude."""
        values = residues.astype(np.int64)
        values -= (values > self.modulus // 2) * np.int64(self.modulus)
        return values

    def check_small(self, values: NDArray[np.int64], what: str) -> None:
        """Raise LocalProtocolError unless `values` are int64 within ±q/2."""
        if values.dtype != np.int64 or not values.size:
            raise LocalProtocolError(f"{what}: not a vector of int64")
        if max(int(values.max()), -int(values.min())) > self.modulus // 2:
            raise LocalProtocolError(f"{what}: a value beyond half the modulus would wrap")

    def check_residues(self, values: Residues, what: str) -> None:
        """Raise LocalProtocolError unless `values` are uint64, shape (blocks, N)."""
        if values.dtype != np.uint64 or values.ndim != 2 or values.shape[1] != self.degree:
            raise LocalProtocolError(f"{what}: not uint64 blocks of {self.degree} residues")


@lru_cache(maxsize=8)
def ring_of(degree: int, modulus_bits: int) -> Ring:
    """Return the ring of a round, the same one whenever it is asked for; raises as `Ring` does."""
    return Ring(degree, modulus_bits)


def add(total: Residues, part: Residues, ring: Ring, *, weight: int = 1) -> None:
    """Add `weight` times `part` to `total`, in place and modulo q.

    Args:
        total: Shape (blocks, N), residues below q.
        part: The same shape, residues below q.
        ring: Gives q.
        weight: At least 0, and so small that nothing exceeds 64 bits: below 2^13 for a q of 51
            bits.

    Raises:
        LocalProtocolError: a shape, a type or the weight is wrong.
    """
    ring.check_residues(total, "a sum of ciphertexts")
    ring.check_residues(part, "a ciphertext")
    if total.shape != part.shape:
        raise LocalProtocolError(f"{part.shape[0]} blocks do not add to {total.shape[0]}")
    if not 0 <= weight < (1 << 64) // ring.modulus:
        raise LocalProtocolError(f"weight {weight} exceeds 64 bits, or is negative")
    q = np.uint64(ring.modulus)
    if weight == 1:
        total += part
        np.minimum(total, total - q, out=total)  # a difference below 0 wraps to a large number
    else:
        total += part * np.uint64(weight)
        total -= total // q * q  # numpy divides by a constant in vectors; % takes ten times as long


def _low_bits(ring: Ring) -> int:
    """Return the bits of a residue that are packed as an array of whole words."""
    bits = ring.residue_bits
    return 32 if bits >= 40 else 16 if bits > 32 else 0


def packed_size(blocks: int, ring: Ring) -> int:
    """Return the bytes that `pack` makes of so many blocks: blocks·N·⌈log2 q⌉ / 8."""
    return packing.packed_size(blocks * ring.degree, ring.residue_bits)


def pack(values: Residues, ring: Ring) -> bytes:
    """Pack residues at ⌈log2 q⌉ bits each, without padding: N is a multiple of eight.

    From 40 bits on these are the planes of `secagg.ring` with one of 32 bits (E-07); with 33 to 39
    bits the low 16 bits come first and the rest as `secagg.ring` packs it.

    Args:
        values: Shape (blocks, N), residues below q.
        ring: Gives q.

    Raises:
        LocalProtocolError: the shape or the type is wrong.
    """
    ring.check_residues(values, "a ciphertext")
    flat, low = values.reshape(-1), _low_bits(ring)
    words = flat.astype(f"<u{low // 8}").tobytes() if low else b""
    high = (flat >> np.uint64(low)).astype(np.uint32)
    return words + packing.pack(high, ring.residue_bits - low)


def unpack(data: bytes, blocks: int, ring: Ring) -> Residues | None:
    """Invert `pack`, shape (blocks, N); None if the length is wrong or a residue is not below q."""
    if len(data) != packed_size(blocks, ring):
        return None
    count, low = blocks * ring.degree, _low_bits(ring)
    start = count * low // 8
    high = packing.unpack(data[start:], count, ring.residue_bits - low)
    if high is None:
        return None
    values: Residues = high.astype(np.uint64)
    if low:
        values <<= np.uint64(low)
        values |= np.frombuffer(data, f"<u{low // 8}", count)
    if values.max(initial=0) >= ring.modulus:
        return None
    return values.reshape(blocks, ring.degree)
