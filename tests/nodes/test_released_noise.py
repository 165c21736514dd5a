"""The noise in sums that real rounds release has the promised variance, and rounds share none.

Every node gives zeros and a weight of 1, so that the update in the sum is noise and nothing else.
Each statistic fails by chance with the probability RATE at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from fl_core.training import LocalUpdate
from nodes.canaries import AuditedRun
from nodes.noise_faults import noise_scaled
from nodes.session import coordinator as session
from nodes.session.contribution import RoundMean
from nodes.session.events import TrainRequested
from nodes.session.noised import _signs
from nodes.session.offer import noised_encoding_of
from nodes.session.privacy import components_of
from secagg import ring
from secagg.dp.excess import remove_excess
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import NodeId
from secagg.wire.messages import RoundOffer

RATE = 1e-7
NODES, COLLUDERS, ROUNDS, MULTIPLIER = 20, 2, 2, 0.4


@dataclass(frozen=True)
class Opened:
    """One opened sum."""

    noise: NDArray[np.float64]
    """In steps."""
    variance: float
    """Of a coordinate, that the terms promise for these contributors and what they gave back."""
    rounding: float
    """What rounding may add to it."""
    needed: float
    """What the contributors that do not collude have to have together."""
    honest: float
    """Part of the variance that is theirs."""


def opened(
    monkeypatch: pytest.MonkeyPatch,
    *,
    factor: float = 1.0,
    scheme: str = "masking",
    dropout: float = 0.0,
    **privacy: Any,
) -> list[Opened]:
    sums: list[Opened] = []
    original = vars(session)["mean_of"]

    def watched(result: SumReady, offer: RoundOffer, setup: RoundSetup) -> RoundMean | None:
        sums.append(as_promised(result, offer, setup, factor))
        mean: RoundMean | None = original(result, offer, setup)
        return mean

    def quiet(node: NodeId, request: TrainRequested) -> LocalUpdate:
        assert node.startswith("node-")
        zeros = np.zeros(len(request.params), np.float32)
        return LocalUpdate(zeros, np.zeros(8, np.float32), 1.0, 1.0, 0.0, 0)

    settings = {"noise_multiplier": MULTIPLIER, "epsilon": 25.0, **privacy}
    with noise_scaled(factor), monkeypatch.context() as patch:
        patch.setattr(session, "mean_of", watched)
        run = AuditedRun(
            NODES,
            1,
            ROUNDS,
            scheme=scheme,
            privacy=settings,
            dim=2500,
            dropout=dropout,
            tolerance=0.3,
            collusion=COLLUDERS / NODES,
        )
        run._simulation._trainer = quiet
        assert all(result.outcome == "done" for result in run._simulation.run())
    assert len(sums) == ROUNDS
    return sums


def as_promised(result: SumReady, offer: RoundOffer, setup: RoundSetup, factor: float) -> Opened:
    assert offer.dp is not None
    encoding = noised_encoding_of(offer, offer.dp)
    parts = components_of(encoding, len(setup.cohort), setup.colluders)
    # Under a planted fault the coordinator takes the faulty noise back; here what it should have.
    given = result.excess if factor == 1 else {}
    total = remove_excess(result.total, given, parts, setup.ring_bits)
    sums = encoding.decode(ring.to_signed(total, setup.ring_bits), signs_seed=_signs(setup))
    count = len(parts.variances)
    kept = [
        math.fsum(parts.variances[: count - len(given.get(node, ()))])
        for node in result.contributors
    ]
    everybody = len(result.contributors)
    return Opened(
        noise=sums["update"] * encoding.terms.scale / encoding.terms.clip,
        variance=math.fsum(kept),
        rounding=everybody / 4,
        needed=(MULTIPLIER * encoding.sensitivity.l2) ** 2,
        honest=(everybody - setup.colluders) / everybody,
    )


def as_it_should_be(sums: list[Opened]) -> bool:
    """Return whether the noise of all rounds has the variance, by chi-square at RATE both ways."""
    freedom = sum(len(each.noise) for each in sums)
    low, high = chi2.ppf(RATE, freedom), chi2.isf(RATE, freedom)
    least = sum(float(each.noise @ each.noise) / (each.variance + each.rounding) for each in sums)
    most = sum(float(each.noise @ each.noise) / each.variance for each in sums)
    return bool(low < most and least < high)


CASES = [
    {"mechanism": mechanism, "excess_levels": levels, "dropout": dropout}
    for mechanism in ("discrete-gaussian", "skellam")
    for levels in (0, 4)
    for dropout in (0.0, 0.08)
]


@pytest.mark.req("V-11")
@pytest.mark.parametrize("case", [*CASES, {"scheme": "ckks", "dropout": 0.05}], ids=str)
def test_released_noise_has_the_promised_variance(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = opened(monkeypatch, **case)
    assert as_it_should_be(sums)
    for each in sums:
        assert each.variance * each.honest >= each.needed * (1 - 1e-9), "for who does not collude"
        assert abs(each.noise.mean()) < norm.isf(RATE / 2) * math.sqrt(
            (each.variance + each.rounding) / len(each.noise)
        )


@pytest.mark.req("V-11")
def test_without_dropouts_what_is_left_is_next_to_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back, kept = (opened(monkeypatch, excess_levels=levels)[0] for levels in (4, 0))
    assert back.variance / back.needed == pytest.approx(NODES / (NODES - COLLUDERS), rel=1e-9)
    assert kept.variance > 1.2 * back.variance


@pytest.mark.req("V-11")
def test_rounds_and_coordinates_share_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = [each.noise / np.linalg.norm(each.noise) for each in opened(monkeypatch)]
    limit = norm.isf(RATE / 2) / math.sqrt(len(sums[0]) - 1)
    assert abs(sums[0] @ sums[1]) < limit
    assert all(abs(noise[1:] @ noise[:-1]) < limit for noise in sums)


@pytest.mark.req("V-11")
@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "skellam"])
@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_noise_that_is_left_out_halved_or_doubled_fails(
    factor: float, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = opened(monkeypatch, factor=factor, mechanism=mechanism, excess_levels=0)
    assert not as_it_should_be(sums)
