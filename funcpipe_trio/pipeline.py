"""How does a user describe and run a stream? With the methods of `Pipeline`.

Each method that describes makes one value of the plan, which checks itself; each that runs passes the plan to the
runtime. The plan never changes. This file decides nothing about how a stream runs.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeGuard, TypeVar, overload

import trio

from ._base import checks
from ._base.functions import function_name
from ._base.shown import cut, escaped, named
from ._plan import operations as plan
from ._plan import own, timing
from ._plan.bound import max_in_flight
from ._plan.check import check_plan, refuse_too_deep, shared_objects
from ._plan.failures import Ending, OnEnd, OnOk, OrElse, Recover
from ._plan.fair_by import FairBy, FairOverflow
from ._plan.layout import lay_out
from ._plan.loops import Again, LoopFull, entry_of
from ._plan.nodes import Branch, FanOut, FanOutKind, JoinKind, Plan, Source, SourceKind, iterable_name, too_deep
from ._plan.resources import IterableInThread, UsingSource
from ._plan.restarts import RestartingSource
from ._plan.windows import Distinct, Sliding, Window
from ._recording.prediction import Prediction, Times, predict
from ._recording.recorder import Recorder
from ._runtime.core.failures import warn_of
from ._runtime.core.ledger import OnDiscard
from ._runtime.core.misused import misused
from ._runtime.links.sink import Sink
from ._runtime.reports.report import Report
from ._runtime.run.observing import Observed, Observer
from ._runtime.run.run import Run
from ._runtime.run.run_context import RunContext
from ._runtime.runners.runners import Threads
from .policies.adaptive import Adaptive
from .policies.fair_share import FairShare
from .policies.on_error import Divert, Failure, OnError, Skip, Stop
from .policies.on_full import OnFull
from .policies.rate_limit import RateLimit, RollingLimit
from .policies.retry import Retry

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # the checkers' own; the package is not needed to run

    from .step import Step

__all__ = ["Pipeline"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)
R = TypeVar("R")
P = ParamSpec("P")

# What a function of flat_map returns; a sync one may return a pipeline as well, if `concurrency` is given.
_Many: TypeAlias = "Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U] | Pipeline[U]]"

_Manager: TypeAlias = "AbstractAsyncContextManager[R, Any] | AbstractContextManager[R, Any]"

_MISSING: Any = object()


class Pipeline(Generic[T_co]):
    """A description of a stream of items and what is done to them; a value that never changes.

    Building one has no effects. It can be shown (`describe`), checked (`check`), compared, and run any number of times,
    also concurrently. Runs share nothing of the package's; what the functions of the plan keep themselves, in a closure
    or as objects that are called, all runs share: `stateful` and `through` make it for each run. (With a source that
    works only once, such as an iterator, the whole plan works only once.)
    """

    __slots__ = ("_plan",)

    _plan: Plan

    def __init__(self, plan_: Plan) -> None:
        if not isinstance(plan_, Plan):
            raise TypeError("Pipeline: make one with Pipeline.from_iterable() or another of its from_ methods")
        object.__setattr__(self, "_plan", plan_)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Pipeline: {cut(escaped(name))} cannot be set, a pipeline never changes")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Pipeline: {cut(escaped(name))} cannot be deleted, a pipeline never changes")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and other._plan == self._plan

    def __hash__(self) -> int:
        return hash(self._plan)

    def __copy__(self) -> Pipeline[T_co]:
        return self  # a value that never changes

    def __deepcopy__(self, memo: object) -> Pipeline[T_co]:
        return self

    def __reduce__(self) -> tuple[type[Pipeline[Any]], tuple[Plan]]:
        refuse_too_deep(self._plan)
        return Pipeline, (self._plan,)

    def __repr__(self) -> str:
        if too_deep(self._plan) is not None:
            return "<Pipeline, nested too deep>"
        return f"<Pipeline {escaped(' > '.join(stage.name for stage in lay_out(self._plan).all_stages()))}>"

    def _repr_html_(self) -> str:
        from ._plan.html import html

        return html(self._plan, repr(self))

    if not TYPE_CHECKING:
        _USE = "Use `async with plan.open() as run: async for item in run: ...`, or `await plan.collect()` for a list."
        __aiter__ = misused(
            "Pipeline: `async for` takes a run, which `async with plan.open()` gives, not its plan", _USE
        )
        __iter__ = misused("Pipeline: a plan holds no items; `await plan.collect()` gives a list of them", _USE)
        __await__ = misused("Pipeline: a plan is not awaited, but what runs it: `await plan.run()`, say", _USE)

    # ---- sources

    @staticmethod
    def from_iterable(
        items: Iterable[T] | Callable[[], Iterable[T]], *, name: str | None = None, on: Threads | None = None
    ) -> Pipeline[T]:
        """Take items from an iterable.

        The run opens the iterator when it starts, pulls only while there is room, and closes it (if it has a
        ``close``) in the same task: in the event loop, so one that blocks (reads a file, a database) holds up
        everything there. With ``on=threads(1)`` it is made, advanced and closed in a thread instead, one pull at a
        time and in order, in the context of the task that opened the run. A pull takes about 0.1 ms more.

        A pull cannot be cancelled: when the run ends it waits for the one that is under way (which can ask
        `trio.from_thread.check_cancelled`); what that gives is delivered by a drain, and otherwise discarded. With
        ``threads(1, abandon_on_cancel=True)`` it is left behind instead: its thread closes the iterator when the pull
        ends, and the report counts one call of unknown outcome.

        Args:
          items: an iterable, or a callable that makes one. An iterator works for one run only.
          name: its name in reports and errors; by default the callable's name, or ``iterable``.
          on: ``threads(1)`` for an iterable that blocks; None: in the event loop.

        Raises:
          TypeError: if `items` is neither iterable nor callable, `name` is not a str, or `on` is not `threads`.
          ValueError: if `on` is not for one thread.
        """
        return _iterating("iterable", items, name, on)

    @staticmethod
    def from_async_iterable(
        items: AsyncIterable[T] | Callable[[], AsyncIterable[T]], *, name: str | None = None
    ) -> Pipeline[T]:
        """Take items from an async iterable; one task opens, iterates and closes (``aclose``) it.

        It is asked for an item only while there is room for it.

        Args:
          items: an async iterable, or a callable that makes one. An async iterator works for one run only.
          name: its name in reports and errors; by default the callable's name, or ``async_iterable``.

        Raises:
          TypeError: if `items` is neither async iterable nor callable, or `name` is not a str.
        """
        return _iterating("async iterable", items, name)

    @staticmethod
    def from_channel(receive_channel: trio.abc.ReceiveChannel[T], *, name: str | None = None) -> Pipeline[T]:
        """Take items from a receive channel; the run owns it and closes it. It works for one run only.

        Items in its buffer would be lost if the run ends early: a drain delivers them, any other early end passes them
        to `on_discard`. For your own channel class, their number is the `current_buffer_used` of its `statistics`;
        without that, `receive_nowait` is not called once the run is ending.

        Raises:
          TypeError: if it is not a `trio.abc.ReceiveChannel`, or `name` is not a str.
        """
        if not isinstance(receive_channel, trio.abc.ReceiveChannel):
            raise checks.refuse(
                TypeError, "Pipeline.from_channel", "receive_channel", "be a trio ReceiveChannel", receive_channel
            )
        return Pipeline(Plan(Source("channel", _named(name, "channel"), plan.Opaque(receive_channel))))

    @staticmethod
    def from_producer(
        async_fn: Callable[[trio.MemorySendChannel[T]], Awaitable[object]], *, name: str | None = None
    ) -> Pipeline[T]:
        """Take the items that an async function sends: ``async_fn(send_channel)`` runs as a task.

        Its items are taken only while there is room. The stream ends when the function returns (and every clone of the
        channel is closed); the function is cancelled when no more items are needed.

        Raises:
          TypeError: if `async_fn` is not an async function, or `name` is not a str.
        """
        return Pipeline(Plan(Source("producer", _named_as(async_fn, name), plan.Opaque(async_fn))))

    @staticmethod
    def ticks(period: float, *, name: str | None = None) -> Pipeline[int]:
        """Count 0, 1, 2, ... at multiples of a period from the start of the run.

        A tick is emitted only after the previous one was taken, at the next multiple of `period`: no drift, no
        bunching, no gaps in the numbers.

        Args:
          period: seconds > 0.
          name: its name in reports and errors.

        Raises:
          TypeError: if `period` is not a number.
          ValueError: if it is not > 0 and finite.
        """
        return Pipeline(Plan(Source("ticks", _named(name, "ticks"), plan.Opaque(None), period)))

    @staticmethod
    def restarting(
        source_factory: Callable[[], Iterable[T] | AsyncIterable[T]],
        retry: Retry,
        *,
        reset_after: float,
        name: str | None = None,
    ) -> Pipeline[T]:
        """Take items from an iterable that a callable makes, and make a new one when it fails, at opening or later.

        The failed iterable is closed, then the wait of `retry` passes, then the callable is called again. Items taken
        before continue; the stream ends when an iterable ends. An error that `retry` does not cover, or one failure too
        many, is the error of the stream: the last error itself. Draining or stopping the run ends a wait at once.

        Args:
          source_factory: ``source_factory()`` returns an iterable or async iterable, a new one each time (anything
            else, or the iterator that has failed, is a TypeError in the stream).
          retry: ``attempts`` is how many consecutive openings may fail; ``on`` and ``retry_after`` as for a step.
          reset_after: seconds > 0; a failure this long after the opening counts as the first again. `math.inf`: never.
          name: its name in reports and errors; by default the callable's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `reset_after` is not > 0, or `retry` has `pauses_limit`.
        """
        called, factory = _named_as(source_factory, name), plan.Opaque(source_factory)
        return Pipeline(Plan(RestartingSource("restarting", called, factory, retry=retry, reset_after=reset_after)))

    # An async or a sync context manager, or an async function that gives one.
    @overload
    @staticmethod
    def using(
        open: Callable[[], _Manager[R] | Awaitable[_Manager[R]]],
        fn: Callable[[R], Pipeline[T]],
        *,
        name: str | None = None,
    ) -> Pipeline[T]: ...

    @overload
    @staticmethod
    def using(
        open: Callable[[], _Manager[R] | Awaitable[_Manager[R]]],
        fn: Callable[[R], Iterable[T] | AsyncIterable[T]],
        *,
        name: str | None = None,
    ) -> Pipeline[T]: ...

    @staticmethod
    def using(
        open: Callable[[], _Manager[R] | Awaitable[_Manager[R]]],
        fn: Callable[[R], Any],
        *,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Open a resource, take items from what a function gives of it, and close it when no item needs it any more.

        The resource is open for as long as anything of the run may use it: it is closed when all other tasks of the run
        have ended, so every call that was given an item from here has ended too, and the consumer, to whom the last
        item belongs, has asked for one more or left its block, or the run was aborted. That holds for every end:
        completed, failed, drained, aborted, left, cancelled. What `fn` gives is closed as that of any source, as soon
        as no more is taken from it. So several such sources in one `concat` are open until its end. In a `flat_map`
        each is a run of its own, which ends when its last item is taken: the work belongs inside, as in
        ``flat_map(lambda path: Pipeline.using(partial(connect, path), rows).map(use))``.

        One task opens, iterates and closes, so the context manager may hold cancel scopes and nurseries open. If one of
        them is cancelled (because a heartbeat failed, say) it is closed at once, and what that raises is the error of
        the stream, behind the items before it. Closing is shielded, in at most `cleanup_timeout` seconds. It is told of
        the error of what `fn` gave, and of a cancellation of the run, as at the end of an ``async with``, but cannot
        take them back. An error of closing is one of cleanup: a note on the first error, and kept in the report.

        Args:
          open: ``open()`` gives an async or sync context manager; called when the run starts the source. An async
            function that returns one (such as `trio.open_file`) is awaited.
          fn: ``fn(resource)``, sync, gives an iterable, async iterable or pipeline (a run of its own in this stage,
            which a drain drains). The resource is what entering the context manager gave.
          name: its name in reports and errors; by default that of `fn`.

        Raises:
          TypeError: if an argument has a wrong type. (What `open` or `fn` give wrongly is an error of the stream, as
            is an error of opening.)
        """
        return Pipeline(Plan(UsingSource("using", _named_as(fn, name), plan.Opaque(fn), open=open)))

    # ---- operations on each item

    # A Step by itself, so that mypy finds the types of Step(fn) when fn is generic.
    # An OnError that may be `emit` may put a Failure into the stream.
    @overload
    def map(
        self,
        fn: Step[T_co, U],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self,
        fn: Step[T_co, U],
        *,
        on_error: OnError,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        *,
        on_error: OnError,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], U],
        *,
        on_error: Stop | Skip | Divert = ...,
        ordered: bool = True,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self, fn: Callable[[T_co], U], *, on_error: OnError, name: str | None = None
    ) -> Pipeline[U | Failure[T_co]]: ...

    def map(
        self,
        fn: Callable[[Any], Any],
        *,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Any], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        on_error: OnError = plan.STOP,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Put each item through a function or a step.

        A sync function is fused: it runs in the task of the stage before it. An async function, a `Step`, or any
        function with `concurrency`, whose result is then awaited (such as a lambda that returns a coroutine), makes its
        own stage with up to `concurrency` calls at once. A result that waits for an earlier one uses a place of the
        link behind, so calls + waiting + buffered <= concurrency + capacity.

        Args:
          fn: ``fn(item)``, sync or async, or a step, which each run starts afresh (a started step is shared).
          concurrency: calls at once, an int >= 1, or an `Adaptive`, with which the run chooses it; None: one, for an
            async function. If it is given, a result that cannot be awaited is a `TypeError` to which no policy
            applies: ``Step(fn).on(threads(4))`` runs sync ones.
          ordered: whether results leave in the order of their items; otherwise as they complete.
          key: ``key(item)``, sync: items with the same key (a hashable value) are processed one at a time and in order,
            those with different keys concurrently. An item that waits for its key takes a place as well, so one slow
            key holds up the others only when it has all places; see `waiting`.
          per_key: calls at once for one key, an int >= 1; they begin in the order of their items.
          key_rate: how often calls for one key may begin; each key has a limit of its own, which is forgotten when
            nothing counts against it any more. A call is what a step does with one item: its retries do not count.
          waiting: items that may wait for their key without taking a place, an int >= 0, which `max_in_flight` counts;
            any more take places. With enough of them a slow key does not hold up the others. A drain waits for them.
          on_error: what happens to an item whose call finally failed. (With `divert`, a sync function makes its own
            stage as well.)
          latest: whether only the latest item counts. A newer item cancels the call for the older one, which is
            dropped and told to `on_discard` with the reason ``latest``; its own call begins when that has ended. (What
            shields itself goes on until it is done, and its result is dropped.) Of several that are there, the newest
            is taken. Not for a sync function, nor with `key` or a `concurrency` other than 1, which `check` refuses.
          retries_elsewhere: items that may wait for their next attempt without a place, an int >= 0, which
            `max_in_flight` counts; any more wait in their places. When its wait is over an item gets the next free
            place, before new items and in the order in which waits end, so no more calls run than `concurrency`. (A
            timeout around the retry counts that, too.) An item keeps its turn and its key. A drain waits for it. It
            needs a step with a `Retry` outside of `places`, `hedge`, `coalesce` and any circuit breaker that waits, and
            no `latest`: `check` refuses all else.
          name: its name in reports and errors; by default that of the step or function.

        Raises:
          TypeError: if an argument has a wrong type, or `per_key`, `key_rate` or `waiting` comes without `key`.
          ValueError: if `concurrency` or `per_key` is below 1, or `waiting` or `retries_elsewhere` below 0.
        """
        keyed = (key, per_key, key_rate, waiting)
        return self._then(
            plan.Map(_named_as(fn, name), fn, concurrency, ordered, *keyed, on_error, latest, retries_elsewhere)
        )

    # First, because mypy reports errors for the first overload, and does not look into a lambda for that of a guard.
    # No function that returns a bool fits it, and so no guard does.
    @overload
    def filter(
        self, fn: Callable[[T_co], Awaitable[object] | Literal[True]], *, name: str | None = None
    ) -> Pipeline[T_co]: ...

    @overload
    def filter(self, fn: Callable[[T_co], TypeGuard[U]], *, name: str | None = None) -> Pipeline[U]: ...

    @overload
    def filter(self, fn: Callable[[T_co], TypeIs[U]], *, name: str | None = None) -> Pipeline[U]: ...

    @overload
    def filter(
        self, fn: Callable[[T_co], object], *, concurrency: int | Adaptive | None = None, name: str | None = None
    ) -> Pipeline[T_co]: ...

    def filter(
        self, fn: Callable[[Any], object], *, concurrency: int | Adaptive | None = None, name: str | None = None
    ) -> Pipeline[Any]:
        """Keep the items for which a function, sync or async, or a step returns true; the others count as dropped.

        Args:
          fn: ``fn(item)``; a sync function is fused, as in `map`.
          concurrency: calls at once, an int >= 1 or an `Adaptive`, in its own stage, whose results are awaited (see
            `map`); items keep their order. None: one, for an async function.
          name: its name in reports and errors; by default the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.Filter(_named_as(fn, name), fn, concurrency))

    @overload
    def flat_map(
        self,
        fn: Step[T_co, Iterable[U] | Pipeline[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | None = None,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Step[T_co, Iterable[U] | Pipeline[U]],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], _Many[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | None = None,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], _Many[U]],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], Pipeline[U]],
        *,
        concurrency: int,
        on_error: Stop | Skip | Divert = ...,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], Pipeline[U]],
        *,
        concurrency: int,
        on_error: OnError,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    def flat_map(
        self,
        fn: Callable[[Any], Any],
        *,
        concurrency: int | None = None,
        on_error: OnError = plan.STOP,
        latest: bool = False,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Replace each item by everything in the iterable that a function returns for it.

        A sync function that returns an iterable is fused, and iterated only as far as there is room. An async generator
        function, an async function, or any function with `concurrency` makes its own stage; with more than one item at
        a time, their children are mixed as they come.

        The function may return a pipeline as well, which then runs inside this run, as part of the item: its results
        are the item's children, its failure (or `PlanError`) is the item's, and it is stopped when the item is
        discarded. A sync function that returns pipelines needs `concurrency`. What an inner run discards is passed to
        `on_discard` with ``outer > inner`` as its stage. The children of an item count as one with it, so
        `max_in_flight` does not count what the inner pipeline holds; and a drain lets it run to its end.

        Args:
          fn: ``fn(item)`` returns an iterable, an async iterable or a pipeline; it may be async, or a step.
          concurrency: items that are expanded at once, an int >= 1; None: one. (No `Adaptive`: how long an item takes
            says little here, because its children wait for room.)
          on_error: what happens to an item if the call, or iterating its result, failed; the children before that have
            already gone out.
          latest: whether only the latest item counts, as in `map`: a newer item stops the call for the older one, or
            what it gives; children that are out stay, the older item is dropped.
          name: its name in reports and errors; by default the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.FlatMap(_named_as(fn, name), fn, concurrency, on_error, latest))

    def scan(self, fn: Callable[[U, T_co], Awaitable[U] | U], initial: U, *, name: str | None = None) -> Pipeline[U]:
        """Replace each item by the state so far: ``state = fn(state, item)``, starting from `initial`.

        Every run starts from the same `initial` object: use one that `fn` does not change in place.
        """
        return self._then(plan.Scan(_named_as(fn, name), fn, plan.Opaque(initial)))

    def tap(
        self, fn: Callable[[T_co], object], *, concurrency: int | Adaptive | None = None, name: str | None = None
    ) -> Pipeline[T_co]:
        """Call a function, sync or async, or a step with each item; the item continues unchanged.

        Args:
          fn: ``fn(item)``; a sync function is fused, as in `map`.
          concurrency: calls at once, an int >= 1 or an `Adaptive`, in its own stage, whose results are awaited (see
            `map`); items keep their order. None: one, for an async function.
          name: its name in reports and errors; by default the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.Tap(_named_as(fn, name), fn, concurrency))

    def enumerate(self, start: int = 0, *, name: str | None = None) -> Pipeline[tuple[int, T_co]]:
        """Replace each item by ``(number, item)``.

        Raises:
          TypeError: if `start` is not an int.
        """
        return self._then(plan.Enumerate(_named(name, "enumerate"), start))

    # ---- failures on their way

    # A stream with failures in it is a `Pipeline[T | Failure[Any]]`: which items they had is not followed, because
    # mypy finds no type for a variable in `Failure[...]` beside another.
    @overload
    def on_ok(
        self: Pipeline[T | Failure[Any]],
        fn: Step[T, U],
        *,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        on_error: OnError = ...,
        name: str | None = None,
    ) -> Pipeline[U | Failure[Any]]: ...

    @overload
    def on_ok(
        self: Pipeline[T | Failure[Any]],
        fn: Callable[[T], Awaitable[U]],
        *,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[T], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        on_error: OnError = ...,
        name: str | None = None,
    ) -> Pipeline[U | Failure[Any]]: ...

    @overload
    def on_ok(
        self: Pipeline[T | Failure[Any]], fn: Callable[[T], U], *, on_error: OnError = ..., name: str | None = None
    ) -> Pipeline[U | Failure[Any]]: ...

    def on_ok(
        self,
        fn: Callable[[Any], Any],
        *,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Any], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        on_error: OnError = plan.STOP,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Put each item but the failures through a function or a step; a `Failure` passes in its place, untouched.

        It is `map` for a stream in which an earlier operation left failures (``on_error=OnError.emit()``). A failure
        takes a place among the items, so it keeps its turn, but no call is made for it: it takes no token of a rate
        limit, has no latency, and its key is not asked for.

        Args:
          fn: ``fn(item)``, as for `map`; so are all other arguments.
          concurrency: calls at once, an int >= 1 or an `Adaptive`.
          ordered: whether results leave in the order of their items, failures included.
          key: ``key(item)``, sync; it is not called with failures, which wait for no item.
          per_key: calls at once for one key, an int >= 1.
          key_rate: how often calls for one key may begin.
          waiting: items that may wait for their key without taking a place, an int >= 0.
          retries_elsewhere: items that may wait for their next attempt without a place, an int >= 0.
          on_error: what happens to an item whose call failed; with ``OnError.emit()`` it is one more failure.
          name: its name in reports and errors; by default that of the step or function.

        Raises:
          TypeError: if an argument has a wrong type, or `per_key`, `key_rate` or `waiting` comes without `key`.
          ValueError: if `concurrency` or `per_key` is below 1, or `waiting` or `retries_elsewhere` below 0.
        """
        keyed = (key, per_key, key_rate, waiting)
        return self._then(
            OnOk(_named_as(fn, name), fn, concurrency, ordered, *keyed, on_error, False, retries_elsewhere)
        )

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Step[Failure[Any], U],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Failure[Any]], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        name: str | None = None,
    ) -> Pipeline[T | U]: ...

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Step[Failure[Any], U],
        *,
        on_error: OnError,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Failure[Any]], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        name: str | None = None,
    ) -> Pipeline[T | U | Failure[Any]]: ...

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Callable[[Failure[Any]], Awaitable[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Failure[Any]], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        name: str | None = None,
    ) -> Pipeline[T | U]: ...

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Callable[[Failure[Any]], Awaitable[U]],
        *,
        on_error: OnError,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Failure[Any]], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        name: str | None = None,
    ) -> Pipeline[T | U | Failure[Any]]: ...

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Callable[[Failure[Any]], U],
        *,
        on_error: Stop | Skip | Divert = ...,
        name: str | None = None,
    ) -> Pipeline[T | U]: ...

    @overload
    def recover(
        self: Pipeline[T | Failure[Any]],
        fn: Callable[[Failure[Any]], U],
        *,
        on_error: OnError,
        name: str | None = None,
    ) -> Pipeline[T | U | Failure[Any]]: ...

    def recover(
        self,
        fn: Callable[[Any], Any],
        *,
        concurrency: int | Adaptive | None = None,
        ordered: bool = True,
        key: Callable[[Any], Hashable] | None = None,
        per_key: int = 1,
        key_rate: RateLimit | RollingLimit | None = None,
        waiting: int = 0,
        retries_elsewhere: int = 0,
        on_error: OnError = plan.STOP,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Replace each `Failure` by what a function or a step gives for it; all other items pass, untouched.

        It is `on_ok` the other way round. The item that failed is ``failure.item``; what `fn` returns takes its place.

        Args:
          fn: ``fn(failure)``, sync or async, or a step; all other arguments are those of `map`.
          concurrency: calls at once, an int >= 1 or an `Adaptive`.
          ordered: whether results leave in the order of their items.
          key: ``key(failure)``, sync.
          per_key: calls at once for one key, an int >= 1.
          key_rate: how often calls for one key may begin.
          waiting: failures that may wait for their key without taking a place, an int >= 0.
          retries_elsewhere: failures that may wait for their next attempt without a place, an int >= 0.
          on_error: what happens if `fn` fails as well; ``OnError.emit()`` puts a `Failure` there whose item is the
            failure that it got.
          name: its name in reports and errors; by default that of the step or function.

        Raises:
          TypeError: if an argument has a wrong type, or `per_key`, `key_rate` or `waiting` comes without `key`.
          ValueError: if `concurrency` or `per_key` is below 1, or `waiting` or `retries_elsewhere` below 0.
        """
        keyed = (key, per_key, key_rate, waiting)
        return self._then(
            Recover(_named_as(fn, name), fn, concurrency, ordered, *keyed, on_error, False, retries_elsewhere)
        )

    def or_else(self, make_pipeline: Callable[[], Pipeline[U]], *, name: str | None = None) -> Pipeline[T_co | U]:
        """Continue with another pipeline if the stream ends without an item.

        `make_pipeline` is called only if that is so: the stream has ended normally (not by a failure, and not because
        the run is drained), and nothing came as far as here. The pipeline that it returns then runs inside this run and
        gives the items of the stream; its failure (or `PlanError`) is that of the stream, behind what it gave. As with
        a pipeline inside a `flat_map`, what it discards is passed to `on_discard` with ``outer > inner`` as its stage,
        and what it holds is not in `max_in_flight`. It is paused, drained and stopped together with this run. This is a
        stage of its own.

        Args:
          make_pipeline: ``make_pipeline()``, sync, returns a pipeline, a new one for each run if its source works once
            only; anything else is a `MisuseError` in the stream.
          name: its name in reports and errors; by default that of the function.

        Raises:
          TypeError: if `make_pipeline` is not a sync function, or `name` is not a str.
        """
        return self._then(OrElse(_named_as(make_pipeline, name), make_pipeline))

    def on_end(self, fn: Callable[[Ending], object], *, name: str | None = None) -> Pipeline[T_co]:
        """Call a function, sync or async, with how the stream ended here: once in each run; items continue unchanged.

        The outcome is that of the stream at this point: ``"completed"`` (it ended), ``"drained"`` (it ended because the
        run drains), ``"failed"`` (by a failure at or before this point), or ``"stopped"``: something behind this point
        ended the stream before its end (a `take`, a failure), or the run was aborted, left or cancelled.

        It is called when the last item has left this stage and what is upstream was stopped, and before the end goes
        on: whoever sees the end knows that it was called. It is a part of cleanup: shielded from cancellation, within
        `cleanup_timeout`; its error is one of cleanup, kept in ``report.cleanup_errors``, and changes nothing. It is
        not called if this part of the run never began, as a later input of a `concat` that did not have its turn. This
        is a stage of its own.

        Args:
          fn: ``fn(outcome)``, whose result is awaited if it can be.
          name: its name in reports and errors; by default that of the function.

        Raises:
          TypeError: if `fn` is not a function, or `name` is not a str.
        """
        return self._then(OnEnd(_named_as(fn, name), fn))

    # ---- operations on the stream

    def take(self, n: int, *, name: str | None = None) -> Pipeline[T_co]:
        """Keep the first `n` items; the stream ends with the n-th, and no further item is asked for.

        Items on their way behind it are discarded with the reason ``not needed``.

        Raises:
          TypeError: if `n` is not an int.
          ValueError: if `n` is below 0.
        """
        return self._then(plan.Take(_named(name, "take"), n))

    def skip(self, n: int, *, name: str | None = None) -> Pipeline[T_co]:
        """Drop the first `n` items.

        Raises:
          TypeError: if `n` is not an int.
          ValueError: if `n` is below 0.
        """
        return self._then(plan.Skip(_named(name, "skip"), n))

    @overload  # see filter
    def take_while(
        self, fn: Callable[[T_co], Awaitable[object] | Literal[True]], *, name: str | None = None
    ) -> Pipeline[T_co]: ...

    @overload
    def take_while(self, fn: Callable[[T_co], TypeGuard[U]], *, name: str | None = None) -> Pipeline[U]: ...

    @overload
    def take_while(self, fn: Callable[[T_co], TypeIs[U]], *, name: str | None = None) -> Pipeline[U]: ...

    @overload
    def take_while(self, fn: Callable[[T_co], object], *, name: str | None = None) -> Pipeline[T_co]: ...

    def take_while(self, fn: Callable[[Any], object], *, name: str | None = None) -> Pipeline[Any]:
        """Keep the items before the first for which a function, sync or async, returns false; the stream ends there."""
        return self._then(plan.TakeWhile(_named_as(fn, name), fn))

    def take_until(self, fn: Callable[[T_co], object], *, name: str | None = None) -> Pipeline[T_co]:
        """Keep the items up to the first for which a function, sync or async, returns true; that one is the last.

        The stream ends there as with `take`: the item is delivered, everything upstream is stopped, and what is no
        longer needed there is discarded with the reason ``not needed``.

        Args:
          fn: ``fn(item)``, or a step; its error is a failure of the item.
          name: its name in reports and errors; by default the function's.

        Raises:
          TypeError: if `fn` is not a function.
        """
        return self._then(plan.TakeUntil(_named_as(fn, name), fn))

    def skip_while(self, fn: Callable[[T_co], object], *, name: str | None = None) -> Pipeline[T_co]:
        """Drop the items before the first for which a function, sync or async, returns false."""
        return self._then(plan.SkipWhile(_named_as(fn, name), fn))

    def batch(
        self,
        max_items: int | None = None,
        *,
        max_delay: float | None = None,
        max_cost: float | None = None,
        cost: Callable[[T_co], float] | None = None,
        key: Callable[[T_co], Hashable] | None = None,
        max_keys: int | None = None,
        full: plan.FullOfKeys = "oldest",
        name: str | None = None,
    ) -> Pipeline[list[T_co]]:
        """Collect items into lists; with `key`, the items of each key into lists of their own.

        A batch leaves when it is full, or `max_delay` after its first item even if the source stalls, or at the end. An
        item that costs more than `max_cost` is a batch by itself. At the end, and before a failure, batches that are
        not full leave in the order of their first items.

        With `key` up to `max_keys` batches are open at once, each with up to ``max_items - 1`` items, which
        `max_in_flight` counts. A key without an open batch is forgotten.

        Args:
          max_items: items in a batch, an int >= 1.
          max_delay: seconds >= 0 from its first item; makes its own stage, except in the stage of a sync iterable
            (unless there is a `throttle`), where it is fused like any sync operation. 0: a batch is what is there, it
            never waits for more: it leaves when it is full, or its input has nothing now (the stage before it, if it
            was waiting for room only, has its turn before).
          max_cost: sum of costs in a batch, > 0.
          cost: ``cost(item)``, a sync function that returns a number >= 0; by default every item costs 1.
          key: ``key(item)``, a sync function that returns a hashable value. Its batches are for one key each.
          max_keys: batches that may be open at once, an int >= 1; must be given with `key`.
          full: what an item of one more key does: the batch whose last item is longest ago leaves (``"oldest"``), or it
            is an error (``"fail"``: `TooManyKeys`).
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type, `cost` comes without `max_cost`, or one of `key` and `max_keys`
            without the other.
          ValueError: if an argument is out of range, or no limit is given.
        """
        limits = (max_items, max_delay, max_cost, cost)
        return self._then(plan.Batch(_named(name, "batch"), *limits, key, max_keys, full))

    def unbatch(self: Pipeline[Iterable[U]], *, name: str | None = None) -> Pipeline[U]:
        """Replace each batch (any iterable) by its items, one by one."""
        return self._then(plan.Unbatch(_named(name, "unbatch")))

    def window(
        self, max_items: int | None = None, *, period: float | None = None, name: str | None = None
    ) -> Pipeline[list[T_co]]:
        """Cut the stream into lists without overlap: by number, by time, or by whichever comes first.

        With a period, time is cut at its multiples from the start of the run, and a window leaves exactly at its end,
        even if the source stalls; an item that comes at a multiple is in the later window. (`batch` with `max_delay`
        counts from a batch's first item instead.) A window without items is not emitted. At the end of the stream, and
        at a failure, the open window leaves at once.

        Args:
          max_items: items in a window, an int >= 1; without it the number of items in a period is not limited.
          period: seconds > 0; makes its own stage, except in the stage of a sync iterable (see `batch`).
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range, or neither limit is given.
        """
        return self._then(Window(_named(name, "window"), max_items, period))

    def sliding(self, n: int, step: int = 1, *, name: str | None = None) -> Pipeline[tuple[T_co, ...]]:
        """Make windows of `n` consecutive items, as tuples; a window leaves as soon as its last item comes.

        The windows begin at every `step`-th item. Only full ones are emitted: items in no window, between two windows
        (`step` > `n`) or at the end of the stream, count as dropped. An item counts as absorbed, and is no longer
        discarded by itself, once it has gone out in its first window.

        Args:
          n: items in a window, an int >= 1.
          step: items from the beginning of one window to that of the next, an int >= 1.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `n` or `step` is below 1.
        """
        return self._then(Sliding(_named(name, "sliding"), n, step))

    def pairwise(self, *, name: str | None = None) -> Pipeline[tuple[T_co, T_co]]:
        """Pair each item with the next, like ``itertools.pairwise``; a single item counts as dropped."""
        called = "pairwise" if name is None else checks.text("Pipeline.pairwise", "name", name)
        return self._then(Sliding(called, 2, 1))

    def distinct(
        self, key: Callable[[T_co], Hashable] | None = None, *, remember: int, name: str | None = None
    ) -> Pipeline[T_co]:
        """Drop the items whose key was seen recently: it is one of the last `remember` distinct keys that came.

        A key that comes again counts as seen again (so a key that keeps coming is never forgotten); of more than
        `remember` keys, the one seen least recently is forgotten. Items that pass have a key that is not remembered;
        the others count as dropped.

        Args:
          key: ``key(item)``, a sync function that returns a hashable value; None: the item itself (an item without a
            hash is a TypeError in the stream).
          remember: keys to remember, an int >= 1: the bound of its memory.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `remember` is below 1.
        """
        return self._then(Distinct(_named(name, "distinct"), key, remember))

    def stateful(
        self,
        make: Callable[[], own.Stateful[T_co, U]],
        *,
        holds: int = 0,
        key: Callable[[T_co], Hashable] | None = None,
        max_keys: int | None = None,
        full: plan.FullOfKeys = "oldest",
        name: str | None = None,
    ) -> Pipeline[U]:
        """Replace each item by what an object of your own gives for it: an operation with state.

        ``make()`` is called once in each run, when its stage begins, and gives an object with these methods, all sync:

        - ``push(item)``: returns an iterable of the values that leave now; ``()`` for none. It is read to its end at
          once, so that nothing is left half-done.
        - ``flush()``, optional: the same at the end of the stream, also of one that is drained. It is not called after
          a failure, or when the run is stopped.
        - ``held()``, optional: a list of what it still holds, asked when ``flush`` will not be called: each is
          discarded, and told to ``on_discard``. Without it, nothing is told of what the object holds.
        - ``due()`` and ``tick(now)``, optional, both or none: ``due`` returns the time, by trio's clock, at which it
          wants to be called although no item comes, or None; it is asked after each other call. At that time,
          ``tick(now)`` returns what leaves then; a deadline comes before an item of the same instant. ``tick`` has to
          move ``due`` on. While there is no room for a value, it is called late.

        Each item that it takes counts as absorbed, each value that it gives as created. An error that it raises is the
        failure of that item; what ``push`` gave before it raised leaves first.

        It runs in the stage before it. One that acts at times has a stage of its own, except behind a sync iterable;
        so has one that a function or lambda makes, because what that makes is not known before. A class, or a
        `functools.partial` of one, is known.

        With `key` each key has an object of its own, made at its first item, of which up to `max_keys` are there at
        once. One that has to make room for a new key is flushed, and forgotten. At the end all are flushed in the order
        in which their keys came.

        Args:
          make: a class, or any callable without arguments, that gives a new object each time.
          holds: the most items that the object keeps, an int >= 0: so many are added to `max_in_flight`; with `key`,
            for each of `max_keys`.
          key: ``key(item)``, a sync function that returns a hashable value.
          max_keys: keys that may have an object at once, an int >= 1; must be given with `key`.
          full: what an item of one more key does: the object whose last item is longest ago is flushed (``"oldest"``;
            an error of that is the item's), or it is an error (``"fail"``: `TooManyKeys`).
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type, the object has no method ``push``, or an async one, or one of
            `key` and `max_keys` comes without the other.
          ValueError: if `holds` is below 0, `max_keys` below 1, or `full` any other text.
        """
        return self._then(own.WithState(_named_as(make, name), make, holds, key, max_keys, full))

    def through(
        self, fn: Callable[[AsyncIterator[T_co]], AsyncIterator[U]], *, holds: int = 0, name: str | None = None
    ) -> Pipeline[U]:
        """Pass the whole stream through an async generator function of your own, in a stage of its own.

        ``fn(items)`` is called once in each run, in the task of the stage; what it yields goes on. It is asked for a
        value when there is room for it. It may await anything, and hold cancel scopes and nurseries open over its
        yields, as a source may.

        - At the end of the stream, also of one that is drained, its `items` end.
        - A failure upstream is raised from its `items`, in its place. If it raises that again, it is the same failure;
          if it handles it, the stream goes on, and ends when the generator does.
        - When the run is stopped, it is cancelled where it awaits, or closed where it yields; in a closed one, awaits
          are shielded for at most `cleanup_timeout` seconds. When it returns early, everything upstream is stopped.

        An item that it took counts as absorbed when it yields a value, or asks for the next item; if the run is stopped
        before, the item is discarded. Asking for an item is a checkpoint at least once in 64 items.

        Args:
          fn: an async generator function, or a sync function that returns an async iterator, of an async iterator.
          holds: the most items that it keeps besides the one that it took last, an int >= 0: so many are added to
            `max_in_flight`.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `holds` is below 0.
        """
        return self._then(own.Through(_named_as(fn, name), fn, holds))

    def buffer(
        self,
        capacity: int | None = None,
        *,
        overflow: plan.Overflow | OnFull = "block",
        max_cost: float | None = None,
        cost: Callable[[T_co], float] | None = None,
        name: str | None = None,
    ) -> Pipeline[T_co]:
        """Set the capacity of the one link at this point, and what happens to an item that does not fit.

        A stage ends before it, and another begins behind it. As the last operation it is the link to the consumer (or
        to the merge). Of two in a row the later counts. Directly behind a merge, where there is no link, it makes one.

        With capacity 0 it is a rendezvous: nothing is taken before what is behind can use it at once, be that a stage
        that has nothing to do, a free worker of a pool, or a consumer in ``receive()``. So an item that is a lease, or
        grows stale, waits nowhere. It costs two task switches for each item. As the last operation of an input of a
        merge, or of a branch, it holds one item: a merge chooses among items that are there. (Directly behind a merge
        it changes nothing: what is there takes an item when it can use it, anyway.)

        With an `overflow` other than ``block`` the stage before it never waits for room; when the link is full, it only
        lets the next stage run, so that no item is lost that the next stage would have taken at once. Dropped items
        count as dropped in the report, and ``on_discard`` is called once for each, with the name of the policy as
        reason. As the last operation of ``run()``, ``collect()`` and so on there is no link, so nothing overflows.

        With `max_cost` it has room for so much: ``buffer(max_cost=64_000_000, cost=len)`` holds 64 MB. Whether an item
        fits is known when it was taken, so one item may wait in front; an item that costs more than all is held alone.

        Args:
          capacity: items, an int >= 0; None only with `max_cost`: any number, so `max_in_flight` is infinite.
          overflow: ``block``: the stage before it waits; ``drop_oldest``: the item replaces the one that waited
            longest, so with capacity 1 the latest value is kept (not with 0); ``drop_newest``: the item itself is
            dropped, with capacity 0 whenever nobody waits for it, as when all calls behind run; ``fail``:
            the stream fails there with `BufferOverflow`, behind the items in the buffer; the item counts as failed;
            ``OnFull.merge(fn)``: ``fn(newest, item)`` takes the place of the newest item that waits.
          max_cost: the most that the items in it cost together, a number > 0.
          cost: ``cost(item)``, a sync function that returns a finite number >= 0; its error is a failure of the item.
          name: the name of the link in the plan, reports and errors (behind a merge also of the stage that makes it).

        Raises:
          TypeError: if an argument has a wrong type, or only one of `max_cost` and `cost` is given.
          ValueError: if a number is out of range, or `overflow` is none of these words, or does not fit the rest.
        """
        return self._then(plan.Buffer(_named(name, "buffer"), capacity, overflow, max_cost, cost))

    # ---- operations of time

    def throttle(
        self,
        rate_limit: RateLimit | RollingLimit,
        *,
        cost: Callable[[T_co], float | Fraction] | None = None,
        name: str | None = None,
    ) -> Pipeline[T_co]:
        """Limit the pace: the items that leave in any window of time cost at most ``burst + rate/per * length``.

        Under a `RollingLimit`: at most `n` in any window of its length.

        The pace is measured when an item leaves this stage, which also needs room for it. One item waits here, others
        wait upstream: nothing is lost, not even at the end. It makes its own stage, except directly behind a sync
        iterable: there it is part of that stage, and is reported under its name. (To limit the rate of calls, including
        a rate that is shared with others, use ``Step.rate_limit``.)

        Args:
          rate_limit: how many may leave in how much time.
          cost: ``cost(item)``, a sync function that returns the cost of an item: a finite number > 0, at most the
            burst, and whole under a `RollingLimit`, otherwise the stream fails at that item; by default each costs 1.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
        """
        return self._then(timing.Throttle(_named(name, "throttle"), rate_limit, cost))

    def debounce(self, delay: float, *, max_wait: float | None = None, name: str | None = None) -> Pipeline[T_co]:
        """Pass an item on when no newer one came for `delay` seconds; the others count as dropped.

        An item that comes exactly when the delay ends is too late to replace it. At the end of the stream, and before a
        failure, the last item goes out at once. Items are taken even while there is no room behind: the one that is
        kept here is always the newest.

        Args:
          delay: seconds > 0.
          max_wait: seconds, not less than `delay`: the newest item leaves at the latest so long after the first that
            it stands for came, though newer ones keep coming; None: a stream that never rests gives nothing.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `delay` is not > 0 and finite, or `max_wait` is less.
        """
        return self._then(timing.Debounce(_named(name, "debounce"), delay, max_wait))

    def sample(self, period: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Pass the newest item on at each multiple of a period, if a new one came; the others count as dropped.

        Multiples are counted from the start of the run, without drift. An item that comes exactly at a multiple waits
        for the next. Without room, the newest item leaves as soon as there is some. At the end of the stream, and
        before a failure, the last item goes out at once.

        Args:
          period: seconds > 0.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `period` is not > 0 and finite.
        """
        return self._then(timing.Sample(_named(name, "sample"), period))

    def delay(self, seconds: float, *, max_items: int = 16, name: str | None = None) -> Pipeline[T_co]:
        """Pass each item on a number of seconds after it came here, in order.

        At most `max_items` wait here: a source that yields more in that time is held up. At the end of the stream the
        last items leave at their time, and so do items that came before a failure.

        Args:
          seconds: seconds > 0.
          max_items: items that wait at once, an int >= 1.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range.
        """
        return self._then(timing.Delay(_named(name, "delay"), seconds, max_items))

    def idle_timeout(self, seconds: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Fail with `trio.TooSlowError` if no item comes for a number of seconds.

        They count from the start of the run, then from each arrival. Time in which there is no room behind, or in which
        the run is paused, does not count: the timeout starts again then. The failure comes behind the items that came;
        an item exactly when the time is up is too late.

        Args:
          seconds: seconds > 0.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `seconds` is not > 0 and finite.
        """
        return self._then(timing.IdleTimeout(_named(name, "idle_timeout"), seconds))

    def timeout(
        self, seconds: float | None = None, *, first: float | None = None, name: str | None = None
    ) -> Pipeline[T_co]:
        """Fail with `trio.TooSlowError` if the stream has not ended here in time, or its first item has not come.

        Both count from the start of the run, including time in which there is no room behind; `first` starts again when
        a paused run continues. The failure comes behind the items that came; an item, or the end, exactly when the time
        is up is too late.

        Args:
          seconds: seconds > 0 for the whole stream; None: no limit.
          first: seconds > 0 for its first item (or its end); None: no limit.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if one is not > 0 and finite, or neither is given.
        """
        return self._then(timing.Timeout(_named(name, "timeout"), seconds, first))

    def keep_alive(self, seconds: float, make_item: Callable[[], U], *, name: str | None = None) -> Pipeline[T_co | U]:
        """Send an item made by a function whenever no item came for a number of seconds, as a live connection needs.

        They count from the start of the run, then from each item that left here, made or not. Time in which there is no
        room behind, or in which the run is paused, does not count: the wait starts again then. It makes none at the
        end. If an item comes exactly when the time is up, the made one goes before it.

        Args:
          seconds: seconds > 0.
          make_item: a sync function without arguments; its error is a failure of the stream at this place. What it
            makes counts as created in the report.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `seconds` is not > 0 and finite.
        """
        return self._then(timing.KeepAlive(_named(name, "keep_alive"), seconds, make_item))

    def take_for(self, seconds: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Keep the items that come within a number of seconds from the start of the run; the stream ends there.

        It ends as with `take`: what came before is delivered, everything upstream is stopped, and what is no longer
        needed there is discarded with the reason ``not needed``. An item exactly when the time is up is too late. Time
        in which there is no room behind, or in which the run is paused, counts.

        Args:
          seconds: seconds > 0.
          name: its name in reports and errors.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `seconds` is not > 0 and finite.
        """
        return self._then(timing.TakeFor(_named(name, "take_for"), seconds))

    def stop_when(
        self, event: trio.Event | Callable[[], Awaitable[object]], *, name: str | None = None
    ) -> Pipeline[T_co]:
        """End the stream when an event is set, or an async function returns.

        It ends as with `take`: what came before is delivered, everything upstream is stopped, and what is no longer
        needed there is discarded with the reason ``not needed``. Once the event is set no item passes. (The function
        runs in a task of its own: an item that comes in the same instant in which it returns may pass.)

        Each run waits anew: each calls the function, which is cancelled when its stream ends otherwise. But an event
        stays set: another run of the plan, also one that begins later, ends at once.

        Args:
          event: the event, or an async function without arguments. Its error is a failure of the stream, behind the
            items that came before.
          name: its name in reports and errors.

        Raises:
          TypeError: if `event` is neither.
        """
        waits = event.wait if isinstance(event, trio.Event) else event
        return self._then(timing.StopWhen(_named(name, "stop_when"), waits))

    # ---- branches

    @overload
    def broadcast(
        self,
        branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]],
        *,
        join: Literal["merge"] = "merge",
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def broadcast(
        self,
        branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]],
        *,
        join: Literal["zip"],
        name: str | None = None,
    ) -> Pipeline[dict[str, U]]: ...

    def broadcast(
        self,
        branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]],
        *,
        join: JoinKind = "merge",
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Send each item to every branch, and merge the results of the branches, or put those of an item together.

        A branch is ``fn(pipeline)``, called here, at once: it describes what is done with the items of the branch.
        There is room for an item when every branch has room, so a slow branch holds up all; one that begins with its
        own buffer, ``lambda items: items.buffer(1, overflow="drop_oldest").map(...)``, does not. A branch that has
        ended (by `take`, for example) gets no more items; when all have, no more are taken. All branches get the same
        object.

        When an item fails before the branches, each branch still emits what came before it. A branch that fails ends
        the whole stream, at its place among the results of the branches.

        With ``join="zip"`` there is one result for each item: a dict of the results of the branches, in their order.
        Then each branch must give one result for each item, in order, which `check` verifies: it may consist of `map`
        (not ``ordered=False``; a failing item ends the stream or is emitted), `tap`, `scan`, `enumerate`, `buffer`
        (that waits or fails), `throttle`, `delay`, `timeout`, `idle_timeout`, and of further such broadcasts. A branch
        that fails at an item ends the stream behind the results of the items before that one.

        Args:
          branches: the branches by name, at least one. Each must use its pipeline exactly once. (mypy cannot infer what
            lambdas in a mapping return; annotate the result, and it checks them against that.)
          join: ``"merge"``: each result as it comes, with equal shares; ``"zip"``: the results of one item together.
          name: its name in reports and errors.

        Raises:
          TypeError: if `branches` is not a mapping of str to functions, or one of them does not return a pipeline.
          ValueError: if `join` is any other text.
        """
        return self._fan_out("broadcast", name, branches, join=join)

    def balance(
        self, branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]], *, name: str | None = None
    ) -> Pipeline[U]:
        """Send each item to a branch that has room, in turn, and merge the results of the branches, with equal shares.

        An item waits only if no branch has room, so a slow branch gets fewer items and holds up no other. What counts
        as room is the link at the beginning of the branch, of 16 items unless the branch begins with its own buffer:
        ``lambda items: items.buffer(1).map(...)`` takes an item when it can begin soon. A branch that drops gets an
        item if no other has a free place. A branch that has ended gets no more; when all have, no more are taken.
        Failures are those of `partition`. Results come in no order.

        Args:
          branches: the branches by name, at least one, as in `broadcast`.
          name: its name in reports and errors.

        Raises:
          TypeError: if `branches` is not a mapping of str to functions, or one of them does not return a pipeline.
        """
        return self._fan_out("balance", name, branches)

    def partition(
        self,
        route: Callable[[T_co], str],
        branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]],
        *,
        name: str | None = None,
    ) -> Pipeline[U]:
        """Send each item to the branch that a function names, and merge the results of the branches, with equal shares.

        An item whose branch has no room waits, and all later items wait behind it, so that none overtakes; give a
        branch its own buffer to let it fall further behind (``lambda items: items.buffer(100).map(...)``). An item for
        a branch that has ended is discarded with the reason ``not needed``.

        Args:
          route: ``route(item)``, sync, returns the name of a branch; any other value is a `KeyError` at that item.
          branches: the branches by name, at least one, as in `broadcast`.
          name: its name in reports and errors.

        Raises:
          TypeError: if `route` is not a sync function, `branches` is not a mapping of str to functions, or one of them
            does not return a pipeline.
        """
        return self._fan_out("partition", name, branches, route)

    def fair_by(
        self,
        key: Callable[[T_co], K],
        share: FairShare[K] | None = None,
        *,
        max_keys: int,
        overflow: FairOverflow = "block",
        name: str | None = None,
    ) -> Pipeline[T_co]:
        """Divide one mixed stream fairly by key: a queue for each key, from which the next stage takes by weight.

        For example for an inbound queue shared by many tenants, one of which floods it. Items of one key stay in order.
        While keys f and m both have items here, the service they got, by weight, differs by at most
        ``cost_f/weight_f + cost_m/weight_m`` at the moment of hand-over: there is no link behind it, the next stage (or
        ``run.receive()``) takes from it directly. A key alone gets everything.

        A key without items costs nothing: it is forgotten at once. What it got ahead of its share is remembered until
        the others have caught up. So there is no idle time to configure.

        A stream has only one next item, so an item that waits there holds up all keys. With ``overflow="block"`` a
        flood fills its own queue and then waits in front of it: what comes behind is fair only as far as the queues
        reach. To protect the others from a flood, drop it (``"drop_newest"``) or divert it.

        Args:
          key: ``key(item)``, a sync function that returns a hashable value.
          share: the weights by key (also of keys that may never come), the capacity of each key's queue, and what an
            item costs; by default all keys are equal.
          max_keys: keys that may have items here at once, an int >= 1; the item of one more key waits, and the stream
            behind it, until one of them has none left.
          overflow: what happens to an item whose key's queue is full: it waits, and the stream behind it
            (``"block"``); it is dropped, and passed to `on_discard` (``"drop_newest"``); or a step gets it, as a
            `Failure` with a `BufferOverflow` (``OnError.divert(step)``), one at a time, while the stream waits. Then it
            counts as failed; the step's own error ends the stream.
          name: its name in reports and errors; by default the key function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `max_keys` is below 1, or `overflow` is any other text.
        """
        shared: FairShare[Any] = FairShare() if share is None else share
        return self._then(FairBy(_named_as(key, name), key, shared, max_keys, overflow))

    def loop(
        self,
        body: Callable[[Pipeline[T_co]], Pipeline[U]],
        *,
        again: Callable[[U], Iterable[T_co]],
        room: int,
        full: LoopFull = "fail",
        name: str | None = None,
    ) -> Pipeline[U]:
        """Let results make new work: what `again` gives for a result goes back to the beginning of `body`.

        For a crawler, a walk through a tree, pages of an API: ``seeds.loop(crawl, again=links, room=10_000)``. Each
        result of the body continues, behind the loop, as soon as its new work is in line. The stream ends exactly when
        the source has ended, nothing waits to go round, and nothing is on its way in the body.

        While the source has items and others wait to go round, the body gets one of each in turn. Nothing in the loop
        waits for room to go round, so it cannot block itself. What was seen is not remembered: use `distinct` in the
        body. A failure in the body or in `again` ends the stream there; what waits to go round is then discarded. One
        of the source comes behind all that comes of the items before it.

        After ``drain()`` the work that `again` gives is not begun: it is discarded, with the reason ``drained``, as is
        what waits; so a drain ends, and `on_discard` hears what is left to do. While the run is paused, nothing goes
        round.

        Args:
          body: ``body(pipeline)``, called here, at once: it describes what is done with each item, and returns that
            pipeline. It must take all items from the pipeline that it is given, once, and use no operation that keeps
            items until others come (`sliding`, a `batch` without `max_delay`, a `window` without `period`).
          again: ``again(result)``, sync, returns the new work of a result: an iterable, empty for none. It is iterated
            in the task of the last stage of the body.
          room: how many items may wait to go round, an int >= 1.
          full: what happens to one more: it is a `BufferOverflow` with the counts, at the result (``"fail"``); or a
            step gets it, as a `Failure`, one at a time, while the results wait (``OnError.divert(step)``). Then it
            counts as failed; the step's own error ends the stream.
          name: its name in reports and errors; by default the name of `body`.

        Raises:
          TypeError: if an argument has a wrong type, or `body` does not return a pipeline.
          ValueError: if `room` is below 1, or `full` is any other text.
        """
        where = "Pipeline.loop"
        checks.sync_callable(where, "body", body)
        called = _named_as(body, name)
        ending = Again(_named_as(again, None), again, called, room, full)
        grown = body(Pipeline(Plan(entry_of(called, self._plan))))
        if not isinstance(grown, Pipeline):
            raise checks.refuse(TypeError, where, "what body gives", "be a Pipeline", grown)
        return grown._then(ending)

    def pipe(self, fn: Callable[Concatenate[Pipeline[T_co], P], U], /, *args: P.args, **kwargs: P.kwargs) -> U:
        """Return ``fn(self, *args, **kwargs)``: for segments that several pipelines use."""
        checks.callable_("Pipeline.pipe", "fn", fn)
        return fn(self, *args, **kwargs)

    # ---- review

    def describe(self, format: Literal["text", "mermaid", "dot", "json"] = "text") -> str:
        """Describe the plan: its stages, links, capacities, fairness, and how many items it can hold.

        Every form is stable: the same plan has the same text, suitable for a golden test. No item is in it.

        Args:
          format: ``text``; ``mermaid`` or ``dot`` (Graphviz), a drawing; ``json``, everything that the plan says, with
            functions as ``module:qualname`` (see ``docs/review.md``).

        Raises:
          PlanError: if the plan cannot work (but a used one-shot source can still be shown).
          ValueError: if the format is not known.
        """
        from ._plan.formats import describe_plan  # this method and the next two are for review: most programs only run

        return describe_plan(self._plan, format)

    def diff(self, other: Pipeline[Any]) -> str:
        """Tell what is different in another pipeline: a line for each change, and what they do to the bound.

        Parts are matched by their names: ``embed: concurrency 4 -> 8``. Empty exactly if both have the same ``json``
        description. (Functions are compared by where they are from, so two lambdas of one function are equal.)

        Args:
          other: the pipeline to compare with: the new one, if this is the old one.

        Raises:
          TypeError: if it is not a `Pipeline`.
          PlanError: if one of the plans cannot work.
        """
        from ._plan.diff import diff
        from ._plan.document import document

        checks.instance("Pipeline.diff", "other", other, Pipeline)
        return diff(document(self._plan), document(other._plan))

    def predict(self, times: Times, arrivals: float | Sequence[float] | Mapping[str, Any] | None = None) -> Prediction:
        """Say how many items a second the plan would do, and what would limit it, if each call took so long.

        Nothing of the plan's is called. Filters are taken to let every item pass, a `flat_map` to make one value of
        each, a `partition` to use its branches in turn, keys to differ, an item to cost 1, calls to succeed, nothing to
        go round in a `loop`; what is not named takes no time, and neither does the consumer. For a plan of one line
        whose calls take constant times a formula is exact; anything else is run in virtual time, for some thousand
        items.

        Args:
          times: seconds >= 0 that a call takes, by the name of its stage; or a sequence of such numbers, used in turn.
          arrivals: seconds from one arrival to the next at each source, or a sequence, used in turn; or such by the
            names of sources. None: all items are there at once.

        Raises:
          PlanError: if the plan cannot work.
          StateError: if it has to be simulated and this is called inside of trio.
          TypeError: if an argument has a wrong type.
          ValueError: if a name or number is wrong, or the run would fail with these times (by a timeout, say).

        Checkpoint: never (sync).
        """
        return predict(self._plan, times, arrivals)

    def with_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> Pipeline[T_co]:
        """Return this pipeline with other settings: ``plan.with_settings({"embed": {"concurrency": 8}})``.

        Names are those of `describe`: of a source, an operation, a merge or a buffer. Settings are the arguments of the
        method that made it; those of a policy follow a dot (``retry.attempts``), and the policies of a step are
        numbered from the inside out (``timeout``, ``timeout#2``). A stage also has the ``capacity`` and ``overflow`` of
        the buffer behind it. `describe` with ``json`` lists all of them. Functions are no settings, nor is what is
        shared with others (a `RateLimiter`, a started step).

        Args:
          settings: the new values, by the name of the part and that of the setting. ``weights`` replace all weights.

        Raises:
          PlanError: if a name is not known; the error lists the known ones.
          TypeError: if a value has a wrong type, as where it was first given.
          ValueError: if a value is out of range.
        """
        from ._plan.settings import with_settings

        refuse_too_deep(self._plan)
        return Pipeline(with_settings(self._plan, settings))

    def check(self) -> None:
        """Raise the `PlanError` that a run would raise: one error with all problems of the plan.

        It warns (a `UserWarning`) of each object that is called as a function and has attributes: all runs of the plan
        share it.
        """
        check_plan(self._plan)
        for warning in shared_objects(self._plan):
            warnings.warn(warning, stacklevel=2)

    @property
    def max_in_flight(self) -> int | float:
        """The most items that are ever taken and not yet delivered, failed, dropped or discarded.

        A batch counts its items; the children of one flat_map item count as one. `math.inf` where a batch or
        window has no `max_items`.

        Raises:
          PlanError: if fan-ins and fan-outs are nested too deeply.
        """
        refuse_too_deep(self._plan)
        return max_in_flight(lay_out(self._plan))

    # ---- running

    def open(
        self,
        *,
        on_discard: OnDiscard | None = None,
        cleanup_timeout: float = 5.0,
        record: Recorder | None = None,
        observer: Observer | None = None,
    ) -> RunContext[T_co]:
        """Start a run for the length of a block: ``async with pipeline.open() as run: async for item in run: ...``.

        Leaving the block, in any way, stops the run, closes every source, and waits for all of its tasks.

        Args:
          on_discard: ``on_discard(item, stage, reason)``, sync: called once for each item that is discarded.
          cleanup_timeout: seconds > 0 that async cleanup may take.
          record: keeps how long everything took, for `simulate`; None: nothing does.
          observer: puts something of its own around every call, such as `OpenTelemetrySpans`; None: nothing does.

        Raises:
          PlanError: on entry, if the plan cannot work; nothing was started.
          StateError: on entry, if the recorder was used before.
          TypeError: if an argument has a wrong type.
          ValueError: if `cleanup_timeout` is not > 0.

        Checkpoint: entering always; leaving only if it waits.
        Cancellation: stops the run at once; items in flight are discarded with the reason ``cancelled``.
        """
        return self._block(on_discard, cleanup_timeout, None, record, observer)

    async def run(
        self,
        *,
        on_discard: OnDiscard | None = None,
        cleanup_timeout: float = 5.0,
        record: Recorder | None = None,
        observer: Observer | None = None,
        task_status: trio.TaskStatus[Run[T_co]] = trio.TASK_STATUS_IGNORED,
    ) -> Report:
        """Run to the end, for its effects; the results are not used, and the last stage has no link behind it.

        ``run = await nursery.start(pipeline.run)`` returns the `Run` while it works, to inspect, drain or abort it.

        Returns:
          the report of the run; ``report.outcome`` tells whether it was drained or aborted on the way.

        Raises:
          PlanError: if the plan cannot work.
          Exception: the original error of the stream.

        Checkpoint: always.
        Cancellation: stops the run at once.
        """
        return await self._drive(_forget, on_discard, cleanup_timeout, task_status.started, record, observer)

    async def run_into(
        self,
        channel: trio.abc.SendChannel[T_co],
        *,
        on_discard: OnDiscard | None = None,
        cleanup_timeout: float = 5.0,
        task_status: trio.TaskStatus[Run[T_co]] = trio.TASK_STATUS_IGNORED,
    ) -> Report:
        """Run to the end, and send each result into a channel, such as a `Hub`, which is not closed.

        One result is sent at a time, when the channel has room for it. The sending is a stage of its own, ``send``.

        Returns:
          the report of the run, as `run`.

        Raises:
          PlanError: if the plan cannot work.
          TypeError: if `channel` has no method send.
          Exception: the original error of the stream; an error of the channel is one, at the result that was sent
            (`trio.ClosedResourceError` if it is closed).

        Checkpoint: always.
        Cancellation: stops the run at once; a result whose sending is cancelled is discarded.
        """
        if not callable(getattr(channel, "send", None)):
            raise checks.refuse(TypeError, "Pipeline.run_into", "channel", "be a channel with a method send", channel)
        sending = self.tap(channel.send, concurrency=1, name="send")
        return await sending.run(on_discard=on_discard, cleanup_timeout=cleanup_timeout, task_status=task_status)

    async def collect(self, *, on_discard: OnDiscard | None = None, cleanup_timeout: float = 5.0) -> list[T_co]:
        """Run to the end, and return all items as a list."""
        items: list[T_co] = []
        await self._drive_unreported("collect", items.append, on_discard, cleanup_timeout)
        return items

    @overload
    async def first(self) -> T_co: ...

    @overload
    async def first(self, *, default: U) -> T_co | U: ...

    async def first(self, *, default: Any = _MISSING) -> Any:
        """Return the first item, and stop the run.

        Raises:
          LookupError: if the stream is empty and no default was given.
        """
        items: list[T_co] = []
        await self.take(1)._drive_unreported("first", items.append)
        if items:
            return items[0]
        if default is _MISSING:
            raise LookupError("Pipeline.first: the stream is empty\nUse default= to get a value in its place.")
        return default

    async def fold(self, fn: Callable[[U, T_co], Awaitable[U] | U], initial: U) -> U:
        """Run to the end, and return the last ``state = fn(state, item)``; `initial` if the stream is empty."""
        plan.check_fold("Pipeline.fold", fn)
        last = deque([initial], maxlen=1)
        await self.scan(fn, initial)._drive_unreported("fold", last.append)
        return last[0]

    async def count(self) -> int:
        """Run to the end, and return the number of items."""
        report = await self._drive_unreported("count", _forget)
        return report.delivered

    # ---- inside

    def _then(self, operation: plan.Operation) -> Pipeline[Any]:
        return Pipeline(Plan(self._plan.origin, (*self._plan.operations, operation)))

    def _fan_out(
        self,
        kind: FanOutKind,
        name: str | None,
        branches: Mapping[str, Callable[..., Any]],
        route: Any = None,
        join: JoinKind = "merge",
    ) -> Pipeline[Any]:
        checks.mapping(f"Pipeline.{kind}", "branches", branches, "names to functions")
        called = _named(name, kind)
        routing = plan.Route(called, route, tuple(branches)) if kind == "partition" else None
        grown = tuple(_grown(Branch(kind, called, key), fn) for key, fn in branches.items())
        return Pipeline(Plan(FanOut(kind, called, self._plan, grown, routing, join)))

    def _block(
        self,
        on_discard: OnDiscard | None,
        cleanup_timeout: float,
        sink: Sink | None,
        record: Recorder | None = None,
        observer: Observer | None = None,
    ) -> RunContext[Any]:
        if on_discard is not None:
            checks.takes("Pipeline", "on_discard", checks.sync_callable("Pipeline", "on_discard", on_discard), 3)
        checks.seconds("Pipeline", "cleanup_timeout", cleanup_timeout)
        if record is not None:
            checks.instance("Pipeline", "record", record, Recorder)
        if observer is not None and not callable(getattr(observer, "begin", None)):
            raise checks.refuse(TypeError, "Pipeline", "observer", "be an Observer, with a method begin", observer)
        block: RunContext[Any] = RunContext(
            self._plan, on_discard=on_discard, cleanup_timeout=cleanup_timeout, sink=sink, witness=record
        )
        if observer is not None:
            block.admit(Observed(observer))
        return block

    async def _drive(
        self,
        put: Callable[[Any], object],
        on_discard: OnDiscard | None,
        cleanup_timeout: float,
        started: Callable[[Run[Any]], None],
        record: Recorder | None = None,
        observer: Observer | None = None,
    ) -> Report:
        """Run to the end with a sink; raise the failure that reached it."""
        sink = Sink(put)
        async with self._block(on_discard, cleanup_timeout, sink, record, observer) as run:
            started(run)
        report = run.report
        if report.outcome == "failed" and report.error is not None:
            raise report.error
        return report

    async def _drive_unreported(
        self,
        name: str,
        put: Callable[[Any], object],
        on_discard: OnDiscard | None = None,
        cleanup_timeout: float = 5.0,
    ) -> Report:
        """Run for a method that returns no report: errors of cleanup go to the log."""
        runs: list[Run[Any]] = []
        try:
            return await self._drive(put, on_discard, cleanup_timeout, runs.append)
        finally:
            for run in runs:
                warn_of(name, run.report.cleanup_errors, run.report.cleanup_error_count)


_forget: Callable[[Any], object] = deque[Any](maxlen=0).append


# ---- what the methods share


def _iterating(kind: SourceKind, items: Any, name: str | None, on: Any = None) -> Pipeline[Any]:
    if isinstance(items, Pipeline):  # its methods to iterate it only raise what to use
        where, rule = f"Pipeline.from_{kind.replace(' ', '_')}", f"be an {kind}, or a callable that makes one"
        raise checks.refuse(TypeError, where, "items", rule, items)
    name, origin = _named(name, iterable_name(kind, items)), plan.Opaque(items)
    return Pipeline(Plan(Source(kind, name, origin) if on is None else IterableInThread(kind, name, origin, on=on)))


def _named(name: str | None, default: str) -> str:
    return default if name is None else name


def _named_as(fn: Callable[..., Any], name: str | None) -> str:
    return function_name(fn) if name is None else name


def _grown(branch: Branch, fn: Any) -> tuple[Branch, Any]:
    """Return a branch and the plan that its function returns for it."""
    checks.sync_callable(f"Pipeline.{branch.kind}", f"branches[{named(branch.key)}]", fn)
    return branch, plan_in(fn(Pipeline(Plan(branch))))


def plan_in(value: Any) -> Any:
    """Return the plan of a pipeline; anything else unchanged, for the plan to refuse."""
    return value._plan if isinstance(value, Pipeline) else value
