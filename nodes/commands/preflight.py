"""`secagg preflight`: what is wrong, before a run, and how to mend it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from nodes.commands.options import config_option, json_option

__all__ = ["command"]

FAILED = 7


@click.command()
@config_option
@json_option
def command(config: Path, as_json: bool) -> None:
    """Check keys, clocks, ports, roster, data and versions, and say how to mend what is wrong.

    Works on coordinator.toml and node.toml alike. Exit code 7 if a check fails.

    \b
    Examples:
      secagg preflight --config node.toml
    """  # noqa: D301 - click reads the escape
    from nodes.preflight import preflight

    findings = []
    for finding in preflight(config):
        findings.append(finding)
        if not as_json:
            mark = (
                click.style("pass", fg="green") if finding.passed else click.style("FAIL", fg="red")
            )
            click.echo(f"{mark}  {finding.name:<14} {finding.detail}")
            if not finding.passed and finding.hint:
                click.echo(f"      {'':<14} mend: {finding.hint}")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    if not all(finding.passed for finding in findings):
        click.get_current_context().exit(FAILED)
