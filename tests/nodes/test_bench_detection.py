"""`secagg bench detection`, and training through the whole protocol in one process."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fl_core import contest
from fl_core.contender_encoders import Recipe, head_score
from fl_core.data.sources import load_device
from fl_core.errors import DataError, ModelError
from fl_core.federated import train_federated
from fl_core.parameters import initial_parameters
from nodes.cli import secagg
from nodes.commands.bench_methods import chosen_methods
from nodes.rehearsal import simulate_training
from secagg.errors import ConfigError
from tests.support.federation import N_FEATURES, write_site
from tests.support.training import small_settings

MODEL, TRAIN = small_settings(N_FEATURES)


N_SITES = 3


def write_sites(folder: Path, count: int) -> Path:
    lines: list[str] = []
    for index in range(count):
        write_site(folder / f"{index}.csv", seed=index)
        header, *rows = (folder / f"{index}.csv").read_text().splitlines()
        if not lines:
            lines.append(f"device,{header}")
        lines += [f"site-{index},{row}" for row in rows]
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return folder / "all.csv"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sites(tmp_path_factory.mktemp("sites"), N_SITES)


def run(*arguments: str):
    return CliRunner().invoke(secagg, ["bench", "detection", *arguments])


@pytest.mark.req("L-74")
def test_masked_training_gives_the_parameters_of_training_in_the_clear(sites: Path) -> None:
    devices = [load_device(str(sites), f"site-{index}") for index in range(N_SITES)]
    rows = [(each.train, each.validation) for each in devices]
    masked, sent = simulate_training(rows, MODEL, TRAIN, rounds=2, scheme="masking", seed=0)
    clear = train_federated(rows, model=MODEL, config=TRAIN, rounds=2, seed=0)
    moved = np.abs(clear - train_federated(rows, model=MODEL, config=TRAIN, rounds=0, seed=0))
    # Other batches (seeds go by node name), the same training: they end near each other.
    assert np.abs(masked - clear).mean() < moved.mean()
    assert sent > 2 * len(masked)


@pytest.mark.req("E-03")
def test_the_bound_of_an_update_is_that_of_the_recipe(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [load_device(str(sites), f"site-{index}") for index in range(N_SITES)]
    rows = [(each.train, each.validation) for each in devices]
    bounds = []

    def seen(*args: object, **options: object) -> object:
        bounds.append(options["update_bound"])
        return simulate_training(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("nodes.rehearsal.simulate_training", seen)
    recipe = Recipe(config=TRAIN, update_bound=1e-3)
    (masked,) = chosen_methods(
        recipe, 1, ["*masking"], devices[0].feature_names, devices=N_SITES, ablations=False
    )
    score = masked.fit(rows, 0).known(0)
    start = head_score(
        initial_parameters(recipe.model(N_FEATURES), 0), recipe.model(N_FEATURES), rows[0][0]
    )
    assert bounds == [1e-3]
    assert np.allclose(score(rows[0][1]), start(rows[0][1]), rtol=1e-2)  # it hardly moved


def test_the_command_prints_a_table_or_json(sites: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    common = ("--data", str(sites), "--seeds", "1", "--rounds", "1", "--only", "PCA, alone")
    found = run(*common, "--out", str(out))
    assert found.exit_code == 0, found.output
    assert "| PCA, alone |" in found.output
    assert "| PCA, alone |" in out.read_text()
    facts = json.loads(run(*common, "--json", "--no-left-out").stdout)
    (result,) = facts["results"]
    assert set(result["devices"]) == {f"site-{index}" for index in range(N_SITES)}
    assert result["left_out"] == {}


def test_of_one_device_nothing_is_left_out(tmp_path: Path) -> None:
    data = str(write_sites(tmp_path, 1))
    common = ("--data", data, "--seeds", "1", "--rounds", "1", "--only", "PCA*")
    found = run(*common)
    assert found.exit_code == 0, found.output
    assert "– | – | – | – |" in found.stdout
    assert found.stderr.count("no figures with a device left out") == 1
    facts = json.loads(run(*common, "--json").stdout)
    assert [result["left_out"] for result in facts["results"]] == [{}, {}]


def test_training_by_the_protocol_is_left_out_where_devices_are_too_few(tmp_path: Path) -> None:
    common = ("--data", str(write_sites(tmp_path, 2)), "--seeds", "1", "--rounds", "1")
    found = run(*common, "--only", "PCA, alone", "--only", "*masking")
    assert found.exit_code == 0, found.output
    assert "left out: ours, under masking: the protocol takes 3 devices or more" in found.stderr
    assert "| PCA, alone |" in found.stdout
    alone = run(*common, "--only", "*masking")
    assert isinstance(alone.exception, ConfigError)
    assert "there are 2" in str(alone.exception)
    assert "more devices" in alone.exception.hint
    assert not alone.stdout
    assert "left out" not in run(*common, "--only", "PCA, alone").stderr


def test_training_by_the_protocol_has_no_figures_without_one_of_three(sites: Path) -> None:
    common = ("--data", str(sites), "--seeds", "1", "--rounds", "1", "--json")
    found = run(*common, "--only", "*masking", "--only", "PCA, alone")
    assert found.exit_code == 0, found.output
    assert "no figures of ours, under masking with a device left out" in found.stderr
    alone, masked = json.loads(found.stdout)["results"]
    assert set(masked["devices"]) == set(alone["left_out"]) == {"site-0", "site-1", "site-2"}
    assert masked["left_out"] == masked["unknown"] == {}


def test_a_folder_is_no_file_for_the_table(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "compare", lambda *args, **options: pytest.fail("it has begun"))
    found = run("--data", str(sites), "--only", "PCA, alone", "--out", str(tmp_path))
    assert isinstance(found.exception, IsADirectoryError)
    assert found.exception.filename == str(tmp_path)


@pytest.mark.parametrize("lost", ["file", "stdout"])
def test_a_table_that_cannot_be_written_to_one_place_is_in_the_other(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    whole, out = contest.compare, tmp_path / "table.md"

    def then_it_breaks(*args, **options):
        yield from whole(*args, **options)
        if lost == "file":
            out.unlink()
            out.mkdir()
        else:
            monkeypatch.setattr("click.echo", broken)

    def broken(*args, **options):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(contest, "compare", then_it_breaks)
    common = ("--data", str(sites), "--seeds", "1", "--no-left-out", "--only", "PCA, alone")
    found = run(*common, "--out", str(out))
    assert isinstance(found.exception, OSError)
    assert "| PCA, alone |" in (found.stdout if lost == "file" else out.read_text())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three servers in the layout of ASD, each with one anomaly that no chance explains."""
    folder = tmp_path_factory.mktemp("servers")
    for index in range(3):
        rng = np.random.default_rng(index)
        train, test = rng.normal(size=(300, 2)), rng.normal(size=(120, 2))
        test[60:80] += 8.0
        label = np.zeros(120, dtype=np.int8)
        label[60:80] = 1
        np.savez(folder / f"omi-{index + 1}.npz", train=train, test=test, test_label=label)
    return folder


@pytest.mark.req("L-76")
def test_series_are_measured_as_series(servers: Path) -> None:
    common = ("--data", str(servers), "--seeds", "1", "--rounds", "1", "--window", "4")
    found = run(*common, "--only", "PCA, alone", "--only", "random scores", "--only", "ours")
    assert found.exit_code == 0, found.output
    assert "windows of 4 steps" in found.output
    assert "VUS-PR" in found.output
    facts = json.loads(run(*common, "--only", "PCA, alone", "--json").stdout)
    (result,) = facts["results"]
    assert set(result["series"]) == {"omi-1", "omi-2", "omi-3"}
    assert all(each["auc_pr"] > 0.9 for each in result["series"].values())


@pytest.mark.req("L-76")
def test_a_folder_of_experiments_is_one_device(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = "datetime;Pressure;Flow;anomaly;changepoint"
    for name in ("valve1/0", "valve1/1", "other/1"):
        lines = [
            f"2020-03-09 10:14:33;{flow};{rng.normal()};{float(450 <= row < 480)};0.0"
            for row, flow in enumerate(rng.normal(size=500))
        ]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
    common = ("--data", str(tmp_path), "--seeds", "1", "--only", "PCA, alone")
    found = run(*common, "--groups")
    assert found.exit_code == 0, found.output
    assert "a folder a device" in found.output
    grouped, apart = (
        json.loads(run(*common, *options, "--json").stdout) for options in (("--groups",), ())
    )
    assert grouped["settings"]["groups"]
    assert not apart["settings"]["groups"]
    quality = [facts["results"][0]["series"] for facts in (grouped, apart)]
    assert set(quality[0]) == {"valve1-0", "valve1-1", "other-1"}
    assert quality[0]["other-1"] == quality[1]["other-1"]  # alone in its folder
    assert quality[0]["valve1-0"] != quality[1]["valve1-0"]
    few = run(*common, "--only", "*masking", "--groups")
    assert "there are 2" in few.stderr  # groups, of three series


def test_groups_need_folders_of_experiments(servers: Path) -> None:
    found = run("--data", str(servers), "--groups")
    assert isinstance(found.exception, ConfigError)
    assert "has no folders of experiments" in str(found.exception)


@pytest.mark.parametrize("option", [("--planted",), ("--every", "2")])
def test_what_is_for_rows_alone_is_refused_for_series(servers: Path, option) -> None:
    found = run("--data", str(servers), *option)
    assert isinstance(found.exception, ConfigError)
    assert "leave them out" in str(found.exception.hint)


@pytest.mark.req("L-76")
def test_channels_of_series_can_be_left_out(servers: Path) -> None:
    common = ("--data", str(servers), "--seeds", "1", "--window", "4", "--only", "PCA, alone")
    whole, less = (
        json.loads(run(*common, *options, "--json").stdout)["results"][0]["series"]
        for options in ((), ("--drop", "metric1"))
    )
    assert set(whole) == set(less)
    assert whole != less
    assert isinstance(run(*common, "--drop", "no such").exception, DataError)


def test_rows_without_order_have_no_windows() -> None:
    found = run("--window", "4", "--only", "PCA, alone")
    assert isinstance(found.exception, DataError)


def test_planted_anomalies_are_measured_kind_by_kind(sites: Path) -> None:
    common = ("--data", str(sites), "--seeds", "1", "--no-left-out", "--planted")
    found = run(*common, "--only", "PCA, alone")
    assert "| AUC, burst | AUC, foreign |" in found.output


def end_after_one(monkeypatch: pytest.MonkeyPatch, end: Callable[[], object]) -> None:
    """Let the first result of a table be the last."""
    whole = contest.compare

    def ended(*args, **options):
        yield next(whole(*args, **options))
        end()
        pytest.fail("it goes on")

    monkeypatch.setattr(contest, "compare", ended)


@pytest.mark.parametrize(
    "fault",
    [
        KeyboardInterrupt(),
        DataError("too few rows"),
        ModelError("not finite"),
        ConfigError("min_nodes is 2"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_what_ends_it_does_not_take_the_figures_that_are_done_with_it(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def end() -> None:
        raise fault

    end_after_one(monkeypatch, end)
    out = tmp_path / "table.md"
    common = ("--data", str(sites), "--seeds", "2", "--no-left-out", "--only", "PCA, alone")
    found = run(*common, "--out", str(out))
    if isinstance(fault, KeyboardInterrupt):
        assert found.exit_code == 130
    else:
        assert found.exception is fault
    assert "1 of 2 results" in found.stderr
    assert "| PCA, alone |" in found.stdout
    assert "| PCA, alone |" in out.read_text()


def test_sigterm_is_an_interrupt_while_it_runs(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_after_one(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    common = ("--data", str(sites), "--seeds", "2", "--no-left-out", "--only", "PCA, alone")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        found = run(*common)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found.exit_code == 130
    assert "1 of 2 results" in found.stderr
    assert "| PCA, alone |" in found.stdout


def test_a_first_method_that_fails_leaves_no_table(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args, **options):
        raise DataError("too few rows")
        yield

    monkeypatch.setattr(contest, "compare", failing)
    found = run("--data", str(sites), "--only", "PCA, alone", "--out", str(tmp_path / "table.md"))
    assert isinstance(found.exception, DataError)
    assert not found.stdout
    assert not (tmp_path / "table.md").read_text()


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    found = run("--only", "no such")
    assert isinstance(found.exception, ConfigError)
    assert "ours, under masking" in str(found.exception.hint)
