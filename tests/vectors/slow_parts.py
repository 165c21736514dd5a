"""The building blocks of specs/10, 20 and 30 a second time, one value at a time.

Nothing of `secagg`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

VERSION: Final = 1
PRIME: Final = 2**256 + 297


# --- hashes, keys, signatures ---------------------------------------------------------------------


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def tagged(purpose: str, *parts: bytes) -> bytes:
    return f"secagg/v{VERSION}/{purpose}".encode() + b"\0" + framed(*parts)


def sha(purpose: str, *parts: bytes) -> bytes:
    return hashlib.sha256(tagged(purpose, *parts)).digest()


def hkdf(secret: bytes, purpose: str, *parts: bytes, length: int = 32) -> bytes:
    """RFC 5869 with SHA-256 and no salt."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    out = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + tagged(purpose, *parts) + bytes([counter]), "sha256")
        out += block
    return out[:length]


def sign(identity: bytes, purpose: str, *parts: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(identity).sign(tagged(purpose, *parts))


def holds(key: bytes, signature: bytes, purpose: str, *parts: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, tagged(purpose, *parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def seal(key: bytes, plaintext: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, None)


def unseal(key: bytes, box: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), box, None)
    except InvalidTag:
        return None


# --- agreement ------------------------------------------------------------------------------------


def kem_key(secret: bytes) -> MLKEM768PrivateKey:
    return MLKEM768PrivateKey.from_seed_bytes(hkdf(secret, "kem-seed", length=64))


def public_keys(secret: bytes) -> tuple[bytes, bytes]:
    """Return X25519 and ML-KEM-768 public keys of an agreement secret."""
    scalar = hkdf(secret, "agreement-seed")
    public = X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()
    return public, kem_key(secret).public_key().public_bytes_raw()


def x25519(secret: bytes, public: bytes) -> bytes | None:
    """Return the shared secret, or None for a key of small order."""
    try:
        private = X25519PrivateKey.from_private_bytes(hkdf(secret, "agreement-seed"))
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def is_kem_key(public: bytes) -> bool:
    try:
        MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Binding:
    """What the root of a pair is bound to besides its keys and capsule."""

    context: tuple[bytes, bytes, bytes]
    graph_seed: bytes


def pair_root(
    agreed: bytes, encapsulated: bytes, capsule: bytes, pair: tuple[str, str], binding: Binding
) -> bytes:
    names = (node.encode() for node in pair)
    parts = (*binding.context, binding.graph_seed, capsule, *names)
    return hkdf(agreed + encapsulated, "pair-key", *parts)


def seal_key(root: bytes, sender: str, receiver: str) -> bytes:
    return hkdf(root, "share-seal", sender.encode(), receiver.encode())


def backup_key(round_secret: bytes, context: Sequence[bytes], node: str) -> bytes:
    return hkdf(round_secret, "backup", *context, node.encode())


def coin(seed: bytes, toss: int) -> bytes:
    """Return c_toss, where c_4 is the seed."""
    for _ in range(4 - toss):
        seed = sha("coin", seed)
    return seed


def coin_fits(shown: bytes, commitment: bytes, toss: int) -> bool:
    for _ in range(toss):
        shown = sha("coin", shown)
    return shown == commitment


# --- sharing --------------------------------------------------------------------------------------


def share(secret: bytes, coefficients: Sequence[bytes], point: int) -> bytes:
    """Return the value at `point`; coefficient i, 49 bytes, is that of x^(i+1)."""
    value = int.from_bytes(secret, "little")
    for power, raw in enumerate(coefficients, start=1):
        value += int.from_bytes(raw, "little") % PRIME * point**power
    return (value % PRIME).to_bytes(33, "little")


def interpolate(shares: Mapping[int, bytes], at: int = 0) -> int:
    """Return the value at `at` of the least polynomial through `shares`."""
    total = 0
    for i, raw in shares.items():
        term = int.from_bytes(raw, "little")
        for j in shares:
            if j != i:
                term = term * (at - j) * pow(i - j, PRIME - 2, PRIME) % PRIME
        total += term
    return total % PRIME


# --- graph ----------------------------------------------------------------------------------------


class Circle:
    """Who stands where, and who is whose neighbour."""

    def __init__(self, nodes: Collection[str], degree: int, seed: bytes) -> None:
        self.order = sorted(nodes, key=lambda node: sha("graph", seed, node.encode()))
        self.half = (degree + 1) // 2
        self.sparse = 2 * self.half < len(self.order) - 1

    def _steps(self, node: str, steps: range) -> set[str]:
        here, size = self.order.index(node), len(self.order)
        return {self.order[(here + step) % size] for step in steps}

    def successors(self, node: str) -> set[str]:
        if self.sparse:
            return self._steps(node, range(1, self.half + 1))
        size = len(self.order)
        ahead = (size - 1) // 2
        if size % 2 == 0 and self.order.index(node) < size // 2:
            ahead += 1
        return self._steps(node, range(1, ahead + 1))

    def neighbours(self, node: str) -> set[str]:
        if not self.sparse:
            return set(self.order) - {node}
        return self.successors(node) | self._steps(node, range(-self.half, 0))

    def is_whole(self, survivors: Collection[str], threshold: int) -> bool:
        """Tell whether every window of h places holds ⌊t/2⌋ + 1 survivors (M-25)."""
        if not self.sparse:
            return True
        size = len(self.order)
        for start in range(size):
            window = [self.order[(start + step) % size] for step in range(self.half)]
            if sum(node in survivors for node in window) < threshold // 2 + 1:
                return False
        return True


# --- vectors --------------------------------------------------------------------------------------


def keystream(seed: bytes, dim: int) -> list[int]:
    """AES-256 in counter mode, block by block."""
    cipher = Cipher(AES256(seed), ECB()).encryptor()  # noqa: S305 - counter mode by hand
    data = b"".join(cipher.update(block.to_bytes(16, "big")) for block in range(-(-dim // 4)))
    return [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(dim)]


def masked(vector: Sequence[int], masks: Sequence[tuple[int, bytes]], bits: int) -> list[int]:
    """Add the masks of (sign, seed) to `vector` modulo 2^bits."""
    values = list(vector)
    for signum, seed in masks:
        stream = keystream(seed, len(values))
        values = [x + signum * y for x, y in zip(values, stream, strict=True)]
    return [value % (1 << bits) for value in values]


def pack(values: Sequence[int], bits: int) -> bytes:
    """Set the bits of a packed vector one coordinate at a time (E-07)."""
    groups = -(-len(values) // 8)
    out = bytearray(groups * bits)
    for index, value in enumerate(values):
        for byte, shift, part in _places(index, value, groups, bits):
            out[byte] |= part << shift
    return bytes(out)


def _places(index: int, value: int, groups: int, bits: int) -> list[tuple[int, int, int]]:
    """Return (byte, shift, bits) for each byte that coordinate `index` has a part in."""
    found, start = [], 0
    for width in (32, 16, 8, 4, 2, 1):
        if not bits & width:
            continue
        part, value = value % (1 << width), value >> width
        if width >= 8:
            size = width // 8
            found += [(start + index * size + k, 0, part >> 8 * k & 255) for k in range(size)]
        else:
            apart = groups * width
            found.append((start + index % apart, index // apart * width, part))
        start += groups * width
    return found


def unpack(data: bytes, dim: int, bits: int) -> list[int] | None:
    """Return the coordinates, or None if length or padding is wrong (E-07)."""
    groups = -(-dim // 8)
    if len(data) != groups * bits:
        return None
    values = []
    for index in range(8 * groups):
        value, filled = 0, 0
        for width in (32, 16, 8, 4, 2, 1):
            if bits & width:
                value |= _read(data, groups, bits, index=index, width=width) << filled
                filled += width
        values.append(value)
    return None if any(values[dim:]) else values[:dim]


def _read(data: bytes, groups: int, bits: int, *, index: int, width: int) -> int:
    start = groups * sum(other for other in (32, 16, 8, 4, 2, 1) if other > width and bits & other)
    if width >= 8:
        size = width // 8
        return int.from_bytes(data[start + index * size : start + (index + 1) * size], "little")
    apart = groups * width
    return data[start + index % apart] >> (index // apart * width) & ((1 << width) - 1)


# --- set-up ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """The content of a checked offer that a round of masking needs."""

    run_id: bytes
    round_id: int
    offer_hash: bytes
    cohort: tuple[str, ...]
    signing_keys: Mapping[str, bytes]
    dim: int
    ring_bits: int
    threshold: int
    quorum: int
    neighbours: int
    colluders: int
    chunk_values: int

    @classmethod
    def read(cls, setup: Mapping[str, Any]) -> Setup:
        """Read the `setup` of a vector file."""
        values = dict(setup)
        for name in ("run_id", "offer_hash"):
            values[name] = bytes.fromhex(setup[name])
        values["cohort"] = tuple(setup["cohort"])
        keys = setup["signing_keys"].items()
        values["signing_keys"] = {node: bytes.fromhex(key) for node, key in keys}
        return cls(**values)

    @property
    def context(self) -> tuple[bytes, bytes, bytes]:
        return self.run_id, self.round_id.to_bytes(8, "little"), self.offer_hash

    @property
    def cosigners(self) -> int:
        return max((len(self.cohort) + self.colluders) // 2 + 1, self.threshold)

    def chunk_dim(self, index: int) -> int:
        return min(self.chunk_values, self.dim - index * self.chunk_values)

    @property
    def chunks(self) -> int:
        return -(-self.dim // self.chunk_values)
