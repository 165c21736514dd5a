"""Packet-level models of what IoT devices do all day: the building blocks of a device profile.

An activity writes packets of one device onto a `Wire` between two times. Periodic ones have jitter;
those that people cause come and go with the hour (`busy`). Sizes are whole frames in bytes, times
are seconds. Everything is drawn from the generator that is handed in, so a seed fixes every packet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from fl_core.data.packets import Packet

__all__ = [
    "DAY_S",
    "GATEWAY",
    "Activity",
    "Announce",
    "ArpChatter",
    "Endpoint",
    "Exchange",
    "Firmware",
    "Heartbeat",
    "Lookup",
    "Video",
    "Wire",
    "busy",
    "remote",
    "server_pool",
    "tcp_session",
]

DAY_S: Final = 86_400.0
MIN_FRAME: Final = 60
MAX_FRAME: Final = 1514
TCP_HEADER: Final = 66  # Ethernet, IPv4, TCP with timestamps
SYN_FRAME: Final = 74


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Someone with an address on the local network, or behind the gateway."""

    mac: str
    ip: str


GATEWAY: Final = Endpoint("02:00:00:00:00:01", "192.168.2.1")
"""The local router: resolver, and link address of everyone outside."""

_MULTICAST: Final = Endpoint("01:00:5e:7f:ff:fa", "239.255.255.250")
_PHONE: Final = Endpoint("02:00:00:00:00:02", "192.168.2.2")


def remote(ip: str) -> Endpoint:
    """Return an endpoint outside the local network."""
    return Endpoint(GATEWAY.mac, ip)


def server_pool(label: int, count: int) -> tuple[Endpoint, ...]:
    """Return `count` cloud servers, the same ones for the same label."""
    return tuple(remote(f"203.0.{label % 256}.{10 + i}") for i in range(count))


class Wire:
    """Collects packets, in any order.

    Attributes:
        packets: What was sent so far.
    """

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def send(
        self,
        time: float,
        source: Endpoint,
        target: Endpoint,
        size: float,
        *,
        ports: tuple[int, int] = (0, 0),
        protocol: str = "tcp",
    ) -> None:
        """Put one frame on the wire; its size is brought between 60 and 1514 bytes."""
        self.packets.append(
            Packet(
                time=time,
                size=min(max(int(size), MIN_FRAME), MAX_FRAME),
                src_mac=source.mac,
                src_ip=source.ip,
                dst_ip=target.ip,
                src_port=ports[0],
                dst_port=ports[1],
                protocol=protocol,
            )
        )


class Activity(Protocol):
    """Something that a device does again and again."""

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write the packets of one time span onto the wire."""


def busy(time: float) -> float:
    """Return how much people do at a time, between 0.4 and 1: less at night, most at 19 h."""
    hour = time % DAY_S / 3600.0
    daylight = 0.5 + 0.5 * math.cos((hour - 19.0) * math.pi / 12.0)
    return 0.4 + 0.6 * daylight


def tcp_session(
    wire: Wire,
    rng: np.random.Generator,
    time: float,
    *,
    client: Endpoint,
    server: Endpoint,
    port: int,
    exchanges: tuple[tuple[int, int], ...],
) -> float:
    """Write a TCP connection: handshake, then (bytes up, bytes down) in turns, then its end.

    Returns:
        When it ended.
    """
    ports = (int(rng.integers(32768, 61000)), port)
    back = (port, ports[0])
    rtt = float(rng.lognormal(math.log(0.04), 0.4))
    wire.send(time, client, server, SYN_FRAME, ports=ports)
    wire.send(time + rtt, server, client, SYN_FRAME, ports=back)
    time += rtt + 0.0005
    wire.send(time, client, server, TCP_HEADER, ports=ports)
    for up, down in exchanges:
        time += 0.002 + float(rng.exponential(0.01))
        time = _segments(wire, time, client, server, ports, up)
        time += rtt
        wire.send(time, server, client, TCP_HEADER, ports=back)
        time += float(rng.exponential(0.02))
        time = _segments(wire, time, server, client, back, down)
        wire.send(time + 0.0005, client, server, TCP_HEADER, ports=ports)
    time += float(rng.exponential(0.5))
    wire.send(time, client, server, TCP_HEADER, ports=ports)
    wire.send(time + rtt, server, client, TCP_HEADER, ports=back)
    wire.send(time + rtt + 0.0005, client, server, TCP_HEADER, ports=ports)
    return time + rtt


def _segments(
    wire: Wire,
    time: float,
    source: Endpoint,
    target: Endpoint,
    ports: tuple[int, int],
    size: int,
) -> float:
    largest = MAX_FRAME - TCP_HEADER
    for index in range(max(-(-size // largest), 1)):
        part = min(size - index * largest, largest)
        wire.send(time, source, target, TCP_HEADER + part, ports=ports)
        if index % 2:
            wire.send(time + 0.0004, target, source, TCP_HEADER, ports=(ports[1], ports[0]))
        time += 0.0012
    return time


def _periodic(
    rng: np.random.Generator, span: tuple[float, float], period: float, jitter: float
) -> Iterator[float]:
    time = span[0] + float(rng.uniform(0, period))
    while time < span[1]:
        yield time
        time += max(period * float(rng.normal(1.0, jitter)), period * 0.1)


def _by_people(
    rng: np.random.Generator, span: tuple[float, float], per_hour: float
) -> Iterator[float]:
    time = span[0]
    while True:
        time += float(rng.exponential(3600.0 / per_hour))
        if time >= span[1]:
            return
        if rng.random() < busy(time):
            yield time


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A short message to the vendor's cloud, and its answer, over a connection that stays open."""

    period_s: float
    up: int
    down: int
    port: int
    servers: tuple[Endpoint, ...]
    protocol: str = "tcp"
    jitter: float = 0.03

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write heartbeats; the connection moves to another server every 25 minutes or so."""
        ports, server = self._connect(rng)
        for time in _periodic(rng, span, self.period_s, self.jitter):
            if rng.random() < self.period_s / 1500.0:
                ports, server = self._connect(rng)
            back = (ports[1], ports[0])
            extra = int(rng.integers(0, 4)) * 16 if rng.random() < 0.2 else 0
            rtt = float(rng.lognormal(math.log(0.04), 0.3))
            send = wire.send
            send(time, device, server, self.up + extra, ports=ports, protocol=self.protocol)
            if rng.random() < 0.01:  # lost: sent again
                time += float(rng.uniform(0.2, 1.0))
                send(time, device, server, self.up + extra, ports=ports, protocol=self.protocol)
            time += rtt
            send(time, server, device, self.down, ports=back, protocol=self.protocol)
            if self.protocol == "tcp":
                send(time + 0.0006, device, server, TCP_HEADER, ports=ports)

    def _connect(self, rng: np.random.Generator) -> tuple[tuple[int, int], Endpoint]:
        server = self.servers[int(rng.integers(len(self.servers)))]
        return (int(rng.integers(32768, 61000)), self.port), server


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question over UDP and its answer: DNS at the gateway, or NTP at a time server."""

    period_s: float
    port: int
    servers: tuple[Endpoint, ...]
    up: tuple[int, int]
    down: tuple[int, int]

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write questions of sizes in `up` and answers of sizes in `down`."""
        for time in _periodic(rng, span, self.period_s, 0.2):
            server = self.servers[int(rng.integers(len(self.servers)))]
            ports = (int(rng.integers(1024, 65535)), self.port)
            up = int(rng.integers(self.up[0], self.up[1] + 1))
            down = int(rng.integers(self.down[0], self.down[1] + 1))
            wire.send(time, device, server, up, ports=ports, protocol="udp")
            time += float(rng.lognormal(math.log(0.02), 0.5))
            wire.send(time, server, device, down, ports=(self.port, ports[0]), protocol="udp")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A TLS session with the cloud: status uploads by the clock, or what a person asked for."""

    period_s: float
    requests: tuple[int, int]
    up: float
    down: float
    servers: tuple[Endpoint, ...]
    by_people: bool = False
    port: int = 443

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write sessions of a few requests with log-normal sizes around `up` and `down` bytes."""
        starts = (
            _by_people(rng, span, 3600.0 / self.period_s)
            if self.by_people
            else _periodic(rng, span, self.period_s, 0.15)
        )
        for time in starts:
            server = self.servers[int(rng.integers(len(self.servers)))]
            count = int(rng.integers(self.requests[0], self.requests[1] + 1))
            sizes = [(517, 3200)]  # the TLS greeting
            for _ in range(count):
                up, down = rng.lognormal((math.log(self.up), math.log(self.down)), 0.5)
                sizes.append((min(int(up), 30_000), min(int(down), 60_000)))
            tcp_session(
                wire,
                rng,
                time,
                client=device,
                server=server,
                port=self.port,
                exchanges=tuple(sizes),
            )


@dataclass(frozen=True, slots=True)
class Video:
    """A person watches: a stream of frames out of the device, with acknowledgements back."""

    per_hour: float
    length_s: float
    frames_per_s: float
    frame_bytes: int
    servers: tuple[Endpoint, ...]
    protocol: str = "udp"

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write streams; one frame in twelve is a key frame, four times the size."""
        for start in _by_people(rng, span, self.per_hour):
            server = self.servers[int(rng.integers(len(self.servers)))]
            ports = (int(rng.integers(32768, 61000)), 1935 if self.protocol == "tcp" else 10001)
            length = min(float(rng.exponential(self.length_s)), 4 * self.length_s)
            rate = self.frames_per_s * float(rng.uniform(0.7, 1.2))
            for index in range(int(length * rate)):
                time = start + (index + float(rng.uniform(0, 0.3))) / rate
                if time >= span[1]:
                    break
                size = int(self.frame_bytes * (4 if index % 12 == 0 else rng.uniform(0.6, 1.3)))
                for piece in range(-(-size // 1400)):
                    part = min(size - piece * 1400, 1400) + 54
                    wire.send(
                        time + 0.0004 * piece,
                        device,
                        server,
                        part,
                        ports=ports,
                        protocol=self.protocol,
                    )
                if index % 5 == 0:
                    wire.send(
                        time + 0.03,
                        server,
                        device,
                        TCP_HEADER if self.protocol == "tcp" else 90,
                        ports=(ports[1], ports[0]),
                        protocol=self.protocol,
                    )


@dataclass(frozen=True, slots=True)
class Announce:
    """UPnP announcements by multicast, a few frames at once."""

    period_s: float
    count: int
    size: int

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write bursts of `count` announcements of slightly different sizes."""
        for time in _periodic(rng, span, self.period_s, 0.05):
            for index in range(self.count):
                wire.send(
                    time + 0.1 * index,
                    device,
                    _MULTICAST,
                    self.size + 9 * (index % 4),
                    ports=(1900, 1900),
                    protocol="udp",
                )


@dataclass(frozen=True, slots=True)
class ArpChatter:
    """Who-has questions of the gateway, of a phone and of the device, and the answers."""

    period_s: float

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write questions and answers of 60 bytes."""
        for time in _periodic(rng, span, self.period_s, 0.4):
            peer = GATEWAY if rng.random() < 0.8 else _PHONE
            asks, answers = (device, peer) if rng.random() < 0.5 else (peer, device)
            wire.send(time, asks, answers, MIN_FRAME, protocol="arp")
            wire.send(time + 0.0008, answers, asks, MIN_FRAME, protocol="arp")


@dataclass(frozen=True, slots=True)
class Firmware:
    """Asks for new firmware, and now and then loads a piece of it."""

    period_s: float
    servers: tuple[Endpoint, ...]

    def play(
        self, wire: Wire, rng: np.random.Generator, device: Endpoint, span: tuple[float, float]
    ) -> None:
        """Write a check; one in three loads 20 to 60 kB."""
        for time in _periodic(rng, span, self.period_s, 0.3):
            down = int(rng.integers(20_000, 60_000)) if rng.random() < 1 / 3 else 900
            tcp_session(
                wire,
                rng,
                time,
                client=device,
                server=self.servers[int(rng.integers(len(self.servers)))],
                port=80,
                exchanges=((320, down),),
            )
