"""Rounds of the scheme `ckks` in this process: what each role takes, medians over rounds.

Times are CPU seconds of all threads, with the making and reading of messages; sizes are bytes of
encoded messages. `bench.ckks` sets them beside other schemes.
"""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import asdict, dataclass

from bench.cohort import CHUNK_VALUES, Cost, Identity, play
from bench.common import BenchError
from secagg.ckks.parameters import CkksParameters
from secagg.encoding import ring_bits_for
from secagg.round_setup import RoundSetup
from secagg.schemes import scheme_named
from secagg.wire.messages import Message, SealedSecret, SumShare

__all__ = ["SEED", "VANISHING", "OurRound", "make_ckks_setup", "measure"]

SEED = 1
"""Of the inputs, the same as the peers', and of who vanishes."""
VANISHING: dict[str, type[Message]] = {
    "nobody": SumShare,
    "before the upload": SealedSecret,
    "before the answer": SumShare,
}
"""When nodes vanish: the message that they do not come to send."""
DUTY = ("DealtShares", "OpenRequest")
"""What a node is sent because it is in the committee."""


def make_ckks_setup(n: int, dim: int, parameters: CkksParameters) -> RoundSetup:
    """Return the set-up of a round of `ckks`: what an operator gets, in the largest chunks.

    The coordinator weighs if the parameters have room for weights above 1.
    """
    cohort = tuple(f"node-{index:04d}" for index in range(n))
    return RoundSetup(
        run_id=b"r" * 16,
        round_id=1,
        offer_hash=hashlib.sha256(b"bench").digest(),
        cohort=cohort,
        signing_keys={node: Identity(node).public for node in cohort},
        dim=dim,
        ring_bits=ring_bits_for(n * parameters.max_weight, parameters.value_bits),
        threshold=parameters.committee.threshold,
        quorum=parameters.quorum,
        neighbours=n - 1,
        colluders=parameters.colluders,
        chunk_values=CHUNK_VALUES,
        ckks=parameters,
        coordinator_weighs=parameters.max_weight > 1,
    )


@dataclass(frozen=True)
class OurRound:
    """A round's figures: CPU seconds, (de)serialisation included, and bytes of encoded messages.

    Attributes:
        client_s: All that a node does but for its duty in the committee, from the encoding of its
            input on; median node.
        duty_s: That duty: reading the shares it was dealt, adding them, answering.
        upload: Bytes that a node sends in all.
        cipher: Of these, its ciphertext.
        shares: Of these, shares of its secret, sealed.
        received: Bytes that a node is sent in all.
        duty_received: Of these, for its duty.
        duty_sent: Bytes of its answer.
        add_s: The coordinator reads and adds all ciphertexts.
        open_s: It reads the answers and opens the sum.
        server_s: All that it does.
        error: Greatest difference from the exact sum of integers.
    """

    client_s: float
    duty_s: float
    upload: float
    cipher: float
    shares: float
    received: float
    duty_received: float
    duty_sent: float
    add_s: float
    open_s: float
    server_s: float
    error: float


def measure(setup: RoundSetup, *, vanishing: str = "nobody", rounds: int = 1) -> OurRound:
    """Play rounds and return the median of each figure, of `error` the greatest.

    Args:
        setup: Of the rounds.
        vanishing: One of `VANISHING`; as many as the parameters withstand vanish.
        rounds: How many.

    Raises:
        BenchError: a round fails.
    """
    terms = setup.ckks
    if terms is None or rounds < 1:
        raise BenchError("no rounds of ckks to measure", hint="use 1 round or more")
    share = 0.0 if vanishing == "nobody" else terms.dropouts / terms.nodes
    costs = [
        play(
            setup,
            dropout=share,
            seed=SEED,
            scheme=scheme_named("ckks"),
            vanish_before=VANISHING[vanishing],
        )
        for _ in range(rounds)
    ]
    found = [asdict(_figures(cost)) for cost in costs]
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    return OurRound(**{**medians, "error": max(each["error"] for each in found)})


def _figures(cost: Cost) -> OurRound:
    phase_s = {
        phase: statistics.median(times) + statistics.median(cost.client_codec_s[phase])
        for phase, times in cost.client_s.items()
    }
    duty_s = sum(phase_s.pop(phase, 0.0) for phase in DUTY)

    def most(of: dict[str, dict[str, int]], *kinds: str) -> int:
        return max(sum(by.get(kind, 0) for kind in kinds or by) for by in of.values())

    def server(*kinds: str) -> float:
        return sum(cost.server_of[kind] + cost.codec_of[kind] for kind in kinds)

    return OurRound(
        client_s=statistics.median(cost.client_made_s) + sum(phase_s.values()),
        duty_s=duty_s,
        upload=most(cost.sent),
        cipher=most(cost.sent, "CipherChunk"),
        shares=most(cost.sent, "SealedSecret"),
        received=most(cost.received),
        duty_received=most(cost.received, *DUTY),
        duty_sent=most(cost.sent, "SumShare"),
        add_s=server("CipherChunk"),
        open_s=server("SumShare"),
        server_s=cost.server_made_s + cost.server_s + cost.codec_s,
        error=cost.error,
    )
