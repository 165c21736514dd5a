"""A node as a process: socket, clock and a training thread around `nodes.session.participant`."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fl_core.errors import DataError, ModelError
from fl_core.training import LocalUpdate
from keys import Role
from keys.enrolment import install_roster
from nodes.answer_journal import FileJournal
from nodes.config import NodeConfig
from nodes.context import ROSTER_POLL, open_membership, unlock_from
from nodes.coordinator_daemon import peak_memory_mb
from nodes.learner import Learner, load_data, load_public
from nodes.loop import Waiter, clock, wall_clock
from nodes.privacy_ledger import LEDGER, FileLedger
from nodes.session.events import (
    FinalModel,
    OfferSeen,
    ParticipantState,
    Remember,
    RosterOffered,
    RoundEnded,
    RunOver,
    SessionStep,
    TrainRequested,
)
from nodes.session.participant import HELLO_INTERVAL, Participant, State
from nodes.session.privacy import NONE
from nodes.store import hold_state, load_memory, save_memory, save_offer, write_json
from nodes.telemetry import Emit, record_of
from nodes.transport import NodeSocket
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import ZeroConcentrated
from secagg.errors import KeyMaterialError, RunIncompleteError
from secagg.schemes import scheme_named
from secagg.wire.messages import RoundOffer

__all__ = ["ANSWERS", "DETECTOR", "MEMORY", "OFFER", "REPORT", "NodeDaemon"]

ANSWERS = "answers.jsonl"
MEMORY = "memory.json"
DETECTOR = "detector.safetensors"
OFFER = "offer.bin"
REPORT = "report.json"
_log = logging.getLogger(__name__)


class NodeDaemon:
    """Takes part in one run, then writes its detector and its report.

    Args:
        config: The checked configuration.
        emit: Gets a record of everything that happens.

    Raises:
        ConfigError, KeyMaterialError, DataError: something the operator can mend.
    """

    def __init__(self, config: NodeConfig, emit: Emit) -> None:
        self._config, self._emit = config, emit
        for scheme in config.policy.schemes:
            scheme_named(scheme).check()
        folder = config.folder
        self._keys: Path = folder / config.node.keys
        unlock = unlock_from(config.unlock, folder)
        self._members = open_membership(self._keys, unlock, Role.NODE, wall_clock())
        self._state: Path = folder / config.node.state
        identity = self._members.identity
        self._learner = Learner(
            load_data(config.data, folder),
            identity.node_id,
            max_fpr=config.detection.max_fpr,
            baselines=config.detection.baselines,
            public=load_public(config.data, folder),
        )
        self._session: Participant
        self._waiter = Waiter()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")
        self._training: tuple[int, Future[LocalUpdate]] | None = None
        self._final: FinalModel | None = None
        self._given_up = ""
        self._wanted = 0
        self._rounds = {"joined": 0, "included": 0}
        self._round_traffic = (0, 0)  # sent and received by the end of the last round
        self._next_roster_look = 0.0

    def run(self) -> bool:
        """Take part until the final model is here; return False if told to stop before.

        Raises:
            ConfigError: another process uses the key or state folder, what lies there is damaged,
                or the endpoint is malformed.
            RunIncompleteError: the coordinator ended the run without all its rounds.
            DataError, ModelError: the detector cannot be made of this node's rows.
        """
        if self._config.node_policy().require != NONE:
            # The first ε takes seconds of imports on a busy machine: not within a round, where the
            # coordinator would take the silence for a death.
            epsilon_of([ZeroConcentrated(1.0)], 1e-5)
        with hold_state(self._keys), hold_state(self._state):
            # What is remembered is read under the lock: an older process may just have written it.
            journal = FileJournal(self._state / ANSWERS)
            journal.check()
            ledger = FileLedger(self._state / LEDGER)
            ledger.check()
            self._session = Participant(
                self._members.identity,
                self._members.roster.coordinator.node_id,
                lambda node: self._members.signing_key(node, wall_clock()),
                policy=self._config.node_policy(),
                remembered=load_memory(self._state / MEMORY),
                rng=os.urandom,
                journal=journal,
                ledger=ledger,
                members=lambda: len(self._members.view(wall_clock()).signing_keys),
            )
            self._session.set_roster_version(self._members.roster.version)
            return self._run()

    def _run(self) -> bool:
        identity = self._members.identity
        socket = NodeSocket(
            self._config.node.coordinator,
            secret=identity.transport_secret,
            public=identity.transport_key,
            server=self._members.roster.coordinator.transport_key,
        )
        self._emit(
            {
                "event": "node.ready",
                "node": identity.node_id,
                "device": self._learner.data.device,
                "train_rows": len(self._learner.data.train),
                "coordinator": self._config.node.coordinator,
            }
        )
        try:
            with self._waiter.signals():
                self._serve(socket)
            # From here a signal may end the process at once: files are replaced atomically.
            if self._final is not None and not self._waiter.stopping:
                self._finish(self._final, socket)
        finally:
            socket.close()
            # A training step that runs on while the interpreter ends can hang in torch.
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._waiter.close()
        if self._given_up:
            raise RunIncompleteError(
                self._given_up, done=self._rounds["included"], wanted=self._wanted
            )
        return self._final is not None

    def _serve(self, socket: NodeSocket) -> None:
        # A hello said before there is a connection is lost, and the next one far away.
        self._waiter.wait(socket.socket, HELLO_INTERVAL, to_send=True)
        self._act(self._session.start(clock(), wall_clock()), socket)
        while self._session.state is not State.FINISHED:
            if self._waiter.stopping:
                self._act(self._session.leave(), socket)
                return
            self._waiter.wait(socket.socket, self._session.deadline - clock())
            for frame in socket.receive():
                self._act(self._session.receive(frame, clock()), socket)
            change = socket.connection_change()
            if change is not None:
                endpoint = self._config.node.coordinator
                self._emit({"event": "connection.changed", "state": change, "endpoint": endpoint})
            self._collect_training(socket)
            self._look_at_roster()
            self._keep_time(socket)

    def _keep_time(self, socket: NodeSocket) -> None:
        """Send what is due, but nothing after the farewell.

        A heartbeat then would look like a node that came back for the model, and the coordinator
        would wait for its farewell until the time is up.
        """
        if self._session.state is not State.FINISHED and clock() >= self._session.deadline:
            self._act(self._session.on_timeout(clock()), socket)

    def _act(self, step: SessionStep, socket: NodeSocket) -> None:
        """Make memory durable, act on events, then send (S-05)."""
        for event in step.events:
            match event:
                case Remember(state):
                    unsaved = self._unsaved(state)
                    if unsaved:  # S-15: nothing of this step leaves
                        self._act(self._session.forsake(unsaved), socket)
                        return
                case OfferSeen(offer):
                    self._keep_offer(offer)
                case RosterOffered(document):
                    self._take_roster(document)
                case TrainRequested():
                    self._begin_training(event, socket)
                case FinalModel():
                    self._final = event
                case RunOver(complete=False, reason=reason):
                    self._given_up = reason
                case RoundEnded(included=included):
                    self._rounds["joined"] += 1
                    self._rounds["included"] += int(included)
                    self._round_traffic = socket.traffic.totals
                case _:
                    pass  # only reported
            record = record_of(event)
            if record is not None:
                self._emit(record)
        for _, envelope in step.send:
            if not socket.send(bytes(envelope)):
                self._emit({"event": "send.failed", "bytes": len(envelope)})

    def _unsaved(self, state: ParticipantState) -> str:
        """Store the memory; return why it is not on disk, or "" (S-05)."""
        try:
            save_memory(self._state / MEMORY, state)
        except KeyMaterialError as error:
            return f"the round cannot be remembered: {error}; {error.hint}"
        return ""

    def _keep_offer(self, offer: RoundOffer) -> None:
        """Leave the newest offer for `secagg policy check`; no round hangs on it (G-11)."""
        try:
            save_offer(self._state / OFFER, offer)
        except OSError as error:
            _log.warning("offer.not.kept file=%s reason=%s", OFFER, error.strerror or error)

    # --- training --------------------------------------------------------------------------------

    def _begin_training(self, request: TrainRequested, socket: NodeSocket) -> None:
        offer = request.offer
        self._wanted = offer.rounds_total
        if self._training is not None:
            self._training[1].cancel()
            self._training = None
        try:
            self._learner.accept(offer.training, request.reference)
        except (DataError, ModelError) as error:  # follows from the offer, not from a row
            self._act(self._session.refuse_training(offer.round_id, str(error)), socket)
            return
        future = self._worker.submit(
            self._learner.train,
            offer.training,
            request.params,
            request.reference,
            offer.round_id,
            run=request.run,
        )
        future.add_done_callback(lambda _: self._waiter.notify())
        self._training = offer.round_id, future

    def _collect_training(self, socket: NodeSocket) -> None:
        if self._training is None or not self._training[1].done():
            return
        (round_id, future), self._training = self._training, None
        try:
            update = future.result()
        except (DataError, ModelError) as error:
            self._act(self._session.abstain(round_id, str(error), clock()), socket)
            return
        except Exception as error:  # noqa: BLE001 - a hostile model must not end the daemon
            where = "".join(traceback.format_tb(error.__traceback__))
            name = type(error).__name__  # what it says may quote what was worked on
            _log.error("training.crashed round=%d error=%s\n%s", round_id, name, where)
            self._act(self._session.abstain(round_id, f"training crashed: {name}", clock()), socket)
            return
        self._act(self._session.trained(round_id, update, clock()), socket)

    def _finish(self, final: FinalModel, socket: NodeSocket) -> None:
        """Write the detector and the report; the coordinator has already been told farewell."""
        finished = self._learner.finish(final.training, final.params, final.rounds_done)
        finished.detector.save(self._state / DETECTOR)
        sent, received = self._round_traffic
        rounds = max(1, self._rounds["joined"])
        report: dict[str, Any] = {
            "node": self._members.identity.node_id,
            "device": self._learner.data.device,
            "rows": {
                "train": len(self._learner.data.train),
                "validation": len(self._learner.data.validation),
                "test_benign": len(self._learner.data.test_benign),
                "test_attack": len(self._learner.data.test_attack),
            },
            "rounds": self._rounds,
            "bytes_sent_per_round": round(sent / rounds),
            "bytes_received_per_round": round(received / rounds),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "quality": finished.quality,
        }
        write_json(self._state / REPORT, report)
        self._emit(
            {
                "event": "node.finished",
                "detector": DETECTOR,
                "report": REPORT,
                "included": self._rounds["included"],
                "rounds": final.rounds_done,
            }
        )

    # --- roster ----------------------------------------------------------------------------------

    def _take_roster(self, document: bytes) -> None:
        with self._guarding_roster():
            install_roster(document, self._keys, source="the coordinator's roster")
            self._next_roster_look = 0.0
            self._look_at_roster()  # the next frame may be an offer to somebody it adds

    def _look_at_roster(self) -> None:
        if clock() < self._next_roster_look:
            return
        self._next_roster_look = clock() + ROSTER_POLL
        with self._guarding_roster():
            if self._members.reload():
                version = self._members.roster.version
                self._session.set_roster_version(version)
                self._emit({"event": "roster.taken.up", "version": version})
                outdated = self._members.outdated()
                if outdated:
                    self._emit({"event": "identity.outdated", "reason": outdated})

    @contextlib.contextmanager
    def _guarding_roster(self) -> Iterator[None]:
        try:
            yield
        except KeyMaterialError as error:  # the roster in force stays
            self._emit({"event": "roster.rejected", "reason": str(error)})
