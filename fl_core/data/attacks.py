"""Ten attacks of the Mirai and BASHLITE (gafgyt) families, packet by packet.

An infected device runs an attack three times, from hardest to easiest to see: `stealth` (about
two packets a second, sizes that pass for the device's own), `slow` (about twelve a
second) and `flood` (hundreds a second). Rates, sizes and ports follow the bots' published sources
in kind: Antonakakis et al. 2017, "Understanding the Mirai Botnet", and Meidan et al. 2018, table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_core.data.packets import Packet
from fl_core.data.traffic import SYN_FRAME, TCP_HEADER, Endpoint, Wire, remote

__all__ = ["ATTACKS", "INTENSITIES", "Intensity", "attack_packets"]


@dataclass(frozen=True, slots=True)
class Intensity:
    """How hard an attack is run."""

    name: str
    """What messages call it."""
    rate: float
    """Attack packets a second that the device sends, before the day's variation."""
    seconds: float
    """How long it runs."""
    onset_s: float
    """How long it has run before its packets count: the first ones look like any other packet."""
    targets: int
    """How many victims it spreads over; scans always find new ones."""


INTENSITIES: Final = (
    Intensity("stealth", 2.0, 80.0, 8.0, 3),
    Intensity("slow", 12.0, 25.0, 3.0, 2),
    Intensity("flood", 350.0, 2.0, 0.5, 1),
)
"""In the order in which they are run (F-31, F-32)."""


@dataclass(frozen=True, slots=True)
class _Run:
    wire: Wire
    rng: np.random.Generator
    device: Endpoint
    intensity: Intensity
    victims: tuple[Endpoint, ...]

    def victim(self) -> Endpoint:
        return self.victims[int(self.rng.integers(len(self.victims)))]

    def port(self) -> int:
        return int(self.rng.integers(1024, 65535))

    def stranger(self) -> Endpoint:
        a, b, c, d = self.rng.integers(1, 255, size=4)
        return remote(f"{min(int(a), 223)}.{b}.{c}.{d}")

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def hidden(self) -> bool:
        return self.intensity.name == "stealth"


_Shot = Callable[[_Run, float], None]


def attack_packets(
    name: str,
    rng: np.random.Generator,
    device: Endpoint,
    *,
    start: float,
    intensity: Intensity,
) -> list[Packet]:
    """Return what an infected device sends, and what comes back, in order of time.

    Args:
        name: One of `ATTACKS`.
        rng: Source of every draw.
        device: Who attacks.
        start: When it begins, seconds.
        intensity: How hard.
    """
    wire = Wire()
    victims = tuple(
        remote(f"198.51.{int(rng.integers(256))}.{int(rng.integers(1, 255))}")
        for _ in range(intensity.targets)
    )
    run = _Run(wire, rng, device, intensity, victims)
    rate = intensity.rate * float(rng.uniform(0.6, 1.4))
    shoot = ATTACKS[name]
    time = start
    while True:
        time += float(rng.exponential(1.0 / rate))
        if time >= start + intensity.seconds:
            break
        shoot(run, time)
    return sorted(wire.packets, key=lambda packet: packet.time)


def _telnet_scan(run: _Run, time: float) -> None:
    """Mirai: a bare SYN to a random address, port 23 or, one in ten, 2323."""
    target = run.stranger()
    ports = (run.port(), 2323 if run.rng.random() < 0.1 else 23)
    run.wire.send(time, run.device, target, 60, ports=ports)
    if run.rng.random() < 0.03:
        run.wire.send(time + 0.08, target, run.device, 60, ports=(ports[1], ports[0]))


def _ack(run: _Run, time: float) -> None:
    """Mirai: ACK with 512 random bytes, random ports; unwanted, so mostly unanswered."""
    size = run.size(66, 180) if run.hidden() else 566
    run.wire.send(time, run.device, run.victim(), size, ports=(run.port(), run.port()))


def _syn(run: _Run, time: float) -> None:
    """Mirai: SYN with options from random ports to one service; some are answered."""
    victim, ports = run.victim(), (run.port(), 443 if run.hidden() else 80)
    run.wire.send(time, run.device, victim, SYN_FRAME, ports=ports)
    if run.rng.random() < 0.3:
        run.wire.send(time + 0.05, victim, run.device, SYN_FRAME, ports=(ports[1], ports[0]))


def _udp(run: _Run, time: float) -> None:
    """Mirai: 512 bytes to random ports."""
    size = run.size(70, 300) if run.hidden() else 554
    run.wire.send(
        time, run.device, run.victim(), size, ports=(run.port(), run.port()), protocol="udp"
    )


def _udp_plain(run: _Run, time: float) -> None:
    """Mirai: the same over one connected socket, for speed."""
    size = run.size(70, 300) if run.hidden() else 554
    run.wire.send(time, run.device, run.victim(), size, ports=(40000, 17000), protocol="udp")


def _junk(run: _Run, time: float) -> None:
    """BASHLITE: junk over open connections."""
    victim, ports = run.victim(), (40000 + int(run.rng.integers(4)), 5000)
    size = run.size(70, 220) if run.hidden() else TCP_HEADER + 1024
    run.wire.send(time, run.device, victim, size, ports=ports)
    run.wire.send(time + 0.04, victim, run.device, TCP_HEADER, ports=(ports[1], ports[0]))


def _combo(run: _Run, time: float) -> None:
    """BASHLITE: opens a connection, sends junk, lets it go."""
    victim, ports = run.victim(), (run.port(), 5000)
    back = (ports[1], ports[0])
    size = run.size(70, 220) if run.hidden() else TCP_HEADER + 1024
    run.wire.send(time, run.device, victim, SYN_FRAME, ports=ports)
    run.wire.send(time + 0.04, victim, run.device, SYN_FRAME, ports=back)
    run.wire.send(time + 0.041, run.device, victim, TCP_HEADER, ports=ports)
    run.wire.send(time + 0.042, run.device, victim, size, ports=ports)


def _login_scan(run: _Run, time: float) -> None:
    """BASHLITE: tries to connect to random telnet ports, twice, and to log in where it can."""
    target, ports = run.stranger(), (run.port(), 23)
    run.wire.send(time, run.device, target, SYN_FRAME, ports=ports)
    if run.rng.random() < 0.1:
        run.wire.send(time + 0.09, target, run.device, SYN_FRAME, ports=(ports[1], ports[0]))
        run.wire.send(time + 0.092, run.device, target, TCP_HEADER, ports=ports)
        run.wire.send(time + 0.3, run.device, target, TCP_HEADER + 6, ports=ports)
    else:
        run.wire.send(time + 1.0, run.device, target, SYN_FRAME, ports=ports)


def _tcp(run: _Run, time: float) -> None:
    """BASHLITE: segments with random flags from random ports to one port."""
    size = TCP_HEADER if run.hidden() else 60
    run.wire.send(time, run.device, run.victim(), size, ports=(run.port(), 443))


def _udp_random(run: _Run, time: float) -> None:
    """BASHLITE: random bytes of one size a target, from a fixed port to random ones."""
    size = run.size(70, 300) if run.hidden() else 1066
    run.wire.send(time, run.device, run.victim(), size, ports=(50000, run.port()), protocol="udp")


ATTACKS: Final[dict[str, _Shot]] = {
    "gafgyt.combo": _combo,
    "gafgyt.junk": _junk,
    "gafgyt.scan": _login_scan,
    "gafgyt.tcp": _tcp,
    "gafgyt.udp": _udp_random,
    "mirai.ack": _ack,
    "mirai.scan": _telnet_scan,
    "mirai.syn": _syn,
    "mirai.udp": _udp,
    "mirai.udpplain": _udp_plain,
}
"""Attack name, as in N-BaIoT's files, to what one shot of it sends (F-32)."""
