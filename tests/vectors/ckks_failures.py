"""One failure each, in the rounds of ckks: a message that breaks one rule, and who must notice."""

from __future__ import annotations

from tests.vectors.ckks_failures_coordinator import coordinator_failures
from tests.vectors.ckks_failures_node import node_failures
from tests.vectors.rounds import Case

__all__ = ["ckks_failures"]


def ckks_failures() -> list[Case]:
    """Return every case."""
    return [*coordinator_failures(), *node_failures()]
