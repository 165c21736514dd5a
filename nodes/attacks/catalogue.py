"""Every attack by name, on each scheme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nodes.attacks import ckks_offers, ckks_restored, ckks_uploads
from nodes.attacks.ckks_announcements import ANNOUNCEMENT_ATTACKS
from nodes.attacks.ckks_distances import DISTANCE_ATTACKS
from nodes.attacks.ckks_keys import KEY_ATTACKS as CKKS_KEY_ATTACKS
from nodes.attacks.ckks_members import MEMBER_ATTACKS
from nodes.attacks.ckks_views import VIEW_ATTACKS
from nodes.attacks.coordinator_attacks import COORDINATOR_ATTACKS
from nodes.attacks.graph_attacks import GRAPH_ATTACKS
from nodes.attacks.key_attacks import KEY_ATTACKS
from nodes.attacks.network_attacks import NETWORK_ATTACKS
from nodes.attacks.node_attacks import NODE_ATTACKS
from nodes.attacks.noise_attacks import noise_attacks
from nodes.attacks.offer_attacks import OFFER_ATTACKS
from nodes.attacks.report import Attack
from nodes.attacks.restored_nodes import RESTORED_ATTACKS
from nodes.attacks.shared_key import SHARED_KEY_ATTACK
from nodes.attacks.upload_attacks import UPLOAD_ATTACKS
from secagg.errors import ConfigError

__all__ = ["ATTACKS", "CATALOGUES", "CKKS_ATTACKS", "attacks_named"]


def _by_name(attacks: Iterable[Attack]) -> dict[str, Attack]:
    return {attack.name: attack for attack in attacks}


ATTACKS: Final[dict[str, Attack]] = _by_name(
    (
        *COORDINATOR_ATTACKS,
        *RESTORED_ATTACKS,
        *KEY_ATTACKS,
        *GRAPH_ATTACKS,
        *OFFER_ATTACKS,
        *noise_attacks("masking"),
        *NODE_ATTACKS,
        *UPLOAD_ATTACKS,
        *NETWORK_ATTACKS,
    )
)
"""Name to attack on `masking`: those of a coordinator, of its offers, of nodes, of a network."""

CKKS_ATTACKS: Final[dict[str, Attack]] = _by_name(
    (
        SHARED_KEY_ATTACK,
        *VIEW_ATTACKS,
        *ckks_restored.RESTORED_ATTACKS,
        *CKKS_KEY_ATTACKS,
        *ckks_offers.OFFER_ATTACKS,
        *DISTANCE_ATTACKS,
        *noise_attacks("ckks"),
        *ANNOUNCEMENT_ATTACKS,
        *ckks_uploads.UPLOAD_ATTACKS,
        *MEMBER_ATTACKS,
    )
)
"""Name to attack on `ckks`; the first is the usual way, for comparison."""

CATALOGUES: Final[dict[str, dict[str, Attack]]] = {"masking": ATTACKS, "ckks": CKKS_ATTACKS}
"""Scheme to its attacks."""


def attacks_named(names: Sequence[str], scheme: str = "masking") -> list[Attack]:
    """Return the attacks of these names on a scheme, all of them if there are none.

    Raises:
        ConfigError: there is no attack of a name.
    """
    attacks = CATALOGUES[scheme]
    for name in names:
        if name not in attacks:
            raise ConfigError(
                f"there is no attack {name!r} on {scheme}",
                hint=f"`secagg attack-demo --scheme {scheme} --list` names them",
            )
    return [attacks[name] for name in names] or list(attacks.values())
