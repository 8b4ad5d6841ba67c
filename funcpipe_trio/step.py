"""How does a user describe one async call on one item? With a `Step`; each method puts one more policy around it.

A step is a value and never changes. It holds a plan whose parts check themselves; the runtime makes the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from fractions import Fraction
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from ._base import checks
from ._base.errors import PlanError
from ._base.functions import function_name
from ._base.shown import cut, escaped
from ._plan.steps import (
    MAX_KEYS,
    Call,
    Coalesce,
    Fallback,
    Hedge,
    Layer,
    Limit,
    Places,
    Pure,
    StepPlan,
    Timeout,
    Using,
    Within,
    group_of,
    step_of,
)
from ._runtime.calls.limiter_keys import levels_of, share_of
from ._runtime.calls.place_limiter import PlaceLimiterGroup
from ._runtime.calls.rate_limiter import RateLimiterGroup
from ._runtime.calls.started import StartedStep
from ._runtime.core.failures import add_note
from ._runtime.run.gathering import gathered
from ._runtime.runners.executors import InExecutor
from ._runtime.runners.runners import Processes, Threads, runner_of
from .policies.circuit_breaker import CircuitBreaker
from .policies.rate_limit import RateLimit, RollingLimit
from .policies.retry import Retry

__all__ = ["Step", "chunked", "gather"]

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

Manager: TypeAlias = "AbstractAsyncContextManager[R, Any] | AbstractContextManager[R, Any]"
"""What opens a resource when it is entered, and closes it when it is left."""
_AnyLimit = RateLimit | RollingLimit | RateLimiterGroup
_Cost = Callable[[Any], int | Fraction]
_Costs = (
    _Cost
    | Mapping[Any, _Cost]  # by limit; Any, for a mapping is invariant in its keys, and there are some kinds of limits
    | Sequence[_Cost | None]
)
_Runner = Threads | Processes | InExecutor | Callable[..., Awaitable[Any]]


class WithResource(Generic[R_contra, A]):
    """For type checkers: what a step takes before `Step.using` says what its function gets besides an item."""


class Step(Generic[A, B]):
    """A description of one async call on one item, and of the policies around it; a value that never changes.

    Policies apply inside out, in the order written:
    ``Step(embed).rate_limit(limit).timeout(8).retry(Retry(4)).timeout(30)`` means: each attempt takes a token and has
    8 s, there are up to four attempts, and all of them together have 30 s.

    Building one runs nothing. ``await step(item)`` runs it by itself, `start` keeps its state over many calls, and
    ``pipeline.map(step)`` runs it as a stage, with fresh state for each run of the pipeline.

    Args:
      fn: ``fn(item)``, an async function, or any that returns something to await (such as a lambda that returns a
        coroutine); a sync one if `on` then determines where it runs. ``fn(resource, item)`` if `using` follows.
      name: its name in plans, reports and errors; by default the function's name.
      idempotent: whether it may safely be called again after a failure; if not, `retry` and `hedge`
        are refused around it, also around its started step.

    Raises:
      TypeError: if an argument has a wrong type.
    """

    __slots__ = ("plan",)

    plan: StepPlan
    """What it is, as data."""

    @overload
    def __init__(
        self, fn: Callable[[A], Awaitable[B]], *, name: str | None = None, idempotent: bool = True
    ) -> None: ...

    @overload
    def __init__(self, fn: Callable[[A], B], *, name: str | None = None, idempotent: bool = True) -> None: ...

    @overload
    def __init__(
        self: Step[WithResource[R, C], D],
        fn: Callable[[R, C], Awaitable[D]],
        *,
        name: str | None = None,
        idempotent: bool = True,
    ) -> None: ...

    @overload
    def __init__(
        self: Step[WithResource[R, C], D],
        fn: Callable[[R, C], D],
        *,
        name: str | None = None,
        idempotent: bool = True,
    ) -> None: ...

    def __init__(self, fn: Callable[..., Any], *, name: str | None = None, idempotent: bool = True) -> None:
        if isinstance(fn, Step):
            raise checks.refuse(TypeError, "Step", "fn", "be a function", fn, "Use the step itself.")
        name = function_name(fn) if name is None else name
        object.__setattr__(self, "plan", StepPlan(name, (Call(fn, name, idempotent),)))

    @classmethod
    def from_plan(cls, plan: StepPlan) -> Step[Any, Any]:
        """Make the step of a plan."""
        step: Step[Any, Any] = object.__new__(cls)
        object.__setattr__(step, "plan", plan)
        return step

    @staticmethod
    def pure(fn: Callable[[C], D], *, name: str | None = None) -> Step[C, D]:
        """Make a step of a sync function that takes no time; it runs in the task that runs the step.

        Raises:
          TypeError: if `fn` is not a sync function.
        """
        return Step.from_plan(StepPlan(function_name(fn) if name is None else name, (Pure(fn),)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Step: {cut(escaped(name))} cannot be set, a step never changes")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Step: {cut(escaped(name))} cannot be deleted, a step never changes")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and other.plan == self.plan

    def __hash__(self) -> int:
        return hash(self.plan)

    def __reduce__(self) -> tuple[Any, ...]:
        return Step.from_plan, (self.plan,)

    def __repr__(self) -> str:
        return f"<Step {cut(escaped(self.plan.name))}>"

    @property
    def name(self) -> str:
        """Its name in plans, reports and errors."""
        return self.plan.name

    @property
    def __name__(self) -> str:
        return self.plan.name

    # ---- policies, inside out

    def timeout(self, seconds: float) -> Step[A, B]:
        """Limit the time of what is inside; then it is cancelled, and `trio.TooSlowError` is raised.

        A call that ends exactly when the time is up, or later, is too late. A `TooSlowError` or `TimeoutError` raised
        by the call itself passes unchanged.

        The first timeout directly behind `on` counts from when the call has its thread or process: the time spent
        waiting for one, or for one to start, does not count. (There may be rate limits between them; as always, one
        inside the timeout counts, one outside does not.) Any other timeout counts everything.

        Args:
          seconds: a number > 0.

        Raises:
          TypeError: if `seconds` is not a number.
          ValueError: if it is not > 0 and finite.
        """
        return self._within(Timeout(seconds))

    def retry(self, retry: Retry) -> Step[A, B]:
        """Try what is inside again when it fails.

        Raises:
          PlanError: if what is inside is not idempotent, also in a started step; or if `retry` pauses rate limits and
            there is none inside.
          TypeError: if `retry` is not a `Retry`.
        """
        return self._within(checks.instance("Step.retry", "retry", retry, Retry))

    def rate_limit(
        self,
        *limits: _AnyLimit,
        key: Callable[[Any], Hashable] | None = None,
        cost: _Costs | None = None,
        settle: _Costs | None = None,
        per_key: Callable[[Any], Hashable] | None = None,
        max_keys: int = MAX_KEYS,
    ) -> Step[A, B]:
        """Limit how often what is inside may start; calls wait for their turn.

        A call counts when it starts, at all `limits`: it takes the tokens of all of them at once, as soon as every
        limit has what the call costs, and holds none before that. Limits and `places` written directly one behind the
        other are treated in the same way. (Directly behind `on`, or with a timeout in between, a call starts when there
        is a thread or process for it; with another policy in between, a call counts when that policy begins.)

        Calls that need the same limits are served first come, first served; or, if one of these is a `RateLimiter` with
        shares, by the weights of their keys (of several such limiters, the first one decides). A call that waits for
        one of its limits lets other calls go first at the rest, as long as its own tokens will be there in time: so it
        does not hold up others needlessly, and others cannot keep it from starting.

        Args:
          limits: at least one, each a `RateLimit` or a `RollingLimit`, which each run and each start of the step keeps
            separately, or a `RateLimiter` (or a group of one), which is shared by everything that uses it.
          key: ``key(item)`` is whose share a call takes at limiters with shares, hashable; a sync function.
          cost: ``cost(item)`` is what a call takes, an int or Fraction > 0 and at most the burst; a sync function. By
            default each call takes 1. With several limits it applies to all; a mapping of limits to functions, or a
            sequence of functions in the order of `limits` (None: 1), sets it for each.
          settle: ``settle(result)`` is what the call has really cost, an int or Fraction >= 0; a sync function, or
            several, as for `cost`. What it took too much is given back at once. What it took too little is taken from
            what is there; the rest is a debt, which its key pays before its next call (without shares: the limiter,
            before any call). So in the long run the true cost keeps the rate. A call that fails settles nothing.
          per_key: ``per_key(item)`` is a key, hashable; a sync function. Each key has each `RateLimit` and
            `RollingLimit` given here for itself. The calls of one key are served in the order in which they came. One
            that waits for its key holds up no other key, and takes nothing of the limits beside (a `RateLimiter`, or
            others written directly behind): it joins their line when its key's tokens are there, and takes all at one
            instant. It holds its worker meanwhile; ``map(key=, key_rate=)`` limits the items of a stage without that.
          max_keys: for how many keys that is remembered, an int >= 1. One that no call waits for makes room for another
            when nothing counts against its limits any more; until then calls of a new key wait, in the order of keys.

        Raises:
          TypeError: if an argument has a wrong type, or there is no limit.
          ValueError: if a limiter is given twice; if `cost` or `settle` names a limit that is not given, or is a
            sequence of another length than `limits`; if there is a `key` and no `RateLimiter`, or a `per_key` and
            nothing else.
        """
        if not limits:
            raise TypeError("Step.rate_limit: at least one limit must be given\nUse RateLimit(8), say.")
        if key is not None and not any(isinstance(limit, RateLimiterGroup) for limit in limits):
            raise ValueError(
                "Step.rate_limit: key must be given with a RateLimiter, whose shares it names\n"
                "Use RateLimiter(limit, share=FairShare(...)), made once and shared."
            )
        if per_key is not None and all(isinstance(limit, RateLimiterGroup) for limit in limits):
            raise ValueError(
                "Step.rate_limit: per_key must be given with a limit that each key can have for itself\n"
                "Use RateLimit(5), say, and not a RateLimiter, which all share."
            )
        costs, settles = _of_each(limits, "cost", cost), _of_each(limits, "settle", settle)
        step: Step[Any, Any] = self
        for limit, *functions in zip(limits, costs, settles, strict=True):
            layer = _limit(limit, key, *functions)
            if layer.limiter is None:
                layer = replace(layer, per_key=per_key, max_keys=max_keys)
            step = step._within(layer)
        return step

    def places(self, limiter: PlaceLimiterGroup, *, key: Callable[[Any], Hashable] | None = None) -> Step[A, B]:
        """Limit how many of what is inside run at once, over all who share the limiter; calls wait for a place.

        A place is taken when the call starts, and given back when it ends, however it ends. With rate limits directly
        beside it the call takes the place and all tokens at one instant, and holds neither before; except if these are
        directly behind `on`: then the place is taken first.

        Args:
          limiter: a `PlaceLimiter`, or a group of one.
          key: ``key(item)`` is whose share a call takes, if the limiter has shares; hashable; a sync function.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if the step holds a place of this limiter already.
        """
        given: object = limiter
        if not isinstance(given, PlaceLimiterGroup):
            use = "Use PlaceLimiter(10), made once and shared."
            raise checks.refuse(TypeError, "Step.places", "limiter", "be a PlaceLimiter", given, use)
        return self._within(Places(limiter.places, limiter, key, share_of(limiter), group_of(levels_of(limiter))))

    def circuit_breaker(self, breaker: CircuitBreaker) -> Step[A, B]:
        """Stop calling what is inside while it only fails.

        Each run, and each start of the step, has its own circuit; use one ``step.start()`` for a circuit that several
        pipelines share.

        Raises:
          TypeError: if `breaker` is not a `CircuitBreaker`.
        """
        return self._within(checks.instance("Step.circuit_breaker", "breaker", breaker, CircuitBreaker))

    def fallback(self: Step[C, B], step: Step[C, D]) -> Step[C, B | D]:
        """Call another step with the same item when what is inside fails.

        It is called after any `Exception`, also a `TooSlowError` of a timeout inside or a `CircuitOpen`; not after a
        cancellation, and not after a `MisuseError` or a `StateError`, which are mistakes in the program.
        If it fails, too, its error is raised, with the first one as its ``__context__``.

        It is part of this step: the policies around this apply to it, its own only to its calls. The report counts it
        (`PolicyReport.fallbacks`).

        Args:
          step: the other step. ``Step.pure(fn)`` for a sync function, ``Step(started)`` for a started step.

        Raises:
          TypeError: if `step` is not a Step.
        """
        use = "Use .fallback(Step(fn)), or .fallback(Step.pure(fn)) for a sync function."
        return self._within(Fallback(checks.instance("Step.fallback", "step", step, Step, use).plan))

    def hedge(self, after: float, most: int = 2) -> Step[A, B]:
        """Make a second call with the same item when the first is slow, and take the result of whichever is first.

        Call k begins k times `after` seconds after the first one, if none has succeeded and one still runs. The first
        success counts; the others are cancelled and waited for. (So a call in a thread, which cannot be cancelled, is
        waited for, unless its runner has ``abandon_on_cancel=True``.) What they raise then is an error of cleanup.

        A failure is final if no other call runs: trying again is a retry's. While others run, they decide, and more
        are started when they are due; if all fail, the last error is raised, and those before are its ``__context__``.
        A `MisuseError` or `StateError`, a mistake in the program, is raised at once: the others are cancelled.

        What is inside applies to each call: it takes its own tokens, has its own timeout and its own attempts. The
        report counts the further calls (`PolicyReport.hedges`). Where the first is fast, none is made, and no task.

        Further calls run in tasks of the run, of the `gather` or of ``await step(item)``; a started step must be called
        in its block, ``async with step.start() as call:``.

        Args:
          after: seconds > 0; the 95th percentile of the latency (`StageReport.latency`) makes 5 % more calls (Dean and
            Barroso, The Tail at Scale, 2013).
          most: calls of one item, an int >= 2.

        Raises:
          PlanError: if what is inside is not idempotent, also in a started step.
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range.
        """
        return self._within(Hedge(after, most))

    def coalesce(self, key: Callable[[A], Hashable]) -> Step[A, B]:
        """Make equal calls that are under way at the same time once, and share the result.

        Whoever comes with the key of a call that is under way waits for that call, and gets its result, or its error:
        one object for all. When the call has ended, it is forgotten: this is no cache (which belongs into the function,
        with a size and an age of its choice).

        Nobody's cancellation, and no timeout around this, cancels a call that others wait for; one for which nobody
        waits any more is cancelled, and waited for. What is inside applies to the one call, what is around it to each
        caller: a timeout or a retry around it is each caller's own.

        Each run has its own calls under way, and so has each start of the step: use one
        ``async with step.start() as call:`` to share them among pipelines; it must be called in that block. The report
        counts the calls that were not made (`PolicyReport.coalesced`).

        Args:
          key: ``key(item)`` says which calls are equal: those of equal keys; a sync function. A key that has no hash,
            and what the function raises, is the error of that item.

        Raises:
          TypeError: if `key` is not a sync function.
        """
        return self._within(Coalesce(key))

    def on(self, runner: _Runner) -> Step[A, B]:
        """Run the step's sync function elsewhere; must come before all policies.

        A call first waits for its thread or process; the rate limits and the timeout directly behind this begin then.

        Args:
          runner: `threads`, `processes` or `executor`; or any async function ``runner(fn, *args)`` that runs it.

        Raises:
          PlanError: if the step is more than one call, or its function is async.
          TypeError: if `runner` is none of these.
        """
        return Step.from_plan(self.plan.on(runner_of(runner)))

    def using(
        self: Step[WithResource[R, C], D],
        open: Callable[[], Manager[R] | Awaitable[Manager[R]]],
        per: Literal["run", "worker"] = "run",
    ) -> Step[C, D]:
        """Call the step's function with a resource, ``fn(resource, item)``; must come before all policies.

        It is opened by the first call that needs it, which waits for that: an error of opening is that call's error,
        so a retry around it opens anew, and a timeout around it counts the opening (except one directly behind `on`).
        The other calls go on or, if they need the same one, wait in line and then open it anew themselves.

        It is closed, shielded, in at most `cleanup_timeout` seconds, when nothing can use it any more: in a pipeline,
        when all other tasks of the run have ended and its consumer has asked for one more item or left (each stage has
        its own: share a started step to share one); by `gather`
        and ``await step(item)``, at the end; for a started step, behind the block of
        ``async with step.start() as call:``, outside of which it must not be called. An error of closing is one of
        cleanup. A task of its own opens and closes each, so it may hold nurseries and cancel scopes open; if those end
        it, the next call opens another.

        Args:
          open: ``open()`` gives an async or sync context manager; an async function that returns one is awaited.
          per: ``"run"``: one for all calls of a run (of the block of a started step, of a `gather`); ``"worker"``: one
            for each worker that works, so no two calls use one at the same time.

        Raises:
          PlanError: if the step is more than one call, or has a resource already.
          TypeError: if `open` is not a function that may give a context manager.
          ValueError: if `per` is neither ``"run"`` nor ``"worker"``.
        """
        return Step.from_plan(self.plan.using(Using(open, per)))

    # ---- one after the other

    def then(self, step: Step[B, C]) -> Step[A, C]:
        """Pass the result to another step.

        Raises:
          TypeError: if `step` is not a Step.
        """
        use = "Use .then(Step(fn)), or .map(fn) for a sync function."
        return Step.from_plan(self.plan.then(checks.instance("Step.then", "step", step, Step, use).plan))

    def map(self, fn: Callable[[B], C]) -> Step[A, C]:
        """Put the result through a sync function.

        Raises:
          TypeError: if `fn` is not a sync function.
        """
        checks.sync_callable("Step.map", "fn", fn)
        return Step.from_plan(StepPlan(self.name, (*self.plan.parts, Pure(fn))))

    # ---- use

    def describe(self) -> str:
        """Describe the step: a line for each call and policy, inside out. Stable, suitable for a golden test."""
        return "\n".join([f"step {escaped(self.name)}", *(f"  {escaped(line)}" for line in self.plan.lines())])

    def check(self) -> None:
        """Raise the `PlanError` that using the step would raise."""
        problems = list(self.plan.problems())
        if problems:
            raise PlanError(*problems)

    def start(self) -> StartedStep[A, B]:
        """Make a callable that keeps tokens, circuit and threads over its calls, in one trio run at a time.

        Raises:
          PlanError: if the step cannot run (a sync function without a runner).
        """
        self.check()
        return StartedStep(self.plan)

    async def __call__(self, item: A) -> B:
        """Put one item through the step, in the caller's task and with fresh state.

        Raises:
          PlanError: if the step cannot run.
          Exception: the original error of the last attempt, with notes.

        Checkpoint: always.
        Cancellation: stops the call at once.
        """
        started = self.start()
        if not self.plan.needs_block():
            return await started(item)
        async with started:
            return await started(item)

    def _within(self, layer: Layer) -> Step[Any, Any]:
        return Step.from_plan(StepPlan(self.name, (Within(self.plan.parts, layer),)))


def _limit(limit: _AnyLimit, key: Callable[[Any], Hashable] | None, cost: _Cost | None, settle: _Cost | None) -> Limit:
    given: object = limit
    if isinstance(given, PlaceLimiterGroup):
        rule, use = "be a RateLimit, a RollingLimit or a RateLimiter", "Use .places(limiter)."
        raise checks.refuse(TypeError, "Step.rate_limit", "limit", rule, given, use)
    if isinstance(limit, RateLimiterGroup):
        group = group_of(levels_of(limit))
        return Limit(limit.rate_limit, limit, cost, key, settle, share_of(limit), group=group)
    return Limit(limit, None, cost, None, settle)


def _of_each(limits: Sequence[_AnyLimit], name: str, value: _Costs | None) -> list[_Cost | None]:
    """Return the function for each limit, None where there is none."""
    where = "Step.rate_limit"
    if isinstance(value, Mapping):
        unknown = [limit for limit in value if limit not in limits]
        if unknown:
            raise checks.refuse(ValueError, where, name, "name limits that are given", unknown[0])
        by_limit: Mapping[Any, _Cost] = value
        return [by_limit.get(limit) for limit in limits]
    if isinstance(value, Sequence) and not callable(value):
        if len(value) != len(limits):
            rule = f"have a function (or None) for each of the {len(limits)} limits"
            raise ValueError(f"{where}: {name} must {rule}, not {len(value)}")
        return [*value]
    return [value] * len(limits)


async def gather(step: Step[C, D] | StartedStep[C, D], items: Iterable[C], *, concurrency: int) -> list[D]:
    """Put each item through a step, several at once, and return the results in the order of the items.

    The first error is raised at once, as it is and not in a group; no more calls start, and running calls are
    cancelled. Of simultaneous errors it is that of the earliest item. An error that a call raises while it is cancelled
    is a note on the first error, or, if nothing else failed, a warning in the log of ``funcpipe_trio``.

    Args:
      step: a Step, started once for all items, or a started step.
      items: an iterable; taken one by one, each when there is a place for it.
      concurrency: calls at once, an int >= 1. (An `Adaptive` is for a stream: ``map(step, concurrency=...)``.)

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `concurrency` is below 1.
      PlanError: if the step cannot run.
      Exception: the first error, with a note for each error that was raised while the others were cancelled.

    Checkpoint: always.
    Cancellation: cancels all calls.
    """
    if step_of(step) is None:
        raise checks.refuse(TypeError, "gather", "step", "be a Step", step, "Use Step(fn).")
    checks.integer("gather", "concurrency", concurrency, at_least=1)
    if not isinstance(step, Step):
        return await gathered(step.plan.name, step, items, concurrency)
    started = step.start()
    if not step.plan.needs_block():
        return await gathered(step.name, started, items, concurrency)
    async with started:
        return await gathered(step.name, started, items, concurrency)


class chunked(Generic[C, D]):  # used like a function, and picklable as no closure is
    """Make a function on lists from a function on items: for work too small to send to a process item by item.

    ``pipeline.batch(32, max_delay=0.1).map(Step(chunked(parse)).on(processes(2)), concurrency=2).unbatch()``

    An item's error fails its whole chunk, with a note that tells which item it was.

    Args:
      fn: ``fn(item)``, a sync function; for `processes`, a function of a module.

    Raises:
      TypeError: if it is not a sync function.
    """

    __slots__ = ("fn",)

    fn: Callable[[C], D]

    def __init__(self, fn: Callable[[C], D]) -> None:
        self.fn = checks.sync_callable("chunked", "fn", fn)

    def __call__(self, items: Iterable[C]) -> list[D]:
        """Put each item through the function."""
        results: list[D] = []
        for item in items:
            try:
                results.append(self.fn(item))
            except Exception as error:
                add_note(error, f"item {len(results)} of its chunk")
                raise
        return results

    @property
    def __name__(self) -> str:
        return f"chunked {function_name(self.fn)}"
