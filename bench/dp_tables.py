"""What the experiment on privacy and detection found, as a table in Markdown and as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["TRAINED", "Result", "draw_figure", "table"]

TRAINED: Final = "trained"
"""Methods whose name begins so are drawn as curves over ε."""

_UNITS: Final = {
    "client": "a site: all its rows in all rounds, or zeros instead",
    "record": "a row of a device, there or not",
}
_COLUMNS: Final = {True: "all columns", False: "without `HH_jit`"}


@dataclass(frozen=True)
class Result:
    """False positives at a TPR of 0.999, of one method and seed."""

    level: str
    method: str
    epsilon: float | None
    """None for what has no ε."""
    jitter: bool
    """Whether the `HH_jit` columns were there."""
    seed: int
    by_device: tuple[float, ...]
    multiplier: float = 0.0
    """z: noise over sensitivity, of a round (client) or of a step (record)."""

    @property
    def mean(self) -> float:
        """Over devices, each counting once."""
        return float(np.mean(self.by_device))


def table(results: Sequence[Result], delta: float) -> str:
    """Return one level's results: mean over seeds (least to greatest)."""
    seeds = sorted({each.seed for each in results})
    lines = [
        f"Unit of privacy: {_UNITS[results[0].level]}. δ = {delta:g} over all rounds. FPR at TPR "
        f"0.999 in percent, mean of the devices; mean of {len(seeds)} seeds (least–greatest).",
        "",
        f"| ε | z | method | {_COLUMNS[True]} | {_COLUMNS[False]} |",
        "|--:|--:|---|--:|--:|",
    ]
    keys = dict.fromkeys((each.epsilon, each.method) for each in results)
    order = sorted(keys, key=lambda key: -1.0 if key[0] is None else key[0])
    for epsilon, method in order:
        found = [each for each in results if (each.epsilon, each.method) == (epsilon, method)]
        cells = [
            _cell([100 * each.mean for each in found if each.jitter == jitter])
            for jitter in (True, False)
        ]
        z = max(each.multiplier for each in found)
        lines.append(
            f"| {_name(epsilon)} | {f'{z:.2f}' if z else '–'} | {method} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _name(epsilon: float | None) -> str:
    if epsilon is None:
        return "–"
    return "∞" if math.isinf(epsilon) else f"{epsilon:g}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def draw_figure(results: Sequence[Result], delta: float, path: Path) -> None:
    """Draw one level's results over ε into an SVG: the same results give the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "secagg", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    at = sorted({each.epsilon for each in results if each.epsilon is not None})
    for axis, jitter in zip(axes, (True, False), strict=True):
        here = [each for each in results if each.jitter == jitter]
        for number, method in enumerate(dict.fromkeys(each.method for each in here)):
            rows = [each for each in here if each.method == method]
            colour = f"C{number}"
            if rows[0].epsilon is None:
                level = 100 * float(np.mean([each.mean for each in rows]))
                axis.axhline(level, color=colour, linestyle=":", label=method)
                continue
            groups = [[100 * each.mean for each in rows if each.epsilon == e] for e in at]
            known = [(place, group) for place, group in enumerate(groups) if group]
            places = [place for place, _ in known]
            middle = np.array([np.mean(group) for _, group in known])
            low = middle - np.array([min(group) for _, group in known])
            high = np.array([max(group) for _, group in known]) - middle
            style = "-o" if method.startswith(TRAINED) else "--s"
            axis.errorbar(
                places, middle, [low, high], fmt=style, color=colour, capsize=3, label=method
            )
        axis.set_title("all columns" if jitter else "without HH_jit")
        axis.set_xticks(range(len(at)), [_name(e) for e in at])
        axis.set_xlabel(f"ε at δ = {delta:g}, unit: {results[0].level}")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 105 * max(0.001, *(each.mean for each in results)))
    axes[0].set_ylabel("FPR at TPR 0.999, percent")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
