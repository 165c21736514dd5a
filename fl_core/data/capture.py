"""Packets out of a capture file or a live pipe: pcap and pcapng, record by record.

A capture is hostile input: whoever is on the network wrote it. Every length is checked before it is
believed, a frame that makes no sense is counted by its reason and skipped, and only a file that is
no capture at all, or whose records have lost their places, is an error. Headers above the link
layer are read by dpkt.

Source: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng (file formats).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import BinaryIO, Final

import dpkt

from fl_core.data.packets import Packet
from fl_core.errors import DataError

__all__ = ["MAX_BLOCK", "MAX_FRAME", "Capture"]

MAX_FRAME: Final = 1 << 18
"""Most bytes of a captured frame: libpcap's own limit, 256 KiB."""

MAX_BLOCK: Final = 1 << 24
"""Most bytes of a pcapng block: 16 MiB, a name-resolution block of a very long capture."""

_ETHERNET, _RAW, _COOKED, _COOKED2 = (1,), (12, 14, 101, 228, 229), (113,), (276,)
_LINK_TYPES: Final = _ETHERNET + _RAW + _COOKED + _COOKED2  # F-12
_TRUNCATED = "capture cut off"
_HINT = "give a pcap or pcapng file as tcpdump, dumpcap or Wireshark write it"
_REPAIR = "the file was changed or badly copied; capture again, or repair it with pcapfix"
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_VLAN = (0x8100, 0x88A8, 0x9100)
_ESP = 50
_NAMES = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmp"}


@dataclass(frozen=True, slots=True)
class _Record:
    time: float
    size: int
    link_type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    ticks: float  # a second
    offset: int  # seconds


class _Skip(Exception):
    """This frame is skipped for the reason in its message; never leaves this module."""


class Capture:
    """The packets of one capture, read as they are asked for.

    Args:
        stream: Open for reading bytes; need not be seekable.
        name: What messages call it.

    Attributes:
        skipped: How many frames were skipped, by reason.

    Raises:
        DataError: The stream does not begin like a capture, or ends in its file header.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.skipped: Counter[str] = Counter()
        self._stream = stream
        self._name = name
        self._frames = 0
        self._records = self._open()

    def __iter__(self) -> Iterator[Packet]:
        """Yield the packets in the order of the capture.

        Raises:
            DataError: A record claims a length that no capture has, or a block of pcapng is
                damaged (F-13).
        """
        for record in self._records:
            try:
                if record is None:
                    raise _Skip("no timestamp or an unknown block")
                yield _packet(record)
            except _Skip as reason:
                self.skipped[str(reason)] += 1  # F-13

    @property
    def frames(self) -> int:
        """Frames met so far, skipped ones included."""
        return self._frames

    # ------------------------------------------------------------------------ the two formats

    def _open(self) -> Iterator[_Record | None]:
        magic = self._stream.read(4)
        if magic == b"\x0a\x0d\x0d\x0a":
            return self._pcapng()
        for order in "<>":
            for number, ticks in ((0xA1B2C3D4, 1e6), (0xA1B23C4D, 1e9)):
                if magic == struct.pack(order + "I", number):
                    return self._pcap(order, ticks)
        if not magic:
            raise DataError(f"{self._name}: the capture is empty", hint=_HINT)
        zipped = magic[:2] == b"\x1f\x8b"
        raise DataError(
            f"{self._name}: neither pcap nor pcapng"
            + (", but compressed by gzip" if zipped else f" (begins with {magic.hex()})"),
            hint="decompress it first: zcat FILE | secagg features -" if zipped else _HINT,
        )

    def _pcap(self, order: str, ticks: float) -> Iterator[_Record | None]:
        header = self._stream.read(20)
        if len(header) < 20:
            raise self._no_header()
        link_type = struct.unpack(order + "HHiIII", header)[5] & 0xFFFF
        if link_type not in _LINK_TYPES:
            raise DataError(
                f"{self._name}: link type {link_type} is not known here",
                hint="capture on an Ethernet interface, or on Linux with tcpdump -i any",
            )
        return self._pcap_records(struct.Struct(order + "IIII"), ticks, link_type)

    def _pcap_records(
        self, header: struct.Struct, ticks: float, link_type: int
    ) -> Iterator[_Record | None]:
        while head := self._stream.read(16):
            self._frames += 1
            if len(head) < 16:
                self.skipped[_TRUNCATED] += 1
                return
            seconds, fraction, length, size = header.unpack(head)
            self._check(length, MAX_FRAME, "record")
            data = self._stream.read(length)
            if len(data) < length:
                self.skipped[_TRUNCATED] += 1
                return
            yield _Record(seconds + fraction / ticks, max(size, length), link_type, data)  # F-03

    def _pcapng(self) -> Iterator[_Record | None]:
        order = self._section()
        if order is None:
            raise self._no_header()
        return self._pcapng_records(order)

    def _section(self) -> str | None:
        """Read a section header after its type; return the byte order, None if it is cut off."""
        head = self._stream.read(8)
        if len(head) < 8:
            return None
        order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[4:])
        if order is None:
            raise DataError(f"{self._name}: damaged pcapng section header", hint=_HINT)
        (length,) = struct.unpack(order + "I", head[:4])
        self._check(length, MAX_BLOCK, "block", least=28)
        return order if len(self._stream.read(length - 12)) == length - 12 else None

    def _pcapng_records(self, order: str) -> Iterator[_Record | None]:
        interfaces: list[_Interface] = []
        while head := self._stream.read(4):
            if head == b"\x0a\x0d\x0d\x0a":
                section = self._section()
                if section is None:
                    self._cut_off()
                    return
                order, interfaces = section, []
                continue
            head += self._stream.read(4)
            if len(head) < 8:
                self._cut_off()
                return
            kind, length = struct.unpack(order + "II", head)
            self._check(length, MAX_BLOCK, "block", least=12)
            body = self._stream.read(length - 8)
            if len(body) < length - 8:
                self._cut_off()
                return
            if kind == 1:
                interfaces.append(self._interface(order, body[:-4]))
            elif kind == 6:
                self._frames += 1
                yield self._enhanced(order, body[:-4], interfaces)
            elif kind in (2, 3):  # obsolete and simple packet blocks
                self._frames += 1
                yield None

    def _interface(self, order: str, body: bytes) -> _Interface:
        if len(body) < 8:
            raise DataError(f"{self._name}: damaged pcapng interface block", hint=_REPAIR)
        (link_type,) = struct.unpack_from(order + "H", body)
        ticks, offset, at = 1e6, 0, 8
        while at + 4 <= len(body):
            code, length = struct.unpack_from(order + "HH", body, at)
            value = body[at + 4 : at + 4 + length]
            if code == 9 and len(value) == 1:  # if_tsresol
                power = value[0] & 0x7F
                ticks = 2.0**power if value[0] & 0x80 else 10.0**power
            elif code == 14 and len(value) == 8:  # if_tsoffset
                (offset,) = struct.unpack(order + "q", value)
            elif code == 0:
                break
            at += 4 + length + (-length % 4)
        return _Interface(link_type, ticks, offset)

    def _enhanced(self, order: str, body: bytes, interfaces: list[_Interface]) -> _Record | None:
        if len(body) < 20:
            raise self._damaged("block")
        number, high, low, length, size = struct.unpack_from(order + "IIIII", body)
        self._check(length, MAX_FRAME, "record")
        if number >= len(interfaces):
            raise DataError(
                f"{self._name}: block {self._frames} is of interface {number}, which is not "
                "declared before it",
                hint=_REPAIR,
            )
        if 20 + length > len(body):
            raise self._damaged("block")
        interface = interfaces[number]
        time = interface.offset + ((high << 32) | low) / interface.ticks  # F-12
        return _Record(time, max(size, length), interface.link_type, body[20 : 20 + length])  # F-03

    def _no_header(self) -> DataError:
        return DataError(f"{self._name}: cut off inside the file header", hint=_HINT)

    def _cut_off(self) -> None:
        self._frames += 1
        self.skipped[_TRUNCATED] += 1  # F-13

    def _check(self, length: int, most: int, what: str, *, least: int = 0) -> None:
        if not least <= length <= most:  # F-13
            raise self._damaged(what)

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self._name}: {what} {self._frames} is damaged: its length makes no sense",
            hint=_REPAIR,
        )


# ------------------------------------------------------------------------------- one frame


def _packet(record: _Record) -> Packet:
    source, target, kind, data = _link(record)
    if kind in (_IPV4, _IPV6):
        return _ip_packet(record, source, kind, data)
    if kind == _ARP:
        try:
            arp = dpkt.arp.ARP(data)
        except dpkt.Error:
            raise _Skip("malformed ARP") from None
        if len(arp.spa) != 4 or arp.pro != _IPV4:
            raise _Skip("malformed ARP")
        return Packet(
            record.time,
            record.size,
            source,
            _address(arp.spa),
            _address(arp.tpa),
            protocol="arp",
        )
    return Packet(record.time, record.size, source, source, target, protocol=f"0x{kind:04x}")


def _ip_packet(record: _Record, source: str, kind: int, data: bytes) -> Packet:
    try:
        ip = dpkt.ip.IP(data) if kind == _IPV4 else dpkt.ip6.IP6(data)
    except (dpkt.Error, struct.error, IndexError, ValueError):
        raise _Skip("malformed IPv4" if kind == _IPV4 else "malformed IPv6") from None
    if ip.v != (4 if kind == _IPV4 else 6):
        raise _Skip("malformed IPv4" if kind == _IPV4 else "malformed IPv6")
    inner = ip.data
    number = getattr(ip, "p", _ESP)  # dpkt names none behind an encrypted payload
    has_ports = isinstance(inner, (dpkt.tcp.TCP, dpkt.udp.UDP))
    return Packet(
        record.time,
        record.size,
        source,
        _address(ip.src),
        _address(ip.dst),
        inner.sport if has_ports else 0,
        inner.dport if has_ports else 0,
        _NAMES.get(number) or f"ip{number}",
    )


def _link(record: _Record) -> tuple[str, str, int, bytes]:
    """Return source and target link address, the EtherType and what follows."""
    data = record.data
    if record.link_type in _ETHERNET:
        if len(data) < 14:
            raise _Skip("frame shorter than its header")
        source, target, at = _mac(data[6:12]), _mac(data[:6]), 12
        while int.from_bytes(data[at : at + 2], "big") in _VLAN:
            at += 4
        if len(data) < at + 2:
            raise _Skip("frame shorter than its header")
        return source, target, int.from_bytes(data[at : at + 2], "big"), data[at + 2 :]
    if record.link_type in _RAW:
        version = data[0] >> 4 if data else 0
        if version not in (4, 6):
            raise _Skip("frame shorter than its header" if not data else "neither IPv4 nor IPv6")
        return "", "", _IPV4 if version == 4 else _IPV6, data
    if record.link_type in _COOKED + _COOKED2:
        second = record.link_type in _COOKED2
        header = 20 if second else 16
        if len(data) < header:
            raise _Skip("frame shorter than its header")
        address, kind = (data[12:18], data[:2]) if second else (data[6:12], data[14:16])
        return _mac(address), "", int.from_bytes(kind, "big"), data[header:]
    raise _Skip(f"link type {record.link_type}")


@lru_cache(maxsize=1 << 14)
def _mac(address: bytes) -> str:
    return address.hex(":")


@lru_cache(maxsize=1 << 14)
def _address(address: bytes) -> str:
    return str(ip_address(address))
