"""The comparison on planted anomalies: a score that follows the labels has them, chance has not."""

from __future__ import annotations

import numpy as np
import torch

from bench.series_planted import _fit_alone, _fit_heads, _views, quality
from bench.series_planting import SETS, plant, shortened
from fl_core.contender_encoders import SERIES
from fl_core.data.series import Series, split_windows
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
    z = embed(encoder, rows)
    parts = views["as it is"]
    assert tuple(part.shape[1] for part in parts) == model.parts
    assert np.allclose(np.hstack(parts), z, atol=1e-6)
    (whole,) = views["one part"]
    assert np.allclose(whole, z, atol=1e-6)
    paths = [np.hstack(views[f"{path} path alone"]) for path in ("time", "frequency")]
    assert [path.shape for path in paths] == [(6, 3 * C)] * 2
    kept = {tuple(column) for column in np.hstack(paths).T.round(6)}
    assert kept < {tuple(column) for column in z.T.round(6)}
    assert not np.allclose(np.hstack(views["last stage alone"]), z)
    assert all(np.isfinite(part).all() for parts in views.values() for part in parts)
    assert torch.is_grad_enabled()


def test_who_goes_on_alone_trains_on_windows_of_its_own() -> None:
    model, (own, rows) = SERIES.model(SERIES.window * C), split_windows(series(), SERIES.window)
    first = initial_parameters(model, 0)
    before = _fit_heads(model, first, "x")(own)(rows)["x"]
    assert np.array_equal(_fit_alone(model, first, 0, 0, "x")(own)(rows)["x"], before)
    after = _fit_alone(model, first, 1, 0, "x")(own)(rows)
    assert list(after) == ["x"]
    assert after["x"].shape == before.shape
    assert not np.allclose(after["x"], before)
