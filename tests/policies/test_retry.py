"""Which errors are meant: what may be said, and how it is shown. The refusals are in `tests/test_bad_input.py`."""

from functools import partial

import pytest

from funcpipe_trio._base.errors import CircuitOpen
from funcpipe_trio.policies.retry import Backoff, Retry, error_filter, filter_name, needs_seed


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


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry(2), True),
        (Retry(9, backoff=Backoff(jitter=1)), True),
        (Retry(1), False),
        (Retry(2, backoff=Backoff(seed=0)), False),
        (Retry(2, backoff=Backoff(jitter=0)), False),
    ],
)
def test_a_seed_is_needed_by_waits_that_vary_and_have_none(retry, expected):
    """Not where there is no wait, nor jitter; a seed of 0 is one."""
    assert needs_seed(retry) is expected


def test_without_a_second_attempt_nothing_is_said_of_waits():
    assert Retry(1).describe() == "up to 1 attempts on Exception"
