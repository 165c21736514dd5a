"""Nodes of `ckks` set back to an earlier state, with the journal on disk or without.

How sessions are set back is in `nodes.attacks.sessions`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.coordinator_attacks import without
from nodes.attacks.report import Attack, Played
from nodes.attacks.sessions import Session, ask_twice, offered_round
from nodes.ephemeral import EphemeralIdentity
from secagg.ckks.client import CkksClient
from secagg.round_setup import RoundSetup
from secagg.schemes import CkksScheme
from secagg.types import NodeId, RingVector, Rng, Signer

__all__ = ["RESTORED_ATTACKS"]


class _Given(CkksScheme):
    """Ckks over an input that was drawn beforehand, so that what is opened can be compared."""

    def __init__(self, inputs: Mapping[NodeId, RingVector]) -> None:
        super().__init__()
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
    ) -> CkksClient:
        mine = self._inputs[signer.node_id]
        return super().client(
            setup,
            mine,
            signer,
            coordinator=coordinator,
            rng=rng,
            distance=distance,
            excess=excess,
        )


def _set_back(with_disk: bool) -> Callable[[int, int, int], Played]:
    """Return the attack; `with_disk` sets the journal back as well."""

    def play(n: int, dim: int, seed: int) -> Played:
        target = CkksPuppet(n, dim, seed, trusting=True)
        target.until_upload()
        target.finish()
        target.ask(target.view(without(target.nodes, [target.victim])))
        offer, identities, changes = offered_round(n, dim, "ckks")
        own: Any = changes["dim"]
        puppet = CkksPuppet(n, own, seed, changes=changes, identities=identities)
        host, scheme = EphemeralIdentity(COORDINATOR), _Given(puppet.inputs)
        with tempfile.TemporaryDirectory() as name:
            sessions = {
                node: Session(puppet, node, offer, scheme=scheme, folder=Path(name), host=host)
                for node in puppet.nodes
            }
            puppet.clients |= sessions
            puppet.announce()
            puppet.roles = {node: session.role for node, session in sessions.items()}
            puppet.committee()
            fewer = puppet.view(without(puppet.nodes, [puppet.victim]))
            ask_twice(puppet, Path(name), with_disk=with_disk, again=lambda: puppet.ask(fewer))
            return puppet.judge(target.judge("").here)

    return play


RESTORED_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "restored-memory",
        "coordinator",
        "ask nodes again that were resumed from an image of their memory",
        ("H-12", "S-14"),
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
