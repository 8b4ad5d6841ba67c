"""What takes the place of a user's functions when a recording is played? Functions that take as long, and end alike.

Items are tokens, and each takes its own samples (`tokens`); `played_calls` is what a call does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import cache, partial, update_wrapper
from itertools import count
from random import Random
from typing import Any

import trio

from .._base.functions import AnyFunction
from .._plan.nodes import Plan, Source
from .._plan.operations import Opaque
from .._plan.settings import Kind, PlanPart, rebuilt, visit
from .._plan.steps import Admitting, Call, Limit, Places
from .._runtime.calls.limiter_keys import share_of
from .._runtime.calls.twins import Limiter, known_keys, same_group, sharing, twin
from .._runtime.core.call_context import CallContext, ContextFunction, Layered
from .._sansio.retrying import is_meant, is_retried
from .own import PlayedState, PlayedTimedState, played_through
from .played_calls import PlayedAttempts, PlayedRunner, SimulatedError, expanded, live, played_call, raise_recorded
from .played_runs import PlayedPipeline
from .recording import Place, Recording
from .roles import Roles
from .tapes import FailureKind, Kept, Sample, further_path
from .tokens import Lore, Reader, Token, origin_of

_MORE = 100
"""Times as many items as it gave that a source gives at most which was stopped."""
_AT_LEAST = 10_000
"""Items that such a source may give in any case."""
_STOPPED = ("cancelled", "aborted", "drained")
"""Outcomes of runs that are stopped at a time, in a simulation too."""


class Playing(Roles):
    """Replaces each function by one that plays what was recorded of it."""

    def __init__(self, recording: Recording, lore: Lore, seed: int, open_loop: frozenset[str]) -> None:
        self._recording = recording  # what is played
        self._lore = lore  # which sample belongs to which token
        self._chance = Random(seed)  # decides between samples, where not every call was kept
        self._open_loop = open_loop  # names of sources whose items come when they came, whoever waits
        self._limiters: dict[object, Limiter] = {}  # in the place of the user's, by what they share
        self.began: float = 0.0  # when the simulation began
        self.missing: list[str] = []  # parts of the plan of which nothing was recorded

    def reader(self, name: str, path: str, role: str, *, is_needed: bool = True) -> Reader:
        """Return the reader of a tape; without `is_needed`, there may be none."""
        place = Place(name, path, role)
        if is_needed and place not in self._recording.tapes and name not in self.missing:
            self.missing.append(name)
        return Reader(place, self._recording.tapes.get(place), self._lore, self._chance)

    def source(self, name: str, source: Source) -> Source:
        if source.kind == "ticks":
            return source
        items = self._recording.tapes.get(Place(name, "items", "items"))
        end = self._end(name)
        if source.kind == "iterable" and items is not None:
            tokens = partial(_tokens, name, self._most(items.seen, end), end)
            return replace(source, origin=Opaque(tokens), claim=None)
        role, play = ("arrivals", self._arrived) if name in self._open_loop else ("pulls", self._pulled)
        kept = self._recording.tapes.get(Place(name, role, role))
        if kept is None:
            self.missing.append(name)
            kept = Kept(0, [], [])
        return Source("async iterable", source.name, Opaque(partial(play, name, kept, end)))

    def _end(self, name: str) -> Sample | None:
        """Return how a source ended; None if it did not."""
        ends = self._recording.tapes.get(Place(name, "ends", "ends"))
        return ends.samples[0] if ends is not None and ends.samples else None

    def _most(self, seen: int, end: Sample | None) -> int:
        """Return how many items a source gives at most, which gave so many.

        One that was stopped would have had more, so it goes on; not for ever, because a simulation has to end. What
        came after a failure is not known: there it does not go on.
        """
        goes_on = _is_cut(end) and seen > 0 and self._recording.outcome != "failed"
        return max(_MORE * seen, _AT_LEAST) if goes_on else seen

    async def _pulled(self, name: str, pulls: Kept, end: Sample | None) -> AsyncIterator[Any]:
        most = self._most(pulls.seen, end)
        for number in range(most):
            if number == pulls.seen and end is not None:
                await live(end)  # it was being asked when the run ended
            await live(pulls.at(number, self._chance))
            yield Token((name, number))
        await self._finish(end if most == pulls.seen else None)

    async def _arrived(self, name: str, arrivals: Kept, end: Sample | None) -> AsyncIterator[Any]:
        for number in range(arrivals.seen):
            await trio.sleep_until(self.began + _arrival(arrivals, number))
            yield Token((name, number))
        await self._finish(end)

    async def _finish(self, end: Sample | None) -> None:
        """Let a source end as it did; one that was stopped gives nothing more, until the run is stopped, if it is."""
        if end is not None:
            await live(end)
        if _is_cut(end) and self._recording.outcome in _STOPPED:
            await trio.sleep_forever()

    def replaced(self, plan: Plan) -> Plan:
        noted: dict[object, tuple[Any, Any, Any]] = {}
        rebuilt(plan, partial(_note_limiters, noted))
        self._limiters = {place: twin(*each) for place, each in noted.items()}
        return super().replaced(plan)

    def limit(self, limit: Admitting) -> Admitting:
        return replace(limit, limiter=same_group(limit.limiter, self._limiters[sharing(limit.limiter)]))

    def limit_key(self, name: str, path: str, fn: AnyFunction, limiter: Any) -> AnyFunction:
        return self.key(name, path, fn, known_keys(limiter))

    def call(self, name: str, path: str, call: Call) -> Call:
        attempts = self._attempts(name, path)
        if call.runner is None:
            return replace(call, fn=ContextFunction(played_call(attempts)), using=None)
        return replace(call, runner=PlayedRunner(call.runner, attempts), using=None)

    def started(self, name: str, path: str, step: Any) -> Layered:
        return played_call(self._attempts(name, path))

    def function(self, name: str, path: str, fn: AnyFunction) -> Layered:
        return played_call(self._attempts(name, path))

    def _attempts(self, name: str, path: str) -> PlayedAttempts:
        first = self.reader(name, path, "calls")

        def further(number: int) -> PlayedAttempts:
            place = further_path(path, number)
            is_known = Place(name, place, "calls") in self._recording.tapes
            return PlayedAttempts(self.reader(name, place, "calls")) if is_known else PlayedAttempts(first, is_any=True)

        return PlayedAttempts(first, further)

    def folding(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        reader = self.reader(name, path, "calls")

        async def played(_state: Any, item: Any) -> Any:
            sample = reader.next(item)
            for segment in sample if isinstance(sample, list) else [sample]:
                await live(segment)
            return item

        return played

    def value(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        place = Place(name, path, "failures")
        kept = self._recording.tapes.get(place, Kept(0, [], []))
        by_number = dict(zip(kept.numbers, kept.samples, strict=True))
        known, learned = self._lore.known.get(place), self._lore.learned.setdefault(place, {})
        number = -1  # of the item at hand

        def played(*args: Any) -> Any:
            nonlocal number
            number += 1
            origin = origin_of(args[-1]) if by_number else None
            kind = by_number.get(number) if known is None else known.get(origin)
            if kind is not None:
                learned[origin] = kind
                raise_recorded(kind)
            return args[-1]

        return played

    def maker(self, name: str, fn: AnyFunction) -> AnyFunction:
        play, numbers = self.value(name, "fn", fn), count()
        return lambda: play(Token((name, next(numbers))))

    def stop(self, name: str, fn: AnyFunction) -> AnyFunction:
        kept = self._recording.tapes.get(Place(name, "fn", "calls"))
        sample = kept.samples[0] if kept is not None and kept.samples else None
        end = sample[-1] if isinstance(sample, list) else sample

        event = trio.Event()
        if end == 0:  # nothing passed there, whichever task ran first
            event.set()

        async def played() -> None:
            if _is_cut(end):  # it had not returned when the run was over
                await trio.sleep_forever()
            await live(end)

        return update_wrapper(played, event.wait)

    def answer(self, name: str, path: str, fn: AnyFunction, plain: Callable[[Any], Any]) -> AnyFunction:
        return self.answering(name, path, lambda _item, answer: answer)

    def key(self, name: str, path: str, fn: AnyFunction, known: tuple[Any, ...]) -> AnyFunction:
        def key_of(_item: Any, answer: Any) -> Any:
            return known[-1 - answer] if 0 > answer >= -len(known) else ("key", answer)

        return self.answering(name, path, key_of)

    def answering(self, name: str, path: str, result: Callable[[Any, Any], Any]) -> AnyFunction:
        """Return a sync function that plays its answers; `result` makes the result of the item and the answer."""
        reader = self.reader(name, path, "answers")

        def answered(*args: Any) -> Any:
            answer = reader.next(args[-1])
            if isinstance(answer, FailureKind):
                raise_recorded(answer)
            return result(args[-1], answer)

        return answered

    def children(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        return partial(expanded, self.reader(name, path, "counts"))

    def stream(self, name: str, fn: AnyFunction) -> Layered:
        reader = self.reader(name, "fn", "children")

        async def played(item: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # a step awaits its calls
            return _children(item, reader.next(item, context.number))

        return played

    def state(self, name: str, make: AnyFunction, *, is_timed: bool) -> AnyFunction:
        self.reader(name, "push", "counts")
        reader = cache(partial(self.reader, name, is_needed=False))  # the objects of all keys play one tape
        played, makes = PlayedTimedState if is_timed else PlayedState, reader("make", "counts")

        def made() -> PlayedState:
            count = makes.next(None)
            if isinstance(count, list):
                raise_recorded(count[1])
            return played(reader)

        return made

    def through(self, name: str, fn: AnyFunction) -> AnyFunction:
        self.reader(name, "begin", "children")
        return played_through(partial(self.reader, name, is_needed=False))

    def pipeline(self, name: str, fn: AnyFunction) -> AnyFunction:
        reader = self.reader(name, "fn", "children")

        def played() -> PlayedPipeline:
            item = Token((name,))
            return PlayedPipeline(_children(item, reader.next(item, 0)))

        return played

    def decision(self, name: str) -> Layered:
        reader = self.reader(name, "answer", "answers")

        async def played(item: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # a step awaits its calls
            answer = reader.next(item, context.number)
            if isinstance(answer, FailureKind):
                raise_recorded(answer)
            return answer

        return played

    def matcher(self, name: str, path: str, on: Any) -> Any:
        is_retry = path.split(".")[-2].partition("#")[0] == "retry"

        def matches(error: Exception) -> bool:
            if isinstance(error, SimulatedError):
                return bool(error.kind.answers.get(path, True))
            if isinstance(on, type | tuple):
                return is_retried(on, error) if is_retry else is_meant(on, error)
            return True  # only the user's predicate could tell

        return matches

    def wait(self, name: str, path: str, retry_after: AnyFunction) -> AnyFunction:
        return lambda error: error.kind.answers.get(path) if isinstance(error, SimulatedError) else None

    def setting(self, path: str, value: Any) -> Any:
        return self._recording.seed if value is None and path.endswith("backoff.seed") else value


async def _children(item: Any, segments: list[Any]) -> AsyncIterator[Any]:
    """Give the children of an item, each after as long as it took."""
    for number, segment in enumerate(segments):
        await live(segment)
        if number < len(segments) - 1:
            yield Token((*(origin_of(item) or ()), number))


def _note_limiters(noted: dict[object, tuple[Any, Any, Any]], _name: str, part: PlanPart) -> PlanPart:
    """Note the settings of each shared limiter; one that was changed in any place counts for all that share it."""

    def note(_path: str, value: Any, kind: Kind) -> Any:
        if kind == "shared" and isinstance(value, Limit | Places):
            limiter, share = value.limiter, value.share
            new = value.rate_limit if isinstance(value, Limit) else value.places
            old = limiter.rate_limit if isinstance(value, Limit) else limiter.places
            _, before, weights = noted.get(sharing(limiter), (limiter, old, share_of(limiter)))
            noted[sharing(limiter)] = (
                limiter,
                new if new != old else before,
                share if share != share_of(limiter) else weights,
            )
        return value

    return part if isinstance(part, Source) else visit(part, note)


def _tokens(name: str, most: int, end: Sample | None) -> Iterator[Token]:
    for number in range(most):
        yield Token((name, number))
    if isinstance(end, list) and len(end) == 2:
        raise_recorded(end[1])


def _is_cut(end: Sample | None) -> bool:
    """Return whether a source was stopped before its end."""
    return end is None or (isinstance(end, list) and len(end) == 1)


def _arrival(arrivals: Kept, number: int) -> float:
    """Return when an item came, in seconds since the beginning; between two that were kept, in equal steps."""
    numbers, times = arrivals.numbers, arrivals.samples
    after = bisect_left(numbers, number)
    if after == len(numbers):
        return float(times[-1])
    if after == 0 or numbers[after] == number:
        return float(times[after])
    part = (number - numbers[after - 1]) / (numbers[after] - numbers[after - 1])
    return float(times[after - 1] + (times[after] - times[after - 1]) * part)
