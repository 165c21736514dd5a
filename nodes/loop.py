"""What both daemons wait on: the socket, the clock, signals, and finished work in a thread."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

import zmq

__all__ = ["Waiter", "clock", "wall_clock"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def clock() -> float:
    """Seconds on a clock that only grows."""
    return time.monotonic()


def wall_clock() -> float:
    """Unix seconds."""
    return time.time()


class Waiter:
    """Sleeps until something happens.

    A signal asks to stop; a second one ends the process the hard way.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._stop = 0

    @property
    def stopping(self) -> bool:
        """Whether a signal has asked to stop."""
        return self._stop > 0

    def notify(self) -> None:
        """End the current or next `wait`; may be called from any thread or signal handler."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the loop as well
            self._writer.send(b"\0")

    def wait(self, source: zmq.Socket[bytes], seconds: float, *, to_send: bool = False) -> None:
        """Return when `source` has frames, after `notify`, or after `seconds`.

        With `to_send`, when it takes a frame, such as after its connection came about.
        """
        poller = zmq.Poller()
        poller.register(source, zmq.POLLOUT if to_send else zmq.POLLIN)
        poller.register(self._reader, zmq.POLLIN)
        poller.poll(max(0, int(seconds * 1000) + 1))
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into `stopping` for as long as the block runs."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        # The kernel may hand the signal to another thread; the byte wakes the poll all the same.
        wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Release the wake-up pipe."""
        self._reader.close()
        self._writer.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._stop += 1
        if self._stop > 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.notify()
