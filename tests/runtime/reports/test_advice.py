"""What would help: each rule by a program that calls for it, and each estimate by doing what is advised.

Mutants that die here: a rule that comes before one that says more; an estimate that forgets another limit, or the
pauses; a number that is promised where the law does not hold; advice where nothing is sure.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Report,
    Retry,
    Run,
    Step,
    fair_merge,
    threads,
)
from funcpipe_trio.testing import run_virtual

ITEMS = 600


def takes(name: str, seconds: Callable[[Any], float] | float) -> Any:
    """Make an async function that takes some time for an item."""

    async def call(item: Any) -> Any:
        await trio.sleep(seconds(item) if callable(seconds) else seconds)
        return item

    call.__name__ = name
    return call


def varied(item: Any) -> float:
    """Return 0.5 to 1.5 s, by the item, in no order."""
    return 0.5 + (item * 7919 % 101) / 100


def ended(pipeline: Pipeline[Any], slow: float = 0.0, beside: Callable[[Run[Any]], Any] | None = None) -> Report:
    async def main() -> Report:
        async with trio.open_nursery() as nursery, pipeline.open() as run:
            if beside is not None:
                nursery.start_soon(beside, run)
            async for _item in run:
                await trio.sleep(slow)
            nursery.cancel_scope.cancel()
        return run.report

    return run_virtual(main)


def many(count: int = ITEMS) -> Pipeline[int]:
    return Pipeline.from_iterable(range(count), name="items")


def given(period: float, count: int = ITEMS) -> Pipeline[int]:
    async def arrivals() -> AsyncIterator[int]:
        for number in range(count):
            await trio.sleep(period)
            yield number

    return Pipeline.from_async_iterable(arrivals, name="feed")


def limited(seconds: float, rate: float) -> Step[Any, Any]:
    return Step(takes("embed", seconds)).rate_limit(RateLimit(rate, burst=1))


def flaky(seconds: float) -> Callable[[int], Any]:
    """Make a call that fails the first time for every other item."""
    failed: set[int] = set()

    async def embed(item: int) -> int:
        await trio.sleep(seconds)
        if item % 2 and item not in failed:
            failed.add(item)
            raise OSError(item)
        failed.discard(item)
        return item

    return embed


def retried(seconds: float, rate: float) -> Step[Any, Any]:
    limit, retry = RateLimit(rate, burst=1), Retry(2, OSError, Backoff(0))
    return Step(flaky(seconds)).rate_limit(limit).retry(retry)


async def children(item: int) -> AsyncIterator[int]:
    for child in range(3):
        await trio.sleep(0.25)
        yield child


SHAPES: dict[str, tuple[Pipeline[Any], float]] = {
    "a pool alone": (many().map(takes("embed", 1), concurrency=4), 0),
    "one place": (many(200).map(takes("embed", 1)), 0),
    "varied times": (many().map(takes("embed", varied), concurrency=4, ordered=False), 0),
    "varied times, in order, much room": (many().map(takes("embed", varied), concurrency=4).buffer(99), 0),
    "then its rate limit": (many().map(limited(1, 7.5), concurrency=4), 0),
    "then its rate limit, which attempts take": (many().map(retried(1, 7), concurrency=4, ordered=False), 0),
    "its rate limit, which attempts take": (many().map(retried(1, 4), concurrency=7, ordered=False), 0),
    "then its rate limit, around the retry": (
        many().map(
            Step(flaky(1)).retry(Retry(2, OSError, Backoff(0))).rate_limit(RateLimit(4, burst=1)),
            concurrency=4,
            ordered=False,
        ),
        0,
    ),
    "then the rate limit of another": (
        many()
        .map(takes("embed", 1), concurrency=4)
        .map(Step(takes("store", 0.01)).rate_limit(RateLimit(6, burst=1)), concurrency=9),
        0,
    ),
    "then the source": (given(1 / 7).map(takes("embed", 1), concurrency=4), 0),
    "then the consumer": (many().map(takes("embed", 1), concurrency=5), 0.125),
    "then another pool": (
        many().map(takes("embed", 1), concurrency=2).map(takes("store", 0.7), concurrency=2, ordered=False),
        0,
    ),
    "expanded": (many(300).flat_map(children, concurrency=2), 0),
    "in a merge": (
        fair_merge({"a": many(300), "b": many(300)}).map(takes("embed", 0.5), concurrency=3, ordered=False),
        0,
    ),
    "in batches": (many(1200).batch(4).map(takes("embed", 1), concurrency=3).unbatch(), 0),
    "in a branch": (
        many().broadcast(
            {
                "slow": lambda p: p.map(takes("embed", 1), concurrency=2),
                "quick": lambda p: p.map(takes("store", 0.1), concurrency=2),
            }
        ),
        0,
    ),
    "a rate limit": (many().map(limited(0.5, 4), concurrency=32), 0),
    "a rate limit, then the places": (many().map(limited(1, 4), concurrency=6), 0),
    "a throttle": (many().throttle(RateLimit(2, burst=1)), 0),
    "a throttle, then a pool": (many().throttle(RateLimit(2, burst=1)).map(takes("embed", 1), concurrency=3), 0),
    "waiting for the head": (
        many().map(takes("embed", lambda item: 10 if item % 10 == 0 else 1), concurrency=4).buffer(1),
        0,
    ),
}
SETTINGS = {
    r"^(?P<name>\S+): raise concurrency from \d+ to (?P<to>\d+)": ("concurrency", int),
    r"^(?P<name>\S+): its rate limit binds; raise it from \S+ to (?P<to>\S+) a second": ("rate_limit.rate", float),
    r"^(?P<name>\S+): raise its rate from \S+ to (?P<to>\S+) a second": ("rate_limit.rate", float),
    r"^(?P<name>\S+): results wait for an earlier one; use (?P<to>ordered=False)": ("ordered", lambda _: False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_advised_helps_as_much_as_is_said(shape):
    """Read the advice, do it, run again: the throughput is the one that was said, within a tenth."""
    pipeline, slow = SHAPES[shape]
    before = ended(pipeline, slow)
    advised = next(
        (found["name"], path, kind(found["to"]))
        for pattern, (path, kind) in SETTINGS.items()
        if (found := re.match(pattern, before.advice))
    )
    name, path, value = advised

    after = ended(pipeline.with_settings({name: {path: value}}), slow)

    said = re.search(r"about ([\d.]+)x", before.advice)
    assert said is not None, before.advice
    assert after.throughput / before.throughput == pytest.approx(float(said[1]), rel=0.1), before.advice


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ("a pool alone", "embed: raise concurrency from 4 to 8: about 2.0x"),
        ("then its rate limit", "embed: raise concurrency from 4 to 8: about 1.9x, then its rate limit binds"),
        (
            "then its rate limit, which attempts take",
            "embed: raise concurrency from 4 to 8: about 1.8x, then its rate limit binds",
        ),
        (
            "then its rate limit, around the retry",
            "embed: raise concurrency from 4 to 7: about 1.5x, then its rate limit binds",
        ),
        (
            "then the rate limit of another",
            "embed: raise concurrency from 4 to 7: about 1.5x, then the rate limit of store binds",
        ),
        ("then the consumer", "embed: raise concurrency from 5 to 9: about 1.6x, then consumer is the limit"),
        ("then another pool", "embed: raise concurrency from 2 to 3: about 1.4x, then store is the limit"),
        (
            "in a branch",
            "embed: raise concurrency from 2 to 4: about 2.0x (broadcast: the other branches wait for it)",
        ),
        ("a rate limit", "embed: its rate limit binds; raise it from 4 to 8 a second: about 2.0x"),
        ("a throttle", "throttle: raise its rate from 2 to 4 a second: about 2.0x"),
    ],
)
def test_the_sentence(shape, sentence):
    pipeline, slow = SHAPES[shape]

    assert ended(pipeline, slow).advice == sentence


async def fails(item: int) -> int:
    raise OSError(item)


async def always_fails(item: int) -> int:
    await trio.sleep(3)
    raise OSError(item)


def often_fails() -> Callable[[int], Any]:
    tries: dict[int, int] = {}

    async def embed(item: int) -> int:
        tries[item] = tries.get(item, 0) + 1
        await trio.sleep(0.1)
        if tries[item] < 3:
            raise OSError(item)
        return item

    return embed


OTHERS: dict[str, tuple[Callable[[], Pipeline[Any]], float, str]] = {
    "a slow source": (
        lambda: given(1, 60).map(takes("embed", 0.25)),
        0,
        "feed: nothing else limits; only a source that gives more than .* items a second would help",
    ),
    "an idle service": (lambda: given(100, 3), 0, "feed: nothing else limits; .*"),
    "a slow consumer": (
        lambda: many(100).map(takes("embed", 1), concurrency=4),
        1.0,
        r"consumer: the code that takes the results is the limit; the stages could give about [34]\.\dx",
    ),
    "retries": (
        lambda: many(60).map(Step(often_fails()).retry(Retry(3, OSError, Backoff(2, jitter=0))), concurrency=3),
        0,
        ".*: its calls wait between attempts; .*",
    ),
    "a circuit": (
        lambda: many(60).map(
            Step(often_fails()).circuit_breaker(CircuitBreaker(1, 5, wait=True)).retry(Retry(9, OSError, Backoff(0))),
            concurrency=3,
            on_error=OnError.skip(),
        ),
        0,
        ".*: its calls wait for a circuit to close; .*",
    ),
    "calls that fail": (
        lambda: many(200).map(takes("embed", 1)).map(always_fails, concurrency=2, on_error=OnError.skip()),
        0,
        "always_fails: most of its calls fail; that is to be mended first",
    ),
    "one key": (
        lambda: many(60).map(takes("embed", 1), concurrency=4, key=lambda item: 0),
        0,
        "embed: items of one key wait for each other; .*",
    ),
    "the rate of a key": (
        lambda: many(60).map(takes("embed", 0.01), concurrency=4, key=lambda item: 0, key_rate=RateLimit(2), waiting=9),
        0,
        "embed: items of one key wait for their key's rate, or for each other; a higher key_rate, .*",
    ),
    "a shared limit": (
        lambda: many(60).map(Step(takes("embed", 0.1)).rate_limit(RateLimiter(RateLimit(2))), concurrency=4),
        0,
        "embed: its rate limit binds; only a higher one would help",
    ),
    "places that it shares": (
        lambda: many(60).map(Step(takes("embed", 0.1)).places(PlaceLimiter(1)), concurrency=4),
        0,
        "embed: its calls wait for places that it shares; more of them, or quicker calls, would help",
    ),
    "places that it shares, hardly fewer than its own": (
        lambda: many(60).map(Step(takes("embed", 0.1)).places(PlaceLimiter(3)), concurrency=4),
        0,
        "embed: its calls wait for places that it shares; more of them, or quicker calls, would help",
    ),
    "places that suffice, for now": (
        lambda: many(60).map(Step(takes("embed", 0.1)).places(PlaceLimiter(4)), concurrency=4),
        0,
        "embed: raise concurrency from 4 to 8",
    ),
    "a shared rate that suffices, for now": (
        lambda: many(60).map(
            Step(takes("embed", 0.1)).rate_limit(RateLimiter(RateLimit(9, per=0.1, burst=9))), concurrency=4
        ),
        0,
        "embed: raise concurrency from 4 to 8",
    ),
    "places, and a rate that binds": (
        lambda: many(60).map(
            Step(takes("embed", 0.1)).places(PlaceLimiter(3)).rate_limit(RateLimiter(RateLimit(5))), concurrency=4
        ),
        0,
        "embed: its rate limit binds; only a higher one would help",
    ),
    "a rate, and places that bind": (
        lambda: many(60).map(Step(takes("embed", 1)).rate_limit(RateLimit(9)).places(PlaceLimiter(2)), concurrency=4),
        0,
        "embed: its calls wait for places that it shares; more of them, or quicker calls, would help",
    ),
    "two limits at once": (
        lambda: many(300).map(takes("embed", 1)).map(takes("store", 1)),
        0,
        "store: it is the limit, and embed hardly less; to change one of them would help little",
    ),
    "few calls": (lambda: many(30).map(takes("embed", 1), concurrency=2), 0, "embed: raise concurrency from 2 to 4"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_said_without_a_setting(case):
    make, slow, sentence = OTHERS[case]

    assert re.fullmatch(sentence, advice := ended(make(), slow).advice), advice


def test_a_busy_function_should_leave_the_event_loop():
    """In virtual time only what sets the clock takes any."""

    def parse(item: int) -> int:
        trio.lowlevel.current_clock().jump(1)  # type: ignore[attr-defined]  # a mock clock
        return item

    report = ended(many(60).buffer(1).map(parse).buffer(1).map(takes("store", 0.1), concurrency=2))

    assert report.advice.endswith(
        ": its functions keep the event loop busy; make them a Step on processes(n), or on threads(n)"
    )


def test_calls_that_share_few_threads_need_more_of_them():
    async def settings() -> Any:
        step = Step(abs).on(threads(2))
        async with many(9).map(step, concurrency=8, name="call").open() as run:
            return run.statistics()._basis.settings

    assert run_virtual(settings)[1].runner == "a free thread, of which there are 2"


def test_nothing_is_said_where_nothing_is_sure():
    """The source is the limit for half of the time, then the call."""

    async def arrivals() -> AsyncIterator[int]:
        for number in range(60):
            await trio.sleep(1 if number < 30 else 0)
            yield number

    line = Pipeline.from_async_iterable(arrivals).buffer(30).map(takes("embed", lambda item: item // 30))

    assert ended(line).advice == ""
    assert ended(many(0)).advice == ""


def test_pauses_do_not_count():
    async def pause(run: Run[Any]) -> None:
        await trio.sleep(10)
        run.pause()
        await trio.sleep(1000)
        run.resume()

    report = ended(many().map(limited(1, 7.5), concurrency=4), beside=pause)

    assert re.fullmatch(
        r"embed: raise concurrency from 4 to 8: about 1\.[89]x, then its rate limit binds", report.advice
    )


def test_a_difference_has_advice_of_its_own():
    async def main() -> tuple[str, str]:
        async with many().map(takes("embed", 1), concurrency=4).open() as run:
            for number in range(400):
                await run.receive()
                if number == 200:
                    earlier = run.statistics()
                await trio.sleep(1 if number > 200 else 0)
            return run.statistics().since(earlier).advice, earlier.advice

    later, before = run_virtual(main)

    assert before == "embed: raise concurrency from 4 to 8: about 2.0x"
    assert later.startswith("consumer: the code that takes the results is the limit; the stages could give about ")


def test_the_report_fits_in_80_columns():
    name = "a stage with a name that is as long as one that a person might write in a plan"
    shown = ended(many().map(takes("embed", 1), concurrency=4, name=name)).describe().split("\n")

    start = next(at for at, line in enumerate(shown) if line.startswith("advice: "))
    end = next(at for at, line in enumerate(shown) if at > start and not line)
    table = shown[shown.index("who waited for whom") :]
    table = table[: table.index("")]
    assert all(len(line) <= 80 for line in [*shown[start:end], *table])
    assert table[1].split()[-2:] == ["150.000", "s"]
