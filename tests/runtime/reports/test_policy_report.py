"""What a report says of policies: counts and waits of steps, errors that were gone on after, and nothing else.

Mutants that die here: a count under another's name; a wait counted once for several calls; a line where nothing
happened; a wait that a cancellation or an error cut short and that is not counted.
"""

import pytest
import trio

from funcpipe_trio import Backoff, CircuitBreaker, CircuitOpen, OnError, Pipeline, PolicyReport, RateLimit, Retry, Step
from funcpipe_trio.testing import run_virtual

PENDING = {
    "retries": 0, "timeouts": 0, "opened": 0, "refused": 0, "abandoned": 0,
    "waited_rate": 0.0, "waited_retry": 0.0, "waited_circuit": 0.0, "resources": 0, "waited_resource": 0.0,
}  # fmt: skip
SAID = {
    "retries": (3, "3 retries"),
    "timeouts": (2, "2 timeouts"),
    "opened": (2, "2 openings of the circuit"),
    "refused": (4, "4 refused by an open circuit"),
    "abandoned": (1, "1 left behind, outcome unknown"),
    "resources": (2, "2 resources opened"),
    "waited_rate": (1.25, "1.250 s waiting for the rate limit"),
    "waited_retry": (0.5, "0.500 s between attempts"),
    "waited_circuit": (7.0, "7.000 s waiting for the circuit"),
    "waited_resource": (1.5, "1.500 s waiting for a resource"),
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
        "waited_circuit": Step(call).circuit_breaker(CircuitBreaker(1, 1000, wait=True)),
    }

    async def main(step):
        with trio.move_on_after(5):
            async with Pipeline.from_iterable(range(2)).map(step, on_error=OnError.skip()).open() as run:
                await trio.sleep_forever()
        return run.report.stages[-1].policies

    for name, step in steps.items():
        assert getattr(run_virtual(main, step), name) == 5


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
            "advice: ask: its calls wait between attempts; fewer failures, or a shorter",
            "  backoff, would help",
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
