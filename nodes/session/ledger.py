"""What a party has spent of anybody's privacy: charged before a round's first byte leaves.

The node charges its ledger before it contributes, the coordinator before it offers. Source:
specs/52-ledger.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from secagg.dp.events import PrivacyEvent
from secagg.dp.ledger import Entry, History

__all__ = ["MemoryLedger", "PrivacyLedger"]


class PrivacyLedger(ABC):
    """The charges of one party, over all runs and processes; nothing is ever given back."""

    @abstractmethod
    def spend(
        self, run_id: bytes, round_id: int, unit: str, event: PrivacyEvent, *, now: float
    ) -> Entry:
        """Charge a round, before anything of it leaves (B-01).

        Args:
            run_id: 16 bytes.
            round_id: The round within the run.
            unit: "client", "record" or "none".
            event: What the round does.
            now: Seconds since 1970.

        Returns:
            The entry, which is durable and stays, also when the round aborts.

        Raises:
            RoundSpentError: the round was charged before (B-03).
            ConfigError: the charge could not be made durable; nothing may be sent.
        """

    @abstractmethod
    def history(self) -> History:
        """Return all charges up to now, those of other processes on the same file included.

        Raises:
            ConfigError: the ledger cannot be read, is damaged or was set back.
        """

    def spent(self, unit: str, delta: float) -> float:
        """Return ε of all charges of `unit`; see `History.spent`."""
        return self.history().spent(unit, delta)

    def remaining(self, unit: str, delta: float, budget: float) -> float:
        """Return what is left of a budget; see `History.remaining`."""
        return self.history().remaining(unit, delta, budget)

    def would_overspend(
        self, unit: str, event: PrivacyEvent, *, delta: float, budget: float
    ) -> bool:
        """Tell whether one more round would be too much; see `History.would_overspend`."""
        return self.history().would_overspend(unit, event, delta=delta, budget=budget)


class MemoryLedger(PrivacyLedger):
    """Lives as long as its process: for the simulator and tests, never for a node."""

    def __init__(self) -> None:
        self._history = History("this process's ledger")

    def spend(
        self, run_id: bytes, round_id: int, unit: str, event: PrivacyEvent, *, now: float
    ) -> Entry:
        """Charge a round; see `PrivacyLedger.spend`."""
        return self._history.take(self._history.draft(run_id, round_id, unit, event, now=now))

    def history(self) -> History:
        """Return all charges up to now."""
        return self._history
