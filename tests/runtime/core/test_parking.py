"""Parking by one message that is sent again and again does what trio's own way does.

All is sequenced, nothing waits for time. Each test runs in both ways: the message sent again, and as it must be with a
trio whose message carries more than the abort function.

Mutants that die here: a message that is sent again though it carries more; an outcome that serves once; an abort
function that is lost, or called for a task that was woken; a cancel that is lost since the task was woken before it.
"""

import types

import pytest
import trio
from trio.lowlevel import Abort, current_task, reschedule
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio._runtime.core import parking
from funcpipe_trio._runtime.core.parking import WOKEN, Parking


class _More:
    """What a trio of the future may send: not only the abort function."""

    def __init__(self, abort):
        self.abort_func, self.since = abort, object()


@types.coroutine
def _of_the_future(abort):
    yield _More(abort)


@pytest.fixture(params=["again", "each time"])
def place(request, monkeypatch):
    if request.param == "each time":
        monkeypatch.setattr(parking, "_MESSAGE", None)
    return Place()


class Place:
    """Where one task parks, as a stage does."""

    def __init__(self):
        self.task, self.aborts, self.scope = None, 0, None
        self.parking = Parking(self._abort)

    def _abort(self, _raise_cancel):
        self.task, self.aborts = None, self.aborts + 1
        return Abort.SUCCEEDED

    async def park(self):
        """Say whether it was cancelled."""
        self.task = current_task()
        with trio.CancelScope() as self.scope:
            assert await self.parking is None
        return self.scope.cancelled_caught

    async def park_often(self, times, parked):
        for _ in range(times):
            parked.append(await self.park())

    def wake(self):
        reschedule(self.task, WOKEN)


def test_with_this_trio_the_message_is_sent_again():
    """If this fails, all still works, but slower: look at what trio sends now."""
    assert parking._MESSAGE is not None


def test_a_message_that_carries_more_is_not(monkeypatch):
    monkeypatch.setattr(trio.lowlevel, "wait_task_rescheduled", _of_the_future)
    assert parking._message_type() is None


async def test_woken_as_often_as_one_likes(place):
    parked = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.park_often, 100, parked)
        for number in range(100):
            await wait_all_tasks_blocked()
            assert len(parked) == number
            place.wake()

    assert parked == [False] * 100
    assert place.aborts == 0


async def test_cancelled_and_woken_in_turn(place):
    parked = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.park_often, 6, parked)
        for number in range(6):
            await wait_all_tasks_blocked()
            place.wake() if number % 2 else place.scope.cancel()

    assert parked == [True, False] * 3
    assert place.aborts == 3


async def test_cancelled_before_it_parks(place):
    place.task = current_task()
    with trio.CancelScope() as scope:
        scope.cancel()
        await place.parking

    assert scope.cancelled_caught
    assert (place.task, place.aborts) == (None, 1)


async def test_woken_and_cancelled_at_once(place):
    """Woken first, it is awake, and meets the cancel where it waits next; cancelled first, nobody may wake it."""
    met = []

    async def park():
        with trio.CancelScope() as scope:
            place.task, place.scope = current_task(), scope
            await place.parking
            met.append(place.aborts)
            await place.parking
        met.append(place.aborts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(park)
        await wait_all_tasks_blocked()
        place.wake()
        place.scope.cancel()

    assert met == [0, 1]
    assert place.task is None


async def test_shielded_it_is_not_cancelled(place):
    async def park():
        with trio.CancelScope(shield=True):
            place.task = current_task()
            await place.parking

    async with trio.open_nursery() as nursery:
        nursery.start_soon(park)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        place.wake()

    assert place.aborts == 0


async def test_tools_that_show_stacks_see_where_it_waits(place):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.park)
        await wait_all_tasks_blocked()
        names = [frame.f_code.co_name for frame, _line in place.task.iter_await_frames()]
        place.wake()

    assert names[:2] == ["park", "__await__"]


def test_two_threads_may_run_at_once():
    """What tasks are woken with is one for all runs."""

    async def main():
        place = Place()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.park)
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(trio.run, _alone)
            place.wake()

    async def _alone():
        place = Place()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.park)
            await wait_all_tasks_blocked()
            place.wake()

    trio.run(main)
