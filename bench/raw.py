"""The raw limit of this machine: the fastest that masks and their sums could possibly be made.

A mask of `dim` coordinates takes 4·dim bytes of AES-256-CTR keystream and one pass of additions.
Both are measured here with nothing around them, in the process that calls. Key set-up is left out,
which makes the limit the harder to come near to.

The keystream is made in three ways and the fastest is the limit. GCM encrypts in counter mode too
(NIST SP 800-38D section 6.5), and OpenSSL runs it on wider vector units than CTR, which can make up
for the authentication that comes with it.

Run `python -m bench.raw --dim 1000000` to print the limit and the machine as JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

from bench.common import BenchError, describe_machine, median_cpu_s

__all__ = ["RawLimit", "add_s", "keystream_s", "raw_limit"]

CACHED_BUFFER = 256 * 1024
"""Bytes; source and target together stay in the second-level cache."""
_STREAM_BYTES = 1 << 35  # then a new stream: GCM ends at 2^36 bytes less 32
_MAX_DIM = 1 << 30


@dataclass(frozen=True)
class RawLimit:
    """What one mask costs at the least, in CPU seconds of this machine.

    Attributes:
        dim: Coordinates of the mask, 4 bytes each.
        keystream_cached_s: CTR keystream made through a buffer of 256 kB.
        keystream_whole_s: CTR keystream made in one call into a buffer of 4·dim bytes.
        keystream_gcm_s: GCM keystream made through a buffer of 256 kB.
        add_s: One pass `total += mask` of two uint32 vectors.
        repetitions: Each figure is the median of so many.
    """

    dim: int
    keystream_cached_s: float
    keystream_whole_s: float
    keystream_gcm_s: float
    add_s: float
    repetitions: int

    @property
    def keystream_s(self) -> float:
        """The limit: the best of the three ways, in CPU seconds."""
        return min(self.keystream_cached_s, self.keystream_whole_s, self.keystream_gcm_s)

    @property
    def keystream_rate(self) -> float:
        """Bytes of keystream a second at the limit."""
        return 4 * self.dim / self.keystream_s


def keystream_s(
    dim: int, *, buffer_bytes: int, through_gcm: bool = False, repetitions: int = 15
) -> float:
    """Return the CPU seconds of 4·`dim` bytes of AES-256 keystream, made buffer by buffer.

    Args:
        dim: Coordinates, 1 to 2^30.
        buffer_bytes: Size of the source of zeros and of the target, 4 or more.
        through_gcm: In GCM instead of CTR; the tag is not asked for.
        repetitions: The figure is the median of so many.

    Raises:
        BenchError: an argument is out of range.
    """
    _check(dim)
    if buffer_bytes < 4:
        raise BenchError(f"a buffer of {buffer_bytes} bytes holds nothing", hint="use 4 or more")
    size = min(buffer_bytes, 4 * dim)
    zeros = memoryview(bytes(size))
    target = bytearray(size + 15)  # update_into asks for room for a block more, less one byte
    full, rest = divmod(4 * dim, size)
    tail = zeros[:rest]
    cipher = Cipher(AES256(bytes(range(32))), GCM(bytes(12)) if through_gcm else CTR(bytes(16)))
    stream, left = cipher.encryptor(), _STREAM_BYTES

    def make() -> None:
        nonlocal stream, left
        if left < 4 * dim:
            stream, left = cipher.encryptor(), _STREAM_BYTES
        left -= 4 * dim
        for _ in range(full):
            stream.update_into(zeros, target)
        if rest:
            stream.update_into(tail, target)

    return median_cpu_s(make, repetitions=repetitions)


def add_s(dim: int, *, repetitions: int = 15) -> float:
    """Return the CPU seconds of adding one uint32 vector of `dim` to another in place.

    Raises:
        BenchError: an argument is out of range.
    """
    _check(dim)
    rng = np.random.default_rng(0)
    total = rng.integers(0, 2**32, dim, dtype=np.uint32)
    mask = rng.integers(0, 2**32, dim, dtype=np.uint32)
    return median_cpu_s(lambda: np.add(total, mask, out=total), repetitions=repetitions)


def raw_limit(dim: int, *, repetitions: int = 15) -> RawLimit:
    """Measure the raw limit for vectors of `dim` coordinates in the calling process.

    Raises:
        BenchError: an argument is out of range.
    """
    return RawLimit(
        dim=dim,
        keystream_cached_s=keystream_s(dim, buffer_bytes=CACHED_BUFFER, repetitions=repetitions),
        keystream_whole_s=keystream_s(dim, buffer_bytes=4 * dim, repetitions=repetitions),
        keystream_gcm_s=keystream_s(
            dim, buffer_bytes=CACHED_BUFFER, through_gcm=True, repetitions=repetitions
        ),
        add_s=add_s(dim, repetitions=repetitions),
        repetitions=repetitions,
    )


def _check(dim: int) -> None:
    if not 1 <= dim <= _MAX_DIM:
        raise BenchError(
            f"a vector of {dim} coordinates cannot be measured", hint=f"use 1 to {_MAX_DIM}"
        )


def main() -> None:
    """Print the limit and the machine as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--dim", type=int, default=1_000_000, help="coordinates of a mask")
    parser.add_argument("--repetitions", type=int, default=15, help="each figure's median is of so")
    options = parser.parse_args()
    try:
        limit = raw_limit(options.dim, repetitions=options.repetitions)
    except BenchError as error:
        parser.exit(2, f"error: {error}\nhint: {error.hint}\n")
    figures = {**asdict(limit), "keystream_bytes_per_s": limit.keystream_rate}
    print(json.dumps({**figures, "machine": asdict(describe_machine())}))


if __name__ == "__main__":
    main()
