from __future__ import annotations

import re

import numpy as np
import pytest

from fl_core.data.series_files import list_groups, list_series, load_series, read_csv
from fl_core.data.sources import list_devices, load_device
from fl_core.errors import DataError
from tests.data.tables import SAMPLES, write_table

SKAB, ASD = SAMPLES.parent / "skab", SAMPLES.parent / "asd"
HEAD = "datetime;Pressure;Flow Rate;anomaly;changepoint"


def write_experiment(path, rows=450, anomalous=range(420, 440)):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEAD]
    lines += [
        f"2020-03-09 10:14:33;{row};{row / 10};{float(row in anomalous)};0.0" for row in range(rows)
    ]
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def write_server(path, **changes):
    arrays = {
        "train": np.arange(100, dtype=np.float32).reshape(50, 2),
        "test": np.ones((20, 2), np.float32),
        "test_label": np.r_[np.zeros(15), np.ones(5)].astype(np.int8),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


@pytest.fixture
def skab(tmp_path):
    for name in ("valve1/2", "valve1/10", "other/1"):
        write_experiment(tmp_path / f"{name}.csv")
    (tmp_path / "anomaly-free").mkdir()
    (tmp_path / "anomaly-free/anomaly-free.csv").write_text("datetime;Pressure\nx;1\n")
    return tmp_path


@pytest.mark.req("L-36")
def test_an_experiment_is_a_series_and_a_folder_is_a_group(skab):
    assert list_series(skab) == ("other-1", "valve1-2", "valve1-10")
    assert list_groups(skab) == {"other": ("other-1",), "valve1": ("valve1-2", "valve1-10")}
    one = load_series(skab, "valve1-2")
    assert one.channels == ("Pressure", "Flow Rate")
    assert (len(one.train), len(one.test), int(one.labels.sum())) == (400, 50, 20)
    assert one.labels[20:40].all()
    assert list_series(skab / "valve1") == ("valve1-2", "valve1-10")


@pytest.mark.req("L-36")
def test_the_normal_part_ends_before_an_early_anomaly(skab):
    write_experiment(skab / "other/2.csv", anomalous=range(104, 450))
    assert len(load_series(skab, "other-2").train) == 104


@pytest.mark.req("L-36")
def test_broken_experiments_are_named(skab):
    path = skab / "other/1.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:7], lines[7].replace(";6;", ";wet;"), *lines[8:]]))
    message = f"{path}: row 7 (line 8), column 'Pressure': 'wet' is not a number"
    with pytest.raises(DataError, match=re.escape(message)):
        load_series(skab, "other-1")
    path.write_text("\n".join([*lines[:7], lines[7].replace(";0.0;0.0", ";2;0.0"), *lines[8:]]))
    with pytest.raises(DataError, match=r"column 'anomaly': row 7 is 2\.0, not a label") as caught:
        load_series(skab, "other-1")
    assert "0 for normal" in caught.value.hint
    path.write_text("\n".join(line.replace("anomaly", "odd") for line in lines))
    with pytest.raises(DataError, match="column 'anomaly' is missing in line 1"):
        load_series(skab, "other-1")
    path.write_text("\n".join(lines[:401]))
    with pytest.raises(DataError, match="no rows after its normal part, of 400"):
        load_series(skab, "other-1")
    write_experiment(path, anomalous=range(3))
    with pytest.raises(DataError, match="no normal rows at its start"):
        load_series(skab, "other-1")
    with pytest.raises(DataError, match="unknown series 'other-7'") as caught:
        load_series(skab, "other-7")
    assert "valve1-10" in caught.value.hint


@pytest.mark.req("L-36")
def test_a_server_is_a_series(tmp_path):
    for number in (1, 10, 2):
        write_server(tmp_path / f"omi-{number}.npz")
    assert list_series(tmp_path) == ("omi-1", "omi-2", "omi-10")
    assert list_groups(tmp_path) == {}
    one = load_series(tmp_path, "omi-10")
    assert one.channels == ("metric1", "metric2")
    assert one.train.dtype == np.float64
    assert one.labels.tolist() == [0] * 15 + [1] * 5


@pytest.mark.req("L-36")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_label": None}, "array 'test_label' is missing"),
        ({"test_label": np.zeros(3)}, "not one number for each row"),
        ({"test_label": np.full(20, 7)}, "test_label: row 1 is 7, not a label"),
        ({"test": np.ones((20, 3))}, "train has 2 columns, test 3"),
        ({"train": np.full((50, 2), np.nan)}, "train: row 1, column 1 is nan"),
        ({"train": np.ones(50)}, "train must be a table of numbers"),
    ],
)
def test_broken_servers_are_named(tmp_path, changes, message):
    path = write_server(tmp_path / "omi-1.npz", **changes)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}") as caught:
        load_series(tmp_path, "omi-1")
    assert caught.value.hint
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as npz"):
        load_series(tmp_path, "omi-1")


@pytest.mark.req("L-36")
def test_a_csv_in_time_order_is_a_series(tmp_path):
    lines = ["time,device,x,label"]
    lines += [f"{t},{'ab'[t % 2]},{t},{'leak' if t in (70, 90) else 'benign'}" for t in range(100)]
    path = tmp_path / "site.csv"
    path.write_text("\n".join(lines))
    one = read_csv(path, "a")
    assert one.train[:, 0].tolist() == list(range(0, 70, 2))  # up to the first attack
    assert one.test[one.labels == 1, 0].tolist() == [70, 90]
    assert len(read_csv(path, "b").train) == 40  # 80 % of its benign rows
    path.write_text("x,label\n1,leak\n2,0\n3,0\n4,0\n5,0\n")
    with pytest.raises(DataError, match="no normal rows at its start"):
        read_csv(path, "site")


@pytest.mark.req("L-30")
@pytest.mark.req("L-36")
def test_sources_give_windows(skab, tmp_path_factory):
    root = str(skab)
    assert list_devices(root) == ("other-1", "valve1-2", "valve1-10")
    data = load_device(root, "valve1-2", window=4)
    assert data.train.shape == (317, 8)
    assert data.feature_names[0] == "Pressure@-3"
    assert len(load_device(root, "valve1-2").train) == 320
    group = load_device(root, "valve1", window=4, limit_rows=50)
    assert (group.device, len(group.train)) == ("valve1", 50)
    folder = tmp_path_factory.mktemp("plain")
    table = write_table(folder / "boiler.csv", 100)
    assert load_device(str(table), "boiler", window=3).feature_names[-1] == "b@0"
    assert load_device(str(table), "boiler").feature_names == ("a", "b")


@pytest.mark.req("L-36")
def test_a_window_needs_a_source_in_time_order(skab, tmp_path_factory):
    with pytest.raises(DataError, match="window is 0"):
        load_device(str(skab), "valve1-2", window=0)
    with pytest.raises(DataError, match="builtin: its rows are no series, so they have no windows"):
        load_device("builtin", "Danmini_Doorbell", window=4)
    with pytest.raises(DataError, match="unknown device 'valve9'"):
        load_device(str(skab), "valve9")
    folder = tmp_path_factory.mktemp("uci")
    write_table(folder / "d/benign_traffic.csv", 50)
    with pytest.raises(DataError, match="its rows are no series"):
        load_device(str(folder), "d", window=2)


@pytest.mark.req("L-36")
@pytest.mark.skipif(not SKAB.is_dir(), reason="the real series are not there")
def test_the_real_experiments_load():
    assert len(list_series(SKAB)) == 34
    assert {name: len(group) for name, group in list_groups(SKAB).items()} == {
        "other": 14,
        "valve1": 16,
        "valve2": 4,
    }
    early = load_series(SKAB, "other-2")
    assert (len(early.channels), len(early.train), len(early.test)) == (8, 104, 676)
    assert load_device(str(SKAB), "valve1-0", window=16).train.shape == (305, 128)


@pytest.mark.req("L-36")
@pytest.mark.skipif(not ASD.is_dir(), reason="the real series are not there")
def test_the_real_servers_load():
    assert list_devices(str(ASD)) == tuple(f"omi-{i}" for i in range(1, 13))
    one = load_series(ASD, "omi-12")
    assert (len(one.channels), len(one.train), len(one.test)) == (19, 7291, 4320)
