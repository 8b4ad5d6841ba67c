"""The difference of two plans: a line for each change, and none for what is the same.

Mutants that die here: a part that is matched by its place; a policy that comes or goes without a line; a moved part
that is told as new; a neighbour of what was removed that is told as moved; a change that no line tells.
"""

import json
import pickle
from fractions import Fraction

import pytest
from hypothesis import given, settings

from funcpipe_trio import (
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
    concat,
    fair_merge,
    merge,
)
from tests.plan._plans import bury, embed, factories, parse

NUMBERS = Pipeline.from_iterable(range(3), name="numbers")
STEP = Step(embed).timeout(8)
SHARE = FairShare({"a": 3})


def limiter(rate, weight):
    return RateLimiter(RateLimit(rate, burst=1), FairShare({"a": weight}))


def lines(one, other):
    return one.diff(other).splitlines()


@settings(max_examples=100, deadline=None)
@given(factories, factories)
def test_there_is_a_line_exactly_if_the_documents_differ(make, other):
    """In both directions, over plans of every kind."""
    assert make().diff(make()) == ""
    is_equal = make().describe("json") == other().describe("json")
    assert (make().diff(other()) == "") == (other().diff(make()) == "") == is_equal


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (NUMBERS.map(STEP), NUMBERS.map(STEP, concurrency=4), [
            "map embed: concurrency none -> 4",
            "items in flight: at most 33 -> 36 (embed 17 -> 20)",
        ]),
        (NUMBERS.map(STEP), NUMBERS.map(Step(embed).timeout(9)), ["map embed: timeout 8 -> 9"]),
        (NUMBERS.map(STEP), NUMBERS.map(STEP.retry(Retry(4, OSError))), [
            "map embed: retry added: attempts 4, backoff.initial 0.1, backoff.factor 2, backoff.maximum none, "
            "backoff.jitter 0.1, backoff.seed none, pauses_limit no, on builtins:OSError, retry_after none",
        ]),
        (NUMBERS.map(STEP.rate_limit(RateLimit(2))), NUMBERS.map(STEP), [
            "map embed: rate_limit removed",
        ]),
        (NUMBERS.map(Step(embed).rate_limit(RateLimit(2))), NUMBERS.map(Step(embed).rate_limit(RollingLimit(9))), [
            "map embed: rate_limit.rate 2 -> none",
            "map embed: rate_limit.per 1 -> 60",
            "map embed: rate_limit.burst 1 -> none",
            "map embed: rate_limit.n none -> 9",
        ]),
        (NUMBERS.map(Step(embed)), NUMBERS.map(Step(embed).places(PlaceLimiter(2, SHARE), key=parse)), [
            "map embed: places added: 2, weights [[a, 3]], default_weight 1, key tests.plan._plans:parse",
        ]),
        (
            NUMBERS.map(Step(embed).rate_limit(limiter(2, 3), key=parse)),
            NUMBERS.map(Step(embed).rate_limit(limiter(3, 5), settle=parse)),
            [
                "map embed: rate_limit.rate 2 -> 3",
                "map embed: rate_limit.weights [[a, 3]] -> [[a, 5]]",
                "map embed: rate_limit.key tests.plan._plans:parse -> none",
                "map embed: rate_limit.settle none -> tests.plan._plans:parse",
            ],
        ),
        (NUMBERS.map(Step(embed).places(PlaceLimiter(2))), NUMBERS.map(Step(embed).places(PlaceLimiter(4))), [
            "map embed: places 2 -> 4",
        ]),
        (NUMBERS.map(STEP.retry(Retry(2))), NUMBERS.map(Step(embed).retry(Retry(2)).timeout(8)), [
            "map embed: step.order, inside out, [call of embed, timeout, retry] -> [call of embed, retry, timeout]",
        ]),
        (NUMBERS.map(embed), NUMBERS.map(parse, name="embed"), [
            "map embed: runs in its own stage -> the stage before it",
            "map embed: capacity removed",
            "map embed: overflow removed",
            "map embed: link removed",
            "map embed: fn tests.plan._plans:embed -> tests.plan._plans:parse",
            "items in flight: at most 33 -> 16 (embed 17 -> 0)",
        ]),
        (NUMBERS.map(embed, on_error=OnError.skip(3)), NUMBERS.map(embed, on_error=OnError.divert(bury)), [
            "map embed: on_error skip -> divert",
            "map embed: on_error.max_failures 3 -> none",
            "map embed: on_error.min_items 100 -> none",
            "map embed: on_error.step none -> tests.plan._plans:bury",
        ]),
        (NUMBERS.map(embed).take(3), NUMBERS.take(3).map(embed), [
            "take: moved, from behind embed to behind numbers",
        ]),
        (NUMBERS.map(embed).take(3), NUMBERS.take(3), [
            "map embed: removed",
            "items in flight: at most 33 -> 16 (embed 17 -> 0)",
        ]),
        (NUMBERS.take(3), NUMBERS.batch(2).take(3), [
            "batch: added behind numbers (max_items 2)",
            "items in flight: at most 16 -> 32 (numbers 16 -> 32)",
        ]),
        (NUMBERS.buffer(3), NUMBERS.buffer(5, overflow="drop_newest", name="q"), [
            "source (iterable) numbers: capacity 3 -> 5",
            "source (iterable) numbers: overflow block -> drop_newest",
            "source (iterable) numbers: link none -> q",
            "items in flight: at most 3 -> 5 (numbers 3 -> 5)",
        ]),
        (fair_merge({"a": NUMBERS, "b": NUMBERS}), fair_merge({"a": NUMBERS, "c": NUMBERS}, FairShare({"a": 3})), [
            "input b of fair_merge: removed",
            "input a of fair_merge: weight 1 -> 3",
            "input c of fair_merge: added at the beginning (weight 1)",
            "source (iterable) numbers#2: moved, from at the beginning in input b of fair_merge to at the beginning in "
            "input c of fair_merge",
        ]),
        (merge(NUMBERS, NUMBERS), merge(NUMBERS, NUMBERS, on_error=OnError.emit()), [
            "merge: on_error stop -> emit",
        ]),
        (merge(NUMBERS, NUMBERS), concat(NUMBERS, NUMBERS, name="merge"), [
            "merge: merge -> concat",
            "concat merge: on_error removed",
            "items in flight: at most 32 -> 16",
        ]),
    ],
)  # fmt: skip
def test_each_kind_of_change_reads_so(one, other, expected):
    said = lines(one, other)

    assert [line for line in said if " in input 0 of merge" not in line and "of concat" not in line] == expected


def test_a_branch_that_goes_is_told_with_what_was_in_it():
    def plan(*names):
        return NUMBERS.broadcast({name: lambda items, name=name: items.map(embed, name=f"in {name}") for name in names})

    assert lines(plan("x", "y"), plan("x")) == [
        "branch y of broadcast: removed",
        "branch broadcast.y: removed",
        "map in y: removed",
        "items in flight: at most 66 -> 33 (broadcast.y 16 -> 0, in y 17 -> 0)",
    ]


def test_who_shares_a_limiter_is_part_of_the_plan():
    """Two limits of their own allow twice as many calls as one that is shared."""

    def plan(one, other):
        return NUMBERS.map(Step(embed).rate_limit(one)).map(Step(bury).rate_limit(other))

    def limiter():
        return RateLimiter(RateLimit(2))

    shared = limiter()
    assert lines(plan(shared, shared), plan(limiter(), limiter())) == [
        "map bury: step.order, inside out, [call of bury, rate_limit (shared, number 1)] -> "
        "[call of bury, rate_limit (shared, number 2)]"
    ]


def test_policies_around_a_row_are_told_apart():
    one, other = Step(embed).then(Step(bury).timeout(2)), Step(embed).then(Step(bury)).timeout(2)

    assert lines(NUMBERS.map(one), NUMBERS.map(other)) == [
        "map embed > bury: step.order, inside out, [call of embed, call#2 of bury, timeout] -> "
        "[call of embed, call#2 of bury, timeout around 2]"
    ]


def test_an_order_that_changes_is_told_also_if_a_policy_comes():
    one = Step(embed).timeout(2).circuit_breaker(CircuitBreaker())
    other = Step(embed).circuit_breaker(CircuitBreaker()).timeout(2).rate_limit(RateLimit(2))

    assert lines(NUMBERS.map(one), NUMBERS.map(other)) == [
        "map embed: step.order, inside out, [call of embed, timeout, circuit_breaker] -> "
        "[call of embed, circuit_breaker, timeout, rate_limit]",
        "map embed: rate_limit added: rate 2, per 1, burst 1, cost none",
    ]


def test_parts_that_a_user_called_as_the_layout_would_are_not_lost():
    """Two parts of one name: the first is compared with the first."""

    def plan(n):
        return NUMBERS.take(1, name="a").take(n, name="a").take(9, name="a#2")

    assert lines(plan(3), plan(4)) == ["take a#2: n 3 -> 4"]
    assert plan(3).diff(plan(3)) == ""


def test_a_bound_that_is_lost_is_told():
    one, other = NUMBERS.batch(3, max_delay=1), NUMBERS.batch(max_delay=1)

    assert lines(one, other)[-1] == "items in flight: at most 48 -> any number (numbers 48 -> any number)"


def test_what_is_no_pipeline_is_refused():
    with pytest.raises(TypeError, match=r"^Pipeline\.diff: other must be a Pipeline, not a str of length 4$"):
        NUMBERS.diff("plan")


def test_the_breaker_and_its_errors():
    one, other = (
        NUMBERS.map(STEP.circuit_breaker(CircuitBreaker(3, 20, on=on))) for on in (OSError, (OSError, KeyError))
    )

    assert lines(one, other) == [
        "map embed: circuit_breaker.on builtins:OSError -> [builtins:OSError, builtins:KeyError]"
    ]


# ---- groups of a limiter


TOKENS, ROOM = RateLimiter(RateLimit(5), FairShare()), PlaceLimiter(3, FairShare())


def in_group(limiter, *names):
    """Return a group of a limiter: each name with its weight, or without one."""
    for name in names:
        limiter = limiter.group(*name) if isinstance(name, tuple) else limiter.group(name)
    return limiter


@pytest.mark.parametrize("limiter", [TOKENS, ROOM], ids=["tokens", "places"])
def test_a_plan_says_which_group_of_a_limiter_it_uses(limiter):
    def plan(*names):
        group, step = in_group(limiter, *names), Step(embed)
        step = step.rate_limit(group, key=str) if limiter is TOKENS else step.places(group, key=str)
        return NUMBERS.map(step, concurrency=2)

    def said(pipeline):
        (line,) = (each for each in pipeline.describe().splitlines() if "shared" in each)
        return line.partition(", shared")[2]

    at_all, acme, bolt = plan(), plan(("acme", 3)), plan("bolt")
    deep = plan(("acme", 3), ("nightly", Fraction(1, 2)), (2, 1))
    path = "rate_limit.group" if limiter is TOKENS else "places.group"
    assert [said(each) for each in (at_all, acme, bolt, deep)] == [
        " by str",
        " in group 'acme' (weight 3) by str",
        " in group 'bolt' by str",
        " in group 'acme' (weight 3) / 'nightly' (weight 1/2) / 2 (weight 1) by str",
    ]
    assert acme.diff(bolt) == f"map embed: {path} [[acme, 3]] -> [[bolt, none]]"
    assert at_all.diff(acme) == f"map embed: {path} none -> [[acme, 3]]"
    assert acme.diff(deep) == f"map embed: {path} [[acme, 3]] -> [[acme, 3], [nightly, 1/2], [2, 1]]"
    assert acme.diff(plan(("acme", 4))) == f"map embed: {path} [[acme, 3]] -> [[acme, 4]]"
    for other in (pickle.loads(pickle.dumps(deep)), deep.with_settings({"embed": {"concurrency": 3}})):
        assert said(other) == said(deep)
        document = json.loads(other.describe(format="json"))
        (stage,) = (each for each in document["line"]["stages"] for each in each["operations"] if "steps" in each)
        assert stage["settings"][path] == [["acme", 3], ["nightly", "1/2"], [2, 1]]
    with pytest.raises(PlanError, match="must not be changed: it is shared"):
        acme.with_settings({"embed": {path: "bolt"}})
