"""The table of schemes and the default quorum."""

import pytest

from secagg.errors import ConfigError
from secagg.schemes import SCHEMES, default_quorum, scheme_named


def test_schemes_are_found_by_name() -> None:
    for name, scheme in SCHEMES.items():
        assert scheme_named(name) is scheme
        assert scheme.name == name


def test_an_unknown_scheme_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        scheme_named("rot13")
    assert "masking" in caught.value.hint


def test_only_the_insecure_scheme_is_not_private() -> None:
    assert [name for name, scheme in SCHEMES.items() if not scheme.private] == ["insecure-plain"]


@pytest.mark.req("M-03")
@pytest.mark.parametrize("n", range(3, 200))
def test_two_quorums_share_an_honest_signer(n: int) -> None:
    """With c < n/3 colluders, two sets of q signers overlap in more than c nodes."""
    quorum, colluders = default_quorum(n), -(-n // 3) - 1
    assert 2 * quorum - n > colluders
    assert n - quorum >= n // 3 or n == 3  # n/3 dropouts leave a quorum
    assert quorum > n // 2
    assert quorum >= 3  # below, a contributor could subtract itself from the sum
