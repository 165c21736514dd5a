"""What a run does for privacy: the operator's settings, a round's terms, and what the round costs.

Both sides derive cost and encoding of a round from its offer alone, by the same functions. Source:
specs/50-dp.md, specs/54-correlated-noise.md, specs/58-accounting.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fl_core.config import CLIP_STEPS, RATE_UNITS, TrainConfig
from nodes.session.epoch_terms import check_epoch_settings, epoch_event, stretch_of
from nodes.session.training_settings import settings_of
from secagg.assumptions import SECURITY_BITS
from secagg.dp.accountant import epsilon_of, multiplier_for
from secagg.dp.encoding import PrivateEncoding, PrivateSegment, default_segments
from secagg.dp.events import PrivacyEvent, SampledGaussian, SumNoise, Unprotected
from secagg.dp.excess import Components
from secagg.dp.levels import choose_levels
from secagg.dp.sampler import MAX_VARIANCE, MIN_VARIANCE
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, NoiseTerms
from secagg.errors import ConfigError
from secagg.wire.messages import DpTerms, RoundOffer

__all__ = [
    "CLIENT",
    "MAX_DIM_OF_LEVELS",
    "NONE",
    "RECORD",
    "UNITS",
    "PrivacySettings",
    "RoundCost",
    "components_of",
    "cost_of",
    "exposure",
    "multiplier_of",
    "noise_terms",
    "private_encoding",
    "record_event",
    "terms_of_round",
]

NONE: Final = "none"
CLIENT: Final = "client"
RECORD: Final = "record"
UNITS: Final = (NONE, CLIENT, RECORD)
_COMPARED_AT: Final = 1e-5  # delta at which cases are compared; they differ by next to nothing
_LEVELS: Final = 4
MAX_DIM_OF_LEVELS: Final = 1 << 18
"""Parameters up to which noise has levels unless told; those of a million take longer than the
round."""
_LEAST_PART: Final = 8.0
"""Squared steps of the least part of a noise in parts: sums of such parts are a rounded Gaussian
within e^-70, whichever of them are left."""


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What the operator wants of a run's privacy.

    Raises:
        ConfigError: a setting is out of range or at odds with another.
    """

    unit: str = NONE
    """Whom the noise protects: a whole node, one row of a node's data, or nobody."""
    epsilon: float = 8.0
    """Budget over all that the coordinator's ledger holds of that unit."""
    delta: float = 1e-5
    """Probability with which the bound may fail."""
    mechanism: str = DISCRETE_GAUSSIAN
    """Of the unit "client": one of `MECHANISMS`."""
    noise_multiplier: float = 0.0
    """Of the unit "client"; 0 takes the least with which all rounds fit into the budget."""
    clip: float = 1.0
    """L2 bound of a node's joint vector, or where it starts if it adapts."""
    scale_bits: int = 12
    """Bits of the integer length of the clip."""
    rotation: bool = True
    """Rotate before rounding: fewer bits a value."""
    excess_levels: int = -1
    """Levels at which noise for dropouts that did not happen is taken back; 0 leaves it in, -1
    takes 4 unless the model is large."""
    quantile: float = 0.0
    """Fraction of the nodes to be within the clip, which then adapts; 0 keeps the clip fixed."""
    clip_rate: float = 0.2
    """How fast the clip adapts."""
    spare: float = 0.1
    """Part of the rounds that may abort, for which the budget is planned as well."""
    epoch_rounds: int = 0
    """Rounds over which noise is correlated; 0 draws that of every round anew."""
    separation: int = 4
    """Rounds from one contribution of a node to its next, where noise is correlated."""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(
                f"privacy.unit is {self.unit!r}", hint=f"use one of: {', '.join(UNITS)}"
            )
        if self.mechanism not in MECHANISMS:
            raise ConfigError(
                f"privacy.mechanism is {self.mechanism!r}",
                hint=f"use one of: {', '.join(MECHANISMS)}",
            )
        for name, low, high in (
            ("epsilon", 1e-3, 1e4),
            ("delta", 1e-15, 0.1),
            ("noise_multiplier", 0.0, 1e4),
            ("clip", 1e-6, 1e6),
            ("scale_bits", 4, 23),
            ("excess_levels", -1, 15),
            ("quantile", 0.0, 0.95),
            ("clip_rate", 1e-3, 2.0),
            ("spare", 0.0, 10.0),
            ("epoch_rounds", 0, 1024),
            ("separation", 2, 1024),
        ):
            if not low <= getattr(self, name) <= high:  # NaN is refused as well
                raise ConfigError(
                    f"privacy.{name} is {getattr(self, name)}", hint=f"use {low} to {high}"
                )
        check_epoch_settings(self)

    @property
    def adaptive(self) -> bool:
        """Whether the clip adapts."""
        return self.quantile > 0

    def planned_rounds(self, rounds: int) -> int:
        """Return for how many rounds the budget is planned: each that is offered costs."""
        return rounds + math.ceil(self.spare * rounds)


@dataclass(frozen=True, slots=True)
class RoundCost:
    """What one round costs whoever contributes to it."""

    unit: str
    event: PrivacyEvent


def terms_of_round(
    settings: PrivacySettings,
    *,
    clip: float,
    multiplier: float,
    n: int,
    quorum: int,
    honest: int,
    dim: int = 0,
) -> DpTerms:
    """Return the terms of a round of `n` nodes, whose sum is over `quorum` or more.

    Args:
        settings: What the operator wants.
        clip: The clip of this round.
        multiplier: Noise multiplier z.
        n: Nodes in the cohort.
        quorum: Fewest nodes a sum is over.
        honest: Fewest of those that do not collude.
        dim: Parameters of the model.
    """
    count = settings.excess_levels
    if count < 0:  # every node draws that many times, and the coordinator for all of them
        count = _LEVELS if dim <= MAX_DIM_OF_LEVELS else 0
    levels = choose_levels(n, quorum, count) if count and n > quorum else ()
    return DpTerms(
        mechanism=settings.mechanism,
        clip=clip,
        scale=1 << (settings.scale_bits - 1),
        noise_multiplier=multiplier,
        honest=honest,
        rotation=settings.rotation,
        within=settings.adaptive,
        drop_levels=levels,
        correlated=None,
    )


def noise_terms(dp: DpTerms) -> NoiseTerms:
    """Return the terms as the mechanism reads them.

    Raises:
        ConfigError: they make no sense.
    """
    return NoiseTerms(
        mechanism=dp.mechanism,
        clip=dp.clip,
        scale=dp.scale,
        noise_multiplier=dp.noise_multiplier,
        honest=dp.honest,
        rotation=dp.rotation,
        drop_levels=dp.drop_levels,
        stretch=stretch_of(dp),
    )


@functools.lru_cache(maxsize=256)
def _encoding(
    terms: NoiseTerms, model_dim: int, embedding_dim: int, within: bool, alone: bool
) -> PrivateEncoding:
    segments: tuple[PrivateSegment, ...] = (PrivateSegment("update", model_dim, 1.0),)
    if not alone:
        segments = default_segments(terms.clip, update_dim=model_dim, centroid_dim=embedding_dim)
    return PrivateEncoding(segments, terms, within=within)


def private_encoding(dp: DpTerms, *, model_dim: int, embedding_dim: int) -> PrivateEncoding:
    """Return the encoding that the terms prescribe for a model of that size.

    Under correlated noise the update travels alone, with the weight 1 (C-13).

    Raises:
        ConfigError: the terms make no sense.
    """
    alone = dp.correlated is not None
    return _encoding(noise_terms(dp), model_dim, embedding_dim, dp.within, alone)


def components_of(encoding: PrivateEncoding, nodes: int, colluders: int) -> Components:
    """Return the parts of every node's noise in a round of so many nodes.

    Raises:
        ConfigError: the terms do not fit the cohort.
    """
    parts = Components.of(encoding.terms, encoding.share_variance, nodes=nodes, colluders=colluders)
    least, most = min(parts.variances), max(parts.variances)
    low = _LEAST_PART if len(parts.variances) > 1 else MIN_VARIANCE
    if not low <= least <= most <= MAX_VARIANCE:  # S-19, X-10
        raise ConfigError(
            f"noise in parts of {least:.3g} to {most:.3g} squared steps",
            hint=f"use {low:g} to {MAX_VARIANCE:.3g}: change scale_bits, noise_multiplier or "
            "excess_levels",
        )
    return parts


def exposure(neighbours: int, nodes: int, committee: int | None) -> float:
    """Return how likely a round may expose an input by the draw of its graph or committee (P-04).

    Args:
        neighbours: Of a node in the masking graph.
        nodes: In the cohort.
        committee: Members of the committee of ckks, or None under masking.
    """
    whole = neighbours >= nodes - 1 and (committee is None or committee >= nodes)
    return 0.0 if whole else 2.0**-SECURITY_BITS


@functools.lru_cache(maxsize=256)
def _dearest(encoding: PrivateEncoding, nodes: int, colluders: int, exposed: float) -> SumNoise:
    """Return the cost of a round: that of the number of dropouts under which it is most (X-09).

    With parts as large as X-10 has them, cases differ in ε by less than floats can tell.
    """
    plain = encoding.event(encoding.terms.honest)
    events = [
        dataclasses.replace(
            plain,
            share_variance=case.share_variance,
            shares=case.shares,
            parts=case.parts if len(case.parts) > 1 else (),
            truncation=plain.truncation * case.shares / plain.shares + exposed,  # Z-08
        )
        for case in components_of(encoding, nodes, colluders).cases
    ]
    return max(events, key=lambda event: epsilon_of([event], _COMPARED_AT))


def multiplier_of(
    settings: PrivacySettings,
    *,
    rounds: int,
    terms: Callable[[float], DpTerms],
    sizes: tuple[int, int],
    cohort: tuple[int, int],
    exposed: float,
    spent: Sequence[PrivacyEvent],
) -> float:
    """Return the noise multiplier of a run: as set, or the least that the budget allows.

    Args:
        settings: What the operator wants.
        rounds: Rounds that are to have a result.
        terms: Noise multiplier to the terms of a round.
        sizes: Parameters of the model, and coordinates of an embedding.
        cohort: Nodes of a round, and how many of them may collude.
        exposed: By `exposure`.
        spent: What the ledger holds of the unit already.

    Raises:
        ConfigError: no noise is enough for what is left of the budget.
    """
    if settings.noise_multiplier:
        return settings.noise_multiplier
    count = settings.planned_rounds(rounds)

    def events(multiplier: float) -> dict[PrivacyEvent, int]:
        encoding = private_encoding(terms(multiplier), model_dim=sizes[0], embedding_dim=sizes[1])
        return Counter(spent) + Counter({_dearest(encoding, *cohort, exposed): count})

    return multiplier_for(events, epsilon=settings.epsilon, delta=settings.delta)


def cost_of(offer: RoundOffer, slot: int | None = None) -> RoundCost:
    """Return what a round costs its contributors, by its offer alone.

    Args:
        offer: The round.
        slot: Of the one contributor in question, where noise is correlated; the worst if None.

    Raises:
        ConfigError: the terms or the training settings make no sense.
    """
    if offer.dp is not None:
        if offer.dp.honest > len(offer.cohort):  # the accountant's work grows with it
            raise ConfigError(f"noise from {offer.dp.honest} nodes of {len(offer.cohort)}")
        encoding = private_encoding(
            offer.dp, model_dim=offer.model_dim, embedding_dim=len(offer.reference) // 4
        )
        n = len(offer.cohort)
        exposed = exposure(offer.neighbours, n, offer.ckks.committee_size if offer.ckks else None)
        if offer.dp.correlated is not None:
            event = epoch_event(offer.dp, encoding, slot)
            event = dataclasses.replace(event, delta_extra=event.delta_extra + exposed)
            return RoundCost(CLIENT, event)
        return RoundCost(CLIENT, _dearest(encoding, n, offer.colluders, exposed))
    training = settings_of(offer.training)
    if training is not None and training.train.private:
        return RoundCost(RECORD, record_event(training.train))
    return RoundCost(NONE, Unprotected())


def record_event(train: TrainConfig) -> SampledGaussian:
    """Return what one round of private training costs a row.

    Args:
        train: With `private` set.
    """
    # The rate as it is drawn: a whole number of 2^-32, by one word a row.
    rate = math.floor(train.sampling_rate * RATE_UNITS) / RATE_UNITS
    grid = 1 / max(train.noise_multiplier * CLIP_STEPS, 1.0)  # coarser than 1/8 is refused
    return SampledGaussian(train.noise_multiplier, rate, train.steps, grid)
