"""Where do seeds come from? From the operating system; under a clock other than trio's own, they are counted.

A program that sets its own clock wants the same trace each time. There, the runs and started steps that ask for a seed
are numbered from 0, in the order in which they ask: each differs from the others, and is the same when the program is
run again.
"""

from __future__ import annotations

from random import SystemRandom

import trio

from .parking import is_real

_asked: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("funcpipe_trio seeds", 0)


def draw_seed() -> int:
    """Return a new seed; to be called inside of trio."""
    if is_real(trio.lowlevel.current_clock()):
        return SystemRandom().getrandbits(64)
    number = _asked.get()
    _asked.set(number + 1)
    return number
