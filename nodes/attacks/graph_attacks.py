"""Attacks of a malicious coordinator on the sparse graph: cutting it, thinning it, choosing it.

Each is played twice: before the real nodes, and against the semi-honest target or a graph that
follows from the list of adverts alone. Thresholds are lower than `choose` would take, so that the
rule under attack is the only one in the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.coordinator_attacks import new_puppet, new_target, without
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import NOTHING, Attack, Played
from secagg.masking.adverts import Entry, advert_digest, graph_seed
from secagg.masking.graph import Graph, build_graph
from secagg.types import NodeId
from secagg.wire.messages import (
    MAX_ATTEMPTS,
    AdvertList,
    Coin,
    Encapsulations,
    PeerKeys,
    PeerShares,
)

__all__ = ["GRAPH_ATTACKS"]

_SPARSE_NODES: Final = 24
_DEGREE: Final = 8
_ARC_LENGTH: Final = 5
_GRIND_ACCOMPLICES: Final = 5
_GRIND_TRIES: Final = 3_000
_GRIND_ROUNDS: Final = 10
_WANTED: Final = 5
"""Accomplices among the victim's neighbours at which grinding ends; chance gives 1.7 of 8."""
_LUCK: Final = 6.0
"""Standard deviations above chance that count as a choice: once in a billion plays."""


def _cut_arc(n: int, dim: int, seed: int) -> Played:
    """Name the nodes on either side of an arc as dropped, so that no mask leads out of it."""
    n = max(n, _SPARSE_NODES)
    changes = {"neighbours": _DEGREE, "threshold": 5, "quorum": n - 10, "colluders": 2}
    puppet = new_puppet(n, dim, seed, changes=changes)
    puppet.until_upload()
    fewer = without(puppet.nodes, _around_an_arc(puppet.graph))
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    stage = new_target(n, dim, seed, threshold=5)
    graph = build_graph(stage.names, degree=_DEGREE, seed=bytes(32))
    stage.run(neighbours={name: graph.neighbours(name) for name in stage.names})
    gone = _around_an_arc(graph)
    left = without(stage.names, gone)
    stage.ask(left, active=left, dead=gone)
    return puppet.judge(stage.gained())


def _around_an_arc(graph: Graph) -> tuple[NodeId, ...]:
    """Return the nodes on either side of a short arc of the circle, as many as neighbours reach."""
    half, length = graph.half, _ARC_LENGTH
    return graph.circle[:half] + graph.circle[half + length : 2 * half + length]


def _split_sharers(n: int, dim: int, seed: int) -> Played:
    """Let the victim mask with two neighbours only, and name those as dropped."""
    n = max(n, _SPARSE_NODES)
    stage = new_target(n, dim, seed, accomplices=1)
    stage.run(masked_with={stage.names[0]: stage.accomplices})
    stage.ask(stage.names, active=stage.names, dead=stage.accomplices)
    changes = {"neighbours": _DEGREE, "threshold": 3, "quorum": n - 10, "colluders": 1}
    puppet = new_puppet(n, dim, seed, changes=changes)
    puppet.adverts()
    puppet.keys()
    puppet.agreement()
    victim = puppet.victim
    dropped, others = (
        sorted(puppet.graph.neighbours(victim))[:2],
        sorted(puppet.graph.neighbours(victim))[2:],
    )

    def show(node: NodeId, message: PeerShares) -> PeerShares:
        if node != victim:
            return message
        few = without(message.sharers, others)
        return PeerShares(
            message.round_id, few, tuple(box for box in message.boxes if box[0] in few)
        )

    puppet.sharing(show)
    survivors = without(puppet.nodes, dropped)
    puppet.survivors(dict.fromkeys(without(survivors, [victim]), survivors))
    signed = tuple(sorted(puppet.tape.cosigned))
    puppet.unmask(dict.fromkeys(signed, signed))
    return puppet.judge(stage.gained())


# --- grinding ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draws:
    """Accomplices among the victim's neighbours, in graphs that a coordinator was shown."""

    counts: tuple[int, ...]
    expected: float
    variance: float
    """Of one draw, by the hypergeometric distribution."""

    @property
    def mean(self) -> float:
        return sum(self.counts) / len(self.counts)

    @property
    def chosen(self) -> bool:
        """Whether there are more than chance explains."""
        return self.mean > self.expected + _LUCK * math.sqrt(self.variance / len(self.counts))


def _gathered(puppet: Puppet, entries: tuple[Entry, ...], coins: tuple[bytes, ...]) -> int:
    digests = [entry[:2] for entry in entries]
    seed = graph_seed(puppet.setup.offer_hash, digests, coins)
    graph = build_graph([node for node, _ in digests], degree=_DEGREE, seed=seed)
    return len(graph.neighbours(puppet.victim) & set(puppet.accomplices))


def _toss(puppet: Puppet, entries: tuple[Entry, ...], attempt: int) -> dict[NodeId, bytes]:
    """Show every listed node the list and return the coins."""
    message = AdvertList(puppet.setup.round_id, attempt, entries)
    coins = {}
    for node, _, _ in entries:
        for out in puppet.tell(node, message):
            if isinstance(out, Coin):
                coins[node] = out.coin
    return coins


def _grinding_puppet(n: int, seed: int) -> tuple[Puppet, tuple[Entry, ...]]:
    n = max(n, _SPARSE_NODES)
    changes = {"neighbours": _DEGREE, "threshold": 5, "quorum": n - 6, "colluders": 5}
    puppet = new_puppet(n, 16, seed, accomplices=_GRIND_ACCOMPLICES, changes=changes)
    puppet.adverts()
    listed = sorted(puppet.tape.adverts.items())
    return puppet, tuple((node, advert_digest(a), a.coin_commitment) for node, a in listed)


def _fewer(
    puppet: Puppet, entries: tuple[Entry, ...], rng: np.random.Generator, n: int
) -> tuple[Entry, ...]:
    """Leave out n of the nodes that are neither the victim nor accomplices."""
    spare = [n for n, _, _ in entries if n not in {puppet.victim, *puppet.accomplices}]
    left_out = set(rng.choice(spare, size=n, replace=False))
    return tuple(entry for entry in entries if entry[0] not in left_out)


def _ground(
    puppet: Puppet, entries: tuple[Entry, ...], coins: dict[NodeId, bytes], seed: int
) -> tuple[tuple[Entry, ...], int, int]:
    """Leave adverts out until enough accomplices gather; return that list, how many, and tries."""
    rng = np.random.default_rng(seed)
    best, most, tries = entries, 0, 0
    while most < _WANTED and tries < _GRIND_TRIES:
        tries += 1
        listed = _fewer(puppet, entries, rng, 4)
        count = _gathered(puppet, listed, tuple(coins[n] for n, _, _ in listed if n in coins))
        if count > most:
            best, most = listed, count
    return best, most, tries


def _takers(puppet: Puppet, entries: tuple[Entry, ...], coins: dict[NodeId, bytes]) -> int:
    """Show honest nodes the ground list as if it were the tossed one; return how many take it."""
    digests = tuple(entry[:2] for entry in entries)
    tossed = tuple(coins[node] for node, _ in digests)
    seed = graph_seed(puppet.setup.offer_hash, digests, tossed)
    nodes = [node for node, _ in digests]
    graph = build_graph(nodes, degree=_DEGREE, seed=seed)
    taken = 0
    for node in without(nodes, puppet.accomplices):
        peers = tuple(puppet.tape.adverts[peer] for peer in sorted(graph.neighbours(node)))
        answer = puppet.tell(node, PeerKeys(puppet.setup.round_id, digests, tossed, peers))
        taken += any(isinstance(out, Encapsulations) for out in answer)
    return taken


def _draws(n: int, seed: int) -> _Draws:
    """Toss as often as nodes allow, each time with fewer adverts, in a number of rounds."""
    rng, counts, expected, variance = np.random.default_rng(seed), [], 0.0, 0.0
    for index in range(_GRIND_ROUNDS):
        puppet, entries = _grinding_puppet(n, seed + index)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            coins = _toss(puppet, entries, attempt)
            counts.append(_gathered(puppet, entries, tuple(coins[node] for node, _, _ in entries)))
            others, bad = len(entries) - 1, _GRIND_ACCOMPLICES
            share = bad / others
            expected += _DEGREE * share
            spread = (others - _DEGREE) / (others - 1)
            variance += _DEGREE * share * (1 - share) * spread
            entries = _fewer(puppet, entries, rng, 1)
    return _Draws(tuple(counts), expected / len(counts), variance / len(counts))


def _grind(n: int, dim: int, seed: int) -> Played:
    """Leave adverts out until the graph gathers accomplices around the victim."""
    del dim
    puppet, entries = _grinding_puppet(n, seed)
    listed, most, tries = _ground(puppet, entries, {}, seed)
    elsewhere = (
        f"{most} of the victim's {_DEGREE} neighbours collude, after {tries} tries "
        f"({_gathered(puppet, entries, ())} before)"
    )
    coins = _toss(puppet, entries, 1)
    listed, most, _ = _ground(puppet, entries, coins, seed)
    taken = _takers(puppet, listed, coins)
    won = taken > 0 and taken + _GRIND_ACCOMPLICES >= puppet.setup.cosigners
    draws = _draws(n, seed)
    fault = next(iter(puppet.faults.values()), None)
    refused = f"{type(fault).__name__}: {fault.fault}; " if fault else ""
    outcome = (
        f"{len(puppet.faults)} nodes leave: {refused}as they toss, {draws.mean:.2f} of {_DEGREE} "
        f"collude on average of {len(draws.counts)} graphs, {draws.expected:.2f} by chance"
    )
    here = NOTHING
    if won or draws.chosen:
        here = f"{most if won else max(draws.counts)} of the victim's {_DEGREE} neighbours collude"
    blamed = (COORDINATOR,) if COORDINATOR in puppet.blamed else ()
    return Played(elsewhere, here, outcome, blamed, revealed=False)


GRAPH_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "split-sharers",
        "coordinator",
        "tell the victim that few neighbours shared their secrets, and name those as dropped",
        ("M-24",),
        _split_sharers,
    ),
    Attack(
        "cut-arc",
        "coordinator",
        "name the nodes on either side of an arc of a sparse graph as dropped",
        ("M-25",),
        _cut_arc,
    ),
    Attack(
        "grinding",
        "coordinator and nodes",
        "leave adverts out until the graph gathers accomplices around the victim",
        ("M-06",),
        _grind,
    ),
)
