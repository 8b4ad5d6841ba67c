"""Tokens do not lie there while a call could have them: whoever may start by the rules does, whatever woke it.

Between events nobody runs, so a call that may start only because time has passed must have said when to ask again. Each
program here is looked at every 1/16 s, with all tasks at rest: is there a first call of a line that may start, and does
not? Once may be (at the instant at which a window has just let another one go); twice in a row it was forgotten.

Mutants that die here: a call that stands back for one that stands back itself, and does not ask when it might pass it;
that does not hear that the one it stands back for has now another in front; that relies on the one all wait for, which
by the shares comes after it.
"""

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import FairShare, RateLimit, RateLimiter, RollingLimit, Step
from funcpipe_trio._runtime.calls import token_queue
from funcpipe_trio._runtime.calls.limiter_keys import shared_of
from funcpipe_trio._sansio.token_claims import may_start
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

LIMITS = [RateLimit(2, burst=2), RateLimit(1, burst=3), RollingLimit(2, per=2)]
SHARES = FairShare({"a": 3, "b": 2})
TICK = 1 / 16


def may_go(line, now):
    """Whether the first call of a line may start by the rules."""
    first = line.first
    if first is None or first.owed is not None:
        return False
    older = [] if line._is_alone() else line._older(first)
    while True:
        answer = line._turn_before(older, now) or may_start(now, first.claim, [each.claim for each in older])
        if answer is None or isinstance(answer, float):
            return answer is None
        other = next(each for each in older if each.claim is answer)
        if not token_queue._closes_circle(first, other):
            return False
        older.remove(other)


class Program:
    """Calls of random sets of three limits, some of which are paused or get other weights meanwhile."""

    def __init__(self, seed, *, has_shares):
        self.dice = random.Random(seed)
        self.limiters = [
            RateLimiter(each, SHARES if has_shares and self.dice.random() < 0.5 else None) for each in LIMITS
        ]
        self.forgotten = []  # when calls lay forgotten
        self.is_over = False

    async def run(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.look)
            async with trio.open_nursery() as calls:
                calls.start_soon(self.change)
                for _ in range(self.dice.randint(2, 30)):
                    calls.start_soon(self.call, *self.drawn())
            self.is_over = True

    def drawn(self):
        numbers = tuple(self.dice.sample(range(3), self.dice.randint(1, 3)))
        patience = self.dice.choice([float("inf"), float("inf"), self.dice.randint(0, 90) / 8])
        what = self.dice.choice("abcd"), self.dice.choice([1, 1, 1, 2])
        return numbers, what, self.dice.randint(0, 60) / 8, patience

    async def call(self, numbers, what, comes, patience):
        needs = [self.limiters[number] for number in numbers]
        step = Step(start).rate_limit(*needs, key=lambda item: item[0], cost=lambda item: item[1])
        await trio.sleep(comes)
        with trio.move_on_after(patience):
            await step.start()(what)

    async def change(self):
        for _ in range(self.dice.randint(0, 4)):
            await trio.sleep(self.dice.randint(1, 30) / 8)
            limiter = self.dice.choice(self.limiters)
            if self.dice.random() < 0.5:
                limiter.pause(self.dice.randint(1, 16) / 8)
            elif shared_of(limiter).top is not None:
                limiter.set_weight(self.dice.choice("abcd"), self.dice.randint(1, 5))

    async def look(self):
        still = set()
        while not self.is_over:
            await wait_all_tasks_blocked()
            lines = {line: None for limiter in self.limiters for line in shared_of(limiter).lines}
            idle = {line for line in lines if may_go(line, trio.current_time())}
            if idle & still:
                self.forgotten.append(trio.current_time())
            still = idle
            await trio.sleep(TICK)


async def start(_item):
    await trio.lowlevel.checkpoint()


def forgotten(seed, *, has_shares):
    """Return when calls of a random program lay forgotten."""
    program = Program(seed, has_shares=has_shares)
    with scheduled(Schedule(seed)):
        run_virtual(program.run)
    return program.forgotten


# Programs in which a call was forgotten, before one of the mutants above died.
FOUND = [(5, True), (108, True), (125, False), (155, False), (202, False), (233, False), (701, True), (718, True)]


@pytest.mark.parametrize(("seed", "has_shares"), [*FOUND, *((seed, seed % 2 == 0) for seed in range(1000, 1020))])
def test_no_call_is_forgotten(seed, has_shares):
    assert forgotten(seed, has_shares=has_shares) == []
