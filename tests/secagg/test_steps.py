"""Messages that are made as they are read."""

from collections.abc import Callable

from secagg.steps import Lazy


def counted(made: list[int], number: int) -> Callable[[], int]:
    def make() -> int:
        made.append(number)
        return number

    return make


def test_nothing_is_made_before_it_is_read() -> None:
    made: list[int] = []
    items = Lazy(counted(made, number) for number in range(5))
    tail = Lazy.chain(items[3:], (7,), items[:0])
    assert (len(items), len(tail), made) == (5, 3, [])
    assert items[-1] == 4
    assert made == [4]
    assert list(tail) == [3, 4, 7]
    assert made == [4, 3, 4]


def test_a_chain_of_nothing_is_empty_and_of_one_is_itself() -> None:
    assert not Lazy.chain((), ())
    one = (1, 2)
    assert Lazy.chain((), one) is one
