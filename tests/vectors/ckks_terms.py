"""The terms of a round of ckks as vector files write them: as in the offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from secagg.ckks.committees import CommitteeParameters
from secagg.ckks.headroom import RingParameters
from secagg.ckks.parameters import CkksParameters

__all__ = ["ckks_terms", "written_terms"]


def written_terms(made: CkksParameters) -> dict[str, int]:
    """Return what a file says of the terms beside `value_bits`, `quorum` and `colluders`."""
    committee = {f"committee_{name}": value for name, value in asdict(made.committee).items()}
    return {"max_weight": made.max_weight, **asdict(made.ring), **committee}


def ckks_terms(setup: Mapping[str, Any]) -> CkksParameters:
    """Return the terms in the `setup` of a file; nothing is judged."""
    written, n = setup["ckks"], len(setup["cohort"])
    mark = "committee_"
    committee = {name.removeprefix(mark): x for name, x in written.items() if name.startswith(mark)}
    ring = {name: x for name, x in written.items() if not name.startswith(mark)}
    return CkksParameters(
        nodes=n,
        value_bits=setup["value_bits"],
        max_weight=ring.pop("max_weight"),
        ring=RingParameters(**ring),
        committee=CommitteeParameters(**committee),
        quorum=setup["quorum"],
        cosigners=(n + setup["colluders"]) // 2 + 1,
        colluders=setup["colluders"],
        dropouts=n - setup["quorum"],
    )
