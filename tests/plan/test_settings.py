"""A plan with other settings: what was named changes, all else stays, and nothing wrong gets through.

Mutants that die here: a name of the layout that is another one here; a policy that is not reached; a part that is made
anew although nothing in it changed; a change that is not checked; a shared limit that is changed for others; the first
unknown name instead of all.
"""

import copy
import json
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, FairShare, OnError, Pipeline, PlanError, RateLimit, Retry, Step, fair_merge, threads
from funcpipe_trio._plan.layout import lay_out
from funcpipe_trio._plan.settings import with_settings
from funcpipe_trio.testing import run_virtual
from tests.plan._plans import embed, factories, parse, steps

some = settings(max_examples=60, deadline=None)
NUMBERS = Pipeline.from_iterable(range(3), name="numbers")


def known(pipeline):
    """Every name, with its settings and their values."""
    found = {}

    def look(line):
        origin = line["origin"] or {}
        for each in [origin["trunk"]] if "trunk" in origin else []:
            look(each)
        for each in origin.get("inputs", origin.get("branches", [])):
            look(each["line"])
        if "settings" in origin:
            found[origin["name"]] = origin["settings"]
        for stage in line["stages"]:
            for part in stage["operations"]:
                found[part["name"]] = part["settings"]

    look(json.loads(pipeline.describe("json"))["line"])
    return found


def test_settings_of_every_kind_can_be_changed():
    """Each is what the same program with the other number would give."""

    def plan(concurrency, attempts, rate, places, size, weight, held, wait):
        step = Step(parse).on(threads(places)).rate_limit(RateLimit(rate, burst=1)).timeout(rate)
        line = NUMBERS.map(step.retry(Retry(attempts, OSError, Backoff(wait))).timeout(60), concurrency=concurrency)
        share = FairShare({"a": weight}, capacity=held)
        return (
            fair_merge({"a": line.buffer(held, name="q"), "b": NUMBERS}, share).batch(size, max_delay=wait).take(size)
        )

    before, after = plan(2, 3, 4, 5, 6, 7, 8, 9), plan(12, 13, 14, 15, 16, 17, 18, 19)
    changed = before.with_settings(
        {
            "parse": {
                "concurrency": 12,
                "retry.attempts": 13,
                "retry.backoff.initial": 19,
                "rate_limit.rate": 14,
                "timeout": 14,
                "runner.limit": 15,
            },
            "q": {"capacity": 18},
            "fair_merge": {"weights": {"a": 17}, "capacity": 18},
            "batch": {"max_items": 16, "max_delay": 19},
            "take": {"n": 16},
        }
    )

    assert changed == after
    assert changed.describe("json") == after.describe("json")
    assert before == plan(2, 3, 4, 5, 6, 7, 8, 9)


@some
@given(factories)
def test_no_change_is_the_same_plan(make):
    """Also where every setting is given the value that it has."""
    pipeline = make()
    plan = pipeline._plan

    assert with_settings(plan, {}) is plan
    assert pipeline.with_settings({}) == pipeline


@some
@given(factories)
def test_all_names_of_the_plan_are_known(make):
    """Those of its text and its document are those that can be set, however parts are called alike."""
    pipeline = make()

    with pytest.raises(PlanError) as caught:
        pipeline.with_settings({"no such name": {"x": 1}})
    (problem,) = caught.value.problems
    assert problem.startswith("Pipeline.with_settings: settings['no such name'] must name a part of the plan; ")
    for name in [*known(pipeline), *(stage.name for stage in lay_out(pipeline._plan).all_stages())]:
        with pytest.raises(PlanError, match=re.escape(f"settings[{name!r}]['no such setting'] must name a setting; ")):
            pipeline.with_settings({name: {"no such setting": 1}})


@some
@given(factories, st.data())
def test_any_number_can_be_changed_and_only_that_changes(make, data):
    """What the difference then says is exactly the setting, by its name (and the bound, and a weight by its input)."""
    pipeline = make()
    numbers = [
        (name, path, value)
        for name, values in known(pipeline).items()
        for path, value in values.items()
        if type(value) is int and value > 0 and not (path == "concurrency" and values.get("latest"))  # which must be 1
    ]
    if not numbers:
        return
    name, path, value = data.draw(st.sampled_from(numbers))
    try:
        changed = pipeline.with_settings({name: {path: value + 1}})
    except PlanError as refused:
        assert "must not be changed: it is shared" in str(refused)
        return
    except (TypeError, ValueError) as refused:
        assert str(refused).startswith(
            ("Pipeline.", "Backoff", "RateLimit", "RollingLimit", "CircuitBreaker", "OnError")
        )
        return

    lines = pipeline.diff(changed).splitlines()
    assert any(f" {path} {value} -> {value + 1}" in f" {line.partition(': ')[2]}" for line in lines)
    assert changed.with_settings({name: {path: value}}).describe("json") == pipeline.describe("json")


def test_parts_called_alike_are_told_apart_as_in_the_text():
    pipeline = NUMBERS.map(embed, concurrency=1).map(embed, concurrency=1).take(2)

    changed = pipeline.with_settings({"embed#2": {"concurrency": 5}})
    assert changed == NUMBERS.map(embed, concurrency=1).map(embed, concurrency=5).take(2)


def test_a_buffer_is_set_by_the_stage_before_it_or_by_its_name():
    pipeline = NUMBERS.map(embed).filter(parse).buffer(3, name="q").map(embed)
    expected = NUMBERS.map(embed).filter(parse).buffer(9, overflow="drop_oldest", name="q").map(embed)

    for name in ("embed", "q"):
        assert pipeline.with_settings({name: {"capacity": 9, "overflow": "drop_oldest"}}) == expected


def test_a_branch_and_a_trunk_are_reached():
    def plan(capacity, concurrency, inner):
        return NUMBERS.map(embed, concurrency=concurrency, name="trunk").broadcast(
            {"a": lambda items: items.buffer(capacity).map(embed, concurrency=inner, name="inner")}
        )

    changed = plan(1, 2, 3).with_settings(
        {"trunk": {"concurrency": 12}, "broadcast.a": {"capacity": 11}, "inner": {"concurrency": 13}}
    )
    assert changed.describe("json") == plan(11, 12, 13).describe("json")
    assert changed.max_in_flight == plan(11, 12, 13).max_in_flight


def test_several_policies_of_a_kind_are_numbered_from_the_inside():
    def step(inner, outer):
        return Step(embed).timeout(inner).retry(Retry(2)).timeout(outer)

    pipeline = NUMBERS.map(step(1, 2), on_error=OnError.divert(step(3, 4)))
    changed = pipeline.with_settings({"embed": {"timeout": 5, "timeout#2": 6, "on_error.timeout#2": 7}})
    assert changed == NUMBERS.map(step(5, 6), on_error=OnError.divert(step(3, 7)))


def test_the_policy_for_errors_can_be_another_one():
    pipeline = NUMBERS.map(embed)

    changed = pipeline.with_settings({"embed": {"on_error": OnError.skip(3)}})
    assert changed == NUMBERS.map(embed, on_error=OnError.skip(3))
    assert changed.with_settings({"embed": {"on_error.max_failures": 4}}) == NUMBERS.map(
        embed, on_error=OnError.skip(4)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"concurrency": 0}, "Pipeline.map: concurrency must be >= 1, not 0"),
        ({"concurrency": 2.5}, "Pipeline.map: concurrency must be an int >= 1, not 2.5"),
        (
            {"on_error": "skip"},
            "Pipeline.map: on_error must be an OnError, not a str of length 4\nUse OnError.skip(), say.",
        ),
        ({"timeout": -1}, "Step.timeout: seconds must be a number of seconds > 0, finite, not -1"),
        ({"retry.attempts": 0}, "Retry: attempts must be >= 1, not 0"),
        (
            {"idempotent": False},
            "step 'embed': a step with idempotent=False must not be retried: a failed call may have had its effect.\n"
            "Use idempotent=True if calling it again does no harm.",
        ),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_where_it_belongs(values, message):
    """By the check that refuses it when it is first written."""
    pipeline = NUMBERS.map(Step(embed).timeout(2).retry(Retry(2)))

    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        pipeline.with_settings({"embed": values})


def test_all_unknown_names_are_told_at_once():
    pipeline = NUMBERS.map(embed, concurrency=2, key=parse).take(1)

    with pytest.raises(PlanError) as caught:
        pipeline.with_settings({"embde": {"concurrency": 1}, "embed": {"speed": 1, "key": 2}, "take": {"n": 3}})
    known = "'concurrency', 'ordered', 'per_key', 'key_rate', 'waiting', 'on_error', 'latest'"
    assert caught.value.problems == (
        "Pipeline.with_settings: settings['embde'] must name a part of the plan; the parts are 'numbers', 'embed', "
        "'take'",
        f"Pipeline.with_settings: settings['embed']['speed'] must name a setting; the settings of 'embed' are {known}",
        "Pipeline.with_settings: settings['embed']['key'] must name a setting, not a function; the settings of 'embed' "
        f"are {known}",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [],
            "Pipeline.with_settings: settings must be a mapping of names to mappings of settings, "
            "not a list of length 0",
        ),
        ({"take": 3}, "Pipeline.with_settings: settings['take'] must be a mapping of names to values, not 3"),
    ],
    ids=["list", "number"],
)
def test_what_is_no_mapping_is_refused(given, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        NUMBERS.take(2).with_settings(given)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("full", "rate_limit.rate"),
        ("both", "rate_limit.weights"),
        ("both", "places"),
        ("both", "places.default_weight"),
        ("both", "places#2"),
        ("embed", "timeout"),
    ],
)
def test_what_is_shared_with_others_is_not_changed(name, path):
    """Limiters and a started step belong to others, too."""
    with pytest.raises(
        PlanError, match=rf"^Pipeline\.with_settings: settings\['{name}'\]\['{path}'\] must not be changed: "
    ):
        steps().with_settings({name: {path: 9}})


def test_a_limit_beside_shared_ones_can_be_changed():
    """The functions, the keys and the limiters stay."""
    pipeline = steps()

    changed = pipeline.with_settings({"both": {"rate_limit#2.rate": 7}})
    assert pipeline.diff(changed) == "map both: rate_limit#2.rate 2 -> 7"


def test_what_a_stage_has_beside_a_started_step_can_be_changed():
    started = Step(embed).timeout(2).start()

    changed = NUMBERS.filter(started, concurrency=2).with_settings({"embed": {"concurrency": 5}})
    assert changed == NUMBERS.filter(started, concurrency=5)


def test_only_ticks_have_a_period():
    assert Pipeline.ticks(1, name="t").with_settings({"t": {"period": 2}}) == Pipeline.ticks(2, name="t")
    with pytest.raises(
        PlanError, match=r"'numbers'\]\['period'\] must name a setting; the settings of 'numbers' are none$"
    ):
        NUMBERS.with_settings({"numbers": {"period": 2}})


def test_a_changed_plan_runs_with_its_settings():
    """It is a plan like any other; its one-shot source is the same one."""
    pipeline = Pipeline.from_iterable(iter(range(9))).take(3)
    changed = pipeline.with_settings({"take": {"n": 5}})

    assert run_virtual(changed.collect) == [0, 1, 2, 3, 4]
    with pytest.raises(PlanError, match="already used by a run"):
        pipeline.check()


def test_fractions_are_weights():
    pipeline = fair_merge({"a": NUMBERS, "b": NUMBERS})
    changed = pipeline.with_settings({"fair_merge": {"weights": {"a": Fraction(1, 3)}}})

    assert changed == fair_merge({"a": NUMBERS, "b": NUMBERS}, FairShare({"a": Fraction(1, 3)}))
    with pytest.raises(PlanError, match=r"^fair_merge: weights\['c'\] must name an input; the inputs are 'a', 'b'$"):
        pipeline.with_settings({"fair_merge": {"weights": {"c": 1}}})
    assert copy.copy(changed) is changed
