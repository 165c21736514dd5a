"""Every measurement of differential privacy under one name.

::

    python -m bench.dp [sampler|round|utility|correlated] ...

`sampler`: how fast noise is drawn. `round`: what noise adds to a masked round. `utility`: what it
costs in detection. `correlated`: what noise gains that cancels between rounds.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

__all__ = ["PARTS", "main"]

PARTS: Final = ("sampler", "round", "utility", "correlated")


def main() -> None:
    """Run the part that the first argument names, with the others."""
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    if part not in PARTS:
        sys.exit(f"usage: python -m bench.dp [{'|'.join(PARTS)}] ...")
    sys.argv[:2] = [f"bench.dp {part}"]
    importlib.import_module(f"bench.dp_{part}").main()


if __name__ == "__main__":
    main()
