"""One failure each: a message that breaks one rule, and who must notice."""

from __future__ import annotations

from tests.vectors.ckks_failures import ckks_failures
from tests.vectors.failures_early import early_failures
from tests.vectors.failures_late import late_failures
from tests.vectors.rounds import Case

__all__ = ["failures"]


def failures() -> list[Case]:
    """Return every case."""
    return [*early_failures(), *late_failures(), *ckks_failures()]
