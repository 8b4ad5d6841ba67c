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
from itertools import count

import pytest
import trio
from trio.testing import MockClock

import funcpipe_trio._runtime
from funcpipe_trio.testing import Lab

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
    for moment in count(1):
        where, books = struck(case, moment)
        if where is None:
            break
        if books not in (0, (0, 0)):
            wrong[where] = books

    assert wrong == {}


def test_there_are_moments_to_strike(interrupts):
    """Else nothing is tested above."""
    case = next(case for case in CASES if case.name == "flat_map: sync")

    assert struck(case, 10)[0] is not None
