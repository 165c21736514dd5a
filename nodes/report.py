"""The quality table that the demo prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["print_quality"]

_COLUMNS: Final = {
    "AUC": "auc",
    "F1": "f1",
    "recall": "recall",
    "FPR": "fpr",
    "FPR at TPR .999": "fpr_at_tpr_999",
}
_NAMES: Final = {"federated": "federated", "local": "local only", "random": "random encoder"}


def print_quality(
    devices: Mapping[str, Mapping[str, Mapping[str, Any]]],
    mean: Mapping[str, Mapping[str, Any]],
    stream: TextIO,
) -> None:
    """Print one block of rows a device and one for the mean over those with attack rows."""
    if not any(devices.values()):
        stream.write("no device has attack rows to measure detection on\n")
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("device")
    table.add_column("encoder")
    for title in _COLUMNS:
        table.add_column(title, justify="right")
    for name, methods in (*sorted(devices.items()), ("mean of devices", mean)):
        label = name
        for method, row in methods.items():
            style = "bold" if method == "federated" else "dim"
            cells = [f"{row[key]:.4f}" for key in _COLUMNS.values()]
            table.add_row(label, _NAMES.get(method, method), *cells, style=style)
            label = ""
        if not methods:
            table.add_row(name, "no attack rows to test on", *["–"] * len(_COLUMNS), style="dim")
        table.add_section()
    console = Console(file=stream)
    if not console.is_terminal:
        console = Console(file=stream, width=140)
    console.print(table)
