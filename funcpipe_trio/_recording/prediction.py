"""`predict`: how much does a plan do if each call takes so long? By a formula where that is exact, else by simulation.

The formula holds for a plan of one line whose calls always take the same time: the throughput is the least of what any
part can do, ``concurrency / seconds`` for the calls of a stage, ``rate / per`` for a rate limit around them, and one
item for each step of the arrivals (the bound of a closed network of stations, Denning and Buzen, 1978; links only move
where items wait). Order does not change that, because equal times never overtake.

Anything else is run, in virtual time: the first items fill the plan, the throughput is counted from then on.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, cycle
from random import Random
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import trio

from .._base import checks
from .._base.errors import StateError
from .._base.frozen import dataclass
from .._base.functions import AnyFunction
from .._base.shown import listed, named, shown, type_name
from .._plan import operations as ops
from .._plan.bound import bounds
from .._plan.check import describable
from .._plan.failures import Recover
from .._plan.layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout, lay_out
from .._plan.nodes import Plan, Source
from .._plan.operations import Opaque
from .._plan.own import WithState
from .._plan.settings import PlanPart
from .._plan.steps import Call, Limit, Places, StepPlan, Timeout, Within, step_of
from .._runtime.core.task_order import in_order
from .._runtime.reports.report import RunStatistics
from .._runtime.run.run import Run
from .._runtime.run.run_context import RunContext
from ..policies.adaptive import Adaptive
from .playing import Playing
from .recording import Place, Recording
from .tapes import Kept, Sample
from .tokens import Lore, Reader, Token, origin_of
from .virtual import run_played

Times: TypeAlias = Mapping[str, float | Sequence[float]]
"""Seconds that a call takes, by the name of its stage; several are used in turn."""

_FEWEST: Final = 2000
"""The fewest items that are counted."""
_MOST: Final = 50_000
"""The most items of a simulation."""
_ONE_TO_ONE = (ops.Map, ops.Tap, ops.Scan, ops.Enumerate, ops.Buffer)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan would do: made by `Pipeline.predict`."""

    throughput: float
    """Items that its sources give in a second, in the long run; inf if nothing takes any time."""
    bottleneck: str | None
    """The stage, source or consumer that limits it; None if nothing does."""
    utilisation: Mapping[str, float]
    """The part of its places that each stage with calls uses, 0 to 1."""
    method: Literal["formula", "simulation"]
    """How it was found: by a formula that is exact, or by a run in virtual time."""

    def describe(self) -> str:
        """Say it in a line, and in one for each stage."""
        rate = "without limit" if self.throughput == math.inf else f"{self.throughput:.6g} items a second"
        by = "" if self.bottleneck is None else f", limited by {self.bottleneck}"
        lines = [f"{rate}{by} (by {self.method})"]
        return "\n".join([*lines, *(f"  {name}: {part:.0%} busy" for name, part in self.utilisation.items())])


def predict(plan: Plan, times: Any, arrivals: Any = None) -> Prediction:
    """Return what a plan would do; see `Pipeline.predict`."""
    describable(plan)
    line = lay_out(plan)
    calling = [stage for stage in _stages(line) if _makes_calls(stage)]
    seconds = _checked_times(times, [stage.name for stage in calling])
    sources = [stage.name for stage in _stages(line) if isinstance(stage.head, Source) and stage.head.kind != "ticks"]
    gaps = _checked_gaps(arrivals, sources)
    if _is_simple(line) and all(len(each) == 1 for each in [*seconds.values(), *gaps.values()]):
        return _by_formula(line, {name: each[0] for name, each in {**seconds, **gaps}.items()})
    if trio.lowlevel.in_trio_run():
        raise StateError(
            "Pipeline.predict: must not be called inside of trio for this plan, which has to be simulated\n"
            "Use `await trio.to_thread.run_sync(plan.predict, times)`."
        )
    return _by_simulation(plan, _Supposed(seconds, gaps), [stage.name for stage in calling])


# ---- arguments


def _checked_times(times: Any, known: list[str]) -> dict[str, tuple[float, ...]]:
    checks.mapping("Pipeline.predict", "times", times, "names of stages to seconds")
    for name in times:
        if name not in known:
            rule = f"times must name stages that make calls, not {named(name)}; they are {listed(known)}"
            raise ValueError(f"Pipeline.predict: {rule}")
    return {name: _checked(f"times[{named(name)}]", value) for name, value in times.items()}


def _checked_gaps(arrivals: Any, known: list[str]) -> dict[str, tuple[float, ...]]:
    if arrivals is None:
        return {}
    if not isinstance(arrivals, Mapping):
        gaps = _checked("arrivals", arrivals)
        return dict.fromkeys(known, gaps)
    for name in arrivals:
        if name not in known:
            rule = f"arrivals must name sources, not {named(name)}; they are {listed(known)}"
            raise ValueError(f"Pipeline.predict: {rule}")
    return {name: _checked(f"arrivals[{named(name)}]", value) for name, value in arrivals.items()}


def _checked(name: str, value: Any) -> tuple[float, ...]:
    where, rule = "Pipeline.predict", "be a number of seconds >= 0, or a sequence of such numbers"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (checks.seconds(where, name, value, positive=False),)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise checks.refuse(TypeError, where, name, rule, value)
    if not value:
        raise ValueError(f"{where}: {name} must not be empty")
    for number, each in enumerate(value):
        if isinstance(each, bool) or not isinstance(each, int | float):
            raise TypeError(f"{where}: {name}[{number}] must be a number of seconds >= 0, not {shown(each)}")
    return tuple(
        [checks.seconds(where, f"{name}[{number}]", each, positive=False) for number, each in enumerate(value)]
    )


# ---- the formula


def _stages(line: SegmentLayout) -> list[StageLayout]:
    """Return all stages of a plan, upstream first."""
    origin, found = line.origin, []
    if isinstance(origin, FanInLayout):
        found = [stage for _key, each in origin.inputs for stage in _stages(each)]
    elif isinstance(origin, FanOutLayout):
        found = [*_stages(origin.trunk), *(stage for _key, each in origin.branches for stage in _stages(each))]
    else:
        assert origin is None or isinstance(origin, BranchLayout)
    return [*found, *line.stages]


def _makes_calls(stage: StageLayout) -> bool:
    return isinstance(stage.head, ops.WithFunction)


def _is_simple(line: SegmentLayout) -> bool:
    """Whether the formula holds if all times are constant: one line, one value for each, no chance."""
    if line.origin is not None:
        return False
    return all(_is_simple_head(stage.head) and _is_simple_stage(stage) for stage in line.stages)


def _is_simple_stage(stage: StageLayout) -> bool:
    one_to_one = all(isinstance(each, _ONE_TO_ONE) for each in stage.fused)
    return one_to_one and stage.overflow == "block" and stage.fair_by is None and stage.throttle is None


def _is_simple_head(head: object) -> bool:
    if isinstance(head, Source):
        return head.kind in ("iterable", "async iterable", "producer", "channel")
    if isinstance(head, Recover):  # nothing fails, so it is not called
        return False
    if not isinstance(head, ops.Map | ops.Tap) or getattr(head, "key", None) or getattr(head, "latest", False):
        return head is None
    if isinstance(head.concurrency, Adaptive):
        return False
    step = step_of(head.fn)
    return step is None or (hasattr(type(head.fn), "from_plan") and _limits(step) is not None)


def _limits(step: StepPlan) -> list[Limit] | None:
    """Return the rate limits around the one call of a step; None if it is more than that."""
    parts, limits = step.parts, []
    while len(parts) == 1 and isinstance(parts[0], Within):
        layer = parts[0].layer
        if isinstance(layer, Limit):
            if layer.limiter is not None or layer.cost is not None or layer.settle is not None or layer.per_key:
                return None
            limits.append(layer)
        elif isinstance(layer, Timeout | Places):
            return None  # a call may be too late, or wait for those of others
        parts = parts[0].inner
    is_call = len(parts) == 1 and isinstance(parts[0], Call) and parts[0].runner is None
    return limits if is_call else None


class _Part(NamedTuple):
    """What one part can do."""

    rate: float
    """Items a second."""
    name: str
    """Its name."""


def _by_formula(line: SegmentLayout, seconds: Mapping[str, float]) -> Prediction:
    parts = [_Part(rate, stage.name) for stage in line.stages for rate in _rates(stage, seconds.get(stage.name, 0.0))]
    least = min(parts, key=lambda part: part.rate)
    moves = 0.0 if least.rate == math.inf else least.rate
    used = {
        stage.name: moves * seconds.get(stage.name, 0.0) / stage.concurrency
        for stage in line.stages
        if _makes_calls(stage)
    }
    return Prediction(least.rate, least.name if moves else None, MappingProxyType(used), "formula")


def _rates(stage: StageLayout, seconds: float) -> list[float]:
    """Return how many items a second each thing in a stage lets through."""
    rates = [math.inf if seconds == 0 else max(1, stage.concurrency) / seconds]  # a source has one place
    step = step_of(getattr(stage.head, "fn", None))
    limits = (_limits(step) or []) if step is not None else []
    return [*rates, *(float(each.rate_limit.rate / each.rate_limit.per) for each in limits)]


# ---- the simulation


class _Cycle(Kept):
    """Samples that are used in turn."""

    def at(self, number: int, chance: Random) -> Sample:
        return self.samples[number % len(self.samples)]


class _OneForOne:
    """An object with state of which nothing is known."""

    def push(self, item: Any) -> tuple[Any]:
        return (item,)


def _one(item: Any) -> int:
    return 1


def _no_work(item: Any) -> tuple[Any, ...]:
    return ()


class _Supposed(Playing):
    """Plays what is supposed of a plan, instead of a recording: all else takes no time, and lets every item pass."""

    def __init__(self, times: Mapping[str, tuple[float, ...]], gaps: Mapping[str, tuple[float, ...]]) -> None:
        nothing = Recording(0.0, 0, 0, "completed", None, has_consumer=True, changes=(), tapes={})
        super().__init__(nothing, Lore(), 0, frozenset())
        self.times: Mapping[str, tuple[float, ...]] = times  # seconds of the calls of each stage, used in turn
        self._gaps = gaps  # seconds from one arrival to the next, in turn, by source; none: all are there
        self._count = 0  # items that the sources gave
        self._marks: dict[int, trio.Event] = {}  # set when they gave so many

    def given(self, count: int) -> trio.Event:
        """Return the event that is set when the sources gave so many items."""
        return self._marks.setdefault(count, trio.Event())

    def reader(self, name: str, path: str, role: str, *, is_needed: bool = True) -> Reader:
        seconds = self.times.get(name, (0.0,))
        samples: list[Any] = [True]
        if role == "calls":
            samples = list(seconds)
        elif role == "children":
            samples = [[each, 0.0] for each in seconds]
        elif role == "counts":
            samples = [1]
        return Reader(Place(name, path, role), _Cycle(len(samples), [*range(len(samples))], samples), Lore(), Random(0))

    def route(self, name: str, fn: AnyFunction, branches: tuple[str, ...]) -> AnyFunction:
        turns = cycle(branches)
        return lambda item: next(turns)

    def key(self, name: str, path: str, fn: AnyFunction, known: tuple[Any, ...]) -> AnyFunction:
        return lambda item: object()  # of each item another one; the item itself, a batch say, may have no hash

    def cost(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        return _one

    def share_cost(self, cost: AnyFunction | None) -> AnyFunction | None:
        return None

    def again(self, name: str, fn: AnyFunction) -> AnyFunction:
        return _no_work

    def _part(self, name: str, part: PlanPart) -> PlanPart:
        played = super()._part(name, part)
        if isinstance(played, ops.Batch | WithState) and played.full == "fail":
            return replace(played, full="oldest")  # that there are too many keys is only supposed
        return played

    def state(self, name: str, make: AnyFunction, *, is_timed: bool) -> AnyFunction:
        return _OneForOne

    def through(self, name: str, fn: AnyFunction) -> AnyFunction:
        seconds = cycle(self.times.get(name, (0.0,)))

        async def played(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for item in items:
                await trio.sleep(next(seconds))
                yield item

        return played

    def order(self, key: AnyFunction | None) -> AnyFunction | None:
        return lambda item: (origin_of(item) or ())[1:]  # the n-th of each source

    def source(self, name: str, source: Source) -> Source:
        if source.kind == "ticks":
            return source
        if name not in self._gaps:
            return Source("iterable", source.name, Opaque(partial(self._at_once, name)))
        return Source("async iterable", source.name, Opaque(partial(self._arriving, name)))

    def _at_once(self, name: str) -> Iterator[Token]:
        for number in count():
            yield self._token(name, number)

    async def _arriving(self, name: str) -> AsyncIterator[Token]:
        at = trio.current_time()
        for number, gap in enumerate(cycle(self._gaps[name])):
            at += gap
            await trio.sleep_until(at)
            yield self._token(name, number)

    def _token(self, name: str, number: int) -> Token:
        self._count += 1
        if self._count in self._marks:
            self._marks[self._count].set()
        return Token((name, number))


def _by_simulation(plan: Plan, supposed: _Supposed, names: list[str]) -> Prediction:
    line = lay_out(plan)
    held = bounds(line)[id(line)]
    first = int(min(max(4 * held, 200), _MOST / 4))
    longest = max([len(each) for each in supposed.times.values()], default=1)
    counted = min(max(_FEWEST, 10 * first, 2 * longest), _MOST)
    with in_order(0):
        played = supposed.replaced(plan)
        between = run_played(_measured, played, supposed, first, counted)
    rate = between.taken / between.elapsed if between.elapsed > 0 else math.inf
    used = {stage.name: stage.busy for stage in between.stages if stage.name in names}
    return Prediction(rate, None if rate == math.inf else between.bottleneck, MappingProxyType(used), "simulation")


async def _measured(plan: Plan, supposed: _Supposed, first: int, counted: int) -> RunStatistics:
    """Run a played plan; return what it did from its first items on, for a number of items."""
    begun, done = supposed.given(first), supposed.given(first + counted)
    block: RunContext[Any] = RunContext(plan, on_discard=None, cleanup_timeout=1e9)
    async with block as run, trio.open_nursery() as nursery:
        nursery.start_soon(_take_all, run, begun, done)
        await begun.wait()
        before = run.statistics()
        await done.wait()
        after = run.statistics()
        nursery.cancel_scope.cancel()
    return after if before.elapsed == after.elapsed else after.since(before)  # it may have ended before


async def _take_all(run: Run[Any], *awaited: trio.Event) -> None:
    try:
        async for _ in run:
            pass
    except Exception as error:  # a policy of the plan says so, such as a timeout
        raise ValueError(
            f"Pipeline.predict: with these times the run fails, with {type_name(error)}\n"
            "Use shorter times, or an OnError that goes on."
        ) from error
    for each in awaited:
        each.set()
