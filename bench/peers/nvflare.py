"""NVFlare's homomorphic aggregation as a peer: its own environment, one round a subprocess.

Run `python -m bench.peers.nvflare --nodes 10 --dim 100000` to print the figures of one round as one
JSON object. The first use installs the peer, which needs the package index.

NVFlare's own classes do the work, with its defaults: `HEModelEncryptor` at the client, FOBS with
its CKKS decomposer on the wire, `HEInTimeAccumulateWeightedAggregator` and `HEModelSerializeFilter`
at the server, `HEModelDecryptor` at the client again; the contexts are those of its `HEBuilder`
(8192, [60, 40, 40], scale 2^40), one key for all clients. Transport, workflow and the addition of
the mean to the model are left out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import msgspec

from bench.common import BenchError
from bench.peers.environment import Environment, Way, run_harness
from bench.peers.environment import ensure_installed as ensure_environment
from bench.peers.shared_ckks import SharedKeyCase, SharedKeyRound

__all__ = ["ensure_installed", "measure"]

VERSION = "2.9.0"
TENSEAL = "0.3.15"
_WAYS: tuple[Way, ...] = (
    (
        f"nvflare {VERSION} with tenseal {TENSEAL}",
        ((f"nvflare=={VERSION}", f"tenseal=={TENSEAL}"),),
    ),
    (
        f"nvflare {VERSION} with the tenseal it asks for, {TENSEAL} cannot be had",
        ((f"nvflare[HE]=={VERSION}",),),
    ),
)
_HARNESS = Path(__file__).with_name("nvflare_harness.py")


def ensure_installed(folder: Path | None = None) -> Environment:
    """Return NVFlare's environment, installed on first use (about 20 s and 400 MB).

    Args:
        folder: New or empty, or made by this function; None for one under the user's cache.

    Raises:
        BenchError: the folder is something else, or the package index did not give NVFlare.
    """
    return ensure_environment(f"nvflare-{VERSION}", _WAYS, folder)


def measure(
    case: SharedKeyCase, environment: Environment, *, timeout_s: float = 900.0
) -> SharedKeyRound:
    """Run one round in a process of its own and return its figures.

    Raises:
        BenchError: the harness failed, or took longer than `timeout_s` seconds.
    """
    output = run_harness(environment, _HARNESS, asdict(case), timeout_s=timeout_s)
    return msgspec.json.decode(output, type=SharedKeyRound)


def main() -> None:
    """Install the peer if need be, run one round and print case, installation and figures."""
    parser = argparse.ArgumentParser(description="One round of NVFlare's HE, as JSON.")
    parser.add_argument("--nodes", type=int, default=10, help="clients")
    parser.add_argument("--dim", type=int, default=100_000, help="values of an update")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env", type=Path, help="folder of the peer's environment")
    options = parser.parse_args()
    try:
        case = SharedKeyCase(options.nodes, options.dim, options.seed)
        environment = ensure_installed(options.env)
        figures = measure(case, environment)
    except BenchError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        parser.exit(2, f"error: {error}\n{hint}")
    peer = {"installed": environment.how, "unmet": environment.unmet}
    print(json.dumps({"case": asdict(case), "peer": peer, "round": asdict(figures)}))


if __name__ == "__main__":
    main()
