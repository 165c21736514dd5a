"""`secagg policy`: what a node's policy means, and what it would say to an offer."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from nodes.commands.options import json_option
from nodes.config import CoordinatorConfig, load_coordinator_config, load_node_config
from nodes.policy_file import load_policy, to_policy
from nodes.policy_sentences import Remark, explain, weaknesses
from nodes.session.policy import (
    NodePolicy,
    PolicyFacts,
    Violation,
    facts_of_training,
    violations,
)
from nodes.session.training_settings import settings_of
from nodes.store import load_offer
from nodes.toml_files import read_text
from secagg.assumptions import colluders_among
from secagg.errors import ConfigError
from secagg.wire.messages import RoundOffer

__all__ = ["command"]

REFUSED: Final = 7
"""Exit code if the policy forbids the offer."""
_UNTESTED: Final = ("epsilon", "min_difference", "max_rounds_a_day")
"""Rules about what went before, which an offer alone does not tell."""
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Show what a node's policy means and what it would refuse."""


@command.command()
@click.argument("policy", type=_file)
@click.option("--offer", type=_file, help="Test it against an offer that a node saved (offer.bin).")
@click.option(
    "--coordinator", type=_file, help="Test it against what this coordinator.toml would offer."
)
@click.option("--nodes", type=click.IntRange(3), help="With --coordinator: nodes in the round.")
@click.option(
    "--members", type=click.IntRange(3), help="Active nodes of the roster; those of the round."
)
@json_option
@click.pass_context
def check(
    context: click.Context,
    policy: Path,
    offer: Path | None,
    coordinator: Path | None,
    nodes: int | None,
    members: int | None,
    as_json: bool,
) -> None:
    """Explain POLICY, a policy.toml or node.toml, in sentences, and test it against an offer.

    Every rule that would refuse the offer is listed. Exit code 7 if there is one.

    \b
    Examples:
      secagg policy check policy.toml
      secagg policy check node.toml --offer state/offer.bin
      secagg policy check policy.toml --coordinator coordinator.toml --nodes 40
    """  # noqa: D301 - click reads the escape
    held = _read_policy(policy)
    tested = _chosen_offer(context, offer, coordinator, nodes, members)
    found: list[Violation] = []
    colluders = None
    if tested is not None:
        facts = _facts(tested, members or 0)
        found = violations(tested, held, facts)
        colluders = colluders_among(max(len(tested.cohort), facts.members), held.collusion)
    weak = weaknesses(held, colluders=colluders)
    if as_json:
        click.echo(json.dumps(_as_json(held, weak, tested, found), indent=2))
    else:
        _print(held, weak, tested, found)
    if found:
        context.exit(REFUSED)


def _chosen_offer(
    context: click.Context,
    offer: Path | None,
    coordinator: Path | None,
    nodes: int | None,
    members: int | None,
) -> RoundOffer | None:
    """Return the offer that the options ask for, or None."""
    if offer and coordinator:
        raise click.UsageError("--offer and --coordinator are two offers: give one", context)
    if (nodes is None) != (coordinator is None):
        raise click.UsageError("--coordinator and --nodes go together", context)
    if members and not (offer or coordinator):
        raise click.UsageError("--members goes with --offer or --coordinator", context)
    if offer:
        return _read_offer(offer)
    return _made_offer(coordinator, nodes, members or nodes) if coordinator and nodes else None


def _read_policy(path: Path) -> NodePolicy:
    """Return the policy in a policy.toml, or the one that a node.toml holds or names.

    Raises:
        ConfigError: with the file, the line, the key and the reason.
    """
    try:
        is_node = "node" in tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError):
        is_node = False  # reading it below says what is wrong
    return load_node_config(path).node_policy() if is_node else to_policy(*load_policy(path))


def _read_offer(path: Path) -> RoundOffer:
    """Return an offer that was saved as its canonical bytes.

    Raises:
        ConfigError: it is none.
    """
    found = load_offer(path)
    if found is None:
        raise ConfigError(f"{path} does not exist", hint="give the offer.bin of a node")
    return found


def _made_offer(path: Path, nodes: int, members: int) -> RoundOffer:
    """Return the first offer that a coordinator would make to so many nodes.

    Raises:
        ConfigError: the file is wrong, or its settings allow no such round.
    """
    from nodes.coordinator_daemon import fresh_run
    from nodes.session.offer import build_offer

    config: CoordinatorConfig = load_coordinator_config(path)
    cohort = tuple(f"node-{index:05d}" for index in range(nodes))
    state = fresh_run(config, os.urandom)
    return build_offer(config.plan(), state, cohort, 1, members=members)


def _facts(offer: RoundOffer, members: int) -> PolicyFacts:
    """Return what an offer alone tells, and of what went before what no rule is against."""
    settings = settings_of(offer.training)
    by_row = settings is not None and bool(settings.train.private)
    unit = "client" if offer.dp is not None else "record" if by_row else "none"
    training = facts_of_training(offer.training)
    return PolicyFacts(members=members, unit=unit, epsilon_after=0.0, training=training)


def _print(
    policy: NodePolicy, weak: list[Remark], offer: RoundOffer | None, found: list[Violation]
) -> None:
    origin = policy.origin
    click.echo(origin.file)
    for remark in explain(policy):
        click.echo(f"  {origin.where(remark.key):<10} {remark.key:<18} {remark.sentence}")
    for remark in weak:
        mark = click.style("weak", fg="yellow")
        click.echo(f"{mark}  {origin.where(remark.key):<10} {remark.key}: {remark.sentence}")
    if offer is None:
        return
    click.echo(f"\n{_described(offer)}")
    for each in found:
        click.echo(f"{click.style('REFUSED', fg='red')}  {each.why}  [{each.reason}]")
        click.echo(f"         {each.hint}")
    if not found:
        click.echo(f"{click.style('allowed', fg='green')}  no rule forbids this offer")
    click.echo(f"not tested, since they depend on earlier rounds: {', '.join(_UNTESTED)}")


def _described(offer: RoundOffer) -> str:
    training = facts_of_training(offer.training)
    text = f"offer of round {offer.round_id}: {offer.scheme}, {len(offer.cohort)} nodes"
    if training is None:
        return f"{text}, training settings that cannot be read"
    return (
        f"{text}, {training.steps} steps at learning rate {training.learning_rate:g},\n"
        f"model {training.architecture}"
    )


def _as_json(
    policy: NodePolicy, weak: list[Remark], offer: RoundOffer | None, found: list[Violation]
) -> dict[str, Any]:
    origin = policy.origin
    shown: dict[str, Any] = {
        "policy": origin.file,
        "rules": [
            {
                "key": remark.key,
                "value": getattr(policy, remark.key),
                "line": origin.lines.get(remark.key),
                "sentence": remark.sentence,
            }
            for remark in explain(policy)
        ],
        "weaknesses": [asdict(remark) for remark in weak],
    }
    if offer is not None:
        training = facts_of_training(offer.training)
        shown["offer"] = {
            "round_id": offer.round_id,
            "scheme": offer.scheme,
            "nodes": len(offer.cohort),
            "training": None if training is None else asdict(training),
        }
        shown["allowed"] = not found
        shown["refusals"] = [asdict(each) for each in found]
        shown["untested"] = list(_UNTESTED)
    return shown
