"""Is anything ever lost, in real time and with threads, while everything that can go wrong does?

The command: ``python -m benchmarks soak [--minutes M] [--quick] [--seed N]``. It measures no speed. Rounds of random
pipelines run side by side in one trio run; functions and sources fail, and runs are cancelled, aborted, drained and
left at random. After each run its books must add up (see `_chaos`); after each round nothing may be left: no task, no
thread of the pool. Memory after the first fifth of the time is compared with memory at the end.

Real time is not repeatable; a seed repeats the pipeline, its pauses and failures, and what is done to the run.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from funcpipe_trio import Aborted, Pipeline, Report, Run

from ._chaos import Books, InjectedError, Maker

__all__ = ["LostError", "Soak", "main", "soak"]

MINUTES, QUICK_MINUTES = 1.0, 5 / 60
SIDE_BY_SIDE = 24
"""Number of runs at once."""
THREADS = 8
PATIENCE = 60.0
"""Seconds after which a run counts as stuck; none has more than a few seconds of work."""
WARM_UP = 0.2
"""Fraction of the time after which memory must be flat."""
GROWTH = 20_000
"""Blocks of memory (about 2 MB) that caches and chance may add."""
PAGE = 4096

DISTURBANCES = ("nothing", "nothing", "cancel", "abort", "drain", "drain with grace", "drain at once")
CONSUMERS = ("take all", "take all", "leave", "raise", "sink")


class LostError(Exception):
    """Something was lost, or left behind; `seed` is that of the run, or of the first run of the round."""

    def __init__(self, message: str, seed: int) -> None:
        super().__init__(message)
        self.seed = seed


class _LeaveError(Exception):
    """Raised by a consumer to leave its block."""


@dataclass(slots=True)
class Soak:
    """What a soak did."""

    outcomes: Counter[str] = field(default_factory=Counter)
    disturbed: Counter[str] = field(default_factory=Counter)
    items: int = 0
    delivered: int = 0
    dropped: int = 0
    discarded: int = 0
    failures: int = 0
    thread_calls: int = 0
    threads: int = 0
    """The most operating system threads that worked for one round."""
    longest_exit: float = 0.0
    """The most seconds from a cancellation, an abort or a consumer leaving to the end of the block."""
    blocks: tuple[int, int] = (0, 0)
    """Blocks of memory in use, after the warm-up and at the end."""
    resident: tuple[float, float] = (0.0, 0.0)
    """Resident memory in MiB, at the same times; 0 if the system does not report it."""

    def add(self, play: _Play) -> None:
        """Count one run."""
        books = play.books
        self.outcomes[play.report.outcome if play.report is not None else "not opened"] += 1
        self.disturbed[f"{play.disturbance}, {play.consumer}"] += 1
        self.items += len(books.produced)
        self.delivered += len(books.delivered)
        self.dropped += len(books.dropped)
        self.discarded += len(books.heard)
        self.failures += len(books.failures)
        self.thread_calls += books.thread_calls
        self.longest_exit = max(self.longest_exit, play.exit)

    def lines(self) -> list[str]:
        """Format it for people."""
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.most_common())
        start, end = self.blocks
        return [
            f"runs          {self.outcomes.total()}: {outcomes}",
            f"ways to end   {len(self.disturbed)}",
            f"items         {self.items}: {self.delivered} delivered, {self.dropped} dropped; none lost",
            f"discards      {self.discarded}",
            f"failures      {self.failures} injected",
            f"threads       {self.threads} at most, {self.thread_calls} calls; none left",
            f"longest exit  {self.longest_exit * 1000:.1f} ms",
            f"memory        {start} blocks after the warm-up, {end} at the end ({end - start:+d}); "
            f"resident {self.resident[0]:.1f} and {self.resident[1]:.1f} MiB",
        ]


class _Play:
    """One run of one random pipeline, and what is done to it."""

    def __init__(self, seed: int, threads: trio.CapacityLimiter) -> None:
        chance = random.Random(f"end of {seed}")
        self.seed = seed
        self.books = Books()
        self.pipeline: Pipeline[Any] = Maker(seed, self.books, threads).pipeline()
        self.disturbance = chance.choice(DISTURBANCES)
        self.consumer = chance.choice(CONSUMERS)
        self.report: Report | None = None
        self.exit = 0.0
        self._at = chance.choice((0.0, 0.0, 0.001, 0.005, 0.02, 0.1))
        self._grace = chance.choice((0.0, 0.002, 0.05))
        self._after = chance.choice((0, 1, 5, 20))
        self._slow = chance.choice((0.0, 0.0, 0.001, 0.003))
        self._receivers = chance.choice((1, 1, 3))
        self._ended_at: float | None = None
        self._errors: list[BaseException] = []

    async def run(self) -> None:
        """Run it; keep the errors it raised."""
        with trio.move_on_after(PATIENCE) as patience:
            try:
                await (self._sink() if self.consumer == "sink" else self._block())
            except BaseExceptionGroup as group:
                self._met(group)
            except Exception as error:
                self._met(error)
        if self._ended_at is not None:
            self.exit = trio.current_time() - self._ended_at
        if patience.cancelled_caught:
            self._errors.append(TimeoutError(f"not finished after {PATIENCE:g} s"))

    def problems(self) -> list[str]:
        """Return everything that is wrong."""
        found = ["".join(traceback.format_exception(error)) for error in self._errors]
        found += self.books.problems(self.report)
        ended_well = self.disturbance in ("nothing", "drain", "drain at once") and not self.books.failures
        if ended_well:  # only items that were not needed may be discarded
            given_up = Counter(reason for _, _, reason in self.books.heard if reason != "not needed")
            found += [f"{number} items were discarded, reason {reason!r}" for reason, number in given_up.items()]
        return found

    def _met(self, error: BaseException) -> None:
        """Keep an error unless this play explains it."""
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                self._met(inner)
            return
        if isinstance(error, InjectedError):
            explained = error in self.books.errors
        elif isinstance(error, Aborted):
            explained = self.disturbance in ("abort", "cancel", "drain with grace")
        else:
            explained = isinstance(error, _LeaveError)
        if not explained:
            self._errors.append(error)

    async def _sink(self) -> None:
        with trio.CancelScope() as outside:
            async with trio.open_nursery() as nursery:
                run = await nursery.start(self._drive)
                await self._disturb(run, outside)

    async def _drive(self, task_status: trio.TaskStatus[Run[Any]]) -> None:
        """Run it with a sink, whose report exists however it ends."""
        watched, status = self.pipeline.tap(self.books.deliver), _Status(task_status)
        try:
            await watched.run(on_discard=self.books.hear, task_status=status)
        except (InjectedError, Aborted) as error:
            self._met(error)
        finally:
            self.report = status.run.report if status.run is not None else None

    async def _block(self) -> None:
        with trio.CancelScope() as outside:
            run: Run[Any] | None = None
            try:
                async with self.pipeline.open(on_discard=self.books.hear) as run, trio.open_nursery() as nursery:
                    nursery.start_soon(self._disturb, run, outside)
                    await self._receive_all(run)
                    nursery.cancel_scope.cancel()
            finally:
                self.report = None if run is None else run.report

    async def _receive_all(self, run: Run[Any]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._receivers):
                nursery.start_soon(self._receive, run, nursery.cancel_scope)

    async def _receive(self, run: Run[Any], everyone: trio.CancelScope) -> None:
        taken = 0
        try:
            async for value in run:
                self.books.deliver(value)
                taken += 1
                if self.consumer in ("leave", "raise") and taken > self._after:
                    self._note_end()
                    if self.consumer == "raise":
                        raise _LeaveError
                    everyone.cancel()
                if self._slow:
                    await trio.sleep(self._slow)
        except (InjectedError, Aborted) as error:  # each receiver gets it
            self._met(error)

    async def _disturb(self, run: Run[Any], outside: trio.CancelScope) -> None:
        if self.disturbance == "nothing":
            return
        await trio.sleep(self._at)
        if self.disturbance in ("cancel", "abort"):
            self._note_end()
            outside.cancel() if self.disturbance == "cancel" else run.abort()
        elif self.disturbance == "drain at once":
            run.drain_nowait()
        else:
            await run.drain(**({"grace": self._grace} if self.disturbance == "drain with grace" else {}))

    def _note_end(self) -> None:
        if self._ended_at is None:
            self._ended_at = trio.current_time()


class _Status(trio.TaskStatus[Any]):
    """Passes on the handle of a run, and keeps it."""

    def __init__(self, inner: trio.TaskStatus[Run[Any]]) -> None:
        self._inner = inner
        self.run: Run[Any] | None = None

    def started(self, value: Any = None) -> None:
        self.run = value
        self._inner.started(value)


async def soak(seconds: float, seed: int) -> Soak:
    """Run rounds until the time is over.

    Raises:
      LostError: at the first round in which something was lost.
    """
    done, threads = Soak(), trio.CapacityLimiter(THREADS)
    first, start = seed, time.monotonic()
    warm: tuple[int, float] | None = None
    tasks = trio.lowlevel.current_statistics().tasks_living
    while (elapsed := time.monotonic() - start) < seconds:
        if warm is None and elapsed >= WARM_UP * seconds:
            warm = _memory()
        seeds = range(seed, seed + SIDE_BY_SIDE)
        await _round(done, seeds, threads)
        left = trio.lowlevel.current_statistics().tasks_living - tasks
        if left or threads.borrowed_tokens:
            raise LostError(f"{left} tasks and {threads.borrowed_tokens} threads were left after {seeds}", seed)
        seed = seeds.stop
    at_end = _memory()
    done.blocks, done.resident = zip(warm or at_end, at_end, strict=True)  # type: ignore[assignment]  # pairs
    if done.blocks[1] - done.blocks[0] > GROWTH:
        raise LostError(f"memory must be flat, not grow from {done.blocks[0]} to {done.blocks[1]} blocks", first)
    return done


async def _round(done: Soak, seeds: range, threads: trio.CapacityLimiter) -> None:
    """Run some pipelines side by side, and check each when all have ended."""
    plays = [_Play(seed, threads) for seed in seeds]
    async with trio.open_nursery() as nursery:
        for play in plays:
            nursery.start_soon(play.run)
    done.threads = max(done.threads, len(set[int]().union(*(play.books.threads for play in plays))))
    for play in plays:
        done.add(play)
        if problems := play.problems():
            told = [f"run {play.seed} ({play.disturbance}, {play.consumer}):", *problems, play.pipeline.describe()]
            raise LostError("\n".join(told), play.seed)


def _memory() -> tuple[int, float]:
    """Return the blocks of memory in use, and the resident MiB."""
    gc.collect()
    status = Path("/proc/self/statm")
    resident = int(status.read_text(encoding="ascii").split()[1]) * PAGE / 2**20 if status.exists() else 0.0
    return sys.getallocatedblocks(), resident


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 if nothing was lost, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, metavar="M", help=f"how long (default: {MINUTES:g})")
    parser.add_argument("--quick", action="store_true", help="5 seconds only")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first run; each later one adds 1")
    options = parser.parse_args(arguments)
    minutes = options.minutes if options.minutes is not None else QUICK_MINUTES if options.quick else MINUTES
    if not 0 < minutes < float("inf"):
        parser.error(f"--minutes must be > 0 and finite, not {minutes:g}")
    print(f"soak: {minutes * 60:g} s from seed {options.seed}, {SIDE_BY_SIDE} runs at once", flush=True)
    try:
        done = trio.run(soak, minutes * 60, options.seed)
    except LostError as lost:
        print(f"soak: {lost}\nTo try to reproduce it: --seed {lost.seed}", file=sys.stderr)
        return 1
    print("\n".join(f"  {line}" for line in done.lines()))
    return 0
