from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.data.dataset import thin
from fl_core.data.series import (
    Series,
    device_windows,
    padded_windows,
    pool,
    split_windows,
    step_windows,
    window_columns,
    window_layout,
    windows,
)
from fl_core.errors import DataError


def steps(first, count, channels=2):
    """Return rows whose channel c at step t is t + c / 10."""
    return np.arange(first, first + count)[:, None] + np.arange(channels) / 10.0


def series(normal=50, after=20, anomalous=(5, 6, 7)):
    labels = np.zeros(after, np.int8)
    labels[list(anomalous)] = 1
    return Series("s", ("p", "q"), steps(0, normal), steps(normal, after), labels)


@pytest.mark.req("L-30")
def test_a_window_is_flattened_oldest_step_first():
    rows = windows(steps(0, 5), 3)
    assert rows[0].tolist() == [0, 0.1, 1, 1.1, 2, 2.1]
    assert rows.shape == (3, 6)
    assert rows.dtype == np.float64
    assert windows(steps(0, 7), 3, 2)[:, 0].tolist() == [0, 2, 4]
    assert windows(steps(0, 2), 3).shape == (0, 6)


@pytest.mark.req("L-30")
@given(
    total=st.integers(1, 30),
    length=st.integers(1, 12),
    stride=st.integers(1, 5),
    channels=st.integers(1, 3),
)
def test_windows_are_what_slices_say(total, length, stride, channels):
    values = steps(0, total, channels)
    wanted = [values[a : a + length].ravel() for a in range(0, total - length + 1, stride)]
    assert windows(values, length, stride).tolist() == [row.tolist() for row in wanted]


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (1, 0), (-1, 1)])
def test_windows_of_nothing_are_refused(length, stride):
    with pytest.raises(DataError, match=f"window {length}, stride {stride}"):
        windows(steps(0, 5), length, stride)


@pytest.mark.req("L-30")
def test_columns_name_channel_and_step_and_can_be_read_back():
    assert window_columns(("p", "q"), 3) == ("p@-2", "q@-2", "p@-1", "q@-1", "p@0", "q@0")
    assert window_columns(("p", "q"), 1) == ("p", "q")
    assert window_layout(("p@-1", "p@0")) == (("p",), 2)
    for length in (1, 2, 16):
        assert window_layout(window_columns(("a b", "c@0"), length)) == (("a b", "c@0"), length)


@pytest.mark.parametrize(
    "names",
    [(), ("p",), ("p@0",), ("p@-1", "q@0"), ("p@-1", "q@-1", "p@0"), ("p@0", "p@-1"), ("p@-1",)],
)
def test_other_columns_stand_alone(names):
    assert window_layout(names) == (names, 1)


@pytest.mark.req("L-31")
def test_every_test_step_has_the_window_that_ends_there():
    one = series()
    rows = step_windows(one, 4)
    assert rows.shape == (20, 8)
    assert rows[:, -2].tolist() == list(range(50, 70))  # the last step is the labelled one
    assert rows[0, ::2].tolist() == [47, 48, 49, 50]  # the first ones reach into the normal part


@pytest.mark.req("L-31")
def test_where_nothing_came_before_the_first_row_is_repeated():
    assert padded_windows(steps(5, 3), 3)[:, ::2].tolist() == [[5, 5, 5], [5, 5, 6], [5, 6, 7]]
    short = padded_windows(steps(5, 2), 4, steps(4, 1))
    assert short[:, ::2].tolist() == [[4, 4, 4, 5], [4, 4, 5, 6]]
    assert padded_windows(steps(5, 2), 1, steps(0, 5))[:, 0].tolist() == [5, 6]
    with pytest.raises(DataError, match="over 0 time steps"):
        padded_windows(steps(0, 0), 2)


@pytest.mark.req("L-32")
@given(normal=st.integers(20, 90), length=st.integers(1, 12))
def test_no_time_step_is_in_training_and_validation(normal, length):
    one = series(normal)
    cut = int(normal * 0.8)
    if normal - cut < length or cut < length + 1:
        with pytest.raises(DataError, match=f"{normal} normal time steps are too few") as caught:
            split_windows(one, length)
        assert "shorter window" in caught.value.hint
        return
    train, validation = split_windows(one, length)
    assert train[:, ::2].max() == cut - 1
    assert validation[:, ::2].min() == cut
    assert (len(train), len(validation)) == (cut - length + 1, normal - cut - length + 1)


@pytest.mark.req("L-31")
@pytest.mark.req("L-32")
def test_a_device_has_its_test_windows_by_the_label_of_their_last_step():
    data = device_windows(series(), 3)
    assert data.feature_names[-2:] == ("p@0", "q@0")
    assert data.test_attack[:, -2].tolist() == [55, 56, 57]
    assert len(data.test_benign) == 17
    assert data.attack_names.tolist() == ["attack"] * 3
    few = thin(data, 2)
    assert [len(few.train), len(few.validation), len(few.attack_names)] == [2, 2, 2]
    assert few.test_attack[:, -2].tolist() == [55, 56]


def test_pooled_devices_keep_their_windows_apart():
    parts = [device_windows(series(), 3), device_windows(series(60), 3)]
    whole = pool(parts, "both")
    assert whole.device == "both"
    assert len(whole.train) == len(parts[0].train) + len(parts[1].train)
    assert len(whole.attack_names) == 6
    with pytest.raises(DataError, match="columns of s are not those of s"):
        pool([parts[0], device_windows(series(), 4)], "both")
    with pytest.raises(DataError, match="nothing to join"):
        pool([], "both")


def test_a_series_is_checked():
    good = steps(0, 4)
    labels = np.zeros(4, np.int8)
    with pytest.raises(DataError, match="names of their own"):
        Series("s", ("p", "p"), good, good, labels)
    with pytest.raises(DataError, match=r"train has shape \(4, 1\)"):
        Series("s", ("p", "q"), good[:, :1], good, labels)
    with pytest.raises(DataError, match="one 0 or 1"):
        Series("s", ("p", "q"), good, good, labels[:3])
    with pytest.raises(DataError, match="one 0 or 1"):
        Series("s", ("p", "q"), good, good, labels + np.int8(2))
    with pytest.raises(DataError, match="test holds a NaN"):
        Series("s", ("p", "q"), good, good * np.nan, labels)
    assert repr(series()) == "Series('s', 2 channels, train=50, test=20, anomalous=3)"
