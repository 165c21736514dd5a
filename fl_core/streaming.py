"""Verdicts on rows as they arrive.

A broken row ends a finite input with an error that names it; where a callback takes the broken
rows they are counted and left out, because a monitor that stops at the first odd line is not one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fl_core.detector import Detector
from fl_core.drift import DriftMonitor, unwatched
from fl_core.errors import DataError
from fl_core.row_stream import OnBad, RowBatch

__all__ = ["DriftWatch", "ScoredRow", "Tally", "one_thread", "score_batches"]


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row with its verdict."""

    row: int
    """Row number in the input, counted from 1."""

    time: float | None
    """Unix seconds, where the input has them."""

    device: str
    """The head that judged it."""

    score: float
    """Higher is more anomalous."""

    threshold: float
    """Of that head."""

    @property
    def alert(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            "row": self.row,
            "time": self.time,
            "device": self.device,
            "score": self.score,
            "threshold": self.threshold,
        }


class Tally:
    """Counts what went by.

    Attributes:
        rows: Rows scored.
        alerts: Of these, alerts.
        skipped: Rows left out.
        drifts: Reports of drift.
    """

    def __init__(self) -> None:
        self.rows = self.alerts = self.skipped = self.drifts = 0

    def count(self, verdicts: Iterable[ScoredRow]) -> None:
        """Add scored rows."""
        for verdict in verdicts:
            self.rows += 1
            self.alerts += verdict.alert

    def summary(self, seconds: float) -> str:
        """Return rows, alerts, rows a second, and what else there was, in one line."""
        rate = self.rows / max(seconds, 1e-9)
        line = f"{self.rows} rows, {self.alerts} alerts, {rate:.0f} rows/s in {seconds:.1f} s"
        line += f", {self.skipped} rows skipped" if self.skipped else ""
        return line + (f", drift reported {self.drifts} times" if self.drifts else "")


class DriftWatch:
    """Watches the scores of every device of a stream; see `fl_core.drift`.

    Args:
        detector: The detector that scores.
        say: Called once for each device that cannot be watched, when its first row goes by.
    """

    def __init__(self, detector: Detector, say: Callable[[str], object]) -> None:
        self._detector = detector
        self._say = say
        self._monitors: dict[str, DriftMonitor | None] = {}

    def observe(self, verdicts: Sequence[ScoredRow]) -> list[dict[str, Any]]:
        """Take the verdicts of a burst; return what is to be reported, JSON-ready.

        Each report has `"event": "drift"`, and row and time of the row it was made at.
        """
        reports: list[dict[str, Any]] = []
        for device in dict.fromkeys(verdict.device for verdict in verdicts):
            monitor = self._monitor(device)
            if monitor is not None:
                own = [verdict for verdict in verdicts if verdict.device == device]
                first = monitor.seen + 1
                for report in monitor.observe(np.array([verdict.score for verdict in own])):
                    at = own[report.seen - first]
                    reports.append(report.to_dict() | {"row": at.row, "time": at.time})
        return reports

    def _monitor(self, device: str) -> DriftMonitor | None:
        if device not in self._monitors:
            head = self._detector.head(device)
            problem = unwatched(head)
            self._monitors[device] = None if problem else DriftMonitor(head)
            if problem:
                self._say(f"{device}: drift is not watched: {problem}")  # L-67
        return self._monitors[device]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread within the block: on small bursts more only wait for one another.

    It sets a process-wide number and puts it back, so it belongs around a whole command.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score_batches(
    detector: Detector,
    batches: Iterable[RowBatch],
    *,
    device: str | None = None,
    bad: OnBad | None = None,
) -> Iterator[list[ScoredRow]]:
    """Score rows with the head of their device.

    Args:
        detector: The trained detector.
        batches: Raw rows in the columns of `detector.feature_names`.
        device: Head for every row; None takes each row's own device, or the only head where the
            input names none.
        bad: Called for each row whose device has no head, which is then left out.

    Yields:
        One list a batch, in the order of its rows.

    Raises:
        ModelError: no head is chosen and there are several, or `device` has none.
        DataError: a row's device has no head and `bad` is None.
    """
    if device is not None:
        detector.head(device)  # a wrong name shows before the input is waited for
    for batch in batches:
        heads = [_judge(detector, device or own) for own in batch.devices]  # L-16
        count, failed = len(heads), None
        for index, (number, head) in enumerate(zip(batch.numbers, heads, strict=True)):
            if head in detector.heads:
                continue
            error = _without_head(detector, number, head)
            if bad is None:  # L-20: rows that came before it are scored first
                count, failed = index, error
                break
            bad(error)
        scores = np.zeros(count)
        for name in dict.fromkeys(head for head in heads[:count] if head in detector.heads):
            members = [i for i, head in enumerate(heads[:count]) if head == name]
            scores[members] = detector.score(batch.values[members], name)
        yield [
            ScoredRow(number, time, head, float(score), detector.threshold(head))
            for number, time, head, score in zip(
                batch.numbers, batch.times, heads, scores, strict=False
            )
            if head in detector.heads
        ]
        if failed is not None:
            raise failed


def _judge(detector: Detector, named: str | None) -> str:
    """Return whose head judges a row; "" where its device is left open and there are several."""
    if named == "" and len(detector.heads) > 1:
        return ""
    return named or detector.head().device


def _without_head(detector: Detector, row: int, device: str) -> DataError:
    what = f"the model has no head for device {device!r}" if device else "it names no device"
    return DataError(
        f"row {row}: {what}", hint=f"choose one with --device: {', '.join(detector.devices)}"
    )
