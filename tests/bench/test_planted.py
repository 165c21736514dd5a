"""What benches on planted anomalies share: options, devices, and an error in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bench.planted import measure_planted
from bench.strangers import measure
from fl_core.data.dataset import DeviceData


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two devices of four columns in one file."""
    path = tmp_path_factory.mktemp("sites") / "sites.csv"
    rng = np.random.default_rng(0)
    lines = ["a,b,c,d,label,device"]
    for device in range(2):
        rows = rng.normal(device, 1.0, (100, 4)).tolist()
        lines += [",".join([*map(repr, row), "benign", f"site-{device}"]) for row in rows]
        lines.append(f"9,9,9,9,flood,site-{device}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.req("L-75")
def test_every_seed_measures_what_the_options_name(sites: str) -> None:
    def seen(devices: Sequence[DeviceData], seed: int) -> tuple[int, int, int]:
        assert all(set(each.attack_names) == {"foreign", "burst"} for each in devices)
        return seed, len(devices[0].feature_names), len(devices[0].train)

    whole = measure_planted("bench.x", seen, ["--data", sites, "--seeds", "2"])
    narrow = ["--data", sites, "--seeds", "1", "--drop", "b", "--every", "4"]
    (less,) = measure_planted("bench.x", seen, narrow)
    assert [seed for seed, *_ in whole] == [0, 1]
    assert whole[0][1] == 4
    assert less[1] == 3
    assert 0 < less[2] <= whole[0][2] / 4 + 1


@pytest.mark.parametrize(
    "arguments", [["--data", "no such"], ["--drop", "no such"], ["--seeds", "0"], ["--every", "0"]]
)
def test_what_cannot_be_measured_ends_in_a_line(
    sites: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        measure_planted("bench.x", lambda devices, seed: 0, ["--data", sites, *arguments])
    said = f"{stopped.value.code}{capsys.readouterr().err}"
    assert "no such" in said or "1 or more" in said
    assert stopped.value.code != 0


def test_an_error_of_the_measurement_ends_in_a_line_too(sites: str) -> None:
    with pytest.raises(SystemExit, match="too few") as stopped:
        measure_planted(
            "bench.x", lambda devices, seed: measure(devices, seed=seed), ["--data", sites]
        )
    assert "hint: " in str(stopped.value)
