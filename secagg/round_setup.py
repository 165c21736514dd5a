"""What both sides of a round agree on before it starts.

Source: specs/31-thresholds.md section 2, specs/35-ckks-parameters.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secagg.ckks.parameters import CkksParameters
from secagg.errors import ConfigError
from secagg.types import MAX_CHUNKS, MAX_COHORT, NodeId
from secagg.wire.fields import MAX_LEVELS

__all__ = ["RoundSetup"]


@dataclass(frozen=True, slots=True)
class RoundSetup:
    """What both sides of one round agree on before it starts: the checked content of the offer.

    Raises:
        ConfigError: the numbers are at odds with each other.
    """

    run_id: bytes
    """16 bytes, drawn once per run."""
    round_id: int
    """Never used twice in a run, aborted rounds included."""
    offer_hash: bytes
    """SHA-256 over the whole offer, model digest included; every key and mask is bound to it."""
    cohort: tuple[NodeId, ...]
    """Nodes the offer went to, sorted."""
    signing_keys: Mapping[NodeId, bytes] = field(repr=False)
    """Ed25519 public keys of the cohort, from the signed roster."""
    dim: int
    """Coordinates in the summed vector."""
    ring_bits: int
    """Sums are modulo 2^ring_bits; 8 to 32."""
    threshold: int
    """Masking's Shamir threshold t among the holders of one node's secrets."""
    quorum: int
    """Fewest nodes with keys, shares and inputs: whom the sum is over at least."""
    neighbours: int
    """Degree k of the masking graph; cohort size - 1 is the complete graph."""
    colluders: int
    """Nodes of the cohort that may side with a malicious coordinator."""
    phase_timeout: float = 30.0
    """Seconds a phase of the protocol may take."""
    input_timeout: float = 600.0
    """Seconds until the first message, local training included."""
    chunk_values: int = 65_536
    """Coordinates a chunk of an upload carries; a multiple of 8, so that chunks are whole bytes."""
    ckks: CkksParameters | None = None
    """What the scheme `ckks` runs by; it has no neighbours, and thresholds of its own."""
    coordinator_weighs: bool = False
    """Nodes disclose their consistency distance, and the coordinator weighs them by it."""
    noise_levels: tuple[int, ...] = ()
    """Dropouts up to which no further part of a node's noise is needed, rising from 0; () if none
    of it can be given back (specs/55-excess-noise.md)."""

    def __post_init__(self) -> None:
        n = len(self.cohort)
        if n != len(set(self.cohort)) or list(self.cohort) != sorted(self.cohort):
            raise ConfigError("the cohort is not a sorted list of distinct ids")
        if not 3 <= n <= MAX_COHORT:
            raise ConfigError(
                f"a cohort of {n} cannot hide anybody's input",
                hint=f"offer the round to 3 to {MAX_COHORT} nodes",
            )
        if set(self.signing_keys) != set(self.cohort):
            raise ConfigError("the roster lacks a signing key of the cohort")
        if self.ckks is None:
            self._check_graph(n)
        else:
            self._check_terms(self.ckks)
        if not 0 <= self.colluders < n:
            raise ConfigError(f"{self.colluders} colluding nodes in a cohort of {n}")
        least = max(3, self.cosigners, self.colluders + 2)
        if not least <= self.quorum <= n:  # M-03
            raise ConfigError(
                f"quorum {self.quorum} of {n} nodes is not safe with {self.colluders} colluding",
                hint=f"use {least} to {n}" if least <= n else "assume fewer colluding nodes",
            )
        self._check_levels(n)
        if not 8 <= self.ring_bits <= 32 or self.dim < 1:
            raise ConfigError("ring_bits must be 8 to 32 and dim at least 1")
        if self.chunk_values < 8 or self.chunk_values % 8:
            raise ConfigError("chunk_values must be a positive multiple of 8")
        if self.n_chunks > MAX_CHUNKS:
            raise ConfigError(
                f"{self.dim} values in chunks of {self.chunk_values} are {self.n_chunks} messages",
                hint=f"use chunks of at least {8 * -(-self.dim // (8 * MAX_CHUNKS))} values",
            )

    def _check_graph(self, n: int) -> None:
        if not 2 <= self.neighbours <= n - 1:
            raise ConfigError(
                f"{self.neighbours} neighbours in a cohort of {n}", hint=f"use 2 to {n - 1}"
            )
        holders = min(n, 2 * -(-self.neighbours // 2) + 1)  # as `build_graph` rounds the degree
        least, most = max(n // 2, self.colluders) + 1, n
        if holders < n:  # sparse, unless so many stay away that the circle closes
            closes = holders >= self.quorum
            least, most = max(2, self.colluders + 1) if closes else 2, holders
        if not least <= self.threshold <= most:  # M-02
            raise ConfigError(
                f"threshold {self.threshold} of {holders} share holders is not safe",
                hint=f"use {least} to {most}",
            )
        if self.coordinator_weighs:
            raise ConfigError(
                "only under ckks can the coordinator weigh what it does not see",
                hint="choose the scheme ckks, or private weights",
            )

    def _check_terms(self, terms: CkksParameters) -> None:
        agreed = (len(self.cohort), self.quorum, self.colluders)
        if (terms.nodes, terms.quorum, terms.colluders) != agreed:
            raise ConfigError("the terms of ckks are for another cohort, quorum or collusion")

    def _check_levels(self, n: int) -> None:
        levels = self.noise_levels
        if not levels:
            return
        if levels[0] != 0 or list(levels) != sorted(set(levels)) or len(levels) > MAX_LEVELS:
            raise ConfigError(
                f"levels of noise {levels} do not rise from 0",
                hint=f"use 0, then larger numbers of dropouts, {MAX_LEVELS} at most",
            )
        if not n - self.quorum <= levels[-1] < n - self.colluders:
            raise ConfigError(
                f"noise for {levels[-1]} dropouts, where {n - self.quorum} of {n} nodes may drop"
                f" out and {self.colluders} collude",
                hint=f"end the levels with {n - self.quorum}",
            )
        if self.coordinator_weighs:
            raise ConfigError(
                "noise is given back only from a sum in which all nodes weigh alike",
                hint="choose private weights, or no levels of noise",
            )

    @property
    def context(self) -> tuple[bytes, bytes, bytes]:
        """Run, round and offer: what every key, seal and signature of the round is bound to."""
        return self.run_id, self.round_id.to_bytes(8, "little"), self.offer_hash

    @property
    def cosigners(self) -> int:
        """Fewest co-signatures under one view: two such sets share an honest node (M-11)."""
        shared = (len(self.cohort) + self.colluders) // 2 + 1
        return shared if self.ckks else max(shared, self.threshold)

    @property
    def n_chunks(self) -> int:
        """Chunks that one upload takes."""
        return -(-self.dim // self.chunk_values)
