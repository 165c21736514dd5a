"""What a node says besides its masked vector: nothing that depends on its data."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.training import LocalUpdate
from nodes.session.contribution import encode_update, read_sum
from nodes.session.offer import encoding_of, noised_encoding_of
from secagg.wire.messages import MESSAGE_TYPES, DpTerms, RoundOffer
from tests.support.messages import changed, sample
from tests.support.randomness import InsecureLabelledRng

FROM_A_NODE = {
    "Hello": {"software", "protocol", "roster_version", "wall_time", "receipt"},
    "Probe": {"software", "protocol"},
    "Heartbeat": {"round_id", "state", "receipt"},
    "Refusal": {"round_id", "reason", "explanation"},
    "Farewell": {"round_id"},
    "KeyAdvert": {
        "round_id", "node_id", "suite", "agreement_key", "kem_key", "round_commitment",
        "self_commitment", "coin_commitment", "signature",
    },
    "Coin": {"round_id", "attempt", "coin"},
    "Encapsulations": {"round_id", "capsules"},
    "SealedShares": {"round_id", "boxes", "backup"},
    "MaskedChunk": {"round_id", "index", "sharers_signature", "data"},
    "SurvivorSignature": {"round_id", "signature"},
    "UnmaskAnswer": {"round_id", "self_shares", "key_shares"},
    "Announcement": {"round_id", "key", "distance"},
    "SealedSecret": {"round_id", "start", "boxes"},
    "CipherChunk": {"round_id", "index", "data"},
    "SumShare": {"round_id", "share", "unopened"},
    "PlainChunk": {"round_id", "index", "data"},
    "ExcessSeeds": {"round_id", "seeds"},
}  # fmt: skip
FROM_THE_COORDINATOR = {
    "Welcome", "RosterUpdate", "Heartbeat", "RoundOffer", "ModelChunk", "RoundClosed",
    "RunFinished", "AdvertList", "PeerKeys", "PeerEncapsulations", "PeerShares", "UploadTurn",
    "Survivors", "UnmaskRequest", "CommitteeKeys", "WeightedSurvivors", "DealtShares",
    "OpenRequest", "ExcessRequest",
}  # fmt: skip
OFFER: RoundOffer = changed(  # type: ignore[assignment]
    sample(RoundOffer),
    cohort=("a", "b", "c"),
    value_bits=16,
    ring_bits=18,
    update_bound=4.0,
    centroid_bound=2.0,
    model_dim=10,
    reference=bytes(4 * 3),
)


@pytest.mark.req("E-01")
@pytest.mark.req("T-05")
def test_no_message_of_a_node_has_a_field_for_its_data() -> None:
    """A new field in a node's message has to be added here, and thought about."""
    fields = {kind.__name__: set(kind.__struct_fields__) for kind in MESSAGE_TYPES}
    for name, allowed in FROM_A_NODE.items():
        assert fields[name] == allowed
    assert set(fields) == set(FROM_A_NODE) | FROM_THE_COORDINATOR


@pytest.mark.req("E-01")
@pytest.mark.req("D-02")
@pytest.mark.parametrize("within", [False, True])
def test_under_noise_nothing_travels_that_it_does_not_cover(within: bool) -> None:
    """No loss, no counts of rows; whether a node was clipped only inside the noised vector."""
    noise = DpTerms("discrete-gaussian", 1.0, 2048, 1.0, 2, True, within, (), None)
    encoding = noised_encoding_of(OFFER, noise)
    assert [segment.name for segment in encoding.segments] == ["update", "centroid", "weight"]
    assert encoding.dim == 10 + 3 + 1 + within


def update(seed: int, **changes: object) -> LocalUpdate:
    rng = np.random.default_rng(seed)
    values: dict[str, object] = {
        "delta": rng.normal(size=10).astype(np.float32) / 4,
        "centroid": rng.normal(size=3).astype(np.float32) / 4,
        "weight": 0.5,
        "distance": 1.0,
        "loss": 1.25,
        "samples": 500,
    }
    return LocalUpdate(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.req("E-01")
@pytest.mark.req("E-09")
def test_everything_of_an_update_is_in_the_vector_and_comes_back_as_a_mean() -> None:
    encoding = encoding_of(OFFER)
    updates = [update(1), update(2, weight=0.25, samples=5000), update(3, loss=3.0)]
    total = np.zeros(encoding.dim, dtype=np.uint64)
    for index, one in enumerate(updates):
        total += encode_update(one, encoding, InsecureLabelledRng(index, "rounding"))
    mean = read_sum((total % (1 << 18)).astype(np.uint32), (1, 1, 1), encoding)
    assert mean is not None
    weights = sum(one.weight for one in updates)
    for name, size in (("delta", 4.0), ("centroid", 2.0)):
        exact = sum(one.weight * getattr(one, name).astype(float) for one in updates) / weights
        assert np.abs(getattr(mean, name) - exact).max() < 1.01 * 3 * size / 32767 / weights
    assert mean.weight == pytest.approx(weights / 3, abs=1e-4)
    assert mean.loss == pytest.approx(5.5 / 3, abs=100 / 32767)
    assert sum(mean.samples) == 3
    assert mean.clipped == 0


@pytest.mark.req("E-01")
def test_the_size_of_an_upload_does_not_depend_on_the_data() -> None:
    encoding = encoding_of(OFFER)
    rng = InsecureLabelledRng(1, "x")
    ones = [update(1), update(2, samples=10**9, loss=1e9, weight=1.0), update(3, samples=0)]
    assert {encode_update(one, encoding, rng).shape for one in ones} == {(encoding.dim,)}


@pytest.mark.req("E-09")
def test_the_layout_follows_from_the_offer_alone() -> None:
    encoding = encoding_of(OFFER)
    layout = [(segment.name, segment.dim, segment.bound) for segment in encoding.segments]
    assert layout == [
        ("update", 10, 4.0),
        ("centroid", 3, 2.0),
        ("weight", 1, 1.0),
        ("loss", 1, 100.0),
        ("samples", 8, 1.0),
        ("clipped", 1, 1.0),
    ]
    assert encoding == encoding_of(changed(OFFER, round_id=99))  # type: ignore[arg-type]
