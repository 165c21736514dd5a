"""What every measurement shares: its errors, its clock, its memory, the machine it ran on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from secagg.errors import SecAggError

__all__ = ["BenchError", "Machine", "describe_machine", "median_cpu_s", "resident_bytes"]

_FEATURES = ("aes", "vaes", "avx2", "avx512f")
"""What of the processor decides how fast a keystream and a sum can be."""

_BATCH_S = 0.01  # a repetition lasts at least this long, so that the clock's grain does not show


class BenchError(SecAggError):
    """A measurement cannot be made on this machine, or was asked for with impossible settings."""


@dataclass(frozen=True)
class Machine:
    """Where the figures come from; says nothing of whose machine it is.

    Attributes:
        cpu: Model name of the processor.
        cpu_features: Those of its instruction sets that the figures depend on.
        cores: Logical cores that this process may use.
        memory_bytes: Main memory.
        python: Version of the interpreter.
        numpy: Version.
        cryptography: Version.
        openssl: The library that `cryptography` was built with.
    """

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    python: str
    numpy: str
    cryptography: str
    openssl: str


def describe_machine() -> Machine:
    """Return the processor and the versions that the figures depend on (Linux)."""
    model, flags = _processor()
    return Machine(
        cpu=model,
        cpu_features=tuple(name for name in _FEATURES if name in flags),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        numpy=version("numpy"),
        cryptography=version("cryptography"),
        openssl=backend.openssl_version_text(),
    )


def _processor() -> tuple[str, frozenset[str]]:
    """Return the first processor's name and flags; other than x86 its architecture, no flags."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields.get("model name", platform.machine()), frozenset(fields.get("flags", "").split())


def median_cpu_s(work: Callable[[], object], *, repetitions: int) -> float:
    """Return the median CPU seconds of one call of `work`, after one call that is not counted.

    A repetition calls `work` as often as fills 10 ms and is divided by that count, so that calls
    of microseconds can be measured. CPU time is this process's, all threads and the kernel's
    share included: what others do on the machine counts only through the caches.

    Raises:
        BenchError: `repetitions` is below 1.
    """
    if repetitions < 1:
        raise BenchError(f"{repetitions} repetitions have no median", hint="use 1 or more")
    work()
    calls = _calls_in_a_batch(work)
    return statistics.median(_cpu_s(work, calls) / calls for _ in range(repetitions))


def _calls_in_a_batch(work: Callable[[], object]) -> int:
    calls = 1
    while _cpu_s(work, calls) < _BATCH_S:
        calls *= 2
    return calls


def _cpu_s(work: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - start


def resident_bytes(*, peak: bool = False) -> int:
    """Return this process's resident memory, now or at its peak so far (VmRSS, VmHWM of Linux).

    Raises:
        BenchError: the kernel does not report it.
    """
    name = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise BenchError(f"the kernel does not report {name}", hint="measure on Linux")
