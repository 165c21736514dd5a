"""What holds for every test."""

from __future__ import annotations

import signal

from nodes.learner import use_one_thread


def pytest_configure() -> None:
    """Make interrupts work in the processes that tests start, and keep tests to one thread.

    Threads of torch wait for one another spinning: beside other work on all cores a test of two
    seconds takes minutes. The daemons that tests start see to this themselves.

    A shell starts background jobs with SIGINT ignored, children inherit that, and Python then
    leaves it so: tests that interrupt a process would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    use_one_thread()
