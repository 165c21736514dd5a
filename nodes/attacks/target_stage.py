"""A round of the semi-honest target in which one node's messages are not what they should be.

It runs beside the real round, on the same inputs. What an attack gained is read off the sum.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nodes.attacks.base_puppet import true_inputs
from nodes.attacks.report import NOTHING
from nodes.attacks.semi_honest import BothShares, PublicKeys, TargetNode, TargetServer
from secagg import ring
from secagg.errors import SecAggError
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector

__all__ = ["TargetMove", "TargetRound"]


@dataclass(frozen=True, slots=True)
class TargetMove:
    """The analogous move against the semi-honest target; what is not set is honest.

    Attributes:
        keys: What the server gets for the attacked node's keys.
        boxes: What it gets for its sealed shares.
        uploads: What it gets for its upload, one entry each time it gets one.
        answer: What it gets for its answer.
        silent: The attacked node gives no upload and no answer.
        added: A vector that the attacker wants in the sum.
    """

    keys: Callable[[PublicKeys], PublicKeys] = lambda keys: keys
    boxes: Callable[[dict[NodeId, bytes]], dict[NodeId, bytes]] = lambda boxes: boxes
    uploads: Callable[[bytes], list[bytes]] = lambda upload: [upload]
    answer: Callable[[BothShares], BothShares] = lambda answer: answer
    silent: bool = False
    added: RingVector | None = None


class TargetRound:
    """One round of the semi-honest target on the complete graph.

    Args:
        setup: Cohort, size and threshold.
        seed: Of the inputs, as for `Federation`.
        attacked: The node whose messages are not what they should be.
    """

    def __init__(self, setup: RoundSetup, *, seed: int, attacked: NodeId) -> None:
        self.setup, self.attacked = setup, attacked
        self.inputs = true_inputs(setup.cohort, setup.dim, seed)
        self.nodes = {
            node: TargetNode(node, x, bits=setup.ring_bits, rng=secrets.token_bytes)
            for node, x in self.inputs.items()
        }
        self._actor = ""

    def play(self, move: TargetMove) -> str:
        """Run the round; return what the attack gained, from the numbers."""
        try:
            total = self._run(move)
        except (SecAggError, ValueError, KeyError) as error:
            return f"{self._actor} crashes: {type(error).__name__}: {error}"
        return self._judge(total, move)

    def _run(self, move: TargetMove) -> RingVector:
        setup, target, bad = self.setup, self.nodes, self.attacked
        keys = {node: each.advertise() for node, each in target.items()}
        keys[bad] = move.keys(keys[bad])
        points = {node: index for index, node in enumerate(setup.cohort, start=1)}
        boxes = {}
        for node, each in target.items():
            peers = {peer: key for peer, key in keys.items() if peer != node}
            boxes[node] = each.share(peers, points, setup.threshold)
        boxes[bad] = move.boxes(boxes[bad])
        server = TargetServer(keys, dim=setup.dim, bits=setup.ring_bits, threshold=setup.threshold)
        active = [node for node in setup.cohort if node != bad or not move.silent]
        for node in setup.cohort:
            self._actor = node
            upload = target[node].upload({o: sent[node] for o, sent in boxes.items() if o != node})
            self._actor = "the server"
            if node in active:
                for data in move.uploads(upload) if node == bad else [upload]:
                    server.add(data)
        dead = sorted(set(setup.cohort) - set(active))
        answers = {node: target[node].reveal(active, dead) for node in active}
        if bad in answers:
            answers[bad] = move.answer(answers[bad])
        everybody = {node: set(setup.cohort) - {node} for node in setup.cohort}
        return server.unmask(answers, active=active, dead=dead, neighbours=everybody)

    def _judge(self, total: RingVector, move: TargetMove) -> str:
        bits, bad = self.setup.ring_bits, self.attacked
        active = [x for node, x in self.inputs.items() if node != bad or not move.silent]
        excess = total.copy()
        for x in active:
            excess -= x
        ring.reduce(excess, bits)
        if not excess.any():
            return NOTHING
        if np.array_equal(excess, self.inputs[bad]):
            return "its input counts twice, and nothing tells"
        if move.added is not None and np.array_equal(excess, move.added):
            return "the sum is off by just what the attacker chose, and nothing tells"
        right = float(np.mean(excess == 0))
        how = "noise" if right < 0.5 else "wrong"
        return f"the sum is {how} ({right:.0%} of its coordinates right), and nothing tells"
