import io

import numpy as np
import pytest

from fl_core.data.export import PROGRESS_PACKETS, atomic_text, write_features
from fl_core.data.extractor import FEATURE_NAMES, Extractor, extract
from fl_core.data.packets import Packet
from fl_core.data.table import open_table
from fl_core.errors import DataError

PACKETS = [
    Packet(1.7e9 + 0.37 * k, 60 + k % 9, f"m{k % 2}", f"10.0.0.{k % 2}", f"10.0.0.{(k + 1) % 2}")
    for k in range(40)
]


@pytest.mark.req("F-14")
def test_what_is_written_is_what_was_computed(tmp_path):
    with atomic_text(tmp_path / "f.csv") as out:
        assert write_features(PACKETS, out, extractor=Extractor()) == 40
    rows = open_table(tmp_path / "f.csv").read(FEATURE_NAMES, side=["time"])
    np.testing.assert_allclose(rows.values, extract(PACKETS), rtol=1e-9)
    np.testing.assert_allclose(
        [float(t) for t in rows.side["time"]], [p.time for p in PACKETS], rtol=0, atol=1e-6
    )


def test_a_device_filter_leaves_the_statistics_alone():
    for address in ("m1", "10.0.0.1"):
        out = io.StringIO()
        extractor = Extractor()
        assert write_features(PACKETS, out, extractor=extractor, sources=[address]) == 20
        assert extractor.counts.packets == 40
        second = out.getvalue().splitlines()[1].split(",")
        np.testing.assert_allclose([float(x) for x in second[1:]], extract(PACKETS)[1], rtol=1e-9)


def test_progress_is_told():
    told = []
    packets = [PACKETS[0]] * (2 * PROGRESS_PACKETS + 5)
    write_features(packets, io.StringIO(), extractor=Extractor(), on_progress=told.append)
    assert told == [PROGRESS_PACKETS, 2 * PROGRESS_PACKETS]


@pytest.mark.req("F-14")
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("old")

    def write_and_fail():
        with atomic_text(path) as out:
            out.write("new")
            assert path.read_text() == "old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.csv"]


def test_places_that_cannot_be_written(tmp_path):
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no/f.csv", "cannot be written")):
        with pytest.raises(DataError, match=message), atomic_text(path):
            pass
