"""A small federation in a temporary folder, made by the real steps from a fixed stream."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from keys.authority import Authority, init_root
from keys.certificates import Request
from keys.enrolment import install_bundle, make_request
from keys.identity import Identity
from keys.names import Role
from keys.sealing import Unlock

NOW = 1_800_000_000
YEAR = 365 * 86_400
FAST = 14  # scrypt, log2 N: the least that is allowed


class InsecureRng:
    """SHA-256(seed ‖ counter): the same bytes in every run."""

    def __init__(self, seed: str = "keys") -> None:
        self._seed = seed.encode()
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        label = self._seed + self._count.to_bytes(8, "little")
        return hashlib.shake_256(label).digest(size)


@dataclass
class Fleet:
    """A root and the steps that parties take with it."""

    path: Path
    rng: InsecureRng
    root: Authority

    def ask(
        self, node_id: str, role: Role = Role.NODE, *, protect: Unlock | None = None
    ) -> Request:
        """Take the step `request`."""
        return make_request(
            self.path / node_id, node_id, role, now=NOW, rng=self.rng, protect=protect, log_n=FAST
        )

    def grant(self, request: Request, *, now: int = NOW, **options: object) -> bytes:
        """Take the step `approve`, the fingerprint compared, the role as asked."""
        settings = {"fingerprints": [request.fingerprint], "grant": request.role} | options
        return self.root.approve([request], now=now, **settings)[0]  # type: ignore[arg-type]

    def install(
        self, node_id: str, bundle: bytes, *, now: int = NOW, **options: object
    ) -> Identity:
        """Take the step `install`, the root's fingerprint compared."""
        settings = {"root_fingerprint": self.root.card.fingerprint} | options
        return install_bundle(bundle, self.path / node_id, now=now, **settings)  # type: ignore[arg-type]

    def enrol(self, node_id: str, role: Role = Role.NODE) -> Identity:
        """Take all three steps."""
        return self.install(node_id, self.grant(self.ask(node_id, role)))


def make_fleet(path: Path, seed: str = "keys") -> Fleet:
    """Make a root in `path/root`."""
    rng = InsecureRng(seed)
    return Fleet(path, rng, init_root(path / "root", "north", now=NOW, rng=rng))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file's content, to compare before and after; locks are not content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
