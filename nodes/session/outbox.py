"""The coordinator's messages on their way out: encoded once for all receivers, sealed when sent.

A model takes megabytes and a cohort may have a thousand nodes, so nothing here is made for each of
them before the transport asks for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from nodes.session.events import SessionStep
from secagg.steps import Lazy, Outgoing
from secagg.types import NodeId, Signer
from secagg.wire.envelope import NO_RUN, Body, Envelope, seal_envelope
from secagg.wire.messages import Message, Welcome

__all__ = ["Outbox"]


class Outbox:
    """Seals messages of one run.

    Args:
        signer: The coordinator's identity.
        run_id: The run, 16 bytes.
    """

    def __init__(self, signer: Signer, run_id: bytes) -> None:
        self._signer, self._run_id = signer, run_id
        # A role gives many nodes the same message, one after the other.
        self._last: tuple[Message, Body] | None = None

    def to(self, node: NodeId, message: Message) -> SessionStep:
        """Send one message to one node."""
        return SessionStep((self._seal(node, message),))

    def to_all(self, nodes: Iterable[NodeId], messages: Iterable[Message | Body]) -> SessionStep:
        """Send each of the messages to all nodes before the next."""
        receivers = tuple(nodes)
        if not receivers:
            return SessionStep()
        bodies = (m if isinstance(m, Body) else Body(m) for m in messages)
        makers = (functools.partial(self._seal, node, b) for b in bodies for node in receivers)
        return SessionStep(Lazy(makers))

    def of_role(self, send: Sequence[Outgoing]) -> SessionStep:
        """Send what a role says; it is not asked for its messages before they are due."""
        indices = range(len(send))
        return SessionStep(Lazy(functools.partial(self._outgoing, send, i) for i in indices))

    def _outgoing(self, send: Sequence[Outgoing], index: int) -> tuple[NodeId, Envelope]:
        out = send[index]
        if self._last is None or self._last[0] is not out.message:
            self._last = out.message, Body(out.message)
        return self._seal(out.to, self._last[1])

    def _seal(self, node: NodeId, message: Message | Body) -> tuple[NodeId, Envelope]:
        run_id = NO_RUN if isinstance(message, Welcome) else self._run_id
        return node, seal_envelope(message, self._signer, to=node, run_id=run_id)
