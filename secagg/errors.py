"""Everything that can go wrong, by who is at fault.

::

    SecAggError
    ├ LocalProtocolError          our own call came out of order: a bug, crash loudly
    ├ RemoteProtocolError(peer)   a peer sent what is forbidden: drop it, keep the round
    │ ├ DecodeError               not a message of ours, or not in canonical form
    │ ├ AuthenticationError       a signature, a seal or an identity does not hold
    │ └ ReplayError               a message of another round, or a second one
    │   └ RunMismatchError        a message of another run
    ├ RunIncompleteError          the run ended without all its rounds
    ├ RoundAborted(reason)        the round ends cleanly and nothing of it is released
    ├ OfferRefused(reason)        the node's own policy forbids the offered round
    ├ KeyMaterialError            a key, certificate or roster is missing, broken or not ours
    └ ConfigError                 a setting is wrong

The operator can mend the last two: they carry a hint that says how.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "ConfigError",
    "DecodeError",
    "KeyMaterialError",
    "LocalProtocolError",
    "OfferRefused",
    "RemoteProtocolError",
    "ReplayError",
    "RoundAborted",
    "RunIncompleteError",
    "RunMismatchError",
    "SecAggError",
]


class SecAggError(Exception):
    """Base of every error that this project raises on purpose.

    Attributes:
        hint: One sentence that says how to mend it, or "" where there is nothing to mend.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class LocalProtocolError(SecAggError):
    """The caller broke a rule of the interface: a bug on this side."""


class RemoteProtocolError(SecAggError):
    """A peer broke the protocol.

    Attributes:
        peer: Node id of the peer to blame.
    """

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer = peer
        self.fault = message


class DecodeError(RemoteProtocolError):
    """The bytes are not a message of this protocol version in canonical form."""


class AuthenticationError(RemoteProtocolError):
    """A signature, seal or identity does not hold."""


class ReplayError(RemoteProtocolError):
    """The message belongs to another run or round, or was given before."""


class RunMismatchError(ReplayError):
    """A well-signed message of another run: the sender has not heard of this one yet."""


class RoundAborted(SecAggError):
    """The round ended without a result; nothing of it was or will be released.

    Attributes:
        reason: Stable code from `secagg.types.AbortReason`.
        alive: Nodes that were still in the round.
        needed: Nodes the round needed.
    """

    def __init__(self, reason: str, *, alive: int, needed: int) -> None:
        super().__init__(f"round aborted: {reason} ({alive} nodes left, {needed} needed)")
        self.reason = reason
        self.alive = alive
        self.needed = needed


class RunIncompleteError(SecAggError):
    """A run ended without all its rounds.

    Attributes:
        done: Rounds with a result.
        wanted: Rounds that were asked for.
    """

    def __init__(self, reason: str, *, done: int, wanted: int) -> None:
        super().__init__(f"the run ended after {done} of {wanted} rounds: {reason}")
        self.done = done
        self.wanted = wanted


class OfferRefused(SecAggError):
    """This node's policy forbids the offered round.

    Attributes:
        reason: Stable code from `secagg.types.RefusalReason`.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class KeyMaterialError(SecAggError):
    """A key, certificate or roster is missing, damaged, expired or not ours."""


class ConfigError(SecAggError):
    """A setting is missing, out of range, or at odds with another one."""
