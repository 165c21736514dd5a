"""Every attack by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nodes.attacks.coordinator_attacks import COORDINATOR_ATTACKS
from nodes.attacks.graph_attacks import GRAPH_ATTACKS
from nodes.attacks.key_attacks import KEY_ATTACKS
from nodes.attacks.network_attacks import NETWORK_ATTACKS
from nodes.attacks.node_attacks import NODE_ATTACKS
from nodes.attacks.offer_attacks import OFFER_ATTACKS
from nodes.attacks.report import Attack
from nodes.attacks.restored_nodes import RESTORED_ATTACKS
from nodes.attacks.upload_attacks import UPLOAD_ATTACKS
from secagg.errors import ConfigError

__all__ = ["ATTACKS", "attacks_named"]

ATTACKS: Final[dict[str, Attack]] = {
    attack.name: attack
    for attack in (
        *COORDINATOR_ATTACKS,
        *RESTORED_ATTACKS,
        *KEY_ATTACKS,
        *GRAPH_ATTACKS,
        *OFFER_ATTACKS,
        *NODE_ATTACKS,
        *UPLOAD_ATTACKS,
        *NETWORK_ATTACKS,
    )
}
"""Name to attack: those of a coordinator, of its offers, of nodes, of a network."""


def attacks_named(names: Sequence[str]) -> list[Attack]:
    """Return the attacks of these names, all of them if there are none.

    Raises:
        ConfigError: there is no attack of a name.
    """
    for name in names:
        if name not in ATTACKS:
            raise ConfigError(
                f"there is no attack {name!r}", hint="`secagg attack-demo --list` names them"
            )
    return [ATTACKS[name] for name in names] or list(ATTACKS.values())
