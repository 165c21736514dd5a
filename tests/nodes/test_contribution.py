"""What a node puts into the sum and what comes out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_core.training import LocalUpdate
from nodes.session.contribution import encode_update, read_sum
from nodes.session.offer import encoding_of
from tests.nodes.test_offer import offer_for
from tests.support.randomness import InsecureLabelledRng
from tests.support.run import DIM


def test_the_contribution_holds_all_that_depends_on_a_node_and_decodes_to_the_mean() -> None:
    offer = offer_for(3)
    encoding = encoding_of(offer)
    rng = np.random.default_rng(0)
    updates = [
        LocalUpdate(
            rng.normal(0, 0.1, DIM).astype(np.float32),
            rng.normal(0, 0.1, 4).astype(np.float32),
            weight,
            1.0,
            loss,
            samples,
        )
        for weight, loss, samples in ((0.9, 1.0, 50), (0.5, 2.0, 500), (0.2, 6.0, 2_000_000))
    ]
    updates[0] = replace(updates[0], delta=np.full(DIM, 10.0, dtype=np.float32))  # clipped
    source = InsecureLabelledRng(1, "rounding")
    total = np.zeros(encoding.dim, dtype=np.uint32)
    for update in updates:
        total += encode_update(update, encoding, source)
    total &= (1 << offer.ring_bits) - 1
    mean = read_sum(total.astype(np.uint32), (1, 1, 1), encoding)
    assert mean is not None
    assert mean.clipped == 1
    assert mean.samples == (1, 0, 1, 0, 0, 0, 0, 1)
    assert mean.loss == pytest.approx(3.0, abs=0.01)
    assert mean.weight == pytest.approx(1.6 / 3, abs=1e-3)
    norm = np.linalg.norm(0.9 * updates[0].delta)
    weighted = 0.9 * updates[0].delta * (offer.update_bound / norm)
    weighted = weighted + 0.5 * updates[1].delta + 0.2 * updates[2].delta
    step = offer.update_bound / encoding.largest
    assert mean.delta == pytest.approx(weighted / 1.6, abs=4 * step)


@pytest.mark.req("H-16")
def test_a_negative_weight_does_not_stretch_the_next_reference() -> None:
    """A node could end every run: the others refuse a reference that no mean of rows can be."""
    offer = offer_for(3)
    encoding = encoding_of(offer)
    source = InsecureLabelledRng(1, "rounding")
    honest = LocalUpdate(np.zeros(DIM, np.float32), np.ones(4, np.float32), 0.5, 1.0, 1.0, 100)
    evil = replace(honest, weight=-0.95, centroid=np.full(4, -4.0, np.float32))
    total = np.zeros(encoding.dim, dtype=np.uint32)
    for update in (honest, honest, evil):
        total += encode_update(update, encoding, source)
    mean = read_sum(total & np.uint32((1 << offer.ring_bits) - 1), (1, 1, 1), encoding)
    assert mean is not None
    assert float(mean.centroid @ mean.centroid) == pytest.approx(4.0)
