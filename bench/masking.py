"""Masking against Flower's SecAgg+ and against the raw limit of the machine, in one run.

::

    python -m bench.masking --peer --out bench/results

prints tables in Markdown and writes the figures as JSON. Without `--peer` nothing is installed and
only our side is measured; `--quick` leaves out what takes minutes. CPU seconds throughout, message
(de)serialisation left out on both sides. The targets are in bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.cohort import Cost, make_setup, play
from bench.common import BenchError, describe_machine, median_cpu_s
from bench.peers.environment import Environment
from bench.peers.flower import (
    FlowerCase,
    FlowerRound,
    ensure_installed,
    equal_neighbours,
    full_graph,
    measure,
    recommended,
)
from bench.raw import raw_limit
from secagg import ring
from secagg.masking.masks import Mask, apply_masks
from secagg.masking.parameters import MaskingParameters, choose
from secagg.types import RingVector

__all__ = ["main"]


@dataclass(frozen=True)
class Case:
    """One round of ours and the peer's settings beside it."""

    name: str
    nodes: int
    dim: int
    dropout: float
    ours: MaskingParameters
    peer: FlowerCase | None = None


@dataclass(frozen=True)
class Result:
    """A case's figures; CPU seconds and bytes."""

    case: Case
    client_s: float
    client_by_phase: dict[str, float]
    upload: int
    server_s: float
    codec_s: float
    recovery_s: float
    masks: int
    exact: bool
    peer: FlowerRound | None


def settings_for(n: int, dropout: float) -> MaskingParameters:
    """Return what an operator gets: the defaults up to 50 nodes, a twentieth of colluders above."""
    if n <= 50:
        return choose(n)
    return choose(n, dropout=max(dropout, 0.1), collusion=0.05)


def ring_of(n: int, neighbours: int, threshold: int) -> MaskingParameters:
    """Return a graph of given degree, whatever it withstands: for equal work beside a peer."""
    base = choose(n, dropout=0.1, collusion=0.05)
    cosigners = max((n + base.colluders) // 2 + 1, threshold)
    return MaskingParameters(
        neighbours, threshold, base.quorum, cosigners, base.colluders, base.dropouts
    )


def complete(n: int) -> MaskingParameters:
    """Return the complete graph at the default thresholds."""
    return choose(n)


def cases(*, quick: bool) -> Iterator[Case]:
    """Yield the cases in order of work."""
    for n in (10, 50, 100, 500, 1000):
        for dim in (100_000, 1_000_000):
            if quick and n * dim > 10_000_000:
                continue
            for dropout in (0.0, 0.1, 0.3):
                threshold = 5 if dropout else 7
                peer = recommended(n, dim, dropout=dropout, threshold=threshold)
                fits = n * dim <= 100_000_000  # the peer needs 20 bytes a value and node
                yield Case(
                    f"grid n={n} d={dim} drop={dropout:g}",
                    n,
                    dim,
                    dropout,
                    settings_for(n, dropout),
                    peer if fits else None,
                )
    if not quick:
        wide = choose(1024, dropout=0.05, collusion=0.05)
        yield Case("n=1024 d=2^20, 5 % each", 1024, 1 << 20, 0.0, wide)
    equal = equal_neighbours(100, 1_000_000, neighbours=10, threshold=7)
    yield Case("equal neighbours", 100, 1_000_000, 0.0, ring_of(100, 10, 7), equal)
    if not quick:
        full = full_graph(100, 1_000_000)
        yield Case("full graph", 100, 1_000_000, 0.0, complete(100), full)


def run(case: Case, environment: Environment | None) -> Result:
    """Measure one case, ours first."""
    cost = play(make_setup(case.nodes, case.dim, case.ours, value_bits=16), dropout=case.dropout)
    by_phase = {name: statistics.median(times) for name, times in cost.client_s.items()}
    peer = None
    if environment is not None and case.peer is not None:
        peer = measure(case.peer, environment)
    return Result(
        case=case,
        client_s=_client_total(cost),
        client_by_phase=by_phase,
        upload=max(cost.upload.values()),
        server_s=cost.server_s,
        codec_s=cost.codec_s,
        recovery_s=cost.recovery_s,
        masks=cost.masks,
        exact=cost.exact,
        peer=peer,
    )


def _client_total(cost: Cost) -> float:
    """Return the sum over the phases of the median node."""
    return sum(statistics.median(times) for times in cost.client_s.values())


@dataclass(frozen=True)
class AgainstRaw:
    """A part of the work beside the keystream that it cannot do without, CPU seconds.

    `ctr_s` is what AES-256-CTR takes as it is usually called, `fastest_s` the fastest way to make
    the same keystream on this machine (`bench.raw`).
    """

    name: str
    ours_s: float
    ctr_s: float
    fastest_s: float


def against_raw(dim: int = 1_000_000) -> list[AgainstRaw]:
    """Measure masking and recovery of one vector beside the raw keystream, in turn."""
    found = []

    def measure_one(name: str, masks: list[Mask], work: Callable[[], object]) -> None:
        raw = raw_limit(dim)
        ctr_s = min(raw.keystream_cached_s, raw.keystream_whole_s)
        ours_s = median_cpu_s(work, repetitions=9)
        found.append(AgainstRaw(name, ours_s, ctr_s * len(masks), raw.keystream_s * len(masks)))

    for neighbours in (9, 99):
        masks = [(bytes([index]) * 32, bool(index % 2)) for index in range(neighbours + 1)]
        vector = np.zeros(dim, dtype=np.uint32)

        def apply(vector: RingVector = vector, masks: list[Mask] = masks) -> None:
            apply_masks(vector, masks)

        def client(masks: list[Mask] = masks) -> None:
            fresh = np.zeros(dim, dtype=np.uint32)
            apply_masks(fresh, masks)
            for start in range(0, dim, 131_072):
                ring.pack(fresh[start : start + 131_072], 20)

        measure_one(f"{neighbours} neighbours: masks (client) and recovery (server)", masks, apply)
        measure_one(f"{neighbours} neighbours: masks, copy and packing (client)", masks, client)
    return found


def _row(result: Result) -> str:
    case, peer = result.case, result.peer
    cells = [
        case.name,
        str(case.ours.neighbours),
        f"{1000 * result.client_s:.1f}",
        f"{result.upload / case.dim:.3f}",
        f"{result.server_s:.3f}",
        f"{result.codec_s:.3f}",
        f"{result.masks}",
        "yes" if result.exact else "NO",
    ]
    if peer is None:
        return "| " + " | ".join([*cells, "–", "–", "–", "–"]) + " |"
    if peer.aborted or peer.client_cpu_s.total is None or peer.client_upload_bytes.total is None:
        return "| " + " | ".join([*cells, "aborted", "–", "–", "–"]) + " |"
    server = peer.server_cpu_s - peer.server_strategy_cpu_s
    cells += [
        f"{1000 * peer.client_cpu_s.total:.1f} ({peer.client_cpu_s.total / result.client_s:.1f}×)",
        f"{peer.client_upload_bytes.total / case.dim:.3f}",
        f"{server:.3f} ({server / result.server_s:.0f}×)",
        f"{peer.max_abs_error:.1e}",
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| case | k | client ms | up B/value | server s | codec s | masks | exact "
    "| peer client ms | peer up B/value | peer server s | peer error |\n"
    "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|"
)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peer", action="store_true", help="measure Flower beside ours")
    parser.add_argument("--env", type=Path, help="folder of the peer's environment")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--out", type=Path, help="write masking.json into this folder")
    options = parser.parse_args()
    try:
        environment = ensure_installed(options.env) if options.peer else None
        machine = describe_machine()
        print(f"{machine.cpu}, {machine.cores} cores; Python {machine.python}\n")
        raw = against_raw()
        print("| part, d = 1M | ours ms | AES-256-CTR ms | ratio | fastest way ms | ratio |")
        print("|---|--:|--:|--:|--:|--:|")
        for part in raw:
            print(
                f"| {part.name} | {1000 * part.ours_s:.2f} "
                f"| {1000 * part.ctr_s:.2f} | {part.ours_s / part.ctr_s:.2f} "
                f"| {1000 * part.fastest_s:.2f} | {part.ours_s / part.fastest_s:.2f} |"
            )
        print(f"\n{HEADER}", flush=True)
        results = []
        for case in cases(quick=options.quick):
            if options.only in case.name:
                results.append(run(case, environment))
                print(_row(results[-1]), flush=True)
    except BenchError as error:
        sys.exit(f"{error}: {error.hint}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        figures = {
            "machine": asdict(machine),
            "raw": [asdict(part) for part in raw],
            "cases": [asdict(result) for result in results],
        }
        (options.out / "masking.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
