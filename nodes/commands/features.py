"""`secagg features`: a packet capture into the 115 traffic statistics."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fl_core.data.capture import Capture
from fl_core.data.export import atomic_text, write_features
from fl_core.data.extractor import MAX_CHANNELS, Extractor
from fl_core.errors import DataError

__all__ = ["command"]

_MAC: Final = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


@click.command("features")
@click.argument("capture")
@click.option("--out", default="-", show_default=True, help="CSV to write; - for standard output")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="ADDRESS",
    callback=lambda _context, _parameter, given: tuple(map(_address, given)),
    help="only rows of packets sent by this MAC or IP address; repeatable",
)
@click.option(
    "--max-channels",
    type=click.IntRange(min=1),
    default=MAX_CHANNELS,
    show_default=True,
    help="cap on the channels of each kind; beyond it the longest silent is dropped",
)
def command(capture: str, out: str, devices: tuple[str, ...], max_channels: int) -> None:
    """Turn CAPTURE (pcap or pcapng, - for standard input) into rows of the 115 statistics.

    One row for each packet: its time, then the columns of N-BaIoT. Memory is bounded by the number
    of live channels.

    \b
    Examples:
      secagg features capture.pcap --out features.csv
      secagg features capture.pcapng --device 192.168.2.101 --out doorbell.csv
      tcpdump -i eth0 -w - | secagg features - | secagg detect --model model.safetensors --data -
    """  # noqa: D301 - click reads the escape
    extractor = Extractor(max_channels=max_channels)
    started = time.perf_counter()
    with ExitStack() as stack:
        source = Capture(_open(capture, stack), "standard input" if capture == "-" else capture)
        target = _target(out, stack)
        progress = stack.enter_context(_progress())
        rows = write_features(
            source, target, extractor=extractor, sources=frozenset(devices), on_progress=progress
        )
    _report(source, extractor, rows, time.perf_counter() - started)


def _address(given: str) -> str:
    """Return a MAC or IP address as the extractor writes it."""
    if _MAC.fullmatch(given):
        return given.lower().replace("-", ":")
    try:
        return str(ip_address(given))
    except ValueError:
        raise click.BadParameter(f"{given!r} is neither a MAC nor an IP address") from None


def _open(capture: str, stack: ExitStack) -> BinaryIO:
    if capture == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(capture).open("rb"))
    except OSError as error:
        raise DataError(
            f"{capture}: cannot be read: {error.strerror}",
            hint="check the path and its permissions",
        ) from None


def _target(out: str, stack: ExitStack) -> TextIO:
    if out != "-":
        return stack.enter_context(atomic_text(Path(out)))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # whoever reads the pipe gets every row at once
    return sys.stdout


@contextmanager
def _progress() -> Iterator[Callable[[int], None] | None]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows: bar.update(task, completed=rows)


def _report(source: Capture, extractor: Extractor, rows: int, seconds: float) -> None:
    counts = extractor.counts
    rate = counts.packets / seconds if seconds > 0 else 0.0
    click.echo(
        f"{counts.packets} packets, {rows} rows, {rate:.0f} packets/s, "
        f"{counts.peak_channels} channels at most",
        err=True,
    )
    for reason, count in sorted(source.skipped.items()):
        click.echo(f"skipped {count}: {reason}", err=True)
    if counts.out_of_order:
        click.echo(f"{counts.out_of_order} packets out of order", err=True)
    if counts.dropped:
        click.echo(
            f"{counts.dropped} channels dropped at the cap: raise --max-channels to keep them",
            err=True,
        )
