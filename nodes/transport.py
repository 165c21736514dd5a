"""ZeroMQ sockets with CURVE: frames and authenticated node ids, no protocol.

The coordinator binds a ROUTER, each node connects a DEALER. A ZAP handler admits only transport
keys of the roster, and libzmq hands the authenticated key along with every frame, so the session
knows who speaks before it reads a byte.

Source: specs/20-wire.md section 5.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from secagg.errors import ConfigError
from secagg.types import NodeId
from secagg.wire.envelope import MAX_ENVELOPE, Envelope

__all__ = ["MAX_UPLOAD", "CoordinatorSocket", "NodeSocket", "Traffic", "check_library"]

MAX_UPLOAD: Final = 1 << 22
"""Bytes of one frame from a node: chunks are at most 512 kB, shares for 10 000 peers 2 MB."""
_QUEUE: Final = 64  # frames libzmq holds for one peer: 256 MB at worst, in practice some 5 MB
_SEND_QUEUE: Final = 1_000  # a node that lets more wait is dropped from its round
_DRAIN: Final = 256  # frames handled between two looks at the clock
_ZAP_DOMAIN: Final = b"secagg"
_KNOCK_AGAIN: Final = 2.0  # seconds after a failed handshake
_REFUSALS: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
_CONNECTED: Final = "connected"
_CONNECTION_STATES: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: _CONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the coordinator does not admit this node's transport key: "
    "is it approved, not revoked, and the coordinator's roster up to date?",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "whoever listens there does not speak CURVE with us",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed: is the coordinator's key in this "
    "node's roster the one it runs with?",
    zmq.EVENT_DISCONNECTED: "disconnected",
    zmq.EVENT_CONNECT_RETRIED: "nobody listens there yet",
}
_log = logging.getLogger(__name__)


def check_library() -> str:
    """Return the version of libzmq.

    Raises:
        ConfigError: it was built without CURVE.
    """
    if not zmq.has("curve"):
        raise ConfigError(
            "this libzmq has no CURVE security", hint="install pyzmq from its official wheels"
        )
    return zmq.zmq_version()


class Traffic:
    """Bytes and frames by peer, envelope included, ZMTP and TCP framing not."""

    def __init__(self) -> None:
        self.sent: Counter[NodeId] = Counter()
        self.received: Counter[NodeId] = Counter()

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes sent and received, over all peers."""
        return self.sent.total(), self.received.total()


def _harden(socket: zmq.Socket[bytes]) -> None:
    socket.linger = 2_000  # ms to flush farewells
    socket.set(zmq.HANDSHAKE_IVL, 10_000)  # a peer that stalls its handshake is cut off
    socket.set(zmq.HEARTBEAT_IVL, 5_000)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 15_000)
    socket.set(zmq.TCP_KEEPALIVE, 1)


class CoordinatorSocket:
    """The coordinator's end.

    Args:
        bind: Endpoint such as ``tcp://0.0.0.0:7710``; port ``*`` takes a free one.
        secret: CURVE secret key, 32 raw bytes.
        public: CURVE public key, 32 raw bytes.
        lookup: Raw transport key to the id of an active node, or None. Called from another thread
            and for every frame, so a roster change takes effect at once (S-09).

    Raises:
        ConfigError: the endpoint cannot be bound.
    """

    def __init__(
        self, bind: str, *, secret: bytes, public: bytes, lookup: Callable[[bytes], NodeId | None]
    ) -> None:
        self._lookup = lookup
        self._routes: dict[NodeId, bytes] = {}
        self._strangers: deque[str] = deque(maxlen=100)
        self.traffic = Traffic()
        self._context = zmq.Context()
        self._auth = ThreadAuthenticator(self._context)
        self._auth.configure_curve_callback(_ZAP_DOMAIN.decode(), self)
        self._auth.start()
        self._socket = self._context.socket(zmq.ROUTER)
        _harden(self._socket)
        self._socket.set(zmq.CURVE_SERVER, 1)
        self._socket.curve_secretkey = z85.encode(secret)
        self._socket.curve_publickey = z85.encode(public)
        self._socket.set(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
        self._socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without the handler nobody gets in
        self._socket.set(zmq.MAXMSGSIZE, MAX_UPLOAD)
        self._socket.set(zmq.RCVHWM, _QUEUE)
        self._socket.set(zmq.SNDHWM, _SEND_QUEUE)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot listen on {bind}: {error.strerror}",
                hint="free the port or choose another in coordinator.bind",
            ) from error

    @property
    def endpoint(self) -> str:
        """What the socket is bound to, with the real port."""
        return self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For the poller."""
        return self._socket

    def callback(self, domain: str, key: bytes) -> bool:
        """Decide about a connection; the ZAP handler calls it with the z85 key (W-07)."""
        del domain
        known = self._lookup(z85.decode(key)) is not None
        if not known:
            self._strangers.append(key.decode("ascii"))
        return known

    def strangers(self) -> list[str]:
        """Return, once each, the z85 public keys that were turned away since the last call."""
        turned_away = [self._strangers.popleft() for _ in range(len(self._strangers))]
        return sorted(set(turned_away))

    def receive(self) -> list[tuple[NodeId, bytes]]:
        """Return frames that have arrived, each with its authenticated sender; does not block."""
        frames: list[tuple[NodeId, bytes]] = []
        for _ in range(_DRAIN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            if len(parts) != 2:
                continue  # not ours: a message is one frame behind the routing id
            node = self._lookup(z85.decode(str(parts[1].get("User-Id")).encode()))
            if node is None:
                continue  # revoked since it connected (S-09)
            self._routes[node] = parts[0].bytes
            frame = parts[1].bytes
            self.traffic.received[node] += len(frame)
            frames.append((node, frame))
        return frames

    def send(self, node: NodeId, envelope: Envelope) -> bool:
        """Queue an envelope; False if the node is not connected, or does not read what it is sent.

        Its body is not copied: a model on its way to a thousand nodes is in memory once.
        """
        route = self._routes.get(node)
        if route is None:
            return False
        try:
            parts = [route, envelope.head, envelope.body]
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except (zmq.Again, zmq.ZMQError) as error:
            _log.info("peer.unreachable node=%s cause=%s", node, error)
            self._routes.pop(node, None)
            return False
        self.traffic.sent[node] += len(envelope)
        return True

    def close(self) -> None:
        """Flush for a moment and close."""
        self._socket.close()
        self._auth.stop()
        self._context.term()


class NodeSocket:
    """A node's end; it reconnects by itself for as long as it is open.

    Args:
        connect: Endpoint of the coordinator.
        secret: This node's CURVE secret key, 32 raw bytes.
        public: Its public key.
        server: The coordinator's public key from the roster: nobody else can answer (W-07).

    Raises:
        ConfigError: the endpoint is malformed.
    """

    def __init__(self, connect: str, *, secret: bytes, public: bytes, server: bytes) -> None:
        self.traffic = Traffic()
        self._peer = connect
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        _harden(self._socket)
        self._socket.curve_secretkey = z85.encode(secret)
        self._socket.curve_publickey = z85.encode(public)
        self._socket.curve_serverkey = z85.encode(server)
        self._socket.set(zmq.MAXMSGSIZE, MAX_ENVELOPE)
        self._socket.set(zmq.RECONNECT_IVL, 200)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 5_000)
        self._socket.set(zmq.SNDHWM, 10_000)
        self._socket.set(zmq.IMMEDIATE, 1)  # no stale hellos for a coordinator that comes later
        self._monitor = self._socket.get_monitor_socket(
            sum(_CONNECTION_STATES) | zmq.EVENT_CONNECTED
        )
        self._connection = ""
        self._reached = False
        self._knock_at: float | None = None
        try:
            self._socket.connect(connect)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot connect to {connect}: {error.strerror}",
                hint="node.coordinator looks like tcp://host:7710",
            ) from error

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For the poller."""
        return self._socket

    def connection_change(self) -> str | None:
        """Return what became of the connection since the last call, or None if nothing did.

        Also knocks again after a failed handshake: libzmq itself gives up on a peer that turned it
        away, but the roster may list this node tomorrow.
        """
        before = self._connection
        if self._knock_at is not None and time.monotonic() >= self._knock_at:
            self._knock_at = None
            with contextlib.suppress(zmq.ZMQError):  # libzmq may have dropped it already
                self._socket.disconnect(self._peer)
            self._socket.connect(self._peer)
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_CONNECTED:
                self._reached = True
            elif event == zmq.EVENT_CONNECT_RETRIED:  # says why only if TCP never got through
                if not self._reached:
                    self._connection = _CONNECTION_STATES[event]
                self._reached = False
            elif event != zmq.EVENT_DISCONNECTED or self._connection == _CONNECTED:
                if event in _REFUSALS:
                    self._knock_at = time.monotonic() + _KNOCK_AGAIN
                self._connection = _CONNECTION_STATES[event]
        return self._connection if self._connection != before else None

    def receive(self) -> list[bytes]:
        """Return frames that have arrived; does not block."""
        frames: list[bytes] = []
        for _ in range(_DRAIN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if len(parts) == 2:
                frames.append(b"".join(parts))
                self.traffic.received[self._peer] += len(frames[-1])
        return frames

    def send(self, frame: bytes) -> bool:
        """Queue a frame; False while there is no connection to the coordinator."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.traffic.sent[self._peer] += len(frame)
        return True

    def close(self) -> None:
        """Flush for a moment and close."""
        self._socket.disable_monitor()
        self._monitor.close()  # an open socket would keep term() waiting for ever
        self._socket.close()
        self._context.term()
