import numpy as np
import pytest

from fl_core.data.dataset import DeviceData, drop_columns, evenly
from fl_core.errors import DataError

NAMES = ("H_L1_mean", "HH_jit_L1_mean", "HH_jit_L5_mean")


def device(names=NAMES, rows=4, attack_names=None):
    part = np.arange(rows * len(names), dtype=float).reshape(rows, -1)
    labels = np.full(rows, "mirai.syn") if attack_names is None else attack_names
    return DeviceData("d", names, part, part + 1, part + 2, part + 3, labels)


def test_drop_columns_takes_the_same_columns_from_every_part():
    left = drop_columns(device(), ["HH_jit_*"])
    assert left.feature_names == ("H_L1_mean",)
    for part, first in (("train", 0), ("validation", 1), ("test_benign", 2), ("test_attack", 3)):
        assert getattr(left, part)[:, 0].tolist() == [first, first + 3, first + 6, first + 9]
    assert list(left.attack_names) == ["mirai.syn"] * 4


@pytest.mark.parametrize("pattern", ["HH_JIT_*", "HpHp_*", "H_L1"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern):
    with pytest.raises(DataError, match="no column matches") as caught:
        drop_columns(device(), [pattern])
    assert "H_L1_mean" in caught.value.hint


def test_dropping_everything_is_an_error():
    with pytest.raises(DataError, match="every column"):
        drop_columns(device(), ["*"])


def test_parts_must_fit_the_names():
    with pytest.raises(DataError, match="same name"):
        device(names=("x", "x"))
    with pytest.raises(DataError, match="attack_names"):
        device(attack_names=np.array(["one"]))
    part = np.zeros((2, 3))
    with pytest.raises(DataError, match=r"validation has shape \(2, 2\)"):
        DeviceData("d", NAMES, part, part[:, :2], part, part, np.array(["x", "y"]))


def test_repr_shows_sizes_and_no_values():
    assert repr(device()) == (
        "DeviceData('d', 3 columns, train=4, validation=4, test_benign=4, test_attack=4)"
    )


def test_evenly_spreads_over_the_whole_range():
    assert evenly(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(7, None).tolist() == list(range(7))
    assert len(set(evenly(1000, 333).tolist())) == 333
