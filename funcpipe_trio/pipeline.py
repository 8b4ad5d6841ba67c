"""`Pipeline`: the fluent face of a plan. Everything here makes a value, or hands one to the runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeGuard, TypeVar, overload

import trio

from ._base import checks
from ._base.functions import function_name
from ._base.shown import cut, escaped, named
from ._plan import operations as plan
from ._plan import timing
from ._plan.bound import max_in_flight
from ._plan.check import check_plan, refuse_too_deep
from ._plan.describe import describe_plan
from ._plan.fair_by import FairBy, FairOverflow
from ._plan.layout import lay_out
from ._plan.nodes import Branch, FanOut, FanOutKind, Plan, Source, SourceKind, iterable_name, too_deep
from ._plan.restarts import RestartingSource
from ._plan.windows import Distinct, Sliding, Window
from ._runtime.core.failures import warn_of
from ._runtime.core.ledger import OnDiscard
from ._runtime.core.misused import misused
from ._runtime.links.sink import Sink
from ._runtime.reports.report import Report
from ._runtime.run.opening import Opening
from ._runtime.run.run import Run
from .policies.fair_share import FairShare
from .policies.on_error import Divert, Failure, OnError, Skip, Stop
from .policies.rate_limit import RateLimit
from .policies.retry import Retry

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # the checkers' own; the package is not needed to run

    from .step import Step

__all__ = ["Pipeline"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")

# What a function of flat_map gives; a sync one may give a pipeline, too, if it comes with `concurrency`.
_Many: TypeAlias = "Iterable[U] | AsyncIterable[U] | Awaitable[Iterable[U] | Pipeline[U]]"

_MISSING: Any = object()
_MOST_PROBLEMS = 10  # of one kind, in one error


class Pipeline(Generic[T_co]):
    """A description of a stream of items and what is done to them; a value that never changes.

    Building one has no effects. It can be shown (`describe`), checked (`check`) and compared, and run any number of
    times, also at the same time; runs share nothing. (A source that works only once, such as an iterator, makes the
    whole plan work once.)
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

    if not TYPE_CHECKING:
        _USE = "Use `async with plan.open() as run: async for item in run: ...`, or `await plan.collect()` for a list."
        __aiter__ = misused(
            "Pipeline: `async for` takes a run, which `async with plan.open()` gives, not its plan", _USE
        )
        __iter__ = misused("Pipeline: a plan holds no items; `await plan.collect()` gives a list of them", _USE)
        __await__ = misused("Pipeline: a plan is not awaited, but what runs it: `await plan.run()`, say", _USE)

    # ---- sources

    @staticmethod
    def from_iterable(items: Iterable[T] | Callable[[], Iterable[T]], *, name: str | None = None) -> Pipeline[T]:
        """Take items from an iterable.

        The run opens the iterator when it starts, pulls only while there is room, and closes it (if it has a
        ``close``) in the same task.

        Args:
          items: an iterable, else a callable that makes one. An iterator works for one run only.
          name: what reports and errors call it; else the callable's name, else ``iterable``.

        Raises:
          TypeError: if `items` is neither iterable nor callable, or `name` no str.
        """
        return _iterating("iterable", items, name)

    @staticmethod
    def from_async_iterable(
        items: AsyncIterable[T] | Callable[[], AsyncIterable[T]], *, name: str | None = None
    ) -> Pipeline[T]:
        """Take items from an async iterable; one task opens, iterates and closes (``aclose``) it.

        It is asked for an item only while there is room for it.

        Args:
          items: an async iterable, else a callable that makes one. An async iterator works for one run only.
          name: what reports and errors call it; else the callable's name, else ``async_iterable``.

        Raises:
          TypeError: if `items` is neither async iterable nor callable, or `name` no str.
        """
        return _iterating("async iterable", items, name)

    @staticmethod
    def from_channel(receive_channel: trio.abc.ReceiveChannel[T], *, name: str | None = None) -> Pipeline[T]:
        """Take items from a receive channel; the run owns it and closes it. It works for one run only.

        What is in its buffer when the run ends early would be lost with it: a drain delivers that, any other early end
        gives it up through `on_discard`. Of a channel class of your own that is as much as the `current_buffer_used` of
        its `statistics` says; without that, `receive_nowait` is not called once the run is to end.

        Raises:
          TypeError: if it is no `trio.abc.ReceiveChannel`, or `name` no str.
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

        What it sends is taken only while there is room; the stream ends when it returns (and every clone of the channel
        is closed), and it is cancelled when no more is needed.

        Raises:
          TypeError: if `async_fn` is not an async function, or `name` no str.
        """
        return Pipeline(Plan(Source("producer", _named_as(async_fn, name), plan.Opaque(async_fn))))

    @staticmethod
    def ticks(period: float, *, name: str | None = None) -> Pipeline[int]:
        """Count 0, 1, 2, ... at multiples of a period from the start of the run.

        A tick is emitted only when the one before it was taken, at the first multiple of `period` after that: no drift,
        no bunching, no gaps in the numbers.

        Args:
          period: seconds > 0.
          name: what reports and errors call it.

        Raises:
          TypeError: if `period` is no number.
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
        """Take items from what a callable makes, and have it made anew when it fails, at opening or in the middle.

        What failed is closed, then the wait of `retry` passes, then the callable is called again; what was taken
        before goes on, and the stream ends where what it made ends. An error that `retry` does not mean, or that is
        one failure too many, is the error of the stream: the last one itself. Draining or stopping the run ends a wait
        at once.

        Args:
          source_factory: ``source_factory()`` gives an iterable or async iterable, a new one each time (one that gives
            something else, or the iterator that has failed, is a TypeError in the stream).
          retry: ``attempts`` is how many openings in a row may fail; ``on`` and ``retry_after`` as for a step.
          reset_after: seconds > 0; a failure so long after the opening is the first of a new row. `math.inf`: never.
          name: what reports and errors call it; else the callable's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `reset_after` is not > 0.
        """
        called, factory = _named_as(source_factory, name), plan.Opaque(source_factory)
        return Pipeline(Plan(RestartingSource("restarting", called, factory, retry=retry, reset_after=reset_after)))

    # ---- operations on each item

    # A Step by itself, so that mypy finds the types of Step(fn) when fn is generic.
    # An OnError that is not known to be another than `emit` may give a Failure.
    @overload
    def map(
        self,
        fn: Step[T_co, U],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self,
        fn: Step[T_co, U],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def map(
        self,
        fn: Callable[[T_co], Awaitable[U]],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        ordered: bool = True,
        key: Callable[[T_co], Hashable] | None = None,
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
        concurrency: int | None = None,
        ordered: bool = True,
        key: Callable[[Any], Hashable] | None = None,
        on_error: OnError = plan.STOP,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Put each item through a function or a step.

        A sync function is fused: it runs in the task of the stage before it. An async function, a `Step`, or any
        function with `concurrency`, whose answer is then awaited (a lambda that gives a coroutine, say), makes a stage
        of its own with up to `concurrency` calls at once; a result that waits for an earlier one uses a place of the
        link behind, so calls + waiting + buffered <= concurrency + capacity.

        Args:
          fn: ``fn(item)``, sync or async, or a step, which each run starts afresh (one that was started is shared).
          concurrency: calls at once, an int >= 1; None: one, of a function that is async. If it is given, an answer
            that cannot be awaited is a `TypeError`, which no policy meets: ``Step(fn).on(threads(4))`` runs sync ones.
          ordered: whether results leave in the order of their items; else as they complete.
          key: ``key(item)``, sync: items of one key (a hashable value) are worked on one at a time and in order, those
            of different keys at once; an item that waits for its key takes a place, too, so one slow key holds up
            the others only when all places are its own.
          on_error: what becomes of an item whose call failed for good. (With `divert`, a sync function, too, makes a
            stage of its own.)
          name: what reports and errors call it; else the step's or the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.Map(_named_as(fn, name), fn, concurrency, ordered, key, on_error))

    # First, because mypy complains as of the first overload, and looks into no lambda for one of a guard.
    # No function that gives a bool fits it, and so no guard.
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
        self, fn: Callable[[T_co], object], *, concurrency: int | None = None, name: str | None = None
    ) -> Pipeline[T_co]: ...

    def filter(
        self, fn: Callable[[Any], object], *, concurrency: int | None = None, name: str | None = None
    ) -> Pipeline[Any]:
        """Keep the items that a function, sync or async, or a step, says yes to; the others count as dropped.

        Args:
          fn: ``fn(item)``; a sync function is fused, as in `map`.
          concurrency: calls at once, an int >= 1, in a stage of its own, whose answers are awaited (see `map`); items
            keep their order. None: one, of a function that is async.
          name: what reports and errors call it; else the function's name.

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
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Step[T_co, Iterable[U] | Pipeline[U]],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], _Many[U]],
        *,
        on_error: Stop | Skip | Divert = ...,
        concurrency: int | None = None,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], _Many[U]],
        *,
        on_error: OnError,
        concurrency: int | None = None,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], Pipeline[U]],
        *,
        concurrency: int,
        on_error: Stop | Skip | Divert = ...,
        name: str | None = None,
    ) -> Pipeline[U]: ...

    @overload
    def flat_map(
        self,
        fn: Callable[[T_co], Pipeline[U]],
        *,
        concurrency: int,
        on_error: OnError,
        name: str | None = None,
    ) -> Pipeline[U | Failure[T_co]]: ...

    def flat_map(
        self,
        fn: Callable[[Any], Any],
        *,
        concurrency: int | None = None,
        on_error: OnError = plan.STOP,
        name: str | None = None,
    ) -> Pipeline[Any]:
        """Put all that a function gives for each item in the item's place.

        A sync function that gives an iterable is fused, and iterated only as far as there is room. An async generator
        function, an async function, or any function with `concurrency`, makes a stage of its own; with more than one
        item at a time, what they give is mixed as it comes.

        What it gives may be a pipeline, too, which is then run inside this run, within the item: its results are the
        item's children, its failure (or `PlanError`) is the item's, and it is stopped when the item is given up. A sync
        function that gives pipelines needs `concurrency`. What an inner run gives up is told to `on_discard` as of
        ``outer > inner`` stage. The children of an item count as one with it, so `max_in_flight` counts nothing of what
        the inner pipeline holds; and a drain lets it run to its end.

        Args:
          fn: ``fn(item)`` gives an iterable, an async iterable or a pipeline; it may be async, or a step.
          concurrency: items that are expanded at once, an int >= 1; None: one.
          on_error: what becomes of an item at which the call, or taking apart what it gave, failed; what the item gave
            before that has gone out.
          name: what reports and errors call it; else the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.FlatMap(_named_as(fn, name), fn, concurrency, on_error))

    def scan(self, fn: Callable[[U, T_co], Awaitable[U] | U], initial: U, *, name: str | None = None) -> Pipeline[U]:
        """Put the state so far in each item's place: ``state = fn(state, item)``, from `initial` on.

        Every run starts from the same `initial` object: use one that `fn` does not change in place.
        """
        return self._then(plan.Scan(_named_as(fn, name), fn, plan.Opaque(initial)))

    def tap(
        self, fn: Callable[[T_co], object], *, concurrency: int | None = None, name: str | None = None
    ) -> Pipeline[T_co]:
        """Show each item to a function, sync or async, or to a step; the item goes on unchanged.

        Args:
          fn: ``fn(item)``; a sync function is fused, as in `map`.
          concurrency: calls at once, an int >= 1, in a stage of its own, whose answers are awaited (see `map`); items
            keep their order. None: one, of a function that is async.
          name: what reports and errors call it; else the function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `concurrency` is below 1.
        """
        return self._then(plan.Tap(_named_as(fn, name), fn, concurrency))

    def enumerate(self, start: int = 0, *, name: str | None = None) -> Pipeline[tuple[int, T_co]]:
        """Put ``(number, item)`` in each item's place.

        Raises:
          TypeError: if `start` is no int.
        """
        return self._then(plan.Enumerate(_named(name, "enumerate"), start))

    # ---- operations on the stream

    def take(self, n: int, *, name: str | None = None) -> Pipeline[T_co]:
        """Keep the first `n` items; the stream ends with the n-th, and no further item is asked for.

        What was on its way behind it is discarded with the reason ``not needed``.

        Raises:
          TypeError: if `n` is no int.
          ValueError: if `n` is below 0.
        """
        return self._then(plan.Take(_named(name, "take"), n))

    def skip(self, n: int, *, name: str | None = None) -> Pipeline[T_co]:
        """Drop the first `n` items.

        Raises:
          TypeError: if `n` is no int.
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
        """Keep the items before the first that a function, sync or async, says no to; the stream ends there."""
        return self._then(plan.TakeWhile(_named_as(fn, name), fn))

    def skip_while(self, fn: Callable[[T_co], object], *, name: str | None = None) -> Pipeline[T_co]:
        """Drop the items before the first that a function, sync or async, says no to."""
        return self._then(plan.SkipWhile(_named_as(fn, name), fn))

    def batch(
        self,
        max_items: int | None = None,
        *,
        max_delay: float | None = None,
        max_cost: float | None = None,
        cost: Callable[[T_co], float] | None = None,
        name: str | None = None,
    ) -> Pipeline[list[T_co]]:
        """Collect items into lists.

        A batch leaves the instant it is full, or `max_delay` after its first item even if the source stalls, or at the
        end. An item that costs more than `max_cost` is a batch of its own.

        Args:
          max_items: items in a batch, an int >= 1.
          max_delay: seconds > 0 from its first item; makes a stage of its own, but not in the stage of a sync iterable
            (unless a `throttle` is there), where it is fused as any sync operation is.
          max_cost: sum of costs in a batch, > 0.
          cost: ``cost(item)``, a sync function that gives a number >= 0; else every item costs 1.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type, or `cost` comes without `max_cost`.
          ValueError: if an argument is out of range, or no limit is given.
        """
        if max_items is None and max_delay is None and max_cost is None:
            raise ValueError("Pipeline.batch: one of max_items, max_delay, max_cost must be given")
        return self._then(plan.Batch(_named(name, "batch"), max_items, max_delay, max_cost, cost))

    def unbatch(self: Pipeline[Iterable[U]], *, name: str | None = None) -> Pipeline[U]:
        """Give the items of each batch (any iterable) one by one."""
        return self._then(plan.Unbatch(_named(name, "unbatch")))

    def window(
        self, max_items: int | None = None, *, period: float | None = None, name: str | None = None
    ) -> Pipeline[list[T_co]]:
        """Cut the stream into lists, without overlap: by number, by time, or at whichever comes first.

        With a period, time is cut at its multiples from the start of the run, and a window leaves exactly at its end,
        even if the source stalls; an item that comes at a multiple is in the later window. (`batch` with `max_delay`
        counts from a batch's first item instead.) A window without items is not emitted. At the end of the stream, and
        at a failure, the open window leaves at once.

        Args:
          max_items: items in a window, an int >= 1; without it nothing limits how many come within a period.
          period: seconds > 0; makes a stage of its own, but not in the stage of a sync iterable (see `batch`).
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range, or neither limit is given.
        """
        return self._then(Window(_named(name, "window"), max_items, period))

    def sliding(self, n: int, step: int = 1, *, name: str | None = None) -> Pipeline[tuple[T_co, ...]]:
        """Give windows of `n` items that follow each other, as tuples: one leaves the instant its last item comes.

        The windows begin at every `step`-th item. Only full ones are given: the items that are in none, between two
        windows (`step` > `n`) or at the end of the stream, count as dropped. An item counts as absorbed, and is no
        longer discarded by itself, once it went out in its first window.

        Args:
          n: items in a window, an int >= 1.
          step: items from the beginning of one window to that of the next, an int >= 1.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `n` or `step` is below 1.
        """
        return self._then(Sliding(_named(name, "sliding"), n, step))

    def pairwise(self, *, name: str | None = None) -> Pipeline[tuple[T_co, T_co]]:
        """Give each item together with the next, as ``itertools.pairwise``; a single item counts as dropped."""
        called = "pairwise" if name is None else checks.text("Pipeline.pairwise", "name", name)
        return self._then(Sliding(called, 2, 1))

    def distinct(
        self, key: Callable[[T_co], Hashable] | None = None, *, remember: int, name: str | None = None
    ) -> Pipeline[T_co]:
        """Drop the items whose key was seen lately: it is one of the last `remember` distinct keys that came.

        A key that comes again counts as seen again (so one that keeps coming is never forgotten), and of more than
        `remember` keys the one that stayed away longest is. Items that are let through have no equal among those
        remembered; the others count as dropped.

        Args:
          key: ``key(item)``, a sync function that gives a hashable value; None: the item itself (one that has no hash
            is a TypeError in the stream).
          remember: keys to remember, an int >= 1: the bound of its memory.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `remember` is below 1.
        """
        return self._then(Distinct(_named(name, "distinct"), key, remember))

    def buffer(self, capacity: int, *, overflow: plan.Overflow = "block", name: str | None = None) -> Pipeline[T_co]:
        """Set the capacity of the one link at this point, and what becomes of an item that it has no room for.

        What is before it ends a stage, what is behind begins one. As last operation it is the link to the consumer (or
        to the merge). Of two in a row the later counts. Right behind a merge, where there is no link, it makes one.

        With another `overflow` than ``block`` the stage before it never waits for room; it only lets the next one run
        when the link is full, so that nothing is lost which that would have taken at once. What is dropped counts as
        dropped in the report, and ``on_discard`` is called once for each item, with the name of the policy as reason.
        As last operation of ``run()``, ``collect()`` and the like there is no link, so nothing overflows.

        Args:
          capacity: items, an int >= 1.
          overflow: ``block``: its sender waits; ``drop_oldest``: the item takes the place of the one that waited
            longest, so with capacity 1 the latest value is kept; ``drop_newest``: the item itself is dropped; ``fail``:
            the stream fails there with `BufferOverflow`, behind the items in the buffer; the item counts as failed.
          name: what the plan, reports and errors call the link (and the stage that makes one, behind a merge).

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `capacity` is below 1, or `overflow` none of these words.
        """
        return self._then(plan.Buffer(_named(name, "buffer"), capacity, overflow))

    # ---- operations of time

    def throttle(
        self,
        rate_limit: RateLimit,
        *,
        cost: Callable[[T_co], float | Fraction] | None = None,
        name: str | None = None,
    ) -> Pipeline[T_co]:
        """Let items go on at a pace: those that leave in any window cost at most ``burst + rate/per * length``.

        The pace is held at the instant at which an item leaves this stage, which is when there is room for it, too. One
        item waits here, others wait upstream: nothing is lost, at the end neither. It makes a stage of its own, but not
        right behind a sync iterable: there it is in the stage of that, and is reported by that name. (To hold calls to
        a rate, wherever else it is shared, use ``Step.rate_limit``.)

        Args:
          rate_limit: how many may leave in how much time.
          cost: ``cost(item)``, a sync function that gives what an item costs: a finite number > 0, at most the burst,
            or the stream fails at that item; else each costs 1.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
        """
        return self._then(timing.Throttle(_named(name, "throttle"), rate_limit, cost))

    def debounce(self, delay: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Let an item go on when no newer one came for `delay` seconds; the others count as dropped.

        One that comes in that very instant is too late to take its place. At the end of the stream, and before a
        failure, the last item goes out at once. Items are taken even while there is no room behind: the one that is
        kept here is always the newest.

        Args:
          delay: seconds > 0.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `delay` is not > 0 and finite.
        """
        return self._then(timing.Debounce(_named(name, "debounce"), delay))

    def sample(self, period: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Let the newest item go on at each multiple of a period, if a new one came; the others count as dropped.

        Multiples are counted from the start of the run, without drift. An item that comes at the very instant of one
        waits for the next. Without room, the newest item leaves as soon as there is some. At the end of the stream, and
        before a failure, the last item goes out at once.

        Args:
          period: seconds > 0.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `period` is not > 0 and finite.
        """
        return self._then(timing.Sample(_named(name, "sample"), period))

    def delay(self, seconds: float, *, max_items: int = 16, name: str | None = None) -> Pipeline[T_co]:
        """Let each item go on so many seconds after it came here, in order.

        At most `max_items` wait here: a source that gives more in that time is held up. At the end of the stream the
        last items leave in their time, and so does what came before a failure.

        Args:
          seconds: seconds > 0.
          max_items: items that wait at once, an int >= 1.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range.
        """
        return self._then(timing.Delay(_named(name, "delay"), seconds, max_items))

    def idle_timeout(self, seconds: float, *, name: str | None = None) -> Pipeline[T_co]:
        """Fail with `trio.TooSlowError` if no item comes for so many seconds.

        They count from the start of the run, then from each arrival; time in which there is no room behind, or in which
        the run is paused, does not count: they start anew then. The failure stands behind the items that came; an item
        at that very instant is too late.

        Args:
          seconds: seconds > 0.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `seconds` is not > 0 and finite.
        """
        return self._then(timing.IdleTimeout(_named(name, "idle_timeout"), seconds))

    def timeout(
        self, seconds: float | None = None, *, first: float | None = None, name: str | None = None
    ) -> Pipeline[T_co]:
        """Fail with `trio.TooSlowError` if the stream has not ended here in time, or its first item has not come.

        Both count from the start of the run, time in which there is no room behind included; `first` starts anew when a
        run that was paused goes on. The failure stands behind the items that came; what comes at that very instant, the
        end too, is too late.

        Args:
          seconds: seconds > 0 for the whole stream; None: without limit.
          first: seconds > 0 for its first item (or its end); None: without limit.
          name: what reports and errors call it.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if one is not > 0 and finite, or none is given.
        """
        return self._then(timing.Timeout(_named(name, "timeout"), seconds, first))

    # ---- branches

    def broadcast(
        self, branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]], *, name: str | None = None
    ) -> Pipeline[U]:
        """Give each item to every branch, and merge what the branches give, with equal shares.

        A branch is ``fn(pipeline)``, called here, at once: it says what is done with the items that the branch gets.
        There is room for an item when every branch has room, so a slow branch holds up all; one that begins with a
        buffer of its own, ``lambda items: items.buffer(1, overflow="drop_oldest").map(...)``, relieves itself. A branch
        that has ended (by `take`, say) gets no more; when all have, no more is taken. All branches get the same object.

        When an item fails before the branches, each branch still gives what came before it. A branch that fails ends
        the whole stream, at its place in what the branches give.

        Args:
          branches: the branches by name, at least one. Each must use its pipeline exactly once. (mypy does not see what
            lambdas in a mapping give; annotate the result, and it checks them against that.)
          name: what reports and errors call it.

        Raises:
          TypeError: if `branches` is no mapping of str to functions, or one of them gives no pipeline.
        """
        return self._fan_out("broadcast", name, branches)

    def partition(
        self,
        route: Callable[[T_co], str],
        branches: Mapping[str, Callable[[Pipeline[T_co]], Pipeline[U]]],
        *,
        name: str | None = None,
    ) -> Pipeline[U]:
        """Give each item to the branch that a function names, and merge what the branches give, with equal shares.

        An item whose branch has no room waits, and all that come later wait behind it, so that none overtakes; give a
        branch a buffer of its own to let it fall behind further (``lambda items: items.buffer(100).map(...)``). An item
        for a branch that has ended is discarded with the reason ``not needed``.

        Args:
          route: ``route(item)``, sync, gives the name of a branch; what is no name of one is a `KeyError` at that item.
          branches: the branches by name, at least one, as in `broadcast`.
          name: what reports and errors call it.

        Raises:
          TypeError: if `route` is no sync function, `branches` is no mapping of str to functions, or one of them gives
            no pipeline.
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
        """Give each key of one mixed stream its share: a queue for each key, from which the next stage takes by weight.

        For the inbound queue that many tenants share, one of whom floods it. Items of one key stay in their order.
        While keys f and m both have items here, what they were served, by weight, differs by at most
        ``cost_f/weight_f + cost_m/weight_m``, at the instant of hand-over: there is no link behind it, the next stage
        (or ``run.receive()``) takes from it directly. A key alone gets everything.

        A key without items costs nothing: it is forgotten at once, but not what it got ahead of its share, until the
        others have caught up with that. So there is no time to choose after which a key is idle.

        A stream has only one next item, so what waits there holds up all keys. With ``overflow="block"`` a flood fills
        its own queue and then stands before it: what comes behind is fair only as far as the queues reach. To keep a
        flood from the others let it fall (``"drop_newest"``) or divert it.

        Args:
          key: ``key(item)``, a sync function that gives a hashable value.
          share: the weights by key (of keys that may never come, too), the capacity of each key's queue, and what an
            item costs; all alike if not given.
          max_keys: keys that may have items here at once, an int >= 1; the item of one key more waits, and the stream
            behind it, until one of them has none left.
          overflow: what becomes of an item whose key's queue is full: it waits, and the stream behind it (``"block"``);
            it is dropped, and told to `on_discard` (``"drop_newest"``); or a step gets it, as a `Failure` with a
            `BufferOverflow` (``OnError.divert(step)``): one at a time, while the stream waits. It counts as failed
            then; the step's own error ends the stream.
          name: what reports and errors call it; else the key function's name.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `max_keys` is below 1, or `overflow` is another text.
        """
        shared: FairShare[Any] = FairShare() if share is None else share
        return self._then(FairBy(_named_as(key, name), key, shared, max_keys, overflow))

    def pipe(self, fn: Callable[Concatenate[Pipeline[T_co], P], U], /, *args: P.args, **kwargs: P.kwargs) -> U:
        """Give ``fn(self, *args, **kwargs)``: for segments that several pipelines use."""
        checks.callable_("Pipeline.pipe", "fn", fn)
        return fn(self, *args, **kwargs)

    # ---- review

    def describe(self, format: str = "text") -> str:
        """Show the plan: its stages, links, capacities, fairness, and how many items it can hold.

        The text is stable: the same plan gives the same text, fit for a golden test.

        Args:
          format: ``text``.

        Raises:
          PlanError: if the plan cannot work (but a one-shot source that was used can still be shown).
          ValueError: if the format is not known.
        """
        return describe_plan(self._plan, format)

    def check(self) -> None:
        """Raise the `PlanError` that a run would raise: one error with all problems of the plan."""
        check_plan(self._plan)

    @property
    def max_in_flight(self) -> int | float:
        """The most items that are ever taken and not yet delivered, failed, dropped or discarded.

        A batch counts its items; the children of one flat_map item count as one. `math.inf` where a batch or
        window has no `max_items`.

        Raises:
          PlanError: if fan-ins and fan-outs lie too deep within each other.
        """
        refuse_too_deep(self._plan)
        return max_in_flight(lay_out(self._plan))

    # ---- running

    def open(self, *, on_discard: OnDiscard | None = None, cleanup_timeout: float = 5.0) -> Opening[T_co]:
        """Start a run for the length of a block: ``async with pipeline.open() as run: async for item in run: ...``.

        Leaving the block, in whatever way, stops the run, closes every source, and waits for all of its tasks.

        Args:
          on_discard: ``on_discard(item, stage, reason)``, sync: called once for each item that is given up.
          cleanup_timeout: seconds > 0 that cleanup which awaits may take.

        Raises:
          PlanError: on entry, if the plan cannot work; nothing was started.
          TypeError: if an argument has a wrong type.
          ValueError: if `cleanup_timeout` is not > 0.

        Checkpoint: entering always; leaving only if it waits.
        Cancellation: stops the run at once; what was in flight is discarded with the reason ``cancelled``.
        """
        return self._opening(on_discard, cleanup_timeout, None)

    async def run(
        self,
        *,
        on_discard: OnDiscard | None = None,
        cleanup_timeout: float = 5.0,
        task_status: trio.TaskStatus[Run[T_co]] = trio.TASK_STATUS_IGNORED,
    ) -> Report:
        """Run to the end, for its effects; the results are not used, and the last stage has no link behind it.

        ``run = await nursery.start(pipeline.run)`` gives the `Run` while it works, to look at, drain or abort.

        Returns:
          the report of the run; ``report.outcome`` says whether it was drained or aborted on the way.

        Raises:
          PlanError: if the plan cannot work.
          Exception: the original error of the stream.

        Checkpoint: always.
        Cancellation: stops the run at once.
        """
        return await self._drive(_forget, on_discard, cleanup_timeout, task_status.started)

    async def collect(self, *, on_discard: OnDiscard | None = None, cleanup_timeout: float = 5.0) -> list[T_co]:
        """Run to the end, and give all items as a list."""
        items: list[T_co] = []
        await self._drive_unreported("collect", items.append, on_discard, cleanup_timeout)
        return items

    @overload
    async def first(self) -> T_co: ...

    @overload
    async def first(self, *, default: U) -> T_co | U: ...

    async def first(self, *, default: Any = _MISSING) -> Any:
        """Give the first item, and stop the run.

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
        """Run to the end, and give the last state of ``state = fn(state, item)``; `initial` if the stream is empty."""
        plan.check_fold("Pipeline.fold", fn)
        last = deque([initial], maxlen=1)
        await self.scan(fn, initial)._drive_unreported("fold", last.append)
        return last[0]

    async def count(self) -> int:
        """Run to the end, and give the number of items."""
        report = await self._drive_unreported("count", _forget)
        return report.delivered

    # ---- inside

    def _then(self, operation: plan.Operation) -> Pipeline[Any]:
        return Pipeline(Plan(self._plan.origin, (*self._plan.operations, operation)))

    def _fan_out(
        self, kind: FanOutKind, name: str | None, branches: Mapping[str, Callable[..., Any]], route: Any = None
    ) -> Pipeline[Any]:
        checks.mapping(f"Pipeline.{kind}", "branches", branches, "names to functions")
        called = _named(name, kind)
        routing = None if kind == "broadcast" else plan.Route(called, route, tuple(branches))
        grown = tuple(_grown(Branch(kind, called, key), fn) for key, fn in branches.items())
        return Pipeline(Plan(FanOut(kind, called, self._plan, grown, routing)))

    def _opening(self, on_discard: OnDiscard | None, cleanup_timeout: float, sink: Sink | None) -> Opening[Any]:
        if on_discard is not None:
            checks.takes("Pipeline", "on_discard", checks.sync_callable("Pipeline", "on_discard", on_discard), 3)
        checks.seconds("Pipeline", "cleanup_timeout", cleanup_timeout)
        return Opening(self._plan, on_discard=on_discard, cleanup_timeout=cleanup_timeout, sink=sink)

    async def _drive(
        self,
        put: Callable[[Any], object],
        on_discard: OnDiscard | None,
        cleanup_timeout: float,
        started: Callable[[Run[Any]], None],
    ) -> Report:
        """Run to the end with a sink; raise the failure that stands there."""
        sink = Sink(put)
        async with self._opening(on_discard, cleanup_timeout, sink) as run:
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
        """Do the same for a caller who gets no report: errors of cleanup go to the log."""
        runs: list[Run[Any]] = []
        try:
            return await self._drive(put, on_discard, cleanup_timeout, runs.append)
        finally:
            for run in runs:
                warn_of(name, run.report.cleanup_errors, run.report.cleanup_error_count)


_forget: Callable[[Any], object] = deque[Any](maxlen=0).append


# ---- what the methods share


def _iterating(kind: SourceKind, items: Any, name: str | None) -> Pipeline[Any]:
    if isinstance(items, Pipeline):  # whose methods to iterate it are there to say what to use
        where, rule = f"Pipeline.from_{kind.replace(' ', '_')}", f"be an {kind}, or a callable that makes one"
        raise checks.refuse(TypeError, where, "items", rule, items)
    return Pipeline(Plan(Source(kind, _named(name, iterable_name(kind, items)), plan.Opaque(items))))


def _named(name: str | None, default: str) -> str:
    return default if name is None else name


def _named_as(fn: Callable[..., Any], name: str | None) -> str:
    return function_name(fn) if name is None else name


def _grown(branch: Branch, fn: Any) -> tuple[Branch, Any]:
    """Return a branch and what its function makes of it."""
    checks.sync_callable(f"Pipeline.{branch.kind}", f"branches[{named(branch.key)}]", fn)
    return branch, plan_in(fn(Pipeline(Plan(branch))))


def plan_in(value: Any) -> Any:
    """Return the plan of a pipeline; anything else as it is, which no plan takes."""
    return value._plan if isinstance(value, Pipeline) else value
