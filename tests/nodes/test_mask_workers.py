"""Masks removed by helper processes: the same sum, whatever becomes of the helpers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from nodes.mask_workers import MIN_WORK, MaskWorkers
from secagg.masking.masks import Mask, apply_masks

DIM = 5_000


def some_masks(count: int) -> list[Mask]:
    return [(bytes([index % 256]) * 32, index % 3 == 0) for index in range(count)]


def expected(masks: list[Mask]) -> np.ndarray:
    vector = np.arange(DIM, dtype=np.uint32)
    apply_masks(vector, masks)
    return vector


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 41])
def test_the_sum_is_that_of_one_core(cores: int, count: int) -> None:
    masks = some_masks(count)
    with MaskWorkers(cores, min_work=0) as workers:
        for _ in range(2):  # the helpers serve more than one round
            vector = np.arange(DIM, dtype=np.uint32)
            workers.apply(vector, masks)
            assert np.array_equal(vector, expected(masks))
        assert len(workers._helpers) == cores - 1


def test_little_work_starts_no_helper() -> None:
    assert MIN_WORK > 10**6
    with MaskWorkers(4) as workers:
        vector = np.arange(DIM, dtype=np.uint32)
        workers.apply(vector, some_masks(3))
        assert not workers._helpers
    assert np.array_equal(vector, expected(some_masks(3)))


def test_a_helper_that_died_costs_time_and_nothing_else() -> None:
    masks = some_masks(20)
    with MaskWorkers(3, min_work=0) as workers:
        workers.apply(np.zeros(DIM, dtype=np.uint32), masks)
        os.kill(workers._helpers[0].pid, signal.SIGKILL)
        workers._helpers[0].wait()
        vector = np.arange(DIM, dtype=np.uint32)
        workers.apply(vector, masks)
        assert np.array_equal(vector, expected(masks))
        assert len(workers._helpers) == 1
        vector = np.arange(DIM, dtype=np.uint32)
        workers.apply(vector, masks)
        assert np.array_equal(vector, expected(masks))
        assert len(workers._helpers) == 2, "it is replaced"


def test_closing_ends_the_helpers() -> None:
    with MaskWorkers(2, min_work=0) as workers:
        workers.apply(np.zeros(DIM, dtype=np.uint32), some_masks(4))
        (helper,) = workers._helpers
        assert helper.poll() is None
    assert helper.poll() is not None


def test_a_helper_ends_with_its_parent() -> None:
    command = [sys.executable, "-m", "nodes.mask_workers"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
