"""The table of schemes."""

import pytest

from secagg.errors import ConfigError
from secagg.schemes import SCHEMES, scheme_named


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
