"""What floats leave undecided, decided exactly. Source: specs/51-sampler.md section 5."""

from __future__ import annotations

from fractions import Fraction

from secagg.dp.keystream import side_stream
from secagg.dp.laws import Law
from secagg.dp.tables import SCALE_BITS, UNIFORM_BITS, BlockTable

__all__ = ["Resolver", "Uniform"]

_WORD = 64


class Uniform:
    """A uniform real number of [0, 1) of which only the bits that were needed are known."""

    __slots__ = ("_stream", "bits", "known")

    def __init__(self, key: bytes, index: int, *, known: int = 0, bits: int = 0) -> None:
        self._stream = side_stream(key, index)
        self.known = known
        self.bits = bits

    def extend(self) -> None:
        """Draw 64 bits more."""
        self.known = self.known << _WORD | self.word()
        self.bits += _WORD

    def word(self) -> int:
        """Return 64 bits of the same stream that do not enter the number."""
        return int.from_bytes(self._stream(_WORD // 8), "little")


class Resolver:
    """Decides proposals exactly, whatever the precision that takes.

    Args:
        law: What is drawn.
        table: Its table.
        key: 32 bytes; proposal number i takes its further bits from `side_stream(key, i)`, so that
            which proposals come here changes nothing for the others (N-03).
    """

    __slots__ = ("_key", "_law", "_table")

    def __init__(self, law: Law, table: BlockTable, key: bytes) -> None:
        self._law = law
        self._table = table
        self._key = key

    def resolve(self, index: int, block: int, x: int, uniform: int) -> int | None:
        """Return the integer that a proposal gives, or None if it is rejected.

        Args:
            index: The proposal's number within its draw.
            block: Of the proposal.
            x: What is proposed; of no meaning for the tail.
            uniform: First 31 bits of the number that decides.
        """
        number = Uniform(self._key, index, known=uniform, bits=UNIFORM_BITS)
        # N-01: p(x) = C·F(x)/w, as a number and not as a float
        odds = Fraction(self._table.scale, self._table.weights[block] << SCALE_BITS)
        if block == self._table.blocks:
            x, halvings = self._in_the_tail(number)
            odds *= 1 << halvings
        return x if self.keeps(x, odds, number) else None

    def keeps(self, x: int, odds: Fraction, number: Uniform) -> bool:
        """Tell whether number < odds·F(x), at a precision that grows until it is certain (N-04).

        Args:
            x: Any integer.
            odds: With odds·F(x) in (0, 1].
            number: Extended as far as needed.
        """
        bits = _WORD
        while True:
            near = self._law.scaled(x, bits)  # 2^bits·F(x) lies within 1 of it
            left = number.known * odds.denominator << bits
            cell = odds.denominator << bits
            if left + cell <= (near - 1) * odds.numerator << number.bits:
                return True
            if left >= (near + 1) * odds.numerator << number.bits:
                return False
            number.extend()
            bits += _WORD

    def _in_the_tail(self, number: Uniform) -> tuple[int, int]:
        """Propose an integer beyond the blocks; return it and -log2 of its block's probability.

        A side is chosen, then the block i steps out with probability 2^-(i+1), then a place in it.
        """
        word = number.word()
        upper, word, bits = word & 1, word >> 1, _WORD - 1
        step = 0
        while True:
            if not bits:
                word, bits = number.word(), _WORD
            stop, word, bits = word & 1, word >> 1, bits - 1
            if stop:
                break
            step += 1
        place = number.word() & (self._table.width - 1)
        x = self._table.cut + step * self._table.width + place
        return (x if upper else -1 - x), step + 2
