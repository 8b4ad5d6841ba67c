"""Which errors are meant: what may be said, and how it is shown. The refusals are in `tests/test_bad_input.py`."""

from functools import partial

import pytest

from funcpipe_trio._base.errors import CircuitOpen
from funcpipe_trio.policies.retry import Backoff, Retry, error_filter, filter_name


def is_meant(error):
    return True


class Meant:
    def __call__(self, error):
        return True


@pytest.mark.parametrize(
    ("meant", "name"),
    [
        (Exception, "Exception"),
        (CircuitOpen, "CircuitOpen"),
        (ExceptionGroup, "ExceptionGroup"),
        ((OSError,), "OSError"),
        ((OSError, KeyError, CircuitOpen), "OSError or KeyError or CircuitOpen"),
        (is_meant, "is_meant"),
        (partial(is_meant), "is_meant"),
        (Meant(), "Meant"),
        (lambda error: True, "<lambda>"),
    ],
)
def test_errors_are_named_by_a_type_by_several_or_by_a_predicate(meant, name):
    error_filter("Retry", "on", meant)

    assert Retry(on=meant).on is meant
    assert filter_name(meant) == name


@pytest.mark.parametrize("policy", [Backoff(0, 1, 0, 0), Backoff(1e300, 1e300, 1e300, 1, -(2**80))])
def test_the_bounds_themselves_are_allowed(policy):
    assert isinstance(policy, Backoff)


def test_without_a_second_attempt_nothing_is_said_of_waits():
    assert Retry(1).describe() == "up to 1 attempts on Exception"
