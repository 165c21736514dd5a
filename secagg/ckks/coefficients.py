"""Ring vectors to coefficients of a message and back, exactly.

Several values share a coefficient, one above the other, above the bits that the errors take. Values
are integers modulo 2^ring_bits; what is summed is their representative of least magnitude. A sum is
read only where all of it is possible: errors, values and unused coefficients each within what the
nodes in it could add up to.

Source: specs/35-ckks-parameters.md section 2, specs/36-ckks.md section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.ckks.headroom import RingParameters
from secagg.ckks.seal import ERROR_BOUND
from secagg.errors import LocalProtocolError
from secagg.types import RingVector

__all__ = ["blocks_for", "fits", "read_sum", "to_message"]


def blocks_for(dim: int, parameters: RingParameters) -> int:
    """Return the polynomials that `dim` values take."""
    return -(-dim // (parameters.degree * parameters.values_per_coefficient))


def to_message(
    vector: RingVector, parameters: RingParameters, *, ring_bits: int, value_bits: int
) -> NDArray[np.int64]:
    """Return the message of one node, shape (blocks, N), int64.

    Value i stands in coefficient i mod C at place i div C, C = blocks·N.

    Args:
        vector: Shape (dim,), uint32, values below 2^ring_bits.
        parameters: What lies in a coefficient.
        ring_bits: Of the vector.
        value_bits: v; a value lies from −2^(v−1) to 2^(v−1) − 1.

    Raises:
        LocalProtocolError: a value is out of that range: added up, such values could wrap (H-07).
    """
    values = ring.to_signed(vector, ring_bits).astype(np.int64)
    most = 1 << (value_bits - 1)
    if values.size and (values.min() < -most or values.max() >= most):  # H-07
        raise LocalProtocolError(f"an input value takes more than {value_bits} bits")
    blocks = blocks_for(len(vector), parameters)
    planes = np.zeros((parameters.values_per_coefficient, blocks * parameters.degree), np.int64)
    planes.reshape(-1)[: len(values)] = values
    message: NDArray[np.int64] = planes[-1]
    for plane in planes[-2::-1]:
        message = (message << parameters.field_bits) + plane
    return (message << parameters.noise_bits).reshape(blocks, parameters.degree)


def read_sum(
    opened: NDArray[np.int64],
    parameters: RingParameters,
    *,
    dim: int,
    ring_bits: int,
    value_bits: int,
    weight: int,
) -> RingVector | None:
    """Return the sum of values modulo 2^ring_bits, or None if this cannot be one (H-14).

    Args:
        opened: Σ w·message + Σ w·e, shape (blocks, N), int64.
        parameters: What lies in a coefficient.
        dim: Values in the vector.
        ring_bits: Of the vector.
        value_bits: v.
        weight: Σ w, at least 1.

    Returns:
        Shape (dim,), uint32, values below 2^ring_bits.
    """
    values = _values(opened, parameters, value_bits=value_bits, weight=weight)
    if values is None or values[dim:].any():
        return None
    total: RingVector = (values[:dim] & np.int64((1 << ring_bits) - 1)).astype(np.uint32)  # H-01
    return total


def fits(
    opened: NDArray[np.int64], parameters: RingParameters, *, value_bits: int, weight: int
) -> bool:
    """Tell whether errors and values of some opened blocks are possible (H-13).

    A wrong secret leaves coefficients uniform modulo q. That all of a block pass then has a chance
    below 2^-780 for weights up to 1, 2^-410 for 3, and nowhere above 2^-48 (2, at its worst size).
    """
    return _values(opened, parameters, value_bits=value_bits, weight=weight) is not None


def _values(
    opened: NDArray[np.int64], parameters: RingParameters, *, value_bits: int, weight: int
) -> NDArray[np.int64] | None:
    """Return all values, place by place, or None if one of them or an error is impossible."""
    rest, errors = _split(opened.reshape(-1), parameters.noise_bits)
    if np.abs(errors).max(initial=0) > weight * ERROR_BOUND * parameters.error_terms:
        return None
    planes = np.empty((parameters.values_per_coefficient, rest.size), np.int64)
    for index in range(len(planes) - 1):
        rest, planes[index] = _split(rest, parameters.field_bits)
    planes[-1] = rest
    most = weight << (value_bits - 1)
    if planes.min() < -most or planes.max() > most - weight:
        return None
    return planes.reshape(-1)


def _split(values: NDArray[np.int64], bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (high, low) with values = high·2^bits + low and low in [−2^(bits−1), 2^(bits−1))."""
    half = np.int64(1 << (bits - 1))
    low = ((values + half) & np.int64((1 << bits) - 1)) - half
    return (values - low) >> np.int64(bits), low
