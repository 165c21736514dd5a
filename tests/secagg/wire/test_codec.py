"""Fuzz invariant: any bytes give a message or a DecodeError, and a message has one encoding."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.ckks.committees import LARGEST
from secagg.errors import DecodeError, LocalProtocolError
from secagg.masking.parameters import MAX_DEGREE
from secagg.wire.codec import MAX_FRAME, decode, encode, offer_hash
from secagg.wire.messages import (
    MAX_CHUNK,
    MESSAGE_TYPES,
    AdvertList,
    Announcement,
    CipherChunk,
    CkksTerms,
    Coin,
    CommitteeKeys,
    DealtShares,
    DpTerms,
    Encapsulations,
    Heartbeat,
    KeyAdvert,
    MaskedChunk,
    Message,
    OpenRequest,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    RosterUpdate,
    RoundOffer,
    SealedSecret,
    SealedShares,
    SealingKey,
    SumShare,
    Survivors,
    UnmaskAnswer,
    UnmaskRequest,
    WeightedSurvivors,
)
from tests.support.messages import any_message, changed, number_of, sample

KINDS = sorted(MESSAGE_TYPES, key=number_of)  # type: ignore[arg-type]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def refused(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data, sender="mallory")
    assert caught.value.peer == "mallory"


@pytest.mark.req("W-03")
@settings(max_examples=300, deadline=None)
@given(any_message)
def test_every_message_comes_back(message: Message) -> None:
    data = encode(message)
    back = decode(data, sender="a")
    assert type(back) is type(message)
    assert msgspec.structs.astuple(back) == msgspec.structs.astuple(message) or encode(back) == data


@each_kind
@pytest.mark.req("W-11")
def test_the_first_element_is_the_type_number(kind: type[Message]) -> None:
    raw = msgspec.msgpack.decode(encode(sample(kind)))
    assert raw[0] == number_of(kind)
    assert len(raw) == 1 + len(kind.__struct_fields__)


@each_kind
@pytest.mark.req("W-04")
def test_every_prefix_and_anything_behind_is_refused(kind: type[Message]) -> None:
    data = encode(sample(kind))
    for length in range(len(data)):
        refused(data[:length])
    for tail in (b"\0", b"\xc0", data):
        refused(data + tail)


@each_kind
@pytest.mark.req("W-03")
def test_an_extra_element_is_refused(kind: type[Message]) -> None:
    raw = msgspec.msgpack.decode(encode(sample(kind)))
    for extra in (None, 0, b"", [], {}):
        refused(msgspec.msgpack.encode([*raw, extra]))


@each_kind
@pytest.mark.req("W-03")
def test_longer_spellings_of_the_array_and_the_number_are_refused(kind: type[Message]) -> None:
    data = encode(sample(kind))
    count = 1 + len(kind.__struct_fields__)
    header = 1 if count < 16 else 3
    body = data[header:]
    spellings = [b"\xdc" + count.to_bytes(2, "big"), b"\xdd" + count.to_bytes(4, "big")]
    for spelling in spellings:
        if spelling != data[:header]:
            refused(spelling + body)
    number = number_of(kind)
    for long_number in (b"\xcc", b"\xcd\0", b"\xce\0\0\0", b"\xcf" + bytes(7), b"\xd0"):
        refused(data[:header] + long_number + bytes([number]) + body[1:])


@pytest.mark.req("W-03")
@pytest.mark.parametrize(
    "spelling",
    [
        b"\x94\x04\xcc\x07\xa1a\xc4\0",  # 7 as uint8
        b"\x94\x04\xcd\x00\x07\xa1a\xc4\0",  # as uint16
        b"\x94\x04\xd0\x07\xa1a\xc4\0",  # as int8
        b"\x94\x04\xcb\x40\x1c\0\0\0\0\0\0\xa1a\xc4\0",  # as the float 7.0
        b"\x94\x04\x07\xd9\x01a\xc4\0",  # text with a longer header
        b"\x94\x04\x07\xda\x00\x01a\xc4\0",
        b"\x94\x04\x07\xc4\x01a\xc4\0",  # bytes for text
        b"\x84\xa4type\x04\xa8round_id\x07\xa5state\xa1a\xa7receipt\xc4\0",  # a map
    ],
)
def test_other_spellings_of_one_heartbeat_are_refused(spelling: bytes) -> None:
    assert encode(Heartbeat(7, "a")) == b"\x94\x04\x07\xa1a\xc4\0"
    refused(spelling)


@pytest.mark.req("T-03")
@pytest.mark.req("W-04")
@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xc1")
@example(b"\x93\x04\x07\xa1\xff")  # not UTF-8
@example(b"\x94\x1a\x07\x90" + b"\x91" * 5000)  # nesting
@example(b"\x93\x1a\x07\xdd\xff\xff\xff\xff")  # four billion elements announced
@example(b"\x93\x19\x07\x00\xc6\xff\xff\xff\xff")  # four billion bytes announced
@example(b"\x94\x04\x07\xa1a\xd6\xff\0\0\0\0")  # a timestamp behind the fields
def test_any_bytes_give_a_message_or_a_decode_error(data: bytes) -> None:
    try:
        message = decode(data, sender="a")
    except DecodeError:
        return
    assert encode(message) == data


@pytest.mark.req("W-04")
@settings(max_examples=500, deadline=None)
@given(any_message, st.data())
def test_damaged_messages_give_a_message_or_a_decode_error(
    message: Message, data: st.DataObject
) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = decode(bytes(raw), sender="a")
    except DecodeError:
        return
    assert encode(back) == bytes(raw)


OUT_OF_LIMITS: list[Message] = [
    changed(sample(Heartbeat), round_id=-1),
    changed(sample(Heartbeat), round_id=2**53 + 1),
    changed(sample(Heartbeat), state="x" * 65),
    changed(sample(KeyAdvert), node_id="x" * 64),
    changed(sample(KeyAdvert), suite=0),
    changed(sample(KeyAdvert), suite=256),
    changed(sample(KeyAdvert), agreement_key=bytes(31)),
    changed(sample(KeyAdvert), kem_key=bytes(1183)),
    changed(sample(KeyAdvert), kem_key=bytes(1185)),
    changed(sample(KeyAdvert), coin_commitment=b""),
    changed(sample(KeyAdvert), signature=bytes(65)),
    changed(sample(AdvertList), attempt=0),
    changed(sample(AdvertList), attempt=5),
    changed(sample(Coin), attempt=5),
    changed(sample(Coin), coin=bytes(31)),
    changed(sample(PeerKeys), coins=(bytes(33),)),
    changed(sample(Encapsulations), capsules=(("a", bytes(1087), bytes(32)),)),
    changed(sample(Encapsulations), capsules=(("a", bytes(1088), bytes(31)),)),
    changed(sample(PeerEncapsulations), capsules=(("a", bytes(1089), bytes(32)),)),
    changed(sample(SealedShares), boxes=(("a", bytes(257)),)),
    changed(sample(SealedShares), backup=bytes(32 * 10_000 + 17)),
    changed(sample(MaskedChunk), sharers_signature=bytes(65)),
    changed(sample(MaskedChunk), data=b""),
    changed(sample(MaskedChunk), data=bytes(MAX_CHUNK + 1)),
    changed(sample(MaskedChunk), index=2**20 + 1),
    changed(sample(Survivors), survivors=("a",) * 10_001),
    changed(sample(UnmaskAnswer), self_shares=(("a", bytes(32)),)),
    changed(sample(UnmaskAnswer), key_shares=(("a", bytes(34)),)),
    changed(sample(RoundOffer), value_bits=25),
    changed(sample(RoundOffer), ring_bits=33),
    changed(sample(RoundOffer), phase_timeout=0.0),
    changed(sample(RoundOffer), phase_timeout=float("nan")),
    changed(sample(RoundOffer), phase_timeout=float("inf")),
    changed(sample(RoundOffer), input_timeout=-1.0),
    changed(sample(RoundOffer), update_bound=float("nan")),
    changed(sample(RoundOffer), model_dim=(1 << 26) + 1),
    changed(sample(Announcement), distance=-1),
    changed(sample(Announcement), distance=65),
    changed(sample(Announcement), distance=1.5),
    changed(sample(CommitteeKeys), keys=(None,)),
    changed(sample(CipherChunk), data=b""),
    changed(sample(CipherChunk), data=bytes(MAX_CHUNK + 1)),
    changed(sample(SealedSecret), boxes=(bytes((1 << 14) + 1),)),
    changed(sample(SealedSecret), start=2**20 + 1),
    changed(sample(WeightedSurvivors), weights=bytes(10_001)),
    changed(sample(DealtShares), shares=((bytes(32), bytes(31), bytes(64), b""),)),
    changed(sample(OpenRequest), signatures=(("a", bytes(63)),)),
    changed(sample(SumShare), share=bytes((1 << 14) + 1)),
    changed(sample(SumShare), unopened=("a",) * 10_001),
]


@pytest.mark.req("W-02")
@pytest.mark.parametrize("index", range(len(OUT_OF_LIMITS)))
def test_a_field_out_of_its_limits_is_refused(index: int) -> None:
    refused(msgspec.msgpack.encode(OUT_OF_LIMITS[index]))


@pytest.mark.req("W-02")
def test_an_oversize_message_is_refused_before_it_is_read() -> None:
    with pytest.raises(DecodeError, match="exceeds"):
        decode(bytes(MAX_FRAME + 1), sender="mallory")
    with pytest.raises(LocalProtocolError):
        encode(RosterUpdate(bytes(MAX_FRAME)))


@pytest.mark.req("W-02")
def test_the_largest_honest_messages_fit() -> None:
    """10 000 members of the longest ids, each with the most neighbours that a graph may have."""
    id_, cohort, degree = "n" * 63, 10_000, MAX_DEGREE
    box = (id_, bytes(256))
    advert = changed(sample(KeyAdvert), node_id=id_)
    sent: list[Message] = [
        AdvertList(2**53, 1, ((id_, bytes(32), bytes(32)),) * cohort),
        PeerKeys(2**53, ((id_, bytes(32)),) * cohort, (bytes(32),) * cohort, (advert,) * degree),
        Encapsulations(2**53, ((id_, bytes(1088), bytes(32)),) * degree),
        PeerEncapsulations(2**53, (id_,) * cohort, ((id_, bytes(1088), bytes(32)),) * degree),
        SealedShares(2**53, (box,) * degree, bytes(32 * degree + 16)),
        PeerShares(2**53, (id_,) * cohort, (box,) * degree),
        Survivors(2**53, (id_,) * cohort, ((id_, bytes(64)),) * degree),
        UnmaskRequest(2**53, ((id_, bytes(64)),) * cohort),
        UnmaskAnswer(2**53, ((id_, bytes(33)),) * (degree + 1), ()),
    ]
    member = SealingKey(id_, 1, bytes(32), bytes(1184), bytes(64))
    sent += [
        CommitteeKeys(2**53, (member,) * LARGEST),
        WeightedSurvivors(2**53, (id_,) * cohort, bytes(cohort)),
        OpenRequest(2**53, ((id_, bytes(64)),) * cohort),
        SumShare(2**53, b"", (id_,) * cohort),
    ]
    for message in sent:
        decode(encode(message), sender="a")  # neither raises


TERMS = CkksTerms(
    coordinator_weighs=False,
    max_weight=1,
    degree=2048,
    modulus_bits=49,
    values_per_coefficient=2,
    field_bits=20,
    noise_bits=9,
    secret_terms=4,
    error_terms=1,
    committee_size=10,
    committee_threshold=3,
    committee_pack=1,
    committee_silent=3,
    committee_modulus=65_521,
)


@pytest.mark.req("M-07")
def test_the_offer_hash_depends_on_every_field_and_the_run() -> None:
    offer = sample(RoundOffer)
    other_values: dict[str, object] = {
        "scheme": "x",
        "cohort": ("a",),
        "model_digest": b"x" * 32,
        "ckks": TERMS,
        "dp": sample(DpTerms),
    }
    seen = {offer_hash(b"r" * 16, offer), offer_hash(b"s" * 16, offer)}
    for field in RoundOffer.__struct_fields__:
        value = getattr(offer, field)
        other = other_values.get(field, value + b"x" if isinstance(value, bytes) else None)
        if other is None:
            other = value + 1
        seen.add(offer_hash(b"r" * 16, changed(offer, **{field: other})))
    for field in CkksTerms.__struct_fields__:
        terms = msgspec.structs.replace(TERMS, **{field: getattr(TERMS, field) + 1})
        seen.add(offer_hash(b"r" * 16, changed(offer, ckks=terms)))
    assert len(seen) == 2 + len(RoundOffer.__struct_fields__) + len(CkksTerms.__struct_fields__)
