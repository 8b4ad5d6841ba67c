"""Plans that are made in a loop: joined where that says the same, refused where Python's stack would not do.

Mutants that die here: a join that is kept although it is unnamed, or taken apart although it has a name, an operation
behind it, or is of another kind; a depth that is counted along one side only, or not in the trunk, or not in the
branches; a question to a plan (its hash, its equal, its text, its bound, its pickle) that is recursive before it was
looked at; a bound on the depth that a caller deep in a stack of its own does not have.
"""

import functools
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Pipeline,
    PlanError,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio._plan.nodes import DEEPEST
from funcpipe_trio.testing import Scenario, cancel_everywhere, run_virtual

MESSAGE = (
    f"the plan: fan-ins and fan-outs must lie at most {DEEPEST} deep within each other\n"
    "Use one call for all pipelines, as in concat(*pipelines) or fair_merge({...}), instead of one for each."
)


def source(number):
    return Pipeline.from_iterable((number,))


def only(items):
    return {"only": items}


# ---- joined


trees = st.recursive(st.integers(0, 99).map(source), lambda inner: st.lists(inner, max_size=3), max_leaves=8)


def leaves_of(tree):
    return [leaf for each in tree for leaf in leaves_of(each)] if isinstance(tree, list) else [tree]


def joined(join, tree):
    return join(*(joined(join, each) for each in tree)) if isinstance(tree, list) else tree


@pytest.mark.parametrize("join", [concat, merge])
@given(tree=st.lists(trees, max_size=4))
@settings(deadline=None, max_examples=50)
def test_however_it_is_made_it_is_one(join, tree):
    """The same value, the same text, the same items; for a merge, equal shares for all."""
    made, flat = joined(join, tree), join(*leaves_of(tree))

    assert made == flat
    assert hash(made) == hash(flat)
    assert made.describe() == flat.describe()
    found, expected = run_virtual(made.collect), run_virtual(flat.collect)
    assert (found if join is concat else sorted(found)) == (expected if join is concat else sorted(expected))


@pytest.mark.parametrize(("join", "other"), [(concat, merge), (merge, concat)])
def test_what_says_more_stays_one_input(join, other):
    a, b, c = map(source, range(3))
    for inner in (
        join(a, b, name="pair"),
        join(a, b).map(abs),
        join(a, b).buffer(3),
        other(a, b),
        zip_pipelines(a, b),
        fair_merge({"a": a, "b": b}),
    ):
        plan = join(inner, c)

        assert plan != join(a, b, c)
        assert sum(line.lstrip().startswith("input ") for line in plan.describe().splitlines()) == 4
        assert join(plan) == plan  # which has no name

    assert join(join(a, b), c, name="all") == join(a, b, c, name="all")


def test_the_inputs_of_a_joined_merge_have_equal_shares():
    parts = [Pipeline.from_iterable([name] * 40) for name in "abc"]
    items = run_virtual(merge(merge(*parts[:2]), parts[2]).collect)

    assert [items[:60].count(name) for name in "abc"] == [20, 20, 20]


# ---- too deep


def nested_branches(depth):
    def branch(items):
        nonlocal depth
        depth -= 1
        return items.broadcast(only(branch)) if depth > 0 else items

    return source(0).broadcast(only(branch))


LOOPS = {
    "concat with names": lambda plan: concat(plan, source(1), name="both"),
    "concat, on the other side": lambda plan: concat(source(1), plan, name="both"),
    "merge with names": lambda plan: merge(source(1), plan, name="both"),
    "merge of concat": lambda plan: merge(concat(plan.buffer(2), name="one"), source(1)).take(9),
    "zip_pipelines": lambda plan: zip_pipelines(plan, source(1)),
    "zip_latest": lambda plan: zip_latest(plan, source(1)),
    "prefer": lambda plan: prefer(source(1), plan, at_least=2),
    "merge_sorted": lambda plan: merge_sorted(plan, source(1)),
    "fair_merge": lambda plan: fair_merge({"a": source(1), "b": plan}),
    "broadcast": lambda plan: plan.broadcast({"a": lambda items: items, "b": lambda items: items.take(0)}),
    "broadcast, zipped": lambda plan: plan.broadcast(only(lambda items: items), join="zip"),
    "balance": lambda plan: plan.balance(only(lambda items: items)),
    "partition": lambda plan: plan.partition(lambda item: "only", only(lambda items: items)),
}
LEVELS = {name: 2 if name == "merge of concat" else 1 for name in LOOPS}


def deep(name, depth):
    """A plan that is nested at least so deep."""
    if name == "branches":
        return nested_branches(depth)
    return functools.reduce(lambda plan, _: LOOPS[name](plan), range(-(-depth // LEVELS[name])), source(0))


async def opened(plan):
    async with plan.open() as run:
        return [item async for item in run]


WAYS = {
    "check": lambda plan: plan.check(),
    "describe": lambda plan: plan.describe(),
    "max_in_flight": lambda plan: plan.max_in_flight,
    "collect": lambda plan: run_virtual(plan.collect),
    "open": lambda plan: run_virtual(opened, plan),
    "pickle": lambda plan: pickle.loads(pickle.dumps(plan)) if is_picklable(plan) else None,
}


def is_picklable(plan):
    """Whether no lambda is in it."""
    return "route" not in plan.describe()


def as_from_a_deep_stack(call, depth):
    return as_from_a_deep_stack(call, depth - 1) if depth else call()


every_nesting = pytest.mark.parametrize("name", [*LOOPS, "branches"])


@every_nesting
@pytest.mark.parametrize("way", WAYS)
def test_what_is_just_deep_enough_works_for_callers_deep_in_a_stack(name, way):
    plan = deep(name, DEEPEST)
    as_from_a_deep_stack(lambda: WAYS[way](plan), sys.getrecursionlimit() // 2 - 100)


@every_nesting
@pytest.mark.parametrize("depth", [DEEPEST + 1, 1500])
def test_what_is_too_deep_is_a_problem_of_the_plan(name, depth):
    """And no more than that: it has a hash, an equal and a text."""
    if name == "branches" and depth > 120:
        depth = 120  # functions that call each other; deeper, they have no stack themselves
    plan = deep(name, depth)
    for way in WAYS.values():
        with pytest.raises(PlanError) as raised:
            way(plan)
        assert str(raised.value) == MESSAGE

    assert (plan == plan.take(1), hash(plan) == hash(plan), repr(plan)) == (False, True, "<Pipeline, nested too deep>")
    twin = plan.take(1)
    assert plan.take(1) == twin
    assert hash(plan.take(1)) == hash(twin)


def test_equal_plans_are_equal_however_deep_and_others_are_not():
    parts = [source(number) for number in range(1500)]
    one, same = functools.reduce(zip_pipelines, parts), functools.reduce(zip_pipelines, parts)
    other = functools.reduce(zip_pipelines, [source(0), *parts[1:]])

    assert one == same
    assert hash(one) == hash(same)
    assert one != other  # by a source at the very bottom


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (concat, merge),
        (lambda a, b: merge(a, b), lambda a, b: merge(b, a)),
        (lambda a, b: concat(a, b), lambda a, b: concat(a, b, name="both")),
        (lambda a, b: zip_pipelines(a, b), lambda a, b: zip_pipelines(a, b, strict=True)),
        (lambda a, b: merge_sorted(a, b), lambda a, b: merge_sorted(a, b, reverse=True)),
        (lambda a, b: prefer(a, b, at_least=2), lambda a, b: prefer(a, b, at_least=3)),
        (lambda a, b: merge_sorted(a, b), lambda a, b: merge_sorted(a, b, key=abs)),
        (lambda a, b: fair_merge({"a": a, "b": b}), lambda a, b: fair_merge({"a": a, "c": b})),
        (lambda a, b: merge(a, b), lambda a, b: merge(a, b, b)),
        (lambda a, b: merge(a, b), lambda a, b: a),
        (lambda a, b: merge(a, b), lambda a, b: merge(a, b.take(1))),
        (lambda a, b: a.broadcast(only(lambda p: p)), lambda a, b: b.broadcast(only(lambda p: p))),
        (lambda a, b: a.broadcast(only(lambda p: p)), lambda a, b: a.broadcast(only(lambda p: p), join="zip")),
        (lambda a, b: a.broadcast(only(lambda p: p)), lambda a, b: a.broadcast(only(lambda p: p.take(1)))),
        (lambda a, b: a.broadcast(only(lambda p: p)), lambda a, b: a.broadcast({"other": lambda p: p})),
    ],
)
def test_each_part_of_a_nested_plan_is_compared(one, other):
    a, b = source(0), source(1)

    assert one(a, b) == one(a, b)
    assert hash(one(a, b)) == hash(one(a, b))
    assert one(a, b) != other(a, b)


def test_the_test_kit_says_so_too():
    plan = deep("zip_pipelines", 300)
    with pytest.raises(Exception, match=r"fan-ins and fan-outs must lie at most"):
        cancel_everywhere(Scenario(lambda: plan, name="too deep"))
