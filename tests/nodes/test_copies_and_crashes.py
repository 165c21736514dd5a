"""A node answers once a round, whoever was copied, killed or forked, and only what is on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from nodes.answer_journal import FileJournal
from nodes.config import load_node_config
from nodes.node_daemon import ANSWERS, MEMORY, NodeDaemon
from nodes.session.events import PeerRejected, RoundEnded, SessionStep, TrainRequested
from nodes.session.ledger import MemoryLedger
from nodes.session.offer import build_offer
from nodes.session.participant import Participant, State
from nodes.store import hold_state, load_memory, save_memory
from nodes.telemetry import Record
from nodes.transport import NodeSocket
from secagg.errors import ConfigError
from secagg.wire.envelope import NO_RUN, open_envelope
from secagg.wire.messages import (
    KeyAdvert,
    Message,
    ModelChunk,
    RoundOffer,
    SurvivorSignature,
    Welcome,
)
from tests.support.answers import LINE, NODE, RUN, run_on, stop_before_answer
from tests.support.federation import REPO, Federation
from tests.support.frames import sealed
from tests.support.run import Run, make_plan, make_state, message_of

# --- copies of a node ----------------------------------------------------------------------------


def run_script(mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.answers", mode, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        timeout=120,
        check=False,
    )


def answered(folder: Path) -> list[int]:
    lines = (folder / ANSWERS).read_bytes().splitlines()
    return [json.loads(line)["round"] for line in lines]


def answers_in(sent: list[Message]) -> int:
    return sum(isinstance(message, SurvivorSignature) for message in sent)


def watch(run: Run) -> list[Message]:
    """Return the list that everything `NODE` sends from now on goes into."""
    sent: list[Message] = []

    def deliver(sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender == NODE:
            sent.append(message_of(run, frame, sender))
        return [frame]

    run.deliver = deliver
    return sent


@pytest.mark.req("S-14")
def test_a_node_killed_between_its_claim_and_its_answer_never_gives_it(tmp_path: Path) -> None:
    result = run_script("kill", tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert result.stdout == ""
    assert answered(tmp_path) == [1]
    run = run_on(tmp_path)  # the coordinator offers round 1 once more, the others know nothing
    sent = watch(run)
    run.boot()
    run.play(60.0)
    assert "round 1 was offered before" in str(run.of(PeerRejected, NODE)[0])
    assert not answers_in(sent)
    assert answered(tmp_path) == [1]


@pytest.mark.req("S-14")
def test_of_a_process_forked_before_its_answer_one_image_answers(tmp_path: Path) -> None:
    result = run_script("fork", tmp_path)
    assert result.returncode == 0, result.stderr
    images = [json.loads(line) for line in result.stdout.splitlines()]
    silent, speaks = sorted(images, key=lambda image: int(image["sent"]))
    assert (silent["sent"], speaks["sent"]) == (0, 1)
    assert speaks["ended"] == []
    (why,) = silent["ended"]
    assert "was answered before" in why or "in use by another process" in why
    assert answered(tmp_path) == [1]


@pytest.mark.req("S-05", "S-14")
def test_a_copy_of_the_state_folder_cannot_answer_the_round_it_was_copied_in(
    tmp_path: Path,
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    run = run_on(original)
    request, _ = stop_before_answer(run)
    save_memory(original / MEMORY, run.disk[NODE])
    shutil.copytree(original, copy)  # cp -r, after the offer and before the answer
    assert len(run.participants[NODE].receive(request, run.now).send) == 1
    assert answered(original) == [1]

    clone = run_on(copy)
    sent = watch(clone)
    clone.boot()
    clone.play(60.0)  # offered round 1 again
    assert "round 1 was offered before" in str(clone.of(PeerRejected, NODE)[0])
    (rejected,) = clone.participants[NODE].receive(request, clone.now).events
    assert isinstance(rejected, PeerRejected)
    assert not any(isinstance(message, KeyAdvert | SurvivorSignature) for message in sent)
    assert not (copy / ANSWERS).exists()


@pytest.mark.req("S-14")
@pytest.mark.parametrize("asked", ["as in the first life", "afresh"])
def test_an_older_copy_answers_for_new_secrets_only(tmp_path: Path, asked: str) -> None:
    original, older = tmp_path / "original", tmp_path / "older"
    original.mkdir()
    shutil.copytree(original, older)  # before the offer: it remembers nothing
    run = run_on(original)
    old_request, first = stop_before_answer(run)
    run.take(NODE, run.participants[NODE].receive(old_request, run.now))
    assert answers_in(first) == 1

    clone = run_on(older)
    clone.events.append(("test", RoundEnded(0, "other random numbers", included=False)))
    request, second = stop_before_answer(clone)
    adverts = [m for m in (*first, *second) if isinstance(m, KeyAdvert)]
    assert len(adverts) == 2
    assert adverts[0] != adverts[1]
    node = clone.participants[NODE]
    if asked == "afresh":
        clone.take(NODE, node.receive(request, clone.now))
        assert answers_in(second) == 1
        assert answered(older) == [1]
    else:
        clone.take(NODE, node.receive(old_request, clone.now))
        assert clone.of(PeerRejected, NODE)
        clone.take(NODE, node.receive(request, clone.now))
        assert not answers_in(second)
        assert not (older / ANSWERS).exists()


# --- the daemon ----------------------------------------------------------------------------------


class Wire:
    """Stands for the socket: keeps what is sent, and what the disk held at that moment."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self.sent: list[tuple[bytes, object]] = []
        self.traffic = SimpleNamespace(totals=(0, 0))

    def send(self, frame: bytes) -> bool:
        self.sent.append((frame, self._look()))
        return True


class Daemon:
    """A node daemon whose session is driven by hand, by a coordinator that has only its key."""

    def __init__(self, folder: Path) -> None:
        self._federation = Federation(folder, 3)
        self._federation.endpoint = "tcp://127.0.0.1:9"
        self.names = self._federation.names
        self.state = folder / "site-0-state"
        self.records: list[Record] = []
        config = load_node_config(self._federation.node_config("site-0"))
        self.daemon = NodeDaemon(config, self.records.append)
        self._hub = self._federation.identity("hub")
        keys = {name: self._federation.identity(name).signing_key for name in (*self.names, "hub")}
        self._identity = self._federation.identity("site-0")
        self.wire = Wire(self._memory)
        self.session = self.daemon._session = Participant(
            self._identity,
            "hub",
            keys.get,
            policy=config.node_policy(),
            remembered=None,
            rng=os.urandom,
            members=lambda: 0,
            journal=FileJournal(self.state / ANSWERS),
            ledger=MemoryLedger(),
        )

    def _memory(self) -> object:
        memory = load_memory(self.state / MEMORY)
        return memory.rounds.get(RUN, 0) if memory else 0

    def offer(self, round_id: int, **changes: object) -> RoundOffer:
        offer = build_offer(make_plan(), make_state(next_round=round_id), tuple(self.names), 1)
        return msgspec.structs.replace(offer, **changes)

    def take(self, message: Message, run_id: bytes = RUN) -> None:
        frame = sealed(message, self._hub, to="site-0", run_id=run_id)
        self.act(self.session.receive(frame, 0.0))

    def act(self, step: SessionStep) -> None:
        self.daemon._act(step, cast(NodeSocket, self.wire))

    def sent(self) -> list[tuple[str, object]]:
        key = self._identity.signing_key
        return [
            (
                type(
                    open_envelope(
                        frame, sender="site-0", key=key, receiver="hub", run_id=RUN
                    ).message
                ).__name__,
                disk,
            )
            for frame, disk in self.wire.sent
        ]

    def close(self) -> None:
        self.daemon._worker.shutdown()
        self.daemon._waiter.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    try:
        yield made
    finally:
        made.close()


WELCOME = Welcome(RUN, "0", 1, 0.0, 2.0, 0, 1)


@pytest.mark.req("S-05")
def test_a_rounds_id_is_forced_to_the_disk_before_the_first_message_of_that_round(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: set[int] = set()
    fsync = os.fsync

    def watch_fsync(handle: int) -> None:
        fsync(handle)
        forced.add(os.fstat(handle).st_ino)

    with hold_state(daemon.state):
        monkeypatch.setattr(os, "fsync", watch_fsync)
        daemon.take(WELCOME, NO_RUN)
        daemon.take(daemon.offer(1, cohort=("site-0", "site-1", "stranger")))
        assert (daemon.state / MEMORY).stat().st_ino in forced
        assert daemon.state.stat().st_ino in forced
        forced.clear()
        daemon.take(daemon.offer(2))
        assert daemon.session.state is State.LOADING
        assert (daemon.state / MEMORY).stat().st_ino in forced
        params = make_state().params
        request = daemon.session.receive(
            sealed(ModelChunk(2, 0, params.tobytes()), daemon._hub, to="site-0", run_id=RUN),
            0.0,
        )
        assert [type(event) for event in request.events] == [TrainRequested]
        daemon.act(daemon.session.abstain(2, "no rows", 0.0))
    assert daemon.sent() == [("Refusal", 1), ("KeyAdvert", 2)]


@pytest.mark.req("S-15")
def test_a_memory_that_cannot_be_stored_costs_the_round_and_sends_nothing(daemon: Daemon) -> None:
    with hold_state(daemon.state):
        daemon.take(WELCOME, NO_RUN)
        (daemon.state / MEMORY).mkdir()  # no file can take this name
        stranger = ("site-0", "site-1", "stranger")
        for round_id, cohort in ((1, tuple(daemon.names)), (2, stranger)):
            daemon.take(daemon.offer(round_id, cohort=cohort))
            assert daemon.session.state is State.IDLE
            record = daemon.records[-1]
            assert (record["event"], record["round_id"]) == ("round.ended", round_id)
            assert "cannot be remembered" in record["outcome"]
            assert str(daemon.state / MEMORY) in record["outcome"]
        assert not daemon.wire.sent
        (daemon.state / MEMORY).rmdir()
        daemon.take(daemon.offer(3))
        assert daemon.session.state is State.LOADING
        memory = load_memory(daemon.state / MEMORY)
        assert memory is not None
        assert memory.rounds == {RUN: 3}


@pytest.mark.req("S-16")
def test_a_node_does_not_start_on_a_damaged_journal(daemon: Daemon) -> None:
    with hold_state(daemon.state):
        (daemon.state / ANSWERS).write_bytes(b"hello\n" + LINE)
    with pytest.raises(ConfigError, match=r"answers\.jsonl: line 1 is not an answer"):
        daemon.daemon.run()


@pytest.mark.req("S-14")
@pytest.mark.timeout(240)
def test_a_daemon_killed_before_its_answer_left_has_it_on_disk(tmp_path: Path) -> None:
    with Federation(tmp_path, 3, rounds=1, liveness=30.0) as federation:
        federation.start_coordinator()
        victim, *others = federation.names
        for name in others:
            federation.start_node(name)
        dying = federation.start_node(victim, "--die-before", "UnmaskAnswer")
        dying.popen.wait(90)
        assert dying.popen.returncode == -signal.SIGKILL
        journal = tmp_path / f"{victim}-state" / ANSWERS
        assert answered(journal.parent) == [1]
        assert stat.S_IMODE(journal.stat().st_mode) == 0o600
