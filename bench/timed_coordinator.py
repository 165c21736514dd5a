"""The coordinator's daemon with a clock on every event, as a process of its own.

::

    python -m bench.timed_coordinator coordinator.toml

prints the daemon's own records as JSON lines, each with `at` (monotonic seconds) and `cpu` (CPU
seconds of this process so far), and one more, `server.step`, when a round's sum is decoded. The
stamps are taken here, since whoever reads the lines may have to wait for a core.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_core.server_opt import ServerOptConfig
from nodes import coordinator_daemon
from nodes.config import load_coordinator_config
from nodes.session.coordinator import ServerStep
from nodes.telemetry import Record
from secagg.errors import SecAggError

__all__ = ["main"]


def emit(record: Record) -> None:
    """Print a record with the time on it."""
    stamps = {"at": time.monotonic(), "cpu": time.process_time()}
    print(json.dumps({**record, **stamps}), flush=True)


def announced(make: Any) -> Any:
    """Wrap the daemon's `server_step` so that each step is announced as it begins."""

    def server_step(config: ServerOptConfig) -> ServerStep:
        inner: ServerStep = make(config)

        def step(
            params: NDArray[np.float32],
            mean: NDArray[np.float64],
            optimiser: dict[str, NDArray[np.float64]],
        ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
            emit({"event": "server.step"})
            return inner(params, mean, optimiser)

        return step

    return server_step


def main() -> None:
    """Run the coordinator to the end of its run."""
    coordinator_daemon.server_step = announced(coordinator_daemon.server_step)
    try:
        config = load_coordinator_config(Path(sys.argv[1]))
        coordinator_daemon.CoordinatorDaemon(config, emit).run()
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")


if __name__ == "__main__":
    main()
