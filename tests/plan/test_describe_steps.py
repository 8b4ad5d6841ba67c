"""How plans with steps read, and what of them cannot work; the texts are golden.

Mutants that die here: a policy that the text leaves out, or shows in another order; the divert step unchecked; a step
checked in `map` only; the first problem instead of all; an address or a value in the text.
"""

import pytest

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    merge,
    threads,
)

NUMBERS = Pipeline.from_iterable(range(3))


async def embed(item):
    raise AssertionError("a plan runs nothing")


async def bury(failure):
    raise AssertionError("a plan runs nothing")


async def split(item):
    raise AssertionError("a plan runs nothing")
    yield


def parse(item):
    raise AssertionError("a plan runs nothing")


def tenant(item):
    raise AssertionError("a plan runs nothing")


def tokens(item):
    raise AssertionError("a plan runs nothing")


RETRY = Retry(4, OSError, Backoff(0.5, 2, 8, jitter=0))
FULL = (
    Step(embed)
    .rate_limit(RateLimit(8, burst=2))
    .timeout(8)
    .retry(RETRY)
    .circuit_breaker(CircuitBreaker(3, 20))
    .timeout(30)
)


def stages_of(pipeline):
    """The part of the text that is about the stages behind the source."""
    lines = pipeline.describe().splitlines()
    return "\n".join(line for line in lines[1:-1] if not line.startswith(("  | link", "source iterable: iterable\n")))


def test_every_policy_of_a_step_has_its_line_inside_out():
    """The order is that in which they were written, which is that in which they lie around each other."""
    pipeline = NUMBERS.map(FULL, concurrency=4, key=tenant, on_error=OnError.skip(5, 0.1, 20)).buffer(3)

    assert pipeline.describe() == "\n".join(
        [
            "pipeline: 2 stages, items in flight: at most 23",
            "source iterable: iterable",
            "  | link of 16",
            "stage embed: async map embed, 4 at a time, one at a time of each tenant, in order",
            "    call embed",
            "      rate limit of 8 in 1 s, burst 2",
            "      timeout of 8 s",
            "      retry: up to 4 attempts on OSError, waits 0.5 s x 2 up to 8 s",
            "      circuit breaker: opens after 3 failures in a row, probes after 20 s",
            "      timeout of 30 s",
            "    on error: skip, at most 5, at most 10.0% from 20 items on",
            "  | link of 3 (of an open run; run(), collect() and the like need none)",
            "consumer",
        ]
    )


def test_steps_one_behind_the_other_and_what_lies_around_them():
    """`then` and `map` read as a row; a policy around a row says so."""
    step = Step(embed).timeout(2).then(Step(bury, name="dig", idempotent=False)).map(parse).timeout(9)

    assert stages_of(NUMBERS.map(step, ordered=False, name="both")) == "\n".join(
        [
            "source iterable: iterable",
            "stage both: async map embed > dig, 1 at a time, as completed",
            "    call embed",
            "      timeout of 2 s",
            "    then call bury, not idempotent",
            "    then parse",
            "      timeout of 9 s around all of these",
        ]
    )


def test_what_is_shared_and_what_runs_elsewhere():
    """A limiter that others use is called shared; a runner is named with the call; a started step reads as its step."""
    limiter = RateLimiter(RateLimit(3))
    breaker = CircuitBreaker(None, 2, ratio=0.25, window=9, on=(KeyError, OSError), wait=True)
    rolling = RollingLimit(100)
    pipeline = NUMBERS.map(Step(embed).rate_limit(rolling).rate_limit(limiter, cost=tokens)).map(
        Step(parse).on(threads(2)).circuit_breaker(breaker).start()
    )

    assert stages_of(pipeline) == "\n".join(
        [
            "source iterable: iterable",
            "stage embed: async map embed, 1 at a time, in order",
            "    call embed",
            "      rate limit of 100 in any 60 s",
            "      rate limit of 3 in 1 s, burst 1, shared, an item costs what tokens says, "
            "at one instant with the one above",
            "stage parse: async map parse, 1 at a time, in order",
            "    call parse on up to 2 threads",
            "      circuit breaker: opens after 25% of the last 9 failed (KeyError or OSError), probes after 2 s, "
            "calls wait meanwhile",
        ]
    )


def test_shares_places_and_settlements():
    """Whose share a call takes, what it costs before and after, and what it takes at one instant with the rest."""
    limiter, few = RateLimiter(RateLimit(9, burst=9), FairShare({"a": 3})), PlaceLimiter(4)
    costs, settled = [tokens, None], [parse, None]
    step = Step(embed).rate_limit(limiter, RateLimit(2), key=tenant, cost=costs, settle=settled)
    pipeline = NUMBERS.map(step.places(few, key=tenant).timeout(2).places(PlaceLimiter(7)))

    assert stages_of(pipeline) == "\n".join(
        [
            "source iterable: iterable",
            "stage embed: async map embed, 1 at a time, in order",
            "    call embed",
            "      rate limit of 9 in 1 s, burst 9, shared by tenant, an item costs what tokens says, settled by parse",
            "      rate limit of 2 in 1 s, burst 1, at one instant with the one above",
            "      4 places, shared by tenant, at one instant with the one above",
            "      timeout of 2 s",
            "      7 places, shared",
        ]
    )


def test_places_around_the_limits_of_a_thread_are_taken_before_them():
    """Those limits are met when a call has its thread, so they are not met at one instant with the places."""
    step = Step(parse).on(threads(2)).rate_limit(RateLimit(2), RateLimit(3)).places(PlaceLimiter(4))

    assert stages_of(NUMBERS.map(step)) == "\n".join(
        [
            "source iterable: iterable",
            "stage parse: async map parse, 1 at a time, in order",
            "    call parse on up to 2 threads",
            "      rate limit of 2 in 1 s, burst 1",
            "      rate limit of 3 in 1 s, burst 1, at one instant with the one above",
            "      4 places, shared",
        ]
    )


OPERATIONS = {
    "filter": lambda p, step: p.filter(step),
    "tap": lambda p, step: p.tap(step),
    "take_while": lambda p, step: p.take_while(step),
    "skip_while": lambda p, step: p.skip_while(step),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_in_another_operation_is_a_stage_with_its_policies(operation):
    """filter, tap, take_while and skip_while show what lies around the call, as `map` does."""
    assert stages_of(OPERATIONS[operation](NUMBERS, Step(embed).timeout(2))) == "\n".join(
        [
            "source iterable: iterable",
            f"stage embed: async {operation} embed",
            "    call embed",
            "      timeout of 2 s",
        ]
    )


def test_a_step_in_a_flat_map_shows_its_policies_and_its_failures():
    """As in `map`; it has no order to speak of."""
    assert stages_of(NUMBERS.flat_map(Step(embed).timeout(2), concurrency=3, on_error=OnError.emit())) == "\n".join(
        [
            "source iterable: iterable",
            "stage embed: async flat_map embed, 3 at a time",
            "    call embed",
            "      timeout of 2 s",
            "    on error: emit a Failure in its place",
        ]
    )


def test_the_divert_step_is_shown_below_the_policy():
    """A sync function with it has a stage of its own; a plain function to divert to has no lines of its own."""
    letters = Step(bury).retry(RETRY)
    pipeline = NUMBERS.map(parse, on_error=OnError.divert(letters)).flat_map(split, on_error=OnError.divert(bury))

    assert stages_of(pipeline) == "\n".join(
        [
            "source iterable: iterable",
            "stage parse: async map parse, 1 at a time, in order",
            "    on error: divert to bury",
            "      call bury",
            "        retry: up to 4 attempts on OSError, waits 0.5 s x 2 up to 8 s",
            "stage split: async flat_map split, 1 at a time",
            "    on error: divert to bury",
        ]
    )


def test_a_policy_of_a_fused_operation_is_shown_at_the_stage_it_runs_in():
    """No stage of its own for `skip` or `emit` of a sync function."""
    pipeline = NUMBERS.map(parse, on_error=OnError.skip()).flat_map(tenant, on_error=OnError.emit())

    assert stages_of(pipeline) == "\n".join(
        [
            "source iterable: iterable -> map parse -> flat_map tenant",
            "    on error: skip",
            "    on error: emit a Failure in its place",
        ]
    )


def test_to_stop_is_not_said():
    """What happens if nothing is asked for needs no line; saying it makes the same plan."""
    plain, said = NUMBERS.map(embed), NUMBERS.map(embed, on_error=OnError.stop())

    assert plain.describe() == said.describe()
    assert "on error" not in plain.describe()
    assert plain == said


def test_a_plan_with_steps_is_a_value():
    """Equal steps and policies make equal plans; another limit, another plan."""

    def plan(attempts):
        step = Step(embed).timeout(2).retry(Retry(attempts))
        return NUMBERS.map(step, key=tenant, on_error=OnError.divert(Step(bury)))

    assert plan(3) == plan(3)
    assert hash(plan(3)) == hash(plan(3))
    assert plan(3) != plan(4)


def in_flight(pipeline):
    return pipeline.max_in_flight


def test_keys_and_policies_do_not_change_the_bound():
    """P4: a failure that waits, an item that waits for its key, a divert: each in a place that there was anyway."""
    plain = NUMBERS.map(embed, concurrency=5).buffer(3)
    keyed = NUMBERS.map(embed, concurrency=5, key=tenant, on_error=OnError.divert(bury)).buffer(3)

    assert in_flight(plain) == in_flight(keyed) == 16 + 5 + 3


NOT_ASYNC = (
    "step '{}': fn must be an async function, or give something to await, unless something runs it.\n"
    "Use Step(fn).on(threads(4)), or Step.pure(fn) for one that takes no time."
)


def test_every_step_that_cannot_run_is_a_problem_wherever_it_stands():
    """P19: all of them, in one error, from `check`, `describe` and a run: operations, inputs, divert steps, rows."""

    def bad(name):
        return Step(int, name=name)

    one = NUMBERS.map(bad("a")).filter(bad("b")).tap(bad("c")).take_while(bad("d")).skip_while(bad("e"))
    other = NUMBERS.flat_map(bad("f")).map(embed, on_error=OnError.divert(bad("g")))
    row = NUMBERS.map(Step(embed).then(bad("h")).timeout(3).then(bad("i")))
    diverting = NUMBERS.flat_map(split, on_error=OnError.divert(bad("j")))
    pipeline = merge(one, other, row, diverting).map(bad("k"))

    for ask in (pipeline.check, pipeline.describe):
        with pytest.raises(PlanError) as caught:
            ask()
        assert caught.value.problems == tuple(NOT_ASYNC.format(name) for name in "abcdefghijk")


def test_what_a_sync_function_cannot_have():
    """Keys: it runs for one item at a time anyway, with `divert`, too; or what awaits its answer."""
    pipeline = NUMBERS.map(parse, key=tenant, on_error=OnError.divert(bury)).map(int, concurrency=3, key=tenant)

    with pytest.raises(PlanError) as caught:
        pipeline.check()
    assert caught.value.problems == (
        "map 'parse': key must not be given for a sync function: it runs for one item at a time anyway.\n"
        "Use Step(fn).on(threads(4)), or an async function.",
        "map 'int': with concurrency, fn must be an async function, or give something to await; int never does.\n"
        "Use Step(fn).on(threads(4)), or leave out concurrency.",
    )


def test_what_is_no_policy_is_refused_at_the_call():
    """P19: `on_error` must be one, `key` must be sync, and a scan takes no step."""
    with pytest.raises(
        TypeError,
        match=r"^Pipeline\.map: on_error must be an OnError, not a str of length 4\nUse OnError\.skip\(\), say\.$",
    ):
        NUMBERS.map(embed, on_error="skip")
    with pytest.raises(TypeError, match=r"^Pipeline\.flat_map: on_error must be an OnError, not None\nUse .*$"):
        NUMBERS.flat_map(split, on_error=None)
    with pytest.raises(TypeError, match=r"^Pipeline\.map: key must be a sync function, not the async function embed$"):
        NUMBERS.map(embed, key=embed)
    with pytest.raises(
        TypeError,
        match=r"^Pipeline\.scan: fn must be a function of a state and an item, not a Step\n"
        r"Use \.map\(step\) before it\.$",
    ):
        NUMBERS.scan(Step(embed), 0)
