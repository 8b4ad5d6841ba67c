"""The JSON of a plan: complete, stable, plain, and no word about items.

Mutants that die here: an address, a repr or an item in it; an order that depends on a hash; a policy, a field or a part
that is left out; 8 and 8.0 told apart; infinity or a fraction as no JSON; a bound that is not the sum of its parts.
"""

import json
import math
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings

from funcpipe_trio import Backoff, FairShare, Pipeline, RateLimit, Retry, Step, concat, fair_merge
from funcpipe_trio._plan import operations, timing, windows
from funcpipe_trio._plan.document import code, path_of, plain
from funcpipe_trio._plan.fair_by import FairBy
from funcpipe_trio.testing.strategies import pipelines
from tests._kit import Opaque
from tests.plan._plans import FIXED, embed, factories, parse, steps

some = settings(max_examples=60, deadline=None)


def written(pipeline):
    return json.loads(pipeline.describe("json"))


def parts_of(line):
    """Every operation and source in a line of a document."""
    origin = line["origin"] or {}
    inner = [each["line"] for each in origin.get("inputs", origin.get("branches", []))]
    for each in ([origin["trunk"]] if "trunk" in origin else []) + inner:
        yield from parts_of(each)
    for stage in line["stages"]:
        yield from stage["operations"]


@some
@given(factories)
def test_two_builds_of_one_factory_are_equal(make):
    assert make().describe("json") == make().describe("json")


@some
@given(pipelines(depth=2))
def test_a_copy_of_any_pipeline_has_the_same_document(pipeline):
    """Nothing in it depends on where in memory something is."""
    assert pickle.loads(pickle.dumps(pipeline)).describe("json") == pipeline.describe("json")


def test_no_order_depends_on_hashes():
    """Weights given as they come out of a set, in processes whose strings have other hashes."""
    code = """
from funcpipe_trio import *
keys = {f"tenant {n}" for n in range(20)}
line = Pipeline.from_iterable(range(3), name="numbers").fair_by(str, FairShare({key: 2 for key in keys}), max_keys=3)
print(line.describe("json"))
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[2],
            capture_output=True, check=True, text=True,
        ).stdout
        for seed in "123"
    }  # fmt: skip

    assert len(said) == 1


@pytest.mark.parametrize("name", FIXED)
def test_it_is_plain_json_without_addresses(name):
    """Strict JSON: no NaN, no infinity; no address, no private module of the package."""
    text = FIXED[name]().describe("json")

    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert not re.search(r"0x[0-9a-f]{6}|funcpipe_trio\._", text)
    assert text.isascii()


def test_items_are_not_looked_at():
    """Whatever holds them: sources, states, callables that were made with them."""
    secret = Opaque()
    pipeline = (
        Pipeline.from_iterable([secret, "card 1234"])
        .scan(parse, ["card 1234"])
        .map(partial(parse, "card 1234"))
        .map("card 1234".strip)
    )

    text = pipeline.describe("json")
    assert "1234" not in text
    assert written(pipeline)["line"]["stages"][0]["operations"][0]["functions"] == {"origin": {"type": "builtins:list"}}


def test_every_field_of_every_operation_is_in_it():
    """What a new operation or field says is in the document by itself."""
    kinds = [
        kind
        for module in (operations, timing, windows)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, operations.Operation) and kind.verb
    ]
    seen = {}
    for make in FIXED.values():
        for part in parts_of(written(make())["line"]):
            seen.setdefault(part.get("operation"), set()).update(part["settings"], part["functions"])
    renamed = {"count": "n", "size": "n"}

    for kind in {*kinds, FairBy} - {operations.Buffer, operations.Route}:
        method = "fair_by" if kind is FairBy else kind.verb
        told = {path.partition(".")[0] for path in seen[method]}
        asked = {renamed.get(each.name, each.name) for each in fields(kind)} - {"name", "fn", "share"}
        assert asked <= told, method


def test_every_policy_of_a_step_has_its_values():
    """By the names of the methods, numbered from the inside out; what lies around what is told apart."""
    full = next(each for each in parts_of(written(steps())["line"]) if each["name"] == "full")

    assert full["settings"] == {
        "latest": False,
        "idempotent": True,
        "rate_limit.rate": 3,
        "rate_limit.per": 1,
        "rate_limit.burst": 2,
        "timeout": 8,
        "retry.attempts": 4,
        "retry.backoff.initial": 0.5,
        "retry.backoff.factor": 2,
        "retry.backoff.maximum": 8,
        "retry.backoff.jitter": 0,
        "retry.backoff.seed": 7,
        "retry.pauses_limit": False,
        "circuit_breaker.failures": None,
        "circuit_breaker.reset_after": 2,
        "circuit_breaker.ratio": 0.25,
        "circuit_breaker.window": 9,
        "circuit_breaker.wait": True,
        "timeout#2": 30,
        "concurrency": 4,
        "ordered": True,
        "per_key": 1,
        "key_rate": None,
        "waiting": 0,
        "retries_elsewhere": 0,
        "on_error": "skip",
        "on_error.max_failures": 5,
        "on_error.max_ratio": 0.1,
        "on_error.min_items": 20,
    }
    here = "tests.plan._plans"
    assert {path: value for path, value in full["functions"].items() if value is not None} == {
        "call": f"{here}:embed",
        "rate_limit.cost": f"{here}:parse",
        "retry.on": "builtins:OSError",
        "retry.retry_after": f"{here}:parse",
        "circuit_breaker.on": ["builtins:KeyError", "builtins:OSError"],
        "key": f"{here}:parse",
    }
    inside, around = full["steps"]["fn"]["parts"], []
    while "policy" in inside[0]:
        around.append((inside[0]["policy"], inside[0]["shared"]))
        inside = inside[0]["around"]
    assert around == [
        ("timeout#2", None),
        ("circuit_breaker", None),
        ("retry", None),
        ("timeout", None),
        ("rate_limit", 1),
    ]


def test_limits_with_shares_have_their_values():
    """Weights and functions; groups of one limiter and the limiter itself are told apart."""
    both = next(each for each in parts_of(written(steps())["line"]) if each["name"] == "both")
    here = "tests.plan._plans:parse"

    assert {path: value for path, value in both["settings"].items() if path.startswith(("rate_limit", "places"))} == {
        "rate_limit.rate": 5,
        "rate_limit.per": 1,
        "rate_limit.burst": 2,
        "rate_limit.weights": [["('b', 1)", 2], ["a", 3]],
        "rate_limit.default_weight": 2,
        "rate_limit.group": [["b", None]],
        "rate_limit#2.rate": 2,
        "rate_limit#2.per": 1,
        "rate_limit#2.burst": 1,
        "places": 3,
        "places.weights": [["a", 3]],
        "places.default_weight": 1,
        "places#2": 9,
    }
    assert {path: value for path, value in both["functions"].items() if value is not None} == {
        "call": "tests.plan._plans:embed",
        **dict.fromkeys(("rate_limit.key", "rate_limit.settle", "places.key"), here),
    }


def test_what_is_shared_has_one_number():
    """A limiter and a started step that two places use are the same number in both."""
    parts = {each["name"]: each for each in parts_of(written(steps())["line"])}
    text = json.dumps(parts["row"])

    assert '"shared": 1' in text
    assert parts["embed"]["steps"]["fn"]["started"] == parts["again"]["steps"]["fn"]["parts"][0]["around"][0]["started"]


KEEPING = ("merge_sorted", "zip_latest")
"""Fan-ins that hold items of their inputs themselves."""


@some
@given(factories)
def test_the_bound_is_the_sum_of_its_parts(make):
    """Of a row of stages and what they take from; a fan-in adds its inputs, or for `concat` takes the largest."""
    pipeline = make()
    document = written(pipeline)

    def check(line):
        origin = line["origin"] or {"max_in_flight": 0}
        inner = [each["line"] for each in origin.get("inputs", [])]
        for each in [*inner, *([origin["trunk"]] if "trunk" in origin else [])]:
            check(each)
        if inner:
            held = [each["max_in_flight"] for each in inner]
            if None not in held:
                known = max(held) if origin["fan_in"] == "concat" else sum(held)
                assert origin["max_in_flight"] == known or (
                    origin["fan_in"] in KEEPING and origin["max_in_flight"] > known
                )
        held = [origin["max_in_flight"], *(stage["max_in_flight"] for stage in line["stages"])]
        assert line["max_in_flight"] == (None if None in held else sum(held))

    check(document["line"])
    bound = pipeline.max_in_flight
    assert document["max_in_flight"] == (None if bound == math.inf else bound)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8.0, 8),
        (0.5, 0.5),
        (math.inf, None),
        (Fraction(3, 2), "3/2"),
        (Fraction(4, 2), 2),
        (10**5000, hex(10**5000)),
        (True, True),
        ("word", "word"),
        ({"b": 1, "a": Fraction(1, 3), 2: 5}, [["a", "1/3"], ["b", 1], [2, 5]]),
        ([1], {"type": "builtins:list"}),
    ],
    ids=lambda each: type(each).__name__,
)
def test_values_are_plain(value, expected):
    """Numbers that are equal read alike; what JSON lacks is null, or text."""
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


class Callable_:
    def __call__(self, item):
        raise AssertionError("a plan runs nothing")

    @classmethod
    def make(cls):
        raise AssertionError("a plan runs nothing")


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (parse, "tests.plan._plans:parse"),
        (str.strip, "builtins:str.strip"),
        (len, "builtins:len"),
        ([].append, "builtins:list.append"),
        (partial(parse, 1), "partial of tests.plan._plans:parse"),
        (Callable_(), f"{__name__}:Callable_ object"),
        (Callable_.make, f"{__name__}:Callable_.make"),
        (int, "builtins:int"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_functions_are_named_by_where_they_are_from(fn, expected):
    assert path_of(fn) == code(fn) == expected


def test_equal_plans_have_equal_documents():
    """Also where the user wrote other numbers for the same."""

    def plan(rate, weights):
        line = Pipeline.from_iterable(range(3)).map(Step(embed).rate_limit(RateLimit(rate, burst=1)))
        return fair_merge({"a": line, "b": concat()}, FairShare(weights))

    one, other = plan(8, {"a": 3, "b": 2}), plan(8.0, {"b": 2, "a": Fraction(3)})
    assert one.describe("json") == other.describe("json")
    retried = [Pipeline.from_iterable(()).map(Step(embed).retry(Retry(2, OSError, Backoff(each)))) for each in (1, 1.0)]
    assert retried[0].describe("json") == retried[1].describe("json")


def test_a_used_source_can_still_be_described():
    """Its text says that it works once, not whether it did."""
    pipeline = Pipeline.from_iterable(iter([1]))
    before = pipeline.describe("json")

    assert written(pipeline)["line"]["stages"][0]["operations"][0]["once"] is True
    assert pipeline.describe("json") == before
