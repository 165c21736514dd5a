"""The common CKKS, as a peer: one secret key that every client holds, TenSEAL's own vectors.

::

    python -m bench.peers.shared_ckks --nodes 10 --dim 100000

prints the figures of one round as one JSON object. Ring of 8192, primes of 60, 40 and 40 bits,
scale 2^40: what tutorials use and NVFlare has for its default. The key is symmetric, as NVFlare's,
since that is the cheaper way. Whoever holds the key reads every single upload.

Runs in this environment, which needs the extra `ckks`. Clients come one after the other, and an
upload is let go once it is added.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError, resident_bytes

__all__ = ["SharedKeyCase", "SharedKeyRound", "measure"]

DEGREE = 8192
PRIME_BITS = [60, 40, 40]
SCALE = 2.0**40


@dataclass(frozen=True)
class SharedKeyCase:
    """One round of a scheme with a shared key.

    Attributes:
        nodes: Clients, 2 or more.
        dim: Values of an update.
        seed: Of the updates.
        value_bits: An update's values are integers from -2^(v-1) to 2^(v-1) - 1, uniform.
    """

    nodes: int
    dim: int
    seed: int = 1
    value_bits: int = 16

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.dim < 1 or self.seed < 0 or not 2 <= self.value_bits <= 24:
            raise BenchError(
                f"nodes is {self.nodes}, dim {self.dim}, seed {self.seed}, "
                f"value_bits {self.value_bits}",
                hint="use 2 nodes, 1 value, seed 0 or more, and values of 2 to 24 bits",
            )

    def values(self) -> NDArray[np.int64]:
        """Return the values of client 0, shape (dim,); client i has them shifted by i places."""
        half = 1 << (self.value_bits - 1)
        return np.random.default_rng(self.seed).integers(-half, half, self.dim)


@dataclass(frozen=True)
class SharedKeyRound:
    """The figures of one round: CPU seconds, bytes, errors in units of one integer.

    Attributes:
        versions: Of what did the work.
        encrypt_s: One client's encryption, median.
        serialise_s: One client's upload made into bytes, median.
        upload_bytes: One client's upload, median.
        load_s: The coordinator reads all uploads.
        add_s: It adds them.
        scale_s: It divides by the count of nodes; 0 where it returns the sum.
        pack_s: It makes the result, still encrypted, into bytes.
        download_bytes: That result, as every client gets it.
        open_s: One client reads and decrypts it.
        max_error: Largest error of the sum before it is rounded.
        max_rounded_error: The same after rounding to integers.
        peak_bytes: Peak resident memory of the process, all roles together.
    """

    versions: dict[str, str]
    encrypt_s: float
    serialise_s: float
    upload_bytes: int
    load_s: float
    add_s: float
    scale_s: float
    pack_s: float
    download_bytes: int
    open_s: float
    max_error: float
    max_rounded_error: float
    peak_bytes: int

    @property
    def client_s(self) -> float:
        """Encryption and serialisation of one client."""
        return self.encrypt_s + self.serialise_s

    @property
    def server_s(self) -> float:
        """All that the coordinator does."""
        return self.load_s + self.add_s + self.scale_s + self.pack_s


def measure(case: SharedKeyCase) -> SharedKeyRound:
    """Run one round in this process and return its figures, after a tiny one to warm up.

    Raises:
        BenchError: TenSEAL is not installed.
    """
    tenseal = _load_tenseal()
    with contextlib.redirect_stdout(io.StringIO()):  # TenSEAL prints warnings
        _play(SharedKeyCase(2, 8), tenseal)
        return _play(case, tenseal)


def _load_tenseal() -> Any:
    """Return the module; it has no types."""
    try:
        return importlib.import_module("tenseal")
    except ImportError as error:
        raise BenchError(
            "TenSEAL is not installed", hint="install the extra: pip install 'secagg'"
        ) from error


class _Clock:
    """Adds up the CPU seconds, on all threads, of the blocks that it is the context of."""

    def __init__(self) -> None:
        self.laps: list[float] = []
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.process_time()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.laps.append(time.process_time() - self._started)


def _contexts(tenseal: Any) -> tuple[Any, Any]:
    """Return what a client holds, with the key, and what the coordinator holds, without."""
    client = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=PRIME_BITS,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    client.global_scale = SCALE
    return client, tenseal.context_from(client.serialize(save_secret_key=False))


def _play(case: SharedKeyCase, tenseal: Any) -> SharedKeyRound:
    client, server = _contexts(tenseal)
    values, expected = case.values(), np.zeros(case.dim, dtype=np.int64)
    encrypt, serialise, load, add, pack, open_ = (_Clock() for _ in range(6))
    sizes = []
    total: Any = None
    for index in range(case.nodes):
        update = np.roll(values, index)
        expected += update
        with encrypt:
            vector = tenseal.ckks_vector(client, update)
        with serialise:
            upload = vector.serialize()
        sizes.append(len(upload))
        with load:
            read = tenseal.ckks_vector_from(server, upload)
        with add:
            total = read if total is None else total.add_(read)
    with pack:
        download = total.serialize()
    with open_:
        found = np.array(tenseal.ckks_vector_from(client, download).decrypt())
    return SharedKeyRound(
        versions={"tenseal": version("tenseal"), "numpy": version("numpy")},
        encrypt_s=statistics.median(encrypt.laps),
        serialise_s=statistics.median(serialise.laps),
        upload_bytes=int(statistics.median(sizes)),
        load_s=sum(load.laps),
        add_s=sum(add.laps),
        scale_s=0.0,
        pack_s=sum(pack.laps),
        download_bytes=len(download),
        open_s=sum(open_.laps),
        max_error=float(np.abs(found - expected).max()),
        max_rounded_error=float(np.abs(np.rint(found) - expected).max()),
        peak_bytes=resident_bytes(peak=True),
    )


def main() -> None:
    """Run one round and print its figures."""
    parser = argparse.ArgumentParser(description="One round of CKKS with a shared key, as JSON.")
    parser.add_argument("--nodes", type=int, default=10, help="clients")
    parser.add_argument("--dim", type=int, default=100_000, help="values of an update")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        case = SharedKeyCase(options.nodes, options.dim, options.seed)
        print(json.dumps({"case": asdict(case), "round": asdict(measure(case))}))
    except BenchError as error:
        parser.exit(2, f"error: {error}\nhint: {error.hint}\n")


if __name__ == "__main__":
    main()
