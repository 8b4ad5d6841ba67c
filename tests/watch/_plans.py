"""Plans for what shows runs: a small one, a large one, and one whose names are hostile."""

import trio

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, Retry, Step, fair_merge

SECRET = "4111 1111 1111 1111"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'&\u202e\ud800\n"


class Busy(Exception):
    """What the service of the plans says now and then."""


async def call(number):
    """Answer a little later; fail for one in ten."""
    await trio.sleep(0.01)
    if number % 10 == 0:
        raise Busy(SECRET)
    return number


async def store(items):
    await trio.sleep(0.02)
    return items


def tenant(name, count):
    step = Step(call).retry(Retry(2, on=Busy)).rate_limit(RateLimit(200, burst=10))
    line = Pipeline.from_iterable(range(count), name=name)
    return line.map(step, concurrency=4, on_error=OnError.skip(), name=f"call {name}")


def small(count=10**9):
    """Three stages and a merge."""
    inputs = {"big": tenant("big", count), "small": tenant("small", count)}
    return fair_merge(inputs, FairShare({"big": 3}), name="tenants").batch(5, max_delay=0.1)


def large(count=10**9):
    """Some forty stages: a merge of merges of merges, and branches behind it."""

    def country(name):
        tenants = {f"t{number}": tenant(f"{name} {number}", count) for number in range(3)}
        return fair_merge(tenants, FairShare({"t0": 2}), name=f"country {name}").tap(store, name=f"check {name}")

    def region(name):
        return fair_merge({each: country(f"{name} {each}") for each in "abc"}, name=f"region {name}")

    world = fair_merge({"eu": region("eu"), "us": region("us")}, FairShare({"eu": 3}), name="world").batch(5)
    branches = {"store": lambda line: line.map(store, concurrency=2), "log": lambda line: line.buffer(4).map(store)}
    return world.broadcast(branches)


def hostile(count=10**9):
    """Every name means something to HTML, and the items are secrets."""
    line = Pipeline.from_iterable(range(count), name=HOSTILE).map(call, name=HOSTILE, on_error=OnError.skip())
    keyed = line.fair_by(lambda number: (SECRET, number % 2), FairShare({(SECRET, 1): 3}), max_keys=4, name=HOSTILE)
    merged = fair_merge({HOSTILE: keyed.map(store, name=HOSTILE), "b": line}, name=HOSTILE)
    return merged.broadcast({HOSTILE: lambda items: items.map(store, name=HOSTILE), "c": lambda items: items})
