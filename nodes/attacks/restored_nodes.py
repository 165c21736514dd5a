"""Nodes set back to an earlier state: a resumed memory image, with the journal on disk or without.

The nodes are real sessions with real journals in a folder. An attacker that can have machines set
back lets all of them co-sign and answer, sets them back to the moment before, and asks again for
other survivors. Source: specs/60-session.md section 6.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from nodes.answer_journal import FileJournal
from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.coordinator_attacks import new_target, without
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import Attack, Played
from nodes.ephemeral import EphemeralIdentity
from nodes.session.events import PeerRejected, RoundEnded, RunState, SessionStep
from nodes.session.model_transfer import model_chunks
from nodes.session.offer import NodePolicy, build_offer, check_offer
from nodes.session.participant import Participant
from nodes.session.plan import RunPlan
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.masking.client import MaskingClient
from secagg.schemes import MaskingScheme
from secagg.steps import Outgoing, Step
from secagg.types import NodeId, RingVector, Rng, RoundSetup, Signer
from secagg.version import VERSION
from secagg.wire.envelope import open_envelope, seal_envelope
from secagg.wire.messages import Message, RoundOffer, Welcome

__all__ = ["RESTORED_ATTACKS"]

_RUN: Final = b"attack-demo-run-"


class _Given(MaskingScheme):
    """Masking over an input that was drawn beforehand, so that what is opened can be compared."""

    def __init__(self, inputs: dict[NodeId, RingVector]) -> None:
        self._inputs = inputs

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
    ) -> MaskingClient:
        del distance
        mine = self._inputs[signer.node_id]
        return super().client(setup, mine, signer, coordinator=coordinator, rng=rng)


class _Session:
    """A real node session that a `Puppet` can talk to as it talks to a client."""

    def __init__(
        self,
        puppet: Puppet,
        node: NodeId,
        offer: RoundOffer,
        *,
        folder: Path,
        host: EphemeralIdentity,
    ) -> None:
        self._host, self._node = host, node
        self._public = puppet.identities[node].public
        keys = {name: each.public for name, each in puppet.identities.items()}
        keys[COORDINATOR] = host.public
        self._participant = Participant(
            puppet.identities[node],
            COORDINATOR,
            keys.get,
            policy=NodePolicy(),
            remembered=None,
            rng=os.urandom,
            journal=FileJournal(folder / node),
            members=lambda: len(puppet.nodes),
            schemes={"masking": _Given(puppet.inputs)},
        )
        self._offer = offer

    def start(self, now: float) -> Step:
        """Join, take the offer and the model, and hand an input in."""
        self._participant.start(now, now)
        welcome = Welcome(_RUN, VERSION, 1, now, 1.0, 0, 1)
        params = np.zeros(self._offer.model_dim, dtype=np.float32)
        chunks = model_chunks(self._offer.round_id, params)
        messages: tuple[Message, ...] = (welcome, self._offer, *chunks)
        for message in messages:
            self._participant.receive(self._sealed(message), now)
        return self._step(self._participant.abstain(self._offer.round_id, "no data", now))

    def receive(self, message: Message, now: float) -> Step:
        """Pass a message in; what the session rejects is raised, as a client would."""
        step = self._participant.receive(self._sealed(message), now)
        for event in step.events:
            match event:
                case PeerRejected(peer, reason):
                    raise RemoteProtocolError(peer, reason.removeprefix(f"{peer}: "))
                case RoundEnded(_, outcome, _):
                    raise RemoteProtocolError(self._node, outcome)
                case _:
                    pass
        return self._step(step)

    def on_timeout(self, now: float) -> Step:
        """Let time pass."""
        return self._step(self._participant.on_timeout(now))

    def restored(self) -> _Session:
        """Return the session as it is now, as a memory image would keep it."""
        twin = copy.copy(self)
        twin._participant = copy.copy(self._participant)
        twin._participant._journal = copy.copy(vars(self._participant)["_journal"])
        role = copy.copy(vars(self._participant)["_role"])
        for name, value in vars(role).items():
            if isinstance(value, dict | list):
                setattr(role, name, copy.copy(value))
        twin._participant._role = role
        return twin

    def _sealed(self, message: Message) -> bytes:
        return bytes(seal_envelope(message, self._host, to=self._node, run_id=_RUN))

    def _step(self, step: SessionStep) -> Step:
        send = []
        for to, envelope in step.send:
            opened = open_envelope(
                bytes(envelope), sender=self._node, key=self._public, receiver=to, run_id=_RUN
            )
            send.append(Outgoing(to, opened.message))
        return Step(tuple(send))


def _plan_offer(n: int, dim: int) -> RoundOffer:
    cohort = tuple(f"node-{index:02d}" for index in range(n))
    state = RunState(
        run_id=_RUN,
        next_round=1,
        rounds_done=0,
        params=np.zeros(dim, dtype=np.float32),
        reference=np.zeros(2, dtype=np.float32),
        optimiser={},
    )
    return build_offer(RunPlan(rounds=1, min_nodes=3, training=b"{}"), state, cohort, 1)


def _seated(n: int, dim: int, seed: int, folder: Path) -> Puppet:
    """Return a puppet whose nodes are sessions with journals in `folder`."""
    offer = _plan_offer(n, dim)
    identities = {name: EphemeralIdentity(name) for name in offer.cohort}
    setup = check_offer(
        offer,
        _RUN,
        node_id=offer.cohort[0],
        policy=NodePolicy(),
        signing_key={name: each.public for name, each in identities.items()}.get,
        members=n,
    )
    changes = {name: getattr(setup, name) for name in RoundSetup.__dataclass_fields__}
    puppet = Puppet(n, setup.dim, seed, rng=os.urandom, changes=changes, identities=identities)
    host = EphemeralIdentity(COORDINATOR)
    for node in puppet.nodes:
        puppet.clients[node] = _Session(puppet, node, offer, folder=folder, host=host)
    return puppet


def _set_back(with_disk: bool) -> Callable[[int, int, int], Played]:
    """Return the attack; `with_disk` sets the journal back as well."""

    def play(n: int, dim: int, seed: int) -> Played:
        stage = new_target(n, dim, seed)
        stage.run()
        stage.ask(stage.names, active=stage.names, dead=[])
        stage.ask(stage.names, active=[], dead=[stage.names[0]])
        with tempfile.TemporaryDirectory() as name:
            return _ask_twice(_seated(n, dim, seed, Path(name)), Path(name), with_disk).judge(
                stage.gained()
            )

    return play


def _ask_twice(puppet: Puppet, folder: Path, with_disk: bool) -> Puppet:
    puppet.adverts()
    puppet.keys()
    puppet.agreement()
    puppet.sharing()
    images = {node: _session(puppet, node).restored() for node in puppet.nodes}
    kept = shutil.copytree(folder, folder / "kept") if with_disk else None
    puppet.finish()
    puppet.clients.update(images)
    if kept is not None:
        for node in puppet.nodes:
            (folder / node).unlink(missing_ok=True)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    fewer = without(puppet.nodes, [puppet.victim])
    puppet.tape.cosigned.clear()
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    return puppet


def _session(puppet: Puppet, node: NodeId) -> _Session:
    session = puppet.clients[node]
    if not isinstance(session, _Session):
        raise LocalProtocolError(f"{node} is no session")
    return session


RESTORED_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "restored-memory",
        "coordinator",
        "ask nodes again that were resumed from an image of their memory",
        ("M-28", "S-14"),
        _set_back(with_disk=False),
    ),
    Attack(
        "restored-machine",
        "coordinator",
        "the same with machines set back, memory and disk",
        (),
        _set_back(with_disk=True),
        promised=False,
    ),
)
