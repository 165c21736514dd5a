"""MessagePack and the message table, a second time, from specs/20-wire.md; nothing of `secagg`.

The table of section 2 is read as it stands in the specification and used as the decoder's grammar.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["MalformedError", "decode", "encode", "number_of", "table"]

SPECIFICATION: Final = Path(__file__).parents[2] / "specs" / "20-wire.md"
MAX_FRAME: Final = 1 << 23
ROW: Final = re.compile(r"^\| `0x([0-9a-f]{2})` \| (\w+) \| (.*) \|$", re.MULTILINE)
Check = Callable[[Any], bool]


class MalformedError(Exception):
    """The bytes are no message in canonical form."""


# --- MessagePack, the types that messages need ----------------------------------------------------


def encode(value: object) -> bytes:
    """Return the one encoding of nested lists of int, bytes, str, bool, float and None."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _encode_int(value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case bytes():
            return _header(len(value), (0xC4, 0xC5, 0xC6)) + value
        case str():
            raw = value.encode()
            fixed = bytes([0xA0 | len(raw)]) if len(raw) < 32 else b""
            return (fixed or _header(len(raw), (0xD9, 0xDA, 0xDB))) + raw
        case list() | tuple():
            fixed = bytes([0x90 | len(value)]) if len(value) < 16 else b""
            head = fixed or _header(len(value), (0, 0xDC, 0xDD))
            return head + b"".join(map(encode, value))
    raise TypeError(value)


def _encode_int(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    if -32 <= value < 0:
        return bytes([0x100 + value])
    for code, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if 0 <= value < 1 << (8 * size):
            return bytes([code]) + value.to_bytes(size, "big")
        if -(1 << (8 * size - 1)) <= value < 0:
            return bytes([code + 4]) + value.to_bytes(size, "big", signed=True)
    raise ValueError(value)


def _header(length: int, codes: tuple[int, int, int]) -> bytes:
    for code, size in zip(codes, (1, 2, 4), strict=True):
        if code and length < 1 << (8 * size):
            return bytes([code]) + length.to_bytes(size, "big")
    raise ValueError(length)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise MalformedError("truncated")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int = 0) -> object:
        if depth > 4:
            raise MalformedError("too deep")
        code = self.number(1)
        if code < 0x80:
            return code
        if code == 0xC0:
            return None
        if code in (0xC2, 0xC3):
            return code == 0xC3
        if code == 0xCB:
            return struct.unpack(">d", self.take(8))[0]
        if 0xCC <= code <= 0xCF:
            return self.number(1 << (code - 0xCC))
        if code >= 0xE0:
            return code - 0x100
        if 0xD0 <= code <= 0xD3:
            return int.from_bytes(self.take(1 << (code - 0xD0)), "big", signed=True)
        if 0xC4 <= code <= 0xC6:
            return self.take(self.number(1 << (code - 0xC4)))
        if 0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB:
            size = code & 31 if code < 0xC0 else self.number(1 << (code - 0xD9))
            return self._text(size)
        if 0x90 <= code < 0xA0 or code in (0xDC, 0xDD):
            size = code & 15 if code < 0xA0 else self.number(2 << (code - 0xDC))
            if size > self.left:
                raise MalformedError("truncated")
            return [self.value(depth + 1) for _ in range(size)]
        raise MalformedError(f"code {code:#x}")

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise MalformedError("no UTF-8") from None


# --- the message table ----------------------------------------------------------------------------


@functools.cache
def table() -> dict[int, tuple[str, tuple[Check, ...]]]:
    """Return type number to name and one check for each field."""
    rows = ROW.findall(SPECIFICATION.read_text(encoding="utf-8"))
    return {
        int(number, 16): (
            name,
            tuple(_grammar(field.partition(": ")[2]) for field in fields.split("; ")),
        )
        for number, name, fields in rows
    }


def number_of(name: str) -> int:
    """Return the type number of a message's name."""
    return next(number for number, (known, _) in table().items() if known == name)


def decode(data: bytes) -> list[Any]:
    """Return [type number, field, …].

    Raises:
        MalformedError: it is not exactly one message in canonical form (W-02 to W-04).
    """
    if len(data) > MAX_FRAME:
        raise MalformedError("longer than a frame")
    reader = _Reader(data)
    message = reader.value()
    if reader.left or not _is_message(message) or encode(message) != data:
        raise MalformedError("not canonical, or followed by more")
    assert isinstance(message, list)
    return message


def _is_message(value: object, name: str = "") -> bool:
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        return False
    known, checks = table().get(value[0], ("", ()))
    if not known or (name and known != name) or len(value) != 1 + len(checks):
        return False
    return all(check(field) for check, field in zip(checks, value[1:], strict=True))


def _grammar(words: str) -> Check:
    """Return the check that one field's column says."""
    if words.endswith(" or nil"):
        given = _grammar(words.removesuffix(" or nil"))
        return lambda value: value is None or given(value)
    if words == "bool":
        return lambda value: isinstance(value, bool)
    if words == "float":
        return lambda value: isinstance(value, float)
    if found := re.fullmatch(r"float over (\S+) to (\S+)", words):
        low, high = map(float, found.groups())
        return lambda value: isinstance(value, float) and low < value <= high
    if found := re.fullmatch(r"float (\S+) to (\S+)", words):
        low, high = map(float, found.groups())
        return lambda value: isinstance(value, float) and low <= value <= high
    if found := re.fullmatch(r"int (\S+) to (\S+)", words):
        least, most = map(_number, found.groups())
        return lambda value: type(value) is int and least <= value <= most
    if found := re.fullmatch(r"text ≤ (\S+)", words):
        longest = _number(found[1])
        return lambda value: isinstance(value, str) and len(value) <= longest
    if found := re.fullmatch(r"(?:(\S+) to )?(\S+) B", words):
        largest = _number(found[2])
        smallest = _number(found[1]) if found[1] else largest
        return lambda value: isinstance(value, bytes) and smallest <= len(value) <= largest
    if found := re.fullmatch(r"≤ (\S+) × (.*)", words):
        count, item = _number(found[1]), _grammar(found[2])
        return lambda value: (
            isinstance(value, list) and len(value) <= count and all(map(item, value))
        )
    if found := re.fullmatch(r"\((.*)\)", words):
        parts = [_grammar(part) for part in _split(found[1])]
        return lambda value: (
            isinstance(value, list) and len(value) == len(parts) and all(_fit(parts, value))
        )
    if re.fullmatch(r"[A-Z]\w+", words):
        return lambda value: _is_message(value, words)
    raise ValueError(words)


def _split(words: str) -> list[str]:
    """Return what the commas outside of brackets separate."""
    parts = [""]
    for piece in re.split(r"(, )", words):
        if piece == ", " and parts[-1].count("(") == parts[-1].count(")"):
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _fit(checks: list[Check], values: list[Any]) -> Iterator[bool]:
    return (check(value) for check, value in zip(checks, values, strict=True))


def _number(words: str) -> int:
    base, _, power = words.partition("^")
    return int(int(base) ** int(power or 1))
