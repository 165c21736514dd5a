"""The signed wrapper: every bit counts, and so do sender, receiver and run."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import (
    AuthenticationError,
    DecodeError,
    RemoteProtocolError,
    ReplayError,
    RunMismatchError,
)
from secagg.primitives.signing import sign
from secagg.tags import ENVELOPE, KEY_ADVERT
from secagg.wire.codec import encode
from secagg.wire.envelope import (
    MAX_ENVELOPE,
    NO_RUN,
    Opened,
    open_envelope,
    seal_envelope,
)
from secagg.wire.messages import Heartbeat, Hello, Message, Welcome
from tests.support.fleet import TestSigner
from tests.support.messages import any_message

NODE, RUN = TestSigner("node-1"), b"r" * 16
MESSAGE = Heartbeat(7, "idle")


def seal(message: Message = MESSAGE, *, to: str = "coordinator", run_id: bytes = RUN) -> bytes:
    return bytes(seal_envelope(message, NODE, to=to, run_id=run_id))


def opened(frame: bytes, **changes: object) -> Opened:
    expected: dict[str, object] = {
        "sender": "node-1",
        "key": NODE.public,
        "receiver": "coordinator",
        "run_id": RUN,
    }
    return open_envelope(frame, **{**expected, **changes})  # type: ignore[arg-type]


@pytest.mark.req("W-05")
@settings(max_examples=100, deadline=None)
@given(any_message)
def test_what_is_sealed_opens(message: Message) -> None:
    back = opened(seal(message))
    assert encode(back.message) == encode(message)
    assert (back.sender, back.run_id) == ("node-1", RUN)


def test_the_layout_is_the_documented_one() -> None:
    frame, body = seal(), encode(MESSAGE)
    header = b"\x01" + RUN + b"\x06node-1" + b"\x0bcoordinator"
    digest = hashlib.sha256(body).digest()
    assert frame[: len(header)] == header
    assert frame[len(header) + 64 :] == body
    assert frame[len(header) : len(header) + 64] == sign(NODE, ENVELOPE, header, digest)


@pytest.mark.req("T-02")
@pytest.mark.req("W-05")
def test_every_single_bit_flip_is_refused() -> None:
    frame = seal()
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError) as caught:
            opened(bytes(damaged))
        assert caught.value.peer == "node-1"


@pytest.mark.req("W-05")
def test_a_signature_of_another_key_or_purpose_does_not_hold() -> None:
    with pytest.raises(AuthenticationError):
        opened(seal(), key=TestSigner("node-2").public)
    with pytest.raises(AuthenticationError):
        opened(seal(), key=b"")
    body = encode(MESSAGE)
    header = seal()[: -len(body) - 64]
    with pytest.raises(AuthenticationError):
        opened(header + sign(NODE, KEY_ADVERT, header, hashlib.sha256(body).digest()) + body)


@pytest.mark.req("W-06")
def test_a_message_for_another_receiver_is_refused() -> None:
    with pytest.raises(ReplayError):
        opened(seal(to="node-2"))


@pytest.mark.req("W-06")
@pytest.mark.parametrize("run", [b"s" * 16, NO_RUN])
def test_a_message_of_another_run_is_refused(run: bytes) -> None:
    with pytest.raises(RunMismatchError):
        opened(seal(run_id=run))
    with pytest.raises(RunMismatchError):
        opened(seal(), run_id=run)


@pytest.mark.req("W-06")
def test_another_run_is_told_only_of_an_authenticated_sender() -> None:
    """A `RunMismatchError` is answered with a greeting, so it must not be forgeable."""
    frame = seal(run_id=b"s" * 16)
    with pytest.raises(AuthenticationError):
        opened(frame[:-1] + bytes([frame[-1] ^ 1]))
    with pytest.raises(AuthenticationError):
        opened(frame, key=TestSigner("node-2").public)
    with pytest.raises(ReplayError) as caught:
        opened(seal(to="node-2", run_id=b"s" * 16))
    assert not isinstance(caught.value, RunMismatchError)


@pytest.mark.req("W-06")
@pytest.mark.parametrize("greeting", [Hello("0", 1, 0, 0.0), Welcome(RUN, "0", 0, 0.0, 1.0, 0, 1)])
def test_only_a_greeting_may_come_without_the_run(greeting: Message) -> None:
    assert opened(seal(greeting, run_id=NO_RUN)).run_id == NO_RUN


@pytest.mark.req("W-08")
def test_the_claimed_sender_is_the_authenticated_one() -> None:
    with pytest.raises(DecodeError):
        opened(seal(), sender="node-2", key=TestSigner("node-2").public)


@pytest.mark.req("W-01")
@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_and_named(version: int) -> None:
    with pytest.raises(DecodeError, match=f"version {version}"):
        opened(bytes([version]) + seal()[1:])


@pytest.mark.req("W-02")
def test_an_oversize_frame_is_refused() -> None:
    with pytest.raises(DecodeError, match="exceeds"):
        opened(bytes(MAX_ENVELOPE + 1))


@pytest.mark.req("W-04")
def test_every_truncation_is_refused() -> None:
    frame = seal()
    for length in range(len(frame)):
        with pytest.raises(RemoteProtocolError):
            opened(frame[:length])


@pytest.mark.req("W-04")
@pytest.mark.parametrize(
    "names", [b"\0\0", b"\x06node-1\0", b"\x40" + b"a" * 64, b"\xff", b"\x01\xe9\x01a"]
)
def test_malformed_ids_are_refused(names: bytes) -> None:
    with pytest.raises(DecodeError):
        opened(b"\x01" + RUN + names + bytes(80))


@pytest.mark.req("W-04")
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_frame_opens_or_blames_its_sender(frame: bytes) -> None:
    for prefix in (b"", b"\x01" + RUN, b"\x01" + RUN + b"\x06node-1\x0bcoordinator"):
        with pytest.raises(RemoteProtocolError) as caught:
            opened(prefix + frame)
        assert caught.value.peer == "node-1"


@pytest.mark.req("W-10")
def test_what_was_opened_shows_no_content() -> None:
    assert "Heartbeat" not in repr(opened(seal()))
