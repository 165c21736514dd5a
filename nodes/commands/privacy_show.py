"""`secagg privacy show`: a ledger in rounds and in total, by unit of privacy."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from nodes.commands.options import NumberRange
from nodes.privacy_ledger import LEDGER, LedgerReading, read_ledger
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import (
    UNITS,
    PrivacyEvent,
    SampledGaussian,
    SumNoise,
    Unprotected,
    ZeroConcentrated,
)
from secagg.dp.ledger import Entry, History
from secagg.dp.planning import plain_sentence
from secagg.dp.printed import at_least, at_most

__all__ = ["command"]

_COLUMNS: Final = {
    "date": "date (UTC)",
    "run": "run",
    "rounds": "rounds",
    "unit": "unit",
    "mechanism": "mechanism",
    "noise": "noise",
    "epsilon_alone": "ε of one",
    "epsilon_so_far": "ε so far",
}
"""Key of the JSON output to heading of the table."""
_LEFT: Final = ("date", "run", "unit", "mechanism")
_MOST_SUMS: Final = 64
"""Rows that are given the ε up to them: one can take a tenth of a second."""
_WIDTH: Final = 100
_PIPE_WIDTH: Final = 140


@dataclass(frozen=True, slots=True)
class _Fold:
    """Successive entries of one run that did the same."""

    first: Entry
    last: Entry
    count: int


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option(
    "--delta",
    default=1e-5,
    show_default=True,
    type=NumberRange(0, 1, min_open=True, max_open=True),
    help="Probability with which the bound may fail.",
)
@click.option(
    "--epsilon",
    "budget",
    type=NumberRange(0, min_open=True),
    help="Budget, to print what is left of it.",
)
@click.option("--all", "unfold", is_flag=True, help="A line for every round, none folded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; an infinite ε is null.")
def command(
    ledger: Path, *, delta: float, budget: float | None, unfold: bool, as_json: bool
) -> None:
    """Print what was spent by the rounds of LEDGER, a state folder or the ledger in it.

    The ledger may be in use. Every line is verified first: if one was edited, moved or removed, or
    if the file is an older copy, its number and the remedy are printed, and the exit code is 5.
    ε is composed over all rounds of a unit; columns of two units are not added up.

    \b
    secagg privacy show state
    secagg privacy show state --epsilon 8 --delta 1e-6
    secagg privacy show state/privacy.jsonl --json
    """  # noqa: D301 - click reads the escape
    path = ledger / LEDGER if ledger.is_dir() else ledger
    reading = read_ledger(path)  # B-12: verified before anything is printed
    rows = list(_rows(reading.history, delta, unfold=unfold))
    totals = _totals(reading.history, delta, budget)
    if as_json:
        click.echo(json.dumps(_report(path, reading, delta, rows, totals), indent=2))
        return
    _print(rows)
    _say(path, reading, delta, totals)


def _folds(entries: Sequence[Entry], *, unfold: bool) -> Iterator[_Fold]:
    def same(entry: Entry) -> tuple[Any, ...]:
        return (entry.index if unfold else 0, entry.run_id, entry.unit, entry.event)

    for _, group in groupby(entries, key=same):
        held = list(group)
        yield _Fold(held[0], held[-1], len(held))


def _rows(history: History, delta: float, *, unfold: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each fold."""
    folds = list(_folds(history.entries, unfold=unfold))
    last = {fold.first.unit: place for place, fold in enumerate(folds)}
    pace = -(-len(folds) // _MOST_SUMS)
    done: dict[str, Counter[PrivacyEvent]] = {unit: Counter() for unit in UNITS}
    for place, fold in enumerate(folds):
        event, unit = fold.first.event, fold.first.unit
        done[unit][event] += fold.count
        summed = (place + 1) % pace == 0 or place == last[unit]
        yield {
            "date": _date(fold.first.wall_time),
            "last_date": _date(fold.last.wall_time),
            "run": fold.first.run_id.hex(),
            "first_round": fold.first.round_id,
            "last_round": fold.last.round_id,
            "rounds": fold.count,
            "unit": unit,
            **_described(event),
            "epsilon_alone": _finite(epsilon_of([event], delta)),
            **({"epsilon_so_far": _finite(epsilon_of(done[unit], delta))} if summed else {}),
        }


def _described(event: PrivacyEvent) -> dict[str, str]:
    """Name a mechanism and the noise that counts in it."""
    match event:
        case SumNoise():
            deviation = math.sqrt(event.share_variance * event.shares)
            return {"mechanism": event.mechanism, "noise": f"z = {deviation / event.l2:.4g}"}
        case SampledGaussian():
            noise = f"z = {event.noise_multiplier:.4g}, q = {event.sampling_rate:.3g}"
            return {"mechanism": "dp-sgd", "noise": f"{noise}, {event.steps} steps"}
        case ZeroConcentrated():
            return {"mechanism": "zCDP", "noise": f"rho = {event.rho:.4g}"}
        case Unprotected():
            return {"mechanism": "none", "noise": "none"}


def _totals(history: History, delta: float, budget: float | None) -> dict[str, dict[str, Any]]:
    """Return a record for each unit that has entries."""
    totals: dict[str, dict[str, Any]] = {}
    for unit in UNITS:
        if not (rounds := history.rounds(unit)):
            continue
        spent = history.spent(unit, delta)
        totals[unit] = {
            "rounds": rounds,
            "epsilon": _finite(spent),
            "sentence": plain_sentence(unit, spent, delta),
            "outside": history.outside(unit),
        }
        if budget is not None and unit != "none":
            left = history.remaining(unit, delta, budget)
            totals[unit] |= {"budget": budget, "left": left, "overspent": not spent <= budget}
    return totals


def _report(
    path: Path,
    reading: LedgerReading,
    delta: float,
    rows: list[dict[str, Any]],
    totals: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    return {
        "ledger": str(path),
        "entries": len(reading.history),
        "head": reading.history.head.hex(),
        "unfinished_bytes": len(reading.fragment),
        "delta": delta,
        "totals": totals,
        "rounds": rows,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD)
    for key, title in _COLUMNS.items():
        table.add_column(title, justify="left" if key in _LEFT else "right")
    for row in rows:
        span = f"{row['first_round']}"
        if row["rounds"] > 1:
            span += f" to {row['last_round']} ({row['rounds']})"
        shown = {**row, "run": row["run"][:8], "rounds": span}
        table.add_row(*(_cell(shown.get(key, "")) for key in _COLUMNS))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=_PIPE_WIDTH)
    console.print(table)


def _say(
    path: Path, reading: LedgerReading, delta: float, totals: dict[str, dict[str, Any]]
) -> None:
    """Print totals, what they mean, and what was verified."""
    for unit, total in totals.items():
        line = (
            f"{unit:<7} {_rounds(total['rounds'])}, ε = {_cell(total['epsilon'])} at δ = {delta:g}"
        )
        if "budget" in total:
            line += f" of {total['budget']:g}, {at_most(total['left'])} left"
        click.echo(line)
        for text in (total["sentence"], *_outside(unit, total["outside"])):
            click.echo(textwrap.indent(textwrap.fill(text, _WIDTH - 8), " " * 8))
    history = reading.history
    click.echo(f"{path}: {_rounds(len(history))}, chain verified, head {history.head.hex()[:16]}")
    torn = sum(entry.torn is not None for entry in history.entries)
    if torn:
        follow = "1 entry follows" if torn == 1 else f"{torn} entries follow"
        click.echo(f"{follow} a write that was cut off, named there")
    if reading.fragment:
        click.echo(
            f"{len(reading.fragment)} bytes behind the last entry: a write that was cut off, or is "
            "under way; its round had sent nothing, and the next entry names it"
        )


def _outside(unit: str, others: dict[str, int]) -> Iterator[str]:
    """Say which rounds the number of a unit leaves out."""
    if unit == "client" and "record" in others:
        yield f"Not in it: {_rounds(others['record'])} of unit record, which protect no whole node."
    if unit == "record" and "client" in others:
        yield (
            f"Not in it: {_rounds(others['client'])} of unit client, which protect each row too: "
            "two steps away, (2ε, (1 + e^ε)δ)."
        )
    if unit != "none" and "none" in others:
        count = _rounds(others["none"])
        yield f"Not in it: {count} without noise, about whose data nothing is promised."


def _rounds(count: int) -> str:
    return f"{count} round" + ("s" if count != 1 else "")


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def _cell(value: object) -> str:
    """Return a cell's text; ε has four digits and is never below the truth (B-12)."""
    if value is None:
        return "∞"
    return at_least(value) if isinstance(value, float) else str(value)


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):  # a clock beyond the year 9999
        return str(seconds)
