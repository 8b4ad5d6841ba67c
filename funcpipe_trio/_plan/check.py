"""What makes a plan unable to work?

Each node checks itself when it is made; here the nodes are checked together. All problems are found before anything
runs, and reported in one error. Nothing of the user's is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

from .._base.errors import PlanError
from .._base.functions import is_async
from .._base.shown import line_of, named, type_name
from . import loops
from .nodes import Branch, FanIn, FanOut, Plan, Source, inner_plans, too_deep
from .operations import Map
from .settings import PlanPart, is_ours, rebuilt, visit


def check_plan(plan: Plan) -> None:
    """Raise one `PlanError` that lists every problem of the plan, if it has any."""
    if not plan.derived.is_sound:
        refuse_too_deep(plan)
    problems = [] if plan.derived.is_sound else [*_shape_problems(plan)]
    plan.derived.is_sound = not problems
    problems += _source_problems(plan)
    if problems:
        raise PlanError(*problems)


def claim_sources(plan: Plan) -> None:
    """Check the plan, then mark its one-shot sources as used by this run."""
    check_plan(plan)
    for source in _sources(plan):
        if source.claim is not None:
            source.claim.taken = True


def refuse_too_deep(plan: Plan) -> None:
    """Raise the `PlanError` of a plan that is nested too deeply for anything else to be checked."""
    problem = too_deep(plan)
    if problem is not None:
        raise PlanError(problem)


def shared_objects(plan: Plan) -> list[str]:
    """Return a warning for each object that is called as a function, and may keep state: all runs share it."""
    found: list[str] = []

    def look(part: PlanPart, path: str, value: Any) -> Any:
        shared = value.func if isinstance(value, partial) else value
        if path.rpartition(".")[2].partition("#")[0] in _CALLED and _may_keep_state(shared):
            of = f"{line_of(part.name)}: all runs of the plan share one {named(type_name(shared))} object"
            found.append(f"{of}, and what it keeps\n{_ITS_OWN}")
        return value

    def walk(_name: str, part: PlanPart) -> PlanPart:
        if not isinstance(part, Source):
            visit(part, lambda path, value, _kind: look(part, path, value))
        return part

    rebuilt(plan, walk)
    return found


_ITS_OWN = "Use .stateful() with its class, or make it in a function for .through(), to have one in each run."
_CALLED = {"fn", "key", "cost", "call", "pure", "step"}


def _may_keep_state(fn: Any) -> bool:
    """Whether a function of the user's is an object with attributes that can change."""
    kind = type(fn)
    if isinstance(fn, type) or is_ours(fn) or not callable(fn) or not inspect.isfunction(kind.__call__):
        return False
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:  # a step, say
        return False
    is_frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    has_slots = any(inspect.ismemberdescriptor(each) for base in kind.__mro__ for each in vars(base).values())
    return not is_frozen and (has_slots or bool(getattr(fn, "__dict__", None)))


def _plans(plan: Plan) -> Iterator[Plan]:
    for inner in inner_plans(plan):
        yield from _plans(inner)
    yield plan


def _sources(plan: Plan) -> Iterator[Source]:
    return (inner.origin for inner in _plans(plan) if isinstance(inner.origin, Source))


def _shape_problems(plan: Plan) -> Iterator[str]:
    """Find every problem except those of the sources."""
    yield from _operation_problems(plan)
    yield from _branch_problems(plan)
    yield from loops.problems(plan)


def _branch_problems(plan: Plan, around: tuple[Branch, ...] = ()) -> Iterator[str]:
    """Find branches used outside their function, or not exactly once inside; `around` are those around `plan`."""
    origin = plan.origin
    if isinstance(origin, FanIn):
        for _key, inner in origin.inputs:
            yield from _branch_problems(inner, around)
    elif isinstance(origin, FanOut):
        if not origin.branches:
            yield f"{origin.kind} {named(origin.name)}: at least one branch must be given"
        yield from _branch_problems(origin.trunk, around)
        for branch, inner in origin.branches:
            if origin.join == "zip" and (why := _cannot_be_zipped(inner, branch)) is not None:
                yield (
                    f'{origin.kind} {named(origin.name)}: with join="zip" branch {named(branch.key)} must give one '
                    f'result for each item, in their order, which {why} does not\nUse join="merge", or an operation '
                    "that does, such as map (in order, with on_error to stop or emit), tap, scan, enumerate, buffer."
                )
            used = sum(each.origin is branch for each in _plans(inner))
            if used != 1:
                yield (
                    f"{origin.kind} {named(origin.name)}: branch {named(branch.key)} must use the pipeline that its "
                    f"function is given exactly once, not {used} times"
                )
            yield from _branch_problems(inner, (*around, branch))
    elif isinstance(origin, Branch) and not any(origin is branch for branch in around):
        yield (
            f"branch {named(origin.key)} of {named(origin.fan_out)}: the pipeline that a branch function is given "
            "must not be used outside of what that function returns"
        )


def _cannot_be_zipped(plan: Plan, branch: Branch) -> str | None:
    """Return what in a branch may drop, add or reorder values; None if nothing does."""
    origin = plan.origin
    for operation in plan.operations:
        if not operation.is_one_to_one:
            return f"{operation.method.rpartition('.')[2]} {named(operation.name)}"
    if isinstance(origin, FanOut) and origin.join == "zip":
        return _cannot_be_zipped(origin.trunk, branch)
    if isinstance(origin, FanIn | FanOut):
        return f"{origin.kind} {named(origin.name)}"
    return None if isinstance(origin, Branch) else f"source {named(origin.name)}"


def _operation_problems(plan: Plan) -> Iterator[str]:
    for inner in _plans(plan):
        route = inner.origin.route if isinstance(inner.origin, FanOut) else None
        for operation in (*((route,) if route is not None else ()), *inner.operations):
            yield from operation.problems()
            if (
                isinstance(operation, Map)
                and operation.key is not None
                and not operation.awaits
                and not is_async(operation.fn)
            ):
                yield (
                    f"{operation.verb} {named(operation.name)}: key must not be given for a sync function: it runs for "
                    "one item at a time anyway.\nUse Step(fn).on(threads(4)), or an async function."
                )


def _source_problems(plan: Plan) -> Iterator[str]:
    seen: list[object] = []  # compared by identity: two sources may hold the same iterator
    for source in _sources(plan):
        claim = source.claim
        if claim is None:
            continue
        if claim.taken:
            yield (
                f"source {named(source.name)}: a one-shot {source.kind} was already used by a run. "
                "Use a callable that makes a new one each time."
            )
        elif any(source.origin.value is other for other in seen):
            yield (
                f"source {named(source.name)}: a one-shot {source.kind} appears twice in the plan. "
                "Use a callable that makes a new one each time."
            )
        seen.append(source.origin.value)


def describable(plan: Plan) -> None:
    """Raise the `PlanError` of a plan that can never work; one whose source was used can still be described."""
    refuse_too_deep(plan)
    problems = list(_shape_problems(plan))
    if problems:
        raise PlanError(*problems)
