"""Turns: a bounded number at a time, in order, each ending after its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secagg.uploads import Turns
from secagg.wire.messages import UPLOAD_SLOTS

NODES = [f"node-{index:02d}" for index in range(2 * UPLOAD_SLOTS + 1)]


def expecting(*nodes: str, seconds: float = 10.0) -> Turns:
    turns = Turns(seconds)
    turns.expect(nodes)
    return turns


def test_no_more_turns_are_open_than_slots_and_they_go_in_order() -> None:
    turns = expecting(*NODES)
    assert turns.deadline is None
    assert turns.grant(0.0) == NODES[:UPLOAD_SLOTS]
    assert turns.grant(1.0) == []
    assert turns.deadline == 10.0
    turns.end(NODES[3])
    assert turns.grant(5.0) == [NODES[UPLOAD_SLOTS]]
    assert [turns.has(node) for node in NODES[:5]] == [True, True, True, False, True]


def test_a_turn_ends_when_its_own_time_is_up() -> None:
    turns = expecting(*NODES)
    turns.grant(0.0)
    turns.end(NODES[0])
    late = turns.grant(4.0)
    assert turns.expired(10.0) == tuple(NODES[1:UPLOAD_SLOTS])
    assert turns.has(late[0])


def test_a_timeout_before_any_deadline_ends_the_oldest_turns() -> None:
    """Called early, by a clock that runs slow, it still gets on."""
    turns = expecting(*NODES)
    turns.grant(0.0)
    assert turns.expired(3.0) == tuple(NODES[:UPLOAD_SLOTS])


def test_nothing_is_expired_where_nothing_is_open() -> None:
    assert expecting().expired(99.0) == ()
    assert expecting(*NODES).expired(99.0) == ()


def test_a_node_that_is_gone_does_not_get_its_turn() -> None:
    turns = expecting("a", "b", "c")
    turns.end("b")
    turns.end("stranger")
    assert turns.grant(0.0) == ["a", "c"]
    assert not turns.has("b")


@given(st.lists(st.tuples(st.sampled_from(["end", "grant", "expire"]), st.integers(0, 16))))
def test_every_node_gets_one_turn_at_most_and_slots_are_never_exceeded(
    actions: list[tuple[str, int]],
) -> None:
    turns, now, granted = expecting(*NODES), 0.0, []
    for action, index in actions:
        now += 1.0
        if action == "grant":
            granted += turns.grant(now)
        elif action == "end":
            turns.end(NODES[index])
        else:
            for node in turns.expired(now):
                turns.end(node)
        assert sum(map(turns.has, NODES)) <= UPLOAD_SLOTS
    assert granted == sorted(set(granted))
