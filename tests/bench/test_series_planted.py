"""The comparison on planted anomalies: a score that follows the labels has them, chance has not."""

from __future__ import annotations

import numpy as np
import torch

from bench.series_planted import _views, quality
from bench.series_planting import SETS, plant, shortened
from fl_core.contender_encoders import SERIES
from fl_core.data.series import Series
from fl_core.encoders import build_encoder, embed
from fl_core.parameters import initial_parameters

C = 3


def series() -> Series:
    values = np.random.default_rng(1).normal(size=(400, C))
    return Series("pump", tuple("abc"), values, values[:0], np.empty(0, np.int8))


def test_every_kind_is_measured_by_itself() -> None:
    own = [shortened(series(), 0.6)]
    others = np.ones((1, C))
    planted = [[plant(own[0], "shift", SETS["long"], others, seed=seed)] for seed in (1, 2)]
    label = planted[0][0].labels

    def fit(train: np.ndarray) -> object:
        assert train.shape[1] == SERIES.window * C
        return lambda rows: {"perfect": label.astype(float), "constant": np.zeros(len(rows))}

    assert not np.array_equal(label, planted[1][0].labels)
    found = quality(own, planted, fit)
    assert found["perfect"][0] == 1.0
    assert found["perfect"][1] < 1.0
    assert np.allclose(found["constant"], [each[0].labels.mean() for each in planted])


def test_the_first_view_is_the_embedding() -> None:
    model = SERIES.model(SERIES.window * C)
    encoder = build_encoder(model, initial_parameters(model, 0)).eval()
    rows = np.random.default_rng(0).normal(size=(6, SERIES.window * C)).astype(np.float32)
    views = _views(encoder, rows)
    assert np.allclose(views["as it is"], embed(encoder, rows), atol=1e-6)
    assert views["time path alone"].shape == (6, 3 * C)
    assert not np.allclose(views["last stage alone"], views["as it is"])
    assert all(np.isfinite(view).all() for view in views.values())
    assert torch.is_grad_enabled()
