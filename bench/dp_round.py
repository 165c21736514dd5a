"""What client-level noise adds to a masked round: CPU of the roles, and wall time over sockets.

::

    python -m bench.dp round [--nodes 10] [--dim 1000000] [--sockets 3]

In process: the protocol by `bench.cohort`, and around it what a node does from its update to the
vector that it masks, and the coordinator from the opened sum to the mean, by the functions of the
session. With `--sockets`, so many runs of real daemons of each kind, in turn.

A sum of ten nodes under noise worth its name is all noise, and such rounds are void. So the noise
is small here; the sampler's time does not depend on how wide it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.cohort import make_setup, play
from bench.common import BenchError, describe_machine, median_cpu_s
from bench.federation import Federation, model_of
from fl_core.training import LocalUpdate
from nodes.session.contribution import encode_update, read_sum
from nodes.session.noised import noised_input, read_noised_sum
from nodes.session.privacy import MAX_DIM_OF_LEVELS, components_of
from nodes.supervisor import Fleet
from nodes.telemetry import Record
from nodes.templates import coordinator_toml, node_toml
from nodes.threads import use_one_blas_thread
from secagg import ring
from secagg.dp.encoding import PrivateEncoding, default_segments
from secagg.dp.excess import new_seeds
from secagg.dp.levels import choose_levels
from secagg.dp.terms import DISCRETE_GAUSSIAN, NoiseTerms
from secagg.encoding import FixedPoint, Segment
from secagg.errors import SecAggError
from secagg.masking.parameters import choose
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.types import RingVector

__all__ = ["KINDS", "Kind", "RoundCost", "main", "measure"]

EMBEDDING: Final = 8
VALUE_BITS: Final = 16
SCALE: Final = 1 << 11
"""M of the product's default."""
MULTIPLIER: Final = 0.02
TARGET: Final = 0.2
"""Of a round's wall time, at a million parameters."""
SOCKET_PRIVACY: Final[dict[str, Any]] = {
    "unit": "client",
    "epsilon": 60.0,
    "delta": 0.1,
    "spare": 0.0,
    "noise_multiplier": 0.2,
}
"""So little noise that a sum of ten nodes mostly has a mean, and no budget is for more than two
rounds; it protects nobody."""


@dataclass(frozen=True)
class Kind:
    """How a round is noised."""

    name: str
    noised: bool = True
    rotation: bool = False
    levels: int = 0
    """Levels of noise beside 0 that can be given back."""


KINDS: Final = (
    Kind("no noise", noised=False),
    Kind("noise"),
    Kind("noise, rotation", rotation=True),
    Kind("noise, levels", levels=4),
    Kind("noise, rotation, levels", rotation=True, levels=4),
)


@dataclass(frozen=True)
class RoundCost:
    """CPU seconds of one round."""

    kind: str
    ring_bits: int
    upload: int
    """Bytes that a node sends in all, at most."""
    node_protocol_s: float
    node_input_s: float
    """From the update to the vector that is masked."""
    server_protocol_s: float
    server_output_s: float
    """From the opened sum to the mean."""

    @property
    def node_s(self) -> float:
        return self.node_protocol_s + self.node_input_s

    @property
    def server_s(self) -> float:
        return self.server_protocol_s + self.server_output_s


def measure(kind: Kind, *, nodes: int, dim: int, repetitions: int = 5) -> RoundCost:
    """Measure one kind of round without dropouts; all that may be given back is."""
    parameters = choose(nodes)
    setup = make_setup(nodes, dim, parameters, value_bits=VALUE_BITS)
    update = LocalUpdate(
        delta=np.random.default_rng(0).normal(0, 1e-4, dim - EMBEDDING - 1).astype(np.float32),
        centroid=np.full(EMBEDDING, 0.3, np.float32),
        weight=0.5,
        distance=1.0,
        loss=1.0,
        samples=100,
    )
    give, read, setup = _noised(kind, setup, update) if kind.noised else _plain(setup, update)
    node_input = median_cpu_s(give, repetitions=repetitions)
    server_output = median_cpu_s(read, repetitions=repetitions)
    cost = play(replace(setup, noise_levels=()), dropout=0.0)  # seeds are some bytes more
    if not cost.exact:
        raise BenchError("the sum is not exact")
    node = sum(statistics.median(times) for times in cost.client_s.values())
    node += sum(statistics.median(times) for times in cost.client_codec_s.values())
    return RoundCost(
        kind.name,
        setup.ring_bits,
        max(cost.upload.values()),
        node + statistics.median(cost.client_made_s),
        node_input,
        cost.server_s + cost.codec_s + cost.server_made_s,
        server_output,
    )


_Work = tuple[Callable[[], object], Callable[[], object], RoundSetup]


def _plain(setup: RoundSetup, update: LocalUpdate) -> _Work:
    dim = setup.dim - EMBEDDING - 1
    segments = (
        Segment("update", dim, 4.0),
        Segment("centroid", EMBEDDING, EMBEDDING**0.5),
        Segment("weight", 1, 1.0),
        Segment("loss", 1, 100.0),
        Segment("samples", 8, 1.0),
        Segment("clipped", 1, 1.0),
    )
    encoding = FixedPoint(segments, VALUE_BITS, setup.ring_bits)
    total = np.full(encoding.dim, 1 << (VALUE_BITS - 1), np.uint32)
    weights = (1,) * len(setup.cohort)
    return (
        lambda: encode_update(update, encoding, os.urandom),
        lambda: read_sum(total, weights, encoding),
        setup,
    )


def _noised(kind: Kind, setup: RoundSetup, update: LocalUpdate) -> _Work:
    n, dim = len(setup.cohort), setup.dim - EMBEDDING - 1
    honest = setup.quorum - setup.colluders
    levels = choose_levels(n, setup.quorum, kind.levels) if kind.levels else ()
    terms = NoiseTerms(DISCRETE_GAUSSIAN, 1.0, SCALE, MULTIPLIER, honest, kind.rotation, levels)
    segments = default_segments(1.0, update_dim=dim, centroid_dim=EMBEDDING)
    encoding = PrivateEncoding(segments, terms)
    setup = replace(setup, ring_bits=encoding.ring_bits(n), noise_levels=levels)
    parts = components_of(encoding, n, setup.colluders)
    given = noised_input(update, encoding, setup, os.urandom)
    total: RingVector = ring.reduce(given.vector * np.uint32(n), setup.ring_bits)
    excess = {node: new_seeds(parts, os.urandom) for node in setup.cohort} if levels else {}
    result = SumReady(total, setup.cohort, (1,) * n, excess)
    return (
        lambda: noised_input(update, encoding, setup, os.urandom),
        lambda: read_noised_sum(result, encoding, setup),
        setup,
    )


def report(costs: Sequence[RoundCost]) -> str:
    """Return the costs as Markdown, each beside the round without noise."""
    lines = [
        "| CPU ms | ring bits | up MB | node: input | protocol | coordinator: protocol | output "
        "| added a node | added coordinator |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    plain = costs[0]
    for each in costs:
        times = (
            each.node_input_s,
            each.node_protocol_s,
            each.server_protocol_s,
            each.server_output_s,
            each.node_s - plain.node_s,
            each.server_s - plain.server_s,
        )
        cells = " | ".join(f"{1000 * value:.1f}" for value in times)
        lines.append(f"| {each.kind} | {each.ring_bits} | {each.upload / 1e6:.2f} | {cells} |")
    return "\n".join(lines)


# --- over sockets ----------------------------------------------------------------------------


class _Editing:
    """Starts processes whose configuration it has changed first."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def start(self, name: str, arguments: Sequence[str], log: Path) -> None:
        path = Path(arguments[-1])
        values = tomllib.loads(path.read_text())
        values["policy"]["collusion"] = 0.0  # so that the noise of all ten counts
        path.write_text(node_toml(values))
        self._fleet.start(name, list(arguments), log)


class _NoisedFederation(Federation):
    def _start_nodes(self, fleet: Fleet, endpoint: str) -> None:
        super()._start_nodes(_Editing(fleet), endpoint)  # type: ignore[arg-type]


def over_sockets(kind: Kind, *, nodes: int, dim: int, rounds: int = 2) -> list[float]:
    """Run one federation of daemons; return the seconds of its rounds that had a result.

    The first round is left out: every node then works out what such a round costs.
    """
    with tempfile.TemporaryDirectory(prefix="secagg-bench-") as folder:
        run = _NoisedFederation(Path(folder), "masking", model_of(dim), n=nodes, rounds=rounds)
        path = Path(folder) / "coordinator.toml"
        values = tomllib.loads(path.read_text())
        values["run"].update(collusion=0.0, dropout=0.3, phase_timeout=120.0)
        if kind.noised:
            noise = {"rotation": kind.rotation, "excess_levels": kind.levels}
            values["privacy"] = {**SOCKET_PRIVACY, **noise}
        path.write_text(coordinator_toml(values))
        with contextlib.closing(run.records()) as records:
            return list(round_times(records))


def round_times(records: Iterable[Record]) -> Iterator[float]:
    """Yield the seconds from the offer of a round to its end, of all that ended well but the first.

    A round before that drowned in its noise changes nothing: the wait after it is not counted.
    """
    started: list[float] = []
    for record in records:
        if record["event"] == "round.started":
            started.append(record["at"])
        elif record["event"] == "round.done" and len(started) > 1:
            yield record["at"] - started[-1]


def compare_sockets(*, nodes: int, dim: int, turns: int) -> str:
    """Run the kinds in turn, as many as there are by default; return quartiles as Markdown."""
    kinds = [kind for kind in KINDS if not kind.levels or dim <= MAX_DIM_OF_LEVELS]
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for _ in range(turns):
        for kind in kinds:
            found[kind.name] += over_sockets(kind, nodes=nodes, dim=dim)
    lines = ["| ms | rounds | wall (quartiles) | over no noise |", "|---|--:|--:|--:|"]
    plain = statistics.median(found[KINDS[0].name] or [math.nan])
    for name, times in found.items():
        if not times:
            lines.append(f"| {name} | 0 | – | – |")
            continue
        low, middle, high = np.percentile([1000 * each for each in times], [25, 50, 75])
        added = middle / 1000 / plain - 1
        lines.append(
            f"| {name} | {len(times)} | {middle:.0f} ({low:.0f}–{high:.0f}) | {added:+.0%} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.dp round", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--dim", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--sockets", type=int, default=0, help="runs of daemons of each kind")
    parser.add_argument("--out", type=Path, help="write dp_round.json into this folder")
    options = parser.parse_args(arguments)
    use_one_blas_thread()  # as the daemons do
    try:
        measure(KINDS[0], nodes=options.nodes, dim=options.dim, repetitions=1)  # warms memory up
        costs = [
            measure(kind, nodes=options.nodes, dim=options.dim, repetitions=options.repetitions)
            for kind in KINDS
        ]
        print(report(costs), flush=True)
        if options.sockets:
            found = compare_sockets(nodes=options.nodes, dim=options.dim, turns=options.sockets)
            print(f"\n{found}\n\nTarget: at most {TARGET:+.0%}.")
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        facts = {"machine": asdict(describe_machine()), "costs": [asdict(each) for each in costs]}
        (options.out / "dp_round.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
