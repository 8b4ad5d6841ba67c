"""Follow a sensor that is faster than its gauge and its archive, while settings are edited.

    overload.py                                   # for five seconds, then the reports
    overload.py --seconds 60 --rate 20000         # readings per second
    overload.py --settings gauge.txt              # a file to edit while this runs; its first word is the limit

The sensor and the archive are stand-ins, which this program starts on this machine; both are real sockets. The archive
allows a fixed number of calls in any second, and counts them itself. Neither it nor the gauge can keep up with the
sensor, and each of the three pipelines below (`gauge`, `archive`, `settings`) says in its plan what it does about that:

  gauge     shows the latest reading and drops what it is too slow for; a silent sensor is a failure
  archive   sends batches at the pace that the archive allows, and drops the oldest of those that cannot wait
  settings  loads the file when it has been quiet for a moment, not at each write of one save

At the end, or when Ctrl-C stops it, it prints what happened to every reading.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from funcpipe_trio import Pipeline, RateLimit, Report, Run

SILENCE = 5.0  # seconds without a reading after which the sensor counts as dead
QUIET = 0.25  # seconds without a write after which a file counts as saved
PACE = RateLimit(4)  # calls to the archive
# A call counts there when it arrives. The calls that arrive in a second are those that start in it, at most
# burst + rate, and the one already on its way.
CONTRACT = PACE.burst + 4 + 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensor measured."""

    number: int
    value: float


# ---- the plans


def gauge(readings: Pipeline[Reading], show: Callable[[Reading], Awaitable[None]]) -> Pipeline[None]:
    """Show the latest reading: one waits, and a newer one takes its place."""
    return readings.idle_timeout(SILENCE).buffer(1, overflow="drop_oldest").map(show, name="show")


def archive(readings: Pipeline[Reading], send: Callable[[list[Reading]], Awaitable[None]]) -> Pipeline[None]:
    """Send batches at the pace of the archive: four wait, and a newer one takes the place of the oldest."""
    batches = readings.batch(500, max_delay=0.5).buffer(4, overflow="drop_oldest")
    return batches.throttle(PACE, name="pace").buffer(1).map(send, name="send")


def settings(writes: Pipeline[float], load: Callable[[float], Awaitable[None]]) -> Pipeline[None]:
    """Load a file that was written, once it is no longer being written."""
    return writes.debounce(QUIET, name="quiet").map(load, name="load")


# ---- the sensor, which never waits


@dataclass
class Sensor:
    """Sends `rate` readings per second to each client that connects."""

    rate: int

    async def serve(self, stream: trio.SocketStream) -> None:
        """Send forever: a hundred times a second, everything measured since."""
        chance, number, began = Random(1), 0, trio.current_time()
        try:
            while True:
                due = int((trio.current_time() - began) * self.rate)
                lines = [f"{n} {chance.gauss(20, 5):.2f}\n" for n in range(number, due)]
                await stream.send_all("".join(lines).encode())
                number = due
                await trio.sleep(0.01)
        except trio.BrokenResourceError:
            pass  # the reader has left


async def lines_of(port: int, channel: trio.MemorySendChannel[list[bytes]]) -> None:
    """Connect to the sensor, and read all lines that have arrived at a time."""
    async with channel, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        rest = b""
        async for received in stream:
            *lines, rest = (rest + received).split(b"\n")
            await channel.send(lines)


def parsed(lines: list[bytes]) -> Iterator[Reading]:
    """Make readings of lines."""
    for line in lines:
        number, value = line.split()
        yield Reading(int(number), float(value))


# ---- the archive, which counts


@dataclass
class Archive:
    """Accepts batches, one line each, and counts the calls."""

    calls: int = 0
    readings: int = 0
    most: int = 0
    """Calls in the busiest second."""
    _recent: deque[float] = field(default_factory=deque)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer each line."""
        rest = b""
        async for received in stream:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._count(len(json.loads(line)))
                await stream.send_all(b"ok\n")

    def _count(self, readings: int) -> None:
        now = time.monotonic()
        self._recent.append(now)
        while self._recent[0] <= now - 1:
            self._recent.popleft()
        self.calls += 1
        self.readings += readings
        self.most = max(self.most, len(self._recent))


async def send_to(stream: trio.SocketStream, batch: list[Reading]) -> None:
    """Send a batch to the archive, and wait for its answer."""
    line = json.dumps([[reading.number, reading.value] for reading in batch])
    await stream.send_all(line.encode() + b"\n")
    if await stream.receive_some() != b"ok\n":
        raise ConnectionError("the archive did not accept a batch")


# ---- the settings, and the gauge


async def writes_to(path: trio.Path) -> AsyncIterator[float]:
    """Check a file twenty times a second, and yield when it was written."""
    before = written = 0
    while True:
        with suppress(FileNotFoundError):  # some editors put a new file in its place
            written = (await path.stat()).st_mtime_ns
        if written != before:
            before = written
            yield written / 1e9
        await trio.sleep(0.05)


async def edit(path: trio.Path) -> None:
    """Save the settings as editors do: empty the file, write a part, write everything."""
    for limit in range(25, 1000):
        for text in ("", "# limit", f"{limit}\n# above it the gauge shows an alarm\n"):
            await path.write_text(text)
            await trio.sleep(0.03)
        await trio.sleep(1)


@dataclass
class Gauge:
    """A line of the terminal; drawing takes longer than a reading."""

    limit: float = 30.0
    drawn: int = 0
    loaded: int = 0

    async def show(self, reading: Reading) -> None:
        """Draw one reading."""
        self.drawn += 1
        if sys.stdout.isatty():
            bar, alarm = "#" * int(reading.value), "ALARM" if reading.value > self.limit else ""
            print(f"\r{reading.value:6.2f} of {self.limit:g} {bar:40} {alarm:5}", end="", flush=True)
        await trio.sleep(0.05)

    async def load(self, path: trio.Path, _written: float) -> None:
        """Read the limit from the file; a file without one changes nothing."""
        try:
            self.limit = float((await path.read_text()).split()[0])
            self.loaded += 1
        except (OSError, ValueError, IndexError):
            print(f"{shown(path)}: the first word must be a number", file=sys.stderr)


# ---- all of it


async def follow(seconds: float, rate: int, given: Path | None) -> int:
    """Follow the sensor, and print what happened to its readings, even if interrupted; return the exit status."""
    store, display, runs, status = Archive(), Gauge(), dict[str, Run[None]](), 0
    with tempfile.TemporaryDirectory() as folder:
        path = trio.Path(given or f"{folder}/gauge.txt")
        if given is None:
            await path.write_text("30\n")
        try:
            async with trio.open_nursery() as servers:
                sensor_port, store_port = [await port_of(servers, each.serve) for each in (Sensor(rate), store)]
                if given is None:
                    servers.start_soon(edit, path)
                async with await trio.open_tcp_stream("127.0.0.1", store_port) as stream:
                    plans = plans_of(sensor_port, stream, path, display)
                    await run_for(seconds, plans, runs)
                servers.cancel_scope.cancel()
        except* KeyboardInterrupt:  # nurseries wrap it in a group
            done = f"{display.drawn:,} readings shown, {store.readings:,} sent, settings loaded {display.loaded} times"
            status = complain(f"interrupted: {done}", 130)
    tell({name: run.report for name, run in runs.items()}, display, store)
    return status


def plans_of(port: int, stream: trio.SocketStream, path: trio.Path, display: Gauge) -> dict[str, Pipeline[None]]:
    """Build the three plans, and show them."""
    readings = Pipeline.from_producer(partial(lines_of, port), name="sensor").flat_map(parsed)
    writes = Pipeline.from_async_iterable(partial(writes_to, path), name="writes")
    plans = {
        "gauge": gauge(readings, display.show),
        "archive": archive(readings, partial(send_to, stream)),
        "settings": settings(writes, partial(display.load, path)),
    }
    for name, plan in plans.items():
        print(f"{name}: {plan.describe()}\n", flush=True)
    return plans


async def run_for(seconds: float, plans: dict[str, Pipeline[None]], runs: dict[str, Run[None]]) -> None:
    """Run plans side by side for a time, then let each finish what it has taken; `runs` gets each run as it starts."""
    async with trio.open_nursery() as nursery:
        for name, plan in plans.items():
            runs[name] = await nursery.start(plan.run)
        await trio.sleep(seconds)
        for run in runs.values():
            run.drain_nowait()


async def port_of(nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
    """Start a server on a free port of this machine."""
    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return int(listener.socket.getsockname()[1])


def tell(reports: dict[str, Report], display: Gauge, store: Archive) -> None:
    """Show the reports, and one line for each about what happened to its input."""
    print()
    for name, report in reports.items():
        print(f"\n{name}: {report.describe()}")
    if len(reports) < 3:  # interrupted before all had begun
        return
    shown, sent, loaded = reports["gauge"], reports["archive"], reports["settings"]
    (waiting,) = (link for link in sent.links if link.behind == "batch")
    print(f"\ngauge: {shown.stages[0].created} readings arrived, {display.drawn} shown, {shown.dropped} dropped")
    batches = f"{store.readings} sent in {store.calls} batches, {waiting.dropped} batches dropped"
    print(f"archive: {sent.stages[0].created} readings arrived, {batches}")
    print(f"settings: {loaded.taken} writes seen, {display.loaded} loaded, {loaded.dropped} superseded")
    print(f"the archive counted at most {store.most} calls in a second; it allows {CONTRACT}")


# ---- the command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    made = parser()
    given = made.parse_args(arguments)
    if not (0 < given.seconds < 10**6 and 0 < given.rate <= 10**6):
        made.error("--seconds and --rate must be above 0 and at most a million")
    if given.settings is not None and not given.settings.is_file():
        made.error(f"--settings must be a file: {shown(given.settings)}")
    run = partial(follow, given.seconds, given.rate, given.settings)
    return trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)  # elsewhere Ctrl-C could break a server


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"overload: {message}", file=sys.stderr)
    return status


def shown(path: Path | trio.Path) -> str:
    """Make a path printable: its name may contain any bytes, including escape codes."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    about = "Follow a sensor that is too fast."
    made = argparse.ArgumentParser(prog="overload.py", allow_abbrev=False, description=about)
    made.add_argument("--seconds", type=float, default=5.0, help="how long (default: %(default)g)")
    made.add_argument("--rate", type=int, default=5000, help="readings per second (default: %(default)s)")
    made.add_argument("--settings", type=Path, metavar="FILE", help="a file whose first word is the limit")
    return made


if __name__ == "__main__":
    program.run(main)
