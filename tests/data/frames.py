"""Frames and captures, byte by byte, so that no reader of ours or of dpkt's made them."""

from __future__ import annotations

import struct

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def ethernet(kind: int, data: bytes, *, vlans: tuple[int, ...] = ()) -> bytes:
    tags = b"".join(struct.pack(">HH", 0x8100, vlan) for vlan in vlans)
    return MAC_B + MAC_A + tags + struct.pack(">H", kind) + data


def ipv4(protocol: int, data: bytes, *, fragment: int = 0, length: int | None = None) -> bytes:
    total = 20 + len(data) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x45, 0, total, 1, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1]) + bytes([10, 0, 0, 2]) + data


def ipv6(protocol: int, data: bytes) -> bytes:
    source, target = (bytes.fromhex("fe80" + "00" * 13 + last) for last in ("01", "02"))
    return struct.pack(">IHBB", 6 << 28, len(data), protocol, 64) + source + target + data


def tcp(source: int, target: int, data: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", source, target, 1, 2, 0x50, 2, 100, 0, 0) + data


def udp(source: int, target: int, data: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def arp() -> bytes:
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    return head + MAC_A + bytes([10, 0, 0, 1]) + bytes(6) + bytes([10, 0, 0, 2])


def pcap(frames, *, order="<", nano=False, link_type=1, snaplen=65535) -> bytes:
    """Frames are (time in the file's ticks, bytes, or bytes and the length on the wire)."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)
    ticks = 10**9 if nano else 10**6
    for time, data, *size in frames:
        head = (time // ticks, time % ticks, len(data), size[0] if size else len(data))
        out += struct.pack(order + "IIII", *head) + data
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def pcapng(frames, *, order="<", link_type=1, options=b"", interface=0) -> bytes:
    section = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    out = block(order, 0x0A0D0D0A, section)
    out += block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)
    for time, data, *size in frames:
        size = size[0] if size else len(data)
        head = struct.pack(
            order + "IIIII", interface, time >> 32, time & (2**32 - 1), len(data), size
        )
        out += block(order, 6, head + data)
    return out
