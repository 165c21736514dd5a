"""Real node sessions with journals in a folder, where attacks set them back to an earlier state.

An attacker that can have machines set back lets all of them co-sign and answer, sets them back to
the moment before, and asks again for other survivors. Source: specs/60-session.md section 6.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from nodes.answer_journal import FileJournal
from nodes.attacks.base_puppet import COORDINATOR, BasePuppet
from nodes.ephemeral import EphemeralIdentity
from nodes.session.events import PeerRejected, RoundEnded, RunState, SessionStep
from nodes.session.ledger import MemoryLedger
from nodes.session.model_transfer import model_chunks
from nodes.session.offer import build_offer, check_offer
from nodes.session.participant import Participant
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyFacts
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.roles import Scheme
from secagg.round_setup import RoundSetup
from secagg.steps import Outgoing, Step
from secagg.types import NodeId
from secagg.version import VERSION
from secagg.wire.envelope import open_envelope, seal_envelope
from secagg.wire.messages import Message, RoundOffer, Welcome

__all__ = ["RUN", "Session", "ask_twice", "offered_round", "session_of"]

RUN: Final = b"attack-demo-run-"


class Session:
    """A real node session that a puppet can talk to as it talks to a client."""

    def __init__(
        self,
        puppet: BasePuppet,
        node: NodeId,
        offer: RoundOffer,
        *,
        scheme: Scheme,
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
            policy=NodePolicy(schemes=(scheme.name,)),
            remembered=None,
            rng=os.urandom,
            journal=FileJournal(folder / node),
            ledger=MemoryLedger(),
            members=lambda: len(puppet.nodes),
            schemes={scheme.name: scheme},
        )
        self._offer = offer

    def start(self, now: float) -> Step:
        """Join, take the offer and the model, and hand an input in."""
        self._participant.start(now, now)
        welcome = Welcome(RUN, VERSION, 1, now, 1.0, 0, 1)
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

    @property
    def role(self) -> Any:
        """The client of the round, once it has started."""
        return vars(self._participant)["_role"]

    def on_timeout(self, now: float) -> Step:
        """Let time pass."""
        return self._step(self._participant.on_timeout(now))

    def restored(self) -> Session:
        """Return the session as it is now, as a memory image would keep it."""
        twin = copy.copy(self)
        twin._participant = copy.copy(self._participant)
        twin._participant._journal = copy.copy(vars(self._participant)["_journal"])
        role = copy.copy(self.role)
        for name, value in vars(role).items():
            if isinstance(value, dict | list):
                setattr(role, name, copy.copy(value))
        twin._participant._role = role
        return twin

    def _sealed(self, message: Message) -> bytes:
        return bytes(seal_envelope(message, self._host, to=self._node, run_id=RUN))

    def _step(self, step: SessionStep) -> Step:
        send = []
        for to, envelope in step.send:
            opened = open_envelope(
                bytes(envelope), sender=self._node, key=self._public, receiver=to, run_id=RUN
            )
            send.append(Outgoing(to, opened.message))
        return Step(tuple(send))


def offered_round(
    n: int, dim: int, scheme: str
) -> tuple[RoundOffer, dict[NodeId, EphemeralIdentity], dict[str, object]]:
    """Return an offer of a scheme, who signs, and the fields of the set-up that follows from it."""
    cohort = tuple(f"node-{index:02d}" for index in range(n))
    state = RunState(
        run_id=RUN,
        next_round=1,
        rounds_done=0,
        params=np.zeros(dim, dtype=np.float32),
        reference=np.zeros(2, dtype=np.float32),
        optimiser={},
    )
    plan = RunPlan(rounds=1, min_nodes=3, training=b"{}", scheme=scheme)
    offer = build_offer(plan, state, cohort, 1)
    identities = {name: EphemeralIdentity(name) for name in cohort}
    setup = check_offer(
        offer,
        RUN,
        node_id=cohort[0],
        policy=NodePolicy(schemes=(scheme,)),
        signing_key={name: each.public for name, each in identities.items()}.get,
        facts=PolicyFacts(members=n),
    )
    fields = {name: getattr(setup, name) for name in RoundSetup.__dataclass_fields__}
    return offer, identities, fields


def ask_twice(
    puppet: BasePuppet, folder: Path, *, with_disk: bool, again: Callable[[], None]
) -> None:
    """Open a sum, set the nodes back to the moment before, and ask again.

    Args:
        puppet: The round; its clients are sessions, and their inputs are in.
        folder: Of the journals.
        with_disk: The journals are set back as well.
        again: Asks for another sum.
    """
    images = {node: session_of(puppet, node).restored() for node in puppet.nodes}
    kept = shutil.copytree(folder, folder / "kept") if with_disk else None
    puppet.finish()
    puppet.clients.update(images)
    if kept is not None:
        for node in puppet.nodes:
            (folder / node).unlink(missing_ok=True)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    again()


def session_of(puppet: BasePuppet, node: NodeId) -> Session:
    """Return a node's session."""
    session = puppet.clients[node]
    if not isinstance(session, Session):
        raise LocalProtocolError(f"{node} is no session")
    return session
