"""A mistake in the program is no failure of an item: it passes every policy, and the primary error is what is raised.

Mutants that die here: a policy that handles it, alone or in a group; a hedge that goes on calling; a call of the other
step, a further attempt, or an item that is skipped, emitted or diverted.
"""

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    MisuseError,
    OnError,
    Pipeline,
    Retry,
    StateError,
    Step,
    merge,
)
from funcpipe_trio._base.errors import is_misuse
from funcpipe_trio.testing import run_virtual


async def primary(item):
    await trio.lowlevel.checkpoint()
    return item


def outside(step):
    """Return an async function that calls a started step outside of its block."""
    return step.start()


def raising(error):
    async def call(item):
        await trio.lowlevel.checkpoint()
        raise error

    return call


async def grouped(item):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outside(Step(primary).hedge(1)), item)


async def unawaitable(item):
    await Step(lambda _: 3)(item)


MISUSES = {
    "hedge outside of its block": lambda: outside(Step(primary).hedge(1)),
    "coalesce outside of its block": lambda: outside(Step(primary).coalesce(str)),
    "using outside of its block": lambda: outside(Step(lambda resource, item: primary(item)).using(primary)),
    "inside of other steps": lambda: outside(Step(outside(Step(primary).hedge(1).timeout(9))).timeout(9)),
    "in a group": lambda: grouped,
    "a step whose result is not awaitable": lambda: unawaitable,
    "a state error of the run": lambda: raising(StateError("drained from within")),
    "a misuse": lambda: raising(MisuseError("an awaitable")),
    "deep in groups": lambda: raising(ExceptionGroup("", [ValueError(), ExceptionGroup("", [StateError("")])])),
}
AROUND = {
    "fallback": lambda step, instead: step.fallback(Step(instead)),
    "retry": lambda step, instead: step.retry(Retry(5, on=Exception, backoff=Backoff(7))),
    "hedge": lambda step, instead: step.hedge(1),
    "fallback behind more": lambda step, instead: step.timeout(60).hedge(1).fallback(Step(instead)).coalesce(str),
}
ON_ERROR = {
    "skip": lambda instead: OnError.skip(),
    "emit": lambda instead: OnError.emit(),
    "divert": lambda instead: OnError.divert(Step(instead)),
}


def outcome_of(main, *args):
    """Return what it raises, when, and what was called instead; None if nothing was raised."""
    instead = []

    async def other(item):
        instead.append(item)
        await trio.lowlevel.checkpoint()

    async def timed():
        try:
            await main(other, *args)
        except Exception as error:
            return error, trio.current_time(), instead
        return None, trio.current_time(), instead

    return run_virtual(timed)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("misuse", MISUSES)
def test_it_passes_every_policy_around_a_call(misuse, around):
    async def main(instead):
        step = AROUND[around](Step(MISUSES[misuse](), name="ask"), instead)
        async with step.start() as call:
            await call(1)

    error, when, instead = outcome_of(main)
    assert is_misuse(error)
    assert (when, instead) == (0, [])


@pytest.mark.parametrize("on_error", ON_ERROR)
@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize(
    "how", [{"concurrency": 2}, {"concurrency": 2, "ordered": False}, {"key": str, "concurrency": 2}]
)
def test_it_ends_a_stream_whatever_is_said_of_errors(misuse, on_error, how):
    async def main(instead):
        policy = ON_ERROR[on_error](instead)
        await Pipeline.from_iterable(range(3)).map(MISUSES[misuse](), **how, on_error=policy).collect()

    error, when, instead = outcome_of(main)
    assert is_misuse(error)
    assert (when, instead) == (0, [])


@pytest.mark.parametrize("kind", [StateError, MisuseError])
def test_it_ends_a_stream_of_sync_functions_and_of_inputs(kind):
    def wrong(item):
        raise kind("wrong")

    numbers = Pipeline.from_iterable(range(3))
    for plan in (
        numbers.map(wrong, on_error=OnError.skip()),
        merge(numbers.map(wrong), numbers, on_error=OnError.skip()),
    ):

        async def main(_instead, plan=plan):
            await plan.collect()

        assert type(outcome_of(main)[0]) is kind


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("kind", [StateError, MisuseError])
def test_in_a_hedge_it_is_raised_at_once_whichever_call_makes_it(kind, further):
    """The other call is cancelled, and waited for."""
    calls, ended = [], []

    async def ask(item):
        number = len(calls)
        calls.append(item)
        if number == further:
            await trio.sleep(3)
            raise kind("wrong")
        try:
            await trio.sleep(60)
        finally:
            ended.append(trio.current_time())

    async def main(_instead):
        await Step(ask).hedge(2, most=3)(1)

    error, when, _ = outcome_of(main)
    assert type(error) is kind
    assert (when, ended, len(calls)) == (3 + 2 * further, [3 + 2 * further] * (1 + further), 2 + further)


def test_what_failed_before_in_a_hedge_is_the_context():
    calls = []

    async def ask(item):
        calls.append(item)
        if len(calls) == 1:
            await trio.sleep(3)
            raise ValueError(item)
        await trio.sleep(3)
        raise StateError("wrong")

    async def main(_instead):
        await Step(ask).hedge(2)(1)

    error, when, _ = outcome_of(main)
    assert (type(error), type(error.__context__), when) == (StateError, ValueError, 5)


def test_other_errors_are_no_misuse():
    for error in (ValueError(), TypeError(), ExceptionGroup("", [ValueError()]), RuntimeError(), KeyboardInterrupt()):
        assert not is_misuse(error)
