"""What the coordinator says at the beginning and at the end of a run."""

from __future__ import annotations

import math
from typing import Final

from nodes.session.events import RunState
from nodes.session.model_transfer import model_chunks, model_digest, to_bytes
from nodes.session.plan import RunPlan
from secagg.types import NodeId
from secagg.version import VERSION
from secagg.wire.messages import Message, RunFinished, Welcome

__all__ = ["Pace", "final_messages", "welcome"]

_PAUSE: Final = 1.0  # seconds between two large answers to one node


class Pace:
    """Keeps answers that may carry a model from being had on demand."""

    def __init__(self) -> None:
        self._last: dict[NodeId, float] = {}

    def due(self, node: NodeId, now: float) -> bool:
        """Return whether a node is to be answered now, and note that it was."""
        if now - self._last.get(node, -math.inf) < _PAUSE:
            return False
        self._last[node] = now
        return True


def welcome(
    plan: RunPlan, run: RunState, *, roster_version: int, wall_time: float, receipt: bytes
) -> Welcome:
    """Return the answer to a hello or a probe: which run this is, and how far it has come."""
    return Welcome(
        run=run.run_id,
        software=VERSION,
        roster_version=roster_version,
        wall_time=wall_time,
        heartbeat=plan.heartbeat,
        rounds_done=run.rounds_done,
        rounds_total=plan.rounds,
        receipt=receipt,
    )


def final_messages(plan: RunPlan, run: RunState) -> list[Message]:
    """Return the end of the run, and the model if the run is complete."""
    finished = RunFinished(
        round_id=run.next_round,
        rounds_done=run.rounds_done,
        complete=run.finished,
        model_digest=model_digest(run.params),
        model_dim=len(run.params),
        training=plan.training,
        reference=to_bytes(run.reference),
    )
    messages: list[Message] = [finished]
    if run.finished:
        messages += model_chunks(finished.round_id, run.params)
    return messages
