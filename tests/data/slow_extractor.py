"""The 115 statistics by explicit sums over the whole history: slow, and plainly what F-xx say.

Nothing is carried from one packet to the next but the list of packets (specs/85-features.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from fl_core.data.packets import Packet

RATES = (5.0, 3.0, 1.0, 0.1, 0.01)
IDLE = 2000.0


@dataclass(frozen=True)
class Timed:
    """A packet in a stream: its value and the stream's clock when it came."""

    index: int
    value: float
    clock: float


def clocked(packets: Sequence[Packet], members: Sequence[int]) -> list[Timed]:
    """Give each member the largest time so far."""
    clock = float("-inf")
    out = []
    for index in members:
        clock = max(clock, packets[index].time)
        out.append(Timed(index, packets[index].size, clock))
    return out


def since_forgotten(packets: Sequence[Packet], members: list[int]) -> list[int]:
    """Drop everything before the last silence that forgets the stream (F-10)."""
    kept: list[int] = []
    for index in members:
        clock = max((packets[k].time for k in kept), default=packets[index].time)
        if abs(packets[index].time - clock) > IDLE:
            kept = []
        kept.append(index)
    return kept


def moments(stream: Sequence[Timed], rate: float) -> tuple[float, float, float]:
    """Weight, mean and variance (F-05)."""
    if not stream:
        return 0.0, 0.0, 0.0
    decays = [2.0 ** (-rate * (stream[-1].clock - item.clock)) for item in stream]
    weight = sum(decays)
    mean = sum(d * item.value for d, item in zip(decays, stream, strict=True)) / weight
    squares = sum(d * (item.value - mean) ** 2 for d, item in zip(decays, stream, strict=True))
    return weight, mean, squares / weight


def covariance(
    packets: Sequence[Packet], pair: list[int], side_of: Callable[[int], int], rate: float
) -> float:
    """Replay the pair: products of each residual with the other side's last one (F-07)."""
    last = [0.0, 0.0]
    terms: list[tuple[float, float]] = []  # clock, product
    sides: list[list[int]] = [[], []]
    for item in clocked(packets, pair):
        side = side_of(item.index)
        sides[side].append(item.index)
        _, mean, _ = moments(clocked(packets, sides[side]), rate)
        last[side] = packets[item.index].size - mean
        terms.append((item.clock, last[0] * last[1]))
    now = terms[-1][0]
    decays = [2.0 ** (-rate * (now - clock)) for clock, _ in terms]
    return sum(d * p for d, (_, p) in zip(decays, terms, strict=True)) / sum(decays)


def one_sided(packets: Sequence[Packet], members: list[int]) -> list[float]:
    """Fifteen columns."""
    stream = clocked(packets, since_forgotten(packets, members))
    return [value for rate in RATES for value in moments(stream, rate)]


def two_sided(
    packets: Sequence[Packet], pair: list[int], side_of: Callable[[int], int]
) -> tuple[list[float], list[float]]:
    """Thirty-five columns, and fifteen of the intervals."""
    pair = since_forgotten(packets, pair)
    side = side_of(pair[-1])
    own = clocked(packets, [i for i in pair if side_of(i) == side])
    other = clocked(packets, [i for i in pair if side_of(i) != side])
    gaps = [
        Timed(b.index, max(packets[b.index].time - a.clock, 0.0), b.clock) for a, b in pairwise(own)
    ]
    gaps = [Timed(own[0].index, 0.0, own[0].clock), *gaps]
    row: list[float] = []
    for rate in RATES:
        weight, mean, variance = moments(own, rate)
        _, other_mean, other_variance = moments(other, rate)
        both = covariance(packets, pair, side_of, rate) if other else 0.0
        scale = sqrt(variance) * sqrt(other_variance)
        row += [weight, mean, sqrt(variance)]
        row += [sqrt(mean**2 + other_mean**2), sqrt(variance**2 + other_variance**2)]
        row += [both, both / scale if scale > 1e-9 else 0.0]
    return row, [value for rate in RATES for value in moments(gaps, rate)]


def slow_row(packets: Sequence[Packet]) -> list[float]:
    """The row of the last packet."""
    new = packets[-1]

    def members(key: Callable[[Packet], object]) -> list[int]:
        return [i for i, packet in enumerate(packets) if key(packet) == key(new)]

    def hosts(packet: Packet) -> tuple[str, str]:
        return packet.src_ip, packet.dst_ip

    def sockets(packet: Packet) -> tuple[object, object]:
        return (packet.src_ip, packet.src_port), (packet.dst_ip, packet.dst_port)

    host_pair = members(lambda p: frozenset(hosts(p)))
    socket_pair = members(lambda p: (p.protocol, frozenset(sockets(p))))
    link, gaps = two_sided(packets, host_pair, lambda i: int(hosts(packets[i]) != hosts(new)))
    talk, _ = two_sided(packets, socket_pair, lambda i: int(sockets(packets[i]) != sockets(new)))
    return [
        *one_sided(packets, members(lambda p: (p.src_mac, p.src_ip))),
        *one_sided(packets, members(lambda p: p.src_ip)),
        *link,
        *gaps,
        *talk,
    ]
