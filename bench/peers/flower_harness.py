"""One round of Flower's SecAgg+: its real client mod against its real server workflow.

Runs inside the peer's own environment (imports flwr and numpy only) and is started by
`bench.peers.flower`. The case comes as one JSON object in the first argument, the figures go as
one JSON object to standard output. A grid that calls the clients one after the other, in this one
process, stands in for the network. It serialises each message and reads it back on its way to a
client, as the wire would; neither that nor the making of updates is counted.
"""

# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"
# mypy: allow-subclassing-any

from __future__ import annotations

import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.server import LegacyContext, ServerConfig, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

PHASES = {
    Stage.SETUP: "setup",
    Stage.SHARE_KEYS: "share",
    Stage.COLLECT_MASKED_VECTORS: "mask",
    Stage.UNMASK: "unmask",
}
CLIENT_APP_RAISED = 2  # the error code that Flower's runtime gives when a client app raises


class _UnexpectedCall(RuntimeError):
    """Flower's workflow asks the grid for what the version measured here never did."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Flower {version('flwr')} calls Grid.{name}, which this harness does not play: "
            "measure with the version that bench/peers pins"
        )


@dataclass(frozen=True)
class Case:
    """What to run; the fields are those of `bench.peers.flower.FlowerCase`."""

    nodes: int
    dim: int
    num_shares: int | float
    threshold: int | float
    dropout: float
    seed: int
    num_examples: int

    def update(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the update of client `index`: shape (dim,), float32, from N(0, 0.1)."""
        rng = np.random.default_rng([self.seed, index])
        return (0.1 * rng.standard_normal(self.dim)).astype(np.float32)


@dataclass
class Client:
    """One simulated client: its place among the updates, its state between stages, its costs."""

    index: int
    context: Context
    vanishes: bool
    cpu_s: dict[str, float] = field(default_factory=dict)
    upload: dict[str, int] = field(default_factory=dict)
    download: dict[str, int] = field(default_factory=dict)


class Memory:
    """Resident memory of this process in bytes; its peak can be taken over part of the run."""

    def __init__(self) -> None:
        self._highest = 0

    @staticmethod
    def read(name: str) -> int:
        """Return a field of the process status (VmRSS, VmHWM)."""
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
        raise OSError(f"the kernel does not report {name}")

    def restart(self) -> int:
        """Let the peak start from what is resident now; return that."""
        self._highest = self.peak()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return self.read("VmRSS")

    def peak(self) -> int:
        """Return the peak of the whole process, restarts notwithstanding."""
        return max(self._highest, self.read("VmHWM"))


class InProcessGrid(Grid):
    """Stands in for the network: calls each client's mod and hands back the replies."""

    def __init__(self, case: Case, clients: dict[int, Client], memory: Memory) -> None:
        self._case = case
        self._clients = clients
        self._memory = memory
        self.away_s = 0.0  # CPU seconds outside the server's own code
        self.client_errors: list[str] = []
        self.phase = ""
        self.mask_peak: int | None = None

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver a stage's messages; who vanishes does not answer the masked-vector stage."""
        del timeout  # nobody is waited for
        start = time.process_time()
        replies = []
        for message in messages:
            client = self._clients[message.metadata.dst_node_id]
            self.phase = PHASES[message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]]
            if not (client.vanishes and self.phase == "mask"):
                replies.append(self._deliver(client, message))
        self.away_s += time.process_time() - start
        return replies

    def _deliver(self, client: Client, message: Message) -> Message:
        wire = recorddict_to_proto(message.content)
        client.download[self.phase] = wire.ByteSize()
        received = Message(metadata=message.metadata, content=recorddict_from_proto(wire))
        del wire
        trained = self._trained(client) if self.phase == "mask" else None

        def app(incoming: Message, _: Context) -> Message:
            return Message(trained, reply_to=incoming)

        before = self._memory.restart() if self._is_first_mask() else None
        start = time.process_time()
        try:
            reply = secaggplus_mod(received, client.context, app)
        except (KeyError, TypeError, ValueError) as error:
            self.client_errors.append(f"{self.phase}: {error}")
            return Message(Error(CLIENT_APP_RAISED, str(error)), reply_to=received)
        client.cpu_s[self.phase] = time.process_time() - start
        if before is not None:
            self.mask_peak = self._memory.read("VmHWM") - before
        client.upload[self.phase] = recorddict_to_proto(reply.content).ByteSize()
        return reply

    def _is_first_mask(self) -> bool:
        return self.phase == "mask" and self.mask_peak is None

    def _trained(self, client: Client) -> RecordDict:
        result = FitRes(
            status=Status(code=Code.OK, message=""),
            parameters=ndarrays_to_parameters([self._case.update(client.index)]),
            num_examples=self._case.num_examples,
            metrics={},
        )
        return fitres_to_recorddict(result, keep_input=False)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all clients."""
        return list(self._clients)

    @property
    def run(self) -> Any:
        """Not used by the workflow."""
        raise _UnexpectedCall("run")

    def set_run(self, run: Any) -> None:
        """Not used by the workflow."""
        raise _UnexpectedCall("set_run")

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not used by the workflow."""
        raise _UnexpectedCall("create_message")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not used by the workflow."""
        raise _UnexpectedCall("push_messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not used by the workflow."""
        raise _UnexpectedCall("pull_messages")


class ObservedFedAvg(FedAvg):
    """Flower's default strategy; notes its own CPU time and whether a sum reached it."""

    def __init__(self, nodes: int) -> None:
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=nodes,
            min_available_clients=nodes,
        )
        self.spent_s = 0.0
        self.aggregated = False

    def configure_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Choose the clients, as FedAvg does."""
        start = time.process_time()
        chosen = super().configure_fit(*args, **kwargs)
        self.spent_s += time.process_time() - start
        return chosen

    def aggregate_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Take the aggregate, as FedAvg does."""
        start = time.process_time()
        aggregate = super().aggregate_fit(*args, **kwargs)
        self.spent_s += time.process_time() - start
        self.aggregated = True
        return aggregate


class LastError(logging.Handler):
    """Keeps the last error that Flower logged: the only trace of why it gave a round up."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.message: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.message = record.getMessage()


def make_clients(case: Case) -> dict[int, Client]:
    """Return the clients by node id; ids are random, and who vanishes is drawn at random."""
    rng = random.Random(case.seed)  # noqa: S311 (a simulation's draw)
    ids = rng.sample(range(1, 2**63), case.nodes)
    gone = set(rng.sample(ids, round(case.dropout * case.nodes)))
    return {
        node: Client(index, Context(1, node, {}, RecordDict(), {}), node in gone)
        for index, node in enumerate(ids)
    }


def make_context(case: Case, strategy: FedAvg, grid: Grid) -> LegacyContext:
    """Return the server's context of round 1: zeros for a model, every client connected."""
    manager = SimpleClientManager()
    for node in grid.get_node_ids():
        manager.register(GridClientProxy(node, grid, 1))
    context = LegacyContext(
        Context(1, 0, {}, RecordDict(), {}), ServerConfig(num_rounds=1), strategy, manager
    )
    config = {WorkflowKey.CURRENT_ROUND: 1, WorkflowKey.START_TIME: 0.0}
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord(config)
    model = ArrayRecord([np.zeros(case.dim, dtype=np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = model
    return context


def errors(case: Case, clients: Iterable[Client], context: LegacyContext) -> tuple[float, float]:
    """Return the maximum and root mean square error against the survivors' float64 mean."""
    survivors = [client for client in clients if not client.vanishes]
    mean = np.zeros(case.dim)
    for client in survivors:
        mean += case.update(client.index)
    mean /= len(survivors)
    (aggregate,) = context.state.array_records[MAIN_PARAMS_RECORD].to_numpy_ndarrays()
    error = np.abs(aggregate - mean)
    return float(error.max()), float(np.sqrt(np.mean(error**2)))


def median_by_phase(costs: list[dict[str, Any]], total_of: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median over clients by phase, and that of the sums over phases as `total`."""
    phases = {}
    for phase in PHASES.values():
        seen = [cost[phase] for cost in costs if phase in cost]
        phases[phase] = statistics.median(seen) if seen else None
    sums = [sum(cost.values()) for cost in total_of]
    return {**phases, "total": statistics.median(sums) if sums else None}


def run(case: Case) -> dict[str, Any]:
    """Run one round and return its figures; see `bench.peers.flower.FlowerRound` for the units."""
    random.seed(case.seed)  # the workflow draws its ring from the global generator
    np.random.seed(case.seed)  # and the mod its rounding
    memory = Memory()
    start_bytes = memory.read("VmRSS")
    last_error = LastError()
    logging.getLogger("flwr").addHandler(last_error)
    clients = make_clients(case)
    grid = InProcessGrid(case, clients, memory)
    strategy = ObservedFedAvg(case.nodes)
    context = make_context(case, strategy, grid)
    workflow = SecAggPlusWorkflow(case.num_shares, case.threshold)

    start = time.process_time()
    workflow(grid, context)
    server_s = time.process_time() - start - grid.away_s
    peak_bytes = memory.peak()
    logging.getLogger("flwr").removeHandler(last_error)

    everyone = list(clients.values())
    finished = [client for client in everyone if "unmask" in client.cpu_s]
    worst, rms = errors(case, everyone, context) if strategy.aggregated else (None, None)
    reasons = [*grid.client_errors[:1], last_error.message or "the workflow gave no reason"]
    return {
        "aborted": not strategy.aggregated,
        "abort_reason": None if strategy.aggregated else f"{grid.phase}: {'; '.join(reasons)}",
        "survivors": sum(not client.vanishes for client in everyone),
        "client_cpu_s": median_by_phase(
            [client.cpu_s for client in everyone], [client.cpu_s for client in finished]
        ),
        "client_upload_bytes": median_by_phase(
            [client.upload for client in everyone], [client.upload for client in finished]
        ),
        "client_download_bytes": median_by_phase(
            [client.download for client in everyone], [client.download for client in finished]
        ),
        "client_mask_peak_bytes": grid.mask_peak,
        "server_cpu_s": server_s,
        "server_strategy_cpu_s": strategy.spent_s,
        "start_bytes": start_bytes,
        "peak_bytes": peak_bytes,
        "max_abs_error": worst,
        "rms_error": rms,
    }


def main() -> None:
    """Warm up on a tiny round, run the case, print its figures."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    run(Case(nodes=3, dim=8, num_shares=1.0, threshold=2, dropout=0.0, seed=0, num_examples=1))
    figures = run(Case(**json.loads(sys.argv[1])))
    names = ("flwr", "numpy", "cryptography", "pycryptodome")
    print(json.dumps({"versions": {name: version(name) for name in names}, **figures}))


if __name__ == "__main__":
    main()
