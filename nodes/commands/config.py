"""`secagg config`: commented configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nodes.commands.options import weights_option
from nodes.session.plan import WEIGHT_MODES
from nodes.templates import coordinator_toml, node_toml
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES

__all__ = ["command"]

_SCHEMES = [name for name, scheme in SCHEMES.items() if scheme.private]
_out = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File; stdout by default."
)
_force = click.option("--force", is_flag=True, help="Replace an existing file.")


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
    "--scheme",
    "schemes",
    default=("masking",),
    show_default=True,
    multiple=True,
    type=click.Choice(_SCHEMES),
    help="Scheme that the node agrees to; repeatable.",
)
@click.option(
    "--weights",
    default=("private",),
    show_default=True,
    multiple=True,
    type=click.Choice(WEIGHT_MODES),
    help="Who may apply the node's consistency weight; repeatable.",
)
def init_node(
    out: Path | None,
    force: bool,
    keys: str,
    state: str,
    coordinator: str,
    source: str,
    device: str,
    schemes: tuple[str, ...],
    weights: tuple[str, ...],
) -> None:
    """Write node.toml.

    \b
    Examples:
      secagg config init node --coordinator tcp://hub:7710 --source /data/nbaiot \\
        --device Danmini_Doorbell --out node.toml
    """  # noqa: D301 - click reads the escape
    values: dict[str, dict[str, Any]] = {
        "node": {"keys": keys, "state": state, "coordinator": coordinator},
        "data": {"source": source, "device": device},
        "policy": {"schemes": schemes, "weights": weights},
    }
    _write(node_toml(values), out, force=force)


def _write(text: str, out: Path | None, *, force: bool) -> None:
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
    click.echo(f"wrote {out}; check it with: secagg preflight --config {out}", err=True)
