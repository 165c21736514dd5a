"""Vectors of values in coefficients, and of packed shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from secagg.ckks import coefficients
from secagg.ckks.headroom import RingParameters
from secagg.errors import LocalProtocolError
from secagg.primitives import packed
from tests.vectors.ckks_cast import stream

__all__ = ["share_cases", "value_cases"]


def value_cases() -> list[dict[str, Any]]:
    """Return cases of eight coefficients, so that a block is seen whole."""
    single = RingParameters(8, 0, 1, 10, 7, 4, 1)
    double = RingParameters(8, 0, 2, 18, 7, 4, 1)
    triple = RingParameters(8, 0, 3, 12, 10, 12, 3)
    low, high = -(1 << 15), (1 << 15) - 1
    return [
        _message(single, 8, 10, [-128, 127, 0, -1, 1]),
        _message(double, 16, 18, [low, high, -1, 0, 1, 2, 3, 4, high, low, -7]),
        _message(double, 16, 18, [low] * 16),
        _message(double, 16, 32, list(range(-9, 9))),  # two blocks
        _message(triple, 8, 12, [-128, 127] * 12),
        _message(triple, 8, 8, [-128, 127] * 25),  # a ring in which sums wrap
        _message(double, 16, 18, [0, high + 1]),
        _message(double, 16, 18, [0, low - 1]),
        *_sums(double, 16, 18, weight=3),
        *_sums(triple, 8, 8, weight=5),
    ]


def _message(
    parameters: RingParameters, value_bits: int, ring_bits: int, values: Sequence[int]
) -> dict[str, Any]:
    vector = np.array([value % (1 << ring_bits) for value in values], dtype=np.uint32)
    bits = {"value_bits": value_bits, "ring_bits": ring_bits}
    case = {**_places(parameters), **bits, "vector": vector.tolist()}
    try:
        message = coefficients.to_message(vector, parameters, **bits)
    except LocalProtocolError:
        return {**case, "refused": True}
    return {**case, "message": message.tolist()}


def _places(parameters: RingParameters) -> dict[str, int]:
    names = ("degree", "values_per_coefficient", "field_bits", "noise_bits", "error_terms")
    return {name: asdict(parameters)[name] for name in names}


def _sums(
    parameters: RingParameters, value_bits: int, ring_bits: int, *, weight: int
) -> list[dict[str, Any]]:
    """Return sums at the bounds of errors and values, and one beyond each."""
    noise, field = parameters.noise_bits, parameters.field_bits
    error = 21 * weight * parameters.error_terms
    least = -weight << (value_bits - 1)
    most = -least - weight
    dim = 8 * parameters.values_per_coefficient - 2
    places = range(parameters.values_per_coefficient)

    def opened(*values: int, errors: int = 0, unused: int = 0) -> list[int]:
        first = [sum(value << (noise + field * place) for place in places) for value in values]
        top = unused << (noise + field * places[-1])
        return [*(value + errors for value in first), *[0] * (7 - len(values)), top]

    given = [
        opened(least, most, 0, -1, 1, errors=error),
        opened(least, most, 0, -1, 1, errors=-error),
        opened(least, most + 1),
        opened(least - 1, most),
        opened(0, 1, 2, errors=error + 1),
        opened(0, 1, 2, errors=-error - 1),
        opened(0, 1, 2, unused=-1),
    ]
    cases = []
    for blocks in given:
        bits = {"value_bits": value_bits, "ring_bits": ring_bits}
        found = coefficients.read_sum(
            np.array([blocks], dtype=np.int64), parameters, dim=dim, weight=weight, **bits
        )
        total = None if found is None else found.tolist()
        head = {**_places(parameters), **bits, "dim": dim, "weight": weight}
        cases.append({**head, "opened": [blocks], "total": total})
    return cases


# --- shares ---------------------------------------------------------------------------------------


def share_cases() -> list[dict[str, Any]]:
    return [
        _sharing(65_521, threshold=1, pack=1, holders=3, size=4),
        _sharing(65_521, threshold=1, pack=2, holders=7, size=16),
        _sharing(65_521, threshold=3, pack=4, holders=11, size=16),
        _sharing(16_777_213, threshold=2, pack=2, holders=8, size=8),
    ]


def _sharing(prime: int, *, threshold: int, pack: int, holders: int, size: int) -> dict[str, Any]:
    labels = (prime, threshold, pack, holders)
    terms = {"threshold": threshold, "pack": pack, "prime": prime}
    length = packed.share_length(size, pack)
    raw = stream("shares", *labels, size=4 * threshold * length)
    secret = [byte % 97 - 48 for byte in stream("secret", *labels, size=size)]
    sent = iter([raw])
    shares = packed.share(
        np.array(secret, dtype=np.int64), **terms, holders=holders, rng=lambda _: next(sent)
    )
    words = (int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
    spare = holders - threshold - pack
    liars = [range(count) for count in (0, 1, spare // 2, spare // 2 + 1)]
    silent = [(), range(holders - 1, holders - 1 - spare, -1), range(threshold + pack - 1, holders)]
    openings = [_opening(shares, terms, size, liars=tuple(each)) for each in liars]
    openings += [_opening(shares, terms, size, silent=tuple(each)) for each in silent]
    return {
        **terms,
        "holders": holders,
        "secret": secret,
        "drawn": [word % prime for word in words],
        "shares": shares.tolist(),
        "encoded": [packed.encode(one, prime).hex() for one in shares],
        "openings": openings,
    }


def _opening(
    shares: packed.Share,
    terms: dict[str, int],
    size: int,
    *,
    liars: tuple[int, ...] = (),
    silent: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return what decodes where some holders add their point plus one to a value of their own."""
    prime, given = terms["prime"], {}
    for holder, share in enumerate(shares):
        if holder not in silent:
            given[holder] = share.copy()
            if holder in liars:
                place = holder % len(share)
                given[holder][place] = (int(share[place]) + (holder + 2) ** 5) % prime
    bound = (prime - 1) // 2
    found = packed.open_shares(given, size=size, bound=bound, **terms)
    case: dict[str, Any] = {"answers": {str(h + 1): share.tolist() for h, share in given.items()}}
    if found is None:
        return {**case, "secret": None}
    wrong = sorted(holder + 1 for holder in found.wrong)
    return {**case, "secret": found.secret.tolist(), "wrong": wrong}
