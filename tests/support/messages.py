"""Every message type: one sample, a hypothesis strategy, and its row in specs/20-wire.md.

All three are read from the type's own annotations, so a new message is covered from the start.
"""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from secagg.wire.messages import MESSAGE_TYPES, Message

_MAX_TEST_LENGTH = 4  # strings, bytes and lists are drawn no longer than their minimum plus this


def number_of(kind: type[Message]) -> int:
    """Return the type number."""
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def sample(kind: type[Message]) -> Message:
    """Return the message with the least value of every field."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return _least(info)  # type: ignore[return-value]


def _least(info: inspect.Type) -> object:
    match info:
        case inspect.UnionType() if _optional(info):
            return None
        case inspect.StructType():
            return info.cls(**{field.name: _least(field.type) for field in info.fields})
        case inspect.BoolType():
            return False
        case inspect.IntType():
            return info.ge
        case inspect.FloatType():
            return 1.0
        case inspect.StrType():
            return ""
        case inspect.BytesType():
            return bytes(info.min_length or 0)
        case inspect.VarTupleType():
            return ()
    raise TypeError(info)


def _optional(info: inspect.UnionType) -> inspect.Type | None:
    """Return T of `T | None`; None for another union."""
    others = [each for each in info.types if not isinstance(each, inspect.NoneType)]
    return others[0] if len(others) == 1 and len(info.types) == 2 else None


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Return a strategy for valid messages of one type."""
    return _values(inspect.type_info(kind))  # type: ignore[return-value]


any_message: st.SearchStrategy[Message] = st.sampled_from(MESSAGE_TYPES).flatmap(messages)  # type: ignore[arg-type]


def _values(info: inspect.Type) -> st.SearchStrategy[object]:
    match info:
        case inspect.UnionType() if inner := _optional(info):
            return st.none() | _values(inner)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(info.ge, _most(info))
        case inspect.FloatType():
            return st.floats(
                info.ge if info.gt is None else info.gt,
                info.le,
                exclude_min=info.gt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case inspect.StrType():
            return st.text(max_size=min(info.max_length or 0, 8))
        case inspect.BytesType():
            least = info.min_length or 0
            most = least if info.max_length == least else least + _MAX_TEST_LENGTH
            return st.binary(min_size=least, max_size=most)
        case inspect.VarTupleType():
            return st.lists(_values(info.item_type), max_size=_MAX_TEST_LENGTH).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(_values, info.item_types))
        case inspect.StructType():
            fields = {field.name: _values(field.type) for field in info.fields}
            return st.fixed_dictionaries(fields).map(lambda values: info.cls(**values))
    raise TypeError(info)


def table_row(kind: type[Message]) -> str:
    """Return the row of the message table in specs/20-wire.md."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    fields = "; ".join(f"{field.name}: {_limits(field.type)}" for field in info.fields)
    return f"| `0x{number_of(kind):02x}` | {kind.__name__} | {fields} |"


def _limits(info: inspect.Type) -> str:
    match info:
        case inspect.UnionType() if inner := _optional(info):
            return f"{_limits(inner)} or nil"
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return f"int {_number(info.ge)} to {_number(_most(info))}"
        case inspect.FloatType():
            if info.le is None:
                return "float"
            return (
                f"float over {info.gt:g} to {info.le:g}"
                if info.ge is None
                else (f"float {info.ge:g} to {info.le:g}")
            )
        case inspect.StrType():
            return f"text ≤ {info.max_length}"
        case inspect.BytesType():
            if info.min_length == info.max_length:
                return f"{info.min_length} B"
            return f"{info.min_length or 0} to {_number(info.max_length)} B"
        case inspect.VarTupleType():
            return f"≤ {info.max_length} × {_limits(info.item_type)}"
        case inspect.TupleType():
            return "(" + ", ".join(map(_limits, info.item_types)) + ")"
        case inspect.StructType() if info.tag is None:  # no message: it has no row of its own
            return "(" + ", ".join(_limits(field.type) for field in info.fields) + ")"
        case inspect.StructType():
            return info.cls.__name__
    raise TypeError(info)


def _most(info: inspect.IntType) -> int | None:
    return info.le if info.lt is None else info.lt - 1


def _number(value: int | None) -> str:
    assert value is not None
    is_power = value > 1 << 10 and value.bit_count() == 1
    return f"2^{value.bit_length() - 1}" if is_power else str(value)


def changed(message: Message, **fields: object) -> Message:
    """Return `message` with other fields."""
    return msgspec.structs.replace(message, **fields)
