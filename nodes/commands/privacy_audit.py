"""`secagg privacy audit`: what canaries find of the noise that a run claims to have."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from nodes.commands.options import (
    NumberRange,
    delta_option,
    epsilon_option,
    json_option,
    mechanism_option,
    private_scheme_option,
    seed_option,
)
from secagg.dp.printed import at_least, at_most

if TYPE_CHECKING:
    from nodes.canaries import AuditedRun
    from nodes.simulator import RoundResult

__all__ = ["FAILED", "command"]

FAILED: Final = 7
_CONFIDENCE: Final = 0.95
_WIDTH: Final = 100
_LABEL: Final = 14


@click.command()
@click.option(
    "--nodes", default=200, show_default=True, type=click.IntRange(3), help="Nodes, canaries too."
)
@click.option(
    "--canaries",
    default=100,
    show_default=True,
    type=click.IntRange(2),
    help="Nodes that are canaries.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds.")
@epsilon_option
@delta_option
@private_scheme_option
@mechanism_option
@click.option(
    "--dim",
    default=4000,
    show_default=True,
    type=click.IntRange(300),
    help="Parameters of the model, about.",
)
@click.option(
    "--dropout",
    default=0.0,
    show_default=True,
    type=NumberRange(0, 0.1),
    help="Probability that a node crashes in a round.",
)
@seed_option
@click.option(
    "--leave-out-noise",
    "without",
    is_flag=True,
    help="Self-test: the simulated nodes add no noise, and the audit has to fail.",
)
@json_option
def command(
    *,
    nodes: int,
    canaries: int,
    rounds: int,
    epsilon: float,
    delta: float,
    scheme: str,
    mechanism: str,
    dim: int,
    dropout: float,
    seed: int,
    without: bool,
    as_json: bool,
) -> None:
    """Play a run with canaries, and hold what the releases show against the ε that is claimed.

    The run is that of `secagg simulate --unit client`: the daemons' own sessions, their clip, their
    noise, their secure sum. By the toss of a coin a canary gives a vector of the greatest length,
    or zeros; the auditor sees only the mean of each round. Exit code 7 if ε must be greater than
    the ledger claims; that happens by chance in 1 of 20 runs at most, if the noise is there and is
    all that it should be. One that passes proves no ε: bounds are from below.

    \b
    Examples:
      secagg privacy audit
      secagg privacy audit --leave-out-noise
      secagg privacy audit --nodes 60 --canaries 30 --rounds 3 --epsilon 20 --dim 1000
      secagg privacy audit --scheme ckks --mechanism skellam --json
    """  # noqa: D301 - click reads the escape
    from nodes.canaries import AuditedRun
    from nodes.noise_faults import noise_scaled

    with noise_scaled(0.0 if without else 1.0):  # V-09
        run = AuditedRun(
            nodes,
            canaries,
            rounds,
            scheme=scheme,
            privacy={"epsilon": epsilon, "delta": delta, "mechanism": mechanism},
            dim=dim,
            dropout=dropout,
            seed=seed,
        )
        run.play(_say_round)
    found = {
        "unit": "client",
        "scheme": scheme,
        "mechanism": mechanism,
        "nodes": nodes,
        "canaries": canaries,
        "dim": run.dim,
        "noise_left_out": without,
        **_judged(run, delta),
    }
    click.echo(json.dumps(found, indent=2) if as_json else _text(found))
    if not found["passed"]:
        click.get_current_context().exit(FAILED)  # V-08


def _say_round(result: RoundResult) -> None:
    click.echo(
        f"round {result.round_id}: {result.outcome}, {result.contributors} of {result.cohort}",
        err=True,
    )


def _judged(run: AuditedRun, delta: float) -> dict[str, Any]:
    from secagg.dp.audit import audit, noticeable

    found = audit(run.judged, delta=delta, confidence=_CONFIDENCE)
    noticed = noticeable(
        run.epsilon,
        given=found.given,
        rounds=found.rounds,
        freedom=run.judged[0].freedom,
        delta=delta,
        confidence=_CONFIDENCE,
    )
    return {
        "claimed": run.epsilon,
        **dataclasses.asdict(found),
        "bound": found.bound,
        "noticed": noticed,
        "passed": found.bound <= run.epsilon,
    }


def _text(found: dict[str, Any]) -> str:
    at, sure = f"at δ = {found['delta']:g}", f"{found['confidence']:.0%} confidence"
    trials = found["given"] + found["zeros"]
    lines = {
        "unit": "client: all that one node contributes, or zeros in its place",
        "run": f"{found['scheme']}, {found['mechanism']}, {found['nodes']} nodes of which "
        f"{found['canaries']} are canaries, {found['rounds']} rounds, {found['dim']} parameters",
        "canaries": f"{found['given']} vectors and {found['zeros']} zeros, told apart in "
        f"{found['right']} of {trials} guesses; scores {found['mean']:.2f} ± {found['spread']:.2f} "
        f"and {found['null_mean']:.2f} ± {found['null_spread']:.2f}",
        "claimed": f"ε = {at_least(found['claimed'], places=2)} {at}, by the ledger",
        "estimate": f"ε about {found['estimate']:.3g} by the mean score, {found['fitted']:.3g} by "
        "mean and spread; no bounds",
        "lower bound": f"ε > {at_most(found['bound'], places=2)} {at}, with {sure}: "
        f"{at_most(found['additive_bound'], places=2)} by the scores, "
        f"{at_most(found['guessing_bound'], places=2)} by the guesses, whatever the mechanism",
        "sensitivity": f"noise {found['noticed']:.2f} times too weak is noticed in 95 runs of 100",
        "verdict": "nothing speaks against the claim"
        if found["passed"]
        else "FAILED: the releases show more than the claim allows",
    }
    if found["noise_left_out"]:
        lines = {"SELF-TEST": "noise was left out on purpose; the audit has to fail", **lines}
    return "\n".join(
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"{label:<{_LABEL}}",
            subsequent_indent=" " * _LABEL,
        )
        for label, text in lines.items()
    )
