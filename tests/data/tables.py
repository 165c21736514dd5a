"""Small tables on disk."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "../shared/data/nbaiot"


def write_table(path: Path, rows: int, *, columns: tuple[str, ...] = ("a", "b"), base: int = 0):
    """Write row r (from 0) as base + r in the first column, and its tenth in the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(columns)]
    for row in range(rows):
        cells = [str(base + row), *(str((base + row) / 10) for _ in columns[1:])]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path
