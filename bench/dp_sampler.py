"""Draws of discrete noise per second and core: ours, OpenDP's, the textbook's, in one run.

::

    python -m bench.dp_sampler --peer --out bench/results

prints tables in Markdown and writes the figures as JSON. Without `--peer` nothing is installed and
OpenDP is left out. CPU seconds throughout. `numpy` is no sampler for secrets and not exact (a
rounded normal, a difference of two Poisson draws); it shows what approximate noise costs.

The second table tells whether time tells the values: batches sorted by the mean of |x|.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError, describe_machine, median_cpu_s
from bench.peers.environment import Environment, Way, ensure_installed, run_harness
from secagg.dp.sampler import NoiseSampler, sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS

__all__ = ["Groups", "Rate", "main", "measure", "textbook", "time_by_magnitude"]

OPENDP = "0.16.0"
_WAYS: tuple[Way, ...] = ((f"opendp {OPENDP}", ((f"opendp=={OPENDP}",),)),)
_HARNESS = Path(__file__).parent / "peers" / "opendp_harness.py"
_SYSTEM = random.SystemRandom()
DEVIATIONS = (1.0, 10.0, 1000.0, 1e6)
COUNT = 1_000_000
SLOW_COUNT = 100_000
"""Draws of the peer at a time; a hundredth of it for the textbook's."""
BAR = 1e7
"""Draws a second and core that were asked for."""


# --- the textbook ----------------------------------------------------------------------------


def _bernoulli(chance: Fraction) -> bool:
    return _SYSTEM.randrange(chance.denominator) < chance.numerator


def _bernoulli_exp(power: Fraction) -> bool:
    """Return True with probability exp(-power): Algorithm 1."""
    while power > 1:
        if not _bernoulli_exp(Fraction(1)):
            return False
        power -= 1
    k = 1
    while _bernoulli(power / k):
        k += 1
    return k % 2 == 1


def _laplace(scale: int) -> int:
    """Return x with probability proportional to exp(-|x|/scale): Algorithm 2."""
    while True:
        part = _SYSTEM.randrange(scale)
        if not _bernoulli_exp(Fraction(part, scale)):
            continue
        whole = 0
        while _bernoulli_exp(Fraction(1)):
            whole += 1
        x = part + scale * whole
        negative = _bernoulli(Fraction(1, 2))
        if not (negative and x == 0):
            return -x if negative else x


def textbook(variance: Fraction) -> int:
    """Return one discrete Gaussian in exact arithmetic.

    Source: Canonne, Kamath and Steinke 2020, Algorithm 3.
    """
    scale = math.isqrt(int(variance)) + 1
    while True:
        x = _laplace(scale)
        if _bernoulli_exp((abs(x) - variance / scale) ** 2 / (2 * variance)):
            return x


# --- rates -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """Draws a second and core of one law; None where a sampler has not this law.

    Attributes:
        mechanism: The law.
        deviation: Square root of its parameter.
        table_s: Seconds that our table takes, once.
        ours: With keys from the operating system.
        textbook: Canonne, Kamath and Steinke's, in Python.
        opendp: OpenDP's, in Rust.
        numpy: Approximate.
    """

    mechanism: str
    deviation: float
    table_s: float
    ours: float
    textbook: float | None = None
    opendp: float | None = None
    numpy: float | None = None


def measure(
    mechanism: str,
    deviation: float,
    environment: Environment | None = None,
    *,
    count: int = COUNT,
    slow_count: int = SLOW_COUNT,
    repetitions: int = 5,
) -> Rate:
    """Measure one law at one standard deviation, ours first."""
    variance = deviation**2
    start = time.process_time()
    sampler = _fresh(mechanism, variance)
    table_s = time.process_time() - start
    ours = count / median_cpu_s(lambda: sampler.draw(count, os.urandom), repetitions=repetitions)
    generator = np.random.default_rng(1)

    def approximate() -> NDArray[np.int32]:
        if mechanism == DISCRETE_GAUSSIAN:
            noise = np.rint(generator.normal(0.0, deviation, count))
        else:
            pair = generator.poisson(variance / 2, (2, count))
            noise = pair[0] - pair[1]
        return np.asarray(noise, np.int32)

    rough = count / median_cpu_s(approximate, repetitions=repetitions)
    if mechanism != DISCRETE_GAUSSIAN:
        return Rate(mechanism, deviation, table_s, ours, numpy=rough)
    few = max(1, slow_count // 100)
    exact = Fraction(variance)

    def by_the_book() -> None:
        for _ in range(few):
            textbook(exact)

    book = few / median_cpu_s(by_the_book, repetitions=1)
    peer = _opendp(deviation, slow_count, repetitions, environment) if environment else None
    return Rate(mechanism, deviation, table_s, ours, book, peer, rough)


def _fresh(mechanism: str, variance: float) -> NoiseSampler:
    """Return a sampler with its table newly built."""
    if mechanism == DISCRETE_GAUSSIAN:
        return NoiseSampler.discrete_gaussian(variance)
    return NoiseSampler.skellam(variance)


def _opendp(deviation: float, count: int, repetitions: int, environment: Environment) -> float:
    case = {"deviation": deviation, "count": count, "repetitions": repetitions}
    output = run_harness(environment, _HARNESS, case, timeout_s=600.0)
    figures = msgspec.json.decode(output, type=dict[str, float])
    if not 0.9 < figures["deviation"] / deviation < 1.1:
        raise BenchError(f"OpenDP's noise has a deviation of {figures['deviation']}")
    return count / figures["seconds"]


# --- time and values -------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Batches in four groups by rising mean of |x|, and what a batch took.

    Attributes:
        who: Whose sampler.
        batch: Draws in a batch.
        magnitudes: Mean of |x| in each group, in standard deviations.
        microseconds: Median of each group.
        correlation: Spearman's, between mean |x| and time, over all batches.
        noise: Standard deviation that it has where there is no relation.
    """

    who: str
    batch: int
    magnitudes: tuple[float, ...]
    microseconds: tuple[float, ...]
    correlation: float
    noise: float


def time_by_magnitude(
    who: str, draw: Callable[[], NDArray[np.int32]], *, deviation: float, batches: int
) -> Groups:
    """Time `batches` calls of `draw`, and group them by the mean of |x|."""
    for _ in range(10):
        draw()
    means, times = np.empty(batches), np.empty(batches)
    for index in range(batches):
        start = time.perf_counter_ns()
        values = draw()
        times[index] = time.perf_counter_ns() - start
        means[index] = np.abs(values).mean() / deviation
    groups = np.array_split(np.argsort(means), 4)
    correlation = float(np.corrcoef(_ranks(means), _ranks(times))[0, 1])
    return Groups(
        who,
        len(values),
        tuple(float(means[group].mean()) for group in groups),
        tuple(float(np.median(times[group])) / 1000 for group in groups),
        correlation,
        1 / math.sqrt(batches - 1),
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(np.argsort(values))


def groups(*, batches: int) -> Iterator[Groups]:
    """Yield the groups of ours, in long and short batches, and of the textbook's."""
    deviation = 1000.0
    for mechanism in MECHANISMS:
        sampler = sampler_for(mechanism, deviation**2)
        for count in (10_000, 100, 1):

            def draw(count: int = count, sampler: NoiseSampler = sampler) -> NDArray[np.int32]:
                return sampler.draw(count, os.urandom)

            yield time_by_magnitude(
                f"ours, {mechanism}", draw, deviation=deviation, batches=batches
            )

    def book() -> NDArray[np.int32]:
        return np.array([textbook(Fraction(10**6))], np.int32)

    yield time_by_magnitude("textbook", book, deviation=deviation, batches=batches)


# --- tables ----------------------------------------------------------------------------------

RATES = (
    "| law | σ | table ms | ours M/s | OpenDP M/s | ours over it | textbook M/s | ours over it "
    "| numpy, approximate, M/s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)
TIMES = (
    "| sampler | draws in a batch | mean of abs x / σ, by quarters | µs, by quarters | rank "
    "correlation |\n|---|--:|---|---|--:|"
)


def _millions(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e6:.3g}"


def _over(ours: float, theirs: float | None) -> str:
    return "–" if theirs is None else f"{ours / theirs:,.0f}"


def _row(rate: Rate) -> str:
    cells = [
        rate.mechanism,
        f"{rate.deviation:g}",
        f"{1000 * rate.table_s:.0f}",
        _millions(rate.ours),
        _millions(rate.opendp),
        _over(rate.ours, rate.opendp),
        _millions(rate.textbook),
        _over(rate.ours, rate.textbook),
        _millions(rate.numpy),
    ]
    return "| " + " | ".join(cells) + " |"


def _time_row(group: Groups) -> str:
    magnitudes = " ".join(f"{value:.3f}" for value in group.magnitudes)
    times = " ".join(f"{value:.1f}" for value in group.microseconds)
    related = f"{group.correlation:+.3f} ± {group.noise:.3f}"
    return f"| {group.who} | {group.batch} | {magnitudes} | {times} | {related} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draws of discrete noise per second and core.")
    parser.add_argument("--peer", action="store_true", help="measure OpenDP beside ours")
    parser.add_argument("--env", type=Path, help="folder of OpenDP's environment")
    parser.add_argument("--batches", type=int, default=4000, help="of the second table")
    parser.add_argument("--out", type=Path, help="write dp_sampler.json into this folder")
    return parser


def main() -> None:
    """Measure, print and write."""
    options = _parser().parse_args()
    try:
        environment = None
        if options.peer:
            environment = ensure_installed(f"opendp-{OPENDP}", _WAYS, options.env)
        machine = describe_machine()
        peer = f"; {environment.how}" if environment else ""
        print(f"{machine.cpu}, {machine.cores} cores; Python {machine.python}{peer}\n\n{RATES}")
        rates = []
        for mechanism in MECHANISMS:
            for deviation in DEVIATIONS:
                rates.append(measure(mechanism, deviation, environment))
                print(_row(rates[-1]), flush=True)
        least = min(rate.ours for rate in rates)
        verdict = "met" if least >= BAR else "MISSED"
        print(f"\nasked for: {_millions(BAR)} M/s; least: {_millions(least)} M/s: {verdict}")
        print(f"\n{TIMES}")
        found = []
        for group in groups(batches=options.batches):
            found.append(group)
            print(_time_row(group), flush=True)
    except BenchError as error:
        sys.exit(f"{error}: {error.hint}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        figures = {
            "machine": asdict(machine),
            "rates": [asdict(rate) for rate in rates],
            "times": [asdict(group) for group in found],
        }
        (options.out / "dp_sampler.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
