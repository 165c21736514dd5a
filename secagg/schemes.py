"""Schemes by name."""

from __future__ import annotations

from typing import Final

from secagg.errors import ConfigError
from secagg.insecure_plain import InsecurePlainScheme
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.masks import Apply, apply_masks
from secagg.masking.relay import MakeSpool, MemorySpool
from secagg.roles import Scheme
from secagg.types import NodeId, RingVector, Rng, RoundSetup, Signer

__all__ = ["SCHEMES", "MaskingScheme", "scheme_named", "schemes"]


class MaskingScheme:
    """Pairwise masking; see `secagg.masking` and specs/30-masking.md.

    Args:
        apply: How the coordinator removes masks; daemons pass one that uses several cores.
        spool: Where the coordinator keeps what nodes give for each other.
    """

    name = "masking"
    private = True

    def __init__(self, *, apply: Apply = apply_masks, spool: MakeSpool = MemorySpool) -> None:
        self._apply, self._spool = apply, spool

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
    ) -> MaskingClient:
        """Return a node's role."""
        return MaskingClient(setup, vector, signer, coordinator=coordinator, rng=rng)

    def coordinator(self, setup: RoundSetup) -> MaskingCoordinator:
        """Return the coordinator's role."""
        return MaskingCoordinator(setup, apply=self._apply, spool=self._spool)


def schemes(*, apply: Apply = apply_masks, spool: MakeSpool = MemorySpool) -> dict[str, Scheme]:
    """Return every scheme by name, with the means that masking's coordinator is to use."""
    masking = MaskingScheme(apply=apply, spool=spool)
    return {scheme.name: scheme for scheme in (masking, InsecurePlainScheme())}


SCHEMES: Final[dict[str, Scheme]] = schemes()


def scheme_named(name: str) -> Scheme:
    """Return the scheme called `name`.

    Raises:
        ConfigError: there is none.
    """
    scheme = SCHEMES.get(name)
    if scheme is None:
        raise ConfigError(f"there is no scheme {name!r}", hint=f"use one of: {', '.join(SCHEMES)}")
    return scheme
