from contextlib import suppress

import numpy as np
import pytest

from fl_core.data.archive import ARRAYS
from fl_core.data.sources import list_devices, load_device
from fl_core.errors import DataError
from tests.data.tables import SAMPLES

REAL = SAMPLES / "nbaiot_iid10.npz"


def arrays(**changes):
    """Twenty training, four test and six attack rows; value = row number."""
    part = np.repeat([0, 1, 2], [20, 4, 6])
    device = np.where(part == 2, -1, np.arange(30) % 2)
    in_train = np.zeros(30, dtype=bool)
    in_train[[20, 25]] = True
    within = np.zeros(30, dtype=bool)
    within[[3, 28]] = True
    out = {
        "X": np.repeat(np.arange(30.0)[:, None], 2, axis=1),
        "part": part,
        "device": device,
        "dup_in_train": in_train,
        "dup_within_part": within,
        "feature_names": np.array(["a", "b"]),
        "device_names": np.array(["pump", "valve"]),
    } | changes
    return {name: value for name, value in out.items() if value is not None}


def archive(path, **changes):
    np.savez(path / "rows.npz", **arrays(**changes))
    return str(path / "rows.npz")


@pytest.mark.req("F-23")
def test_rows_go_where_they_belong(tmp_path):
    source = archive(tmp_path)
    assert list_devices(source) == ("pump", "valve")
    data = load_device(source, "pump", seed=3)
    benign = data.train[:, 0].tolist() + data.validation[:, 0].tolist()
    assert sorted(benign) == list(range(0, 20, 2))
    assert len(data.validation) == 2
    assert data.test_benign[:, 0].tolist() == [22]  # 20 repeats a training row
    assert data.test_attack[:, 0].tolist() == [24, 26, 27, 29]
    assert set(data.attack_names) == {"attack"}
    assert load_device(source, "valve").test_attack.tolist() == data.test_attack.tolist()


@pytest.mark.req("F-23")
def test_validation_depends_on_the_seed_only(tmp_path):
    source = archive(tmp_path)
    drawn = {tuple(load_device(source, "pump", seed=s).validation[:, 0]) for s in range(8)}
    assert len(drawn) > 1
    again = load_device(source, "pump", seed=5)
    assert again.validation.tolist() == load_device(source, "pump", seed=5).validation.tolist()


@pytest.mark.req("F-20")
@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_named(tmp_path, name):
    with pytest.raises(DataError, match=f"array '{name}' is missing"):
        load_device(archive(tmp_path, **{name: None}), "pump")


def spoiled(row, value):
    values = arrays()["X"].copy()
    values[row, 1] = value
    return values


BROKEN = {
    "nan": ({"X": spoiled(4, np.nan)}, "row 5 of X, column 'b' is nan"),
    "infinity": ({"X": spoiled(29, np.inf)}, "row 30 of X, column 'b' is inf"),
    "text": ({"X": np.full((30, 2), "1")}, "X must be a table of numbers"),
    "one axis": ({"X": np.zeros(30)}, "X must be a table of numbers"),
    "wrong width": ({"X": np.zeros((30, 3))}, "X has 3 columns, feature_names 2"),
    "short flags": ({"dup_in_train": np.zeros(3, bool)}, "dup_in_train has not one value"),
    "objects": ({"X": np.full((30, 2), None)}, "cannot be read as npz: array 'X': "),
    "text for devices": ({"device": np.full(30, "pump")}, "device must be one row of whole"),
    "devices not whole": ({"device": np.full(30, 0.5)}, "device must be one row of whole"),
    "short devices": ({"device": np.zeros(3, int)}, "device has not one value"),
    "text for parts": ({"part": np.full(30, "train")}, "part must be one row of whole numbers"),
    "a table of parts": ({"part": np.zeros((30, 2), int)}, "part must be one row of whole"),
    "no training rows": ({"part": np.full(30, 1)}, "part has no training rows"),
    "text for flags": ({"dup_in_train": np.full(30, "no")}, "dup_in_train must be one row of True"),
    "numbers for flags": ({"dup_within_part": np.zeros(30)}, "dup_within_part must be one row"),
    "one feature name": ({"feature_names": np.array("a")}, "feature_names must be one row of text"),
    "one device name": ({"device_names": np.array("pump")}, "device_names must be one row of text"),
    "bytes for names": ({"device_names": np.array([b"pump"])}, "device_names must be one row"),
    "a name twice": ({"feature_names": np.array(["a", "a"])}, "feature_names repeats a name"),
    "device out of range": ({"device_names": np.array(["pump"])}, "beyond device_names"),
}


@pytest.mark.req("F-20")
@pytest.mark.parametrize("case", BROKEN)
def test_broken_arrays_are_named(tmp_path, case):
    changes, message = BROKEN[case]
    with pytest.raises(DataError, match=message) as caught:
        load_device(archive(tmp_path, **changes), "pump")
    assert "\n" not in str(caught.value)


@pytest.mark.req("F-20")
def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "rows.npz"
    for content in (b"", b"hello", b"PK\x03\x04 not a zip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"rows\.npz: cannot be read as npz"):
            list_devices(str(path))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(DataError, match="one array, not an archive"):
        list_devices(str(path))


@pytest.mark.req("F-20")
def test_a_damaged_archive(tmp_path):
    source = archive(tmp_path)
    content = bytearray((tmp_path / "rows.npz").read_bytes())
    at = content.index(b"X.npy") + 200
    content[at : at + 40] = bytes(40 * [255])
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as npz"):
        load_device(source, "pump")


@pytest.mark.req("F-20")
def test_any_flipped_bytes_give_rows_or_a_data_error(tmp_path):
    source = archive(tmp_path)
    whole = (tmp_path / "rows.npz").read_bytes()
    rng = np.random.default_rng(4)
    for _ in range(400):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            content[at] = rng.integers(256)
        (tmp_path / "rows.npz").write_bytes(content)
        with suppress(DataError):
            load_device(source, "pump")


@pytest.mark.req("F-20")
def test_a_negative_seed_is_a_data_error(tmp_path):
    for source, device in ((archive(tmp_path), "pump"), ("builtin", list_devices("builtin")[0])):
        with pytest.raises(DataError, match="seed -1 is negative") as caught:
            load_device(source, device, seed=-1)
        assert caught.value.hint


@pytest.mark.req("F-23")
@pytest.mark.skipif(not REAL.is_file(), reason="the real archive is not there")
def test_counts_of_the_real_archive():
    source = str(REAL)
    names = list_devices(source)
    assert len(names) == 9
    train = test = 0
    for name in names:
        data = load_device(source, name)
        train += len(data.train) + len(data.validation)
        test += len(data.test_benign)
        assert data.test_attack.shape == (23_330, 115)
    assert train == 16_676
    assert test == 5_482  # 5520 less those that repeat a training row
