"""The ring and the public seed that tests of the algebra on SEAL share."""

from __future__ import annotations

import hashlib
from typing import Final

N: Final = 2048
"""Degree of the ring."""
SEED: Final = hashlib.sha256(b"public elements of the tests").digest()
