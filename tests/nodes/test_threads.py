"""A daemon's products run in the thread that asks for them."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import numpy
from threadpoolctl import threadpool_info
from nodes.threads import use_one_blas_thread
use_one_blas_thread()
print([each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"])
"""


def test_blas_is_kept_to_one_thread() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    found = run.stdout.strip()
    assert found.startswith("[1"), run.stderr
    assert set(found.strip("[]").split(", ")) == {"1"}
