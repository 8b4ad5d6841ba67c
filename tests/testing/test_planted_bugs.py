"""Bugs planted in the library one by one, and what of the kit catches each: a kit that stays green proves nothing.

Each bug is one that was made before, here or elsewhere. `CAUGHT` names it, plants it, and says which campaign must see
it, and in which words. The same campaigns pass without it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from funcpipe_trio import FairChannel, FairShare, Pipeline, fair_merge
from funcpipe_trio._runtime.core.ledger import Ledger
from funcpipe_trio._runtime.core.signals import BEHIND_FAILURE, PENDING
from funcpipe_trio._runtime.links.link import Link
from funcpipe_trio._runtime.pools import outcomes
from funcpipe_trio._runtime.pools.pool import Pool
from funcpipe_trio._runtime.run.engine import Engine
from funcpipe_trio._runtime.run.run import Run
from funcpipe_trio._runtime.run.run_context import RunContext
from funcpipe_trio._runtime.stages import chain
from funcpipe_trio._runtime.stages.chain import Chain
from funcpipe_trio._runtime.stages.sources import AsyncIterableSource, AsyncSource
from funcpipe_trio._runtime.stages.stage import Stage
from funcpipe_trio._sansio.fair_queue import FairQueue
from funcpipe_trio.testing import (
    CampaignError,
    Probe,
    Scenario,
    _trial,
    assert_fair,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    interrupt_everywhere,
    run_virtual,
)

# ---- what the campaigns are run over


async def numbers():
    for number in range(6):
        await trio.sleep(1)
        yield number


async def wait(item):
    await trio.sleep(item % 2)
    return item


def linear():
    numbered = Pipeline.from_iterable(range(12)).map(lambda x: x + 1)
    return numbered.buffer(2).filter(lambda x: x != 3).buffer(2).tap(print_).buffer(2)


def pooled():
    return Pipeline.from_async_iterable(numbers).buffer(2).map(wait, concurrency=2).buffer(2)


def ample():
    return Pipeline.from_iterable(range(50)).buffer(8)


def trickling():
    return Pipeline.from_async_iterable(numbers).buffer(2).tap(print_)


def cut_short():
    return Pipeline.from_async_iterable(numbers).buffer(1).map(wait, concurrency=2).take(2)


def print_(item):
    """See an item, and say nothing."""


async def two_then_leave(run, lab):
    async for _item in run:
        lab.delivered += 1
        if lab.delivered == 2:
            return


async def slowly(run, lab):
    async for _item in run:
        lab.delivered += 1
        await trio.sleep(2)


def merged():
    inputs = {key: Pipeline.from_iterable([key] * 40) for key in "ab"}
    return fair_merge(inputs, FairShare({"a": 3}, capacity=4))


async def fairly(run, lab):
    log = []
    async for item in run:
        lab.delivered += 1
        log.append(item)
    assert_fair(log[:50], {"a": 3, "b": 1})  # both have items until then


def failing():
    def seventh_fails(item):
        if item == 6:
            raise ValueError("seven")
        return item

    return Pipeline.from_iterable(range(9)).buffer(3).map(seventh_fails).buffer(4)


async def all_before_the_failure(run, lab):
    got = []
    with pytest.raises(ValueError, match=r"^seven\n"):
        async for item in run:
            lab.delivered += 1
            got.append(item)
            await trio.sleep(1)
    assert got == [0, 1, 2, 3, 4, 5], f"the failure came after {got}"


LINEAR = Scenario(linear, name="LINEAR")
SLOW = Scenario(linear, slowly, name="SLOW")
LEAVING = Scenario(linear, two_then_leave, name="LEAVING")
AMPLE = Scenario(ample, two_then_leave, name="AMPLE")
TRICKLING = Scenario(trickling, name="TRICKLING")
POOLED = Scenario(pooled, name="POOLED")
CUT_SHORT = Scenario(cut_short, name="CUT_SHORT")
FAIR = Scenario(merged, fairly, name="FAIR")
FAILING = Scenario(failing, all_before_the_failure, name="FAILING")


# ---- the bugs


def lose_what_was_received(patch):
    """A checkpoint between taking an item and returning it."""
    receive = Run.receive

    async def late(self):
        item = await receive(self)
        await trio.lowlevel.checkpoint()
        return item

    patch.setattr(Run, "receive", late)


def forget_to_close_async(patch):
    async def nothing(self):
        pass

    patch.setattr(AsyncIterableSource, "close_source", nothing)


def forget_to_close_sync(patch):
    patch.setattr(Chain, "close_stream", lambda self, stream: None)


def close_in_another_task(patch):
    async def elsewhere(self):
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            if self._iterator is not None:
                nursery.start_soon(self._iterator.aclose)

    patch.setattr(AsyncIterableSource, "close_source", elsewhere)


def swallow_cancelled_in_a_worker(patch):
    serve = Pool.serve

    async def swallowing(self, worker, item):
        try:
            await serve(self, worker, item)
        except BaseException:
            self.put_down(worker)

    patch.setattr(Pool, "serve", swallowing)


def let_links_grow(patch):
    patch.setattr(Link, "room", lambda self: 10**6)


def stop_only_the_last_link(patch):
    def close(self, reason):
        if self.closed is None and not self.exhausted:
            self.closed = reason
            self._discard_buffer(reason)

    patch.setattr(Link, "close", close)


def take_turns(patch):
    """Round robin, which is first come first served among inputs that always have something."""
    add = FairQueue.add
    patch.setattr(FairQueue, "add", lambda self, key, weight: add(self, key, 1))


def lose_a_wake_up(patch):
    """A stage that starves hears of one item only, however often it starves."""
    on_input = Stage.on_input
    heard = set()

    def once(self):
        if self not in heard:
            on_input(self)
            if self.parked_for is None:
                heard.add(self)

    patch.setattr(Stage, "on_input", once)


def forget_to_give_room_back(patch):
    patch.setattr(Link, "release", lambda self, *, parking=False: None)


def spin(patch):
    """Look again and again instead of parking."""

    async def look_again(self):
        await self.breathe()

    patch.setattr(Stage, "wait_input", look_again)
    patch.setattr(_trial, "LIVELOCK", 20_000)  # the same sooner


def drop_the_last_of_a_burst(patch):
    commit = Link.commit

    def short(self, count):
        if count == self.capacity:
            self.buffer.pop()
            count -= 1
        commit(self, count)

    patch.setattr(Link, "commit", short)


def own_an_item_twice(patch):
    """Remove an item from the link when the next one is asked for, and not when it is handed over."""

    def items(self):
        while True:
            while self.buffer:
                yield self.buffer[0]
                if self.buffer:
                    self.buffer.popleft()
            if self.ended or self.closed is not None:
                self.exhausted = self.closed is None
                return
            yield PENDING

    patch.setattr(Link, "items", items)


def deliver_twice(patch):
    items = Link.items

    def stuttering(self):
        for number, item in enumerate(items(self)):
            yield item
            if number == 2 and item is not PENDING:
                yield item

    patch.setattr(Link, "items", stuttering)


def keep_a_discard_to_oneself(patch):
    def discard(self, item, stage, reason):
        self.discarded += 1

    patch.setattr(Ledger, "discard", discard)


def clear_the_buffer(patch):
    patch.setattr(Link, "_discard_buffer", lambda self, reason: self.buffer.clear())


def overtake(patch):
    """An error that does not wait behind the items of its link."""
    finish = Link.finish

    def at_once(self, failure):
        if failure is not None:
            self._discard_buffer(BEHIND_FAILURE)
        finish(self, failure)

    patch.setattr(Link, "finish", at_once)


def wrap_the_error(patch):
    def wrapped(error, name, number):
        outer = RuntimeError(f"stage {name} failed")
        outer.__cause__ = error
        return outer

    patch.setattr(chain, "noted", wrapped)
    patch.setattr(outcomes, "noted", wrapped)


def lose_the_error(patch):
    """An error that ends the stream as if it were its end."""
    finish = Link.finish
    patch.setattr(Link, "finish", lambda self, failure: finish(self, None))


def swallow_interrupts(patch):
    leave = RunContext.__aexit__

    async def quiet(self, kind, error, traceback):
        await leave(self, kind, error, traceback)
        return isinstance(error, KeyboardInterrupt)

    patch.setattr(RunContext, "__aexit__", quiet)


def drain_by_stopping(patch):
    patch.setattr(AsyncSource, "drain", lambda self: self.stop("drained"))


def linger(patch):
    """Much to do, still, when all should be over."""
    main = Stage.main

    async def at_leisure(self):
        try:
            await main(self)
        finally:
            for _ in range(100):
                await trio.lowlevel.cancel_shielded_checkpoint()

    patch.setattr(Stage, "main", at_leisure)


def claim_completion(patch):
    finish = Engine.finish

    def proud(self, *, cancelled):
        finish(self, cancelled=cancelled)
        self.outcome = "completed"

    patch.setattr(Engine, "finish", proud)


@dataclass(frozen=True)
class Caught:
    plant: Callable[[pytest.MonkeyPatch], None]
    campaign: Callable[..., Any]
    scenario: Scenario
    telling: str


FEW = range(5)

CAUGHT = [
    Caught(lose_what_was_received, cancel_everywhere, LINEAR, r"delivered: \d+, the report says: \d+"),
    Caught(forget_to_close_async, explore_schedules, CUT_SHORT, r"1 sources were opened, 0 closed"),
    Caught(forget_to_close_sync, explore_schedules, LEAVING, r"1 sources were opened, 0 closed"),
    Caught(close_in_another_task, explore_schedules, CUT_SHORT, r"1 sources were opened, 0 closed"),
    Caught(swallow_cancelled_in_a_worker, cancel_everywhere, POOLED, r"in stage 'wait': \d+, came out of it: \d+"),
    Caught(let_links_grow, explore_schedules, SLOW, r"\d+ items in flight, above the bound of \d+"),
    Caught(stop_only_the_last_link, explore_schedules, AMPLE, r"deadlock: every task waits for another"),
    Caught(take_turns, explore_schedules, FAIR, r"inputs 'a' and 'b': lag [\d.]+ is above the bound 1\.33"),
    Caught(lose_a_wake_up, explore_schedules, SLOW, r"deadlock: every task waits for another"),
    Caught(forget_to_give_room_back, explore_schedules, LINEAR, r"deadlock: every task waits for another"),
    Caught(spin, explore_schedules, TRICKLING, r"livelock: 20000 steps and no time has passed"),
    Caught(drop_the_last_of_a_burst, explore_schedules, LINEAR, r"\d+ items in flight, above the bound of \d+"),
    Caught(own_an_item_twice, explore_schedules, LEAVING, r"taken: \d+, accounted for: \d+"),
    Caught(deliver_twice, explore_schedules, LINEAR, r"taken: \d+, accounted for: \d+"),
    Caught(keep_a_discard_to_oneself, explore_schedules, LEAVING, r"items discarded: 0, the report says: \d+"),
    Caught(clear_the_buffer, explore_schedules, LEAVING, r"taken: \d+, accounted for: \d+"),
    Caught(overtake, explore_schedules, FAILING, r"the failure came after \[.*\]"),
    Caught(wrap_the_error, fail_everywhere, LINEAR, r"the run raised RuntimeError.*, not the error of user code"),
    Caught(lose_the_error, fail_everywhere, LINEAR, r"neither raised the error of user code nor kept it"),
    Caught(swallow_interrupts, interrupt_everywhere, LINEAR, r"KeyboardInterrupt did not arrive, but None"),
    Caught(drain_by_stopping, drain_everywhere, POOLED, r"raised Aborted"),
    Caught(linger, cancel_everywhere, LINEAR, r"\d+ steps from the cancellation to the end, above \d+"),
    Caught(claim_completion, cancel_everywhere, POOLED, r"the run says it is complete, but discarded \d+ items"),
]


def put_through(caught, **how):
    if caught.campaign is explore_schedules:
        how.setdefault("seeds", FEW)
    return caught.campaign(caught.scenario, **how)


every_bug = pytest.mark.parametrize("caught", CAUGHT, ids=lambda caught: caught.plant.__name__)


@every_bug
def test_a_planted_bug_is_caught(caught, monkeypatch):
    """The campaign that is there for it fails, and says what is wrong."""
    caught.plant(monkeypatch)

    with pytest.raises(CampaignError, match=caught.telling):
        put_through(caught)


@pytest.mark.parametrize(
    "caught",
    [one for one in CAUGHT if one.plant in (lose_what_was_received, lose_the_error, clear_the_buffer)],
    ids=lambda caught: caught.plant.__name__,
)
def test_the_message_replays_a_planted_bug(caught, monkeypatch):
    """What `only=` runs is the very trial that failed; without the bug it passes."""
    with monkeypatch.context() as patch:
        caught.plant(patch)
        with pytest.raises(CampaignError, match=caught.telling) as first:
            put_through(caught)
        found = re.search(r"only=\((\d+), (\d+)\)", str(first.value))
        only = int(found[1]), int(found[2])
        with pytest.raises(CampaignError, match=r"after 0 good runs") as again:
            put_through(caught, only=only)

    problem = [str(error.value).partition("good runs")[2] for error in (first, again)]
    assert problem[0] == problem[1]
    assert put_through(caught, only=only).runs == 1


@pytest.mark.parametrize(
    ("campaign", "scenario"),
    dict.fromkeys((caught.campaign, caught.scenario) for caught in CAUGHT),
    ids=lambda value: getattr(value, "__name__", None) or value.name,
)
def test_without_a_bug_the_same_campaigns_pass(campaign, scenario):
    """So it is the bug that they see."""
    campaign(scenario, **({"seeds": FEW} if campaign is explore_schedules else {}))


# ---- bugs of fairness that only a certain history of inputs shows


def forget_debts(patch):
    """A flow that is away for an instant starts level."""
    ready = FairQueue.ready

    def level(self, flow):
        if not flow._entry:
            flow._tag = self._now
        ready(self, flow)

    patch.setattr(FairQueue, "ready", level)


def give_credit_for_idling(patch):
    """A flow that was away catches up."""

    def ready(self, flow):
        if not flow._entry:
            self.backlogged += 1
            self._enter(flow)

    patch.setattr(FairQueue, "ready", ready)


def serve(channel, log, backlog):
    """Receive, and note whose item it was, and who had one."""
    backlog.append({each.key for each in channel.statistics().inputs if each.buffered})
    log.append(channel.receive_nowait())


def flapping():
    """A heavy input that brings its next item only after the last one was taken, and is away in between."""
    channel = FairChannel(FairShare(cost={"heavy": 10, "light": 1}.get))
    heavy, light = channel.open_input("heavy"), channel.open_input("light")
    heavy.send_nowait("heavy")
    light.send_nowait("light")
    log, backlog = [], []
    for _ in range(40):
        serve(channel, log, backlog)
        {"heavy": heavy, "light": light}[log[-1]].send_nowait(log[-1])
    assert_fair(log, {"heavy": 1, "light": 1}, backlog, [{"heavy": 10, "light": 1}[key] for key in log])


def idling():
    """An input that comes after the other was served alone for long."""
    channel = FairChannel(FairShare(capacity=100))
    busy, idle = channel.open_input("busy"), channel.open_input("idle")
    for _ in range(80):
        busy.send_nowait("busy")
    log, backlog = [], []
    for number in range(70):
        serve(channel, log, backlog)
        if number == 30:
            for _ in range(40):
                idle.send_nowait("idle")
    assert_fair(log, {"busy": 1, "idle": 1}, backlog)


@pytest.mark.parametrize(
    ("plant", "history", "telling"),
    [
        (forget_debts, flapping, r"^inputs 'heavy' and 'light': lag \d+ is above the bound 11$"),
        (give_credit_for_idling, idling, r"^inputs 'busy' and 'idle': lag \d+ is above the bound 1$"),
    ],
)
def test_an_unfair_queue_is_caught(plant, history, telling, monkeypatch):
    """`assert_fair` holds what was served against the bound; a fair queue passes on the same history."""
    history()
    plant(monkeypatch)

    with pytest.raises(AssertionError, match=telling):
        history()


def test_a_probe_sees_a_failure_that_overtakes(monkeypatch):
    """Step by step, the log shows what came before the error."""

    async def main():
        async with Probe(failing()) as probe:
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1)
            await probe.expect(0, 1, 2, 3, 4, 5, at=1)
            await probe.expect_error(ValueError)

    run_virtual(main)
    overtake(monkeypatch)

    with pytest.raises(ValueError, match=r"^seven\n"):
        run_virtual(main)


def test_a_deadlock_outside_of_a_campaign_ends_too(monkeypatch):
    """`run_virtual` says which tasks wait, and where."""
    forget_to_give_room_back(monkeypatch)

    with pytest.raises(AssertionError, match=r"(?s)^run_virtual: not done .*iterable.*: park, line \d+"):
        run_virtual(linear().collect)
