"""What secure aggregation adds to a round of real daemons, and where the time goes.

::

    python -m bench.sockets --nodes 10 --dims 100000 1000000 --rounds 8

starts a coordinator and `nodes` nodes as processes (CURVE on loopback, signed envelopes, a roster,
state folders, checkpoints, memories and journals on disk), with the scheme `masking` and with
`insecure-plain` in turn, and compares the wall time of their rounds. Local training is one step on
two rows, so that little but the protocol is measured.

A round lasts from the end of the one before to its own end, by the coordinator's events; the first
of each run is not counted. The targets are in bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.common import BenchError, describe_machine
from bench.federation import Federation, RoundTime, model_of, rounds_of
from fl_core.parameters import ParamSpec
from nodes.telemetry import Record
from secagg.errors import SecAggError

__all__ = ["Comparison", "Spread", "compare", "main"]

SCHEMES: Final = ("masking", "insecure-plain")
TARGETS_S: Final = {100_000: 0.3, 1_000_000: 0.6}
"""What masking may add to a round of 10 nodes on 2 cores, by dimension."""
PHASES: Final = (
    "offer",
    "keys",
    "coins",
    "agreement",
    "shares",
    "input",
    "signatures",
    "unmask",
    "server step",
)


@dataclass(frozen=True)
class Spread:
    """Quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the quartiles of `values`."""
        low, median, high = np.percentile(np.array(values), [25, 50, 75])
        return cls(float(low), float(median), float(high))


@dataclass(frozen=True)
class Comparison:
    """Both schemes at one dimension.

    Attributes:
        nodes: Nodes of the federation.
        parameters: Of the model, exactly.
        rounds: Scheme to its rounds, over all its runs.
        runs: Scheme to the median round of each run, in the order they were made.
        peak_mb: Scheme to the coordinator's greatest resident size in each run.
    """

    nodes: int
    parameters: int
    rounds: dict[str, list[RoundTime]]
    runs: dict[str, list[float]]
    peak_mb: dict[str, list[float]]

    @property
    def added_s(self) -> float:
        """What masking adds to the median round."""
        secure, plain = (self.spread(scheme).median for scheme in SCHEMES)
        return secure - plain

    def spread(self, scheme: str) -> Spread:
        """Return the quartiles of a round's wall time."""
        return Spread.of([each.wall_s for each in self.rounds[scheme]])

    def median_of(self, scheme: str, phase: str) -> float:
        """Return the median of a phase, 0 where a scheme does not have it."""
        return Spread.of([each.phases.get(phase, 0.0) for each in self.rounds[scheme]]).median


def compare(dim: int, *, nodes: int, rounds: int, turns: int) -> Comparison:
    """Run both schemes in turn, `turns` times each.

    Raises:
        BenchError: a run failed or cannot be made.
    """
    if rounds < 2 or nodes < 3 or turns < 1:
        raise BenchError(
            f"{nodes} nodes, {rounds} rounds, {turns} turns", hint="use at least 3, 2 and 1"
        )
    model = model_of(dim)
    found: dict[str, list[RoundTime]] = {scheme: [] for scheme in SCHEMES}
    runs: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    peaks: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    for _ in range(turns):
        for scheme in SCHEMES:
            with tempfile.TemporaryDirectory(prefix="secagg-bench-") as folder:
                run = Federation(Path(folder), scheme, model, n=nodes, rounds=rounds)
                with contextlib.closing(run.records()) as records:
                    times = list(rounds_of(_noting_peak(records, peaks[scheme])))
            found[scheme] += times
            runs[scheme].append(Spread.of([each.wall_s for each in times]).median)
    return Comparison(nodes, ParamSpec.from_model(model).dim, found, runs, peaks)


def _noting_peak(records: Iterator[Record], peaks: list[float]) -> Iterator[Record]:
    for record in records:
        if record["event"] == "run.over":
            peaks.append(record["peak_memory_mb"])
        yield record


def report(found: Comparison, dim: int) -> str:
    """Return the comparison as Markdown."""
    lines = [
        f"{found.nodes} nodes, {found.parameters} parameters, "
        f"{len(found.rounds['masking'])} rounds of each scheme",
        "",
        "| ms, median | masking | plain | added |",
        "|---|--:|--:|--:|",
    ]
    for phase in PHASES:
        secure, plain = (1000 * found.median_of(scheme, phase) for scheme in SCHEMES)
        if secure or plain:
            lines.append(f"| {phase} | {secure:.0f} | {plain:.0f} | {secure - plain:+.0f} |")
    for name in ("coordinator_cpu_s", "nodes_cpu_s"):
        secure, plain = (
            1000 * Spread.of([getattr(each, name) for each in found.rounds[scheme]]).median
            for scheme in SCHEMES
        )
        lines.append(f"| *{name}* | {secure:.0f} | {plain:.0f} | {secure - plain:+.0f} |")
    cells = [found.spread(scheme) for scheme in SCHEMES]
    spreads = [f"{1000 * s.median:.0f} ({1000 * s.low:.0f}–{1000 * s.high:.0f})" for s in cells]
    lines.append(f"| **round** | {spreads[0]} | {spreads[1]} | **{1000 * found.added_s:+.0f}** |")
    for scheme in SCHEMES:
        medians = ", ".join(f"{1000 * each:.0f}" for each in found.runs[scheme])
        peak = max(found.peak_mb[scheme])
        lines.append(f"\n{scheme}: medians of its runs {medians} ms; coordinator {peak:.0f} MB")
    target = TARGETS_S.get(dim) if found.nodes == 10 else None
    if target is not None:
        lines.append(f"\nTarget: at most +{1000 * target:.0f} ms.")
    return "\n".join(lines)


def main() -> None:
    """Compare, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--dims", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=8, help="of each run; the first is left out")
    parser.add_argument("--turns", type=int, default=2, help="runs of each scheme, in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": asdict(describe_machine()), "dims": []}
    try:
        for dim in options.dims:
            found = compare(dim, nodes=options.nodes, rounds=options.rounds, turns=options.turns)
            figures["dims"].append({**asdict(found), "added_s": found.added_s})
            if not options.json:
                print(report(found, dim), end="\n\n", flush=True)
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
