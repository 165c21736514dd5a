"""What the daemons wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from nodes.loop import Waiter


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    waiter = Waiter()
    yield waiter
    waiter.close()


def test_a_socket_that_is_not_connected_yet_can_be_waited_for(waiter: Waiter) -> None:
    with zmq.Context() as context:
        late, node = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        late.linger = node.linger = 0
        node.set(zmq.IMMEDIATE, 1)
        port = late.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        late.unbind(endpoint)
        node.connect(endpoint)
        waiter.wait(node, 0.05, to_send=True)
        assert not node.poll(0, zmq.POLLOUT)
        late.bind(endpoint)
        started = time.monotonic()
        waiter.wait(node, 60, to_send=True)
        assert time.monotonic() - started < 50
        node.send(b"hello", zmq.NOBLOCK)
        waiter.wait(late, 60)
        assert late.recv_multipart(zmq.NOBLOCK)[1] == b"hello"
        late.close()
        node.close()


def test_a_notice_from_another_thread_ends_the_wait(waiter: Waiter) -> None:
    with zmq.Context() as context:
        silent = context.socket(zmq.DEALER)
        timer = threading.Timer(0.05, waiter.notify)
        timer.start()
        started = time.monotonic()
        waiter.wait(silent, 60)
        assert time.monotonic() - started < 50
        timer.join()
        silent.close()
