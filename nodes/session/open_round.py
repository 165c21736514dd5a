"""What the coordinator keeps of the round that is open, until it is closed."""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.roles import CoordinatorRole
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import RoundOffer

__all__ = ["OpenRound"]


@dataclass(slots=True, eq=False)
class OpenRound:
    """An offered round."""

    offer: RoundOffer
    setup: RoundSetup
    role: CoordinatorRole
    offered_at: float
    late: set[NodeId] = field(default_factory=set)
    """Missed a phase."""
    outliers: set[NodeId] = field(default_factory=set)
    """Gave their distance, and got no weight in it."""
    refused: dict[NodeId, str] = field(default_factory=dict)
    """Who refused the offer, and why."""
