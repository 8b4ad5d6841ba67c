"""P10: a timeout of the user's stays the user's; what happens at the instant of a deadline counts as too late.

Mutants that die here: `except TooSlowError` that takes the user's for ours; a cancel scope around a call that eats it.
"""

import pytest
import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import run_virtual


@pytest.mark.parametrize("kind", [trio.TooSlowError, TimeoutError])
def test_a_timeout_that_user_code_raises_is_the_error(kind):
    """The same object, from a pool, a batch with a deadline, and a source's cleanup limit around it."""
    error = kind("mine")

    async def call(item):
        await trio.sleep(1)
        raise error

    async def main():
        with pytest.raises(kind) as caught:
            await Pipeline.from_iterable([1]).map(call).batch(2, max_delay=1).collect()
        return caught.value

    assert run_virtual(main) is error


def test_a_scope_of_the_user_inside_a_call_ends_that_call_only():
    """`move_on_after` in user code: the stream goes on with what it answers."""

    async def call(item):
        with trio.move_on_after(1):
            await trio.sleep(item)
            return "in time"
        return "too late"

    async def main():
        return await Pipeline.from_iterable([0.5, 1, 2]).map(call, concurrency=3).collect()

    assert run_virtual(main) == ["in time", "too late", "too late"]


def test_a_receive_given_up_by_a_deadline_loses_nothing():
    """A deadline at the very instant an item comes: it is received now or next time, never neither."""

    async def source():
        for number in range(20):
            await trio.sleep(1)
            yield number

    async def main():
        items = []
        async with Pipeline.from_async_iterable(source).open() as run:
            while len(items) < 20:
                with trio.move_on_after(1):
                    items.append(await run.receive())
        return items

    assert run_virtual(main) == list(range(20))
