"""One run of a scenario under watch: driven on a schedule, disturbed at one point, and then examined.

What is examined after every trial, whatever became of the run:

  conservation  what the sources handed over is what the report says was taken; what the consumer got is what it says
                was delivered; each item discarded was told to ``on_discard`` once; stages and links add up
  leaks         no source that was opened is open when the block is left; it was closed by the task that opened it
  truth         a run that says "completed" gave up nothing but what was not needed
  bound         the items in flight never exceeded ``max_in_flight`` (where every operation is one-to-one)
  an end        no deadlock (all tasks wait, and no deadline comes), no livelock (tasks run, and no time passes), and
                a bound of steps and of virtual time for all that goes on and on; whatever it is, the trial comes back
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from .._base import checks
from .._base.functions import function_name
from .._runtime.core.signals import BEHIND_FAILURE, NOT_NEEDED
from .._runtime.pools.nested import INSIDE
from .._runtime.reports.report import Report
from .._runtime.run.run import Run
from ..pipeline import Pipeline
from ._guard import Guard, Stuck
from ._lab import Lab
from ._outside import threads_left_behind
from ._schedule import Schedule, scheduled

__all__ = ["Consume", "Scenario", "Trial", "TrialError", "lost_items", "run_trial"]


class Consume(Protocol):
    """The consumer of a scenario: an async function ``consume(run, lab)``.

    It drives the run as your program would: takes from it, leaves early, drains it, looks at what it got. For each item
    that it takes it adds 1 to ``lab.delivered``, which is held against what the run says was delivered. What it raises
    is found wrong by the campaign; so ``assert`` in it what must be true of your results, under every disturbance::

        async def consume(run, lab):
            async for item in run:
                lab.delivered += 1
                assert item >= 0
    """

    def __call__(self, run: Run[Any], lab: Lab, /) -> Awaitable[None]:
        """Consume a run; `lab` counts what happens in it."""


LIVELOCK = 200_000
"""Steps of tasks at one instant of virtual time that no scenario needs."""
STEPS = 500_000
"""Steps of tasks that no scenario needs."""
PATIENCE = 1e8
"""Virtual seconds after which a scenario is called dead."""


class TrialError(AssertionError):
    """A trial showed something that must not be; `at` is its seed and point."""

    at: tuple[int, int] | None = None


async def _take_all(run: Run[Any], lab: Lab) -> None:
    async for _item in run:
        lab.delivered += 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a campaign runs again and again: a pipeline, and who consumes it.

    Args:
      make: a sync function of no arguments that makes the pipeline, a fresh one each time (so that one-shot sources
        work). It is called inside of the trio run.
      consume: an async function ``consume(run, lab)`` that drives the run, and counts what it gets in
        ``lab.delivered``; see `Consume` and `Lab`. If it is not given, everything is taken.
      name: what messages call it; best the name of the variable that holds it, for then they give a line to paste.

    Raises:
      TypeError: if an argument has a wrong type, `make` is a pipeline, say.

    Example::

        cancel_everywhere(Scenario(make, consume))
    """

    make: Callable[[], Pipeline[Any]]
    consume: Consume = _take_all
    name: str = ""

    def __post_init__(self) -> None:
        make: object = self.make
        if isinstance(make, Pipeline):
            rule = "be a function that makes the pipeline"
            raise checks.refuse(TypeError, "Scenario", "make", rule, make, "Use Scenario(lambda: pipeline).")
        checks.sync_callable("Scenario", "make", self.make)
        checks.callable_("Scenario", "consume", self.consume)
        name: object = self.name
        if not isinstance(name, str):
            raise checks.refuse(TypeError, "Scenario", "name", "be a str", name)

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.name or function_name(self.make)

    @property
    def code(self) -> str | None:
        """How to write it in a program, as far as its names tell; None if they do not."""
        if self.name:
            return self.name if self.name.isidentifier() else None
        parts: list[object] = [self.make] if self.consume is _take_all else [self.make, self.consume]
        names = [part.__name__ if inspect.isfunction(part) else "" for part in parts]
        if not all(name.isidentifier() for name in names):
            return None
        return names[0] if len(names) == 1 else f"Scenario({', '.join(names)})"


@dataclass(slots=True)
class Trial:
    """What one run did."""

    lab: Lab
    seed: int
    point: int
    report: Report | None = None
    error: BaseException | None = None
    steps: int = 0
    """Steps of tasks from the opening to the end."""
    steps_to_exit: int | None = None
    """Steps from the disturbance to the end; None if it came too late."""
    tasks: int = 0
    """The most tasks that the run had."""
    digest: int = 0
    left_open: int = 0
    """Sources that were open when the block was left."""
    threads_lent: int = 0
    """Threads that worked then."""
    stuck: str | None = None


class _Watch(trio.abc.Instrument):
    """Counts steps, and disturbs the run at one of them."""

    def __init__(self, trial: Trial, disturb: Callable[[], None] | None) -> None:
        self._trial = trial
        self._disturb = disturb
        self._started = False
        self._disturbed_at: int | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self._live = 0  # tasks of the run, and the consumer's

    def start(self) -> None:
        self._started = True

    def stop(self) -> None:
        self._started = False
        if self._disturbed_at is not None:
            self._trial.steps_to_exit = self._trial.steps - self._disturbed_at

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._live += self._started
        self._trial.tasks = max(self._trial.tasks, self._live)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._live -= self._started

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._started:
            return
        trial = self._trial
        trial.steps += 1
        if trial.steps == trial.point and self._disturb is not None:
            self._disturbed_at = trial.steps
            self._disturb()


def run_trial(
    scenario: Scenario,
    schedule: Schedule,
    *,
    seed: int = 0,
    point: int = 0,
    fail_at: int | None = None,
    disturb: Callable[[Run[Any] | None, trio.CancelScope], None] | None = None,
) -> Trial:
    """Run a scenario once, and examine it.

    Args:
      scenario: what to run.
      schedule: the order of tasks.
      seed: what made the schedule, for messages.
      point: the step of a task at which to disturb it.
      fail_at: the call of user code that fails.
      disturb: what to do at the point: it gets the run, and the scope around everything.

    Raises:
      TrialError: if something is not as it must be.
    """
    trial = Trial(Lab(fail_at), seed, point)
    running: list[Run[Any]] = []
    watch = _Watch(trial, None if disturb is None else lambda: disturb(next(iter(running), None), watch.scope))
    with scheduled(schedule):
        try:
            guard = Guard(seconds=PATIENCE, steps=STEPS, steps_at_once=LIVELOCK)
            guard.run(_main, scenario, trial, watch, running, instruments=(watch,))
        except Stuck as stuck:
            trial.stuck = str(stuck)
        except BaseException as error:  # noqa: ASYNC103  # sync: kept for the examination
            trial.error = _bare(error)
    trial.digest = schedule.digest
    if running and trial.stuck is None:  # a run that was left where it stood has none
        trial.report = running[0].report
    try:
        _examine(trial)
    except TrialError as problem:
        problem.at = seed, point
        raise
    return trial


def _bare(error: BaseException) -> BaseException:
    """Take an error out of the groups that the nurseries of the scenario put around it."""
    if isinstance(error, BaseExceptionGroup):
        inner = [_bare(each) for each in error.exceptions]
        if all(each is inner[0] for each in inner):
            return inner[0]
    return error


async def _main(scenario: Scenario, trial: Trial, watch: _Watch, running: list[Run[Any]]) -> None:
    lab = trial.lab
    pipeline: object = scenario.make()
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"{scenario.title} must give a pipeline, not a {type(pipeline).__name__}")
    watched: Pipeline[Any] = Pipeline(lab.wrap(pipeline._plan))
    bound = watched.max_in_flight
    watch.start()
    try:
        with watch.scope:
            async with watched.open(on_discard=lab.discard) as run:
                running.append(run)
                await scenario.consume(_Bounded(run, bound, trial), lab)  # type: ignore[arg-type]
    finally:
        trial.left_open = lab.sources.opened - lab.sources.closed  # now: trio closes what it finds at its own end
        trial.threads_lent = threads_left_behind()
        watch.stop()


class _Bounded:
    """The run as the consumer sees it, with the bound checked at each item."""

    def __init__(self, run: Run[Any], bound: float, trial: Trial) -> None:
        self._run = run
        self._bound = bound
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def __aiter__(self) -> _Bounded:
        return self

    async def __anext__(self) -> Any:
        item = await self._run.__anext__()
        self._check()
        return item

    async def receive(self) -> Any:
        item = await self._run.receive()
        self._check()
        return item

    def _check(self) -> None:
        counts = self._run.statistics()
        if not self._trial.lab.one_to_one:
            return
        over = counts.delivered + counts.failed + counts.dropped + counts.discarded
        if counts.taken - over > self._bound:
            raise TrialError(f"{counts.taken - over} items in flight, above the bound of {self._bound}")


def _examine(trial: Trial) -> None:
    """Raise what a trial shows that must not be."""
    if trial.stuck is not None:
        raise TrialError(trial.stuck)
    if isinstance(trial.error, TrialError):
        raise trial.error
    lab, report = trial.lab, trial.report
    problems = []
    if trial.left_open:
        problems.append(f"{lab.sources.opened} sources were opened, {lab.sources.opened - trial.left_open} closed")
    if trial.threads_lent:
        problems.append(f"{trial.threads_lent} threads are still lent")
    if report is None:
        if lab.sources.opened:
            problems.append("a source was opened, but there is no run")
    else:
        problems += _sums(lab, report)
        lost = lost_items(lab)
        if report.outcome == "completed" and report.error is None and lost:  # an error may stand where nobody reads
            problems.append(f"the run says it is complete, but gave up {len(lost)} items: {lost[0][2]}")
    if problems:
        raise TrialError("\n".join(problems))


def lost_items(lab: Lab) -> list[tuple[Any, str, str]]:
    """Give what a run that went to its end has given up, though it was needed.

    What stood behind a failure in a pipeline within the pipeline is no loss: a policy outside met that failure.
    """
    return [
        (item, stage, reason)
        for item, stage, reason in lab.discarded
        if reason != NOT_NEEDED and not (reason == BEHIND_FAILURE and INSIDE in stage)
    ]


def _sums(lab: Lab, report: Report) -> list[str]:
    pairs = [
        ("delivered", lab.delivered, "the report says", report.delivered),
        ("items given up", len(lab.discarded), "the report says", report.discarded),
    ]
    if lab.all_counted:
        pairs.append(("produced", lab.produced, "the report says taken", report.taken))
    for stage in report.stages:
        out = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        pairs.append((f"in stage {stage.name!r}", stage.received + stage.created, "came out of it", out))
    for link in report.links:
        out = link.taken + link.discarded + link.dropped
        pairs.append((f"passed the link behind {link.behind!r}", link.passed, "left it", out))
    if lab.one_to_one:
        over = report.delivered + report.failed + report.dropped + report.discarded
        pairs.append(("taken", report.taken, "accounted for", over))
    return [f"{what}: {one}, {told}: {other}" for what, one, told, other in pairs if one != other]
