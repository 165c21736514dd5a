import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fl_core.data.attacks import ATTACKS, INTENSITIES, attack_packets
from fl_core.data.builtin import ATTACK_ROWS, attack_capture, build_device
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.data.profiles import PROFILES, benign_packets
from fl_core.data.sources import list_devices, load_device
from fl_core.data.traffic import busy

DEVICES = list_devices("builtin")
QUIET = "SimpleHome_XCS7_1003_WHT_Security_Camera"


@pytest.fixture(scope="module")
def sets():
    return {name: load_device("builtin", name) for name in DEVICES}


@pytest.mark.req("F-32")
def test_nine_unbalanced_devices_with_ten_attacks(sets):
    assert len(DEVICES) == 9
    sizes = [len(data.train) for data in sets.values()]
    assert min(sizes) >= 800
    assert max(sizes) > 3 * min(sizes)
    for name, data in sets.items():
        assert data.device == name
        assert data.feature_names == FEATURE_NAMES
        assert len(data.validation) >= 250
        assert len(data.test_benign) >= 250
        names, counts = np.unique(data.attack_names, return_counts=True)
        assert tuple(names) == tuple(sorted(ATTACKS))
        assert counts.min() >= 150
        assert counts.max() <= sum(ATTACK_ROWS.values())
        for part in (data.train, data.validation, data.test_benign, data.test_attack):
            assert np.isfinite(part).all()


@pytest.mark.req("F-30")
def test_the_seed_fixes_every_bit(sets):
    again = build_device(QUIET, seed=0)
    for part in ("train", "validation", "test_benign", "test_attack", "attack_names"):
        np.testing.assert_array_equal(getattr(again, part), getattr(sets[QUIET], part))
    other = build_device(QUIET, seed=1)
    assert other.train.shape != again.train.shape or not np.array_equal(other.train, again.train)


def test_limit_rows_takes_them_evenly(sets):
    few = build_device(QUIET, limit_rows=30)
    whole = sets[QUIET]
    assert [len(few.train), len(few.validation), len(few.test_attack)] == [30, 30, 30]
    np.testing.assert_array_equal(few.train[0], whole.train[0])
    assert len(set(few.attack_names)) == 10


@pytest.mark.req("F-31")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_rows_are_packets_that_the_infected_device_sends(name):
    profile = PROFILES[QUIET]
    packets, phase = attack_capture(profile, name, np.random.default_rng(5))
    times = [packet.time for packet in packets]
    assert times == sorted(times)
    first = {}
    for packet, at in zip(packets, phase, strict=True):
        if at >= 0:
            assert packet.src_ip == profile.endpoint.ip
            first.setdefault(int(at), packet.time)
    assert list(first) == list(range(len(INTENSITIES)))
    during = [p for p, at in zip(packets, phase, strict=True) if at < 0 and p.time > first[0]]
    clouds = {p.dst_ip for p in during if p.src_ip == profile.endpoint.ip}
    assert any(ip.startswith("203.0.") for ip in clouds), "no benign traffic during the attack"


@pytest.mark.parametrize("intensity", INTENSITIES, ids=lambda i: i.name)
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_keep_to_their_rate(name, intensity):
    device = PROFILES[QUIET].endpoint
    rng = np.random.default_rng(1)
    packets = attack_packets(name, rng, device, start=100.0, intensity=intensity)
    sent = sum(p.src_ip == device.ip for p in packets)
    expected = intensity.rate * intensity.seconds
    assert 0.4 * expected < sent < 5 * expected  # a combo shot is three frames
    assert all(60 <= p.size <= 1514 for p in packets)


def test_benign_packets_are_in_order_within_their_span_and_of_the_device():
    for profile in PROFILES.values():
        packets = benign_packets(profile, np.random.default_rng(2), (1000.0, 2800.0))
        times = [p.time for p in packets]
        assert times == sorted(times)
        assert 1000.0 <= times[0] <= times[-1] < 2800.0
        own = profile.endpoint.ip
        assert all(own in (p.src_ip, p.dst_ip) for p in packets)
        assert {"arp", "udp", "tcp"} <= {p.protocol for p in packets}


def test_people_sleep():
    assert busy(19 * 3600.0) == pytest.approx(1.0)
    assert busy(7 * 3600.0) == pytest.approx(0.4)


def test_the_task_is_neither_trivial_nor_hopeless(sets):
    """Nearest neighbours on all columns, all devices: a floor and a ceiling for the error.

    At a true-positive rate of 0.99, a tenth or so of benign rows is taken for attacks; were it
    zero, every method would look the same.
    """
    rates = []
    for data in sets.values():
        train, benign, attack = (
            np.sign(part) * np.log1p(np.abs(part))
            for part in (data.train, data.test_benign[::3], data.test_attack[::3])
        )
        mean, std = train.mean(axis=0), train.std(axis=0) + 0.01
        search = NearestNeighbors(n_neighbors=5).fit((train - mean) / std)
        scores = [
            search.kneighbors((part - mean) / std)[0].mean(axis=1) for part in (benign, attack)
        ]
        rates.append(float((scores[0] >= np.quantile(scores[1], 0.01)).mean()))
    assert 0.01 < np.mean(rates) < 0.25
    assert max(rates) < 0.5
