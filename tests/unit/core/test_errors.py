"""One page of errors, each of which can be caught as what a caller expects."""

import pytest

import apigate
from apigate import ApigateError, ConfigurationError, ProtocolError
from apigate.core import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_an_apigate_error_and_says_when_it_is_raised(kind):
    assert issubclass(kind, ApigateError)
    assert vars(kind)["__doc__"]


def test_errors_are_what_python_calls_them():
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ProtocolError, RuntimeError)


def test_a_store_error_says_what_was_being_done():
    error = errors.StoreError("acquire", "connection refused")
    assert str(error) == "acquire: connection refused"
    assert error.operation == "acquire"


def test_throttled_is_an_apigate_error_too():
    assert issubclass(apigate.Throttled, ApigateError)
