"""`secagg bench detection`: the table of detection quality."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nodes.commands.bench_methods import chosen_methods
from nodes.commands.options import NumberRange, check_writable, json_option
from secagg.errors import ConfigError

if TYPE_CHECKING:
    from fl_core.contender_encoders import Recipe
    from fl_core.contenders import Contender
    from fl_core.contest import Result
    from fl_core.series_contest import SeriesResult

__all__ = ["command"]

_Result = TypeVar("_Result", "Result", "SeriesResult")


@click.command()
@click.option("--data", default="builtin", show_default=True, help="`builtin`, or a path.")
@click.option(
    "--drop",
    multiple=True,
    metavar="PATTERN",
    help="Leave columns out: 'HH_jit_*'; of series, channels.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Runs.")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="Rounds.")
@click.option(
    "--every",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Train on one row in so many: what a site with little data reaches.",
)
@click.option(
    "--max-fpr",
    default=0.01,
    show_default=True,
    type=NumberRange(0, 1, min_open=True, max_open=True),
    help="False-positive rate that thresholds are set for.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Methods to run, by name: 'ours*'. All by default.",
)
@click.option(
    "--planted",
    is_flag=True,
    help="To choose settings by: validation rows and planted anomalies in place of test rows.",
)
@click.option(
    "--window",
    type=click.IntRange(1),
    help="Time steps in a row, of series: 16 for a folder of them, else 1.",
)
@click.option(
    "--groups",
    is_flag=True,
    help="Series of one folder (SKAB's valve1, valve2, other) are one device.",
)
@click.option("--ablations", is_flag=True, help="Also ours with one part changed at a time.")
@click.option(
    "--left-out/--no-left-out",
    default=True,
    help="Also train without each device in turn, and score it.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Append the table to a file.")
@json_option
def command(
    data: str,
    drop: tuple[str, ...],
    seeds: int,
    rounds: int,
    every: int,
    max_fpr: float,
    only: tuple[str, ...],
    planted: bool,
    window: int | None,
    groups: bool,
    ablations: bool,
    left_out: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train everything that could win on the same rows, and print one table.

    Methods see benign training and validation rows only. Figures are means over devices, and over
    seeds with their range. A device left out is scored by a head on its own validation rows, which
    its threshold takes anyway; nobody trained on its rows. "No row of it known" is the least score
    that the other devices' heads give.

    An interrupt or SIGTERM ends it with a table of what is done, and status 130; a method that
    fails, with such a table too, and its error.

    Of a folder of series (SKAB, ASD) rows are windows, every series is a device, and quality is
    that of the steps in time, without point adjustment.

    \b
    Examples:
      secagg bench detection --only 'ours*' --only 'PCA*' --no-left-out
      secagg bench detection --data nbaiot.npz --drop 'HH_jit_*'
      secagg bench detection --data nbaiot.npz --every 10 --no-left-out
      secagg bench detection --data nbaiot.npz --planted --ablations --only 'ours*'
      secagg bench detection --data skab
      secagg bench detection --data skab --groups
    """  # noqa: D301 - click reads the escape
    from fl_core.contender_encoders import SERIES, Recipe
    from fl_core.data.series_files import list_groups
    from fl_core.data.sources import is_series_folder
    from nodes.learner import use_one_thread

    use_one_thread()
    series = is_series_folder(data) or (window or 1) > 1
    recipe = replace(SERIES, window=window or SERIES.window) if series else Recipe()
    if series and (every > 1 or planted):
        raise ConfigError(
            "--every and --planted are for rows that stand alone",
            hint="leave them out for series",
        )
    if groups and not list_groups(Path(data)):
        raise ConfigError(
            f"--groups: {data} has no folders of experiments",
            hint="it is for the layout of SKAB; leave it out where every series is a device",
        )
    settings = {
        "data": Path(data).name,
        "drop": list(drop),
        "seeds": seeds,
        "rounds": rounds,
        "every": every,
        "planted": planted,
        "window": recipe.window,
        "groups": groups,
        "max_fpr": max_fpr,
    }
    run = _Run(data, only, ablations, left_out, out, recipe, settings)
    with _interrupted_by_sigterm():
        facts, text, fault = run.on_series() if series else run.on_rows()
    try:
        click.echo(json.dumps(facts, indent=2) if as_json else text)
    finally:  # neither a full disk nor a closed pipe takes the other copy with it
        if out:
            with out.open("a") as file:
                file.write(text + "\n")
    if isinstance(fault, KeyboardInterrupt):
        raise click.exceptions.Exit(130)
    if fault is not None:
        raise fault


@dataclass(frozen=True)
class _Run:
    """One call of the command.

    Both ways give facts for machines, a text for people, and what ended it before its time.
    """

    data: str
    only: tuple[str, ...]
    ablations: bool
    left_out: bool
    out: Path | None
    recipe: Recipe
    settings: dict[str, Any]

    def on_rows(self) -> tuple[dict[str, Any], str, BaseException | None]:
        from fl_core.contest import columns_of, compare, markdown, thin_out
        from fl_core.data.dataset import DeviceData
        from fl_core.data.sources import list_devices, load_device, load_devices
        from fl_core.planted import plant

        data, drop, every = self.data, self.settings["drop"], self.settings["every"]
        planted, max_fpr = self.settings["planted"], self.settings["max_fpr"]
        names = list_devices(data)
        columns = load_device(data, names[0], drop=drop).feature_names
        chosen = self._methods(columns, len(names))
        if self.left_out:
            _say_what_is_not_measured(chosen, len(names))

        def load(seed: int) -> Sequence[DeviceData]:
            devices = load_devices(data, drop, seed=seed)
            if every > 1:
                devices = [thin_out(device, every) for device in devices]
            return plant(devices, seed=seed) if planted else devices

        seeds = range(self.settings["seeds"])
        found = compare(
            chosen, load, seeds=seeds, left_out=self.left_out, max_fpr=max_fpr, by_kind=planted
        )
        shown = ("FPR at TPR 0.999", "fpr_at_tpr_999")
        results, fault = _watched(found, len(chosen) * len(seeds), shown)
        table = markdown(results, columns_of(results))
        text = f"{_caption(self.settings)}\n\n{table}\n\n{_rates(results, max_fpr)}\n"
        return _facts(self.settings, results, len(chosen) * len(seeds)), text, fault

    def on_series(self) -> tuple[dict[str, Any], str, BaseException | None]:
        from fl_core.contest import markdown
        from fl_core.data.series import window_columns
        from fl_core.data.series_files import list_groups
        from fl_core.data.sources import load_all_series
        from fl_core.series_contest import SERIES_COLUMNS, compare_series

        series = load_all_series(self.data, self.settings["drop"])
        window = self.recipe.window
        groups = list(list_groups(Path(self.data)).values()) if self.settings["groups"] else ()
        columns = window_columns(series[0].channels, window)
        chosen = self._methods(columns, len(groups or series))
        seeds = range(self.settings["seeds"])
        max_fpr = self.settings["max_fpr"]
        found = compare_series(
            chosen, series, window=window, seeds=seeds, max_fpr=max_fpr, groups=groups
        )
        results, fault = _watched(found, len(chosen) * len(seeds), ("AUC-PR", "auc_pr"))
        text = f"{_caption(self.settings)}\n\n{markdown(results, SERIES_COLUMNS)}\n"
        return _series_facts(self.settings, results, len(chosen) * len(seeds)), text, fault

    def _methods(self, columns: Sequence[str], devices: int) -> list[Contender]:
        chosen = chosen_methods(
            self.recipe,
            self.settings["rounds"],
            self.only,
            columns,
            devices=devices,
            ablations=self.ablations,
        )
        check_writable(self.out)
        return chosen


def _say_what_is_not_measured(chosen: Sequence[Contender], devices: int) -> None:
    """Say for which methods too few devices remain once one of them is left out."""
    short = [each.name for each in chosen if devices <= each.least]
    if short:
        whom = "" if len(short) == len(chosen) else f" of {'; '.join(short)}"
        click.echo(
            f"no figures{whom} with a device left out: there are too few devices ({devices})",
            err=True,
        )


def _watched(
    found: Iterable[_Result], wanted: int, shown: tuple[str, str]
) -> tuple[list[_Result], BaseException | None]:
    """Gather results as they come, and show how far it is.

    Returns:
        The results, and the interrupt or the error that ended them, which is not to take them with
        it; before the first one it is raised.
    """
    results: list[_Result] = []
    fault: BaseException | None = None
    title, column = shown
    with _progress() as progress:
        task = progress.add_task("", total=wanted)
        try:
            for result in found:
                results.append(result)
                progress.update(task, advance=1, description=f"{result.name}, seed {result.seed}")
                if progress.disable:  # nobody watches: a log of hours tells where it is
                    place = f"{len(results)}/{wanted} {result.name}, seed {result.seed}"
                    click.echo(f"{place}: {title} {result.mean(column):.4f}", err=True)
        except (KeyboardInterrupt, Exception) as error:
            if not results:
                raise
            fault = error
    if len(results) < wanted:
        click.echo(f"stopped: the table has {len(results)} of {wanted} results", err=True)
    return results, fault


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too: what ends a job says it so, and may want the table.

    SIGHUP stays as it is, since `nohup` has it ignored.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not sys.stderr.isatty(),
    )


def _caption(settings: dict[str, Any]) -> str:
    without = f" without {', '.join(settings['drop'])}" if settings["drop"] else ""
    rows = f", one training row in {settings['every']}" if settings["every"] > 1 else ""
    planted = ", planted anomalies" if settings["planted"] else ""
    if settings["window"] > 1:
        rows = f", windows of {settings['window']} steps"
    if settings["groups"]:
        rows += ", a folder a device"
    means = f"mean over devices, {settings['seeds']} seeds (range), {settings['rounds']} rounds"
    return (
        f"{settings['data']}{without}{rows}{planted}: {means}, "
        f"thresholds for {settings['max_fpr']:g}"
    )


def _rates(results: Sequence[Result], max_fpr: float) -> str:
    """Say for whom the asked false-positive rate held, device by device."""
    from fl_core.contest import honest_rate

    lines = []
    for result in results:
        if not result.name.startswith("ours"):
            continue
        off = [
            f"{device} {found.fpr:.4f}"
            for device, found in result.devices.items()
            if not honest_rate(found, max_fpr)
        ]
        held = f"{len(result.devices) - len(off)} of {len(result.devices)} devices"
        lines.append(
            f"- {result.name}, seed {result.seed}: {held} at the rate asked for"
            + (f"; not {', '.join(off)}" if off else "")
        )
    return "\n".join(lines)


def _facts(settings: dict[str, Any], results: Sequence[Result], wanted: int) -> dict[str, Any]:
    def own(result: Result) -> dict[str, Any]:
        return {
            "leakage": None if math.isnan(result.leakage) else result.leakage,
            "devices": {name: each.to_dict() for name, each in result.devices.items()},
            "kinds": dict(result.kinds),
            "left_out": _finite(result.left_out),
            "unknown": _finite(result.unknown),
        }

    found = [_common(each) | own(each) for each in results]
    return {"settings": settings, "wanted": wanted, "results": found}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _series_facts(
    settings: dict[str, Any], results: Sequence[SeriesResult], wanted: int
) -> dict[str, Any]:
    def own(result: SeriesResult) -> dict[str, Any]:
        return {"series": {name: each.to_dict() for name, each in result.series.items()}}

    found = [_common(each) | own(each) for each in results]
    return {"settings": settings, "wanted": wanted, "results": found}


def _common(result: Result | SeriesResult) -> dict[str, Any]:
    return {"method": result.name, "seed": result.seed, "traffic": result.traffic}
