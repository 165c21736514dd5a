"""`secagg privacy plan`: the noise that a budget takes, before anybody trains."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from nodes.commands.options import (
    NumberRange,
    collusion_option,
    delta_option,
    epsilon_option,
    json_option,
    mechanism_option,
    private_scheme_option,
)
from nodes.session.offer import SURE, thresholds_of
from nodes.session.plan import RunPlan
from nodes.session.privacy import CLIENT, RECORD, PrivacySettings, private_encoding, terms_of_round
from secagg.assumptions import DEFAULT_DROPOUT
from secagg.dp.accountant import epsilon_of, multiplier_for
from secagg.dp.events import SampledGaussian
from secagg.dp.planning import NoiseForecast, PrivacyPlan, plain_sentence, plan
from secagg.dp.printed import at_least

__all__ = ["command"]

_DEFAULT_PARAMETERS: Final = 34_624  # of the default encoder on 115 columns
_DEFAULT_EMBEDDING: Final = 64
_WIDTH: Final = 100


@click.command()
@click.option("--nodes", default=1000, show_default=True, type=click.IntRange(3), help="Nodes.")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="Rounds.")
@epsilon_option
@delta_option
@click.option(
    "--unit",
    default=CLIENT,
    show_default=True,
    type=click.Choice([CLIENT, RECORD]),
    help="Whom noise protects: a whole node, or one row of a node's data.",
)
@click.option(
    "--parameters",
    default=_DEFAULT_PARAMETERS,
    show_default=True,
    type=click.IntRange(1),
    help="Parameters of the model.",
)
@click.option(
    "--embedding",
    default=_DEFAULT_EMBEDDING,
    show_default=True,
    type=click.IntRange(2),
    help="Coordinates of an embedding.",
)
@click.option(
    "--clip",
    default=1.0,
    show_default=True,
    type=NumberRange(0, min_open=True),
    help="Greatest L2 norm of what one node contributes.",
)
@click.option(
    "--scale-bits",
    default=12,
    show_default=True,
    type=click.IntRange(4, 23),
    help="Bits of the integer length of the clip.",
)
@private_scheme_option
@mechanism_option
@click.option(
    "--dropout",
    default=DEFAULT_DROPOUT,
    show_default="a third",
    type=NumberRange(0, 0.5, max_open=True),
    help="Fraction that may drop out.",
)
@collusion_option
@click.option(
    "--sampling-rate",
    default=0.05,
    show_default=True,
    type=NumberRange(0, 1, min_open=True),
    help="Unit record: probability of a row to be in a step's batch.",
)
@click.option(
    "--steps",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Unit record: training steps a round.",
)
@json_option
def command(
    nodes: int,
    rounds: int,
    epsilon: float,
    delta: float,
    unit: str,
    parameters: int,
    embedding: int,
    clip: float,
    scale_bits: int,
    scheme: str,
    mechanism: str,
    dropout: float,
    collusion: float,
    sampling_rate: float,
    steps: int,
    as_json: bool,
) -> None:
    """Print the least noise for a budget, what it costs round by round, and what it drowns.

    Unit client: every node adds its share of noise; the fewer nodes a sum is sure to be over, the
    larger a share. Noise for dropouts that do not happen is taken back. Unit record: each node
    noises the steps of its own training.

    \b
    Examples:
      secagg privacy plan --nodes 1000 --rounds 20 --epsilon 4
      secagg privacy plan --nodes 200 --collusion 0.1 --parameters 6000 --epsilon 8
      secagg privacy plan --unit record --rounds 8 --steps 20 --sampling-rate 0.05 --epsilon 8
    """  # noqa: D301 - click reads the escape
    if unit == RECORD:
        found = _record(rounds, epsilon, delta, sampling_rate, steps)
        click.echo(json.dumps(found, indent=2) if as_json else _record_lines(found))
        return
    settings = PrivacySettings(
        unit=CLIENT,
        epsilon=epsilon,
        delta=delta,
        mechanism=mechanism,
        clip=clip,
        scale_bits=scale_bits,
    )
    run = RunPlan(
        rounds=rounds,
        min_nodes=3,
        training=b"",
        scheme=scheme,
        dropout=dropout,
        collusion=collusion,
        privacy=settings,
    )
    _, quorum, _, colluders = thresholds_of(run, nodes, nodes)
    terms = terms_of_round(
        settings,
        clip=clip,
        multiplier=1.0,
        n=nodes,
        quorum=quorum,
        honest=quorum - colluders,
        dim=parameters,
    )
    encoding = private_encoding(terms, model_dim=parameters, embedding_dim=embedding)
    made = plan(
        nodes=nodes,
        colluders=colluders,
        dropout=(nodes - quorum) / nodes,
        rounds=settings.planned_rounds(rounds),
        epsilon=epsilon,
        delta=delta,
        dim=encoding.dim,
        clip=clip,
        scale=terms.scale,
        mechanism=mechanism,
        truncation=encoding.event(terms.honest).truncation,
    )
    ratio = SURE * made.noise_multiplier * encoding.std("weight", nodes) * 2 / nodes
    if as_json:
        summary = {**dataclasses.asdict(made), "usable": ratio <= 1, "gain": made.gain}
        click.echo(json.dumps(summary, indent=2))
        return
    _print(made, run, ratio)


def _print(made: PrivacyPlan, run: RunPlan, ratio: float) -> None:
    spare = made.rounds - run.rounds
    click.echo(
        f"{made.nodes} nodes, of which {made.dropouts} may drop out and {made.colluders} collude: "
        f"{made.honest} shares of noise are sure.\n"
        f"Noise multiplier {made.noise_multiplier:.4g} for {run.rounds} rounds and {spare} that "
        f"may abort: epsilon {at_least(made.epsilon_one_round)} for one round, at delta "
        f"{made.delta:g}.\n"
    )
    console = Console(file=sys.stdout, width=_WIDTH)
    shown = [pair for pair in made.epsilon_by_round if pair[0] in _some(made.rounds)]
    by_round = ", ".join(f"{at_least(value)} after {count}" for count, value in shown)
    click.echo(f"epsilon {by_round} rounds\n")
    noise = Table(box=box.SIMPLE_HEAD, title="noise of a round's mean update", title_justify="left")
    for heading in ("", "in the sum", "a coordinate", "its length", "clip over it"):
        noise.add_column(heading, justify="right" if heading else "left")
    for name, cast in _forecasts(made):
        noise.add_row(
            name,
            str(cast.survivors),
            f"{cast.mean_std:.3g}",
            f"{cast.mean_norm:.3g}",
            f"{cast.signal_to_noise:.3g}",
        )
    console.print(noise)
    click.echo(
        f"Taking excess noise back leaves {made.gain:.2f} times less where nobody drops out.\n"
        "`clip over it` is the best case: all updates as long as the clip, in one direction.\n"
    )
    if ratio > 1:
        click.echo(
            f"NOT USABLE: the noise on the sum of weights is {ratio:.1f} times too strong to read "
            "a mean.\nUse more nodes, fewer rounds or a larger epsilon; --unit record suits few "
            "nodes.\n"
        )
    click.echo(plain_sentence(CLIENT, made.epsilon, made.delta))


def _forecasts(made: PrivacyPlan) -> list[tuple[str, NoiseForecast]]:
    return [
        ("nobody drops out, excess taken back", made.taken_back),
        ("nobody drops out, excess left in", made.left_in),
        ("as many drop out as may", made.taken_back_worst),
    ]


def _record(
    rounds: int, epsilon: float, delta: float, sampling_rate: float, steps: int
) -> dict[str, Any]:
    """Return the noise of a node's own training for a budget."""
    settings = PrivacySettings(unit=RECORD, epsilon=epsilon, delta=delta)
    planned = settings.planned_rounds(rounds)

    def event(multiplier: float) -> SampledGaussian:
        return SampledGaussian(multiplier, sampling_rate, steps)

    z = multiplier_for(lambda z: {event(z): planned}, epsilon=epsilon, delta=delta)
    return {
        "unit": RECORD,
        "rounds": rounds,
        "planned_rounds": planned,
        "steps": steps,
        "sampling_rate": sampling_rate,
        "epsilon": epsilon,
        "delta": delta,
        "noise_multiplier": z,
        "epsilon_one_round": epsilon_of([event(z)], delta),
        "epsilon_by_round": [(n, epsilon_of({event(z): n}, delta)) for n in _some(planned)],
    }


def _record_lines(found: dict[str, Any]) -> str:
    steps = found["epsilon_by_round"]
    by_round = ", ".join(f"{at_least(value)} after {count}" for count, value in steps)
    return (
        f"Noise multiplier {found['noise_multiplier']:.4g} in each of {found['steps']} steps a "
        f"round, batches at rate {found['sampling_rate']:g}, for {found['rounds']} rounds and "
        f"{found['planned_rounds'] - found['rounds']} that may abort.\n"
        f"epsilon {at_least(found['epsilon_one_round'])} for one round at delta "
        f"{found['delta']:g}; {by_round} rounds.\n\n"
        + plain_sentence(RECORD, found["epsilon"], found["delta"])
    )


def _some(rounds: int) -> list[int]:
    """Return a few numbers of rounds up to all."""
    return sorted({-(-rounds * part // 5) for part in range(1, 6)})
