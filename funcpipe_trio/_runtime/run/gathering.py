"""Many calls and a list of their results: how does a pipeline's pool do that, and which failure is raised?

It is a `Pool` whose inlet is the iterable itself, so an item is taken when there is a place for it and no sooner, and
the result of a call goes to the item's place in the list.

The rule for failures differs from that of a stream, where what came before a failure is finished: the first failure
ends everything at once, and from then on no call starts. But calls that fail at the same instant do so in the order in
which trio happens to run their tasks; so the rest is cancelled only when all of them have had their turn, and of the
failures of one instant that of the earliest item is raised. What a call raises because it was cancelled is not a
failure.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import trio

from ..._base.frozen import dataclass
from ..._base.shown import named, told
from ..._plan.nodes import Plan, Source
from ..._plan.operations import Opaque
from ..calls.calling import Calling
from ..core.failures import add_note, failure_of, warn_of
from ..core.protocols import Inlet
from ..links.sink import Sink
from ..pools.pool import Pool
from ..stages.chain import Ends
from ..stages.sources import IterableInlet
from .parts import Parts
from .run_context import RunContext


async def gathered(
    name: str, call: Callable[[Any], Awaitable[Any]], items: Iterable[Any], concurrency: int
) -> list[Any]:
    """Call a function with each item; return the results in the order of the items, or raise the first failure."""
    gathering, runs = _Gathering(call), []
    try:
        async with _PoolContext(name, gathering, items, concurrency) as run:
            runs.append(run)
    except BaseException:
        warn_of(f"gather {named(name)}", gathering.errors(), len(gathering.errors()))
        raise
    finally:
        for run in runs:
            errors = [each for each in run.report.cleanup_errors if not isinstance(each, _Ended)]
            count = run.report.cleanup_error_count - (len(run.report.cleanup_errors) - len(errors))
            warn_of(f"gather {named(name)}", errors, count)
    failure = gathering.first_failure()
    if failure is not None:
        raise failure
    if run.report.error is not None:
        raise run.report.error
    return gathering.results


class _Ended(Exception):
    """Ends the pool; the reason is in the list of failures."""


class _Broken:
    """Stands for the item at which the iterable itself failed."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error  # that the iterable raised


@dataclass(frozen=True, slots=True)
class _Failure:
    """A call that failed, and when."""

    at: float
    """By trio's clock."""
    number: int
    """Of its item, from 0."""
    error: Exception
    """That the call raised."""
    is_late: bool
    """Whether the call was cancelled when it failed, so that it presumably failed because of that."""


class _Gathering:
    """The results and failures of the calls."""

    def __init__(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        self.results: list[Any] = []  # in the order of the items; None where a call has not returned
        self._call = call  # the user's function
        self._failures: list[_Failure] = []  # in the order in which they were met

    def numbered(self, items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield each item with its number, until a call has failed."""
        iterator: Iterator[Any] | None = None
        number = 0
        while not self._failures:
            try:
                iterator = iter(items) if iterator is None else iterator
                item = next(iterator, self)
            except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
                error = failure_of(raised)
                if error is None:
                    raise
                yield number, _Broken(error)  # noqa: ASYNC104  # raised by `gather`
                return  # noqa: ASYNC104  # kept, and raised by `gather`
            if item is self:
                return
            self.results.append(None)
            yield number, item
            number += 1

    async def __call__(self, numbered: tuple[int, Any]) -> None:
        """Call the function with an item; end everything if that fails."""
        number, item = numbered
        if self._failures:  # the iterable gave it while another call failed
            return
        try:
            if isinstance(item, _Broken):
                raise item.error
            self.results[number] = await self._call(item)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            is_late = trio.current_effective_deadline() == -math.inf
            self._failures.append(_Failure(trio.current_time(), number, error, is_late))
            if len(self._failures) > 1:
                return  # noqa: ASYNC104  # kept, and raised by `gather`
            for _ in range(2):  # the calls that wake at this instant, and the nurseries that they are in
                await trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC120  # it cannot be cancelled
            raise _Ended from None  # noqa: ASYNC104  # of this package's own

    def errors(self) -> list[Exception]:
        """Return the errors of all calls that failed."""
        return [each.error for each in self._failures]

    def first_failure(self) -> Exception | None:
        """Return the error to raise, with a note for each other one; None if no call failed."""
        if not self._failures:
            return None
        first = min(self._failures, key=lambda each: (each.is_late, each.at, each.number))
        for each in self._failures:
            if each.error is not first.error:
                add_note(first.error, f"then another call raised {told(each.error)}")
        return first.error


class _PoolContext(RunContext[None]):
    """The block of a run that is one pool and fills a list."""

    __slots__ = ("_concurrency", "_gathering", "_name")

    def __init__(self, name: str, gathering: _Gathering, items: Iterable[Any], concurrency: int) -> None:
        source = Source("iterable", name, Opaque(partial(gathering.numbered, items)))
        super().__init__(Plan(source), on_discard=None, cleanup_timeout=5.0, sink=Sink(_ignore), is_logged=False)
        self._name = name  # as errors call the pool
        self._gathering = gathering  # what the pool calls with each numbered item
        self._concurrency = concurrency  # places of the pool

    def _build(self, parts: Parts) -> Inlet:
        assert isinstance(self._plan.origin, Source)
        assert self._sink is not None
        inlet = IterableInlet(self._plan.origin)
        parts.sources.append(inlet)
        call = Calling(self._gathering)
        pool = Pool(
            Ends(parts.host, self._name, inlet, self._sink, ()), call, concurrency=self._concurrency, ordered=False
        )
        inlet.chain, self._sink.sender = pool.chain, pool
        return inlet


def _ignore(_result: object) -> None:
    """Do nothing: the results are in the list already."""
