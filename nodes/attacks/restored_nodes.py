"""Nodes of `masking` set back to an earlier state, with the journal on disk or without.

How sessions are set back is in `nodes.attacks.sessions`.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.coordinator_attacks import new_target, without
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import Attack, Played
from nodes.attacks.sessions import Session, ask_twice, offered_round
from nodes.ephemeral import EphemeralIdentity
from secagg.masking.client import MaskingClient
from secagg.round_setup import RoundSetup
from secagg.schemes import MaskingScheme
from secagg.types import NodeId, RingVector, Rng, Signer

__all__ = ["RESTORED_ATTACKS"]


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
        excess: tuple[bytes, ...] = (),
    ) -> MaskingClient:
        del distance, excess
        mine = self._inputs[signer.node_id]
        return super().client(setup, mine, signer, coordinator=coordinator, rng=rng)


def _seated(n: int, dim: int, seed: int, folder: Path) -> Puppet:
    """Return a puppet whose nodes are sessions with journals in `folder`."""
    offer, identities, changes = offered_round(n, dim, "masking")
    own = int(changes["dim"])  # type: ignore[call-overload]
    puppet = Puppet(n, own, seed, rng=os.urandom, changes=changes, identities=identities)
    host, scheme = EphemeralIdentity(COORDINATOR), _Given(puppet.inputs)
    for node in puppet.nodes:
        puppet.clients[node] = Session(puppet, node, offer, scheme=scheme, folder=folder, host=host)
    return puppet


def _set_back(with_disk: bool) -> Callable[[int, int, int], Played]:
    """Return the attack; `with_disk` sets the journal back as well."""

    def play(n: int, dim: int, seed: int) -> Played:
        stage = new_target(n, dim, seed)
        stage.run()
        stage.ask(stage.names, active=stage.names, dead=[])
        stage.ask(stage.names, active=[], dead=[stage.names[0]])
        with tempfile.TemporaryDirectory() as name:
            puppet = _seated(n, dim, seed, Path(name))
            puppet.until_upload()
            again = functools.partial(_without_victim, puppet)
            ask_twice(puppet, Path(name), with_disk=with_disk, again=again)
            return puppet.judge(stage.gained())

    return play


def _without_victim(puppet: Puppet) -> None:
    fewer = without(puppet.nodes, [puppet.victim])
    puppet.tape.cosigned.clear()
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))


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
