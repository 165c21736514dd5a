import re

import numpy as np
import pytest

from fl_core.data.folders import FLAT_NUMBERS
from fl_core.data.profiles import PROFILES
from fl_core.data.sources import list_devices, load_all_series, load_device
from fl_core.errors import DataError
from tests.data.tables import SAMPLES, write_table

CSV_SAMPLE = SAMPLES / "csv_sample"


def first(part):
    return part[:, 0].tolist()


@pytest.fixture
def uci(tmp_path):
    write_table(tmp_path / "Danmini_Doorbell/benign_traffic.csv", 50)
    write_table(tmp_path / "Danmini_Doorbell/gafgyt_attacks/combo.csv", 6, base=1000)
    write_table(tmp_path / "Danmini_Doorbell/mirai_attacks/syn.csv", 4, base=2000)
    write_table(tmp_path / "Ecobee_Thermostat/benign_traffic.csv", 10)
    (tmp_path / "demonstrate_structure.csv").write_text("not read")
    return tmp_path


@pytest.mark.req("F-22")
@pytest.mark.req("F-24")
def test_uci_layout_is_split_in_time(uci):
    assert list_devices(str(uci)) == ("Danmini_Doorbell", "Ecobee_Thermostat")
    assert list_devices(str(uci), limit=1) == ("Danmini_Doorbell",)
    data = load_device(str(uci), "Danmini_Doorbell")
    assert first(data.train) == list(range(30))
    assert first(data.validation) == list(range(30, 40))
    assert first(data.test_benign) == list(range(40, 50))
    assert first(data.test_attack) == [*range(1000, 1006), *range(2000, 2004)]
    assert data.attack_names.tolist() == ["gafgyt.combo"] * 6 + ["mirai.syn"] * 4


@pytest.mark.req("F-24")
def test_one_device_folder_and_no_attacks(uci):
    folder = uci / "Ecobee_Thermostat"
    assert list_devices(str(folder)) == ("Ecobee_Thermostat",)
    data = load_device(str(folder), "Ecobee_Thermostat")
    assert data.test_attack.shape == (0, 2)
    assert data.attack_names.shape == (0,)


@pytest.mark.req("F-22")
def test_limit_rows_spreads_over_time_and_attacks(uci):
    data = load_device(str(uci), "Danmini_Doorbell", limit_rows=5)
    assert first(data.train) == [0, 6, 12, 18, 24]
    assert first(data.test_attack) == [1000, 1002, 1004, 2000, 2002]
    with pytest.raises(DataError, match="limit_rows is 0"):
        load_device(str(uci), "Danmini_Doorbell", limit_rows=0)


@pytest.mark.req("F-24")
def test_flat_layout_has_the_real_names(tmp_path):
    write_table(tmp_path / "1.benign.csv", 20)
    write_table(tmp_path / "1.mirai.ack.csv", 3, base=100)
    write_table(tmp_path / "1.gafgyt.combo.csv", 2, base=200)
    write_table(tmp_path / "7.benign.csv", 20)
    (tmp_path / "features.csv").write_text("name\n")
    assert list_devices(str(tmp_path)) == ("Danmini_Doorbell", "Samsung_SNH_1011_N_Webcam")
    data = load_device(str(tmp_path), "Danmini_Doorbell")
    assert data.attack_names.tolist() == ["gafgyt.combo"] * 2 + ["mirai.ack"] * 3
    assert first(data.test_attack) == [200, 201, 100, 101, 102]


@pytest.mark.req("F-24")
def test_flat_numbers_and_profiles_name_the_same_devices():
    assert set(FLAT_NUMBERS.values()) == set(PROFILES)


def test_flat_attacks_without_benign_rows_are_named(tmp_path):
    write_table(tmp_path / "3.mirai.ack.csv", 3)
    with pytest.raises(DataError, match=r"3\.benign\.csv is missing"):
        list_devices(str(tmp_path))


@pytest.mark.req("F-20")
def test_files_of_a_device_must_agree(uci):
    path = write_table(uci / "Danmini_Doorbell/mirai_attacks/udp.csv", 3, columns=("a", "z"))
    with pytest.raises(DataError, match=re.escape(f"{path}: column 'z' is not in benign_traffic")):
        load_device(str(uci), "Danmini_Doorbell")
    write_table(path, 3, columns=("a",))
    with pytest.raises(DataError, match=re.escape(f"{path}: column 'b' is missing in line 1")):
        load_device(str(uci), "Danmini_Doorbell")


def test_columns_of_attack_files_may_stand_in_another_order(uci):
    path = uci / "Danmini_Doorbell/mirai_attacks/syn.csv"
    path.write_text("b,a\n5,6\n")
    data = load_device(str(uci), "Danmini_Doorbell")
    assert data.test_attack[-1].tolist() == [6, 5]


@pytest.mark.req("F-20")
def test_unknown_devices_sources_and_layouts(uci, tmp_path_factory):
    with pytest.raises(DataError, match="unknown device 'Toaster'") as caught:
        load_device(str(uci), "Toaster")
    assert "Danmini_Doorbell, Ecobee_Thermostat" in caught.value.hint
    with pytest.raises(DataError, match="unknown device"):
        load_device("builtin", "Toaster")
    with pytest.raises(DataError, match="no such file or folder") as caught:
        list_devices(str(uci / "nowhere"))
    assert "builtin" in caught.value.hint
    with pytest.raises(DataError, match="no layout that can be read") as caught:
        list_devices(str(tmp_path_factory.mktemp("empty")))
    assert "benign_traffic.csv" in caught.value.hint


@pytest.mark.req("F-22")
def test_too_few_rows_are_refused(tmp_path):
    write_table(tmp_path / "d/benign_traffic.csv", 4)
    with pytest.raises(DataError, match="4 benign rows are too few"):
        load_device(str(tmp_path), "d")


@pytest.mark.req("F-21")
def test_plain_csv_with_device_and_label(tmp_path):
    path = tmp_path / "site.csv"
    lines = ["time,device,x,y,label"]
    for row in range(40):
        device = "pump" if row % 2 else "valve"
        label = {38: "drift", 39: "1", 37: "leak"}.get(row, "benign" if row % 3 else "0")
        lines.append(f"{row},{device},{row},{-row},{label}")
    path.write_text("\n".join(lines))
    assert list_devices(str(path)) == ("valve", "pump")
    pump = load_device(str(path), "pump")
    assert pump.feature_names == ("x", "y")
    benign = list(range(1, 37, 2))
    assert first(pump.train) + first(pump.validation) + first(pump.test_benign) == benign
    assert len(pump.train) == 10
    assert first(pump.test_attack) == [37, 39]
    assert pump.attack_names.tolist() == ["leak", "attack"]
    assert load_device(str(path), "valve").attack_names.tolist() == ["drift"]


@pytest.mark.req("F-21")
def test_columns_that_are_left_out_are_not_read(tmp_path):
    path = tmp_path / "site.csv"
    rows = [f"{row},note {row},{-row}" for row in range(40)]
    path.write_text("\n".join(["x,comment,y", *rows]))
    with pytest.raises(DataError, match="column 'comment': 'note 0' is not a number") as caught:
        load_device(str(path), "site")
    assert "--drop" in caught.value.hint
    assert load_device(str(path), "site", drop=("comm*",)).feature_names == ("x", "y")
    (series,) = load_all_series(str(path), ("comment",))
    assert series.channels == ("x", "y")
    with pytest.raises(DataError, match="no column matches 'z'"):
        load_device(str(path), "site", drop=("z",))


@pytest.mark.req("F-20", "F-21")
def test_an_empty_device_and_a_label_in_capitals_are_named(tmp_path):
    path = tmp_path / "site.csv"
    path.write_text("device,x\na,1\n\n,2\n")
    with pytest.raises(DataError, match="row 2, column 'device' is empty"):
        list_devices(str(path))
    path.write_text("x,Label\n" + "1,0\n" * 40)
    with pytest.raises(DataError, match="column 'Label' would count as a feature") as caught:
        load_device(str(path), "site")
    assert "'label'" in caught.value.hint


def test_plain_csv_without_device_or_label(tmp_path):
    path = write_table(tmp_path / "boiler.csv", 20)
    assert list_devices(str(path)) == ("boiler",)
    data = load_device(str(path), "boiler", limit_rows=3)
    assert first(data.train) == [0, 4, 8]
    assert len(data.test_attack) == 0


@pytest.mark.req("F-24")
@pytest.mark.skipif(not CSV_SAMPLE.is_dir(), reason="the real sample is not there")
def test_the_real_sample_loads():
    data = load_device(str(CSV_SAMPLE), "csv_sample")
    assert data.train.shape == (179, 115)
    assert len(data.validation) + len(data.test_benign) == 120
    names, counts = np.unique(data.attack_names, return_counts=True)
    assert names.tolist() == ["doorbell_udp", "scan", "thermostat_udp"]
    assert counts.tolist() == [299, 299, 299]
