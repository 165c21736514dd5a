"""Values that every layer shares: ids, vectors and reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ConfigError

__all__ = [
    "MAX_CHUNKS",
    "MAX_COHORT",
    "AbortReason",
    "NodeId",
    "RefusalReason",
    "RingVector",
    "Rng",
    "Signer",
    "Weigh",
    "check_node_id",
]

NodeId: TypeAlias = str
RingVector: TypeAlias = NDArray[np.uint32]
"""Shape (dim,), dtype uint32, values in [0, 2^ring_bits): integers modulo 2^ring_bits."""
Rng: TypeAlias = Callable[[int], bytes]
"""Returns n uniform bytes; daemons pass the operating system's generator."""

Weigh: TypeAlias = Callable[[Mapping[NodeId, float]], Mapping[NodeId, int]]
"""Consistency distances of a round's nodes to integer weights, 0 for whoever is left out."""

MAX_COHORT: Final = 10_000
"""Most nodes in one round; bounds what a message may make a peer allocate."""
MAX_CHUNKS: Final = 4096
"""Most messages that one upload takes; bounds what an offer may make a node prepare."""

_NODE_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_node_id(node_id: str) -> NodeId:
    """Return `node_id` unchanged if it is a well-formed id.

    Raises:
        ConfigError: it is not 1 to 63 of ``a-z 0-9 . _ -``, starting with a letter or digit.
    """
    if not _NODE_ID.fullmatch(node_id):
        raise ConfigError(
            f"{node_id!r} is not a node id",
            hint="use 1 to 63 of a-z 0-9 . _ - and start with a letter or digit",
        )
    return node_id


class AbortReason(StrEnum):
    """Why a round ended without a result. The codes are stable."""

    TOO_FEW_KEYS = "too_few_keys"
    COMMITTEE_TOO_SMALL = "committee_too_small"
    COINS_MISSING = "coins_missing"
    TOO_FEW_AGREEMENTS = "too_few_agreements"
    TOO_FEW_SHARES = "too_few_shares"
    TOO_FEW_INPUTS = "too_few_inputs"
    GRAPH_TOO_THIN = "graph_too_thin"
    TOO_FEW_SIGNATURES = "too_few_signatures"
    TOO_FEW_UNMASK_ANSWERS = "too_few_unmask_answers"
    BAD_SHARES = "bad_shares"
    TOO_FEW_ANSWERS = "too_few_answers"
    COHORT_TOO_UNEVEN = "cohort_too_uneven"
    SUM_OUT_OF_RANGE = "sum_out_of_range"
    TOO_FEW_NODES = "too_few_nodes"
    ZERO_WEIGHT = "zero_weight"
    DROWNED_IN_NOISE = "drowned_in_noise"


class RefusalReason(StrEnum):
    """Why a node refuses an offer. The codes are stable."""

    COHORT_TOO_SMALL = "cohort_too_small"
    SCHEME_FORBIDDEN = "scheme_forbidden"
    NOT_IN_COHORT = "not_in_cohort"
    UNKNOWN_MEMBER = "unknown_member"
    THRESHOLDS_UNSAFE = "thresholds_unsafe"
    MODEL_UNSUITABLE = "model_unsuitable"
    PARAMETERS_UNSAFE = "parameters_unsafe"
    WEIGHTS_FORBIDDEN = "weights_forbidden"
    PRIVACY_REQUIRED = "privacy_required"
    BUDGET_SPENT = "budget_spent"
    ARCHITECTURE_FORBIDDEN = "architecture_forbidden"
    LEARNING_RATE_TOO_HIGH = "learning_rate_too_high"
    TRAINING_TOO_LONG = "training_too_long"
    COHORT_TOO_SIMILAR = "cohort_too_similar"
    TOO_MANY_ROUNDS = "too_many_rounds"


class Signer(Protocol):
    """Whoever holds a node's long-term Ed25519 key."""

    @property
    def node_id(self) -> NodeId:
        """The id the roster lists this key under."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over `message`."""
        ...
