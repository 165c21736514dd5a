import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_core.data.extractor import FEATURE_NAMES, IDLE_LIMIT_S, Extractor, extract
from fl_core.data.packets import Packet
from fl_core.errors import DataError
from tests.data.slow_extractor import slow_row

SAMPLE = Path(__file__).parents[2] / "../shared/data/nbaiot/csv_sample"
PCC = np.array([name.endswith("_pcc") for name in FEATURE_NAMES])
GAPS = (0.0, 1e-6, 0.001, 0.05, 0.7, 3.0, 60.0, 900.0, 2000.0, 2500.0, -0.5, -30.0)


def packet(time, size=100, src="a", dst="b", sport=1, dport=2, protocol="tcp", mac=None):
    return Packet(time, size, mac or f"m{src}", src, dst, sport, dport, protocol)


def column(row, name):
    return row[FEATURE_NAMES.index(name)]


@st.composite
def captures(draw):
    time = latest = 1.7e9
    packets = []
    for _ in range(draw(st.integers(1, 25))):
        time = max(time + draw(st.sampled_from(GAPS)), latest - 100.0)
        latest = max(latest, time)
        packets.append(
            packet(
                time,
                draw(st.sampled_from((60, 60, 61, 590, 1514))),
                draw(st.sampled_from("aab")),
                draw(st.sampled_from("abc")),
                draw(st.sampled_from((1, 2))),
                draw(st.sampled_from((1, 2))),
                draw(st.sampled_from(("tcp", "udp"))),
                draw(st.sampled_from(("m1", "m1", "m2"))),
            )
        )
    return packets


@pytest.mark.req("F-01")
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not there")
@pytest.mark.parametrize("name", ["benign_traffic", "scan", "doorbell_udp", "thermostat_udp"])
def test_column_names_are_those_of_the_real_files(name):
    header = (SAMPLE / f"{name}.csv").read_text().splitlines()[0]
    assert tuple(header.split(",")) == FEATURE_NAMES


@pytest.mark.req("F-01")
def test_column_names_without_the_real_files():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 115
    assert FEATURE_NAMES[0] == "MI_dir_L5_weight"
    assert FEATURE_NAMES[30:37] == tuple(
        f"HH_L5_{s}" for s in ("weight", "mean", "std", "magnitude", "radius", "covariance", "pcc")
    )
    assert FEATURE_NAMES[-1] == "HpHp_L0.01_pcc"


@pytest.mark.req("F-02")
@pytest.mark.req("F-04")
@pytest.mark.req("F-05")
@pytest.mark.req("F-06")
@pytest.mark.req("F-07")
@pytest.mark.req("F-08")
@pytest.mark.req("F-10")
@settings(max_examples=120, deadline=None)
@given(captures())
def test_every_statistic_equals_the_explicit_sums(packets):
    extractor = Extractor()
    for end in range(1, len(packets) + 1):
        row = np.array(extractor.update(packets[end - 1]))
        slow = np.array(slow_row(packets[:end]))
        assert np.isfinite(row).all()
        np.testing.assert_allclose(row[~PCC], slow[~PCC], rtol=1e-8, atol=1e-5)
        # a quotient of two roundings is only comparable where the deviations are more than that
        covariance = slow[np.flatnonzero(PCC) - 1]
        plain = np.abs(covariance) > 1e-3 * np.abs(slow[PCC])
        np.testing.assert_allclose(row[PCC][plain], slow[PCC][plain], rtol=1e-4, atol=1e-4)


@pytest.mark.req("F-05")
def test_weight_halves_in_one_over_lambda_seconds():
    extractor = Extractor()
    extractor.update(packet(0.0, 100))
    row = extractor.update(packet(1.0, 200))
    assert column(row, "H_L1_weight") == 1.5
    assert column(row, "H_L1_mean") == pytest.approx((0.5 * 100 + 200) / 1.5)
    assert column(row, "H_L5_weight") == 1 + 2**-5


@pytest.mark.req("F-06")
def test_magnitude_and_radius_join_both_directions():
    rows = extract(
        [
            packet(0.0, 100),
            packet(0.0, 300),
            packet(0.1, 30, "b", "a", 2, 1),
            packet(0.1, 50, "b", "a", 2, 1),
        ]
    )
    last = rows[-1]  # variances 100² and 10², means 200 and 40, all packets of a side at one time
    for stream in ("HH", "HpHp"):
        assert column(last, f"{stream}_L5_magnitude") == pytest.approx((200**2 + 40**2) ** 0.5)
        assert column(last, f"{stream}_L5_radius") == pytest.approx((1e8 + 1e4) ** 0.5)
    assert column(rows[1], "HH_L5_magnitude") == column(rows[1], "HH_L5_mean")  # no answer yet


@pytest.mark.req("F-07")
def test_covariance_by_hand():
    rows = extract(
        [
            packet(0.0, 100),
            packet(0.0, 300),  # mean 200, residual 100
            packet(0.0, 30, "b", "a", 2, 1),  # residual 0
            packet(0.0, 50, "b", "a", 2, 1),  # mean 40, residual 10: product 1000, four packets
        ]
    )
    assert column(rows[-1], "HH_L1_covariance") == pytest.approx(250.0)
    assert column(rows[-1], "HH_L1_pcc") == pytest.approx(250.0 / (100 * 10))


@pytest.mark.req("F-08")
def test_first_interval_is_zero_and_never_the_time_of_day():
    extractor = Extractor()
    first = extractor.update(packet(1.7e9))
    assert column(first, "HH_jit_L1_mean") == 0.0
    assert column(first, "HH_jit_L1_weight") == 1.0
    second = extractor.update(packet(1.7e9 + 1.0))
    assert column(second, "HH_jit_L1_mean") == pytest.approx(1.0 / 1.5)
    other_direction = extractor.update(packet(1.7e9 + 2.0, src="b", dst="a", sport=2, dport=1))
    assert column(other_direction, "HH_jit_L1_mean") == 0.0


@pytest.mark.req("F-02")
def test_streams_are_told_apart_by_their_keys():
    extractor = Extractor()
    extractor.update(packet(0.0))
    other_mac = extractor.update(packet(0.0, mac="other"))
    assert column(other_mac, "MI_dir_L5_weight") == 1.0
    assert column(other_mac, "H_L5_weight") == 2.0
    other_port = extractor.update(packet(0.0, sport=9))
    assert column(other_port, "HpHp_L5_weight") == 1.0
    assert column(other_port, "HH_L5_weight") == 3.0
    other_target = extractor.update(packet(0.0, dst="z"))
    assert column(other_target, "HH_L5_weight") == 1.0
    assert column(other_target, "H_L5_weight") == 4.0


@pytest.mark.req("F-02")
def test_a_packet_to_itself_has_no_other_side():
    rows = extract([packet(0.0, s, "a", "a", 7, 7) for s in (60, 900, 60)])
    assert column(rows[-1], "HH_L1_weight") == 3.0
    assert column(rows[-1], "HH_L1_magnitude") == column(rows[-1], "HH_L1_mean")
    assert column(rows[-1], "HpHp_L1_covariance") == 0.0


@pytest.mark.req("F-05")
def test_a_stream_of_equal_sizes_has_no_spread_at_all():
    rows = extract([packet(1.7e9 + 0.37 * k, 1413) for k in range(300)])
    for name in ("MI_dir_L0.1_variance", "HH_L1_std", "HpHp_L0.01_radius"):
        assert not rows[:, FEATURE_NAMES.index(name)].any()


@pytest.mark.req("F-04")
def test_late_packets_are_counted_and_do_not_turn_time_back():
    extractor = Extractor()
    extractor.update(packet(10.0))
    late = extractor.update(packet(9.0))
    assert column(late, "H_L1_weight") == 2.0  # no decay, and no growth
    after = extractor.update(packet(11.0))
    assert column(after, "H_L1_weight") == 2.0 * 0.5 + 1.0
    assert extractor.counts.out_of_order == 1


@pytest.mark.req("F-10")
def test_one_wild_timestamp_does_not_freeze_a_stream():
    extractor = Extractor()
    extractor.update(packet(0.0))
    extractor.update(packet(1e12))
    extractor.update(packet(1.0))
    row = extractor.update(packet(2.0))
    assert column(row, "H_L1_weight") == 1.5


@pytest.mark.req("F-10")
def test_silence_beyond_the_limit_begins_a_new_stream():
    extractor = Extractor()
    extractor.update(packet(0.0))
    assert column(extractor.update(packet(IDLE_LIMIT_S)), "HH_jit_L0.01_mean") > 0.0
    row = extractor.update(packet(2 * IDLE_LIMIT_S + 1.0))
    assert column(row, "H_L0.01_weight") == 1.0
    assert column(row, "HH_jit_L0.01_mean") == 0.0


def stranger(index, time):
    return packet(time, 60, "bot", f"victim{index}", index % 60000, 23)


@pytest.mark.req("F-11")
def test_memory_is_bounded_while_channels_never_stop_being_new():
    extractor = Extractor()
    sizes = []
    tracemalloc.start()
    try:
        for index in range(9000):
            extractor.update(stranger(index, 2.0 * index))
            if index in (2500, 8999):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    counts = extractor.counts
    assert counts.peak_channels <= 2 * 1052 + 2  # 1051 live targets, of two kinds; one sender
    assert counts.dropped == 0
    assert counts.expired > 15_000
    assert sizes[1] < 1.2 * sizes[0]


@pytest.mark.req("F-11")
def test_the_cap_drops_the_longest_silent_and_counts_it():
    extractor = Extractor(max_channels=50)
    for index in range(500):
        extractor.update(packet(0.0, src="steady", dst="peer"))
        extractor.update(stranger(index, 0.0))
    counts = extractor.counts
    assert counts.live_channels <= 2 * 50 + 4
    assert counts.dropped == 2 * (500 + 1 - 50)
    row = extractor.update(packet(0.0, src="steady", dst="peer"))
    assert column(row, "HpHp_L1_weight") == 501.0  # what is in use stays


@pytest.mark.req("F-09")
@settings(max_examples=30, deadline=None)
@given(captures())
def test_other_streams_do_not_matter(packets):
    alone = extract(packets)
    extractor = Extractor()
    mixed = []
    for index, one in enumerate(packets):
        extractor.update(packet(one.time, 77, f"x{index}", f"y{index}"))
        mixed.append(extractor.update(one))
    np.testing.assert_array_equal(alone, np.array(mixed))


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="packet 1 has time nan"):
        Extractor().update(packet(float("nan")))


def test_no_room_for_channels_is_refused():
    with pytest.raises(DataError, match="max channels is 0"):
        Extractor(max_channels=0)


def test_no_packets_give_no_rows():
    assert extract([]).shape == (0, 115)
