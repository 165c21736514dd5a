"""`secagg detect`: score new data with a trained model, one JSON line an alert.

The backspace in the docstring is click's mark for lines to be left as they are.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from fl_core.data.series import window_layout
from fl_core.detector import Detector
from fl_core.errors import DataError
from fl_core.row_stream import open_batches
from fl_core.streaming import DriftWatch, ScoredRow, Tally, one_thread, score_batches
from fl_core.window_stream import window_batches

__all__ = ["command"]

POLL_S: Final = 0.2
"""How often a followed file is looked at: an alert is about this late at most."""


@click.command()
@click.option("--model", required=True, help="the model.safetensors of a run")
@click.option("--data", required=True, help="CSV with a header, a capture (.pcap, .pcapng), or -")
@click.option("--device", help="whose head scores every row; default: the data's device column")
@click.option("--follow", is_flag=True, help="go on as the file grows; skip broken rows")
@click.option("--all", "every", is_flag=True, help="print every row, not only alerts")
def command(model: str, data: str, device: str | None, follow: bool, every: bool) -> None:
    """Score new data and print one JSON line an alert.

    \b
    secagg detect --model run/model.safetensors --data new.csv
    secagg detect --model run/model.safetensors --data capture.pcap --device Danmini_Doorbell
    secagg detect --model run/model.safetensors --data live.csv --follow | jq .score
    secagg features eth0.pcap --out - | secagg detect --model run/model.safetensors --data -

    A model of windows reads one time step a line, and each line has the verdict of the window that
    ends there.

    Rows, alerts and rows a second go to standard error at the end. Ctrl-C ends a live input.
    Scores that no longer look as those of the validation rows give a line with "event": "drift".
    """  # noqa: D301
    detector, tally, start = Detector.load(model), Tally(), time.perf_counter()

    def skip(error: DataError) -> None:
        tally.skipped += 1
        click.echo(f"skipped: {error}", err=True)

    watch = DriftWatch(detector, lambda text: click.echo(text, err=True))
    bad = skip if follow else None
    wait = (lambda: time.sleep(POLL_S)) if follow else None
    with _quiet_end(live=follow or data == "-"), one_thread():
        try:
            channels, length = window_layout(detector.feature_names)
            rows_of = open_batches(data, channels, wait=wait, bad=bad, skipped=_say_skipped)
            with rows_of as batches:
                known = None if device else {None, *detector.devices}
                rows = window_batches(batches, length, devices=known)
                for verdicts in score_batches(detector, rows, device=device, bad=bad):
                    tally.count(verdicts)
                    drifts = watch.observe(verdicts)
                    tally.drifts += len(drifts)
                    _print(verdicts, drifts, every=every)
        finally:
            if tally.rows or sys.exc_info()[0] is None:  # nothing read, nothing to sum up
                click.echo(tally.summary(time.perf_counter() - start), err=True)


def _say_skipped(reason: str, count: int) -> None:
    click.echo(f"skipped {count}: {reason}", err=True)


def _print(verdicts: list[ScoredRow], drifts: list[dict[str, Any]], *, every: bool) -> None:
    """Print a batch at once and flush, so that a reader of the pipe has it now."""
    shown = [
        v.to_dict() | ({"alert": v.alert} if every else {}) for v in verdicts if every or v.alert
    ]
    shown += drifts
    if shown:
        click.echo("\n".join(json.dumps(row) for row in shown))


@contextmanager
def _quiet_end(*, live: bool) -> Iterator[None]:
    """End without noise when the reader of our output has gone or a live input is interrupted."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if not live:
            raise
    except BrokenPipeError:
        # Python flushes standard output once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        signal.signal(signal.SIGTERM, previous)
