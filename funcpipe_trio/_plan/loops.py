"""How does a stream go round? `Again`, as data: the operation at the end of a loop's body.

A loop is a fan-in of one input (`FanIn` of the kind ``loop``, the source) with operations behind it, the body, and at
the end of these an `Again`, which gives new work for each result. In a plan the two belong together as brackets do, so
loops may be nested. `problems` finds what is between them and must not be.

The rule for the body: all that it works on comes from the source or goes round, and no operation keeps items until
others come. So when the source is over and nothing is on its way, there is nothing left, and the loop can end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TypeAlias

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import function_name
from .._base.shown import named, option
from ..policies.on_error import Divert
from .failures import OrElse
from .nodes import FanIn, FanOut, Plan, Source, inner_plans
from .operations import Operation, WithFunction
from .steps import step_of
from .timing import KeepAlive

LoopFull: TypeAlias = Literal["fail"] | Divert
"""What happens to new work for which there is no room."""


@dataclass(frozen=True, slots=True)
class Again(WithFunction):
    """New work for each result, which goes back to the beginning of the body; the result continues."""

    verb: ClassVar[str] = "again"
    loop: str
    room: int
    full: LoopFull = "fail"

    def __post_init__(self) -> None:
        checks.sync_callable(self.method, "again", self.fn)
        Operation.__post_init__(self)
        checks.integer(self.method, "room", self.room, at_least=1)
        full: Any = self.full
        if not isinstance(full, Divert) and not (isinstance(full, str) and full == "fail"):
            kind = ValueError if isinstance(full, str) else TypeError
            raise checks.refuse(kind, self.method, "full", "be 'fail' or OnError.divert(step)", full, show=option)

    @property
    def method(self) -> str:
        return "Pipeline.loop"

    @property
    def needs_stage(self) -> bool:
        return isinstance(self.full, Divert)  # it waits for the step

    @property
    def keeps(self) -> int:
        return self.room + self.needs_stage  # what waits to go round, and what is with the step

    @property
    def holds_back(self) -> bool:
        return not self.needs_stage  # the result whose new work is being put in line

    def describe(self) -> str:
        shown = function_name(self.fn)
        alias = "" if self.name.partition("#")[0] == shown else f" as {self.name}"
        full = f"goes to {function_name(self.full.step)}" if isinstance(self.full, Divert) else "fails"
        return f"{self.verb} {shown}{alias}: goes round in {self.loop}, up to {self.room} wait, one more {full}"

    def details(self) -> list[str]:
        step = step_of(self.full.step) if isinstance(self.full, Divert) else None
        return [] if step is None else step.lines()

    def problems(self) -> Iterator[str]:
        step = step_of(self.full.step) if isinstance(self.full, Divert) else None
        return iter(()) if step is None else step.problems()


def problems(plan: Plan) -> Iterator[str]:
    """Find loops without an end, ends without a loop, and what must not be in a body."""
    around: list[Again] = []  # the loops in whose bodies we are, going upstream
    for each in _spine(plan):
        for operation in reversed(each.operations):
            if isinstance(operation, Again):
                around.append(operation)
            elif around:
                yield from _misplaced(around[-1], operation)
        origin = each.origin
        if isinstance(origin, FanIn) and origin.kind == "loop":
            if not around or around.pop().loop != origin.name:
                yield (
                    f"loop {named(origin.name)}: the pipeline that its body is given must not be used outside of what "
                    "the body returns"
                )
        elif isinstance(origin, FanOut):
            for _branch, inner in origin.branches:
                yield from problems(inner)
                yield from _in_branch(around[-1], inner) if around else ()
        else:
            for again in around:
                yield _has_other_source(again)
            for inner in inner_plans(each):
                yield from problems(inner)


def _spine(plan: Plan) -> Iterator[Plan]:
    """Yield a plan, and what it comes from, upstream: through the trunks of fan-outs and the sources of loops."""
    while True:
        yield plan
        origin = plan.origin
        if isinstance(origin, FanOut):
            plan = origin.trunk
        elif isinstance(origin, FanIn) and origin.kind == "loop":
            plan = origin.inputs[0][1]
        else:
            return


def _in_branch(again: Again, branch: Plan) -> Iterator[str]:
    """Find what must not be in a branch within the body of a loop."""
    waiting = [branch]
    while waiting:
        each = waiting.pop()
        for operation in each.operations:
            yield from _misplaced(again, operation)
        if isinstance(each.origin, Source) or (isinstance(each.origin, FanIn) and each.origin.kind != "loop"):
            yield _has_other_source(again)
        waiting += inner_plans(each)


def _misplaced(again: Again, operation: Operation) -> Iterator[str]:
    """Find what is wrong with an operation in a body."""
    if operation.waits_for_more:
        yield _keeps_items(again, operation)
    elif isinstance(operation, OrElse | KeepAlive):  # what they give comes from elsewhere, and might never end
        yield _has_other_source(again)


def _keeps_items(again: Again, operation: Operation) -> str:
    return (
        f"loop {named(again.loop)}: {operation.verb} {named(operation.name)} must not be in its body: it keeps items "
        "until others come, and the last ones would never go round.\n"
        "Use batch(max_delay=...) or window(period=...) there, or put it behind the loop."
    )


def _has_other_source(again: Again) -> str:
    return (
        f"loop {named(again.loop)}: its body must take all items from the pipeline that it is given.\n"
        "Use a fan-in before the loop for other sources."
    )


def entry_of(name: str, source: Any) -> FanIn:
    """Return where the body of a loop begins."""
    return FanIn("loop", name, (("source", source),))
