"""The message table of the specification is the code, and messages are silent."""

from pathlib import Path

import pytest

from secagg.wire.messages import MESSAGE_TYPES, Message
from tests.support.messages import number_of, sample, table_row

SPEC = Path(__file__).parents[3] / "specs" / "20-wire.md"
KINDS = sorted(MESSAGE_TYPES, key=number_of)  # type: ignore[arg-type]


@pytest.mark.req("W-11")
def test_the_spec_table_is_the_code() -> None:
    text = SPEC.read_text(encoding="utf-8")
    written = [line for line in text.splitlines() if line.startswith("| `0x")]
    assert written == [table_row(kind) for kind in KINDS]  # type: ignore[arg-type]


@pytest.mark.req("W-11")
def test_type_numbers_are_distinct_and_every_type_is_in_the_union() -> None:
    numbers = [number_of(kind) for kind in KINDS]  # type: ignore[arg-type]
    assert len(set(numbers)) == len(numbers)
    assert set(Message.__args__) == set(MESSAGE_TYPES)


@pytest.mark.req("W-10")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_shows_its_name_only_and_does_not_change(kind: type[Message]) -> None:
    message = sample(kind)
    assert repr(message) == str(message) == f"<{kind.__name__}>"
    field = kind.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(message, field, 1)


@pytest.mark.req("W-10")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_messages_do_not_compare(kind: type[Message]) -> None:
    assert sample(kind) != sample(kind)
