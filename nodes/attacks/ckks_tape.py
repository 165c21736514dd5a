"""What a puppet coordinator of `ckks` writes down, and the nodes that are its accomplices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from nodes.attacks.ckks_knowledge import SecretId
from nodes.attacks.ckks_trusting import TrustingClient
from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.primitives import packed
from secagg.types import NodeId
from secagg.wire.messages import DealtShare, SealingKey

__all__ = ["Accomplice", "Dealt", "Tape", "TrustingAccomplice", "View"]

View: TypeAlias = Mapping[NodeId, int]
"""Survivors to their weights."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """What a member is given for a dealer's share."""

    message: DealtShare
    secret: SecretId
    """Whose secret the share in it is of."""
    share: packed.Share | None = None
    """The share, where it is the attacker's own."""


@dataclass
class Tape:
    """Everything that reached the coordinator, by node, and what it showed."""

    keys: dict[NodeId, SealingKey] = field(default_factory=dict)
    distances: dict[NodeId, float] = field(default_factory=dict)
    shown: dict[NodeId, tuple[SealingKey, ...]] = field(default_factory=dict)
    boxes: dict[NodeId, tuple[bytes, ...]] = field(default_factory=dict)
    ciphers: dict[NodeId, rlwe.Residues] = field(default_factory=dict)
    views: dict[NodeId, View] = field(default_factory=dict)
    cosigned: dict[NodeId, bytes] = field(default_factory=dict)
    answers: list[tuple[NodeId, Mapping[SecretId, int], packed.Share]] = field(default_factory=list)
    asked: list[View] = field(default_factory=list)
    """Views that an honest member answered for."""


class Accomplice(CkksClient):
    """A node that keeps the shares it deals; the attacker reads the rest."""

    dealt: packed.Share = np.zeros((0, 0), dtype=np.uint32)

    def _boxes(self, secret: rlwe.Secret, keys: tuple[SealingKey, ...]) -> list[bytes]:
        drawn: list[bytes] = []
        rng = self._rng

        def draw(size: int) -> bytes:
            drawn.append(rng(size))
            return drawn[-1]

        self._rng = draw
        boxes = super()._boxes(secret, keys)
        again = iter(drawn)
        committee = self._terms.committee
        self.dealt = packed.share(
            secret.coefficients,
            prime=committee.modulus,
            threshold=committee.threshold,
            pack=committee.pack,
            holders=committee.size,
            rng=lambda _: next(again),
        )
        return boxes


class TrustingAccomplice(Accomplice, TrustingClient):
    """The same among nodes that trust the server."""
