"""The error tree says who is at fault."""

import pytest

from secagg import errors


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
        assert issubclass(getattr(errors, name), errors.SecAggError)
    for kind in (errors.DecodeError, errors.AuthenticationError, errors.ReplayError):
        assert issubclass(kind, errors.RemoteProtocolError)


def test_a_remote_fault_names_the_peer() -> None:
    error = errors.DecodeError("node-1", "no message")
    assert error.peer == "node-1"
    assert str(error) == "node-1: no message"
    assert error.hint == ""


def test_hints_and_reasons_are_kept() -> None:
    assert errors.ConfigError("wrong", hint="do this").hint == "do this"
    assert errors.OfferRefused("code", "why", hint="h").reason == "code"
    aborted = errors.RoundAborted("too_few_keys", alive=2, needed=3)
    assert (aborted.reason, aborted.alive, aborted.needed) == ("too_few_keys", 2, 3)
    with pytest.raises(errors.SecAggError):
        raise aborted
