"""The node's policy as a file: what may stand in it, what is refused, and which line says what.

A policy is the file policy.toml that `[node] policy` names, or the table [policy] of node.toml; the
keys are the same. Source: specs/56-policy.md section 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from nodes.session.plan import WEIGHT_MODES
from nodes.session.policy import PROTECTIONS, NodePolicy, PolicyOrigin
from nodes.toml_files import Settings, key_lines, parse_settings, read_text
from secagg.assumptions import DEFAULT_COLLUSION
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES
from secagg.types import MAX_COHORT

__all__ = ["PolicySection", "load_policy", "origin_of", "to_policy"]


class PolicySection(Settings, frozen=True):
    """What this node agrees to; the coordinator cannot override it."""

    min_cohort: int = 3
    """Fewest nodes a round may have been offered to."""
    schemes: tuple[str, ...] = ("masking",)
    """Schemes this node takes part in: `masking`, `ckks`."""
    weights: tuple[str, ...] = ("private",)
    """Who may apply this node's consistency weight: `private` is the node itself; `coordinator`, a
    choice under `ckks`, also has the node disclose one number a round, how far its data stand from
    the others'."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may collude with the coordinator: a round must
    withstand it even if all of them are in it."""
    require: str = "none"
    """Whom the noise of a round must protect: `client` is this whole node, `record` is one row of
    its data, `none` asks for no noise. One is not taken for another."""
    epsilon: float | None = None
    """Budget of that unit: the node refuses a round that would bring all that its ledger holds,
    over all runs, above it. Below 1 is strong, above 10 is little."""
    delta: float | None = None
    """Probability with which that bound may fail; well below one in the number of nodes (`client`)
    or of this node's rows (`record`)."""
    architectures: tuple[str, ...] | None = None
    """Models this node trains, as `secagg policy check --coordinator` prints them: SHA-256 of kind,
    names and shapes, 64 hexadecimal digits. Unset, any."""
    max_learning_rate: float | None = None
    """Greatest learning rate of the local training. Unset, any."""
    max_steps: int | None = None
    """Most optimiser steps of one round: what a round may cost this machine. Unset, any."""
    min_difference: int = 0
    """Fewest nodes by which the cohort of a round may differ from that of the last sum this node
    was in; the same cohort is always taken. Two sums over cohorts that differ by one node tell
    nearly what that node gave. Above 1, a node that drops out costs the others rounds until it is
    back or more are away; to help against colluding nodes it must be two more than those."""
    max_rounds_a_day: int | None = None
    """Most rounds this node begins within 24 hours. Unset, any."""


@dataclass(frozen=True, slots=True)
class _Blame:
    """Refuses a setting by its line and name."""

    origin: PolicyOrigin

    def refuse(self, key: str, what: str, hint: str) -> NoReturn:
        """Raise ConfigError.

        Raises:
            ConfigError: always.
        """
        place = f"{self.origin.where(key)}: " if self.origin.file else ""
        raise ConfigError(f"{place}{self.origin.prefix}{key} {what}", hint=hint)


def load_policy(path: Path) -> tuple[PolicySection, PolicyOrigin]:
    """Read policy.toml.

    Raises:
        ConfigError: with the file, the line, the key and the reason.
    """
    text = read_text(path)
    section = parse_settings(path, text, PolicySection)
    origin = origin_of(path.name, text)
    try:
        to_policy(section, origin)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return section, origin


def origin_of(file: str, text: str, table: str = "") -> PolicyOrigin:
    """Return where each setting of a policy stands.

    Args:
        file: Name of the file, without folders.
        text: Its TOML.
        table: The table that holds the policy; "" if it is the whole file.
    """
    above = (table,) if table else ()
    lines = {
        path[-1]: line
        for path, line in key_lines(text).items()
        if path[:-1] == above and path[-1] in PolicySection.__struct_fields__
    }
    return PolicyOrigin(file, lines, f"{table}." if table else "")


def to_policy(section: PolicySection, origin: PolicyOrigin) -> NodePolicy:
    """Return the policy that offers are held against (G-03).

    Raises:
        ConfigError: a setting is out of range, at odds with another, or refuses every round.
    """
    blame = _Blame(origin)
    _check_numbers(section, blame)
    if not 0 <= section.collusion < 0.5:
        blame.refuse(
            "collusion",
            f"is {section.collusion:g}",
            "use at least 0 and less than 0.5; the default is 0.33, just below a third",
        )
    _check_choices(blame, "schemes", section.schemes, tuple(SCHEMES))
    _check_choices(blame, "weights", section.weights, WEIGHT_MODES)
    if section.weights == ("coordinator",) and "ckks" not in section.schemes:
        blame.refuse(
            "weights",
            "allows only 'coordinator', which only the scheme ckks has",
            f"add 'ckks' to {origin.prefix}schemes, or 'private' to {origin.prefix}weights",
        )
    _check_privacy(section, blame)
    values = {name: getattr(section, name) for name in PolicySection.__struct_fields__}
    values["architectures"] = _digests(section.architectures, blame)
    return NodePolicy(**values, origin=origin)


_RANGES: Final[Mapping[str, tuple[float, float, str]]] = {
    "min_cohort": (3, MAX_COHORT, "a sum over fewer than 3 nodes hides nobody"),
    "epsilon": (1e-3, 1e3, "an epsilon of 1000 or more bounds nothing"),
    "delta": (1e-15, 0.1, "it is a probability, well below one in the number of protected units"),
    "max_learning_rate": (1e-8, 10.0, "no offer is outside"),
    "max_steps": (1, 100_000, "no offer is outside"),
    "min_difference": (0, MAX_COHORT, "0 takes any cohort"),
    "max_rounds_a_day": (1, 1_000_000, "stop the node to take part in none"),
}
"""Setting to its least and greatest value and to why; all of them may be reached."""


def _check_numbers(section: PolicySection, blame: _Blame) -> None:
    for key, (low, high, why) in _RANGES.items():
        value = getattr(section, key)
        if value is None or low <= value <= high:  # NaN is in no range
            continue
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        blame.refuse(key, f"is {shown}", f"use {low:g} to {high:g}: {why}")


def _check_choices(
    blame: _Blame, key: str, chosen: tuple[str, ...], known: tuple[str, ...]
) -> None:
    """Refuse a list of the policy that allows nothing, or something that does not exist."""
    secure = [name for name in known if name != "insecure-plain"]
    hint = f"use one or more of: {', '.join(secure)}"
    if not chosen:
        blame.refuse(key, "is empty: every round would be refused", hint)
    for name in chosen:
        if name not in known:
            blame.refuse(key, f"has no choice {name!r}", hint)


def _check_privacy(section: PolicySection, blame: _Blame) -> None:
    """A budget without a unit bounds nothing, and a unit without a budget may be spent for ever."""
    if section.require not in PROTECTIONS:
        hint = f"use one of: {', '.join(PROTECTIONS)}"
        blame.refuse("require", f"is {section.require!r}", hint)
    for key in ("epsilon", "delta"):
        if section.require == "none" and getattr(section, key) is not None:
            blame.refuse(
                key, "is a budget of no unit", 'set require = "client" or "record", or leave it out'
            )
        if section.require != "none" and getattr(section, key) is None:
            example = {"epsilon": "epsilon = 8.0", "delta": "delta = 1e-5"}[key]
            blame.refuse(
                "require", f"is {section.require!r} without {key}", f"add {example}, or the like"
            )


def _digests(found: tuple[str, ...] | None, blame: _Blame) -> tuple[str, ...] | None:
    if found is None:
        return None
    hint = "use the 64 digits that `secagg policy check --coordinator` prints, or leave it out"
    if not found:
        blame.refuse("architectures", "is empty: every round would be refused", hint)
    for digest in found:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            blame.refuse("architectures", f"has {digest[:80]!r}, which is no SHA-256", hint)
    return tuple(digest.lower() for digest in found)
