"""The scheme `ckks` against NVFlare's HE and the common shared-key CKKS, in one run.

::

    python -m bench.ckks --peer --out bench/results

prints three tables in Markdown (all schemes side by side, ours by who vanishes, the ratios that
were asked for) and writes the figures as JSON. Without `--peer` nothing is installed and only our
side is measured. CPU seconds throughout, of all threads. Making messages into bytes and reading
them is counted on every side: the peers spend much of their time there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from bench.ckks_round import SEED, VANISHING, OurRound, make_ckks_setup, measure
from bench.cohort import VALUE_BITS
from bench.common import BenchError, describe_machine
from bench.peers import nvflare, shared_ckks
from bench.peers.environment import Environment
from bench.peers.shared_ckks import SharedKeyCase, SharedKeyRound
from secagg.ckks.headroom import affordable_weight
from secagg.ckks.parameters import CkksParameters, choose
from secagg.errors import SecAggError

__all__ = ["Bar", "Result", "bars", "main", "run"]

FLOAT32 = 4
"""Bytes a value of the next model, in which nodes get our result; the peers' is encrypted."""
SAME = 1.25
"""Two times of the same work count as equal below this ratio: machines are shared."""
PEERS = ("nvflare", "shared key")

PeerRound: TypeAlias = SharedKeyRound | str
"""A peer's figures, or why there are none."""


@dataclass(frozen=True)
class Result:
    """A case's figures: ours by who vanishes, and the peers' by name."""

    nodes: int
    dim: int
    parameters: CkksParameters
    ours: dict[str, OurRound]
    weighted: OurRound
    """The same with the coordinator's weights, nobody vanishing."""
    peers: dict[str, PeerRound]

    def peer(self, name: str) -> SharedKeyRound | None:
        """Return a peer's figures, or None."""
        found = self.peers.get(name)
        return found if isinstance(found, SharedKeyRound) else None


def run(nodes: int, dim: int, environment: Environment | None, *, rounds: int = 1) -> Result:
    """Measure one case, ours first; peers only with NVFlare's environment."""
    parameters = choose(nodes, value_bits=VALUE_BITS)
    setup = make_ckks_setup(nodes, dim, parameters)
    ours = {when: measure(setup, vanishing=when, rounds=rounds) for when in VANISHING}
    most = affordable_weight(nodes, VALUE_BITS)
    heavier = choose(nodes, value_bits=VALUE_BITS, max_weight=most)
    weighted = measure(make_ckks_setup(nodes, dim, heavier), rounds=rounds)
    peers: dict[str, PeerRound] = {}
    if environment is not None:
        case = SharedKeyCase(nodes, dim, SEED, VALUE_BITS)
        peers["nvflare"] = _or_reason(lambda: nvflare.measure(case, environment))
        peers["shared key"] = _or_reason(lambda: shared_ckks.measure(case))
    return Result(nodes, dim, parameters, ours, weighted, peers)


def _or_reason(measure_it: Callable[[], SharedKeyRound]) -> PeerRound:
    try:
        return measure_it()
    except BenchError as error:
        return str(error).splitlines()[0]


@dataclass(frozen=True)
class Bar:
    """What was asked for and what this run found; `figure` is None where it was not measured."""

    what: str
    figure: float | None
    bar: float
    least: bool = False
    """Whether the figure has to be at least the bar; otherwise at most."""

    @property
    def verdict(self) -> str:
        """Whether it was met."""
        if self.figure is None:
            return "not measured"
        met = self.figure >= self.bar if self.least else self.figure <= self.bar
        return "met" if met else "MISSED"


def bars(results: list[Result]) -> Iterator[Bar]:
    """Yield what was asked for, each with the worst of this run's figures."""
    plain = [(each, each.ours["nobody"]) for each in results]
    beside = [(each, ours, peer) for each, ours in plain if (peer := each.peer("nvflare"))]
    million = [case for case in beside if case[0].dim == 1_000_000]
    few = [case for case in million if case[0].nodes == 10]

    cipher = [ours.cipher / each.dim for each, ours in plain]
    yield Bar("ciphertext, bytes a value", _worst(cipher), 8)
    yield Bar("ciphertext, bytes a value, bit-packed", _worst(cipher), 6.8)
    shares = [ours.shares / 1000 for _, ours in plain]
    yield Bar("shares of a secret, sealed, kB", _worst(shares), 200)
    for name in reversed(PEERS):
        less = [p.upload_bytes / ours.upload for each, ours in plain if (p := each.peer(name))]
        what = f"upload of {name} over ours, shares included"
        yield Bar(what, min(less, default=None), 7, least=True)
    client = [(ours.client_s + ours.duty_s) / peer.client_s for _, ours, peer in million]
    what = "client over NVFlare's, d = 1M, committee duty included"
    yield Bar(what, _worst(client), 2 / 3)
    heavier = [
        (case.weighted.client_s + case.weighted.duty_s) / p.client_s for case, _, p in million
    ]
    yield Bar("the same, with the coordinator's weights", _worst(heavier), 2 / 3)
    server = [ours.server_s / peer.server_s for _, ours, peer in few]
    what = "coordinator over NVFlare's, n = 10, d = 1M, opening included"
    yield Bar(what, _worst(server), 1 / 6)
    slower = [
        later.open_s / ours.open_s
        for each, ours in plain
        for when, later in each.ours.items()
        if when != "nobody"
    ]
    yield Bar("opening, most dropouts over none", _worst(slower), SAME)
    yield Bar("committee CPU, largest d over smallest", _growth(results, "duty_s"), SAME)
    sizes = _growth(results, "duty_received"), _growth(results, "duty_sent")
    growth = _worst([size for size in sizes if size is not None])
    yield Bar("committee bytes, largest d over smallest", growth, 1)
    every = [o.error for each in results for o in (*each.ours.values(), each.weighted)]
    yield Bar("error on integers", _worst(every), 0)


def _worst(figures: list[float]) -> float | None:
    return max(figures, default=None)


def _growth(results: list[Result], of: str) -> float | None:
    """Return the greatest ratio of a figure between the largest d and the smallest, by n."""
    found = []
    for nodes in {each.nodes for each in results}:
        row = sorted((e for e in results if e.nodes == nodes), key=lambda each: each.dim)
        if row[0].dim < row[-1].dim:
            first, last = (float(getattr(each.ours["nobody"], of)) for each in (row[0], row[-1]))
            found.append(last / first)
    return _worst(found)


SIDE_BY_SIDE = (
    "| n | d | scheme | client ms | and committee | up B/value | down B/value "
    "| coordinator adds, ms | in all, ms | opening ms | error |\n"
    "|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)
BY_DROPOUTS = (
    "| n | d | vanish | when | opening ms | coordinator in all, ms | duty of a member, ms "
    "| it receives, kB | it sends, kB | error |\n"
    "|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|"
)
ASKED = "| asked for | this run | bar | |\n|---|--:|--:|---|"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _ours(case: tuple[int, int], name: str, ours: OurRound) -> str:
    dim = case[1]
    shares = (ours.upload - ours.cipher) / dim
    return _line(
        [
            *case,
            name,
            _ms(ours.client_s),
            _ms(ours.client_s + ours.duty_s),
            f"{ours.cipher / dim:.3f} + {shares:.3f}",
            f"{FLOAT32 + ours.received / dim:.3f}",
            _ms(ours.add_s),
            _ms(ours.server_s),
            _ms(ours.open_s),
            f"{ours.error:g}",
        ]
    )


def side_by_side(result: Result) -> Iterator[str]:
    """Yield a case's rows of the first table."""
    case = (result.nodes, result.dim)
    yield _ours(case, "ours", result.ours["nobody"])
    most = affordable_weight(result.nodes, VALUE_BITS)
    yield _ours(case, f"ours, coordinator's weights 1 to {most}", result.weighted)
    for name, peer in result.peers.items():
        if isinstance(peer, str):
            yield _line([*case, name, peer, *7 * "–"])
            continue
        yield _line(
            [
                *case,
                name,
                _ms(peer.client_s),
                "–",
                f"{peer.upload_bytes / result.dim:.3f}",
                f"{peer.download_bytes / result.dim:.3f}",
                _ms(peer.load_s + peer.add_s),
                _ms(peer.server_s),
                _ms(peer.open_s),
                f"{peer.max_error:.1e}, rounded {peer.max_rounded_error:g}",
            ]
        )


def by_dropouts(result: Result) -> Iterator[str]:
    """Yield a case's rows of the second table."""
    for when, ours in result.ours.items():
        yield _line(
            [
                result.nodes,
                result.dim,
                0 if when == "nobody" else result.parameters.dropouts,
                "–" if when == "nobody" else when,
                _ms(ours.open_s),
                _ms(ours.server_s),
                _ms(ours.duty_s),
                f"{ours.duty_received / 1000:.1f}",
                f"{ours.duty_sent / 1000:.1f}",
                f"{ours.error:g}",
            ]
        )


def verdicts(results: list[Result]) -> Iterator[str]:
    """Yield the rows of the third table."""
    for bar in bars(results):
        figure = "–" if bar.figure is None else f"{bar.figure:.3g}"
        sign = "≥" if bar.least else "≤"
        yield _line([bar.what, figure, f"{sign} {bar.bar:.3g}", bar.verdict])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The scheme ckks beside NVFlare and shared keys.")
    parser.add_argument("--peer", action="store_true", help="measure both peers beside ours")
    parser.add_argument("--env", type=Path, help="folder of NVFlare's environment")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--dims", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="of ours; medians are shown")
    parser.add_argument("--out", type=Path, help="write ckks.json into this folder")
    return parser


def main() -> None:
    """Measure, print and write."""
    options = _parser().parse_args()
    try:
        environment = nvflare.ensure_installed(options.env) if options.peer else None
        machine = describe_machine()
        peer = f"; {environment.how}" if environment else ""
        print(f"{machine.cpu}, {machine.cores} cores; Python {machine.python}{peer}")
        run(3, 8, None)  # warm up: what is loaded and built once in a process
        print(f"\n{SIDE_BY_SIDE}", flush=True)
        results = []
        for nodes in options.nodes:
            for dim in options.dims:
                results.append(run(nodes, dim, environment, rounds=options.rounds))
                print(*side_by_side(results[-1]), sep="\n", flush=True)
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")
    print(f"\n{BY_DROPOUTS}")
    for result in results:
        print(*by_dropouts(result), sep="\n")
    print(f"\n{ASKED}", *verdicts(results), sep="\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        figures = {
            "machine": asdict(machine),
            "cases": [asdict(result) for result in results],
            "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in bars(results)],
        }
        (options.out / "ckks.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
