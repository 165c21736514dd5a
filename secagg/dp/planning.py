"""What client-level noise will cost and do, before anybody trains; and what it protects, in words.

`plan` turns a fleet and a budget into the noise multiplier, the ε of every round, and the length of
the noise beside that of an update. Source: specs/58-accounting.md sections 8 and 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from secagg.dp.accountant import epsilon_of, multiplier_for
from secagg.dp.events import UNITS, SumNoise
from secagg.dp.printed import at_least
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import DISCRETE_GAUSSIAN
from secagg.errors import ConfigError

__all__ = [
    "AttackBounds",
    "NoiseForecast",
    "PrivacyPlan",
    "attack_bounds",
    "plain_sentence",
    "plan",
]

_MILESTONES: Final = 20
"""Rounds of a plan of which the ε so far is given."""
_LEAST_COHORT: Final = 3
_VERDICTS: Final = (
    (0.95, "may well be able to tell it"),
    (0.75, "cannot be sure to tell it"),
    (0.0, "can hardly tell it"),
)
"""What to call a guess that is right with so much probability at best."""


@dataclass(frozen=True, slots=True)
class NoiseForecast:
    """The noise of one round, if so many nodes answer."""

    survivors: int
    """Nodes in the sum."""
    share_std_steps: float
    """Standard deviation of a node's share that stays in the sum, in steps."""
    sum_std_steps: float
    """Of the sum of all shares, in steps."""
    sum_std: float
    """The same in units of the update."""
    mean_std: float
    """Of one coordinate of the mean over survivors, in units of the update."""
    mean_norm: float
    """Root of the expected squared L2 norm of the mean's noise, in units of the update."""
    signal_to_noise: float
    """Clip over `mean_norm`: as if all updates had full length and one direction, so at best."""


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """A run of rounds under client-level noise that stays within a budget."""

    mechanism: str
    """One of `secagg.dp.terms.MECHANISMS`."""
    nodes: int
    """Size of the cohort."""
    colluders: int
    """A: nodes whose shares the adversary may know, and which count for nothing."""
    dropouts: int
    """Nodes that may be missing from the sum."""
    honest: int
    """h: survivors that do not collude, at least; a share is made for so many."""
    rounds: int
    """Rounds that the budget is for."""
    epsilon: float
    """ε of the budget."""
    delta: float
    """δ of the whole run."""
    dim: int
    """Coordinates."""
    clip: float
    """C: greatest L2 norm of an update."""
    scale: int
    """M: the integer length of C; a step is C/M."""
    noise_multiplier: float
    """z: least that stays within the budget."""
    event: SumNoise
    """What every round is charged."""
    epsilon_one_round: float
    """ε of one round alone, at the δ of the whole run."""
    epsilon_by_round: tuple[tuple[int, float], ...]
    """Rounds, with the ε of all up to each; the last is the whole run."""
    left_in: NoiseForecast
    """If all answer and the excess of their noise stays in."""
    left_in_worst: NoiseForecast
    """If as many as allowed drop out."""
    taken_back: NoiseForecast
    """If all answer and take the excess back (specs/55-excess-noise.md)."""
    taken_back_worst: NoiseForecast
    """If as many as allowed drop out and the others take back what they can."""

    @property
    def gain(self) -> float:
        """Return how many times less noise taking the excess back leaves when all answer."""
        return self.left_in.mean_norm / self.taken_back.mean_norm


@dataclass(frozen=True, slots=True)
class AttackBounds:
    """What no attack can exceed, however much it knows besides."""

    found: float
    """Greatest rate at which it finds those who took part."""
    right: float
    """Greatest probability that its guess is right where the odds were even before."""


def plan(
    *,
    nodes: int,
    colluders: int,
    dropout: float,
    rounds: int,
    epsilon: float,
    delta: float,
    dim: int,
    clip: float,
    scale: int,
    mechanism: str = DISCRETE_GAUSSIAN,
    truncation: float = 0.0,
) -> PrivacyPlan:
    """Return the least noise for a budget, and what it does to the mean update.

    Args:
        nodes: Size of the cohort of every round.
        colluders: Nodes of it that may collude.
        dropout: Fraction of it that may be missing from a sum, in [0, 1).
        rounds: Rounds to be paid for.
        epsilon: ε of the budget.
        delta: δ of the whole run.
        dim: Coordinates of the joint vector.
        clip: C, in units of the update.
        scale: M, in steps.
        mechanism: One of `secagg.dp.terms.MECHANISMS`.
        truncation: Probability, at most, that any share of a round is cut.

    Raises:
        ConfigError: a number is out of range, nobody honest is left, or the budget is out of reach.
    """
    if not (nodes >= 1 and colluders >= 0 and 0 <= dropout < 1 and rounds >= 1):
        raise ConfigError(
            f"{nodes} nodes, {colluders} of them colluding, dropout {dropout}, {rounds} rounds",
            hint="use whole numbers from 1, 0 or more colluders and a dropout in [0, 1)",
        )
    if not 0 < clip < math.inf:
        raise ConfigError(f"clip is {clip}", hint="use a positive number")
    survivors = max(_LEAST_COHORT, nodes - math.floor(dropout * nodes + 1e-9))
    honest = survivors - colluders  # Z-11
    if survivors > nodes or honest < 1:
        raise ConfigError(
            f"{nodes} nodes, less {nodes - survivors} dropouts and {colluders} that collude, leave "
            "nobody to add noise",
            hint="use more nodes, or lower dropout or colluders",
        )
    bound = sensitivity(scale, dim)  # Z-02

    def event(multiplier: float) -> SumNoise:
        variance = (multiplier * bound.l2) ** 2 / honest
        return SumNoise(mechanism, variance, honest, bound.l2, bound.l1, dim, truncation)

    z = multiplier_for(lambda z: {event(z): rounds}, epsilon=epsilon, delta=delta)  # Z-11
    total, step = (z * bound.l2) ** 2, clip / scale

    def forecast(count: int, shares_for: int) -> NoiseForecast:
        return _forecast(total / shares_for, count, step=step, dim=dim, clip=clip)

    return PrivacyPlan(
        mechanism=mechanism,
        nodes=nodes,
        colluders=colluders,
        dropouts=nodes - survivors,
        honest=honest,
        rounds=rounds,
        epsilon=epsilon,
        delta=delta,
        dim=dim,
        clip=clip,
        scale=scale,
        noise_multiplier=z,
        event=event(z),
        epsilon_one_round=epsilon_of([event(z)], delta),
        epsilon_by_round=tuple(
            (count, epsilon_of({event(z): count}, delta)) for count in _milestones(rounds)
        ),
        left_in=forecast(nodes, honest),
        left_in_worst=forecast(survivors, honest),
        taken_back=forecast(nodes, nodes - colluders),
        taken_back_worst=forecast(survivors, honest),
    )


def attack_bounds(epsilon: float, delta: float, false_alarms: float = 0.01) -> AttackBounds:
    """Return what (ε, δ) leaves to a test of whether somebody took part (Kairouz et al. 2015).

    Args:
        epsilon: ε ≥ 0, or inf.
        delta: δ in [0, 1].
        false_alarms: Rate at which the test may accuse those who did not take part.
    """
    if not (epsilon >= 0 and 0 <= delta <= 1 and 0 <= false_alarms <= 1):
        raise ConfigError(
            f"epsilon {epsilon}, delta {delta}, false alarms {false_alarms}",
            hint="use epsilon from 0 and probabilities from 0 to 1",
        )
    shrink = math.exp(-epsilon)
    above = 1 - shrink * (1 - delta - false_alarms)
    below = false_alarms / shrink + delta if shrink > 0 else 1.0
    right = (1 + delta * shrink) / (1 + shrink)
    return AttackBounds(min(above, below, 1.0), min(right, 1.0))  # Z-12


def plain_sentence(unit: str, epsilon: float, delta: float) -> str:
    """Return in one sentence what (ε, δ) at `unit` protects, and how far.

    Args:
        unit: One of `secagg.dp.events.UNITS`.
        epsilon: ε ≥ 0, or inf.
        delta: δ in (0, 1).

    Raises:
        ConfigError: the unit is unknown or a number out of range.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit of privacy {unit!r}", hint=f"use one of: {', '.join(UNITS)}")
    bounds = attack_bounds(epsilon, delta)
    if unit == "none" or math.isinf(epsilon):
        return "Nothing is promised: what was released may tell all about any node and any row."
    whom, one = {
        "client": ("one node's contributions were zeros in every round", "a node"),
        "record": ("one row of a node's data was never there", "a row"),
    }[unit]
    able = next(words for least, words in _VERDICTS if bounds.right >= least)
    return (
        f"Whoever sees all that was released {able} from a run in which {whom}: "
        f"a test that wrongly says of 1 absentee in 100 that it took part says so of {one} that "
        f"did in at most {_percent(bounds.found)}, and a guess that was 50 % likely becomes "
        f"{_percent(bounds.right)} likely at most "
        f"(ε = {at_least(epsilon, places=2)}, δ = {delta:g})."
    )


def _forecast(
    share_variance: float, survivors: int, *, step: float, dim: int, clip: float
) -> NoiseForecast:
    deviation = math.sqrt(share_variance * survivors)
    mean = deviation * step / survivors
    norm = mean * math.sqrt(dim)
    return NoiseForecast(
        survivors=survivors,
        share_std_steps=math.sqrt(share_variance),
        sum_std_steps=deviation,
        sum_std=deviation * step,
        mean_std=mean,
        mean_norm=norm,
        signal_to_noise=clip / norm,
    )


def _milestones(rounds: int) -> list[int]:
    """Return all rounds if they are few, else as many as are worth a line, the last among them."""
    lines = min(rounds, _MILESTONES)
    return [-(-rounds * line // lines) for line in range(1, lines + 1)]


def _percent(probability: float) -> str:
    """Return a percentage with two decimals that is never below the truth (Z-12)."""
    return f"{math.ceil(probability * 10_000) / 100:.2f} %"
