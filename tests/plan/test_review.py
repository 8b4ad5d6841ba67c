"""What a review finds: each rule where it does harm, and nothing where it does not.

Mutants that die here: a rule that looks at one field only, not into a divert, a row, a started step; the order of two
policies reversed; the limit of a bound that is one off; a plain function that is told about; a rule that cannot be
ignored; findings in the order of the rules instead of the plan.
"""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import trio

from funcpipe_trio import (
    CircuitBreaker,
    CircuitOpen,
    FairShare,
    Finding,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    Retry,
    Step,
    fair_merge,
    processes,
    review,
    threads,
)
from funcpipe_trio._plan.rules import RULES
from tests.plan._plans import FIXED, bury, embed, parse

ROOT = Path(__file__).parents[2]
NUMBERS = Pipeline.from_iterable(range(3), name="numbers")
LIMIT, RETRY = RateLimit(2), Retry(3)
SAFE = Step(embed).timeout(2)
PLACES, OTHERS, FAIR = PlaceLimiter(2), PlaceLimiter(3), PlaceLimiter(4, FairShare())
WAITING, BREAKING = CircuitBreaker(wait=True), CircuitBreaker()
STARTED = Step(embed, idempotent=False).timeout(2).start()


def forged_retry(fn, name):
    """Return a step that retries what must not be called again, which no step does that its checks have passed."""
    step = Step(fn, name=name).retry(RETRY)
    call = step.plan.parts[0].inner[0]
    object.__setattr__(call, "fn", STARTED)
    return step


def channel(size):
    return Pipeline.from_channel(trio.open_memory_channel(size)[1], name="inbox")


def both(pipeline):
    return [(finding.rule, finding.where) for finding in review(pipeline)]


HARM = {
    "a call without a timeout": (NUMBERS.map(Step(embed)), [("timeout", "embed")]),
    "in a filter": (NUMBERS.filter(Step(embed)), [("timeout", "embed")]),
    "in a divert": (NUMBERS.map(embed, on_error=OnError.divert(Step(bury))), [("timeout", "embed")]),
    "where queues are full": (
        NUMBERS.fair_by(parse, max_keys=2, overflow=OnError.divert(Step(bury))),
        [("timeout", "parse")],
    ),
    "the second of a row": (NUMBERS.map(SAFE.then(Step(bury)), name="row"), [("timeout", "row")]),
    "a started step": (NUMBERS.map(Step(embed).start()), [("timeout", "embed")]),
    "a limit around a retry": (NUMBERS.map(SAFE.retry(RETRY).rate_limit(LIMIT)), [("limit-around-retry", "embed")]),
    "and around more": (
        NUMBERS.map(SAFE.retry(RETRY).timeout(9).rate_limit(LIMIT)),
        [("limit-around-retry", "embed")],
    ),
    "a started step that is retried": (
        NUMBERS.map(forged_retry(embed, "pay")),
        [("not-idempotent", "pay")],
    ),
    "a breaker that waits with tokens": (
        NUMBERS.map(SAFE.circuit_breaker(WAITING).rate_limit(LIMIT)),
        [("breaker-in-limit", "embed")],
    ),
    "places around a retry": (
        NUMBERS.map(SAFE.retry(RETRY).timeout(9).places(PLACES)),
        [("idle-places", "embed")],
    ),
    "places around a breaker that waits": (
        NUMBERS.map(SAFE.circuit_breaker(WAITING).places(PLACES)),
        [("idle-places", "embed")],
    ),
    "places in opposite orders": (
        NUMBERS.map(SAFE.places(PLACES).timeout(3).places(OTHERS), name="one")
        .map(SAFE.places(FAIR.group("g")))
        .map(SAFE.places(OTHERS).timeout(3).rate_limit(LIMIT).places(PLACES), name="other"),
        [("places-in-a-circle", "one"), ("places-in-a-circle", "other")],
    ),
    "places in opposite orders, in groups": (
        NUMBERS.map(SAFE.places(FAIR.group("a")).timeout(3).places(OTHERS), name="one").map(
            SAFE.places(OTHERS).timeout(3).places(FAIR), name="other"
        ),
        [("places-in-a-circle", "one"), ("places-in-a-circle", "other")],
    ),
    "an outage that is skipped": (
        NUMBERS.map(SAFE.circuit_breaker(BREAKING), on_error=OnError.skip()),
        [("open-circuit", "embed")],
    ),
    "or diverted": (
        NUMBERS.map(SAFE.circuit_breaker(BREAKING), on_error=OnError.divert(bury)),
        [("open-circuit", "embed")],
    ),
    "or emitted, with a retry inside": (
        NUMBERS.map(SAFE.retry(RETRY).circuit_breaker(BREAKING), on_error=OnError.emit()),
        [("open-circuit", "embed")],
    ),
    "with a retry that does not name it": (
        NUMBERS.map(SAFE.circuit_breaker(BREAKING).retry(RETRY), on_error=OnError.emit()),
        [("open-circuit", "embed")],
    ),
    "a batch without a size": (NUMBERS.batch(max_delay=1), [("batch-size", "batch")]),
    "by cost": (NUMBERS.batch(max_cost=3, cost=parse), [("batch-size", "batch")]),
    "a window": (NUMBERS.window(period=1), [("batch-size", "window")]),
    "a channel without a limit": (channel(math.inf), [("channel-size", "inbox")]),
    "in a fan-in, a branch, a trunk": (
        fair_merge({"a": NUMBERS.map(Step(embed)), "b": NUMBERS})
        .batch(max_delay=1)
        .broadcast({"x": lambda items: items.map(Step(bury)), "y": lambda items: items}),
        [("timeout", "embed"), ("batch-size", "batch"), ("timeout", "bury")],
    ),
    "all at once, in the order of the plan": (
        channel(math.inf).batch(max_delay=1).map(Step(embed).retry(RETRY).rate_limit(LIMIT)),
        [("channel-size", "inbox"), ("batch-size", "batch"), ("timeout", "embed"), ("limit-around-retry", "embed")],
    ),
}
HARMLESS = {
    "a plain async function": NUMBERS.map(embed, concurrency=3).filter(embed).flat_map(embed),
    "a timeout of one attempt, or of all": NUMBERS.map(SAFE).map(Step(embed).retry(RETRY).timeout(3)),
    "a row in one timeout": NUMBERS.map(Step(embed).then(Step(bury)).timeout(3)),
    "a call on a runner": NUMBERS.map(Step(parse).on(threads(2))).map(Step(parse).on(processes(2)).retry(RETRY)),
    "pure": NUMBERS.map(Step.pure(parse)),
    "a limit in a retry": NUMBERS.map(SAFE.rate_limit(LIMIT).retry(RETRY)),
    "one in it and one around it": NUMBERS.map(SAFE.rate_limit(LIMIT).retry(RETRY).rate_limit(LIMIT)),
    "places in a retry": NUMBERS.map(SAFE.places(PLACES).retry(RETRY)),
    "places around a breaker that fails": NUMBERS.map(SAFE.circuit_breaker(BREAKING).places(PLACES)),
    "places in one order": NUMBERS.map(SAFE.places(PLACES).timeout(3).places(OTHERS)).map(
        SAFE.places(PLACES).timeout(3).places(OTHERS)
    ),
    "places at one instant": NUMBERS.map(SAFE.places(PLACES).rate_limit(LIMIT).places(OTHERS)).map(
        SAFE.places(OTHERS).timeout(3).places(PLACES)
    ),
    "places one after the other": NUMBERS.map(SAFE.places(PLACES).then(SAFE.places(OTHERS)).timeout(9)).map(
        SAFE.places(OTHERS).then(SAFE.places(PLACES))
    ),
    "a retry of one attempt": NUMBERS.map(SAFE.retry(Retry(1)).rate_limit(LIMIT)),
    "a call that is not idempotent": NUMBERS.map(STARTED),
    "a breaker around the limit": NUMBERS.map(SAFE.rate_limit(LIMIT).circuit_breaker(WAITING)),
    "a breaker that fails in the limit": NUMBERS.map(SAFE.circuit_breaker(BREAKING).rate_limit(LIMIT)),
    "an outage that is waited for": NUMBERS.map(SAFE.circuit_breaker(WAITING), on_error=OnError.skip()),
    "an outage that ends the stream": NUMBERS.map(SAFE.circuit_breaker(BREAKING)),
    "few failures": NUMBERS.map(SAFE.circuit_breaker(BREAKING), on_error=OnError.skip(3)),
    "a part of failures": NUMBERS.map(SAFE.circuit_breaker(BREAKING), on_error=OnError.skip(max_ratio=0.1)),
    "a retry of the open circuit": NUMBERS.map(
        SAFE.circuit_breaker(BREAKING).retry(Retry(3, (OSError, CircuitOpen))), on_error=OnError.emit()
    ),
    "a retry that decides": NUMBERS.map(SAFE.circuit_breaker(BREAKING).retry(Retry(3, parse)), on_error=OnError.emit()),
    "a batch": NUMBERS.batch(3, max_delay=1).unbatch().window(3, period=1),
    "a channel": channel(10),
    "ticks": Pipeline.ticks(1).map(embed),
}


@pytest.mark.parametrize("case", HARM)
def test_what_does_harm_is_found(case):
    pipeline, expected = HARM[case]

    assert both(pipeline) == expected


@pytest.mark.parametrize("case", HARMLESS)
def test_what_does_none_is_not(case):
    assert review(HARMLESS[case]) == ()


def test_every_rule_is_shown_to_find_something():
    assert {rule for _pipeline, found in HARM.values() for rule, _where in found} | {"bound"} == {
        rule.name for rule in RULES
    }


def test_a_finding_says_what_why_and_what_to_write():
    (finding,) = review(NUMBERS.map(Step(embed).retry(RETRY), name="all texts"))

    assert finding == Finding(
        "timeout",
        "all texts",
        "the call of 'embed' has no timeout.",
        "A call that never returns holds its place, and in order all results behind it, for as long as the run lasts.",
        "Write .timeout(seconds) around the call, inside its retry.",
    )
    assert finding.describe() == (
        "all texts: the call of 'embed' has no timeout. [timeout] A call that never returns holds its place, and in "
        "order all results behind it, for as long as the run lasts. "
        "Write .timeout(seconds) around the call, inside its retry."
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.rule = "other"


@pytest.mark.parametrize("most", [33, 32, 1])
def test_a_bound_above_the_limit_is_found_with_what_holds_the_most(most):
    pipeline = NUMBERS.map(embed)
    found = review(pipeline, most)

    assert pipeline.max_in_flight == 33
    assert [(each.rule, each.where) for each in found] == ([] if most == 33 else [("bound", "plan")])
    if found:
        what = f"items in flight: at most 33, more than {most} (embed at most 17, numbers at most 16)."
        assert found[0].what == what


def test_no_bound_is_more_than_any_limit():
    found = review(NUMBERS.batch(max_delay=1), 10**9)

    assert [each.rule for each in found] == ["batch-size", "bound"]
    assert found[1].what == "items in flight: without limit, more than 1000000000 (numbers without limit)."


def test_rules_can_be_ignored():
    pipeline = NUMBERS.map(Step(embed)).batch(max_delay=1)

    assert [each.rule for each in review(pipeline, ignore=["timeout"])] == ["batch-size"]
    assert review(pipeline, ignore={rule.name for rule in RULES}) == ()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("plan",), TypeError, "review: pipeline must be a Pipeline, not a str of length 4"),
        ((NUMBERS, 0), ValueError, "review: max_in_flight must be >= 1, not 0"),
        ((NUMBERS, math.inf), TypeError, "review: max_in_flight must be an int >= 1, not inf"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        review(*arguments)


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^review: ignore must name rules, which are batch-size, .*, not 'speed'$"):
        review(NUMBERS, ignore=["speed"])


def test_a_plan_that_cannot_work_is_not_reviewed():
    with pytest.raises(PlanError, match="with concurrency, fn must be an async function"):
        review(NUMBERS.map(int, concurrency=2))


@pytest.mark.parametrize("name", FIXED)
def test_every_kind_of_plan_can_be_reviewed(name):
    assert all(isinstance(each, Finding) and "\n" not in each.describe() for each in review(FIXED[name](), 1))


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_readme_have_no_findings(number, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[number]
    monkeypatch.setattr(trio, "run", lambda main, run=trio.run, **how: run(main, **how) if how else None)
    names: dict = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), names)

    assert review(names["plan"] if number == 0 else names["make"]()) == ()
