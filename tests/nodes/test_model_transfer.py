"""Models travel in chunks and arrive whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.session.model_transfer import ModelReceiver, model_chunks, model_digest
from secagg.errors import RemoteProtocolError
from secagg.wire.messages import (
    ModelChunk,
)
from tests.support.fleet import COORDINATOR
from tests.support.run import DIM


@pytest.mark.req("S-08")
@pytest.mark.parametrize("fault", ["digest", "order", "length", "not finite"])
def test_a_model_that_is_not_the_offered_one_is_refused(fault: str) -> None:
    params = np.arange(DIM, dtype=np.float32)
    if fault == "not finite":
        params[3] = np.nan
    digest = bytes(32) if fault == "digest" else model_digest(params)
    receiver = ModelReceiver(1, DIM, digest, COORDINATOR)
    (chunk,) = model_chunks(1, params)
    if fault == "order":
        chunk = ModelChunk(1, 1, chunk.data)
    elif fault == "length":
        chunk = ModelChunk(1, 0, chunk.data[:-4])
    with pytest.raises(RemoteProtocolError, match=r"^coordinator: "):
        receiver.take(chunk)


def test_a_model_of_several_chunks_arrives_whole() -> None:
    params = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    receiver = ModelReceiver(1, len(params), model_digest(params), COORDINATOR)
    arrived = [receiver.take(chunk) for chunk in model_chunks(1, params)]
    assert len(arrived) == 4
    assert arrived[:3] == [None, None, None]
    assert arrived[3] is not None
    assert np.array_equal(arrived[3], params)
