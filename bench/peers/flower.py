"""Flower's SecAgg+ as a peer: its own environment from the package index, one round a subprocess.

Run `python -m bench.peers.flower --nodes 10 --dim 100000 --num-shares 7 --threshold 5` to print the
figures of one round as one JSON object. The first use installs the peer, which needs the package
index; bench/peers/README.md says what is measured and what is not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.common import BenchError
from bench.peers.environment import Environment, Way, run_harness
from bench.peers.environment import ensure_installed as ensure_environment

__all__ = [
    "FlowerCase",
    "FlowerRound",
    "PhaseCosts",
    "ensure_installed",
    "equal_neighbours",
    "full_graph",
    "measure",
    "recommended",
]

VERSION = "1.42.0"
_BEFORE = "1.41.0"
_WAYS: tuple[Way, ...] = (
    (f"flwr {VERSION}", ((f"flwr=={VERSION}",),)),
    (  # for an index that lacks one of its pins
        f"flwr {VERSION} over the dependencies of {_BEFORE}",
        ((f"flwr=={_BEFORE}",), ("--no-deps", f"flwr=={VERSION}")),
    ),
    (f"flwr {_BEFORE}, for {VERSION} cannot be had", ((f"flwr=={_BEFORE}",),)),
)
_HARNESS = Path(__file__).with_name("flower_harness.py")


@dataclass(frozen=True)
class FlowerCase:
    """One round of SecAgg+.

    Attributes:
        nodes: Clients, 3 or more.
        dim: Coordinates of an update, float32 from N(0, 0.1).
        num_shares: As Flower takes it: an int is a count (a client and its neighbours, so odd), a
            float is a fraction of the clients (1.0 is the full graph).
        threshold: Shares that recover a secret; an int is a count, a float a fraction of them.
        dropout: Fraction of the clients that vanish at the masked-vector stage, in [0, 1).
        seed: Of the updates, of who vanishes, of the ring and of the rounding.
        num_examples: Weight of every client; Flower's resolution is set by its ratio to 1000.
    """

    nodes: int
    dim: int
    num_shares: int | float
    threshold: int | float
    dropout: float = 0.0
    seed: int = 1
    num_examples: int = 100

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise BenchError(f"Flower cannot run this case: {problem[0]}", hint=problem[1])

    def _problem(self) -> tuple[str, str] | None:
        shares, threshold = self.num_shares, self.threshold
        if self.nodes < 3 or self.dim < 1:
            return f"nodes is {self.nodes}, dim is {self.dim}", "use 3 nodes and 1 coordinate"
        if isinstance(shares, int) and not 3 <= shares <= self.nodes:
            return f"num_shares is {shares} of {self.nodes} nodes", "use 3 to as many as nodes"
        if isinstance(shares, int) and shares % 2 == 0 and shares != self.nodes:
            return (
                f"num_shares is {shares}; Flower rounds an even count up after telling clients",
                "use an odd count",
            )
        if isinstance(shares, float) and not 0 < shares <= 1:
            return f"num_shares is {shares}", "use a fraction in (0, 1], or a count without a dot"
        if isinstance(threshold, float) and not 0 < threshold <= 1:
            return f"threshold is {threshold}", "use a fraction in (0, 1], or a count without a dot"
        if isinstance(threshold, int) and not 2 <= threshold <= self.nodes:
            return f"threshold is {threshold}", "use 2 to as many as num_shares, less one"
        if isinstance(threshold, int) and isinstance(shares, int) and threshold >= shares:
            return f"threshold is {threshold} of {shares} shares", "use fewer than num_shares"
        if not 0 <= self.dropout < 1 or round(self.dropout * self.nodes) >= self.nodes:
            return f"dropout is {self.dropout}", "use a fraction in [0, 1) that leaves a node"
        if self.seed < 0 or not 1 <= self.num_examples <= 1000:
            return (
                f"seed is {self.seed}, num_examples is {self.num_examples}",
                "use a seed from 0 and 1 to 1000 examples (1000 is Flower's max_weight)",
            )
        return None


def recommended(
    nodes: int, dim: int, *, dropout: float = 0.0, threshold: int = 7, seed: int = 1
) -> FlowerCase:
    """Return Flower's recommended setting: 11 shares, threshold 7 (below 11 nodes 7 and 5).

    At 500 nodes and 10 % dropout a threshold of 7 aborts about a third of the rounds; pass 5.
    """
    if nodes < 11:
        return FlowerCase(nodes, dim, 7, min(threshold, 5), dropout=dropout, seed=seed)
    return FlowerCase(nodes, dim, 11, threshold, dropout=dropout, seed=seed)


def full_graph(nodes: int, dim: int, *, dropout: float = 0.0, seed: int = 1) -> FlowerCase:
    """Return the setting in which every pair of clients masks, threshold 0.6 of the clients."""
    return FlowerCase(nodes, dim, 1.0, 0.6, dropout=dropout, seed=seed)


def equal_neighbours(
    nodes: int, dim: int, *, neighbours: int, threshold: int, dropout: float = 0.0, seed: int = 1
) -> FlowerCase:
    """Return the setting in which a client masks with `neighbours` others (even, or all).

    Raises:
        BenchError: Flower has no ring of so many neighbours.
    """
    return FlowerCase(nodes, dim, neighbours + 1, threshold, dropout=dropout, seed=seed)


@dataclass(frozen=True)
class PhaseCosts:
    """Medians over clients, by phase; None where no client got so far.

    `total` is the median over the clients that finished of each one's sum over the phases.
    """

    setup: float | None
    share: float | None
    mask: float | None
    unmask: float | None
    total: float | None


@dataclass(frozen=True)
class FlowerRound:
    """The figures of one round.

    Attributes:
        versions: Of flwr and of what its cryptography and arithmetic come from.
        aborted: The workflow gave the round up; then there are no errors, and costs end there.
        abort_reason: The phase and what Flower reported.
        survivors: Clients that did not vanish.
        client_cpu_s: CPU seconds inside the client mod, without (de)serialising messages.
        client_upload_bytes: Protobuf size of the contents of a client's replies.
        client_download_bytes: Protobuf size of the contents of what a client was sent, the model
            (float32) included.
        client_mask_peak_bytes: Rise of the peak memory over one client's masked-vector stage.
        server_cpu_s: CPU seconds of the workflow outside the clients, without (de)serialising.
        server_strategy_cpu_s: The part of `server_cpu_s` inside FedAvg, not secure aggregation.
        start_bytes: Resident memory before the round, Python and Flower loaded.
        peak_bytes: Peak resident memory of the process, which holds the server and all clients'
            states (shares and keys, not their updates).
        max_abs_error: Largest error of the mean against float64, of the survivors.
        rms_error: Root mean square of that error.
    """

    versions: dict[str, str]
    aborted: bool
    abort_reason: str | None
    survivors: int
    client_cpu_s: PhaseCosts
    client_upload_bytes: PhaseCosts
    client_download_bytes: PhaseCosts
    client_mask_peak_bytes: int | None
    server_cpu_s: float
    server_strategy_cpu_s: float
    start_bytes: int
    peak_bytes: int
    max_abs_error: float | None
    rms_error: float | None


def ensure_installed(folder: Path | None = None) -> Environment:
    """Return Flower's environment, installed on first use (about 20 s and 300 MB).

    Args:
        folder: New or empty, or made by this function; None for one under the user's cache.

    Raises:
        BenchError: the folder is something else, or the package index did not give Flower.
    """
    return ensure_environment(f"flwr-{VERSION}", _WAYS, folder)


def measure(
    case: FlowerCase, environment: Environment, *, timeout_s: float = 3600.0
) -> FlowerRound:
    """Run one round in a process of its own and return its figures.

    Raises:
        BenchError: the harness failed, or took longer than `timeout_s` seconds.
    """
    output = run_harness(environment, _HARNESS, asdict(case), timeout_s=timeout_s)
    return msgspec.json.decode(output, type=FlowerRound)


def _count_or_fraction(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="One round of Flower's SecAgg+, as JSON.")
    parser.add_argument("--nodes", type=int, default=10, help="clients")
    parser.add_argument("--dim", type=int, default=100_000, help="coordinates of an update")
    parser.add_argument(
        "--num-shares",
        type=_count_or_fraction,
        default=7,
        help="odd count, or fraction such as 1.0",
    )
    parser.add_argument(
        "--threshold", type=_count_or_fraction, default=5, help="count, or fraction such as 0.6"
    )
    parser.add_argument("--dropout", type=float, default=0.0, help="fraction that vanishes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env", type=Path, help="folder of the peer's environment")
    return parser


def main() -> None:
    """Install the peer if need be, run one round and print case, installation and figures."""
    parser = _parser()
    options = parser.parse_args()
    try:
        case = FlowerCase(
            options.nodes,
            options.dim,
            options.num_shares,
            options.threshold,
            dropout=options.dropout,
            seed=options.seed,
        )
        environment = ensure_installed(options.env)
        figures = measure(case, environment)
    except BenchError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        parser.exit(2, f"error: {error}\n{hint}")
    peer = {"installed": environment.how, "unmet": environment.unmet}
    print(json.dumps({"case": asdict(case), "peer": peer, "round": asdict(figures)}))


if __name__ == "__main__":
    main()
