"""P13a: keys that wait for a limiter share it by weight, and the limit is kept, whoever floods, dies or comes back.

Tenants of weights 3:1:1 call one server through one limiter: steps of pipelines, a started step, and plain trio code.
One floods it; one dies, cancelled or by an error of its source, and comes back; weights change while all wait. The
judge knows the server's log only: who asked for a call, who gave up, which call started, at what cost. It says

- what any two tenants got by weight, over every interval in which a call of each waited, differs by at most one call
  of each;
- the calls of one tenant that need the same start in the order in which they were asked for;
- in every window the calls are within the limit; and while somebody waits, no token and no place lies idle.

Mutants that die here: first come, first served; a share that counts calls where they cost more; a weight that counts
only for keys that come later; a key that keeps credit for the time in which it was passed over; a tenant that dies and
takes tokens with it; a limiter that keeps a part for those who do not wait; lines with other limits beside that pass
each other when trio runs them first, when one can use what another cannot use yet, or when one stands back for another
that has been served in the meantime.
"""

from collections import Counter, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import combinations, islice
from random import Random

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, PlaceLimiter, RateLimit, RateLimiter, RollingLimit, Step
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

from .test_p12_rate import most_in_any_window
from .test_p12a_rolling import most_in_any_window as most_in_any_rolling_window

WEIGHTS = {"acme": 3, "bolt": 1, "cozy": 1}


# ---- the server, and its log


@dataclass(frozen=True)
class Request:
    tenant: str
    number: int
    cost: int


class Boom(Exception):
    """What a dying tenant raises."""


class Server:
    """Writes down what it sees, in the order in which it happens."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.log = []  # (what, tenant, number or weight, cost, when); what: asks, gives up, starts, ends, weight
        self.weights = dict(WEIGHTS)

    def note(self, what, request):
        self.log.append((what, request.tenant, request.number, request.cost, trio.current_time()))

    def reweigh(self, tenant, weight):
        self.log.append(("weight", tenant, weight, 0, trio.current_time()))

    def asked(self, request):
        """Return whose share a call takes, which is asked for when it begins to wait."""
        self.note("asks", request)
        return request.tenant

    async def call(self, request):
        self.note("starts", request)
        try:
            if self.seconds:
                await trio.sleep(self.seconds * (1 + request.number % 3))
        finally:
            self.note("ends", request)

    async def watched(self, call, request):
        """Make a call, and write down if it ends before it has started."""
        try:
            await call(request)
        except BaseException:
            if not any(event[:3] == ("starts", request.tenant, request.number) for event in reversed(self.log)):
                self.note("gives up", request)
            raise


# ---- the judge


def worst_share(log, weights=WEIGHTS):
    """Return the most by which two tenants that both waited differ, as a part of what the promise allows: at most 1."""
    worst = Fraction(0)
    dearest = Counter()
    for _, tenant, _, cost, _ in log:
        dearest[tenant] = max(dearest[tenant], cost)
    for pair in combinations(sorted(weights), 2):
        now, waits, got, lowest, highest = dict(weights), Counter(), Fraction(0), Fraction(0), Fraction(0)
        for what, tenant, number, cost, _ in log:
            if tenant not in pair:
                continue
            sign = 1 if tenant == pair[0] else -1
            if what == "starts" and all(waits[each] for each in pair):
                got += sign * Fraction(cost) / now[tenant]
                lowest, highest = min(lowest, got), max(highest, got)
                worst = max(worst, (highest - lowest) / sum(Fraction(dearest[each]) / now[each] for each in pair))
            if what == "asks":
                waits[tenant] += 1
            if what in ("starts", "gives up"):
                waits[tenant] -= 1
            if what == "weight":
                now[tenant] = number
            if what == "weight" or not all(waits[each] for each in pair):  # a new interval begins
                got = lowest = highest = Fraction(0)
    return worst


def assert_in_order(log):
    """The calls of a tenant start in the order in which they were asked for."""
    waiting = defaultdict(deque)
    for what, tenant, number, _, _ in log:
        if what == "asks":
            waiting[tenant].append(number)
        elif what == "gives up":
            waiting[tenant].remove(number)
        elif what == "starts":
            assert waiting[tenant].popleft() == number


def starts(log):
    return [(when, cost) for what, _, _, cost, when in log if what == "starts"]


def test_the_judge_sees_a_share_that_is_not_one():
    """First come, first served, three by three; by weight; and an interval ends when one does not wait."""

    def log(order):
        asks = [("asks", tenant, number, 1, 0.0) for tenant in WEIGHTS for number in range(100)]
        return [*asks, *(("starts", tenant, 0, 1, 0.0) for tenant in order)]

    assert worst_share(log(["acme", "bolt", "cozy"] * 4)) > 1
    assert worst_share(log(["acme", "acme", "bolt", "cozy", "acme"] * 10)) <= 1
    assert worst_share([*log([])[:100], *(("starts", "acme", 0, 1, 0.0),) * 50]) <= 1


# ---- tenants


def requests(tenant, seed, most_cost, first=0):
    dice = Random(f"{tenant} {seed}")
    number = first
    while True:
        yield Request(tenant, number, dice.randint(1, most_cost))
        number += 1


def dying(items, after):
    """Yield some items, and fail."""
    for _, item in zip(range(after), items, strict=False):
        yield item
    raise Boom


async def pipeline(server, call, items, at_once):
    """Make calls in a pipeline; its failures are its own."""
    with suppress(Boom):
        await Pipeline.from_iterable(items).map(partial(server.watched, call), concurrency=at_once, ordered=False).run()


async def plain(server, acquire, items, at_once):
    """Make calls in plain trio code."""

    async def client():
        for item in items:
            await server.watched(acquire, item)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(client)


# ---- what is shared

WIDE = RateLimit(1000, burst=1000)
"""With it a step stands in another line than plain code, and is never held up."""


class Bucket:
    limit = RateLimit(8, burst=3)
    most_cost = 3
    least = 3 + 8 * 20 - 3  # what it gives in twenty seconds; less than the next call needs may be left

    def __init__(self, share):
        self.limiter = RateLimiter(self.limit, share)

    def step(self, server):
        return Step(server.call).rate_limit(self.limiter, WIDE, key=server.asked, cost=lambda request: request.cost)

    async def alone(self, server, request):
        await self.limiter.acquire(request.cost, server.asked(request))
        await server.call(request)

    def judge(self, log):
        assert most_in_any_window(starts(log), self.limit) <= self.limit.burst


class Window(Bucket):
    limit = RollingLimit(8, per=1)
    least = 20 * (8 - 2)  # in each second; likewise

    def judge(self, log):
        assert most_in_any_rolling_window(starts(log), self.limit.per) <= self.limit.n


class AtOnce:
    most_cost = 1
    least = 0

    def __init__(self, share):
        self.limiter = PlaceLimiter(4, share)

    def step(self, server):
        return Step(server.call).places(self.limiter, key=server.asked).rate_limit(WIDE)

    async def alone(self, server, request):
        async with self.limiter.hold(server.asked(request)):
            await server.call(request)

    def judge(self, log):
        held, since = 0, 0.0
        for what, _, _, _, when in log:
            assert held == 4 or when == since, "one floods, so no place is ever free"
            held, since = held + {"starts": 1, "ends": -1}.get(what, 0), when
            assert held <= 4


def play(kind, seed):
    """Run the tenants for twenty seconds, under one schedule; return the server's log, and the limiter's counts."""
    server = Server(0.375 if kind is AtOnce else 0.0)
    dice = Random(seed)
    die, back, fall, again = sorted(dice.uniform(2, 16) for _ in range(4))

    async def main():
        shared = kind(FairShare(WEIGHTS))
        call = shared.step(server).start()

        async def weights():
            for tenant, weight in (("acme", 1), ("bolt", Fraction(5, 2)), ("cozy", 7), ("acme", 4), ("bolt", 1)):
                await trio.sleep(dice.uniform(1, 4))
                server.reweigh(tenant, weight)
                shared.limiter.set_weight(tenant, weight)

        async def cozy():
            with trio.move_on_at(die):
                await pipeline(server, call, requests("cozy", seed, kind.most_cost), 6)
            await trio.sleep_until(back)
            with trio.move_on_at(fall):
                await pipeline(server, call, dying(requests("cozy", seed, kind.most_cost, 1000), 30), 9)
            await trio.sleep_until(again)
            await plain(server, partial(shared.alone, server), requests("cozy", seed, kind.most_cost, 2000), 5)

        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipeline, server, call, requests("acme", seed, kind.most_cost), 8)
                nursery.start_soon(pipeline, server, call, requests("bolt", seed, kind.most_cost), 60)  # floods
                nursery.start_soon(cozy)
                nursery.start_soon(weights)
        return shared, shared.limiter.statistics()

    with scheduled(Schedule(seed)):
        return server.log, *run_virtual(main)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Bucket, Window, AtOnce])
def test_tenants_share_a_limiter_by_weight_whatever_they_do(kind, seed):
    """One floods, one dies twice and comes back, weights change: as the server sees it."""
    log, shared, statistics = play(kind, seed)

    assert worst_share(log) <= 1
    assert_in_order(log)
    shared.judge(log)
    assert statistics.acquired == len(starts(log)) and statistics.tasks_waiting == 0
    got = Counter()
    for what, tenant, _, cost, _ in log:
        got[tenant] += cost * (what == "starts")
    assert min(got.values()) > 10, "each of them was served, dead or not"
    assert sum(got.values()) >= kind.least, "no token was left lying"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", [Bucket, Window, AtOnce])
def test_tenants_share_by_weight_also_in_many_lines(kind, seed):
    """Each client has a step of its own, with another limit beside that holds up nobody; or it is plain code."""
    server, dice = Server(0.375 if kind is AtOnce else 0.0), Random(seed)
    tenants = [tenant for tenant in WEIGHTS for _ in range(dice.randint(1, 6))]

    async def main():
        shared = kind(FairShare(WEIGHTS))
        async with trio.open_nursery() as nursery:
            for number, tenant in enumerate(tenants):
                items = list(islice(requests(tenant, seed, kind.most_cost, 1000 * number), dice.randint(5, 30)))
                call = shared.step(server).start() if dice.random() < 0.8 else partial(shared.alone, server)
                nursery.start_soon(plain, server, call, items, 1)

    with scheduled(Schedule(seed)):
        run_virtual(main)
    assert worst_share(server.log) <= 1


def test_a_line_goes_on_when_what_others_took_changed_whose_turn_it_is():
    """A call that takes of two limiters is charged at both; at the second one another key is first from then on."""
    log = []

    async def call(request):
        log.append((request.tenant, request.number, trio.current_time()))

    def limited(*limiters):
        return Step(call).rate_limit(*limiters, key=lambda each: each.tenant, cost=lambda each: each.cost).start()

    async def main():
        first, second = (RateLimiter(RollingLimit(3, per=1), FairShare()) for _ in range(2))
        alone, both = limited(second), limited(first, second)
        await second.acquire(2, "other")
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for use, tenant, number, cost in ((alone, "acme", 1, 2), (alone, "bolt", 1, 2), (both, "acme", 2, 1)):
                    nursery.start_soon(use, Request(tenant, number, cost))
                    await trio.sleep(0.125)

    run_virtual(main)

    assert log == [("acme", 2, 0.25), ("bolt", 1, 1), ("acme", 1, 2)]
