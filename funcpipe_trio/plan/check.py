"""What makes a plan unable to work: all of it is found before anything runs, and said at once."""

from __future__ import annotations

from collections.abc import Iterator

from .._errors import PlanError
from .nodes import FanIn, Plan, Source
from .operations import Map, is_async

__all__ = ["check_plan", "claim_sources", "describable"]


def check_plan(plan: Plan) -> None:
    """Raise one `PlanError` that lists every problem of the plan, if there is one."""
    problems = [*_operation_problems(plan), *_source_problems(plan)]
    if problems:
        raise PlanError(*problems)


def claim_sources(plan: Plan) -> None:
    """Check the plan, then mark its one-shot sources as used by this run."""
    check_plan(plan)
    for source in _sources(plan):
        if source.claim is not None:
            source.claim.taken = True


def _plans(plan: Plan) -> Iterator[Plan]:
    if isinstance(plan.origin, FanIn):
        for _key, inner in plan.origin.inputs:
            yield from _plans(inner)
    yield plan


def _sources(plan: Plan) -> Iterator[Source]:
    return (inner.origin for inner in _plans(plan) if isinstance(inner.origin, Source))


def _operation_problems(plan: Plan) -> Iterator[str]:
    for inner in _plans(plan):
        for operation in inner.operations:
            yield from operation.problems()
            if isinstance(operation, Map) and not is_async(operation.fn):
                yield from _sync_map_problems(operation)


def _sync_map_problems(operation: Map) -> Iterator[str]:
    where, use = f"map {operation.name!r}", "Use Step(fn).on(threads(4)), or an async function."
    if operation.concurrency > 1:
        yield (
            f"{where}: concurrency must be 1 for a sync function, not {operation.concurrency}: "
            f"it runs in the task of its stage.\n{use}"
        )
    if operation.key is not None:
        yield f"{where}: key must not be given for a sync function: it runs for one item at a time anyway.\n{use}"


def _source_problems(plan: Plan) -> Iterator[str]:
    seen: list[object] = []  # compared by identity: an iterator in two sources is one all the same
    for source in _sources(plan):
        claim = source.claim
        if claim is None:
            continue
        if claim.taken:
            yield (
                f"source {source.name!r}: a one-shot {source.kind} was already used by a run. "
                "Use a callable that makes a new one each time."
            )
        elif any(source.origin.value is other for other in seen):
            yield (
                f"source {source.name!r}: a one-shot {source.kind} appears twice in the plan. "
                "Use a callable that makes a new one each time."
            )
        seen.append(source.origin.value)


def describable(plan: Plan) -> None:
    """Raise the `PlanError` of a plan that could never work; one whose source was used can still be shown."""
    problems = list(_operation_problems(plan))
    if problems:
        raise PlanError(*problems)
