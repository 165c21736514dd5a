"""The coordinator as a process: socket and clock around `nodes.session.coordinator`."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_core.parameters import initial_parameters
from fl_core.server_opt import ServerOptConfig, ServerState, apply_mean
from keys import Role
from nodes.config import CoordinatorConfig
from nodes.context import ROSTER_POLL, Membership, open_membership, unlock_from
from nodes.loop import Waiter, clock, wall_clock
from nodes.mask_workers import MaskWorkers
from nodes.privacy_ledger import LEDGER, FileLedger
from nodes.session.budget import check_charged
from nodes.session.coordinator import Coordinator, ServerStep, State
from nodes.session.events import Checkpoint, ReceiptKept, RunOver, RunState, SessionStep
from nodes.spool import FileSpool
from nodes.store import hold_state, load_receipts, load_run, save_receipt, save_run
from nodes.telemetry import Emit, record_of
from nodes.threads import use_one_blas_thread
from nodes.transport import CoordinatorSocket
from secagg.errors import ConfigError, KeyMaterialError, RunIncompleteError
from secagg.schemes import scheme_named, schemes
from secagg.types import Rng

__all__ = ["CHECKPOINT", "CoordinatorDaemon", "fresh_run", "peak_memory_mb", "server_step"]

CHECKPOINT = "checkpoint.safetensors"
RECEIPTS = "receipts"
"""Folder of the newest receipt of each node's privacy ledger."""


def server_step(config: ServerOptConfig) -> ServerStep:
    """Return the server optimiser in the form the session wants."""

    def step(
        params: NDArray[np.float32],
        mean: NDArray[np.float64],
        optimiser: dict[str, NDArray[np.float64]],
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
        state = ServerState.from_arrays(optimiser)
        params, state = apply_mean(params, mean, state, config)
        return params, state.to_arrays()

    return step


def fresh_run(config: CoordinatorConfig, rng: Rng) -> RunState:
    """Return the state before the first round: a random encoder and no reference yet."""
    model = config.model_config()
    params = initial_parameters(model, config.run.seed)
    optimiser = ServerState.start(config.server_config(), len(params)).to_arrays()
    reference = np.zeros(model.embedding_dim, dtype=np.float32)
    return RunState(rng(16), 1, 0, params, reference, optimiser)


def peak_memory_mb() -> float:
    """Return this process's greatest resident size so far, in MB.

    From /proc where there is one: getrusage counts what the process was before it was exec'ed,
    that is, its parent's size.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class CoordinatorDaemon:
    """Runs one run to its end.

    Args:
        config: The checked configuration.
        emit: Gets a record of everything that happens.

    Raises:
        ConfigError, KeyMaterialError: something the operator can mend.
    """

    def __init__(self, config: CoordinatorConfig, emit: Emit) -> None:
        self._config, self._emit = config, emit
        folder = config.folder
        unlock = unlock_from(config.unlock, folder)
        keys = folder / config.coordinator.keys
        self._members: Membership = open_membership(keys, unlock, Role.COORDINATOR, wall_clock())
        self._plan = config.plan()
        scheme_named(self._plan.scheme).check()
        state_folder = folder / config.coordinator.state
        self._checkpoint: Path = state_folder / CHECKPOINT
        self._receipts: Path = state_folder / RECEIPTS
        self._fresh = fresh_run(config, os.urandom)
        self._view = self._members.view(wall_clock())
        self._session: Coordinator
        self._resumed = False
        self._over: RunOver | None = None
        self._next_roster_look = 0.0

    def run(self) -> None:
        """Serve until the run is over.

        Raises:
            ConfigError: the endpoint cannot be bound, another process uses the state folder, or
                what lies there is damaged or was set back.
            RunIncompleteError: the run ended without all its rounds.
        """
        use_one_blas_thread()
        with hold_state(self._members.folder), hold_state(self._checkpoint.parent):
            # Read under the lock: an older process may just have written it.
            stored = load_run(self._checkpoint, self._plan.training)
            if stored is not None:
                self._check_stored(stored)
            self._resumed = stored is not None
            ledger = FileLedger(self._checkpoint.parent / LEDGER)
            ledger.check()
            if stored is not None:
                check_charged(stored, ledger.history())
            with MaskWorkers() as workers:
                self._session = Coordinator(
                    self._plan,
                    stored or self._fresh,
                    self._members.identity,
                    roster=self._view,
                    server_step=server_step(self._config.server_config()),
                    ledger=ledger,
                    receipts=load_receipts(self._receipts),
                    schemes=schemes(apply=workers.apply, spool=self._spool),
                )
                self._run()

    def _spool(self) -> FileSpool:
        return FileSpool(self._checkpoint.parent)

    def _check_stored(self, stored: RunState) -> None:
        """Refuse a checkpoint whose arrays do not fit the configured model and optimiser."""
        sizes = {name: array.shape for name, array in self._fresh.optimiser.items()}
        if (
            stored.params.shape != self._fresh.params.shape
            or stored.reference.shape != self._fresh.reference.shape
            or {name: array.shape for name, array in stored.optimiser.items()} != sizes
            or len(stored.run_id) != len(self._fresh.run_id)
        ):
            raise ConfigError(
                f"{self._checkpoint} does not fit [model] or [server]",
                hint="restore those settings, or choose another coordinator.state folder",
            )

    def _run(self) -> None:
        identity, waiter = self._members.identity, Waiter()
        socket = CoordinatorSocket(
            self._config.coordinator.bind,
            secret=identity.transport_secret,
            public=identity.transport_key,
            lookup=lambda key: self._members.node_by_transport_key(key, wall_clock()),
        )
        try:
            with waiter.signals():
                self._serve(socket, waiter)
        finally:
            socket.close()
            waiter.close()
        if self._over is not None and not self._over.complete and not waiter.stopping:
            done = self._session.run.rounds_done
            raise RunIncompleteError(self._over.reason, done=done, wanted=self._plan.rounds)

    def _serve(self, socket: CoordinatorSocket, waiter: Waiter) -> None:
        self._emit(
            {
                "event": "coordinator.listening",
                "endpoint": socket.endpoint,
                "nodes": sorted(self._members.view(wall_clock()).signing_keys),
                "rounds_done": self._session.run.rounds_done,
                "rounds_total": self._plan.rounds,
                "scheme": self._plan.scheme,
                "weights": self._plan.weights,
                "resumed": self._resumed,
            }
        )
        self._act(self._session.start(clock(), wall_clock()), socket)
        while self._session.state is not State.OVER:
            if waiter.stopping:
                self._act(self._session.interrupt(clock()), socket)
                break
            waiter.wait(socket.socket, self._session.deadline - clock())
            now = clock()  # silence is judged by what had arrived by then, however long it takes
            for node, frame in socket.receive():
                self._act(self._session.receive(node, frame, clock()), socket)
            for key in socket.strangers():
                self._emit({"event": "stranger.refused", "transport_key": key})
            self._look_at_roster(socket)
            if now >= self._session.deadline:
                self._act(self._session.on_timeout(now), socket)

    def _act(self, step: SessionStep, socket: CoordinatorSocket) -> None:
        """Make checkpoints durable, report, then send (S-04)."""
        for event in step.events:
            if isinstance(event, Checkpoint):
                save_run(self._checkpoint, event.state, self._plan.training)
            if isinstance(event, ReceiptKept):
                save_receipt(self._receipts, event.node, event.receipt)
            if isinstance(event, RunOver):
                self._over = event
            record = record_of(event)
            if record is not None:
                sent, received = socket.traffic.totals
                self._emit({**record, **self._measures(event, sent, received)})
        lost = {node for node, envelope in step.send if not socket.send(node, envelope)}
        if lost:
            self._act(self._session.unreachable(sorted(lost), clock()), socket)

    def _measures(self, event: object, sent: int, received: int) -> dict[str, object]:
        measures: dict[str, object] = {"bytes_sent": sent, "bytes_received": received}
        if isinstance(event, RunOver):
            measures["rounds_done"] = self._session.run.rounds_done
            measures["rounds_total"] = self._plan.rounds
            measures["peak_memory_mb"] = round(peak_memory_mb(), 1)
        return measures

    def _look_at_roster(self, socket: CoordinatorSocket) -> None:
        if clock() < self._next_roster_look:
            return
        self._next_roster_look = clock() + ROSTER_POLL
        try:
            self._members.reload()
        except KeyMaterialError as error:
            self._emit({"event": "roster.rejected", "reason": str(error)})
        view = self._members.view(wall_clock())
        if view == self._view:  # certificates begin and end without a new version, too
            return
        self._view = view
        self._emit({"event": "roster.taken.up", "version": view.version})
        self._act(self._session.set_roster(view, clock()), socket)
