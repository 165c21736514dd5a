"""The 115 damped incremental statistics of a packet stream: one row per packet.

For every packet, five streams that it belongs to are brought up to date, each in five windows that
forget by the factor 2^(-λ·Δt), and the new statistics of all of them are the packet's row:

=======  ==================================  ==========================================  =======
stream   packets with the same               statistics                                  columns
=======  ==================================  ==========================================  =======
MI_dir   source MAC and IP address           size: weight, mean, variance                15
H        source IP address                   size: weight, mean, variance                15
HH       source and destination address      size: weight, mean, std; with the answers:  35
                                             magnitude, radius, covariance, pcc
HH_jit   source and destination address      time since the one before: weight, mean,    15
                                             variance
HpHp     both addresses and both ports       as HH                                       35
=======  ==================================  ==========================================  =======

specs/85-features.md gives every formula and says where it departs from the published code. Written
from the papers: Mirsky et al. 2018 (Kitsune), section IV-B, and Meidan et al. 2018 (N-BaIoT),
table 2.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import exp2, isfinite, sqrt
from typing import Final, Generic, TypeVar

import numpy as np

from fl_core.data.dataset import Matrix
from fl_core.data.packets import Packet
from fl_core.errors import DataError

__all__ = [
    "FEATURE_NAMES",
    "IDLE_LIMIT_S",
    "LAMBDAS",
    "LATE_LIMIT_S",
    "MAX_CHANNELS",
    "Extractor",
    "ExtractorCounts",
    "extract",
]

LAMBDAS: Final = (5.0, 3.0, 1.0, 0.1, 0.01)
"""Decay rates λ, 1/s: half of a packet's weight is gone after 1/λ seconds."""

IDLE_LIMIT_S: Final = 2000.0
"""A stream silent for longer is forgotten: each packet in it weighs less than 2^(-0.01·2000), one
part in a million, even in the slowest window."""

LATE_LIMIT_S: Final = 100.0
"""How long a forgotten stream stays in memory, for packets that come late."""

MAX_CHANNELS: Final = 50_000
"""Default cap on the channels of each kind: about 0.5 GB when all four kinds are full."""


def _names() -> tuple[str, ...]:
    one = ("weight", "mean", "variance")
    two = ("weight", "mean", "std", "magnitude", "radius", "covariance", "pcc")
    streams = (("MI_dir", one), ("H", one), ("HH", two), ("HH_jit", one), ("HpHp", two))
    return tuple(
        f"{stream}_L{rate:g}_{statistic}"
        for stream, statistics in streams
        for rate in LAMBDAS
        for statistic in statistics
    )


FEATURE_NAMES: Final[tuple[str, ...]] = _names()
"""The 115 columns in N-BaIoT's order (F-01)."""


@dataclass(frozen=True, slots=True)
class ExtractorCounts:
    """What an extractor has seen so far."""

    packets: int
    """Packets, which is rows."""
    out_of_order: int
    """Packets with a time before that of the packet before them."""
    live_channels: int
    """Channels held now, all four kinds together."""
    peak_channels: int
    """The most channels held at once."""
    expired: int
    """Channels forgotten after `IDLE_LIMIT_S` of silence: no statistic changes by it."""
    dropped: int
    """Channels dropped, the longest silent first, because their kind was full."""


_RATES: Final = tuple(-rate for rate in LAMBDAS)
_FRESH: Final = ((0.0, 0.0, 0.0),) * 5  # weight, mean, variance in each window
_FRESH_SIDE: Final = (
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
) * 5  # and residual, mean and variance of gaps
_FRESH_BOTH: Final = ((0.0, 0.0),) * 5  # weight and sum of residual products
_PCC_FLOOR: Final = 1e-9  # bytes²: below it the two deviations are rounding, not spread

_Windows = Sequence[tuple[float, float, float]]
_SideWindows = Sequence[tuple[float, float, float, float, float, float]]
_BothWindows = Sequence[tuple[float, float]]


class _Stream:
    """Packet sizes of one sender in five windows."""

    __slots__ = ("time", "windows")

    def __init__(self, time: float) -> None:
        self.time = time
        self.windows: _Windows = _FRESH

    def insert(self, time: float, value: float, row: list[float]) -> None:
        """Take in a packet and append weight, mean and variance of each window to `row` (F-05)."""
        gap = max(time - self.time, 0.0)  # F-04
        self.time = max(time, self.time)
        windows = []
        for rate, (weight, mean, variance) in zip(_RATES, self.windows, strict=True):
            old = exp2(rate * gap) * weight
            weight = old + 1.0
            delta = value - mean
            step = delta / weight
            window = (weight, mean + step, (old * variance + delta * step * old) / weight)
            windows.append(window)
            row += window
        self.windows = windows


class _Side:
    """One direction of a pair."""

    __slots__ = ("time", "windows")

    def __init__(self, time: float) -> None:
        self.time = time
        self.windows: _SideWindows = _FRESH_SIDE


class _Pair:
    """Both directions between two ends; a side appears with its first packet."""

    __slots__ = ("both", "sides", "time")

    def __init__(self, time: float) -> None:
        self.time = time
        self.sides: list[_Side | None] = [None, None]
        self.both: _BothWindows = _FRESH_BOTH

    def insert(
        self, side: int, time: float, value: float, row: list[float], gaps: list[float]
    ) -> None:
        """Take in a packet of one side; append to `row` (F-06, F-07) and `gaps` (F-08)."""
        own, other = self.sides[side], self.sides[1 - side]
        if own is None:
            own = self.sides[side] = _Side(time)
        gap = max(time - own.time, 0.0)  # F-04
        gap_both = max(time - self.time, 0.0)  # F-04: the pair's clock
        own.time = max(time, own.time)
        self.time = max(time, self.time)
        opposite = _FRESH_SIDE if other is None else other.windows
        windows = []
        both = []
        for rate, mine, theirs, (weight_both, product) in zip(
            _RATES, own.windows, opposite, self.both, strict=True
        ):
            weight, mean, variance, _, gap_mean, gap_variance = mine
            old = exp2(rate * gap) * weight
            weight = old + 1.0
            delta = value - mean
            step = delta / weight
            mean += step
            residual = step * old
            variance = (old * variance + delta * residual) / weight
            delta = gap - gap_mean
            step = delta / weight
            gap_mean += step
            gap_variance = (old * gap_variance + delta * step * old) / weight
            windows.append((weight, mean, variance, residual, gap_mean, gap_variance))
            decay = exp2(rate * gap_both)
            weight_both = weight_both * decay + 1.0
            product = product * decay + residual * theirs[3]
            both.append((weight_both, product))
            deviation = sqrt(variance)
            gaps += (weight, gap_mean, gap_variance)
            if other is None:
                row += (weight, mean, deviation, mean, variance, 0.0, 0.0)
                continue
            covariance = product / weight_both
            scale = deviation * sqrt(theirs[2])
            row += (
                weight,
                mean,
                deviation,
                sqrt(mean * mean + theirs[1] * theirs[1]),
                sqrt(variance * variance + theirs[2] * theirs[2]),
                covariance,
                covariance / scale if scale > _PCC_FLOOR else 0.0,
            )
        own.windows = windows
        self.both = both


_Channel = TypeVar("_Channel", _Stream, _Pair)


class _Channels(Generic[_Channel]):
    """The channels of one kind, the longest silent first."""

    __slots__ = ("_cap", "_fresh", "dropped", "expired", "held")

    def __init__(self, fresh: Callable[[float], _Channel], cap: int) -> None:
        self._fresh: Callable[[float], _Channel] = fresh
        self._cap = cap
        self.held: OrderedDict[Hashable, _Channel] = OrderedDict()
        self.expired = 0
        self.dropped = 0

    def find(self, key: Hashable, time: float) -> _Channel:
        """Return the channel of `key`, a fresh one if it is new or was silent too long (F-10)."""
        channel = self.held.get(key)
        if channel is not None:
            self.held.move_to_end(key)
            if abs(time - channel.time) <= IDLE_LIMIT_S:
                return channel
            self.expired += 1
        else:
            self._make_room(time)
        channel = self.held[key] = self._fresh(time)
        return channel

    def _make_room(self, time: float) -> None:
        """Forget up to two silent channels, so that each new one pays for two old ones (F-11)."""
        for _ in range(2):
            if not self.held:
                return
            key, oldest = next(iter(self.held.items()))
            if abs(time - oldest.time) > IDLE_LIMIT_S + LATE_LIMIT_S:  # F-09
                del self.held[key]
                self.expired += 1
            elif len(self.held) >= self._cap:
                del self.held[key]
                self.dropped += 1


class Extractor:
    """Turns packets into rows of the 115 statistics, one row for each packet.

    Time and memory for a packet are bounded: each packet touches four channels, and creates at most
    four.

    Args:
        max_channels: Cap on the channels of each of the four kinds.

    Raises:
        DataError: max_channels is less than 1.
    """

    def __init__(self, *, max_channels: int = MAX_CHANNELS) -> None:
        if max_channels < 1:
            raise DataError(f"max channels is {max_channels}", hint="use at least 1")
        self._senders: _Channels[_Stream] = _Channels(_Stream, max_channels)  # MI_dir
        self._hosts: _Channels[_Stream] = _Channels(_Stream, max_channels)  # H
        self._links: _Channels[_Pair] = _Channels(_Pair, max_channels)  # HH and HH_jit
        self._sockets: _Channels[_Pair] = _Channels(_Pair, max_channels)  # HpHp
        self._packets = 0
        self._late = 0
        self._latest = float("-inf")
        self._peak = 0

    def update(self, packet: Packet) -> list[float]:
        """Take in a packet and return its row, 115 finite values in the order of FEATURE_NAMES.

        Raises:
            DataError: The packet's time is not finite.
        """
        time, size, source, target = packet.time, packet.size, packet.src_ip, packet.dst_ip
        if not isfinite(time):
            raise DataError(f"packet {self._packets + 1} has time {time}")
        self._packets += 1
        if time < self._latest:  # F-04
            self._late += 1
        self._latest = time
        row: list[float] = []
        gaps: list[float] = []
        self._senders.find((packet.src_mac, source), time).insert(time, size, row)
        self._hosts.find(source, time).insert(time, size, row)
        side = int(source > target)
        link = (target, source) if side else (source, target)  # F-02
        self._links.find(link, time).insert(side, time, size, row, gaps)
        row += gaps
        port, peer = packet.src_port, packet.dst_port
        if source == target:
            side = int(port > peer)
        ends = (target, peer, source, port) if side else (source, port, target, peer)  # F-02
        self._sockets.find((packet.protocol, *ends), time).insert(side, time, size, row, gaps)
        live = self.live_channels
        if live > self._peak:
            self._peak = live
        return row  # F-01

    @property
    def live_channels(self) -> int:
        """Channels held now, all four kinds together."""
        return (
            len(self._senders.held)
            + len(self._hosts.held)
            + len(self._links.held)
            + len(self._sockets.held)
        )

    @property
    def counts(self) -> ExtractorCounts:
        """What has been seen so far."""
        kinds = (self._senders, self._hosts, self._links, self._sockets)
        return ExtractorCounts(
            packets=self._packets,
            out_of_order=self._late,
            live_channels=self.live_channels,
            peak_channels=self._peak,
            expired=sum(kind.expired for kind in kinds),
            dropped=sum(kind.dropped for kind in kinds),
        )


def extract(packets: Iterable[Packet], *, extractor: Extractor | None = None) -> Matrix:
    """Return the rows of a packet sequence, shape (n, 115).

    Args:
        packets: In the order of capture.
        extractor: Goes on from the channels that it holds; None for a new one.
    """
    source = Extractor() if extractor is None else extractor
    rows = [np.array(source.update(packet)) for packet in packets]
    return np.stack(rows) if rows else np.empty((0, len(FEATURE_NAMES)))
