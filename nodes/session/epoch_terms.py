"""What the offers of an epoch of correlated noise say, and what its rounds cost.

Both sides read terms, cost and rotation off the offer by the same functions. Source:
specs/54-correlated-noise.md sections 7 and 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from secagg import tags
from secagg.assumptions import SECURITY_BITS
from secagg.dp import correlated
from secagg.dp.accountant import multiplier_for
from secagg.dp.encoding import PrivateEncoding
from secagg.dp.events import PrivacyEvent, ZeroConcentrated
from secagg.dp.headroom import CUT_BITS
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import DISCRETE_GAUSSIAN
from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives.kdf import digest
from secagg.wire.messages import CorrelatedTerms, DpTerms, RoundOffer

if TYPE_CHECKING:
    from nodes.session.privacy import PrivacySettings

__all__ = [
    "EpochStart",
    "as_first",
    "at_position",
    "check_epoch_settings",
    "divisor_of",
    "epoch_event",
    "epoch_fault",
    "epoch_multiplier",
    "epoch_signs",
    "epoch_terms",
    "first_terms",
    "stretch_of",
]


@dataclass(frozen=True, slots=True)
class EpochStart:
    """What the terms of a new epoch follow from, beside the operator's settings."""

    run_id: bytes
    round_id: int
    """Of its first round."""
    nodes: int
    """Size of that round's cohort."""
    honest: int
    """h: contributors that do not collude and stay to the epoch's end."""
    dim: int
    """Parameters of the model."""
    rounds: int
    """Rounds that the run still has before it."""
    clip: float


def check_epoch_settings(settings: PrivacySettings) -> None:
    """Refuse settings that correlated noise does not go with (C-14).

    Raises:
        ConfigError: it names the setting to change.
    """
    if not settings.epoch_rounds:
        return
    for wrong, found, hint in (
        (settings.unit != "client", f"unit {settings.unit!r}", 'set privacy.unit = "client"'),
        (
            settings.mechanism != DISCRETE_GAUSSIAN,
            f"mechanism {settings.mechanism!r}",
            f'set privacy.mechanism = "{DISCRETE_GAUSSIAN}"',
        ),
        (
            settings.excess_levels > 0,
            "noise that is taken back after dropouts",
            "set privacy.excess_levels = 0",
        ),
        (settings.adaptive, "a clip that adapts", "set privacy.quantile = 0"),
        (settings.epoch_rounds == 1, "epochs of 1 round", "set privacy.epoch_rounds to 2 or more"),
        (
            settings.separation > settings.epoch_rounds,
            f"a separation of {settings.separation} rounds",
            f"set privacy.separation to at most privacy.epoch_rounds = {settings.epoch_rounds}",
        ),
    ):
        if wrong:
            raise ConfigError(
                f"correlated noise does not go with {found}",
                hint=f"{hint}, or privacy.epoch_rounds = 0 for independent noise",
            )


def first_terms(settings: PrivacySettings, start: EpochStart, multiplier: float) -> DpTerms:
    """Return the terms of the first round of an epoch.

    Args:
        settings: What the operator wants.
        start: The epoch.
        multiplier: z: σ over the L2 sensitivity.

    Raises:
        ConfigError: so little noise that integers are too coarse for it (C-04).
    """
    scale = 1 << (settings.scale_bits - 1)
    rounds = max(2, min(settings.epoch_rounds, start.rounds))
    band = correlated.best_band(settings.epoch_rounds, settings.separation)
    l2 = sensitivity(scale, start.dim).l2
    least, smoothing = correlated.least_noise(
        band, rounds=rounds, dim=start.dim, honest=start.honest
    )
    if multiplier * l2 < least:  # C-04
        raise ConfigError(
            f"noise of {multiplier * l2:.0f} steps is too little to be correlated, {least:.0f} "
            f"are the least with {start.honest} honest nodes",
            hint="use a larger privacy.scale_bits, or privacy.epoch_rounds = 0",
        )
    return DpTerms(
        mechanism=DISCRETE_GAUSSIAN,
        clip=start.clip,
        scale=scale,
        noise_multiplier=multiplier,
        honest=start.honest,
        rotation=settings.rotation,
        within=False,
        drop_levels=(),
        correlated=CorrelatedTerms(
            epoch=digest(tags.EPOCH, start.run_id, start.round_id.to_bytes(8, "little"))[:16],
            position=0,
            band=band,
            smoothing=smoothing / l2,
            rounds=rounds,
            separation=min(settings.separation, rounds),
            nodes=start.nodes,
        ),
    )


def epoch_multiplier(
    settings: PrivacySettings,
    start: EpochStart,
    *,
    planned: int,
    spent: Sequence[PrivacyEvent],
) -> float:
    """Return z of all the run's epochs: as set, or the least that the budget allows (C-15).

    Args:
        settings: What the operator wants.
        start: The run's first epoch.
        planned: Rounds that may be charged, aborted ones included.
        spent: What the ledger holds of the unit already.

    Raises:
        ConfigError: no noise is enough for what is left of the budget, or it takes so little that
            integers are too coarse for it.
    """
    if settings.noise_multiplier:
        return settings.noise_multiplier
    length = max(2, min(settings.epoch_rounds, start.rounds))
    epochs = math.ceil(start.rounds / length) + max(0, planned - start.rounds) / length
    cut = planned * (start.honest * 2.0**-CUT_BITS + 2.0**-SECURITY_BITS)

    def rho(multiplier: float) -> float:
        return 1 / (2 * multiplier * multiplier)

    least = multiplier_for(
        lambda multiplier: [*spent, ZeroConcentrated(rho(multiplier), cut)],
        epsilon=settings.epsilon,
        delta=settings.delta,
    )
    l2 = sensitivity(1 << (settings.scale_bits - 1), start.dim).l2
    terms = correlated.calibrate(
        rho(least) / epochs,
        l2=l2,
        dim=start.dim,
        band=correlated.best_band(settings.epoch_rounds, settings.separation),
        rounds=length,
        separation=min(settings.separation, length),
        honest=start.honest,
    )
    return terms.sigma / l2


def at_position(dp: DpTerms, position: int) -> DpTerms:
    """Return the terms of another round of the same epoch."""
    return structs.replace(dp, correlated=structs.replace(_epoch(dp), position=position))


def as_first(offer: RoundOffer) -> RoundOffer:
    """Return an offer as if its epoch began with it; unchanged if it is of none."""
    if offer.dp is None or offer.dp.correlated is None:
        return offer
    begun = structs.replace(offer.dp.correlated, position=0, nodes=len(offer.cohort))
    return structs.replace(offer, dp=structs.replace(offer.dp, correlated=begun))


def stretch_of(dp: DpTerms) -> float:
    """Return the greatest variance of a round's noise over that of what is drawn for it (C-12)."""
    epoch, z = dp.correlated, dp.noise_multiplier
    if epoch is None:
        return 1.0
    fresh = epoch.smoothing / z
    return sum(coefficient * coefficient for coefficient in epoch.band) + fresh * fresh


def epoch_terms(dp: DpTerms, encoding: PrivateEncoding) -> correlated.CorrelatedTerms:
    """Return the terms of an epoch as the mechanism reads them, in steps.

    Raises:
        ConfigError: they make no sense, or the epoch has no such round.
    """
    epoch, l2 = _epoch(dp), encoding.sensitivity.l2
    if epoch.position >= epoch.rounds:
        raise ConfigError(f"round {epoch.position} of an epoch of {epoch.rounds}")
    return correlated.CorrelatedTerms(
        band=epoch.band,
        sigma=dp.noise_multiplier * l2,
        smoothing=epoch.smoothing * l2,
        rounds=epoch.rounds,
        separation=epoch.separation,
        honest=dp.honest,
    )


def epoch_event(dp: DpTerms, encoding: PrivateEncoding, slot: int | None) -> ZeroConcentrated:
    """Return what a round of an epoch costs, on top of those before it (C-08).

    Args:
        dp: Its terms.
        encoding: Layout of its vector.
        slot: That of the node that is charged; the worst of all if None.

    Raises:
        ConfigError: the terms make no sense.
    """
    terms, bounds = epoch_terms(dp, encoding), encoding.sensitivity
    cost = terms.event(_epoch(dp).position, bounds.l2, encoding.dim, slot=slot)
    return replace(cost, delta_extra=dp.honest * 2.0**-CUT_BITS)  # C-12: any of the shares is cut


def epoch_fault(offer: RoundOffer, dp: DpTerms) -> str:
    """Return why noise of an epoch is not what it claims to be, or "" (C-11, C-14)."""
    epoch, n = dp.correlated, len(offer.cohort)
    if epoch is None:
        return ""
    if dp.mechanism != DISCRETE_GAUSSIAN:
        return f"{dp.mechanism} noise cannot be correlated"
    if dp.within or dp.drop_levels:
        return "correlated noise goes with no clip that adapts, and none of it is taken back"
    if n > epoch.nodes or (not epoch.position and n != epoch.nodes):
        return f"a cohort of {n} in an epoch of {epoch.nodes} nodes"
    cosigners = (n + offer.colluders) // 2 + 1
    if dp.honest + cosigners <= n:  # C-11
        return f"noise of {dp.honest} honest nodes, of {n}: those in two views could make it up"
    return ""


def epoch_signs(dp: DpTerms) -> bytes:
    """Return the public seed of the rotation, the same in the whole epoch (C-13)."""
    return digest(tags.EPOCH_ROTATION, _epoch(dp).epoch)


def divisor_of(dp: DpTerms) -> float:
    """Return what sums are divided by: n/b, whoever is left (C-13)."""
    epoch = _epoch(dp)
    return epoch.nodes / epoch.separation


def _epoch(dp: DpTerms) -> CorrelatedTerms:
    if dp.correlated is None:
        raise LocalProtocolError("terms of independent noise")
    return dp.correlated
