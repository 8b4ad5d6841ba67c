"""What takes the place of a user's functions when a recording is played? Functions that take as long, and end alike.

Items are tokens. A token knows its origin: the source, its number there, and which child of a child it is; a function
that gives one value for one passes its token on. The n-th call of a function takes what the n-th call took in the
recording. That repeats the recorded run exactly. Under other settings items come in another order, and a slow item
should stay slow; so the recording is first played as it was, to learn which sample belongs to which token, and then
each token takes its own (`Lore`).

Sleeping is virtual. Where a stage held the event loop, the clock is set on: nothing else runs meanwhile, as in the
recorded run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from random import Random
from typing import Any, NoReturn

import trio

from .._base.functions import AnyFunction
from .._plan.nodes import Plan, Source
from .._plan.operations import Opaque
from .._plan.settings import Kind, PlanPart, rebuilt, visit
from .._plan.steps import Call, Limit
from .._runtime.calls.rate_limiter import RateLimiter
from .._runtime.core.call_context import CallContext, ContextFunction, Layered
from .._runtime.runners.active_runner import ActiveRunner, Admit, admitted
from .._runtime.runners.runners import Threads
from .._sansio.retrying import is_meant, is_retried
from ..policies.on_error import Failure
from .recording import Place, Recording
from .roles import Roles
from .tapes import FailureKind, Kept, Sample

_JUST = 1e-6
"""Seconds after it was cut off in which something is done: later than whatever cut it off."""
_OPEN = 4096
"""Calls whose next attempt may still come."""
_MORE = 100
"""Times as many items as it gave that a source gives at most which was stopped."""
_AT_LEAST = 10_000
"""Items that such a source may give in any case."""
_STOPPED = ("cancelled", "aborted", "drained")
"""Outcomes of runs that are stopped at a time, in a simulation too."""


class Token:
    """An item of a simulation: where it is from, and nothing else."""

    __slots__ = ("path",)

    def __init__(self, path: tuple[Any, ...]) -> None:
        self.path: tuple[Any, ...] = path  # its source, its number there, and the numbers of its children


class SimulatedError(Exception):
    """Stands for an error of the recorded run; each type of those has a subclass of its name."""

    kind: FailureKind
    """How the recorded call failed."""


class Lore:
    """Which sample belongs to which token, by what it is a sample of."""

    def __init__(self) -> None:
        self.learned: dict[Place, dict[Any, Sample]] = {}  # in this simulation
        self.known: dict[Place, dict[Any, Sample]] = {}  # from one before

    def followed(self) -> Lore:
        """Return the lore of the next simulation, which knows what this one has learned."""
        next_one = Lore()
        next_one.known = self.learned
        return next_one


_DEFAULTS: dict[str, Any] = {"calls": 0.0, "answers": True, "children": [0.0], "counts": 0, "holds": 0.0}
"""What happens where the recording has no sample, because nothing was ever called."""


class Reader:
    """Returns the sample for one call after the other."""

    def __init__(self, place: Place, kept: Kept | None, lore: Lore, chance: Random) -> None:
        self._kept = kept if kept is not None and kept.samples else None  # the samples; None if there are none
        self._default = _DEFAULTS[place.role]  # the sample where there are none
        self._chance = chance  # decides between samples
        self._number = 0  # of the next call
        self._known = lore.known.get(place)  # samples by origin; None if nothing is known
        self._learned: dict[Any, Sample] | None = None  # likewise, of this simulation; None if it is not to be kept
        if kept is not None and kept.is_whole:
            self._learned = lore.learned.setdefault(place, {})

    def next(self, item: Any, number: int | None = None) -> Sample:
        """Return the sample for a call with an item.

        Args:
          item: a token, or what is made of tokens.
          number: of the item, from 0; None if calls come in the order of the items.
        """
        if number is None:
            number, self._number = self._number, self._number + 1
        if self._kept is None:
            return self._default
        origin = origin_of(item)
        if self._known is not None and origin in self._known:
            return self._known[origin]
        sample = self._kept.at(number, self._chance)
        if self._learned is not None and origin is not None:
            self._learned[origin] = sample
        return sample


def origin_of(item: Any) -> Any:
    """Return where an item is from: of several together, where the first is."""
    while not isinstance(item, Token):
        if isinstance(item, Failure):
            item = item.item
        elif isinstance(item, list | tuple) and item:
            item = next((each for each in item if not isinstance(each, int | str)), None)
        else:
            return None
    return item.path


class Playing(Roles):
    """Replaces each function by one that plays what was recorded of it."""

    def __init__(self, recording: Recording, lore: Lore, seed: int, open_loop: frozenset[str]) -> None:
        self._recording = recording  # what is played
        self._lore = lore  # which sample belongs to which token
        self._chance = Random(seed)  # decides between samples, where not every call was kept
        self._open_loop = open_loop  # names of sources whose items come when they came, whoever waits
        self._limiters: dict[int, RateLimiter] = {}  # in the place of the user's, by identity
        self.began: float = 0.0  # when the simulation began
        self.missing: list[str] = []  # parts of the plan of which nothing was recorded

    def reader(self, name: str, path: str, role: str) -> Reader:
        """Return the reader of a tape."""
        place = Place(name, path, role)
        if place not in self._recording.tapes and name not in self.missing:
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
                await _live(end)  # it was being asked when the run ended
            await _live(pulls.at(number, self._chance))
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
            await _live(end)
        if _is_cut(end) and self._recording.outcome in _STOPPED:
            await trio.sleep_forever()

    def replaced(self, plan: Plan) -> Plan:
        rebuilt(plan, self._noting_rates)
        return super().replaced(plan)

    def _noting_rates(self, _name: str, part: PlanPart) -> PlanPart:
        """Note the rate of each shared limiter; one that was changed in any place counts for all that share it."""

        def note(_path: str, value: Any, kind: Kind) -> Any:
            if kind == "shared" and isinstance(value, Limit):
                limiter = value.limiter
                if value.rate_limit != limiter.rate_limit or id(limiter) not in self._limiters:
                    self._limiters[id(limiter)] = RateLimiter(value.rate_limit)
            return value

        return part if isinstance(part, Source) else visit(part, note)

    def limit(self, limit: Limit) -> Limit:
        return replace(limit, limiter=self._limiters[id(limit.limiter)])

    def call(self, name: str, path: str, call: Call) -> Call:
        attempts = _Attempts(self.reader(name, path, "calls"))
        if call.runner is None:
            return replace(call, fn=ContextFunction(_played(attempts)))
        return replace(call, runner=_PlayedRunner(call.runner, attempts))

    def started(self, name: str, path: str, step: Any) -> Layered:
        return _played(_Attempts(self.reader(name, path, "calls")))

    def function(self, name: str, path: str, fn: AnyFunction) -> Layered:
        return _played(_Attempts(self.reader(name, path, "calls")))

    def folding(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        reader = self.reader(name, path, "calls")

        async def played(_state: Any, item: Any) -> Any:
            sample = reader.next(item)
            for segment in sample if isinstance(sample, list) else [sample]:
                await _live(segment)
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
                _raise(kind)
            return args[-1]

        return played

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
                _raise(answer)
            return result(args[-1], answer)

        return answered

    def children(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        return partial(expanded, self.reader(name, path, "counts"))

    def stream(self, name: str, fn: AnyFunction) -> Layered:
        reader = self.reader(name, "fn", "children")

        async def played(item: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # a step awaits its calls
            return _children(item, reader.next(item, context.number))

        return played

    def decision(self, name: str) -> Layered:
        reader = self.reader(name, "answer", "answers")

        async def played(item: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # a step awaits its calls
            answer = reader.next(item, context.number)
            if isinstance(answer, FailureKind):
                _raise(answer)
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
        await _live(segment)
        if number < len(segments) - 1:
            yield Token((*(origin_of(item) or ()), number))


def expanded(reader: Reader, item: Any) -> Iterator[Any]:
    """Return as many children of an item as there were; they tell when no more come, if those did."""
    count = reader.next(item)
    number = count[0] if isinstance(count, list) else count
    if isinstance(item, list | tuple) and len(item) == number:
        children = item
    else:
        children = [Token((*(origin_of(item) or ()), child)) for child in range(number)]
    return _found_out(children, count[1]) if isinstance(count, list) else iter(children)


def _found_out(children: Sequence[Any], kind: FailureKind | None) -> Iterator[Any]:
    yield from children
    if kind is not None:
        _raise(kind)


def _tokens(name: str, most: int, end: Sample | None) -> Iterator[Token]:
    for number in range(most):
        yield Token((name, number))
    if isinstance(end, list) and len(end) == 2:
        _raise(end[1])


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


async def _live(segment: Any) -> None:
    """Take as long as an attempt took, and fail if it failed; one that was cut off is done right after that.

    What took no time does not wait at all.
    """
    seconds, *how = segment if isinstance(segment, list) else (segment, None)
    if not how:
        seconds += _JUST
    if seconds:
        await trio.sleep(seconds)
    if how and how[0] is not None:
        _raise(how[0])


_kinds: dict[str, type[SimulatedError]] = {}
"""The types of simulated errors, by name."""


def _raise(kind: FailureKind) -> NoReturn:
    """Raise the error of a recorded failure."""
    if kind.type_name not in _kinds:
        _kinds[kind.type_name] = type(kind.type_name, (SimulatedError,), {})
    error = _kinds[kind.type_name]("simulated")
    error.kind = kind
    raise error


class _Attempts:
    """Plays the attempts of calls that carry a number."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader  # of the calls
        self._open: dict[int, tuple[list[Any], int]] = {}  # samples of calls that failed, and attempts, by number

    def next(self, number: int, item: Any) -> Any:
        """Return how the next attempt of a call ends; past those recorded, as the last did."""
        attempts, done = self._open.pop(number, (None, 0)) if self._open else (None, 0)
        if attempts is None:
            sample = self._reader.next(item, number)
            if not isinstance(sample, list):
                return sample
            attempts = sample
        segment = attempts[min(done, len(attempts) - 1)]
        if isinstance(segment, list):
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            self._open[number] = attempts, done + 1
        return segment


def _played(attempts: _Attempts) -> Layered:
    """Return a call that is played."""

    async def played(item: Any, context: CallContext) -> Any:
        await _live(attempts.next(context.number, item))
        return item

    return played


class _PlayedRunner:
    """A runner that only has places."""

    def __init__(self, runner: Any, attempts: _Attempts) -> None:
        self._runner = runner  # the user's, which is never started
        self._attempts = attempts  # what is played
        self.place: str = runner.place

    def describe(self) -> str:
        return self._runner.describe()  # type: ignore[no-any-return]

    def problem(self, fn: AnyFunction) -> str | None:
        return None

    def start(self) -> ActiveRunner:
        limit = getattr(self._runner, "limit", None)
        waits = isinstance(self._runner, Threads) and not self._runner.abandon_on_cancel
        return _PlayedPlaces(inf if limit is None else limit, self._attempts, is_waited_for=waits)


class _PlayedPlaces:
    def __init__(self, limit: float, attempts: _Attempts, *, is_waited_for: bool) -> None:
        self._places = trio.CapacityLimiter(limit)  # calls at once
        self._attempts = attempts  # what is played
        self._is_waited_for = is_waited_for  # a call that is cancelled goes on to its end, as in a thread

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        borrower = object()
        await self._places.acquire_on_behalf_of(borrower)
        try:
            await admitted(item, context, admit)
            with trio.CancelScope(shield=self._is_waited_for):
                await _live(self._attempts.next(context.number, item))
        finally:
            self._places.release_on_behalf_of(borrower)
        return item
