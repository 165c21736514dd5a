"""`secagg bench detection`: the table of detection quality."""

from __future__ import annotations

import fnmatch
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nodes.commands.options import json_option
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

if TYPE_CHECKING:
    from fl_core.contenders import Contender
    from fl_core.contest import Result
    from fl_core.public_bank import PublicBank

__all__ = ["command"]

_TITLES: Final = {"masking": "ours, under masking", "ckks": "ours, under ckks"}


@click.command()
@click.option("--data", default="builtin", show_default=True, help="`builtin`, or a path.")
@click.option("--drop", multiple=True, metavar="PATTERN", help="Leave columns out: 'HH_jit_*'.")
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
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
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
    ablations: bool,
    left_out: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train everything that could win on the same rows, and print one table.

    Methods see benign training and validation rows only. Figures are means over devices, and over
    seeds with their range. A device left out is scored by a head on its own validation rows, which
    its threshold takes anyway; nobody trained on its rows.

    \b
    Examples:
      secagg bench detection --only 'ours*' --only 'PCA*' --no-left-out
      secagg bench detection --data nbaiot.npz --drop 'HH_jit_*'
      secagg bench detection --data nbaiot.npz --every 10 --no-left-out
      secagg bench detection --data nbaiot.npz --planted --ablations --only 'ours*'
    """  # noqa: D301 - click reads the escape
    from fl_core.contest import compare, markdown, thin_out
    from fl_core.data.dataset import DeviceData, drop_columns
    from fl_core.data.sources import list_devices, load_device
    from fl_core.planted import plant
    from nodes.learner import use_one_thread

    use_one_thread()
    first, *_ = list_devices(data, limit=1)
    columns = drop_columns(load_device(data, first), drop) if drop else load_device(data, first)
    chosen = _chosen(rounds, only, columns.feature_names, ablations=ablations)
    if out:
        out.touch()  # a file that cannot be written is better known before hours of training

    def load(seed: int) -> Sequence[DeviceData]:
        devices = [load_device(data, name, seed=seed) for name in list_devices(data)]
        if drop:
            devices = [drop_columns(device, drop) for device in devices]
        if every > 1:
            devices = [thin_out(device, every) for device in devices]
        return plant(devices, seed=seed) if planted else devices

    results: list[Result] = []
    with _progress() as progress:
        task = progress.add_task("", total=len(chosen) * seeds)
        for result in compare(chosen, load, seeds=range(seeds), left_out=left_out, max_fpr=max_fpr):
            results.append(result)
            progress.update(task, advance=1, description=f"{result.name}, seed {result.seed}")
            if progress.disable:  # nobody watches: a log of hours tells where it is
                _log(result, len(results), len(chosen) * seeds)
    settings = {
        "data": Path(data).name,
        "drop": list(drop),
        "seeds": seeds,
        "rounds": rounds,
        "every": every,
        "planted": planted,
        "max_fpr": max_fpr,
    }
    text = f"{_caption(settings)}\n\n{markdown(results)}\n\n{_rates(results, max_fpr)}\n"
    if out:
        with out.open("a") as file:
            file.write(text + "\n")
    click.echo(json.dumps(_facts(settings, results), indent=2) if as_json else text)


def _chosen(
    rounds: int, only: Sequence[str], columns: Sequence[str], *, ablations: bool
) -> list[Contender]:
    from fl_core.contenders import baselines, encoders

    trained = encoders(
        rounds=rounds, ablations=ablations, bank=_bank(columns) if ablations else None
    )
    known = [*baselines(), *trained, *_protected(rounds)]
    chosen = [
        each
        for each in known
        if not only or any(fnmatch.fnmatchcase(each.name, pattern) for pattern in only)
    ]
    if not chosen:
        raise ConfigError(
            f"no method is called {' or '.join(map(repr, only))}",
            hint=f"there are: {'; '.join(each.name for each in known)}",
        )
    return chosen


def _bank(columns: Sequence[str]) -> PublicBank | None:
    """Return the built-in public rows, where they have these columns."""
    from fl_core.errors import ModelError
    from fl_core.public_bank import PublicBank

    try:
        return PublicBank.builtin(columns)
    except ModelError:
        return None


def _protected(rounds: int) -> list[Contender]:
    """Return our training through the whole protocol, by every scheme that can run here."""
    import numpy as np
    from numpy.typing import NDArray

    from fl_core.config import ModelConfig, TrainConfig
    from fl_core.contenders import Rows, encoder_contender
    from nodes.rehearsal import simulate_training

    def contender(scheme: str) -> Contender:
        def train(
            rows: Rows, model: ModelConfig, seed: int
        ) -> tuple[NDArray[np.float32], float | None]:
            return simulate_training(
                rows, model, TrainConfig(), rounds=rounds, scheme=scheme, seed=seed
            )

        return encoder_contender(_TITLES[scheme], "mlp", train)

    found = []
    for scheme in _TITLES:
        try:
            SCHEMES[scheme].check()
        except ConfigError as error:
            click.echo(f"left out: {_TITLES[scheme]}: {error}", err=True)
            continue
        found.append(contender(scheme))
    return found


def _log(result: Result, done: int, wanted: int) -> None:
    rate = result.mean("fpr_at_tpr_999")
    text = f"{done}/{wanted} {result.name}, seed {result.seed}: FPR at TPR 0.999 {rate:.4f}"
    click.echo(text, err=True)


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


def _facts(settings: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    return {
        "settings": settings,
        "results": [
            {
                "method": result.name,
                "seed": result.seed,
                "traffic": result.traffic,
                "leakage": None if math.isnan(result.leakage) else result.leakage,
                "devices": {name: each.to_dict() for name, each in result.devices.items()},
                "left_out": {
                    name: None if math.isnan(value) else value
                    for name, value in result.left_out.items()
                },
            }
            for result in results
        ],
    }
