"""Run a program: build its pipeline, drive it in virtual time under a seeded order of tasks, and say what was seen."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import trio
from trio.testing import MockClock

from funcpipe_trio import (
    Aborted,
    Pipeline,
)
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import stray_cancelled

from .build import Builder
from .items import LOOKED
from .program import Event, Op, Program, done_to, functions_of, is_endless, ops_of, sources_of
from .world import World

LIMIT = 1e5  # virtual seconds
STEPS = 60_000
SILENT = {"skip", "skip_while", "distinct", "debounce", "sample", "sliding", "pairwise"}
ONE_TO_ONE = {
    *("map", "filter", "tap", "scan", "enumerate", "take", "take_while", "buffer", "throttle", "delay", "timeout"),
    *("on_end", "idle_timeout", "debounce", "sample", "skip", "skip_while", "distinct", "fair_by", "partition"),
    *("take_until", "take_for"),
    "balance",
}
RESORT = 500.0  # when what is endless is cancelled in the end
REAL = 10.0  # seconds of real time

# ---- driving


async def _drive_open(world: World, plan: Pipeline[Any]) -> None:
    program = world.program
    ending = program.ending
    async with plan.open(on_discard=world.on_discard, cleanup_timeout=program.cleanup_timeout) as run:
        world.run = run
        try:
            if ending.readers == 1:
                await _read(world, 0)
            else:
                async with trio.open_nursery() as nursery:
                    for number in range(ending.readers):
                        nursery.start_soon(_read, world, number)
        finally:
            world.stop_read = trio.current_time()


class Left(Exception):
    """The consumer's own error."""


async def _read(world: World, number: int) -> None:
    ending = world.program.ending
    world.waiting += 1
    try:
        end = await (_loop if ending.loop else _ask)(world)
    except trio.EndOfChannel:
        end = "end"
    except Exception as error:
        end = "error"
        world.caller_error = error
        world.finished = True
    world.consuming.append(end)
    world.finished = world.finished or end != "end" or ending.readers == 1
    if end != "left":
        await _again(world, end)
    elif ending.leave_by == "raise":
        world.kept.append(error := Left())
        raise error
    if end == "error" and ending.reraise and ending.readers == 1:
        assert world.caller_error is not None
        raise world.caller_error


async def _loop(world: World) -> str:
    ending, got = world.program.ending, 0
    assert world.run is not None
    try:
        async for value in world.run if ending.leave_after != 0 else _nothing():
            got += 1
            await _consumed(world, value, got)
            if got == ending.leave_after:
                break
    except trio.EndOfChannel:
        world.violate("P5 EndOfChannel out of async for", "")
    return "left" if got == ending.leave_after else "end"


async def _nothing() -> Any:
    for _ in ():
        yield


async def _ask(world: World) -> str:
    got = 0
    assert world.run is not None
    while got != world.program.ending.leave_after:
        value = await world.run.receive()
        got += 1
        await _consumed(world, value, got)
    return "left"


async def _consumed(world: World, value: Any, got: int) -> None:
    world.deliver(value)
    world.waiting -= 1
    program = world.program
    if world.told_bound is not None:
        _watch(world)
    for event in program.outside:
        if event.when == "got" and event.at == got:
            world.act(event.what, *event.args)
    seconds = program.ending.pauses[got % len(program.ending.pauses)]
    if seconds > 0:
        await trio.sleep(seconds)
    world.waiting += 1


async def _again(world: World, end: str) -> None:
    """Behind the end, and behind an error, each `receive` says the same again."""
    assert world.run is not None
    try:
        value = await world.run.receive()
        world.deliver(value)
        world.violate("receive behind the end", "gives an item")
    except trio.EndOfChannel:
        if end != "end":
            world.violate("receive behind an error", "EndOfChannel")
    except Aborted as error:
        if end == "end" and not world.stops and world.cancelled_at is None:
            world.violate("receive behind the end", "Aborted")
        if end == "error" and error is not world.caller_error and type(world.caller_error) is not Aborted:
            world.violate("receive behind an error", "Aborted")
    except Exception as error:
        if error is not world.caller_error:
            world.violate(f"receive behind {end}", type(error).__name__)


def _watch(world: World) -> None:
    assert world.run is not None
    seen = world.run.statistics()
    flight = seen.taken - seen.delivered - seen.failed - seen.dropped - seen.discarded
    if not 0 <= flight <= world.told_bound:
        world.violate("P4 bound by statistics", f"{flight} in flight, {world.told_bound} allowed")


async def _drive_started(world: World, plan: Pipeline[Any]) -> None:
    """`nursery.start(plan.run)`."""
    program = world.program

    async def drive(task_status: Any) -> None:
        how = {"on_discard": world.on_discard, "cleanup_timeout": program.cleanup_timeout}
        try:
            world.report = await plan.run(task_status=task_status, **how)
            world.consuming.append("end")
        except Exception as error:
            world.caller_error = error
            world.consuming.append("error")
        except trio.Cancelled:
            raise
        except BaseException as error:  # not in a group of this nursery's
            world.escaped = error
        finally:
            world.finished = True
            world.stop_read = trio.current_time()

    async with trio.open_nursery() as nursery:
        world.run = await nursery.start(drive)


async def _drive_call(world: World, plan: Pipeline[Any]) -> None:
    program, kind = world.program, world.program.ending.kind
    how: dict[str, Any] = {}
    if kind in ("run", "collect"):
        how = {"on_discard": world.on_discard, "cleanup_timeout": program.cleanup_timeout}
    try:
        if kind == "fold":
            world.result = await plan.fold(lambda state, value: (*state, value), ())
        else:
            world.result = await getattr(plan, kind)(**how)
        world.has_result = True
        world.consuming.append("end")
        if kind == "run":
            world.report = world.result
    except Exception as error:
        world.caller_error = error
        world.consuming.append("error")
    finally:
        world.finished = True
        world.stop_read = trio.current_time()


async def _event(world: World, event: Event, steps: _Steps) -> None:
    if event.when == "step":
        turn = trio.Event()
        steps.turns.setdefault(int(event.at), []).append(turn.set)
        await turn.wait()
    else:
        await trio.sleep_until(event.at)
    if event.what == "drain":
        if world.run is not None:
            world.stops.append((trio.current_time(), "grace" if event.args else "drain", world.finished))
            start = trio.current_time()
            try:
                await world.run.drain(*event.args)
            except Exception as error:
                world.violate("method raises", f"drain: {type(error).__name__}")
            world.drains.append((start, trio.current_time(), event.args[0] if event.args else None))
    else:
        world.act(event.what, *event.args)


async def _resume_now_and_then(world: World) -> None:
    """Nothing stays paused for ever."""
    while True:
        await trio.sleep(20)
        world.act("resume")


async def _main(world: World, steps: _Steps) -> None:
    program = world.program
    kinds = kinds_of_faults(program)
    if "cancelled" in kinds:
        world.strays = [await stray_cancelled() for _ in range(30)]
    builder = Builder(world)
    plan = builder.line(program.line)
    _set_bounds(world, plan)
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope(deadline=LIMIT) as guard:
        steps.guard = guard
        async with trio.open_nursery() as nursery:
            for sender in builder.senders:
                nursery.start_soon(sender)
            with trio.CancelScope() as world.outside:
                for event in program.outside:
                    if event.when == "step" and event.what == "cancel":
                        steps.turns.setdefault(int(event.at), []).append(lambda: world.act("cancel"))
                    elif event.when != "got":
                        nursery.start_soon(_event, world, event, steps)
                if any(what[0] == "pause" for what in done_to(program)):
                    nursery.start_soon(_resume_now_and_then, world)
                if is_endless(program):
                    nursery.start_soon(_last_resort, world)
                await _guarded(world, plan)
            world.exited = trio.current_time()
            await trio.lowlevel.cancel_shielded_checkpoint()
            nursery.cancel_scope.cancel()
    if guard.cancel_called:
        world.hang = world.hang or "never ends"
    elif (left := trio.lowlevel.current_statistics().tasks_living - before) > 0:
        world.violate("P7 tasks left", f"{left} tasks live on")


def _set_bounds(world: World, plan: Pipeline[Any]) -> None:
    """Hold the items in flight against the bound where both are known: what drops in silence is not."""
    program, bound = world.program, plan.max_in_flight
    kinds = {op.kind for op in ops_of(program.line)}
    bound += sum(what[2] for what in done_to(program) if what[0] == "set_concurrency")
    drops = [op for op in ops_of(program.line) if op.args.get("overflow", "block") != "block"]
    bound += len(drops)  # what is dropped is taken first, for an instant
    bound += sum(source.hold == "deadline" for source in sources_of(program.line))  # what it gives when that strikes
    if (
        program.ending.kind == "open"
        and not kinds & SILENT
        and not any(fails_in_silence(op) or op.args.get("how") == "zip_latest" for op in ops_of(program.line))
    ):
        world.bound = bound
    if program.watch and kinds <= ONE_TO_ONE:
        world.told_bound = bound


def fails_in_silence(op: Op) -> bool:
    """Whether items may fail without a word to user code."""
    by_policy = op.args.get("on_error", ("stop",))[0] in ("skip", "divert")
    unseen = any(layer[0] in ("timeout", "breaker", "rate") for layer in op.args.get("layers", ()))
    return (by_policy and unseen) or isinstance(op.args.get("overflow"), tuple)


async def _last_resort(world: World) -> None:
    await trio.sleep(RESORT)
    world.resorted = True
    world.act("cancel")


async def _guarded(world: World, plan: Pipeline[Any]) -> None:
    kind = world.program.ending.kind
    drive = {"open": _drive_open, "start": _drive_started}.get(kind, _drive_call)
    try:
        await drive(world, plan)
    except BaseException as error:  # judged by the oracle, also what cancels
        world.escaped = error
    finally:
        world.finished = True
        if world.run is not None:
            world.report = world.run.report


def kinds_of_faults(program: Program) -> set[str]:
    kinds = set(program.faults.values())
    for _, _, fn in functions_of(program.line):
        kinds.update(fault.kind for fault in fn.faults.values())
    for source in sources_of(program.line):
        kinds.update(source.fail.values())
    return kinds


class _Steps(trio.abc.Instrument):
    """Count steps: do something at one of them, and end what goes round for ever."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.turns: dict[int, list[Callable[[], Any]]] = {}
        self.guard: trio.CancelScope | None = None

    def after_task_step(self, task: Any) -> None:
        world = self.world
        world.steps += 1
        if world.steps in self.turns:
            for do in self.turns.pop(world.steps):
                do()
        if world.steps == STEPS and self.guard is not None:
            world.hang = "goes round for ever"
            self.guard.cancel()


class Stuck(BaseException):
    """It cannot even be cancelled."""


def _stuck(*_: Any) -> None:
    raise Stuck


@contextlib.contextmanager
def _real_limit() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _stuck)
    signal.setitimer(signal.ITIMER_REAL, REAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Log(logging.Handler):
    """Hear what is written to the log of the package in one run."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        self.world.logged.append(record)


@contextlib.contextmanager
def _heard(world: World) -> Iterator[None]:
    log, handler = logging.getLogger("funcpipe_trio"), _Log(world)
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


def execute(program: Program) -> World:
    """Run one program; every end of it is in what is returned."""
    world = World(program)
    steps = _Steps(world)
    LOOKED.clear()
    clock = MockClock(autojump_threshold=0)
    _break_out_of_shields(clock, world)
    with warnings.catch_warnings(), _real_limit(), _heard(world), scheduled(Schedule(program.schedule)):
        warnings.simplefilter("ignore")
        try:
            trio.run(_main, world, steps, clock=clock, instruments=[steps])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not any(r.error is error for r in world.raised):
                raise
            if world.hang is None and _is_stuck(error):
                world.hang = "cannot be cancelled"
            world.escaped = world.escaped or error
    if LOOKED:
        world.violate("P2 looked at an item", LOOKED[0])
    return world


def _is_stuck(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, Stuck) or _is_stuck(error.__cause__))


def _break_out_of_shields(clock: MockClock, world: World) -> None:
    """When the guard has cancelled and time still goes on and on, leave the loop by force."""
    ask: Any = clock.deadline_to_sleep_time

    def asked(deadline: float) -> float:
        if clock.current_time() > 2 * LIMIT:
            raise Stuck
        return float(ask(deadline))

    clock.deadline_to_sleep_time = asked  # type: ignore[method-assign]
