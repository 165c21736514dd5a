"""One round of NVFlare's homomorphic aggregation, by its own filters and aggregator.

Runs inside the peer's own environment (imports nvflare, tenseal and numpy only) and is started by
`bench.peers.nvflare`. The case comes as one JSON object in the first argument, the figures go as
one JSON object to standard output. Clients come one after the other; an upload is made into bytes
and read back, as on the wire, and let go once it is added.
"""

# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"

from __future__ import annotations

import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable, model_learnable_to_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
    HEInTimeAccumulateWeightedAggregator,
)
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_serialize_filter import HEModelSerializeFilter
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder

LAYER = "model"
ROUND = 0


class _Refused(RuntimeError):
    """NVFlare's aggregator did not take an upload."""

    def __init__(self, index: int) -> None:
        super().__init__(f"NVFlare {version('nvflare')} refused the upload of client {index}")


@dataclass(frozen=True)
class Case:
    """What to run; the fields are those of `bench.peers.shared_ckks.SharedKeyCase`."""

    nodes: int
    dim: int
    seed: int
    value_bits: int

    def values(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the values of client 0, shape (dim,); client i has them shifted by i places."""
        half = 1 << (self.value_bits - 1)
        return np.random.default_rng(self.seed).integers(-half, half, self.dim)


def peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("the kernel does not report VmHWM")


def provision(folder: Path) -> None:
    """Write the contexts of server and client, as provisioning does, and make them loadable."""
    builder = HEBuilder()
    builder.initialize(None, None)
    (folder / "server_context.tenseal").write_bytes(builder.get_serialized_context())
    (folder / "client_context.tenseal").write_bytes(builder.get_serialized_context(is_client=True))
    SecurityContentService.initialize(str(folder))


def context_of(name: str) -> FLContext:
    """Return a party's context; not in secure mode, for the kit is not signed."""
    context = FLContext()
    context.set_prop(FLContextKey.SECURE_MODE, False, private=True, sticky=False)
    context.set_prop(ReservedKey.IDENTITY_NAME, name, private=False, sticky=False)
    context.set_prop(AppConstants.CURRENT_ROUND, ROUND, private=False, sticky=False)
    return context


class Client:
    """What all clients share: the key. One object stands for each of them in turn."""

    def __init__(self) -> None:
        self._context = context_of("site")
        self._context.set_peer_context(context_of("server"))
        self._encryptor, self._decryptor = HEModelEncryptor(), HEModelDecryptor()
        for component in (self._encryptor, self._decryptor):
            component.handle_event(EventType.START_RUN, self._context)
        self.costs: list[tuple[float, float, int]] = []
        """CPU seconds of encryption and of serialisation, bytes."""

    def upload(self, update: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
        """Encrypt an update and make it into bytes."""
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 1}
        trained = DXO(DataKind.WEIGHT_DIFF, data={LAYER: update}, meta=meta).to_shareable()
        started = time.process_time()
        encrypted = self._encryptor.process(trained, self._context)
        between = time.process_time()
        data: bytes = fobs.dumps(encrypted)
        self.costs.append((between - started, time.process_time() - between, len(data)))
        return data

    def open(self, data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read and decrypt the mean."""
        opened = self._decryptor.process(fobs.loads(data), self._context)
        return np.array(from_shareable(opened).data[LAYER])


class Server:
    """The aggregator, with its CPU seconds by part."""

    def __init__(self) -> None:
        self._context = context_of("server")
        self._aggregator = HEInTimeAccumulateWeightedAggregator()
        self._aggregator.handle_event(EventType.START_RUN, self._context)
        self._filter = HEModelSerializeFilter()
        self.load_s = self.add_s = self.scale_s = self.pack_s = 0.0

    def add(self, index: int, data: bytes) -> None:
        """Read an upload and add it."""
        started = time.process_time()
        shareable: Shareable = fobs.loads(data)
        between = time.process_time()
        shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{index}"})
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)
        if not self._aggregator.accept(shareable, self._context):
            raise _Refused(index)
        self.load_s += between - started
        self.add_s += time.process_time() - between

    def finish(self) -> bytes:
        """Divide by the count and make the mean, still encrypted, into bytes."""
        started = time.process_time()
        mean = from_shareable(self._aggregator.aggregate(self._context))
        between = time.process_time()
        learnable = make_model_learnable(mean.data, mean.get_meta_props())
        saved = self._filter.process_pre_save(learnable, self._context)
        data: bytes = fobs.dumps(model_learnable_to_dxo(saved).to_shareable())
        self.scale_s = between - started
        self.pack_s = time.process_time() - between
        return data


def run(case: Case) -> dict[str, Any]:
    """Run one round and return its figures; see `SharedKeyRound` for the units."""
    client, server = Client(), Server()
    values, expected = case.values(), np.zeros(case.dim, dtype=np.int64)
    for index in range(case.nodes):
        update = np.roll(values, index)
        expected += update
        server.add(index, client.upload(update.astype(np.float32)))
    download = server.finish()
    started = time.process_time()
    mean = client.open(download)
    open_s = time.process_time() - started
    found = mean * case.nodes
    encrypt_s, serialise_s, upload_bytes = (
        statistics.median(cost[part] for cost in client.costs) for part in range(3)
    )
    return {
        "encrypt_s": encrypt_s,
        "serialise_s": serialise_s,
        "upload_bytes": int(upload_bytes),
        "load_s": server.load_s,
        "add_s": server.add_s,
        "scale_s": server.scale_s,
        "pack_s": server.pack_s,
        "download_bytes": len(download),
        "open_s": open_s,
        "max_error": float(np.abs(found - expected).max()),
        "max_rounded_error": float(np.abs(np.rint(found) - expected).max()),
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    """Warm up on a tiny round, run the case, print its figures."""
    logging.disable(logging.CRITICAL)
    case = Case(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        provision(Path(folder))
        run(Case(nodes=2, dim=8, seed=0, value_bits=16))
        figures = run(case)
    names = ("nvflare", "tenseal", "numpy")
    print(json.dumps({"versions": {name: version(name) for name in names}, **figures}))


if __name__ == "__main__":
    main()
