"""Broken nodes: what is broken, who is measured, and whose weights are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import astray
from bench.astray import FAULTS, Harm, harm, main, table
from fl_core.data.sources import load_devices
from tests.support.federation import write_site


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites")
    for number in range(3):
        write_site(folder / f"site{number}.csv", seed=number)
    return folder


def devices_of(sites: Path) -> list[astray.DeviceData]:
    return [
        each for path in sorted(sites.iterdir()) for each in load_devices(str(path), [], seed=0)
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_as_many_rows_that_are_not_the_devices(sites: Path, name: str) -> None:
    device = devices_of(sites)[0]
    before = device.train.copy()
    broken = FAULTS[name](device.train, device, np.random.default_rng(0))
    assert broken.shape == device.train.shape
    assert np.isfinite(broken).all()
    own = {row.tobytes() for row in before}
    assert sum(row.tobytes() in own for row in broken) < len(broken) / 10
    assert np.array_equal(device.train, before)


def test_shuffled_columns_keep_their_values(sites: Path) -> None:
    device = devices_of(sites)[0]
    fault = FAULTS["columns in different orders"]
    broken = fault(device.train, device, np.random.default_rng(0))
    assert np.array_equal(np.sort(broken, axis=0), np.sort(device.train, axis=0))


def test_the_sound_are_measured_with_and_without_the_broken(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices, runs = devices_of(sites), []
    train = astray.train_federated

    def seen(rows: list[object], **options: object) -> object:
        runs.append((len(rows), options["config"].dynamic_weights))  # type: ignore[attr-defined]
        return train(rows, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(astray, "train_federated", seen)
    found = harm(devices, FAULTS["one row again and again"], 1, rounds=1, seed=0)
    assert sorted(runs) == [(2, True), (3, False), (3, True)]
    for span in (found.broken, found.sound):
        assert 0.0 < span[0] <= span[1] < 1.0  # not the ones of the run without weights
    assert found.broken[0] == found.broken[1]  # one device
    assert all(0.0 <= rate <= 1.0 for rate in (found.weighted, found.unweighted, found.without))


def test_the_table_shows_mean_range_and_weights() -> None:
    one = Harm(0.01, 0.02, 0.03, (0.4, 0.5), (0.5, 0.6))
    two = Harm(0.03, 0.02, 0.03, (0.3, 0.5), (0.5, 0.7))
    line = table({("stuck", 1): [one, two]}).splitlines()[-1]
    assert line == (
        "| stuck | 1 | 0.0200 (0.0100–0.0300) | 0.0200 (0.0200–0.0200) "
        "| 0.0300 (0.0300–0.0300) | 0.300–0.500 | 0.500–0.700 |"
    )


@pytest.mark.parametrize("broken", ["0", "9", "-1"])
def test_someone_must_be_sound_and_someone_broken(
    broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "1", f"--broken={broken}"])
    assert "] of 9 devices cannot be broken" in capsys.readouterr().err
