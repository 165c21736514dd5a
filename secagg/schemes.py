"""Schemes by name."""

from __future__ import annotations

from typing import Final

from secagg.ckks.client import CkksClient
from secagg.ckks.coordinator import CkksCoordinator
from secagg.ckks.ring import ring_of
from secagg.ckks.seal import load_libraries
from secagg.errors import ConfigError
from secagg.insecure_plain import InsecurePlainScheme
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.masks import Apply, apply_masks
from secagg.relay import MakeSpool, MemorySpool
from secagg.roles import Scheme
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector, Rng, Signer, Weigh

__all__ = ["SCHEMES", "CkksScheme", "MaskingScheme", "scheme_named", "schemes"]


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

    def check(self) -> None:
        """Do nothing: it needs no more than this package does."""

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
        """Return a node's role."""
        del distance
        return MaskingClient(setup, vector, signer, coordinator=coordinator, rng=rng, excess=excess)

    def coordinator(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> MaskingCoordinator:
        """Return the coordinator's role."""
        del weigh
        return MaskingCoordinator(setup, apply=self._apply, spool=self._spool)


_TRIED: Final = (2048, 49)
"""Degree and modulus bits of the ring in which TenSEAL is tried out."""


class CkksScheme:
    """Key-homomorphic CKKS opened by a committee; see `secagg.ckks` and specs/36-ckks.md.

    Args:
        spool: Where the coordinator keeps what nodes deal to the committee.
    """

    name = "ckks"
    private = True

    def __init__(self, *, spool: MakeSpool = MemorySpool) -> None:
        self._spool = spool

    def check(self) -> None:
        """Raise ConfigError if TenSEAL is missing, or SEAL is not laid out as is assumed here."""
        load_libraries()
        ring_of(*_TRIED)

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
        """Return a node's role, which is a committee member's too where it is drawn."""
        return CkksClient(
            setup,
            vector,
            signer,
            coordinator=coordinator,
            rng=rng,
            distance=distance,
            excess=excess,
        )

    def coordinator(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> CkksCoordinator:
        """Return the coordinator's role."""
        return CkksCoordinator(setup, spool=self._spool, weigh=weigh)


def schemes(*, apply: Apply = apply_masks, spool: MakeSpool = MemorySpool) -> dict[str, Scheme]:
    """Return every scheme by name, with the means that their coordinators are to use."""
    masking, ckks = MaskingScheme(apply=apply, spool=spool), CkksScheme(spool=spool)
    return {scheme.name: scheme for scheme in (masking, ckks, InsecurePlainScheme())}


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
