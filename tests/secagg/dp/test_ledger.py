"""The chain of charges: what follows, what does not, what it adds up to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import tags
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import PrivacyEvent, Unprotected
from secagg.dp.ledger import (
    CANCEL,
    GENESIS,
    History,
    LedgerDamagedError,
    LedgerSetBackError,
    RoundSpentError,
    fragment_digest,
)
from secagg.dp.receipts import MAX_RECEIPT, Receipt, check_receipt, make_receipt
from secagg.errors import AuthenticationError, ConfigError, DecodeError, LocalProtocolError
from secagg.primitives.kdf import digest, frame
from secagg.version import PROTOCOL_VERSION
from tests.support.fleet import TestSigner
from tests.support.ledgers import NOW, OTHER, RUN, STEPS, SUM, lines

DELTA = 1e-5
LINES = lines(4)


def read(made: list[bytes]) -> History:
    history = History("file")
    for line in made:
        history.take(line)
    return history


def canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def forged(fields: dict[str, Any]) -> bytes:
    """A first line whose hash fits whatever is in it."""
    body = {name: value for name, value in fields.items() if name != "hash"}
    stored = digest(tags.LEDGER_ENTRY, GENESIS, canonical(body))
    return canonical({**body, "hash": stored.hex()})


def charge(history: History, round_id: int, unit: str, event: PrivacyEvent) -> None:
    history.take(history.draft(RUN, round_id, unit, event, now=NOW))


# --- the chain -----------------------------------------------------------------------------------


@pytest.mark.req("B-02")
def test_an_entry_is_canonical_json_hashed_with_the_hash_before_it() -> None:
    history = read(LINES)
    previous = GENESIS
    for index, line in enumerate(LINES):
        fields = json.loads(line)
        assert canonical(fields) == line
        stored = fields.pop("hash")
        tag = f"secagg/v{PROTOCOL_VERSION}/ledger-entry\0".encode()
        assert hashlib.sha256(tag + frame(previous, canonical(fields))).hexdigest() == stored
        assert fields["previous"] == previous.hex()
        previous = history.hash_at(index + 1)
        assert previous.hex() == stored
    assert history.head == previous


@pytest.mark.req("B-02")
def test_an_entry_says_what_was_charged() -> None:
    history = read(LINES)
    entry = history.entries[2]
    assert (entry.index, entry.run_id, entry.round_id, entry.unit) == (2, RUN, 2, "client")
    assert (entry.event, entry.wall_time, entry.torn) == (SUM, int(NOW + 2), None)
    assert json.loads(LINES[2])["event"] == SUM.to_dict()


@pytest.mark.req("B-02", "B-10")
def test_any_changed_byte_of_a_line_is_noticed_and_its_line_named() -> None:
    for number, line in enumerate(LINES, start=1):
        for place in range(len(line)):
            for flip in (1, 32):
                edited = line[:place] + bytes([line[place] ^ flip]) + line[place + 1 :]
                with pytest.raises(LedgerDamagedError) as caught:
                    read([*LINES[: number - 1], edited, *LINES[number:]])
                assert caught.value.line == number
                assert f"line {number} " in str(caught.value)
                assert caught.value.hint


@pytest.mark.req("B-02", "B-10")
@given(st.integers(0, 3), st.data())
def test_any_cut_or_insertion_in_a_line_is_noticed(number: int, data: st.DataObject) -> None:
    line = LINES[number]
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line)))
    edited = line[:start] + data.draw(st.binary(max_size=40)) + line[end:]
    if edited != line:
        with pytest.raises(LedgerDamagedError):
            read([*LINES[:number], edited])


@pytest.mark.req("B-02")
@given(st.permutations(range(4)), st.integers(1, 4))
def test_lines_in_another_order_or_with_one_missing_do_not_follow(
    order: list[int], count: int
) -> None:
    kept = order[:count]
    if kept == list(range(count)):
        assert len(read([LINES[index] for index in kept])) == count
        return
    wrong = next(place for place, index in enumerate(kept) if place != index)
    with pytest.raises(LedgerDamagedError, match="does not follow") as caught:
        read([LINES[index] for index in kept])
    assert caught.value.line == wrong + 1


@pytest.mark.req("B-02")
def test_the_end_of_another_ledger_does_not_follow() -> None:
    other = History()
    charge(other, 20, "client", SUM)
    charge(other, 21, "client", SUM)
    line = other.draft(RUN, 22, "client", SUM, now=NOW)
    with pytest.raises(LedgerDamagedError, match="line 3 does not follow"):
        read([*LINES[:2], line])


@pytest.mark.req("B-02", "B-10")
@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.replace(":", ": ", 1),
        lambda text: " " + text,
        lambda text: text + " ",
        lambda text: text + "\r",
        lambda text: text[:-1] + "," + text[text.index('"wall_time"') :],
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")),
        lambda text: text.replace("300.0", "3e2"),
        lambda text: text.replace("300.0", "300.00"),
        lambda text: text.replace("client", "\\u0063lient"),
    ],
)
def test_the_same_entry_in_another_form_is_refused(written: Callable[[str], str]) -> None:
    text = LINES[0].decode()
    other = written(text)
    assert other != text
    assert json.loads(other) == json.loads(text)
    with pytest.raises(LedgerDamagedError, match="line 1 "):
        read([other.encode()])


@pytest.mark.req("B-10")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: fields | {"note": 1},
        lambda fields: {key: fields[key] for key in fields if key != "torn"},
        lambda fields: fields | {"unit": "site"},
        lambda fields: fields | {"unit": "none"},
        lambda fields: fields | {"event": Unprotected().to_dict()},
        lambda fields: fields | {"event": {"event": "magic"}},
        lambda fields: fields | {"event": SUM.to_dict() | {"l2": -1.0}},
        lambda fields: fields | {"event": SUM.to_dict() | {"more": 1}},
        lambda fields: fields | {"round": -1},
        lambda fields: fields | {"round": 2**53 + 1},
        lambda fields: fields | {"wall_time": 1.5},
        lambda fields: fields | {"torn": "00"},
    ],
)
def test_an_entry_of_another_form_is_refused_though_its_hash_fits(
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    with pytest.raises(LedgerDamagedError, match="line 1"):
        read([forged(spoil(json.loads(LINES[0])))])


def test_an_entry_from_before_a_field_of_its_event_was_added_is_read() -> None:
    fields = json.loads(LINES[0])
    del fields["event"]["truncation"]
    assert read([forged(fields)]).entries[0].event == SUM


# --- a round is charged once ---------------------------------------------------------------------


@pytest.mark.req("B-03")
def test_a_round_is_charged_once_whatever_the_second_charge_says() -> None:
    history = read(LINES)
    for unit, event in (("client", SUM), ("record", STEPS), ("none", Unprotected())):
        with pytest.raises(RoundSpentError, match="round 2 of run 5252") as caught:
            history.draft(RUN, 2, unit, event, now=NOW)
        assert "new round" in caught.value.hint
    assert len(history) == 4
    history.take(history.draft(OTHER, 2, "client", SUM, now=NOW))
    assert history.has(OTHER, 2)
    assert not history.has(OTHER, 3)


@pytest.mark.req("B-03", "B-10")
def test_a_ledger_that_charges_a_round_twice_is_damaged() -> None:
    history = read(LINES)
    history._charged.discard((RUN, 2))
    line = history.draft(RUN, 2, "client", SUM, now=NOW)
    with pytest.raises(LedgerDamagedError, match="line 5 charges round 2 a second time"):
        read([*LINES, line])


@pytest.mark.parametrize(
    ("run_id", "round_id", "unit", "event", "now"),
    [
        (b"R", 9, "client", SUM, NOW),
        (RUN, -1, "client", SUM, NOW),
        (RUN, 2**53 + 1, "client", SUM, NOW),
        (RUN, 9, "client", SUM, -1.0),
        (RUN, 9, "client", SUM, math.nan),
        (RUN, 9, "site", SUM, NOW),
        (RUN, 9, "none", SUM, NOW),
        (RUN, 9, "client", Unprotected(), NOW),
        (RUN, 9, "record", Unprotected(), NOW),
    ],
)
def test_a_charge_out_of_range_is_a_bug_of_ours(
    run_id: bytes, round_id: int, unit: str, event: PrivacyEvent, now: float
) -> None:
    with pytest.raises(LocalProtocolError):
        History().draft(run_id, round_id, unit, event, now=now)


# --- writes that were cut off --------------------------------------------------------------------


@pytest.mark.req("B-05")
@given(st.binary(min_size=1, max_size=60).filter(lambda data: b"\n" not in data))
def test_whatever_a_cut_off_write_left_is_named_by_the_next_entry(fragment: bytes) -> None:
    history = read(LINES[:2])
    line = history.draft(RUN, 7, "client", SUM, now=NOW, fragment=fragment)
    assert line.startswith(fragment + CANCEL)
    assert history.take(line).torn == fragment_digest(fragment)
    for edited in (line[1:], b"x" + line, line[len(fragment) :], line[len(fragment) + 1 :]):
        with pytest.raises(LedgerDamagedError, match="line 3"):
            read([*LINES[:2], edited])


@pytest.mark.req("B-05")
def test_bytes_before_an_entry_that_names_none_are_damage() -> None:
    for before in (CANCEL, b"x" + CANCEL, LINES[2] + CANCEL):
        with pytest.raises(LedgerDamagedError, match="cut-off write"):
            read([*LINES[:2], before + LINES[2]])


# --- what it adds up to --------------------------------------------------------------------------


@pytest.mark.req("B-08")
def test_units_are_composed_on_their_own_over_all_runs() -> None:
    history = read(LINES)
    assert history.spent("record", DELTA) == 0
    charge(history, 10, "record", STEPS)
    charge(history, 11, "record", STEPS)
    history.take(history.draft(OTHER, 1, "client", SUM, now=NOW))
    assert history.spent("client", DELTA) == epsilon_of([SUM] * 5, DELTA)
    assert history.spent("client", 1e-7) == epsilon_of([SUM] * 5, 1e-7)
    assert history.spent("record", DELTA) == epsilon_of([STEPS] * 2, DELTA)
    assert history.spent("none", DELTA) == 0
    assert history.outside("client") == {"record": 2}
    assert history.outside("record") == {"client": 5}


@pytest.mark.req("B-09")
def test_a_round_without_noise_is_infinite_and_shown_beside_the_others() -> None:
    history = read(LINES)
    before = history.spent("client", DELTA)
    charge(history, 10, "none", Unprotected())
    assert history.spent("none", DELTA) == math.inf
    assert history.spent("client", DELTA) == before
    assert history.outside("client") == {"none": 1}
    assert history.outside("record") == {"client": 4, "none": 1}
    assert history.would_overspend("none", Unprotected(), delta=DELTA, budget=1e9)


@pytest.mark.req("B-08")
def test_a_dry_run_says_what_the_charge_will_say_and_charges_nothing() -> None:
    history = read(LINES)
    spent, after = history.spent("client", DELTA), history.spent_with("client", SUM, DELTA)
    assert spent < after == epsilon_of([SUM] * 5, DELTA)
    assert not history.would_overspend("client", SUM, delta=DELTA, budget=after)
    assert history.would_overspend("client", SUM, delta=DELTA, budget=math.nextafter(after, 0))
    assert history.would_overspend("client", SUM, delta=DELTA, budget=math.nan)
    assert len(history) == 4
    assert history.spent("client", DELTA) == spent
    assert history.remaining("client", DELTA, after) == after - spent
    assert history.remaining("client", DELTA, spent / 2) == 0
    charge(history, 10, "client", SUM)
    assert history.spent("client", DELTA) == after


@pytest.mark.req("B-08")
def test_ten_thousand_equal_rounds_reach_the_accountant_as_one_event_and_a_count() -> None:
    history, asked = History(), []
    for round_id in range(10_000):
        charge(history, round_id, "client", SUM)

    def ask(events: Mapping[PrivacyEvent, int], delta: float) -> float:
        asked.append(dict(events))
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secagg.dp.ledger.epsilon_of", ask)
        history.spent("client", DELTA)
        history.spent_with("client", SUM, DELTA)
    assert asked == [{SUM: 10_000}, {SUM: 10_001}]
    assert history.rounds("client") == 10_000


# --- receipts ------------------------------------------------------------------------------------

SIGNER = TestSigner("plant-a")


@pytest.mark.req("B-07")
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_receipt_of_the_ledger_or_of_its_past_agrees_with_it(count: int) -> None:
    receipt = make_receipt(SIGNER, read(LINES[:count]))
    data = receipt.to_bytes()
    assert len(data) <= MAX_RECEIPT <= 256
    assert Receipt.from_bytes(data, sender="hub") == receipt
    assert (receipt.node, receipt.count) == ("plant-a", count)
    check_receipt(read(LINES), receipt, "plant-a", SIGNER.public)
    assert receipt.signature.hex() not in repr(receipt)


@pytest.mark.req("B-07")
def test_a_ledger_that_was_set_back_or_forked_does_not_match_its_receipt() -> None:
    receipt = make_receipt(SIGNER, read(LINES))
    for count in range(4):
        with pytest.raises(LedgerSetBackError, match=f"has {count} entries.* saw 4") as caught:
            check_receipt(read(LINES[:count]), receipt, "plant-a", SIGNER.public)
        assert "newest whole copy" in caught.value.hint
    forked = read(LINES[:3])
    for round_id in (8, 9):
        charge(forked, round_id, "client", SUM)
    with pytest.raises(LedgerSetBackError, match="another history"):
        check_receipt(forked, receipt, "plant-a", SIGNER.public)


@pytest.mark.req("B-11")
def test_a_receipt_that_we_did_not_sign_shows_nothing() -> None:
    history = read(LINES)
    receipt = make_receipt(SIGNER, history)
    with pytest.raises(AuthenticationError):
        check_receipt(history, receipt, "plant-a", TestSigner("plant-b").public)
    with pytest.raises(AuthenticationError, match="receipt of plant-a"):
        check_receipt(history, receipt, "plant-b", SIGNER.public)
    data = receipt.to_bytes()
    for place in range(len(data)):
        edited = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((AuthenticationError, DecodeError)):
            check_receipt(
                history, Receipt.from_bytes(edited, sender="hub"), "plant-a", SIGNER.public
            )


@given(st.binary(max_size=200))
def test_bytes_that_are_no_receipt_are_blamed_on_their_sender(data: bytes) -> None:
    for whole in (data, bytes([len(data) % 64]) + b"a" * (len(data) % 64 + 104)):
        try:
            receipt = Receipt.from_bytes(whole, sender="hub")
        except DecodeError:
            continue
        assert receipt.to_bytes() == whole


def test_the_errors_are_for_the_operator_to_mend() -> None:
    for kind in (LedgerDamagedError, LedgerSetBackError, RoundSpentError):
        assert issubclass(kind, ConfigError)
