"""What the extractor sees of a packet."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Packet"]


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame on the wire, reduced to its header.

    Addresses are text and only compared: any spelling will do, if it is always the same one.
    """

    time: float
    """Unix seconds; finite."""
    size: int
    """Bytes on the wire, from the link-layer header on, also where a capture kept fewer (F-03)."""
    src_mac: str
    """Sender's link address; "" on links without one."""
    src_ip: str
    """Sender's network address; its link address where the frame has no network layer."""
    dst_ip: str
    """Receiver's network address, or link address, likewise."""
    src_port: int = 0
    """TCP or UDP port; 0 for other protocols and for fragments but the first."""
    dst_port: int = 0
    """TCP or UDP port, likewise."""
    protocol: str = "tcp"
    """"tcp", "udp", "icmp", "arp", or another protocol's name or number."""
