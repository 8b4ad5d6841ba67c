"""`Recorder`: how long does everything take in a run, and how does it end? It is watched from inside.

The plan that runs is the plan with each function of the user's replaced by one that calls it, and notes seconds and
outcome (`roles`). Of the parts of the run, three are watched where they are asked: a source (for an item), the consumer
(for the next), and, under trio's own clock, each stage (for a burst of values, whose functions hold the event loop).

A call is one entry of its tape, made when it begins; each attempt adds how it ended to it. Nothing refers to an item, a
key or an error when the run is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, update_wrapper
from math import inf
from time import perf_counter
from typing import Any

import trio

from .._base import checks
from .._base.errors import StateError
from .._base.functions import AnyFunction
from .._plan.nodes import Plan, Source, is_awaitable, plan_of
from .._plan.steps import Admitting, Call
from .._runtime.calls.twins import known_keys, sharing_keys
from .._runtime.core.call_context import Around, CallContext, ContextFunction, Layered
from .._runtime.core.parking import is_real
from .._runtime.reports.report import Report
from .._runtime.run.run import Consumer
from .._runtime.run.witness import Witness
from .._runtime.runners.active_runner import ActiveRunner, Admit, start_runner
from .own import recorded_state, recorded_through
from .recording import Recording
from .roles import Roles
from .run_tapes import Tapes
from .streams import REFUSED, recorded_children, recorded_stream
from .tapes import INVALID, FailureKind, Kept, Tape, as_kept, further_path
from .watching import watch

_OPEN = 4096
"""Calls whose next attempt may still come."""


class Recorder(Witness):
    """Keeps how long things took in one run, and how they ended: ``plan.open(record=recorder)``.

    It keeps, for a sample of at most `max_samples` of each: how long a source took to give an item, each attempt of a
    call, the consumer to come back for the next item; what filters and other functions answered; how many values a
    `flat_map` made; which types of errors were raised. It keeps durations and outcomes only: no item, no key, no text
    of an error. Its memory does not grow with the run.

    When the run is over, `recording` has it all; `simulate` says what the run would have been under other settings.

    Args:
      max_samples: the most samples of each function, an int >= 1. Up to that number nothing is left out, and the same
        run can be repeated exactly.

    Raises:
      TypeError: if `max_samples` is not an int.
      ValueError: if it is below 1.
    """

    def __init__(self, *, max_samples: int = 10_000) -> None:
        self._max_samples: int = checks.integer("Recorder", "max_samples", max_samples, at_least=1)
        self._tapes: Tapes | None = None  # of its run; None before that is entered, which may still be refused
        self._has_begun: bool = False  # its run
        self._recording: Recording | None = None  # of its run; None until that is over

    def __repr__(self) -> str:
        return f"<Recorder: {self._recording or 'at work' if self._has_begun else 'not used yet'}>"

    @property
    def recording(self) -> Recording:
        """What it recorded.

        Raises:
          StateError: if its run is not over.
        """
        if self._recording is None:
            when = "its run is not over" if self._has_begun else "its run has not begun"
            raise StateError(f"Recorder.recording: {when}\nUse it behind the block of the run.")
        return self._recording

    def begin(self, plan: Plan) -> Plan:
        if self._has_begun:
            raise StateError("a Recorder records one run\nUse Recorder() to make another.")
        clock = trio.lowlevel.current_clock()
        # Trio's own clock adds a constant to that of Python; without that, it takes half the time.
        self._tapes = Tapes(self._max_samples, perf_counter if is_real(clock) else clock.current_time)
        return Recordings(self._tapes).replaced(plan)

    def attach(self, consumer: Consumer) -> None:
        assert self._tapes is not None
        self._has_begun = True
        self._tapes.began = self._tapes.now()
        watch(consumer, self._tapes, is_timed=is_real(trio.lowlevel.current_clock()))

    def end(self, consumer: Consumer, report: Report) -> None:
        tapes = self._tapes
        assert tapes is not None
        for finish in tapes.at_end:
            finish()
        kept = {place: tape.kept() for place, tape in tapes.tapes.items()}
        kept |= {place: Kept(count, [], []) for place, count in tapes.counts.items()}
        self._recording = Recording(
            elapsed=report.elapsed,
            taken=report.taken,
            delivered=report.delivered,
            outcome=report.outcome,
            seed=report.seed,
            has_consumer=tapes.has_consumer,
            changes=tuple([(at - tapes.began, what) for at, what in tapes.changes]),
            tapes=kept,
        )
        tapes.forget()


class Recordings(Roles):
    """Replaces each function by one that calls it and notes what it does."""

    def __init__(self, tapes: Tapes) -> None:
        self._tapes = tapes  # where it is noted
        self._of_limiters: dict[object, Numbers] = {}  # of the keys of each limiter or group, which steps may share

    def source(self, name: str, source: Source) -> Source:
        return source  # watched where it is asked

    def limit(self, limit: Admitting) -> Admitting:
        return limit

    def limit_key(self, name: str, path: str, fn: AnyFunction, limiter: Any) -> AnyFunction:
        numbers = self._of_limiters.setdefault(sharing_keys(limiter), Numbers(known_keys(limiter)))
        return self.answer(name, path, fn, numbers.of)

    def call(self, name: str, path: str, call: Call) -> Call:
        if call.runner is not None:
            return replace(call, runner=_RecordedRunner(call.runner, Attempts(self._tapes, name, path)))
        if call.using is not None:
            return replace(call, fn=Around(call.fn, partial(self._layered, name, path)))
        return replace(call, fn=ContextFunction(self.function(name, path, call.fn)))

    def started(self, name: str, path: str, step: Any) -> Layered:
        async def layered(item: Any, context: CallContext) -> Any:
            return await step.layered()(item, context)

        return self._layered(name, path, layered)

    def _layered(self, name: str, path: str, layered: Layered) -> Layered:
        first = Attempts(self._tapes, name, path)

        async def recorded(item: Any, context: CallContext) -> Any:
            notes = first.of(context)
            since = notes.now()
            try:
                result = await layered(item, context)
            except BaseException as error:
                notes.fail(context.number, since, error)
                raise
            notes.done(context.number, since)
            return result

        return recorded

    def function(self, name: str, path: str, fn: AnyFunction) -> Layered:
        notes = Attempts(self._tapes, name, path)
        now, samples, most = notes.now, notes.tape.samples, notes.tape.most
        keep, keep_number = samples.append, notes.tape.numbers.append
        further = self._layered(name, path, lambda item, _context: fn(item))  # of a hedge

        @trio.lowlevel.disable_ki_protection  # it stands in the place of what makes a call interruptible
        async def recorded(item: Any, context: CallContext) -> Any:
            if context.further:
                return await further(item, context)
            since = now()
            try:
                result = await fn(item)
            except BaseException as error:
                notes.fail(context.number, since, error)
                raise
            if notes.open:
                notes.done(context.number, since)
            else:  # the same for most calls, at half the cost
                keep(now() - since)
                keep_number(context.number)
                if len(samples) > most:
                    notes.tape.thin()
            return result

        return recorded

    def folding(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        tapes, add = self._tapes, self._tapes.tape(name, path, "calls").add

        async def recorded(*args: Any) -> Any:
            since = tapes.now()
            try:
                result = await fn(*args)
            except BaseException as error:
                add([tapes.ending(name, since, error)])
                raise
            add(tapes.now() - since)
            return result

        return recorded

    def value(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        tapes, add = self._tapes, self._tapes.tape(name, path, "failures").add_number
        number = -1  # of the item at hand

        def recorded(*args: Any) -> Any:  # only failures are kept: a sample for each item would cost twice as much
            nonlocal number
            number += 1
            try:
                return fn(*args)
            except Exception as error:
                add(tapes.failure(name, error), number)
                raise

        return recorded

    def maker(self, name: str, fn: AnyFunction) -> AnyFunction:
        return self.value(name, "fn", fn)

    def stop(self, name: str, fn: AnyFunction) -> AnyFunction:
        return update_wrapper(self.folding(name, "fn", fn), fn)

    def answer(self, name: str, path: str, fn: AnyFunction, plain: Callable[[Any], Any]) -> AnyFunction:
        return self._tapes.noting(name, path, fn, plain)

    def key(self, name: str, path: str, fn: AnyFunction, known: tuple[Any, ...]) -> AnyFunction:
        return self.answer(name, path, fn, Numbers(known).of)

    def children(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        self._tapes.tape(name, "fn", "counts")  # here, so that there is one although it may never be called
        return partial(recorded_children, self._tapes, name, fn)

    def stream(self, name: str, fn: AnyFunction) -> Layered:
        tapes, add = self._tapes, self._tapes.tape(name, "fn", "children").add_number

        async def recorded(item: Any, context: CallContext) -> Any:
            since = tapes.now()
            segments: list[Any] = []
            add(segments, context.number)
            try:
                made = fn(item)
                if is_awaitable(made):
                    made = await made
            except BaseException as error:
                segments.append(tapes.ending(name, since, error))
                raise
            return recorded_stream(tapes, name, since, segments, made)

        return recorded

    def state(self, name: str, make: AnyFunction, *, is_timed: bool) -> AnyFunction:
        return recorded_state(self._tapes, name, make)

    def through(self, name: str, fn: AnyFunction) -> AnyFunction:
        return recorded_through(self._tapes, name, fn)

    def pipeline(self, name: str, fn: AnyFunction) -> AnyFunction:
        tapes, add = self._tapes, self._tapes.tape(name, "fn", "children").add_number

        def recorded() -> Any:
            since = tapes.now()
            segments: list[Any] = []
            add(segments, 0)
            try:
                made = fn()
            except Exception as error:
                segments.append(tapes.ending(name, since, error))
                raise
            if plan_of(made) is None:
                segments.append([tapes.now() - since, FailureKind(REFUSED)])
                return made
            return recorded_stream(tapes, name, since, segments, made)

        return recorded

    def decision(self, name: str) -> Layered:
        tapes, add = self._tapes, self._tapes.tape(name, "answer", "answers").add_number

        async def recorded(answer: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # a step awaits its calls
            try:
                add(bool(answer), context.number)
            except Exception as error:
                add(tapes.failure(name, error), context.number)
                raise
            return answer

        return recorded

    def matcher(self, name: str, path: str, on: Any) -> Any:
        if isinstance(on, type | tuple):
            self._tapes.match(name, path, on)
            return on
        return self._asked(name, path, on, bool)

    def wait(self, name: str, path: str, retry_after: AnyFunction) -> AnyFunction:
        return self._asked(name, path, retry_after, seconds)

    def _asked(self, name: str, path: str, fn: AnyFunction, plain: Callable[[Any], Any]) -> AnyFunction:
        tapes = self._tapes

        def asked(error: Exception) -> Any:
            tapes.answered(error, path, INVALID)
            answer = fn(error)
            said = as_kept(plain, answer)
            if not isinstance(said, FailureKind):
                tapes.answered(error, path, said)
            return answer

        return asked


def seconds(answer: Any) -> float | None:
    """Return what ``retry_after`` answered, if it is what that may be."""
    return None if answer is None else checks.number("Recorder", "retry_after", answer)


class Numbers:
    """Gives keys numbers, in the order in which they come; those that stand in the plan have negative ones."""

    def __init__(self, known: tuple[Any, ...]) -> None:
        self._numbers: dict[Any, int] = {key: -1 - place for place, key in enumerate(known)}
        """Of each key so far."""
        self._next = 0  # the number of the next one

    def of(self, key: Any) -> int:
        """Return the number of a key; past `_MOST_KEYS` keys, a new one gets the number of an early one."""
        number = self._numbers.get(key)
        if number is None:
            number, self._next = self._next % _MOST_KEYS, self._next + 1
            if self._next <= _MOST_KEYS:
                self._numbers[key] = number
        return number


_MOST_KEYS = 100_000
"""The most keys that are told apart: so many are remembered while the run goes on."""


class Attempts:
    """Notes the attempts of calls that carry a number."""

    def __init__(self, tapes: Tapes, name: str, path: str) -> None:
        self._tapes = tapes  # of the run
        self._name = name  # of the part
        self._path = path  # of the call in it
        self._further: dict[int, Attempts] = {}  # of the further calls of a hedge, by their number
        self.now: Callable[[], float] = tapes.now  # the clock
        self.tape: Tape = tapes.tape(name, path, "calls")  # where they are noted
        self.open: dict[int, list[Any]] = {}  # attempts of calls that did not succeed, by number: more may come

    def of(self, context: CallContext) -> Attempts:
        """Return where the attempts of a call are noted: calls of one item at once have tapes of their own."""
        if not context.further:
            return self
        if context.further not in self._further:
            self._further[context.further] = Attempts(
                self._tapes, self._name, further_path(self._path, context.further)
            )
        return self._further[context.further]

    def done(self, number: int, since: float) -> None:
        """Note an attempt that succeeded; of the first one, only the seconds: a list for each call costs 10 %."""
        seconds = self.now() - since
        attempts = self.open.pop(number, None)
        if attempts is None:
            self.tape.add_number(seconds, number)
        else:
            attempts.append(seconds)

    def fail(self, number: int, since: float, error: BaseException) -> None:
        """Note an attempt that did not succeed."""
        attempts = self.open.pop(number, None)
        if attempts is None:
            attempts = []
            self.tape.add_number(attempts, number)
        attempts.append(self._tapes.ending(self._name, since, error))
        while len(self.open) >= _OPEN:
            del self.open[next(iter(self.open))]
        self.open[number] = attempts


class _RecordedRunner:
    """A runner whose calls are watched, from the moment at which each has its place."""

    def __init__(self, runner: Any, notes: Attempts) -> None:
        self._runner = runner  # the user's
        self._notes = notes  # where it is noted
        self.place: str = runner.place

    def describe(self) -> str:
        return self._runner.describe()  # type: ignore[no-any-return]

    def problem(self, fn: AnyFunction) -> str | None:
        return self._runner.problem(fn)  # type: ignore[no-any-return]

    def start(self) -> ActiveRunner:
        return _RecordedCalls(start_runner(self._runner), self._notes)


class _RecordedCalls:
    def __init__(self, running: ActiveRunner, notes: Attempts) -> None:
        self._running = running  # the user's, at work
        self._notes = notes  # where its calls are noted

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        notes, since = self._notes.of(context), inf

        async def admitted(item: Any, context: CallContext) -> None:
            nonlocal since
            if admit is not None:
                await admit(item, context)
            since = notes.now()

        try:
            result = await self._running.call(fn, item, context, admitted)
        except BaseException as error:
            if since < inf:
                notes.fail(context.number, since, error)
            raise
        notes.done(context.number, since)
        return result
