"""How an attack of one node is put together: its move, the round, the same against the target."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeAlias, TypeVar

import msgspec

from nodes.attacks.node_stage import Federation, Judge, Move, make_setup
from nodes.attacks.report import Attack, Played
from nodes.attacks.target_stage import TargetMove, TargetRound
from secagg.types import NodeId
from secagg.wire.messages import Message

__all__ = ["AMONG", "as_due", "instead", "node_attack"]

_T = TypeVar("_T", bound=msgspec.Struct)
_Analogue: TypeAlias = Callable[[TargetRound], TargetMove]
AMONG: Final = 2
"""Place in the cohort; its shares are among those that the target combines."""


def node_attack(
    name: str,
    summary: str,
    rules: tuple[str, ...],
    move: Callable[[], Move],
    analogue: _Analogue,
    *,
    judge: Judge | None = None,
    costs: Collection[NodeId] | None = (),
    size: Callable[[int, int], tuple[int, int]] = lambda n, dim: (n, dim),
    last: bool = False,
) -> Attack:
    """Return the attack of one node that makes `move`.

    Args:
        name: Of the attack.
        summary: Of the attack.
        rules: That stop it.
        move: Makes the move anew for each play.
        analogue: The move against the target.
        judge: Finds what only this attack can gain.
        costs: As for `Federation`: None where the specification owns that the round may be lost.
        size: Takes nodes and coordinates to those that the attack needs.
        last: The evil node is the last of the cohort.
    """

    def play(n: int, dim: int, seed: int) -> Played:
        setup, parties = make_setup(*size(n, dim))
        evil = setup.cohort[-1 if last else AMONG]
        target = TargetRound(setup, seed=seed, attacked=evil)
        elsewhere = target.play(analogue(target))
        stage = Federation(setup, parties, seed=seed, evil=evil, move=move(), costs=costs)
        return stage.play(elsewhere, judge)

    return Attack(name, "node", summary, rules, play)


def instead(kind: type[_T], change: Callable[[Federation, _T], list[Message]]) -> Move:
    """Return the move that sends something else for every message of one type."""

    def move(stage: Federation, _: Message | None, due: list[Message]) -> list[Message]:
        sent: list[Message] = []
        for message in due:
            sent += change(stage, message) if isinstance(message, kind) else [message]
        return sent

    return move


def as_due(_: TargetRound) -> TargetMove:
    """Return what the move is where the step does not exist or makes no difference."""
    return TargetMove()
