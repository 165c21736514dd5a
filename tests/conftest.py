"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Make interrupts work in the processes that tests start.

    A shell starts background jobs with SIGINT ignored, children inherit that, and Python then
    leaves it so: tests that interrupt a process would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
