"""`simulate`: what would a recorded run have been under other settings? The real plan runs, in virtual time.

Everything is real except the user's functions, the sources and the consumer, which play the recording (`playing`), and
the clock, which jumps. So all that the package does is in the answer: links, places, limits, retries, shares.

What it cannot know: how a service would answer to more calls at once, and what takes time outside of the user's
functions, such as the event loop itself. Durations are those of the recording.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import trio

from .._base import checks
from .._base.errors import StateError
from .._base.functions import AnyFunction
from .._base.shown import listed, named
from .._plan.check import describable
from .._plan.nodes import Plan, plan_of
from .._plan.settings import with_settings
from .._runtime.core.task_order import in_order
from .._runtime.junctions.fan_in import MergeInlet
from .._runtime.links.sink import Sink
from .._runtime.reports.report import Report
from .._runtime.run.run import Consumer, Run
from .._runtime.run.run_context import RunContext
from .._runtime.run.witness import Witness
from .played_calls import expanded
from .played_runs import PlayedRun
from .playing import Playing
from .recording import CONSUMER, Place, Recording
from .tokens import Lore
from .virtual import run_played
from .watching import replace_costs, sorting, unbatching

Settings = Mapping[str, Mapping[str, Any]]


def simulate(
    plan: Any, recording: Recording, changes: Settings | None = None, *, seed: int = 0, open_loop: Collection[str] = ()
) -> Report:
    """Run a plan in virtual time, with the durations and outcomes of a recording in the place of the user's functions.

    Without `changes` it repeats the recorded run: what took no time outside of the user's functions and sources takes
    exactly as long. With them it says what the run would have been. No function of the user's is called, no source is
    opened; a day takes seconds to minutes.

    A source gives its items as long after it was asked as it did, so one that was slowed down by what is behind it
    becomes faster when that does. One that was stopped by its run goes on, with durations like those before; where the
    run failed, every source ends with its last recorded item. One whose items come anyhow, such as requests, belongs in
    `open_loop`: its items come when they came.

    Durations are taken as they were: a service that becomes slower with more calls at once is not known to do so. A
    call that was cut off, by a timeout say, counts as one that would have ended just then. Of a function of which more
    calls were made than the recorder kept, each other call takes a sample from about the same time.

    Args:
      plan: the pipeline that was recorded; its parts are known by their names.
      recording: of one of its runs.
      changes: other settings, by the names of parts, as for `Pipeline.with_settings`; also those of a `RateLimiter`
        or `PlaceLimiter` (its rate, its places, the weights that its `FairShare` names), for all that share it.
      seed: chooses samples, and the order of what happens at one instant; an int.
      open_loop: names of sources whose items come when they came.

    Returns:
      the report of the simulated run, in virtual seconds. Where the run fails, it names the type of the error.

    Raises:
      PlanError: if the plan cannot work, or a change is not possible.
      StateError: if it is called inside of trio; use `simulate_async` there.
      TypeError: if an argument has a wrong type.
      ValueError: if the recording has nothing of a part of the plan, or a source is not known.

    Checkpoint: never (sync).
    """
    if trio.lowlevel.in_trio_run():
        raise StateError("simulate: must not be called inside of trio\nUse await simulate_async(...).")
    with in_order(checks.any_integer("simulate", "seed", seed)):
        return _Simulation("simulate", plan, recording, seed, open_loop).under(changes, None)


async def simulate_async(
    plan: Any, recording: Recording, changes: Settings | None = None, *, seed: int = 0, open_loop: Collection[str] = ()
) -> Report:
    """Do the same as `simulate`, inside of trio: in a thread, so that nothing else has to wait.

    The order of what happens at one instant is not chosen by the seed here.

    Checkpoint: always.
    Cancellation: ends the simulation soon.
    """
    checks.any_integer("simulate_async", "seed", seed)
    simulation = _Simulation("simulate_async", plan, recording, seed, open_loop)

    def simulated() -> Report:
        report = simulation.under(changes, _is_cancelled)
        trio.from_thread.check_cancelled()
        return report

    return await trio.to_thread.run_sync(simulated)


def _is_cancelled() -> bool:
    with contextlib.suppress(trio.Cancelled):  # raised again when the run in this thread is over
        trio.from_thread.check_cancelled()
        return False
    return True


class _Simulation:
    """What is played, checked."""

    def __init__(self, where: str, pipeline: Any, recording: Any, seed: int, open_loop: Any) -> None:
        plan = plan_of(pipeline)
        if plan is None:
            raise checks.refuse(TypeError, where, "plan", "be a Pipeline", pipeline)
        self._where = where  # the public function, for errors
        self._plan: Plan = plan  # that was recorded
        self._recording: Recording = checks.instance(where, "recording", recording, Recording)
        self._seed = seed  # chooses samples
        self._open_loop = frozenset(_names(where, open_loop))  # names of sources

    def under(self, changes: Settings | None, is_over: Callable[[], bool] | None) -> Report:
        """Return the report of the run under changes; it is given up when `is_over` says so."""
        lore = Lore()
        changed = with_settings(self._plan, changes, common=True) if changes else self._plan
        describable(changed)
        playing = self._playing(changed, lore)  # first of all, because it may be refused
        if changes and all(kept.is_whole for place, kept in self._recording.tapes.items() if place.role == "calls"):
            self._run(self._plan, self._playing(self._plan, lore), is_over)
            playing = self._playing(changed, lore.followed())
        return self._run(changed, playing, is_over)

    def _playing(self, plan: Plan, lore: Lore) -> Playing:
        return Playing(self._recording, lore, self._seed, self._open_loop)

    def _run(self, plan: Plan, playing: Playing, is_over: Callable[[], bool] | None) -> Report:
        played = playing.replaced(plan)
        self._refuse_missing(playing)
        stage = _Theatre(self._recording, playing, is_over)
        return run_played(stage.run, played)

    def _refuse_missing(self, playing: Playing) -> None:
        known = dict.fromkeys(place.part for place in self._recording.tapes if place.part != CONSUMER)
        if playing.missing:
            raise ValueError(
                f"{self._where}: the recording must have {named(playing.missing[0])}, which it does not; it has "
                f"{listed(known)}\nUse the plan that was recorded, and changes= for what is to be different."
            )
        sources = {place.part for place in self._recording.tapes if place.role in ("pulls", "items")}
        for name in sorted(self._open_loop - sources):
            raise ValueError(
                f"{self._where}: open_loop must name sources of the plan, not {named(name)}; they are {listed(sources)}"
            )


def _names(where: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise checks.refuse(TypeError, where, "open_loop", "be a collection of names", value)
    for each in value:
        checks.text(where, "open_loop", each)
    return list(value)


class _Theatre(Witness):
    """One run of a played plan."""

    def __init__(self, recording: Recording, playing: Playing, is_over: Callable[[], bool] | None) -> None:
        self._recording = recording  # what is played
        self._playing = playing  # what plays it
        self._is_over = is_over  # says whether the simulation is to be given up; None if it never is
        self._holds = playing.reader(CONSUMER, "holds", "holds") if recording.has_consumer else None
        """How long the consumer holds each item; None if there is none."""

    async def run(self, plan: Plan) -> Report:
        """Run the plan to the end that the recorded run had."""
        recording = self._recording
        sink = None if recording.has_consumer else Sink(_forget)
        block: RunContext[Any] = RunContext(
            plan, on_discard=None, cleanup_timeout=1e9, sink=sink, witness=self, is_logged=False
        )
        until = recording.elapsed if recording.outcome == "cancelled" else math.inf
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with block as run:
                    if self._is_over is not None:  # here, so that there is a run to report on
                        trio.lowlevel.add_instrument(_Stop(self._is_over, nursery.cancel_scope))
                    scope.deadline = trio.current_time() + until
                    nursery.start_soon(self._change, run)
                    if sink is None:
                        await self._consume(run)
            nursery.cancel_scope.cancel()
        return run.report

    async def _change(self, run: Run[Any]) -> None:
        """Drain, pause, resume and abort the run when the recorded one was."""
        changes = {"drain": run.drain_nowait, "pause": run.pause, "resume": run.resume, "abort": run.abort}
        for at, what in self._recording.changes:
            await trio.sleep_until(self._playing.began + at)
            changes[what]()

    async def _consume(self, run: Run[Any]) -> None:
        """Take the items, and hold each as long as the recorded consumer did; leave where it left."""
        left = self._recording.delivered if self._recording.outcome == "left" else math.inf
        try:
            await self._hold(None)
            if left:
                async for item in run:  # as most consumers do
                    left -= 1
                    await self._hold(item)
                    if not left:
                        break
        except Exception as error:
            if run.report.error is not error and run.report.outcome != "aborted":
                raise
        await self._leave(run)

    async def _hold(self, item: Any) -> None:
        """Take as long as the consumer took with an item, or before the first one."""
        assert self._holds is not None
        await _sleep(self._holds.next(item))

    async def _leave(self, run: Run[Any]) -> None:
        """Do what the consumer did at the end: ask in vain for one item more, or something else."""
        ends = self._recording.tapes.get(Place(CONSUMER, "ends", "ends"))
        end = ends.samples[0] if ends is not None and ends.samples else 0.0
        if not isinstance(end, list):
            await _sleep(end)
        elif self._recording.outcome == "left":
            with contextlib.suppress(StopAsyncIteration), trio.move_on_after(end[0]):
                await anext(run)

    def attach(self, consumer: Consumer) -> None:
        """Let the parts of the run play, too."""
        clock: Any = trio.lowlevel.current_clock()
        self._playing.began = trio.current_time()
        for stage in consumer.engine.stages:
            for operation in unbatching(stage.chain):
                operation.open = partial(expanded, self._playing.reader(operation.name, "fn", "counts"))
            bursts = self._recording.tapes.get(Place(stage.chain.name, "bursts", "bursts"))
            if bursts is not None and bursts.samples[0][0]:
                values, seconds = bursts.samples[0]
                _take_time(stage.chain, clock, seconds / values)
        consumer.engine.open_inner = PlayedRun
        for merge in consumer.engine.parts.fan_ins:
            if isinstance(merge, MergeInlet) and merge.share.cost is not None:
                replace_costs(merge, partial(self._cost, merge.name))
        for each in sorting(consumer.engine):
            ranks = [self._ranks(each.name, number) for number in range(len(each.inlets))]
            each.rank_of = partial(_rank, ranks, -1 if each.heads.reverse else 1)

    def _ranks(self, name: str, number: int) -> Callable[[Any], float]:
        """Return what gives the place at which an item of an input came; one that never came is behind all others."""
        path = f"order of {number}"
        kept = self._recording.tapes.get(Place(name, path, "answers"))
        left = 0 if kept is None else kept.seen
        answer = self._playing.answering(name, path, lambda _item, answer: answer)

        def rank(item: Any) -> float:
            nonlocal left
            left -= 1
            return math.inf if left < 0 else float(answer(item))

        return rank

    def _cost(self, name: str, number: int) -> AnyFunction:
        return self._playing.answering(name, f"cost of {number}", lambda _item, answer: answer)


def _rank(ranks: list[Callable[[Any], float]], sign: int, number: int, item: Any) -> float:
    return sign * ranks[number](item)


class _Stop(trio.abc.Instrument):
    """Cancels a scope when it is time to give up, which is asked once in each batch of tasks."""

    def __init__(self, is_over: Callable[[], bool], scope: trio.CancelScope) -> None:
        self._is_over = is_over  # says whether it is
        self._scope = scope  # of the simulation

    def before_io_wait(self, timeout: float) -> None:
        if self._is_over():
            self._scope.cancel()


async def _sleep(seconds: float) -> None:
    """Sleep, but not at all if that takes no time."""
    if seconds:
        await trio.sleep(seconds)


def _take_time(chain: Any, clock: Any, seconds: float) -> None:
    """Let each value that a chain moves take its time, in which nothing else runs."""
    burst, outlet = chain.burst, chain.outlet

    def timed(room: int) -> Any:
        before = outlet.given()
        try:
            return burst(room)
        finally:
            clock.jump(seconds * (outlet.given() - before))

    chain.burst = timed


def _forget(_item: object) -> None:
    """Do nothing with a result."""
