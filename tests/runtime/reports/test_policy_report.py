"""What a report says of policies: counts and waits of steps, errors that were gone on after, and nothing else.

Mutants that die here: a count under another's name; a wait counted once for several calls; a line where nothing
happened; a wait that a cancellation or an error cut short and that is not counted.
"""

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    FairShare,
    LimitWaitReport,
    OnError,
    Pipeline,
    PlaceLimiter,
    PolicyReport,
    RateLimit,
    Retry,
    Step,
)
from funcpipe_trio.testing import run_virtual

PENDING = {
    "retries": 0, "timeouts": 0, "opened": 0, "refused": 0, "abandoned": 0,
    "waited_rate": 0.0, "waited_retry": 0.0, "waited_elsewhere": 0.0, "waited_circuit": 0.0,
    "resources": 0, "waited_resource": 0.0, "waited_places": 0.0, "fallbacks": 0, "hedges": 0, "coalesced": 0,
}  # fmt: skip
SAID = {
    "retries": (3, "3 retries"),
    "timeouts": (2, "2 timeouts"),
    "opened": (2, "2 openings of the circuit"),
    "refused": (4, "4 refused by an open circuit"),
    "abandoned": (1, "1 left behind, outcome unknown"),
    "resources": (2, "2 resources opened"),
    "fallbacks": (2, "2 fallbacks"),
    "hedges": (2, "2 hedges"),
    "coalesced": (2, "2 shared an equal call"),
    "waited_rate": (1.25, "1.250 s waiting for the rate limit"),
    "waited_retry": (0.5, "0.500 s between attempts"),
    "waited_elsewhere": (0.25, "0.250 s of that elsewhere"),
    "waited_circuit": (7.0, "7.000 s waiting for the circuit"),
    "waited_resource": (1.5, "1.500 s waiting for a resource"),
    "waited_places": (2.5, "2.500 s waiting for places"),
}


@pytest.mark.parametrize("name", SAID)
def test_each_count_has_its_words(name):
    """One thing happened: one thing is said."""
    value, words = SAID[name]

    assert PolicyReport(**{**PENDING, name: value}).describe() == words


def test_all_of_it_in_one_line_and_of_nothing_nothing():
    """Counts first, then waits, in the order of the fields."""
    everything = PolicyReport(**{name: value for name, (value, _words) in SAID.items()})

    assert everything.describe() == ", ".join(words for _value, words in SAID.values())
    assert PolicyReport(**PENDING).describe() == ""
    assert PENDING.keys() == SAID.keys() == {*PolicyReport.__slots__} - {"limits"}


def test_who_waited_for_a_limit_is_said_by_key():
    """The first five, and how many more there are; a limit without shares has no keys to tell."""

    def waits(*keys):
        return tuple(LimitWaitReport("places", key, 1, 7.0 - number, 1.0) for number, key in enumerate(keys))

    def said(*keys):
        return PolicyReport(**PENDING, limits=waits(*keys)).describe()

    assert said(None) == ""
    assert said("a", None, ("b", 1)) == "by key: 'a' 7.000 s, ('b', 1) 5.000 s"
    assert said(*"abcdefg") == ("by key: 'a' 7.000 s, 'b' 6.000 s, 'c' 5.000 s, 'd' 4.000 s, 'e' 3.000 s, and 2 more")


async def report_of(pipeline):
    return await pipeline.run()


def test_a_step_counts_what_all_its_calls_did():
    """Two calls at once: each waits by itself, and the sums are over both."""

    async def call(item):
        await trio.sleep(10 if item == 0 else 0)
        raise OSError

    step = (
        Step(call)
        .rate_limit(RateLimit(0.5))
        .timeout(3)
        .retry(Retry(2, (OSError, trio.TooSlowError), Backoff(4, jitter=0)))
    )
    pipeline = Pipeline.from_iterable(range(2)).map(step, concurrency=2, on_error=OnError.skip())
    report = run_virtual(report_of, pipeline)

    # Item 0 is called at 0, item 1 waits for its token until 2, and again at 6; item 0 asks again at 7 and waits 1 s.
    (policies,) = [stage.policies for stage in report.stages if stage.policies is not None]
    assert (policies.retries, policies.waited_retry, policies.timeouts) == (2, 8, 2)
    assert policies.waited_rate == 2 + 1
    assert (policies.refused, policies.abandoned, policies.waited_circuit) == (0, 0, 0)
    assert report.stages[-1].failures == (("OSError", 1), ("TooSlowError", 1))


def test_waits_that_were_cut_short_are_counted():
    """The run is cancelled at 5 s, in the middle of a wait between attempts, for a token and for the circuit."""

    async def call(item):
        raise OSError

    steps = {
        "waited_retry": Step(call).retry(Retry(2, OSError, Backoff(100, maximum=100, jitter=0))),
        "waited_rate": Step(call).rate_limit(RateLimit(0.001)),
        "waited_places": Step(call).places(TAKEN),
        "waited_circuit": Step(call).circuit_breaker(CircuitBreaker(1, 1000, wait=True)),
    }

    async def main(step):
        with trio.move_on_after(5):
            async with TAKEN.hold(), Pipeline.from_iterable(range(2)).map(step, on_error=OnError.skip()).open() as run:
                await trio.sleep_forever()
        return run.report.stages[-1].policies

    for name, step in steps.items():
        assert getattr(run_virtual(main, step), name) == 5


TAKEN = PlaceLimiter(1)


def tenant(item):
    return item[0]


async def used(item):
    """Take as long as the item says."""
    await trio.sleep(item[1])
    return item


def test_places_and_a_rate_at_one_instant_count_their_waits_apart():
    """What is missing at each moment is what is waited for: the sums add up to all waits, and name the right limit.

    Five calls of 10 s, one place, a token a second: they wait for the place. With calls of 0.25 s, the place is free
    again long before there is a token, and only for that time a wait counts as one for the place, too.
    """

    async def waits(seconds):
        step = Step(used).places(PlaceLimiter(1)).rate_limit(RateLimit(1))
        report = await Pipeline.from_iterable([("a", seconds)] * 5).map(step, concurrency=5, name="call").run()
        (policies,) = [stage.policies for stage in report.stages if stage.policies is not None]
        return policies, report.describe()

    long, said = run_virtual(waits, 10)
    assert (long.waited_rate, long.waited_places) == (0, 10 + 20 + 30 + 40)
    assert "limited by: call (the places that it shares)" in said
    short, said = run_virtual(waits, 0.25)
    assert (short.waited_rate, short.waited_places) == (10 - 2.5, 0.25 * (4 + 3 + 2 + 1))
    assert "limited by: call (its rate limit)" in said


def test_the_waits_of_each_key_are_told():
    """Two tenants behind one place: what each waited, how often, the longest; and between two looks what was new."""
    places = PlaceLimiter(1, FairShare({"a": 3}))
    step = Step(used).places(places, key=tenant)
    items = [("a", 1), ("b", 2), ("a", 1), ("b", 2)]

    async def main():
        async with (
            Pipeline.from_iterable(items).map(step, concurrency=4, name="call", ordered=False).buffer(9).open() as run
        ):
            await trio.sleep(2.5)
            first = run.statistics()
            await trio.sleep(9)
            last = run.statistics()
            rest = [each async for each in run]
            assert len(rest) == 4
            return [stats.stages[-1].policies for stats in (first, last, last.since(first), run.report)]

    # "a" is called at 0 and, as V stays behind it, "b" at 1; "a" again at 3, "b" again at 4.
    first, last, between, report = run_virtual(main)
    name = "1 places, shared by tenant"
    assert first.limits == (LimitWaitReport(name, "b", 1, 1.0, 1.0),)
    assert (
        last.limits
        == report.limits
        == (LimitWaitReport(name, "b", 2, 5.0, 4.0), LimitWaitReport(name, "a", 1, 3.0, 3.0))
    )
    assert between.limits == (LimitWaitReport(name, "b", 1, 4.0, 4.0), LimitWaitReport(name, "a", 1, 3.0, 3.0))
    assert [each.waited_places for each in (first, last, between)] == [1, 8, 7]
    assert last.describe() == "8.000 s waiting for places, by key: 'b' 5.000 s, 'a' 3.000 s"


def test_only_the_keys_that_waited_longest_are_kept():
    """A thousand keys, each waits by itself: the hundred of the longest waits are told, whenever they came."""
    places = PlaceLimiter(1, FairShare())
    lengths = [(number * 7919 % 1009, number) for number in range(1000)]
    step = Step(used).places(places, key=lambda item: item[0])

    async def main():
        started = step.start()
        for seconds, key in lengths:
            async with trio.open_nursery() as nursery, places.hold(key="holder"):
                nursery.start_soon(started, (key, 0))
                await trio.sleep(1 + seconds)
        return started.statistics().limits

    limits = run_virtual(main)

    assert [each.waited for each in limits] == sorted((1 + seconds for seconds, _ in lengths), reverse=True)[:100]


def test_a_report_tells_it_line_by_line_below_the_table():
    """For people: per stage what its policies did, then what it went on after; stable, so golden."""

    async def call(item):
        await trio.sleep(1)
        if item % 2:
            raise KeyError(item)
        return item

    def parse(item):
        return 4 // (item - 2)

    breaker = CircuitBreaker(1, 3.5, on=KeyError)
    step = Step(call).circuit_breaker(breaker).retry(Retry(2, CircuitOpen, retry_after=lambda error: error.retry_after))
    pipeline = (
        Pipeline.from_iterable(range(5))
        .map(step, on_error=OnError.skip(), name="ask")
        .map(parse, on_error=OnError.skip())
        .buffer(4)
        .map(call, on_error=OnError.emit(), name="again")
    )
    report = run_virtual(report_of, pipeline)

    # Item 1 fails at 2, so the circuit is open until 5.5; item 2 is tried then; item 3 fails at 7.5: open until 11.
    assert report.describe() == "\n".join(
        [
            "completed after 13.000 s; of 5 taken: 2 delivered, 3 failed, 0 dropped, 0 discarded",
            "limited by: ask (its waits between attempts)",
            "advice: ask: its calls wait between attempts; fewer failures, a shorter backoff,",
            "  or retries_elsewhere would help",
            "seed 0",
            "",
            "who waited for whom",
            "  again  ask  11.000 s",
            "",
            "stage     in  out  failed  dropped  discarded  busy",
            "iterable   5    5       0        0          0    0%",
            "ask        5    2       3        0          0  100%",
            "again      2    2       0        0          0   15%",
            "ask: 2 retries, 2 openings of the circuit, 2 refused by an open circuit, 7.000 s between attempts",
            "ask: went on after 2 KeyError, 1 ZeroDivisionError",
        ]
    )
