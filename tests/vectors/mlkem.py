"""ML-KEM-768 encapsulation with the randomness as an argument, so that vectors follow from labels.

Slow, not constant-time, and for the generator alone: what it gives is held against the
`cryptography` package's decapsulation in `test_blocks.py`.

Source: FIPS 203, algorithms 4 to 14 and 17; the names are those of the standard.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["encapsulate"]

Q: Final = 3329
N: Final = 256
K: Final = 3
ETA: Final = 2
DU: Final = 10
DV: Final = 4


def encapsulate(ek: bytes, m: bytes) -> tuple[bytes, bytes]:
    """Return (shared secret, 32 bytes; ciphertext, 1088 bytes) for key `ek` and 32 bytes `m`."""
    both = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    return both[:32], _encrypt(ek, m, both[32:])


def _encrypt(ek: bytes, m: bytes, r: bytes) -> bytes:
    rho = ek[384 * K :]
    t_hat = [_byte_decode(ek[384 * i : 384 * (i + 1)], 12) for i in range(K)]
    noise = [_sample_cbd(hashlib.shake_256(r + bytes([n])).digest(64 * ETA)) for n in range(7)]
    y_hat = [_ntt(f) for f in noise[:K]]
    out = b""
    for i in range(K):  # u = NTT⁻¹(Âᵀ ∘ ŷ) + e₁
        row = [_sample_ntt(rho + bytes([i, j])) for j in range(K)]
        u = _add(_inverse_ntt(_dot(row, y_hat)), noise[K + i])
        out += _byte_encode([_compress(x, DU) for x in u], DU)
    mu = [_decompress(x, 1) for x in _byte_decode(m, 1)]
    v = _add(_add(_inverse_ntt(_dot(t_hat, y_hat)), noise[2 * K]), mu)
    return out + _byte_encode([_compress(x, DV) for x in v], DV)


def _byte_encode(values: list[int], d: int) -> bytes:
    whole = sum(value << (d * i) for i, value in enumerate(values))
    return whole.to_bytes(32 * d, "little")


def _byte_decode(data: bytes, d: int) -> list[int]:
    whole = int.from_bytes(data, "little")
    return [whole >> (d * i) & ((1 << d) - 1) for i in range(N)]


def _compress(x: int, d: int) -> int:
    return ((x << (d + 1)) + Q) // (2 * Q) % (1 << d)


def _decompress(y: int, d: int) -> int:
    return (Q * y + (1 << (d - 1))) >> d


def _sample_ntt(seed: bytes) -> list[int]:
    stream, values = hashlib.shake_128(seed).digest(3 * 512), []
    for i in range(0, len(stream), 3):
        low, middle, high = stream[i : i + 3]
        values += [d for d in (low + 256 * (middle % 16), middle // 16 + 16 * high) if d < Q]
    return values[:N]


def _sample_cbd(data: bytes) -> list[int]:
    bits = [byte >> i & 1 for byte in data for i in range(8)]
    return [
        (sum(bits[start : start + ETA]) - sum(bits[start + ETA : start + 2 * ETA])) % Q
        for start in range(0, 2 * ETA * N, 2 * ETA)
    ]


def _bit_reversed(i: int) -> int:
    return int(f"{i:07b}"[::-1], 2)


_ZETAS: Final = [pow(17, _bit_reversed(i), Q) for i in range(128)]
_GAMMAS: Final = [pow(17, 2 * _bit_reversed(i) + 1, Q) for i in range(128)]


def _ntt(f: list[int]) -> list[int]:
    f, i, length = f[:], 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            for j in range(start, start + length):
                t = _ZETAS[i] * f[j + length]
                f[j], f[j + length] = (f[j] + t) % Q, (f[j] - t) % Q
            i += 1
        length //= 2
    return f


def _inverse_ntt(f: list[int]) -> list[int]:
    f, i, length = f[:], 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, _ZETAS[i] * (f[j + length] - t) % Q
            i -= 1
        length *= 2
    return [x * 3303 % Q for x in f]


def _dot(left: list[list[int]], right: list[list[int]]) -> list[int]:
    total = [0] * N
    for f, g in zip(left, right, strict=True):
        for i, gamma in enumerate(_GAMMAS):
            a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
            total[2 * i] += a0 * b0 + a1 * b1 * gamma
            total[2 * i + 1] += a0 * b1 + a1 * b0
    return [x % Q for x in total]


def _add(f: list[int], g: list[int]) -> list[int]:
    return [(x + y) % Q for x, y in zip(f, g, strict=True)]
