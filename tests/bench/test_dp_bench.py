"""The measurements of privacy run on made-up rows, and stacked training is the product's."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import dp, dp_round, dp_utility
from bench.common import BenchError
from bench.dp_sites import Device, SiteTrainer, deal, load
from bench.dp_tables import Result, draw_figure, table
from bench.dp_utility import ClientSetting, train_clients
from fl_core.config import ModelConfig, TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.parameters import initial_parameters
from fl_core.training import train_local

SITES = 20
MODEL = ModelConfig(input_dim=len(FEATURE_NAMES), hidden=(8,), embedding_dim=8)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write rows of two devices, and attacks, as the real file has them."""
    rng = np.random.default_rng(0)
    counts = {(0, 0): 240, (0, 1): 130, (1, 0): 60, (1, 1): 50, (2, -1): 80}  # part, device
    part = np.concatenate([np.full(count, key[0]) for key, count in counts.items()])
    device = np.concatenate([np.full(count, key[1]) for key, count in counts.items()])
    centre = rng.normal(4, 2, (3, len(FEATURE_NAMES)))[device]
    logs = centre + rng.normal(0, 0.3, centre.shape)
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    twice = np.zeros(len(part), bool)
    twice[-5:] = True
    np.savez(
        path,
        X=np.expm1(np.abs(logs)),
        part=part,
        device=device,
        dup_in_train=np.zeros(len(part), bool),
        dup_within_part=twice,
        feature_names=np.array(FEATURE_NAMES),
        device_names=np.array(["first", "second"]),
    )
    return path


@pytest.fixture(scope="module")
def devices(rows: Path) -> tuple[Device, ...]:
    return load(rows, jitter=True)


def test_rows_are_read_without_duplicates_and_columns_dropped(rows: Path) -> None:
    first, second = load(rows, jitter=False)
    assert [len(each.benign) for each in (first, second)] == [240, 130]
    assert len(first.test_attack) == 75
    assert len(first.feature_names) == first.benign.shape[1] == 100
    with pytest.raises(BenchError, match="there is no"):
        load(rows / "nothing", jitter=True)


def test_every_row_is_dealt_once(devices: tuple[Device, ...]) -> None:
    dealt = deal(devices, sites=SITES, seed=3)
    assert len(dealt.sites) == SITES
    for number, device in enumerate(devices):
        own = [site for site in dealt.sites if site.device == number]
        seen = np.concatenate(
            [dealt.validation[number], *(part for site in own for part in (site.train, site.held))]
        )
        assert sorted(seen[:, 0]) == sorted(device.benign[:, 0])
        trained = np.concatenate([np.concatenate((site.train, site.held)) for site in own])
        assert np.array_equal(dealt.train[number], trained)
    with pytest.raises(BenchError, match="too few rows"):
        deal(devices, sites=30, seed=3)


@pytest.mark.parametrize("synthetic", [False, True])
def test_stacked_sites_train_as_the_product_does(
    devices: tuple[Device, ...], synthetic: bool
) -> None:
    config = TrainConfig(
        steps=4, batch_size=12, learning_rate=3e-3, synthetic_negatives=synthetic, drop_rate=0.05
    )
    dealt = deal(devices, sites=SITES, seed=0)
    theta = initial_parameters(MODEL, 0)
    reference = np.linspace(-0.5, 0.5, MODEL.embedding_dim, dtype=np.float32)
    found = SiteTrainer(dealt.sites, MODEL, config).run(theta, reference, range(SITES))
    for index in (0, 7, SITES - 1):
        site = dealt.sites[index]
        alone = train_local(
            theta, reference, site.train, site.held, model=MODEL, config=config, seed=index
        )
        moved = np.linalg.norm(alone.delta)
        assert np.linalg.norm(found.deltas[index] - alone.delta) < 1e-4 * moved
        assert found.centroids[index] == pytest.approx(alone.centroid, abs=1e-5)
        assert found.weights[index] == pytest.approx(alone.weight, abs=1e-6)


def test_the_noise_in_the_model_is_what_is_charged(
    devices: tuple[Device, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt = deal(devices, sites=SITES, seed=0)
    setting = ClientSetting(sites=SITES, rounds=1)

    def train(epsilon: float) -> dp_utility.Trained:
        return train_clients(dealt, MODEL, setting, epsilon=epsilon, seed=0)

    quiet = train(math.inf)
    assert (quiet.multiplier, quiet.noise_std, quiet.lost) == (0, 0, 0)
    # little noise, or twenty sites' weights would drown; one round of z is a Gaussian of 1/z
    loud = train(30.0)
    assert loud.lost == 0
    assert 0.1 < loud.multiplier < 0.3
    difference = (loud.params - quiet.params).astype(float)
    assert difference.std() == pytest.approx(loud.noise_std, rel=0.1)  # some 6 deviations
    monkeypatch.setattr(dp_utility, "SURE", 1e6)
    drowned = train(30.0)
    assert drowned.lost == 1
    assert np.array_equal(drowned.params, initial_parameters(MODEL, 0))


def test_the_utility_experiment_runs_on_both_levels(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"--data {rows} --sites {SITES} --seeds 0 --epsilons 8 --rounds 1"
    arguments += f" --plots {tmp_path} --out {tmp_path}"
    dp_utility.main(arguments.split())
    printed = capsys.readouterr().out
    assert "Unit of privacy: a site" in printed
    assert "Unit of privacy: a row" in printed
    assert printed.count("δ = 1e-05") == 2
    assert printed.count("| trained |") == 2
    names = ("dp_client.svg", "dp_record.svg", "dp_utility_client.json", "dp_utility_record.json")
    assert all((tmp_path / name).stat().st_size < 100_000 for name in names)


def test_a_table_has_mean_and_spread_and_a_figure_equal_bytes(tmp_path: Path) -> None:
    results = [
        Result("client", method, epsilon, jitter, seed, (0.01 * (seed + 1), 0.01 * (seed + 1)))
        for method, epsilon in (("random encoder", None), ("trained", 1.0), ("trained", math.inf))
        for jitter in (True, False)
        for seed in (0, 1, 2)
    ]
    assert "| ∞ | – | trained | 2.00 (1.00–3.00) | 2.00 (1.00–3.00) |" in table(results, 1e-5)
    draw_figure(results, 1e-5, tmp_path / "one.svg")
    draw_figure(results, 1e-5, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("kind", dp_round.KINDS, ids=lambda kind: kind.name)
def test_a_round_of_every_kind_is_measured(kind: dp_round.Kind) -> None:
    cost = dp_round.measure(kind, nodes=10, dim=1000, repetitions=1)
    assert cost.node_input_s > 0
    assert cost.server_output_s > 0
    assert cost.upload > 1000
    assert f"| {kind.name} |" in dp_round.report([cost])


def test_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.dp", "nonsense"])
    with pytest.raises(SystemExit, match=r"sampler\|round\|utility"):
        dp.main()


def test_rounds_over_sockets_are_timed_from_their_offer_and_the_first_is_left_out() -> None:
    def record(event: str, at: float) -> dict[str, object]:
        return {"event": event, "at": at}

    records = [
        record("round.started", 1.0),
        record("round.lost", 9.0),
        record("round.started", 11.5),
        record("phase.changed", 11.7),
        record("round.done", 12.0),
        record("round.started", 12.1),
        record("round.done", 12.9),
    ]
    assert list(dp_round.round_times(records)) == pytest.approx([0.5, 0.8])
    assert list(dp_round.round_times(records[4:])) == []  # it may have begun with the run
