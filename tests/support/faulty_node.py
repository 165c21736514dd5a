"""A real node process with one planted fault: it dies or falls silent at an exact point.

Usage: python -m tests.support.faulty_node CONFIG --die-before SealedShares --round 1 --events -
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from nodes.config import load_node_config
from nodes.node_daemon import NodeDaemon
from nodes.session.events import SessionStep, TrainRequested
from nodes.telemetry import json_lines
from nodes.transport import NodeSocket
from secagg.wire.envelope import open_envelope
from secagg.wire.messages import Heartbeat, Hello


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class FaultyNode(NodeDaemon):
    """Dies before it sends a message of a given type, or while it trains, or never answers."""

    fault: argparse.Namespace

    def _act(self, step: SessionStep, socket: NodeSocket) -> None:
        kept = []
        for to, envelope in step.send:
            frame = bytes(envelope)
            message = open_envelope(
                frame,
                sender=self._members.identity.node_id,
                key=self._members.identity.signing_key,
                receiver=to,
                run_id=frame[1:17],
            ).message
            name = type(message).__name__
            if name == self.fault.die_before and message.round_id == self.fault.round:  # type: ignore[union-attr]
                die()
            if not self.fault.mute or isinstance(message, Hello | Heartbeat):
                kept.append((to, envelope))
        super()._act(SessionStep(tuple(kept), step.events), socket)

    def _begin_training(self, request: TrainRequested, socket: NodeSocket) -> None:
        super()._begin_training(request, socket)
        if self.fault.die_in_training == request.offer.round_id:
            die()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--die-before", default="")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--die-in-training", type=int, default=0)
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--events")
    fault = parser.parse_args()
    FaultyNode.fault = fault
    FaultyNode(load_node_config(fault.config), json_lines(sys.stdout)).run()


if __name__ == "__main__":
    main()
