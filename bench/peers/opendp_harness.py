"""OpenDP's discrete Gaussian: CPU seconds of one vector of noise.

Runs inside the peer's own environment (imports opendp only) and is started by `bench.dp_sampler`.
The case comes as one JSON object in the first argument, the figures go as one JSON object to
standard output. The measurement adds noise to a vector of zeros, so that its value is the noise.
"""

# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import opendp.prelude as dp


def main() -> None:
    """Measure the case in the first argument."""
    case: dict[str, Any] = json.loads(sys.argv[1])
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i32")), dp.l2_distance(T="f64")
    noise = dp.m.make_gaussian(*space, scale=case["deviation"])
    zeros = [0] * case["count"]
    noise(zeros[:100])
    seconds = []
    for _ in range(case["repetitions"]):
        start = time.process_time()
        values = noise(zeros)
        seconds.append(time.process_time() - start)
    figures = {
        "seconds": statistics.median(seconds),
        "deviation": statistics.pstdev(values),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
