"""Attacks on `ckks` that are after consistency distances, and after what these tell of data."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.offer_attacks import PLAN, make_offer, names, offered
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.session.policy import NodePolicy
from secagg.ckks.weighting import DISTANCE_STEPS

__all__ = ["DISTANCE_ATTACKS"]

_PLAN: Final = dataclasses.replace(PLAN, scheme="ckks", weights="coordinator")
_PRIVATE: Final = NodePolicy(schemes=("ckks",))
_OPEN: Final = NodePolicy(schemes=("ckks",), weights=("coordinator",))
_FAR: Final = 1_000.0
"""How far the reference is put, along one coordinate of the embeddings."""
_ROWS, _COORDINATES = 50, 8
_READ: Final = 0.01
"""Error below which a coordinate of a centroid counts as read; rows are spread by 1."""


def _asks_for_distances(n: int, dim: int, seed: int) -> Played:
    """Offer weights by the coordinator to nodes that were to keep their distances."""
    offer = make_offer(names(n), plan=_PLAN)

    def play(*, trusting: bool = False) -> Played:
        puppet = CkksPuppet(n, dim, seed, trusting=trusting, weighs=True)
        puppet.until_upload()
        puppet.finish()
        told = len(puppet.tape.distances)
        played = puppet.judge("")
        here = f"the distances of {told} nodes were disclosed" if told else NOTHING
        return played if played.revealed else dataclasses.replace(played, here=here)

    return offered(offer, names(n), play(trusting=True).here, play=play, policy=_PRIVATE)


def _probing(n: int, dim: int, seed: int) -> Played:
    """Offer references far away on either side: the distances differ by the node's own centroid.

    The distance is the mean square of z − g over rows z and coordinates; with g = R and −R along
    one coordinate of k, the two differ by 4·R·c/k, where c is the centroid's.
    """
    rows = np.random.default_rng(seed).normal(0.5, 1.0, (_ROWS, _COORDINATES))
    references = [np.eye(1, _COORDINATES)[0] * side * _FAR for side in (1, -1)]
    exact = [float(np.mean(np.square(rows - reference))) for reference in references]

    def play() -> Played:
        told = []
        for distance in exact:
            puppet = CkksPuppet(n, dim, seed, weighs=True, distances={f"node-{0:02d}": distance})
            puppet.announce()
            told.append(puppet.tape.distances[puppet.victim] / DISTANCE_STEPS)
        return Played("", _read_off(told, rows), "distances are disclosed", (), revealed=False)

    reference = references[0].astype("<f4").tobytes()
    offer = make_offer(names(n), plan=_PLAN, reference=reference)
    return offered(offer, names(n), _read_off(exact, rows), play=play, policy=_OPEN)


def _read_off(distances: list[float], rows: NDArray[np.float64]) -> str:
    """Compute the centroid's first coordinate from two distances, and judge it by the true one."""
    guess = (distances[1] - distances[0]) * _COORDINATES / (4 * _FAR)
    error = abs(guess - float(rows[:, 0].mean()))
    return f"a coordinate of a centroid read, error {error:.4f}" if error < _READ else NOTHING


DISTANCE_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "asks-for-distances",
        "coordinator",
        "offer to weigh the nodes by distances that they were to keep",
        ("H-16",),
        _asks_for_distances,
    ),
    Attack(
        "probing-references",
        "coordinator",
        "put the reference far away, so that a distance tells where a node's data are",
        ("H-16",),
        _probing,
    ),
)
