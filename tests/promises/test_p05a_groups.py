"""P5a: a policy that names errors means a group of them, too. Mutants that die here:

- a policy (of the three) that looks at the outer type only; one that means a group for one of its leaves;
- a group that is opened, or changed, on its way to the caller.
"""

import pytest
import trio

from funcpipe_trio import Backoff, CircuitBreaker, CircuitOpen, OnError, Pipeline, Retry, Step
from funcpipe_trio.testing import run_virtual

NOW = Backoff(0)


class Refused(OSError):
    """A kind of OSError."""


def with_nurseries(depth, *errors):
    """Make a function that counts its calls and fails within so many nurseries."""
    calls = []

    async def fail(error):
        raise error

    async def call(number):
        calls.append(number)

        async def within(left):
            async with trio.open_nursery() as nursery:
                for error in errors if left == 1 else ():
                    nursery.start_soon(fail, error)
                if left > 1:
                    nursery.start_soon(within, left - 1)

        await within(depth)

    return call, calls


def retried(call, on):
    return Pipeline.from_iterable([0]).map(Step(call).retry(Retry(3, on, NOW)))


def restarted(call, on):
    async def feed():
        await call(0)
        yield 0

    return Pipeline.restarting(feed, Retry(3, on, NOW), reset_after=60)


def broken(call, on):
    breaker = CircuitBreaker(failures=3, reset_after=60, on=on)
    step = Step(call).circuit_breaker(breaker)
    return Pipeline.from_iterable(range(5)).map(step, on_error=OnError.skip())


def calls_of(make, on, depth, *errors):
    call, calls = with_nurseries(depth, *errors)

    async def main():
        try:
            await make(call, on).run()
        except ExceptionGroup as group:
            return group
        return None

    return run_virtual(main), len(calls)


USERS = [(retried, 3, 1), (restarted, 3, 1), (broken, 3, 5)]


@pytest.mark.parametrize(("make", "meant", "other"), USERS)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("on", [OSError, (OSError, ValueError), Exception])
def test_a_group_is_meant_if_all_its_leaves_are(make, meant, other, depth, on):
    assert calls_of(make, on, depth, OSError(), Refused())[1] == meant


@pytest.mark.parametrize(("make", "meant", "other"), USERS)
@pytest.mark.parametrize("on", [OSError, (OSError, ValueError)])
def test_one_leaf_of_another_kind_makes_it_another_error(make, meant, other, on):
    assert calls_of(make, on, 2, OSError(), KeyError())[1] == other


@pytest.mark.parametrize(("make", "meant", "other"), USERS)
def test_a_predicate_gets_the_group_as_it_is(make, meant, other):
    seen = []

    def on(error):
        seen.append(type(error))
        return False

    assert calls_of(make, on, 1, OSError())[1] == other
    assert set(seen) == {ExceptionGroup}


@pytest.mark.parametrize("make", [retried, restarted])
def test_what_is_raised_in_the_end_is_the_group_itself(make):
    error = OSError()
    group, _ = calls_of(make, OSError, 1, error)

    assert [each is error for each in group.exceptions] == [True]
    assert "attempt 3 of 3" in "".join(group.__notes__)


@pytest.mark.parametrize("make", [retried, restarted])
@pytest.mark.parametrize(("on", "calls"), [(Exception, 1), (OSError, 1), ((OSError, CircuitOpen), 3)])
def test_an_open_circuit_in_a_group_is_retried_only_if_it_is_named(make, on, calls):
    assert calls_of(make, on, 2, OSError(), CircuitOpen("open"))[1] == calls
