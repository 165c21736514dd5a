from __future__ import annotations

import numpy as np
import pytest

from fl_core.errors import DataError, ModelError
from fl_core.normalise import CLIP, Normaliser, signed_log1p


@pytest.mark.req("L-03")
def test_rows_become_centred_and_scaled(devices):
    rows = devices[0].train
    x = Normaliser.fit(rows).apply(rows)
    assert x.dtype == np.float32
    assert np.allclose(x.mean(axis=0), 0, atol=0.02)
    assert np.allclose(x[:, 1:].std(axis=0), 1, atol=0.02)


@pytest.mark.req("L-03")
def test_constant_columns_and_absurd_values_stay_bounded():
    train = np.column_stack([np.full(50, 3.0), np.linspace(-1e17, 6e17, 50), np.zeros(50)])
    normaliser = Normaliser.fit(train)
    assert np.allclose(normaliser.apply(train)[:, [0, 2]], 0, atol=1e-9)
    odd = normaliser.apply(np.array([[-6e17, 1e308, 1e-9], [1e308, -1e308, -1e308]]))
    assert np.isfinite(odd).all()
    assert np.abs(odd).max() == CLIP


def test_signed_log_is_odd_and_monotone():
    x = np.array([-6e17, -1.0, 0.0, 1.0, 6e17])
    y = signed_log1p(x)
    assert np.array_equal(y, -y[::-1])
    assert np.all(np.diff(y) > 0)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (np.array([[1.0, np.nan]]), "row 0 column 1 is not a finite number"),
        (np.array([[1.0, 2.0], [np.inf, 2.0]]), "row 1 column 0 is not a finite number"),
        (np.zeros((3, 5)), "5 columns, the model takes 2"),
        (np.zeros(2), "need a table of numbers"),
        (np.array([["a", "b"]]), "need a table of numbers"),
    ],
    ids=["nan", "inf", "width", "vector", "text"],
)
def test_bad_rows_are_named(rows, text):
    normaliser = Normaliser(np.zeros(2), np.ones(2))
    with pytest.raises(DataError, match=text):
        normaliser.apply(rows)


def test_nothing_to_fit_is_refused():
    with pytest.raises(DataError, match="there are none"):
        Normaliser.fit(np.empty((0, 3)))


@pytest.mark.parametrize(
    "scale", [np.zeros(2), np.array([1.0, np.nan]), np.ones(3)], ids=["zero", "nan", "shape"]
)
def test_a_broken_normaliser_is_refused(scale):
    with pytest.raises(ModelError, match="normaliser"):
        Normaliser(np.zeros(2), scale)
