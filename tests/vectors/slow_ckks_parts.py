"""The building blocks of specs/35 and 36 a second time, one integer at a time; nothing of `secagg`.

Shares are lists of integers modulo p; polynomials are those of `slow_ckks_ring`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.vectors import slow_parts as parts
from tests.vectors.slow_ckks_ring import Polynomial, modulus

ERROR_BOUND: Final = 21
LONGEST: Final = 1 << 19
CAPSULE: Final = 1088
SEAL: Final = CAPSULE + 16


# --- values ---------------------------------------------------------------------------------------


def signed(value: int, bits: int) -> int:
    """Return the representative of least magnitude modulo 2^bits."""
    return value - (1 << bits) if value >> (bits - 1) else value


def to_message(vector: Sequence[int], setup: Setup) -> list[Polynomial] | None:
    """Return the blocks of a message; None if a value is beyond v bits (H-07)."""
    values = [signed(value, setup.ring_bits) for value in vector]
    most = 1 << (setup.value_bits - 1)
    if not all(-most <= value < most for value in values):
        return None
    coefficients = [0] * (setup.blocks * setup.degree)
    for i, value in enumerate(values):
        place = i // len(coefficients)
        shift = setup.noise_bits + place * setup.field_bits
        coefficients[i % len(coefficients)] += value << shift
    step = setup.degree
    return [tuple(coefficients[i : i + step]) for i in range(0, len(coefficients), step)]


def _digit(value: int, bits: int) -> tuple[int, int]:
    """Return (rest, digit) with value = rest·2^bits + digit, the digit of least magnitude."""
    digit = signed(value % (1 << bits), bits)
    return (value - digit) >> bits, digit


def read_blocks(opened: Sequence[Sequence[int]], setup: Setup, weight: int) -> list[int] | None:
    """Return the values in some blocks, place by place; None if errors or values cannot be."""
    noise = ERROR_BOUND * setup.error_terms * weight
    pairs = [_digit(value, setup.noise_bits) for block in opened for value in block]
    if any(abs(error) > noise for _, error in pairs):
        return None
    rest, values = [above for above, _ in pairs], []
    for _ in range(setup.values_per_coefficient - 1):
        pairs = [_digit(value, setup.field_bits) for value in rest]
        rest = [above for above, _ in pairs]
        values += [digit for _, digit in pairs]
    values += rest  # the last place takes whatever is above it
    most = weight << (setup.value_bits - 1)
    return values if all(-most <= value <= most - weight for value in values) else None


def read_sum(opened: Sequence[Sequence[int]], setup: Setup, weight: int) -> list[int] | None:
    """Return the sum modulo 2^b, or None where it cannot be one (H-14)."""
    values = read_blocks(opened, setup, weight)
    if values is None or any(values[setup.dim :]):
        return None
    return [value % (1 << setup.ring_bits) for value in values[: setup.dim]]


# --- packed sharing -------------------------------------------------------------------------------


def uniform(seed: bytes, count: int, p: int) -> list[int]:
    """Return elements from a keystream: words below the greatest multiple of p, reduced."""
    limit = (1 << 32) // p * p
    words = (word for word in parts.keystream(seed, count + count // 4 + 64) if word < limit)
    return [word % p for word in itertools.islice(words, count)]


@functools.cache
def weights_at(points: tuple[int, ...], at: int, p: int) -> tuple[int, ...]:
    """Return what a polynomial's values at `points` count in its value `at` another place."""
    found = []
    for x in points:
        above = below = 1
        for other in points:
            if other != x:
                above, below = above * (at - other) % p, below * (x - other) % p
        found.append(above * pow(below, -1, p) % p)
    return tuple(found)


def value_at(rows: Mapping[int, Sequence[int]], at: int, p: int) -> list[int]:
    """Return the values `at` a place of all polynomials through `rows`, one of each a column."""
    if at in rows:
        return list(rows[at])
    weights = weights_at(tuple(rows), at, p)
    return [
        sum(map(int.__mul__, weights, column)) % p for column in zip(*rows.values(), strict=True)
    ]


def share(secret: Sequence[int], drawn: Sequence[int], *, setup: Setup) -> dict[int, list[int]]:
    """Return point to share; secret i + k·(N/l) stands on polynomial i at −k.

    What is drawn is the shares of points 1 to t, one after the other.
    """
    p, length = setup.committee_modulus, setup.share_length
    pieces = range(0, len(secret), length)
    rows = {-k: [x % p for x in secret[i : i + length]] for k, i in enumerate(pieces)}
    for point in range(1, setup.committee_threshold + 1):
        rows[point] = list(drawn[(point - 1) * length : point * length])
    return {point: value_at(rows, point, p) for point in range(1, setup.committee_size + 1)}


@dataclass(frozen=True)
class Word:
    """A secret that t + l shares or more agree on, and the points of the others."""

    secret: Polynomial
    wrong: frozenset[int]


def words(shares: Mapping[int, Sequence[int]], *, setup: Setup) -> list[Word]:
    """Return all secrets that t + l shares agree on, those that more agree on first.

    Every choice of t + l shares is tried.
    """
    p = setup.committee_modulus
    found: dict[frozenset[int], Word] = {}
    for chosen in itertools.combinations(sorted(shares), setup.answers):
        if any(wrong.isdisjoint(chosen) for wrong in found):
            continue
        rows = {point: shares[point] for point in chosen}
        wrong = frozenset(x for x in shares if value_at(rows, x, p) != list(shares[x]))
        pieces = [value_at(rows, -k, p) for k in range(setup.committee_pack)]
        values = [x - p if 2 * x > p else x for x in itertools.chain(*pieces)]
        found[wrong] = Word(tuple(values), wrong)
    return sorted(found.values(), key=lambda word: len(word.wrong))


def decode_share(data: bytes, setup: Setup) -> list[int] | None:
    values = parts.unpack(data, setup.share_length, setup.share_bits)
    return None if values is None or max(values) >= setup.committee_modulus else values


def encode_share(values: Sequence[int], setup: Setup) -> bytes:
    return parts.pack(values, setup.share_bits)


# --- keys, boxes, views ---------------------------------------------------------------------------


def key_parts(setup: Setup, node: str, agreement_key: bytes, kem_digest: bytes) -> list[bytes]:
    """Return what a node signs of its sealing key (H-04)."""
    return [*setup.context, node.encode(), b"\1", agreement_key, kem_digest]


def kem_digest(kem_key: bytes) -> bytes:
    return parts.sha("sealing-key", kem_key)


def box_key(
    setup: Setup, agreed: bytes, encapsulated: bytes, capsule: bytes, pair: tuple[str, str]
) -> bytes:
    """Return the key of a box of (dealer, member) (H-05)."""
    names = (node.encode() for node in pair)
    return parts.hkdf(agreed + encapsulated, "box-key", *setup.context, *names, capsule)


def open_box(
    setup: Setup, secret: bytes, box: bytes, *, agreement_key: bytes, pair: tuple[str, str]
) -> bytes | None:
    """Return what the dealer of (dealer, member) sealed for the member with agreement `secret`."""
    if len(box) < SEAL:
        return None
    capsule = box[:CAPSULE]
    agreed = parts.x25519(secret, agreement_key)
    if agreed is None:
        return None
    encapsulated = parts.kem_key(secret).decapsulate(capsule)
    return parts.unseal(box_key(setup, agreed, encapsulated, capsule, pair), box[CAPSULE:])


def view_digest(keys_digest: bytes, survivors: Sequence[str], weights: bytes) -> bytes:
    names = (node.encode() for node in survivors)
    return parts.sha("weighted-survivors", keys_digest, weights, *names)


def is_even(weights: Sequence[int], colluders: int) -> bool:
    """Tell whether (Σw)²/Σw² is at least max(3, A + 2) (H-11)."""
    least = max(3, colluders + 2)
    return sum(weights) ** 2 >= least * sum(w * w for w in weights)


# --- set-up ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """The content of a checked offer that a round of ckks needs."""

    run_id: bytes
    round_id: int
    offer_hash: bytes
    cohort: tuple[str, ...]
    signing_keys: Mapping[str, bytes]
    dim: int
    value_bits: int
    ring_bits: int
    chunk_values: int
    quorum: int
    colluders: int
    coordinator_weighs: bool
    max_weight: int
    degree: int
    modulus_bits: int
    values_per_coefficient: int
    field_bits: int
    noise_bits: int
    secret_terms: int
    error_terms: int
    committee_size: int
    committee_threshold: int
    committee_pack: int
    committee_silent: int
    committee_modulus: int

    @classmethod
    def read(cls, setup: Mapping[str, Any]) -> Setup:
        """Read the `setup` of a vector file."""
        values = {key: value for key, value in setup.items() if key not in ("ckks", "weights")}
        values |= setup["ckks"]
        for name in ("run_id", "offer_hash"):
            values[name] = bytes.fromhex(setup[name])
        values["cohort"] = tuple(setup["cohort"])
        keys = setup["signing_keys"].items()
        values["signing_keys"] = {node: bytes.fromhex(key) for node, key in keys}
        return cls(**values)

    @property
    def context(self) -> tuple[bytes, bytes, bytes]:
        return self.run_id, self.round_id.to_bytes(8, "little"), self.offer_hash

    @property
    def cosigners(self) -> int:
        return (len(self.cohort) + self.colluders) // 2 + 1

    @property
    def modulus(self) -> int:
        return modulus(self.degree, self.modulus_bits)

    @property
    def blocks(self) -> int:
        return -(-self.dim // (self.degree * self.values_per_coefficient))

    @property
    def blocks_in_chunk(self) -> int:
        block = self.degree * self.modulus_bits // 8
        values = self.degree * self.values_per_coefficient
        return max(1, min(self.chunk_values // values, LONGEST // block))

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.blocks_in_chunk)

    @property
    def answers(self) -> int:
        return self.committee_threshold + self.committee_pack

    @property
    def share_length(self) -> int:
        return self.degree // self.committee_pack

    @property
    def share_bits(self) -> int:
        return self.committee_modulus.bit_length()

    @property
    def box_size(self) -> int:
        return SEAL + -(-self.share_length // 8) * self.share_bits

    @property
    def committee(self) -> list[str]:
        """Return the members, sorted; their points are their places from 1 on (H-03)."""

        def drawn(node: str) -> bytes:
            return parts.sha("committee", *self.context, node.encode())

        return sorted(sorted(self.cohort, key=drawn)[: self.committee_size])

    @property
    def elements_seed(self) -> bytes:
        return parts.sha("public-elements", *self.context)
