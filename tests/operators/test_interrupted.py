"""P1 when Ctrl-C strikes: at whatever bytecode where Python can let it in, each item is counted and reported once.

A trace function stands for the signal: it raises it in a frame of the runtime that trio does not protect, before one of
the instructions at which the interpreter looks for signals, or behind a call into C. One trial for each such moment.

Mutants that die here: a protected part of the chain that takes its state from an unprotected caller; user code whose
error is dealt with where Ctrl-C may strike; an item that is counted before it has left.
"""

from __future__ import annotations

import dis
import os
import signal
import sys
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
from trio.testing import MockClock

import funcpipe_trio._runtime
from funcpipe_trio import Pipeline, Step
from funcpipe_trio.testing import Lab
from tests._kit import STRIDE

from .catalogue import CASES, Feed, tokens

RUNTIME = os.path.dirname(funcpipe_trio._runtime.__file__)
CALLS = {code for name, code in dis.opmap.items() if name.startswith("CALL")}
LOOKS = {dis.opmap[name] for name in ("RESUME", "JUMP_BACKWARD")}


class Striking:
    """Sends the signal of Ctrl-C at the n-th moment at which it may strike in the runtime."""

    def __init__(self, moment):
        self.left = moment
        self.where = None
        self.is_behind_call = False

    def __call__(self, frame, event, argument):
        self.is_behind_call = False  # of Python code, behind which nothing is checked
        if not frame.f_code.co_filename.startswith(RUNTIME):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.look

    def look(self, frame, event, argument):
        if event == "opcode":
            code = frame.f_code.co_code[frame.f_lasti]
            is_moment, self.is_behind_call = self.is_behind_call or code in LOOKS, code in CALLS
            if is_moment and not trio.lowlevel.currently_ki_protected():
                self.left -= 1
                if not self.left:
                    self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
                    signal.raise_signal(signal.SIGINT)
        else:
            self.is_behind_call = False
        return self.look


async def play(case, feed, lab, seen):
    async with case.make(feed).open(on_discard=lab.discard) as run:
        seen.append(run)
        async for item in run:
            seen.append(item)


def struck(case, moment):
    """Run it, struck at one moment; give where that was, and what is wrong with the books then."""
    feed, lab, seen, tracing = Feed(tokens(3)), Lab(), [], sys.gettrace()
    striking = Striking(moment)
    try:
        sys.settrace(striking)
        trio.run(play, case, feed, lab, seen, clock=MockClock(autojump_threshold=0))
    except BaseException as error:
        assert list(map(type, leaves(error))) == [KeyboardInterrupt]
    finally:
        sys.settrace(tracing)
    if not seen:
        return striking.where, 0
    report = seen[0].report
    changed = sum(each.made - each.used for each in report.remade)
    became = len(seen) - 1 + report.failed + report.dropped + report.discarded
    return striking.where, (report.taken + changed - became, report.discarded - len(lab.discarded))


def leaves(error):
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in leaves(part)]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # that of a call that was struck before it began
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_lost_wherever_ctrl_c_strikes(case, interrupts):
    wrong = {}
    for moment in count(1, STRIDE):
        where, books = struck(case, moment)
        if where is None:
            break
        if books not in (0, (0, 0)):
            wrong[where] = books

    assert wrong == {}


class Entered:
    """A context manager that holds a nursery open, or nothing; counts how often it was entered and left."""

    def __init__(self):
        self.entered = self.left = 0

    def __enter__(self):
        self.entered += 1

    def __exit__(self, *_error):
        self.left += 1

    @asynccontextmanager
    async def slowly(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            self.entered += 1
            try:
                yield
            finally:
                self.left += 1
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)


async def with_resource(_resource, item):
    await trio.lowlevel.checkpoint()
    return item


WITH_RESOURCES = {
    "a source": lambda open_: Pipeline.using(open_, lambda _: range(2)),
    "a step": lambda open_: Pipeline.from_iterable(range(2)).map(Step(with_resource).using(open_)),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where Python closes a generator
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", WITH_RESOURCES)
def test_what_was_entered_is_left_once_wherever_ctrl_c_strikes(name, kind, interrupts):
    wrong = {}
    for moment in count(1):
        resource, striking, tracing = Entered(), Striking(moment), sys.gettrace()
        plan = WITH_RESOURCES[name](lambda: resource if kind == "sync" else resource.slowly())  # noqa: B023  # at once
        try:
            sys.settrace(striking)
            trio.run(plan.run, clock=MockClock(autojump_threshold=0))
        except BaseException as error:
            assert list(map(type, leaves(error))) == [KeyboardInterrupt]
        finally:
            sys.settrace(tracing)
        if striking.where is None:
            break
        if resource.left != resource.entered:
            wrong[striking.where] = resource.entered, resource.left

    assert wrong == {}


def test_there_are_moments_to_strike(interrupts):
    """Else nothing is tested above."""
    case = next(case for case in CASES if case.name == "flat_map: sync")

    assert struck(case, 10)[0] is not None
