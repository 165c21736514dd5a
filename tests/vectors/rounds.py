"""The casts, and the rounds that end with a sum or with too few nodes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secagg.masking.graph import Graph
from secagg.wire.messages import (
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.vectors.stage import Cast, Change, Silence, play

__all__ = ["Case", "bases", "graph_of", "rounds", "scattered"]


@dataclass(frozen=True)
class Case:
    """One file: what is done to a round, and what must come of it."""

    name: str
    base: str
    about: str
    rules: Sequence[str]
    expect: Mapping[str, Any]
    """`refused`: party, layer, whom it blames; `blamed` and `sum`: nodes; `failed`: why."""
    changes: Sequence[Change] = ()
    silent: Silence = field(default_factory=dict)
    to_the_end: bool = False
    weights: tuple[int, ...] = ()
    """What the coordinator of ckks gives to nodes, if not what it gives in the base."""


@functools.cache
def bases() -> dict[str, Cast]:
    """Return the casts by name."""
    casts = (
        Cast("complete-3", 3, dim=21, ring_bits=20, chunk_values=8, threshold=2, quorum=3,
             neighbours=2, colluders=0),
        Cast("complete-4", 4, dim=10, ring_bits=32, chunk_values=8, threshold=3, quorum=3,
             neighbours=3, colluders=0),
        Cast("complete-5", 5, dim=19, ring_bits=13, chunk_values=16, threshold=3, quorum=4,
             neighbours=4, colluders=1),
        Cast("sparse-8", 8, dim=17, ring_bits=9, chunk_values=8, threshold=3, quorum=5,
             neighbours=6, colluders=0),
        Cast("sparse-12", 12, dim=9, ring_bits=24, chunk_values=8, threshold=3, quorum=8,
             neighbours=4, colluders=2),
    )  # fmt: skip
    return {cast.name: cast for cast in casts}


@functools.cache
def graph_of(base: str) -> Graph:
    """Return the graph of a base's round when nothing is changed."""
    graph = play(bases()[base]).graph
    assert graph is not None
    return graph


def scattered(base: str) -> tuple[str, str]:
    """Return two neighbours that no window holds both of: they may drop out together."""
    graph = graph_of(base)
    return graph.circle[0], graph.circle[graph.half]


PHASES: Mapping[str, tuple[type[Message], int]] = {
    "keys": (KeyAdvert, 0),
    "agreement": (Encapsulations, 0),
    "shares": (SealedShares, 0),
    "input": (MaskedChunk, 0),
    "mid-upload": (MaskedChunk, 1),
    "signatures": (SurvivorSignature, 0),
    "unmask": (UnmaskAnswer, 0),
}
FEWER = {
    "keys": "too_few_keys",
    "agreement": "too_few_agreements",
    "shares": "too_few_shares",
    "input": "too_few_inputs",
    "signatures": "too_few_signatures",
    "unmask": "too_few_unmask_answers",
}


def rounds() -> list[Case]:
    """Return the rounds without an error: with and without dropouts."""
    return [*_faithful(), *_dropouts(), *_sparse(), *_too_few()]


def _faithful() -> list[Case]:
    rules = ("M-01", "M-04", "M-05", "M-07", "M-08", "M-11", "M-12", "M-17", "M-18", "M-26", "M-28")
    return [
        Case(
            name,
            name,
            f"{len(cast.cohort)} nodes, {cast.checked.ring_bits}-bit ring; nobody drops out",
            (*rules, "M-06", "M-22") if name.startswith("sparse") else rules,
            {"sum": list(cast.cohort)},
            to_the_end=True,
        )
        for name, cast in bases().items()
    ]


def _dropouts() -> list[Case]:
    everybody = list(bases()["complete-4"].cohort)
    cases = [
        Case(
            f"complete-4-dropout-{phase}",
            "complete-4",
            f"node-{letter} falls silent: {phase}",
            ("M-01", "M-14", "M-15", "M-27") if "input" in phase else ("M-01", "M-14", "M-15"),
            {"sum": everybody if late else [node for node in everybody if node[-1] != letter]},
            silent={f"node-{letter}": message},
            to_the_end=True,
        )
        for (phase, message), letter in zip(PHASES.items(), "dcbabcd", strict=True)
        for late in (phase in ("signatures", "unmask"),)
    ]
    return [
        *cases,
        Case(
            "complete-5-dropout-input",
            "complete-5",
            "one node of five shares its secrets and uploads nothing",
            ("M-01", "M-12", "M-27"),
            {"sum": ["node-a", "node-b", "node-d", "node-e"]},
            silent={"node-c": (MaskedChunk, 0)},
            to_the_end=True,
        ),
    ]


def _sparse() -> list[Case]:
    eight = bases()["sparse-8"].cohort
    pair = scattered("sparse-8")
    twelve = bases()["sparse-12"].cohort
    return [
        Case(
            "sparse-8-dropout-input",
            "sparse-8",
            "two neighbours three places apart upload nothing; every window keeps two",
            ("M-01", "M-25", "M-27"),
            {"sum": [node for node in eight if node not in pair]},
            silent=dict.fromkeys(pair, (MaskedChunk, 0)),
            to_the_end=True,
        ),
        Case(
            "sparse-8-dropout-everywhere",
            "sparse-8",
            "one node gives no shares, one no co-signature, one no answer",
            ("M-01", "M-09"),
            {"sum": [node for node in eight if node != "node-c"]},
            silent={
                "node-c": (SealedShares, 0),
                "node-e": (SurvivorSignature, 0),
                "node-h": (UnmaskAnswer, 0),
            },
            to_the_end=True,
        ),
        Case(
            "sparse-12-second-toss",
            "sparse-12",
            "a node withholds its first coin: all others toss again, without it",
            ("M-01", "M-06"),
            {"sum": [node for node in twelve if node != "node-k"]},
            silent={"node-k": (Coin, 0)},
            to_the_end=True,
        ),
        Case(
            "sparse-8-second-toss",
            "sparse-8",
            "a node withholds its coin; of seven nodes each is the neighbour of all others",
            ("M-01", "M-06"),
            {"sum": [node for node in eight if node != "node-h"]},
            silent={"node-h": (Coin, 0)},
            to_the_end=True,
        ),
        Case(
            "sparse-12-no-coins",
            "sparse-12",
            "in each toss another node withholds its coin; after the fourth the round is over",
            ("M-06", "M-14"),
            {"failed": "coins_missing"},
            silent={f"node-{letter}": (Coin, toss) for toss, letter in enumerate("bdfh")},
            to_the_end=True,
        ),
        Case(
            "sparse-8-thin",
            "sparse-8",
            "two nodes next to each other upload nothing, and a window of three keeps one",
            ("M-14", "M-25"),
            {"failed": "graph_too_thin"},
            silent=dict.fromkeys(graph_of("sparse-8").circle[:2], (MaskedChunk, 0)),
            to_the_end=True,
        ),
    ]


def _too_few() -> list[Case]:
    return [
        Case(
            f"complete-4-{reason.replace('_', '-')}",
            "complete-4",
            f"two of four nodes fall silent, three are needed: {phase}",
            ("M-03", "M-14"),
            {"failed": reason},
            silent=dict.fromkeys(("node-b", "node-c"), PHASES[phase]),
            to_the_end=True,
        )
        for phase, reason in FEWER.items()
    ]
