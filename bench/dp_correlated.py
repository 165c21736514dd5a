"""Correlated against independent noise at the same ρ: error of the model's noise, and a training.

    python -m bench.dp_correlated            # all of it, about a minute
    python -m bench.dp_correlated --section error

Figures of the first table need no randomness: they are variances. Unit of privacy: one node's
contributions to all rounds, replaced by zeros.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.dp.accountant import epsilon_of
from secagg.dp.correlated import BISR_BANDS, best_band, calibrate
from secagg.dp.correlated_cost import covariance, pattern_costs, prefix_variances
from secagg.dp.events import ZeroConcentrated
from secagg.errors import ConfigError

__all__ = ["Errors", "Task", "errors_of", "independent", "training", "yardsticks"]

RHO: Final = 0.25
DELTA: Final = 1e-6
HONEST: Final = 200
DIM: Final = 1_000_000
L2_STEPS: Final = 1 << 12

_Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """Standard deviations of the noise summed up to a round, at ρ = 1 and Δ = 1."""

    mean: float
    """Root of the mean square over rounds."""
    last: float
    """After the last round."""


def errors_of(sigmas: _Matrix, separation: int) -> Errors:
    """Return the errors of noise with that covariance, scaled to cost ρ = 1."""
    rho = float(pattern_costs(sigmas, separation)[:, -1].max()) / 2
    variances = prefix_variances(sigmas) * rho
    return Errors(math.sqrt(variances.mean()), math.sqrt(variances[-1]))


def independent(rounds: int, separation: int) -> Errors:
    """Return the errors of independent noise."""
    return errors_of(np.eye(rounds), separation)


def yardsticks(rounds: int, separation: int) -> tuple[Errors, Errors]:
    """Return the errors of two mechanisms for real numbers, which no node could share.

    The square root of the prefix sum, not cut off; and its column cut off after b entries (BSR,
    Kalinin and Lampert 2024), for which contributions b rounds apart are orthogonal.
    """
    root = [1.0]
    for k in range(1, rounds):
        root.append(root[-1] * (k - 0.5) / k)

    def inverse(column: list[float]) -> _Matrix:
        c = np.zeros((rounds, rounds))
        for k, entry in enumerate(column):
            c += np.diag(np.full(rounds - k, entry), -k)
        inverted = np.linalg.inv(c)
        product: _Matrix = inverted @ inverted.T
        return product

    return (
        errors_of(inverse(root), separation),
        errors_of(inverse(root[: max(1, separation)]), separation),
    )


def _real(band: tuple[int, ...], rounds: int, separation: int) -> Errors:
    return errors_of(covariance(band, rounds, sigma=1.0, smoothing=1e-3), separation)


def print_errors() -> None:
    """Print by what factor every mechanism beats independent noise, mean over rounds / last."""
    print("Error of the noise in the model: independent noise over correlated, same ρ.")
    print("mean over rounds / after the last; above 1 is better than independent\n")
    names = ["λ-CGD", *(f"BISR {len(band)}" for band in BISR_BANDS), "root", "BSR b"]
    print(f"{'T':>4} {'b':>3} {'λ':>6} " + " ".join(f"{name:>11}" for name in names) + "     √b")
    for rounds in (16, 64, 256):
        for separation in (1, 4, 16):
            base = independent(rounds, separation)
            best = best_band(rounds, separation)
            found = [_real(band, rounds, separation) for band in (best, *BISR_BANDS)]
            found += yardsticks(rounds, separation)
            cells = [f"{base.mean / e.mean:.2f} / {base.last / e.last:.2f}" for e in found]
            print(
                f"{rounds:>4} {separation:>3} {-best[1]:>3}/{best[0]:<2} "
                + " ".join(f"{cell:>11}" for cell in cells)
                + f"   {math.sqrt(separation):.2f}"
            )
    print("\nroot, BSR b: yardsticks in real numbers for noise of one trusted party, not shares.")
    print("√b: what every node giving data in every round gains with independent noise, in the")
    print("mean over contributors; or in every b-th round only, with steps b times as long.")


def print_integers() -> None:
    """Print what integers and smoothing cost on top of the real-valued mechanism."""
    epsilon = epsilon_of([ZeroConcentrated(rho=RHO)], DELTA)
    print(f"\nTerms for ρ = {RHO} (ε = {epsilon:.2f} at δ = {DELTA:g}), Δ = {L2_STEPS} steps,")
    print(f"{HONEST} honest nodes, {DIM:,} coordinates\n")
    print(f"{'T':>4} {'b':>3} {'band':>26} {'σ':>8} {'σ_e':>7} {'noise':>9} {'more error':>11}")
    for rounds, separation in ((64, 4), (64, 16), (256, 4), (256, 16)):
        for band in (best_band(rounds, separation), *BISR_BANDS[1:]):
            case = f"{rounds:>4} {separation:>3} {band!s:>26}"
            try:
                terms = calibrate(
                    RHO, l2=L2_STEPS, dim=DIM, band=band, rounds=rounds, separation=separation,
                    honest=HONEST,
                )  # fmt: skip
            except ConfigError:
                print(f"{case} {'integers too coarse':>38}")
                continue
            real = _real(band, rounds, separation).mean * L2_STEPS / math.sqrt(RHO)
            actual = math.sqrt(prefix_variances(terms.covariance()).mean())
            print(
                f"{case} {terms.sigma:>8.0f} {terms.smoothing:>7.0f} "
                f"{math.sqrt(terms.round_variance):>9.0f} {actual / real - 1:>11.3%}"
            )


# --- a training -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A quadratic of condition 100 whose nodes disagree on the minimum; clipped gradients."""

    nodes: int
    dim: int = 100
    rounds: int = 256
    clip: float = 2.0
    spread: float = 0.5
    """Of the nodes' own minima around the common one, in every coordinate."""


def training(
    task: Task, *, every: int, groups: int, factor: _Matrix | None, rate: float, seed: int
) -> tuple[float, float]:
    """Return the loss above its minimum: of the last model, and of the mean of the last half.

    Args:
        task: What is learned.
        every: A round is held in every so many steps of time.
        groups: Nodes give data in turns, in so many groups.
        factor: Lower triangular L, noise of the summed gradients is L·(standard normal), in units
            of the clipping norm; None for none.
        rate: Step length.
        seed: Of task and noise.
    """
    draw = np.random.default_rng(seed)
    curvature = np.logspace(0, -2, task.dim)
    minimum = draw.normal(size=task.dim)
    own = minimum + task.spread * draw.normal(size=(task.nodes, task.dim))
    own += minimum - own.mean(axis=0)
    rounds = task.rounds // every
    noise = np.zeros((rounds, task.dim))
    if factor is not None:
        noise = task.clip * (factor @ draw.normal(size=(rounds, task.dim)))
    model = np.zeros(task.dim)
    models = []
    for t in range(rounds):
        gradients = curvature * (model - own[t % groups :: groups])
        norms = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
        total = np.minimum(1.0, task.clip / norms) @ gradients + noise[t]
        # Always over the nodes that should have come: a divisor that changes undoes cancelling.
        model = model - rate * total / (task.nodes / groups)
        models.append(model)
    ends = (model, np.mean(models[rounds // 2 :], axis=0))
    last, averaged = (float(0.5 * (curvature * (end - minimum) ** 2).sum()) for end in ends)
    return last, averaged


def _factor(sigmas: _Matrix, separation: int, rho: float) -> _Matrix:
    """Return a lower triangular factor of `sigmas`, scaled to cost `rho` at Δ = 1."""
    scale = float(pattern_costs(sigmas, separation)[:, -1].max()) / 2 / rho
    return np.asarray(np.linalg.cholesky(sigmas * scale), dtype=np.float64)


def print_training(rho: float = RHO, seeds: int = 3) -> None:
    """Print the loss of every way to spend the same ρ, each at its best step length."""
    print(f"\nQuadratic of 100 coordinates, condition 100, 256 steps of time, ρ = {rho}:")
    print(f"loss above the minimum at the best step length, mean and spread of {seeds} seeds\n")
    print(
        f"{'nodes':>5} {'b':>3} {'who gives data, noise':<36} {'times':>5} {'rounds':>6} "
        f"{'last model':>16} {'mean of last half':>18}"
    )
    for nodes in (640, 2560):
        for b in (4, 16):
            for name, every, groups, factor in _ways(b, rho):
                task = Task(nodes)
                losses = np.array([
                    [
                        training(task, every=every, groups=groups, factor=factor, rate=r, seed=s)
                        for s in range(seeds)
                    ]
                    for r in np.geomspace(0.05, 1.95, 9)
                ])  # fmt: skip
                cells = []
                for end in range(2):
                    best = losses[losses[:, :, end].mean(axis=1).argmin(), :, end]
                    cells.append(f"{best.mean():.4f} ± {best.std():.4f}")
                rounds = 256 // every
                print(
                    f"{nodes:>5} {b:>3} {name:<36} {rounds // groups:>5} {rounds:>6} "
                    f"{cells[0]:>16} {cells[1]:>18}",
                    flush=True,
                )


def _ways(b: int, rho: float) -> tuple[tuple[str, int, int, _Matrix | None], ...]:
    """Return (name, every, groups, factor) of the ways to be compared."""
    band = best_band(256, b)
    correlated = _factor(covariance(band, 256, sigma=1.0, smoothing=1e-3), b, rho)
    eye, short = np.eye(256), np.eye(256 // b)
    return (
        ("slots, none", 1, b, None),
        ("slots, independent", 1, b, _factor(eye, b, rho)),
        (f"slots, correlated {band}", 1, b, correlated),
        ("all in every b-th round, independent", b, 1, _factor(short, 1, rho)),
        ("all in every round, independent", 1, 1, _factor(eye, 1, rho)),
    )


def main() -> None:
    """Print the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", choices=("all", "error", "integers", "training"))
    asked = parser.parse_args().section or "all"
    if asked in ("all", "error"):
        print_errors()
    if asked in ("all", "integers"):
        print_integers()
    if asked in ("all", "training"):
        print_training()


if __name__ == "__main__":
    main()
