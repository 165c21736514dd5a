"""Domain-separation tags."""

import pytest

from secagg import tags
from secagg.version import PROTOCOL_VERSION


@pytest.mark.req("W-09")
def test_no_tag_is_a_prefix_of_another_and_all_name_the_version() -> None:
    values = [getattr(tags, name) for name in tags.__all__]
    for value in values:
        assert value.startswith(f"secagg/v{PROTOCOL_VERSION}/".encode())
        assert value.endswith(b"\0")
        assert value.count(b"\0") == 1
        assert sum(other.startswith(value) for other in values) == 1


@pytest.mark.req("W-09")
def test_no_tag_is_one_of_those_reserved_for_keys() -> None:
    """specs/70-keys.md K-05 reserves what begins with `secagg.keys.`."""
    assert not [name for name in tags.__all__ if getattr(tags, name).startswith(b"secagg.keys.")]
