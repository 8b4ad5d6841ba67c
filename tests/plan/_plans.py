"""Plans of every kind for the tests of documents, drawings and differences; each is made by a function, any number of
times."""

from functools import partial

from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    executor,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    threads,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual
from tests.operators.catalogue import CASES, Feed, tokens
from tests.random_programs.build import Builder
from tests.random_programs.generate import generate
from tests.random_programs.world import World


async def embed(item):
    raise AssertionError("a plan runs nothing")


async def bury(failure):
    raise AssertionError("a plan runs nothing")


def parse(item):
    raise AssertionError("a plan runs nothing")


def pool():
    raise AssertionError("a plan runs nothing")


def steps():
    """Every policy, alone, several times, around a row, shared, started, on runners, in a divert."""
    limiter = RateLimiter(RateLimit(3, burst=2))
    fair = RateLimiter(RateLimit(5, burst=2), FairShare({"a": 3, ("b", 1): 2}, default_weight=2))
    few = PlaceLimiter(3, FairShare({"a": 3}))
    both = Step(embed).rate_limit(fair.group("b"), RateLimit(2), key=parse, settle=[parse, None]).places(few, key=parse)
    started = Step(embed).timeout(1).start()
    breaker = CircuitBreaker(None, 2, ratio=0.25, window=9, on=(KeyError, OSError), wait=True)
    retry = Retry(4, OSError, Backoff(0.5, 2, 8, jitter=0, seed=7), retry_after=parse)
    full = Step(embed).rate_limit(limiter, cost=parse).timeout(8).retry(retry).circuit_breaker(breaker).timeout(30)
    row = (
        Step(parse).on(threads(2)).timeout(3).then(Step(embed).rate_limit(RateLimit(2), limiter)).map(parse).timeout(9)
    )
    return (
        Pipeline.restarting(pool, Retry(2), reset_after=float("inf"))
        .map(full, concurrency=4, key=parse, on_error=OnError.skip(5, 0.1, 20), name="full")
        .map(row, concurrency=2, ordered=False, on_error=OnError.divert(full), name="row")
        .filter(started)
        .tap(Step(started).retry(Retry(2)), name="again")
        .map(Step(partial(max, 1)).on(executor(pool, limit=3, broken=OSError)), name="out")
        .map(Step(embed).rate_limit(RollingLimit(9), RateLimiter(RollingLimit(5, per=1))), name="rolled")
        .map(Step(embed).rate_limit(RateLimit(2)).retry(Retry(2, retry_after=parse, pauses_limit=True)), name="paused")
        .map(both.timeout(2).places(PlaceLimiter(9)), name="both")
        .map(Step(embed).rate_limit(RateLimit(2), per_key=parse, max_keys=9), name="apart")
        .map(Step(embed, idempotent=False), on_error=OnError.divert(bury), name="once")
    )


def shapes():
    """Fan-ins and fan-outs in each other, keys of many kinds, queues by key, links of every kind."""
    share = FairShare({"a": 3, 1: 2, (1, "x"): 5, "never": 7}, default_weight=2, capacity=4, cost=parse)
    mixed = (
        Pipeline.ticks(2).fair_by(parse, share, max_keys=3, overflow=OnError.divert(Step(bury).timeout(2))).buffer(2)
    )
    lines = {
        "a": mixed,
        1: Pipeline.from_iterable(range(3)).buffer(1, overflow="drop_oldest", name="q"),
        (1, "x"): mixed,
    }
    joined = fair_merge(lines, FairShare({"a": 3, 1: 2}, capacity=4, cost=parse))
    return (
        merge(
            joined,
            merge_sorted(
                zip_pipelines(prefer(zip_latest(mixed), mixed, at_least=5), strict=True, name="pairs").map(parse),
                key=parse,
                reverse=True,
            ),
        )
        .buffer(5)
        .broadcast({"x": lambda each: each.map(embed), "y": lambda each: each.delay(1, max_items=2)}, join="zip")
        .balance({"a": lambda items: items.buffer(1, overflow="drop_newest"), "b": lambda items: items.map(embed)})
        .batch(max_delay=1)
        .partition(
            parse,
            {
                "now": lambda items: items.buffer(3, overflow="fail").map(embed).scan(parse, [1]),
                "later": lambda items: items.broadcast(
                    {"x": lambda each: each.take(2), "y": lambda each: each.map(embed)}
                ),
            },
        )
    )


def random_plan(seed):
    """The same plan for the same seed, made anew."""

    async def build():  # its sources look at the clock
        return Builder(World(program := generate(seed))).line(program.line)

    return run_virtual(build)


def from_the_catalogue(case):
    return case.make(Feed(tokens(3)))


FIXED = {
    "steps": steps,
    "shapes": shapes,
    **{f"{number}: {case.name}": partial(from_the_catalogue, case) for number, case in enumerate(CASES)},
}
factories = st.one_of(
    st.integers(0, 10**6).map(lambda seed: partial(random_plan, seed)), st.sampled_from(list(FIXED.values()))
)
