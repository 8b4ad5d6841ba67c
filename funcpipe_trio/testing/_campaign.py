"""Campaigns: disturb one scenario at every possible point, and run it under many schedules.

Each returns a `Campaign` that sums it up. The first trial that shows a problem raises `CampaignError` with its seed and
point; ``only=(seed, point)`` runs that trial again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from .._base import checks
from .._base.errors import CircuitOpen
from .._runtime.run.run import Run
from ..pipeline import Pipeline
from ._lab import InjectedError
from ._schedule import Choices, Schedule, require_private_names
from ._trial import Scenario, Trial, TrialError, lost_items, run_trial

__all__ = [
    "Campaign",
    "CampaignError",
    "cancel_everywhere",
    "drain_everywhere",
    "explore_schedules",
    "fail_everywhere",
    "interrupt_everywhere",
]

Subject = Scenario | Callable[[], Pipeline[Any]]
Replay = tuple[int, int]


class CampaignError(AssertionError):
    """A campaign found a problem; the message says how to reproduce it."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign did."""

    name: str
    runs: int
    """Number of trials, including the undisturbed ones."""
    schedules: int
    """Number of different task orders among them."""
    steps_to_exit: int
    """The most task steps between a disturbance and the end of the run."""
    tasks: int
    """The most tasks a run had."""

    def __str__(self) -> str:
        worst = f", worst steps to exit {self.steps_to_exit} of {self.tasks} tasks" if self.steps_to_exit else ""
        return f"{self.name}: {self.runs} runs, {self.schedules} schedules{worst}"


def cancel_everywhere(
    scenario: Subject, *, seeds: Iterable[int] = (0,), every: int = 1, only: Replay | None = None
) -> Campaign:
    """Run it undisturbed, then cancel it from outside at its 1st, 2nd, ... task step.

    A cancelled run must end within 12 steps per task plus 20, discard what it held, close its sources, and never look
    complete.

    Args:
      scenario: a `Scenario`, or a function that makes the pipeline.
      seeds: repeat this for each of these task orders.
      every: try only each n-th point, an int >= 1.
      only: one ``(seed, point)`` to run again; point 0 is the undisturbed run.

    Raises:
      CampaignError: at the first trial that shows a problem.
      TypeError: if `scenario` is neither (but a pipeline, for example), or `every` is not an int.
      ValueError: if `every` is below 1.
    """

    def examine(trial: Trial) -> None:
        if trial.error is not None:
            raise trial.error
        if trial.report is not None and trial.steps_to_exit is not None:
            allowed = 12 * trial.tasks + 20
            if trial.steps_to_exit > allowed:
                raise TrialError(f"{trial.steps_to_exit} steps from the cancellation to the end, above {allowed}")

    return _at_every_point(
        "cancel_everywhere", scenario, seeds, every, only, lambda run, scope: scope.cancel(), examine
    )


def interrupt_everywhere(
    scenario: Subject, *, seeds: Iterable[int] = (0,), every: int = 1, only: Replay | None = None
) -> Campaign:
    """Send the signal of Ctrl-C at every task step: KeyboardInterrupt must arrive once, not in an exception group.

    For the arguments see `cancel_everywhere`. Call it from the main thread.
    """

    def examine(trial: Trial) -> None:
        if trial.steps_to_exit is not None and type(trial.error) is not KeyboardInterrupt:
            raise TrialError(f"KeyboardInterrupt did not arrive, but {trial.error!r}")

    def disturb(run: Run[Any] | None, scope: trio.CancelScope) -> None:
        signal.raise_signal(signal.SIGINT)

    # In a program that was started in the background the signal is ignored, and trio does not change that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _at_every_point("interrupt_everywhere", scenario, seeds, every, only, disturb, examine)
    finally:
        signal.signal(signal.SIGINT, before)


def drain_everywhere(
    scenario: Subject, *, seeds: Iterable[int] = (0,), every: int = 1, only: Replay | None = None
) -> Campaign:
    """Drain the run at every task step: all items taken must be delivered, and the run must end normally.

    For the arguments see `cancel_everywhere`.
    """

    def examine(trial: Trial) -> None:
        if trial.error is not None:
            raise trial.error
        lost = lost_items(trial.lab)
        if lost:
            raise TrialError(f"a drained run discarded {len(lost)} items, the first in {lost[0][1]!r}: {lost[0][2]}")
        if trial.report is not None and trial.report.outcome not in ("drained", "completed", "left"):
            raise TrialError(f"a drained run ended as {trial.report.outcome!r}")

    return _at_every_point(
        "drain_everywhere",
        scenario,
        seeds,
        every,
        only,
        lambda run, scope: None if run is None else run.drain_nowait(),
        examine,
    )


def fail_everywhere(
    scenario: Subject, *, seeds: Iterable[int] = (0,), every: int = 1, only: Replay | None = None
) -> Campaign:
    """Make the 1st, 2nd, ... call of user code fail: the run must raise exactly that error or keep it in its report.

    Calls of user code are the calls of the pipeline's functions, and each item that a source hands over. For the
    arguments see `cancel_everywhere`; the point is the number of the call.
    """
    subject = _scenario("fail_everywhere", scenario)
    checks.integer("fail_everywhere", "every", every, at_least=1)

    def trials(seed: int) -> Iterator[Trial]:
        undisturbed = run_trial(subject, Schedule(seed), seed=seed)  # first: if it does not end, no trial will
        yield undisturbed
        for point in range(1, undisturbed.lab.calls + 1, every):
            yield run_trial(subject, Schedule(seed), seed=seed, point=point, fail_at=point)

    def examine(trial: Trial) -> None:
        injected = trial.lab.injected
        if injected is None:
            if trial.error is not None:
                raise trial.error
            return
        kept = trial.report is not None and (trial.report.error is injected or injected in trial.report.cleanup_errors)
        if trial.error is not None and trial.error is not injected and not _follows(trial):
            raise TrialError(f"the run raised {trial.error!r}, not the error of user code") from trial.error
        if trial.error is None and not kept and not _was_dealt_with(trial):
            raise TrialError("the run neither raised the error of user code nor kept it in its report")

    if only is not None:
        seed, point = _replay("fail_everywhere", only)
        trial = partial(run_trial, subject, Schedule(seed), seed=seed, point=point, fail_at=point)
        return _again_at(only, "fail_everywhere", subject, trial, examine, lambda trial: trial.lab.injected is not None)
    return _summed("fail_everywhere", subject, [trials(seed) for seed in seeds], examine)


def explore_schedules(
    scenario: Subject,
    *,
    seeds: Iterable[int] = range(100),
    exhaustive: bool = False,
    most: int = 10_000,
    only: Replay | None = None,
) -> Campaign:
    """Run the scenario undisturbed under many task orders; it must end, and lose nothing, under each.

    Args:
      scenario: a `Scenario`, or a function that makes the pipeline.
      seeds: each selects one task order.
      exhaustive: try all possible orders instead of seeds; for tiny scenarios.
      most: the most orders to try with `exhaustive`.
      only: one ``(seed, 0)`` to run again; with `exhaustive`, the seed is the number of the order.

    Raises:
      CampaignError: at the first trial that shows a problem.
    """
    subject = _scenario("explore_schedules", scenario)

    checks.integer("explore_schedules", "most", most, at_least=1)

    def seeded() -> Iterator[Trial]:
        for seed in [only[0]] if only is not None else seeds:
            yield run_trial(subject, Schedule(seed), seed=seed)

    def all_orders() -> Iterator[Trial]:
        choices: list[int] | None = []
        for number in range(most):
            if choices is None:
                return
            schedule = Choices(choices)
            trial = run_trial(subject, schedule, seed=number)
            if only is None or only[0] == number:
                yield trial
                if only is not None:
                    return
            choices = schedule.following()

    def examine(trial: Trial) -> None:
        if trial.error is not None:
            raise trial.error

    how = ", exhaustive=True" if exhaustive else ""
    return _summed("explore_schedules", subject, [all_orders() if exhaustive else seeded()], examine, how)


def _follows(trial: Trial) -> bool:
    """Whether a policy may have raised this error because of the injected one."""
    return trial.lab.is_resilient and isinstance(trial.error, CircuitOpen | InjectedError)


def _was_dealt_with(trial: Trial) -> bool:
    """Whether a policy reports that it handled the error (a second call does not report which one)."""
    stages = () if trial.report is None else trial.report.stages
    policies = [each for stage in stages for each in (stage.policies, stage.divert) if each is not None]
    again = any(each.retries or each.fallbacks or each.hedges for each in policies)
    inputs = () if trial.report is None else trial.report.inputs
    names = [*(name for stage in stages for name, _count in stage.failures), *(each.failure for each in inputs)]
    named = InjectedError.__name__ in names
    return trial.lab.is_resilient and (again or named)


def _scenario(campaign: str, subject: Any) -> Scenario:
    if isinstance(subject, Scenario):
        return subject
    if isinstance(subject, Pipeline) or not callable(subject):
        rule = "be a function that makes the pipeline, or a Scenario"
        use = f"Use {campaign}(lambda: pipeline): each run gets a fresh one."
        raise checks.refuse(TypeError, campaign, "scenario", rule, subject, use)
    return Scenario(subject)


def _at_every_point(
    name: str,
    scenario: Subject,
    seeds: Iterable[int],
    every: int,
    only: Replay | None,
    disturb: Callable[[Run[Any] | None, trio.CancelScope], None],
    examine: Callable[[Trial], None],
) -> Campaign:
    """Run an undisturbed trial, then one trial disturbed at each point of it."""
    subject = _scenario(name, scenario)
    checks.integer(name, "every", every, at_least=1)

    def trials(seed: int) -> Iterator[Trial]:
        undisturbed = run_trial(subject, Schedule(seed), seed=seed)  # first: if it does not end, no trial will
        yield undisturbed
        for point in range(1, undisturbed.steps + 1, every):
            yield run_trial(subject, Schedule(seed), seed=seed, point=point, disturb=disturb)

    if only is not None:
        seed, point = _replay(name, only)
        trial = partial(run_trial, subject, Schedule(seed), seed=seed, point=point, disturb=disturb)
        return _again_at(only, name, subject, trial, examine, lambda trial: trial.steps >= point)
    return _summed(name, subject, [trials(seed) for seed in seeds], examine)


def _replay(name: str, only: Any) -> Replay:
    """Check the argument that selects one trial."""
    if not (isinstance(only, tuple) and [type(each) for each in only] == [int, int]):
        raise checks.refuse(TypeError, name, "only", "be a (seed, point) of two ints", only)
    seed, point = only
    return seed, checks.integer(name, "only[1]", point, at_least=0)


def _again_at(
    at: Replay,
    name: str,
    subject: Scenario,
    run: Callable[[], Trial],
    examine: Callable[[Trial], None],
    is_reached: Callable[[Trial], bool],
) -> Campaign:
    """Run one trial again; it proves nothing if its point is no longer reached."""
    trials: list[Trial] = []

    def one() -> Iterator[Trial]:
        trials.append(run())
        yield from trials

    campaign = _summed(name, subject, [one()], examine)
    if at[1] and not is_reached(trials[0]):
        raise ValueError(f"{name}: only={at}: the run now ends before that point, so nothing was shown")
    return campaign


def _again(name: str, subject: Scenario, at: Replay, how: str) -> str:
    if subject.code is None:
        return f"To reproduce it, add to the arguments of {name}: only={at}{how}"
    return f"To reproduce it: {name}({subject.code}, only={at}{how})"


def _summed(
    name: str,
    subject: Scenario,
    all_trials: Iterable[Iterator[Trial]],
    examine: Callable[[Trial], None],
    how: str = "",
) -> Campaign:
    """Run and examine trials; sum them up, or report the one that shows a problem."""
    require_private_names()
    runs = worst = tasks = 0
    digests: set[int] = set()
    for trials in all_trials:
        last: Trial | None = None
        try:
            for trial in trials:
                last = trial
                examine(trial)
                runs += 1
                digests.add(trial.digest)
                worst = max(worst, trial.steps_to_exit or 0)
                tasks = max(tasks, trial.tasks)
        except KeyboardInterrupt:
            raise  # the user wants this to stop
        except BaseException as error:
            at = getattr(error, "at", None) or ((last.seed, last.point) if last is not None else (0, 0))
            what = str(error) if isinstance(error, TrialError) else f"raised {error!r}"
            raise CampaignError(  # noqa: ASYNC104  # sync: there is nothing to cancel here
                f"{name} of {subject.title}, after {runs} good runs: {what}\n{_again(name, subject, at, how)}"
            ) from error
    return Campaign(f"{name} of {subject.title}", runs, len(digests), worst, tasks)
