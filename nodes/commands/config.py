"""`secagg config`: commented configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nodes.commands.options import weights_option
from nodes.policy_file import PolicySection, to_policy
from nodes.session.plan import WEIGHT_MODES
from nodes.session.policy import PROTECTIONS, PolicyOrigin
from nodes.templates import coordinator_toml, node_toml, policy_toml
from nodes.toml_files import parse_settings
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

__all__ = ["command"]

_SCHEMES = [name for name, scheme in SCHEMES.items() if scheme.private]
_out = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File; stdout by default."
)
_force = click.option("--force", is_flag=True, help="Replace an existing file.")

_agreed_schemes = click.option(
    "--scheme",
    "schemes",
    default=("masking",),
    show_default=True,
    multiple=True,
    type=click.Choice(_SCHEMES),
    help="Scheme that the node agrees to; repeatable.",
)
_agreed_weights = click.option(
    "--weights",
    default=("private",),
    show_default=True,
    multiple=True,
    type=click.Choice(WEIGHT_MODES),
    help="Who may apply the node's consistency weight; repeatable.",
)


@click.group()
def command() -> None:
    """Write commented configuration files with every setting and its default."""


@command.group()
def init() -> None:
    """Write a new configuration file.

    \b
    Examples:
      secagg config init coordinator --out coordinator.toml
      secagg config init node --coordinator tcp://host:7710 --out node.toml
      secagg config init policy --out policy.toml
    """  # noqa: D301 - click reads the escape


@init.command("coordinator")
@_out
@_force
@click.option("--keys", default="keys", show_default=True, help="Key folder.")
@click.option("--state", default="state", show_default=True, help="State folder.")
@click.option("--bind", default="tcp://0.0.0.0:7710", show_default=True, help="Endpoint.")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="Rounds.")
@click.option("--input-dim", default=115, show_default=True, help="Features of a row.")
@click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice(_SCHEMES),
    help="How updates are summed.",
)
@weights_option
def init_coordinator(
    out: Path | None,
    force: bool,
    keys: str,
    state: str,
    bind: str,
    rounds: int,
    input_dim: int,
    scheme: str,
    weights: str,
) -> None:
    """Write coordinator.toml.

    \b
    Examples:
      secagg config init coordinator --rounds 20 --out coordinator.toml
    """  # noqa: D301 - click reads the escape
    if weights == "coordinator" and scheme != "ckks":
        raise ConfigError(
            f"under {scheme} the coordinator cannot weigh what it does not see",
            hint="use --scheme ckks, or --weights private",
        )
    values: dict[str, dict[str, Any]] = {
        "coordinator": {"keys": keys, "state": state, "bind": bind},
        "run": {"rounds": rounds, "scheme": scheme, "weights": weights},
        "model": {"input_dim": input_dim},
    }
    _write(coordinator_toml(values), out, force=force)


@init.command("node")
@_out
@_force
@click.option("--keys", default="keys", show_default=True, help="Key folder.")
@click.option("--state", default="state", show_default=True, help="State folder.")
@click.option(
    "--coordinator", default="tcp://127.0.0.1:7710", show_default=True, help="Endpoint to join."
)
@click.option("--source", default="builtin", show_default=True, help="Data of this site.")
@click.option("--device", default="", help="Device of the data, if it has several.")
@click.option(
    "--policy",
    default="",
    metavar="FILE",
    help="Name a policy file in place of the table [policy]; `config init policy` writes one.",
)
@_agreed_schemes
@_agreed_weights
@click.pass_context
def init_node(
    context: click.Context,
    out: Path | None,
    force: bool,
    keys: str,
    state: str,
    coordinator: str,
    source: str,
    device: str,
    policy: str,
    schemes: tuple[str, ...],
    weights: tuple[str, ...],
) -> None:
    """Write node.toml.

    \b
    Examples:
      secagg config init node --coordinator tcp://hub:7710 --source /data/nbaiot \\
        --device Danmini_Doorbell --out node.toml
      secagg config init node --policy policy.toml --out node.toml
    """  # noqa: D301 - click reads the escape
    values: dict[str, dict[str, Any]] = {
        "node": {"keys": keys, "state": state, "coordinator": coordinator, "policy": policy},
        "data": {"source": source, "device": device},
    }
    if not policy:
        values["policy"] = {"schemes": schemes, "weights": weights}
    for name in ("schemes", "weights") if policy else ():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{policy} says what the node agrees to: leave --scheme and --weights to "
                "`secagg config init policy`",
                context,
            )
    _write(node_toml(values), out, force=force)


@init.command("policy")
@_out
@_force
@click.option("--min-cohort", default=3, show_default=True, help="Fewest nodes in a round.")
@_agreed_schemes
@_agreed_weights
@click.option(
    "--require",
    default="none",
    show_default=True,
    type=click.Choice(PROTECTIONS),
    help="Whom the noise of a round must protect: a whole node, or one row of its data.",
)
@click.option("--epsilon", type=float, help="Budget of that unit.")
@click.option("--delta", type=float, help="Probability with which that bound may fail.")
def init_policy(out: Path | None, force: bool, **values: Any) -> None:
    """Write policy.toml, which the coordinator cannot override; node.toml names it.

    \b
    Examples:
      secagg config init policy --min-cohort 10 --out policy.toml
      secagg config init policy --require client --epsilon 8 --delta 1e-5
    """  # noqa: D301 - click reads the escape
    text = policy_toml(values)
    to_policy(parse_settings(Path("policy.toml"), text, PolicySection), PolicyOrigin(prefix=""))
    _write(text, out, force=force, check="policy check")


def _write(text: str, out: Path | None, *, force: bool, check: str = "preflight --config") -> None:
    if out is None:
        click.echo(text)
        return
    if out.exists() and not force:
        raise ConfigError(f"{out} exists", hint="choose another --out, or pass --force")
    try:
        out.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"cannot write {out}: {error.strerror}", hint="choose another --out"
        ) from error
    click.echo(f"wrote {out}; check it with: secagg {check} {out}", err=True)
