"""One watched run of a scenario: driven by a schedule, disturbed at one point, and then examined.

Checked after every trial, however the run ended:

  conservation  the report counts as taken what the sources handed over, and as delivered what the consumer got; each
                discarded item was passed to ``on_discard`` once; stages and links add up
  leaks         every source that was opened is closed when the block is left, by the task that opened it
  truth         a run that reports "completed" discarded only what was not needed
  bound         the items in flight never exceeded ``max_in_flight`` (where every operation is one-to-one)
  an end        no deadlock (all tasks wait, and there is no deadline), no livelock (tasks run, and no time passes), and
                a limit of steps and of virtual time for everything else; the trial always returns
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from .._base import checks
from .._base.functions import function_name
from .._runtime.core.signals import BEHIND_FAILURE, DRAINED, NOT_NEEDED
from .._runtime.reports.report import Report
from .._runtime.run.run import Run
from .._runtime.stages.nested import INSIDE
from ..pipeline import Pipeline
from ._guard import Guard, Stuck
from ._lab import Lab
from ._outside import threads_left_behind
from ._schedule import Schedule, scheduled

__all__ = ["Consume", "Scenario", "Trial", "TrialError", "lost_items", "run_trial"]


class Consume(Protocol):
    """The consumer of a scenario: an async function ``consume(run, lab)``.

    It drives the run as your program would: takes items, leaves early, drains the run, checks what it got. For each
    item that it takes it adds 1 to ``lab.delivered``, which is compared with what the run reports as delivered. If it
    raises, the campaign fails; so ``assert`` in it what must be true of your results under every disturbance::

        async def consume(run, lab):
            async for item in run:
                lab.delivered += 1
                assert item >= 0
    """

    def __call__(self, run: Run[Any], lab: Lab, /) -> Awaitable[None]:
        """Consume a run; `lab` counts what happens in it."""


LIVELOCK = 200_000
"""Task steps at one instant of virtual time, more than any scenario needs."""
STEPS = 500_000
"""Task steps, more than any scenario needs."""
PATIENCE = 1e8
"""Virtual seconds after which a scenario counts as stuck."""


class TrialError(AssertionError):
    """A trial showed a problem; `at` is its seed and point."""

    at: tuple[int, int] | None = None


async def _take_all(run: Run[Any], lab: Lab) -> None:
    async for _item in run:
        lab.delivered += 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a campaign runs repeatedly: a pipeline and its consumer.

    Args:
      make: a sync function without arguments that makes the pipeline, a fresh one each time (so that one-shot sources
        work). It is called inside the trio run.
      consume: an async function ``consume(run, lab)`` that drives the run, and counts what it gets in
        ``lab.delivered``; see `Consume` and `Lab`. By default everything is taken.
      name: its name in messages; best the name of the variable that holds it, so that they contain a line to paste.

    Raises:
      TypeError: if an argument has a wrong type, for example if `make` is a pipeline.

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
        """Its name in messages."""
        return self.name or function_name(self.make)

    @property
    def code(self) -> str | None:
        """How to write it in a program, if that follows from its names; None otherwise."""
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
    """Task steps from the opening to the end."""
    steps_to_exit: int | None = None
    """Task steps from the disturbance to the end; None if it came too late."""
    tasks: int = 0
    """The most tasks that the run had at once."""
    digest: int = 0
    left_open: int = 0
    """Number of sources that were open when the block was left."""
    threads_lent: int = 0
    """Number of threads that were still working at that time."""
    stuck: str | None = None


class _Watch(trio.abc.Instrument):
    """Counts task steps, and disturbs the run at one of them."""

    def __init__(self, trial: Trial, disturb: Callable[[], None] | None) -> None:
        self._trial = trial
        self._disturb = disturb
        self._started = False
        self._disturbed_at: int | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self._live = 0  # tasks of the run and of the consumer

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
      schedule: the task order.
      seed: the seed of the schedule, for messages.
      point: the task step at which to disturb it.
      fail_at: the call of user code that fails.
      disturb: what to do at the point: it gets the run, and the scope around everything.

    Raises:
      TrialError: if a check fails.
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
    if running and trial.stuck is None:  # an abandoned run has no report
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
        raise TypeError(f"{scenario.title} must return a pipeline, not a {type(pipeline).__name__}")
    watched: Pipeline[Any] = Pipeline(lab.wrap(pipeline._plan))
    bound = watched.max_in_flight
    watch.start()
    try:
        with watch.scope:
            async with watched.open(on_discard=lab.discard) as run:
                running.append(run)
                await scenario.consume(_Bounded(run, bound, trial), lab)  # type: ignore[arg-type]
    finally:
        trial.left_open = lab.sources.opened - lab.sources.closed  # now: trio closes async generators when it ends
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
    """Raise if a trial shows a problem."""
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
        if report.outcome == "completed" and report.error is None and lost:  # an error may stand where nothing reads it
            problems.append(f"the run says it is complete, but discarded {len(lost)} items: {lost[0][2]}")
    if problems:
        raise TrialError("\n".join(problems))


def lost_items(lab: Lab) -> list[tuple[Any, str, str]]:
    """Return the items that a run discarded although they were needed.

    What a loop does not begin in a drain is not lost: no source gave it. Nor are items behind a failure in an inner
    pipeline, or in an input of a merge that goes on: a policy handled that failure.
    """
    return [
        (item, stage, reason)
        for item, stage, reason in lab.discarded
        if reason not in (NOT_NEEDED, DRAINED) and not (reason == BEHIND_FAILURE and (INSIDE in stage or lab.goes_on))
    ]


def _sums(lab: Lab, report: Report) -> list[str]:
    pairs = [
        ("delivered", lab.delivered, "the report says", report.delivered),
        ("items discarded", len(lab.discarded), "the report says", report.discarded),
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
