"""What playing an attack gives: what it gained elsewhere, what here, and who was caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["NOTHING", "Attack", "Attacker", "Played"]

NOTHING: Final = "nothing"
"""What an attack gains that fails."""
Attacker: TypeAlias = Literal["coordinator", "coordinator and nodes", "node", "network"]


@dataclass(frozen=True, slots=True)
class Played:
    """How one attack went; every field comes from the run.

    Attributes:
        elsewhere: What it gained against the semi-honest target.
        here: What it gained against this scheme; `NOTHING` if nothing.
        outcome: How the round ended here: an exact sum, an abort reason, an error's class and text.
        blamed: Whom honest parties blamed, sorted, and then whom in doubt.
        revealed: The attacker opened an input, or a sum that it should not have: an actual
            reconstruction that matches the true inputs. A gain of another kind, such as a lost
            place or a chosen graph, is in `here` alone.
        wrong_sum: The honest coordinator released a sum that is not that of its contributors.
    """

    elsewhere: str
    here: str
    outcome: str
    blamed: tuple[str, ...]
    revealed: bool
    wrong_sum: bool = False

    @property
    def failed(self) -> bool:
        """Whether the attack gained nothing here."""
        return self.here == NOTHING and not self.wrong_sum


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack of the catalogue.

    Attributes:
        name: In lower case with hyphens, as `--attack` takes it.
        attacker: Who plays it.
        summary: One sentence on the move.
        rules: Requirements that stop it, such as ("M-11", "M-12").
        play: Plays it with n nodes, vectors of dim values and a seed for what need not be secret.
        promised: Whether the scheme promises to withstand it; where it does not, the row says what
            is lost then.
    """

    name: str
    attacker: Attacker
    summary: str
    rules: tuple[str, ...]
    play: Callable[[int, int, int], Played]
    promised: bool = True
