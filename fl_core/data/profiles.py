"""The nine simulated devices, named as in N-BaIoT.

They resemble their namesakes in kind only: doorbells and cameras stream when somebody looks, the
thermostat talks seldom, the baby monitor talks always. Lengths differ so that sites are unbalanced
as real ones are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fl_core.data.packets import Packet
from fl_core.data.traffic import (
    GATEWAY,
    Activity,
    Announce,
    ArpChatter,
    Endpoint,
    Exchange,
    Firmware,
    Heartbeat,
    Lookup,
    Video,
    Wire,
    server_pool,
)

__all__ = ["PROFILES", "Profile", "benign_packets"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One device: who it is and what it does."""

    name: str
    """As in N-BaIoT."""
    number: int
    """Its place, 1..9: part of its addresses and of its seed."""
    duration_s: float
    """How much benign time the built-in data hold, in seconds."""
    activities: tuple[Activity, ...]
    """What it does; they run side by side."""

    @property
    def endpoint(self) -> Endpoint:
        """Its addresses on the local network."""
        return Endpoint(f"02:00:00:00:01:{self.number:02x}", f"192.168.2.{100 + self.number}")


def benign_packets(
    profile: Profile, rng: np.random.Generator, span: tuple[float, float]
) -> list[Packet]:
    """Return what a device sends and receives between two times, in order of time."""
    wire = Wire()
    for activity in profile.activities:
        activity.play(wire, rng, profile.endpoint, span)
    return sorted(
        (packet for packet in wire.packets if packet.time < span[1]), key=lambda p: p.time
    )


_NTP: Final = server_pool(1, 4)


def _dns(period_s: float) -> Lookup:
    return Lookup(period_s, 53, (GATEWAY,), up=(70, 92), down=(86, 260))


def _ntp(period_s: float) -> Lookup:
    return Lookup(period_s, 123, _NTP, up=(90, 90), down=(90, 90))


def _profile(
    name: str, number: int, hours: float, vendor: int, *activities: Activity, lookups_s: float
) -> Profile:
    cloud = server_pool(vendor, 3)
    usual = (
        _dns(lookups_s),
        _ntp(lookups_s * 4),
        ArpChatter(lookups_s * 0.8),
        Firmware(lookups_s * 12, cloud[:1]),
    )
    return Profile(name, number, hours * 3600.0, (*activities, *usual))


_DANMINI, _ECOBEE, _ENNIO, _PHILIPS = (server_pool(v, 4) for v in (11, 12, 13, 14))
_PROVISION, _SAMSUNG, _SIMPLEHOME = (server_pool(v, 5) for v in (15, 16, 17))

PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        _profile(
            "Danmini_Doorbell",
            1,
            5.0,
            11,
            Heartbeat(25.0, 94, 78, 5222, _DANMINI),
            Exchange(600.0, (1, 3), 900, 700, _DANMINI, by_people=True),
            Video(4.8, 2.0, 10.0, 900, _DANMINI),
            lookups_s=110.0,
        ),
        _profile(
            "Ecobee_Thermostat",
            2,
            8.0,
            12,
            Heartbeat(60.0, 131, 107, 8190, _ECOBEE),
            Exchange(900.0, (1, 2), 1500, 400, _ECOBEE),
            lookups_s=300.0,
        ),
        _profile(
            "Ennio_Doorbell",
            3,
            4.0,
            13,
            Heartbeat(15.0, 86, 70, 6001, _ENNIO, protocol="udp"),
            Video(3.6, 1.6, 8.0, 1100, _ENNIO, protocol="tcp"),
            Announce(400.0, 4, 320),
            lookups_s=150.0,
        ),
        _profile(
            "Philips_B120N10_Baby_Monitor",
            4,
            4.5,
            14,
            Heartbeat(10.0, 118, 102, 443, _PHILIPS),
            Exchange(420.0, (1, 4), 600, 1300, _PHILIPS),
            Video(9.0, 2.4, 12.0, 1000, _PHILIPS),
            lookups_s=90.0,
        ),
        _profile(
            "Provision_PT_737E_Security_Camera",
            5,
            4.0,
            15,
            Heartbeat(20.0, 90, 74, 8000, _PROVISION),
            Video(5.4, 2.4, 12.0, 1250, _PROVISION, protocol="tcp"),
            Announce(300.0, 6, 380),
            lookups_s=120.0,
        ),
        _profile(
            "Provision_PT_838_Security_Camera",
            6,
            5.0,
            15,
            Heartbeat(20.0, 90, 74, 8000, _PROVISION),
            Video(6.6, 2.4, 15.0, 1500, _PROVISION, protocol="tcp"),
            Announce(300.0, 6, 372),
            Exchange(1800.0, (1, 2), 5000, 500, _PROVISION),
            lookups_s=120.0,
        ),
        _profile(
            "SimpleHome_XCS7_1002_WHT_Security_Camera",
            7,
            4.0,
            17,
            Heartbeat(30.0, 162, 114, 32100, _SIMPLEHOME, protocol="udp"),
            Video(5.4, 2.0, 10.0, 1700, _SIMPLEHOME),
            Announce(200.0, 3, 300),
            lookups_s=140.0,
        ),
        _profile(
            "SimpleHome_XCS7_1003_WHT_Security_Camera",
            8,
            3.0,
            17,
            Heartbeat(30.0, 162, 114, 32100, _SIMPLEHOME, protocol="udp"),
            Video(4.2, 1.6, 10.0, 1500, _SIMPLEHOME),
            Exchange(700.0, (1, 2), 2500, 600, _SIMPLEHOME, by_people=True),
            lookups_s=140.0,
        ),
        _profile(
            "Samsung_SNH_1011_N_Webcam",
            9,
            4.5,
            16,
            Heartbeat(12.0, 142, 126, 5061, _SAMSUNG),
            Video(4.8, 2.0, 12.0, 800, _SAMSUNG, protocol="tcp"),
            Exchange(1200.0, (2, 4), 700, 900, _SAMSUNG, by_people=True),
            lookups_s=100.0,
        ),
    )
}
"""Device name to profile, in order of `number` (F-32)."""
