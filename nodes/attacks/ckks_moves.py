"""How an attack of a coordinator on `ckks` is put together: one move, played twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.ckks_tape import View
from nodes.attacks.coordinator_attacks import halves, without
from nodes.attacks.report import Attack, Attacker, Played
from secagg.ckks.parameters import choose
from secagg.ckks.views import sign_view, view_digest
from secagg.types import NodeId

__all__ = ["Move", "coordinator_attack", "helpers", "two_views"]

Move: TypeAlias = Callable[[CkksPuppet], None]
"""Plays a whole round; the same one before trusting nodes and before real ones."""


def coordinator_attack(
    name: str,
    summary: str,
    rules: tuple[str, ...],
    move: Move,
    *,
    attacker: Attacker = "coordinator",
    options: Callable[[int], Mapping[str, Any]] = lambda _: {},
    least: int = 0,
    promised: bool = True,
) -> Attack:
    """Return the attack of a coordinator that makes `move`.

    Args:
        name: Of the attack.
        summary: Of the attack.
        rules: That stop it.
        move: What it does.
        attacker: Who plays it.
        options: Of the puppet, given the nodes.
        least: Nodes that the attack needs.
        promised: Whether the scheme promises to withstand it.
    """

    def play(n: int, dim: int, seed: int) -> Played:
        n = max(n, least)
        target = CkksPuppet(n, dim, seed, trusting=True, **options(n))
        move(target)
        puppet = CkksPuppet(n, dim, seed, **options(n))
        move(puppet)
        return puppet.judge(target.judge("").here)

    return Attack(name, attacker, summary, rules, play, promised)


def helpers(n: int) -> Mapping[str, Any]:
    """Return the option of as many accomplices as a round of `n` nodes withstands."""
    return {"accomplices": choose(n).colluders}


def two_views(
    puppet: CkksPuppet,
    one: View,
    other: View,
    *,
    pad: Callable[[CkksPuppet, dict[NodeId, bytes]], Sequence[tuple[NodeId, bytes]]] = (
        lambda _, signed: sorted(signed.items())
    ),
) -> None:
    """Have half of the honest nodes open one sum and the other half another; accomplices sign both.

    Args:
        puppet: The round, inputs in.
        one: Survivors and weights for the first half, in which the victim is.
        other: Those for the second.
        pad: Makes of the signatures of a half what its members are shown.
    """
    first, second = halves(without(puppet.nodes, puppet.accomplices))
    views = dict.fromkeys(first, one) | dict.fromkeys(second, other)
    puppet.survivors(views)
    for group, view in ((first, one), (second, other)):
        signed = {
            node: puppet.tape.cosigned[node] for node in group if node in puppet.tape.cosigned
        }
        signed |= {helper: _signature(puppet, helper, view) for helper in puppet.accomplices}
        shown = pad(puppet, signed)
        puppet.open({node: shown for node in group if node in puppet.members(node)})


def _signature(puppet: CkksPuppet, node: NodeId, view: View) -> bytes:
    """Return an accomplice's co-signature under any view."""
    held = vars(puppet.roles[node])
    digest = view_digest(held["_keys_digest"], tuple(view), bytes(view.values()))
    return sign_view(puppet.setup_at(node), held["_signer"], digest)
