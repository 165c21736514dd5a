"""`secagg export`: one device's whole detector as a program that runs without this one.

The backspace in the docstring is click's mark for lines to be left as they are.
"""

from __future__ import annotations

import click

from fl_core.detector import Detector
from fl_core.export import save_program

__all__ = ["command"]


@click.command()
@click.argument("model")
@click.option("--device", help="whose head; may be left out where there is only one")
@click.option("--out", required=True, help="the file to write, a new one that ends in .pt2")
def command(model: str, device: str | None, out: str) -> None:
    """Write one device's detector as a program: raw rows in, scores and alerts out.

    \b
    secagg export run/model.safetensors --device Danmini_Doorbell --out doorbell.pt2
    python -c "import torch; print(torch.export.load('doorbell.pt2').module())"

    It needs torch and nothing of ours. The written file is loaded anew and run beside the model
    before this command says that it is done.
    """  # noqa: D301
    detector = Detector.load(model)
    seen = save_program(detector, out, device=device)
    click.echo(
        f"wrote {out}: {detector.head(device).device}, {seen.size} bytes; on {seen.rows} rows its "
        f"scores differ from the model's by {seen.difference:.1e} of a score at most",
        err=True,
    )
