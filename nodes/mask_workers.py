"""Masks removed on all cores: helper processes that each sum their part of a round's masks.

A round with many dropouts leaves the coordinator thousands of keystreams to generate, and the
cipher holds Python's interpreter lock, so threads gain nothing. Helpers are started when a round
first has enough work for them and stay until the coordinator ends. Seeds reach them by pipe only.

Run as a module this file is such a helper: it answers requests on its standard input.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final

import numpy as np

from secagg.masking.masks import Mask, apply_masks
from secagg.types import RingVector

__all__ = ["MIN_WORK", "MaskWorkers"]

MIN_WORK: Final = 1 << 29
"""Values (masks times coordinates) below which helpers gain nothing: about a quarter second."""
_HEADER: Final = struct.Struct("<II")  # coordinates, masks
_MASK: Final = struct.Struct("<32s?")


class MaskWorkers:
    """Adds masks to a vector on several cores; `apply` fits `secagg.masking.masks.Apply`.

    Args:
        cores: Processes that work at the same time, this one included; all available by default.
        min_work: From how many values on helpers are used.
    """

    def __init__(self, cores: int | None = None, *, min_work: int = MIN_WORK) -> None:
        self._helpers_wanted = (cores or len(os.sched_getaffinity(0))) - 1
        self._min_work = min_work
        self._helpers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> MaskWorkers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def apply(self, vector: RingVector, masks: Sequence[Mask]) -> None:
        """Add masks to `vector`, shape (dim,), dtype uint32, in place and modulo 2^32.

        A helper that fails is replaced by work in this process, so the result is always right.
        """
        if self._helpers_wanted < 1 or len(masks) * len(vector) < self._min_work:
            apply_masks(vector, masks)
            return
        self._start()
        lanes = len(self._helpers) + 1
        parts = [masks[lane::lanes] for lane in range(lanes)]
        asked = [
            (helper, part)
            for helper, part in zip(self._helpers, parts[1:], strict=True)
            if self._ask(helper, part, len(vector))
        ]
        apply_masks(vector, parts[0])
        answered = {id(helper) for helper, _ in asked if self._collect(helper, vector)}
        for helper, part in zip(self._helpers, parts[1:], strict=True):
            if id(helper) not in answered:
                apply_masks(vector, part)
        failed = [helper for helper in self._helpers if id(helper) not in answered]
        for helper in failed:
            self._stop(helper)
            self._helpers.remove(helper)

    def close(self) -> None:
        """End the helpers."""
        while self._helpers:
            self._stop(self._helpers.pop())

    def _start(self) -> None:
        while len(self._helpers) < self._helpers_wanted:
            command = [sys.executable, "-m", "nodes.mask_workers"]
            self._helpers.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )

    def _ask(self, helper: subprocess.Popen[bytes], masks: Sequence[Mask], dim: int) -> bool:
        pipe = _pipe(helper.stdin)
        try:
            pipe.write(_HEADER.pack(dim, len(masks)))
            pipe.write(b"".join(_MASK.pack(seed, negative) for seed, negative in masks))
            pipe.flush()
        except OSError:
            return False
        return True

    def _collect(self, helper: subprocess.Popen[bytes], vector: RingVector) -> bool:
        """Add what a helper summed up; nothing is added if it did not answer in full."""
        try:
            answer = _pipe(helper.stdout).read(4 * len(vector))
        except OSError:
            return False
        if len(answer) < 4 * len(vector):
            return False
        vector += np.frombuffer(answer, dtype="<u4")
        return True

    def _stop(self, helper: subprocess.Popen[bytes]) -> None:
        helper.kill()  # it holds nothing that needs saving
        for pipe in (helper.stdin, helper.stdout):
            try:
                _pipe(pipe).close()
            except OSError:
                continue  # what could not be flushed is not wanted any more
        helper.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe to the helper")
    return pipe


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    while len(header := requests.read(_HEADER.size)) == _HEADER.size:
        dim, count = _HEADER.unpack(header)
        masks = list(_MASK.iter_unpack(requests.read(_MASK.size * count)))
        total = np.zeros(dim, dtype=np.uint32)
        apply_masks(total, masks)
        answers.write(total.astype("<u4", copy=False).data)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the coordinator's to handle
    _serve(sys.stdin.buffer, sys.stdout.buffer)
