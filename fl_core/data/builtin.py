"""The embedded data set: nine simulated devices through the project's own extractor.

Benign: one capture a device, several hours long, beginning at a random hour. Its rows are split in
time, 60 % train, 20 % validation, 20 % test, so that the test lies hours after the training.

Attacks: for each of the ten, a capture of its own begins with quiet benign traffic, then the
infected device attacks in three intensities while its benign traffic goes on. Only the packets that
the device sends for the attack become attack rows; its benign packets between them, and the
victims' answers, shape the statistics but are no rows, and neither are the first seconds of an
attack. Floods are long, so rows are taken evenly from each intensity.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.attacks import ATTACKS, INTENSITIES, attack_packets
from fl_core.data.dataset import DeviceData, Matrix, evenly, seeded
from fl_core.data.extractor import FEATURE_NAMES, Extractor, extract
from fl_core.data.folders import benign_parts
from fl_core.data.packets import Packet
from fl_core.data.profiles import PROFILES, Profile, benign_packets
from fl_core.data.traffic import DAY_S

__all__ = ["ATTACK_ROWS", "attack_capture", "attack_rows", "build_device", "device_names"]

ATTACK_ROWS: Final = {"stealth": 60, "slow": 70, "flood": 90}
"""Most rows of one attack at each intensity."""

_EPOCH: Final = 1_700_000_000.0  # any day will do
_LEAD_IN_S: Final = 400.0  # the slowest window holds 94 % of its weight by then
_PAUSE_S: Final = 30.0


def device_names() -> tuple[str, ...]:
    """Return the nine devices."""
    return tuple(PROFILES)


def build_device(device: str, *, seed: int = 0, limit_rows: int | None = None) -> DeviceData:
    """Simulate one device; the same seed gives the same bits.

    Args:
        device: One of `device_names()`.
        seed: Seed of the whole data set; devices draw from streams of their own.
        limit_rows: At most this many rows of each part, evenly spaced over time.

    Raises:
        DataError: The seed is negative.
    """
    profile = PROFILES[device]
    rng = _rng(seed, profile, 0)
    start = _EPOCH + float(rng.uniform(0, DAY_S))
    rows = extract(benign_packets(profile, rng, (start, start + profile.duration_s)))
    train, validation, test = (rows[at] for at in benign_parts(len(rows), device, limit_rows))
    attacks = [
        attack_rows(profile, name, _rng(seed, profile, 1 + number))
        for number, name in enumerate(ATTACKS)
    ]
    names = np.repeat(list(ATTACKS), [len(part) for part in attacks]).astype(np.str_)
    chosen = evenly(len(names), limit_rows)
    return DeviceData(
        device=device,
        feature_names=FEATURE_NAMES,
        train=train,
        validation=validation,
        test_benign=test,
        test_attack=np.concatenate(attacks)[chosen],
        attack_names=names[chosen],
    )


def attack_rows(profile: Profile, name: str, rng: np.random.Generator) -> Matrix:
    """Return rows of one attack, its intensities one after the other."""
    packets, phase = attack_capture(profile, name, rng)
    extractor = Extractor()
    rows = extract(packets, extractor=extractor)
    parts = []
    for index, intensity in enumerate(INTENSITIES):
        at = np.flatnonzero(phase == index)
        parts.append(rows[at[evenly(len(at), ATTACK_ROWS[intensity.name])]])
    return np.concatenate(parts)


def attack_capture(
    profile: Profile, name: str, rng: np.random.Generator
) -> tuple[list[Packet], NDArray[np.int64]]:
    """Simulate the capture of one attack by one device.

    Returns:
        The packets in order of time, and for each the index of its intensity; -1 for packets that
        are no attack rows.
    """
    start = _EPOCH + DAY_S + float(rng.uniform(0, DAY_S))
    time = start + _LEAD_IN_S
    tagged: list[tuple[Packet, int]] = []
    for index, intensity in enumerate(INTENSITIES):
        attack = attack_packets(name, rng, profile.endpoint, start=time, intensity=intensity)
        own = profile.endpoint.ip
        onset = time + intensity.onset_s
        for packet in attack:
            counts = packet.src_ip == own and packet.time >= onset  # F-31
            tagged.append((packet, index if counts else -1))
        time += intensity.seconds + _PAUSE_S
    tagged += [(packet, -1) for packet in benign_packets(profile, rng, (start, time))]
    tagged.sort(key=lambda item: item[0].time)
    return [packet for packet, _ in tagged], np.array([index for _, index in tagged])


def _rng(seed: int, profile: Profile, stream: int) -> np.random.Generator:
    return seeded(seed, profile.number, stream)  # F-30
