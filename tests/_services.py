"""Services that calls can be too many for: what happens to a call, by how many are there when it begins?

Each is a discrete-event object that knows no loop: `begin(now)` says how long a call takes, and whether it succeeds,
and `end` that it is over. `calling` makes an async function of one, for a pipeline in virtual time; `played` makes
calls without any loop, as a pool does whose source never ends, and is many times as fast.

    Saturating  `servers` work at once, each call for `seconds`; the others wait in a queue
    Slowing     beyond `knee` calls at once each takes longer, by the square of how many times as many they are, or
                another power of it
    Failing     beyond `most` calls at once each fails, after `refused_after` seconds
    Refusing    the same, but what is being refused is at work as well: then one call too many, all the time, makes
                all of them fail
    Unlucky     each call fails with a probability, however many there are
    degrading   a `Saturating` one that has a third of its servers from `worse` to `better`
"""

import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

import trio


class Overloaded(Exception):
    """Too many calls: what a real service says as 429 or 503."""


class Service:
    """What all have: how long a call takes by itself, times what `draw` gives for it (1 without)."""

    def __init__(self, seconds=0.1, draw=None, seed=0):
        self.seconds, self.calls = seconds, 0
        self.draw, self.random = draw, Random(seed)

    def alone(self):
        return self.seconds * (1.0 if self.draw is None else self.draw(self.random))

    def begin(self, now):
        self.calls += 1
        return self.alone(), True

    def end(self):
        self.calls -= 1


class Saturating(Service):
    def __init__(self, servers=20, *args, **rest):
        super().__init__(*args, **rest)
        self.servers, self.free = servers, []  # when each server is free again

    def servers_at(self, now):
        return self.servers

    def begin(self, now):
        super().begin(now)
        servers = self.servers_at(now)
        while len(self.free) < servers:
            heapq.heappush(self.free, now)
        while len(self.free) > servers:
            heapq.heappop(self.free)
        done = max(now, heapq.heappop(self.free)) + self.alone()
        heapq.heappush(self.free, done)
        return done - now, True


class Degrading(Saturating):
    def __init__(self, servers=21, *args, worse=30.0, better=60.0, **rest):
        super().__init__(servers, *args, **rest)
        self.worse, self.better, self.since = worse, better, None

    def servers_at(self, now):
        self.since = now if self.since is None else self.since
        return self.servers // 3 if self.worse <= now - self.since < self.better else self.servers


class Slowing(Service):
    def __init__(self, knee=10, *args, power=2, **rest):
        super().__init__(*args, **rest)
        self.knee, self.power = knee, power

    def begin(self, now):
        seconds, _ = super().begin(now)
        return seconds * max(1.0, self.calls / self.knee) ** self.power, True


class Failing(Service):
    def __init__(self, most=12, *args, refused_after=0.02, **rest):
        super().__init__(*args, **rest)
        self.most, self.refused_after, self.refused = most, refused_after, []

    def begin(self, now):
        """What is refused takes no place of those that are not."""
        self.refused = [each for each in self.refused if each > now]
        seconds, _ = super().begin(now)
        if self.calls - len(self.refused) > self.most:
            self.refused.append(now + self.refused_after)
            return self.refused_after, False
        return seconds, True


class Refusing(Service):
    def __init__(self, most=10, *args, refused_after=0.1, down=(0.0, 0.0), **rest):
        super().__init__(*args, **rest)
        self.most, self.refused_after, self.down = most, refused_after, down

    def begin(self, now):
        seconds, _ = super().begin(now)
        if self.calls > self.most or self.down[0] <= now < self.down[1]:
            return self.refused_after, False
        return seconds, True


class Unlucky(Service):
    def __init__(self, part, *args, **rest):
        super().__init__(*args, **rest)
        self.part = part

    def begin(self, now):
        seconds, _ = super().begin(now)
        return seconds, self.random.random() >= self.part


SERVICES: dict[str, Callable[[], Any]] = {
    "saturates": Saturating,
    "slows down": Slowing,
    "fails": Failing,
    "degrades": Degrading,
}
DRAWS = {
    "steady": None,
    "exponential": lambda random: random.expovariate(1.0),
    "of two kinds": lambda random: 0.5 if random.random() < 0.9 else 5.5,
}
"""What the time of a call is multiplied by; 1 in the mean."""


def calling(service: Any) -> Callable[[Any], Awaitable[Any]]:
    """Return an async function that calls a service, and gives its item back."""

    async def call(item):
        seconds, succeeds = service.begin(trio.current_time())
        try:
            await trio.sleep(seconds)
        finally:
            service.end()
        if not succeeds:
            raise Overloaded
        return item

    return call


@dataclass
class Trace:
    """What happened to the calls of one run."""

    answered: list  # when each call got its answer
    failed: list  # when each failed
    limits: list  # pairs of a time and the limit from then on, the first at 0

    def rate(self, start, end):
        """Return the answers a second in a time."""
        return sum(start <= each < end for each in self.answered) / (end - start)

    def range(self, start, end):
        """Return the lowest and the highest limit in a time."""
        inside = [limit for at, limit in self.limits if start <= at < end]
        before = [limit for at, limit in self.limits if at < start][-1:]
        return min(before + inside), max(before + inside)


@dataclass
class Again:
    """What becomes of a call that failed: it is made again after a wait, until it succeeds."""

    wait: float  # seconds
    elsewhere: int = 0  # so many of them do not wait in their place


def played(service, limit, until, again=None):
    """Make calls until a time, as many at once as a machine says, or a fixed number of them."""
    adapts = not isinstance(limit, int)
    trace, events, now, numbers = Trace([], [], [(0.0, limit.limit if adapts else limit)]), [], 0.0, count()
    places, absent, asking = 0, 0, 0  # in use; items that wait without one; those of them that ask for one

    def begin(is_first):
        seconds, succeeds = service.begin(now)
        heapq.heappush(events, (now + seconds, next(numbers), "ends", seconds, succeeds, is_first))

    while now < until:
        while places < trace.limits[-1][1]:
            begin(is_first=not asking)
            places, asking = places + 1, max(0, asking - 1)
        now, _, what, seconds, succeeds, is_first = heapq.heappop(events)
        if what == "waited":
            begin(is_first=False)
        elif what == "asks":
            absent, asking = absent - 1, asking + 1
        else:
            known = seconds if is_first else None  # another attempt has waited
            if adapts and (limit.ended(known, places, now) if succeeds else limit.failed(places, now, now - seconds)):
                trace.limits.append((now, limit.limit))
            service.end()
            (trace.answered if succeeds else trace.failed).append(now)
            if succeeds or again is None:
                places -= 1
            elif absent + asking < again.elsewhere:
                places, absent = places - 1, absent + 1
                heapq.heappush(events, (now + again.wait, next(numbers), "asks", 0.0, True, False))
            else:
                heapq.heappush(events, (now + again.wait, next(numbers), "waited", 0.0, True, False))
    return trace


def best_fixed(make: Callable[[], Any], maximum: int = 64, until: float = 12.0) -> tuple[float, int]:
    """Return the most answers a second that a fixed number of calls gets, and that number; all are tried."""
    rates = {number: played(make(), number, until).rate(2.0, until) for number in range(1, maximum + 1)}
    best = max(rates, key=rates.get)
    return rates[best], best
