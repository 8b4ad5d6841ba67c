"""Operations of one's own in a recording: does the run go on as without it, and is what is simulated that run?

Mutants that die here: a method that is None, or no method, and is called; what `held` yields, read before the run asks;
a played `due` that says a time that is over after a `tick`; a generator function that fails, forgotten; values that a
generator gives while a task of its own waits for an item, forgotten.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from funcpipe_trio import Pipeline, Recorder, simulate
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, read_ahead


async def in_turns():
    """Three at short distances, then none for a while."""
    for item in range(12):
        await trio.sleep(0.125 if item % 4 else 1)
        yield item


class Delaying:
    """Gives each item half a second later."""

    def __init__(self):
        self.kept = []

    def push(self, item):
        self.kept.append((trio.current_time() + 0.5, item))
        return ()

    def flush(self):
        return [item for _, item in self.kept]

    def held(self):
        return [item for _, item in self.kept]

    def due(self):
        return self.kept[0][0] if self.kept else None

    def tick(self, now):
        while self.kept and self.kept[0][0] <= now:
            yield self.kept.pop(0)[1]


class Keeping(Delaying):
    """Takes two methods back."""

    due = tick = None


class Silent(Keeping):
    flush = None


class Yielding(Keeping):
    """Gives what it holds by a generator."""

    def held(self):
        yield from super().held()


class Wrong(Keeping):
    def held(self):
        return None


class NoMethod:
    push = 3


def fails(items):
    raise Boom


def line(kind: str, own: Any, capacity: int = 1) -> Pipeline[Any]:
    source = Pipeline.from_async_iterable(in_turns).buffer(2)
    made = source.stateful(own, holds=12) if kind == "stateful" else source.through(own, holds=3)
    return made.buffer(capacity, name="out")


def play(plan: Pipeline[Any], *, leave: bool = False, **how: Any) -> Any:
    """Return what came out when, what was discarded, and the report; `leave` before the last items came."""

    async def main():
        log, discarded = [], []
        async with plan.open(on_discard=lambda item, *_: discarded.append(item), **how) as run:
            try:
                async for item in run:
                    log.append((trio.current_time(), item))
                    await trio.sleep(0.375)
                    if leave and trio.current_time() > 1.5:
                        break
            except Exception as error:
                log.append((trio.current_time(), type(error), str(error)))
        return log, discarded, run.report

    return run_virtual(main)


def numbers(report: Any) -> tuple[Any, ...]:
    return (
        *(report.outcome, report.taken, report.delivered, report.failed, report.discarded),
        type(report.error).__name__,
    )


STATES = [Delaying, lambda: Delaying(), Keeping, Silent, Yielding, Wrong, lambda: NoMethod()]
CASES = [*(("stateful", make) for make in STATES), *(("through", fn) for fn in (read_ahead, fails, lambda items: 3))]


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize(("kind", "own"), CASES)
def test_a_run_goes_on_as_without_a_recorder(kind, own, leave):
    plan = line(kind, own)

    assert play(plan, leave=leave, record=Recorder())[:2] == play(plan, leave=leave)[:2]


@pytest.mark.parametrize(("kind", "own"), [case for case in CASES if case[1] not in STATES[-2:]])
def test_a_simulation_is_the_run_that_was_recorded(kind, own):
    recorder = Recorder()
    _, _, report = play(line(kind, own), record=recorder)

    assert numbers(simulate(line(kind, own), recorder.recording)) == numbers(report)


@pytest.mark.parametrize("capacity", [1, 2, 8])
def test_one_that_is_called_in_time_where_it_was_late_does_not_fail(capacity):
    async def in_eights():
        for item in range(40):
            await trio.sleep(0.125 if item % 10 < 8 else 1)
            yield item

    async def slowly(item):
        await trio.sleep(0.3125)
        return item

    def plan(capacity):
        line = Pipeline.from_async_iterable(in_eights).buffer(2).stateful(Delaying, holds=40)
        return line.buffer(capacity, name="out").map(slowly)

    recorder = Recorder()
    play(plan(1), record=recorder)

    said = simulate(plan(capacity), recorder.recording)

    assert (said.outcome, said.error, said.taken) == ("completed", None, 40)
