"""Serve the lines of several tenants over TCP, while one of them floods the server: plainly first, then fairly.

    noisy_tenant.py                                      # three tenants, one of them noisy; both ways, a second each
    noisy_tenant.py --way fair --seconds 5 --noisy 100   # one way only, with 100 connections of the noisy one
    noisy_tenant.py --weight small=3 --weight tiny=1/2

A client sends a line, ``tenant text``, and waits for the answer; a few workers make the answers. In one queue for all,
everyone waits behind the noisy tenant's lines. With `fair_by` each tenant has its own short queue, and the workers take
from the queues by weight: the others only wait for a worker. A line for which its tenant's queue has no room gets ``429
too many requests`` at once, so the noisy tenant holds up no other, and none of its own lines waits long either. The
server hangs up on a client that sends an endless line.

Fairness begins at these queues: on the way to them, lines of all connections are served first come, first served. With
some hundred busy connections (``--noisy 500``) that is where the others wait, so limit connections where you accept
them.

The server is real, on a port of this machine; its clients are tasks of the same program. The plan is the function
`plan`, which takes its jobs as a pipeline, so its test runs it in virtual time.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from statistics import median

import trio

from funcpipe_trio import Failure, FairShare, OnError, Pipeline

WORKERS = 2
WORK = 0.01  # seconds for a line
PAUSE = 0.02  # seconds between two lines of a quiet client, and after a refusal
ROOM = 16  # lines of one tenant that may wait
TENANTS = 100  # that may have lines here at once
LONGEST = 1000  # bytes of a line

WAYS = {
    "plain": "plain: one queue for all",
    "fair": "fair: a queue for each tenant; the way to it is first come, first served",
}

Weights = Mapping[str, int | Fraction]


@dataclass(eq=False, slots=True)
class Job:
    """A line that needs an answer."""

    tenant: str
    text: str
    arrived: float
    answer: str = ""
    is_answered: trio.Event = field(default_factory=trio.Event)

    def finish(self, answer: str) -> None:
        """Give the answer to the task that waits for it."""
        self.answer = answer
        self.is_answered.set()


@dataclass(slots=True)
class Account:
    """What happened to the lines of one tenant."""

    done: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from the arrival of a line to the worker that took it up."""


# The plan: all of it


def plan(
    jobs: Pipeline[Job], work: Callable[[Job], Awaitable[object]], weights: Weights, *, is_fair: bool
) -> Pipeline[object]:
    """Describe how jobs are processed; nothing happens yet."""
    share = FairShare(weights, capacity=ROOM)
    queued = (
        jobs.fair_by(tenant, share, max_keys=TENANTS, overflow=OnError.divert(refuse))
        if is_fair
        else jobs.buffer(ROOM * TENANTS)
    )
    return queued.map(work, concurrency=WORKERS, ordered=False)


def tenant(job: Job) -> str:
    """Return the tenant of a job."""
    return job.tenant


async def refuse(failure: Failure[Job]) -> None:
    """Answer a job whose tenant already has too many."""
    failure.item.finish("429 too many requests")
    await trio.lowlevel.checkpoint()


class Service:
    """What the workers do, and how long each tenant had to wait for it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    async def work(self, job: Job) -> None:
        """Make the answer."""
        self.account(job.tenant).waits.append(trio.current_time() - job.arrived)
        await trio.sleep(WORK)
        job.finish(f"200 {job.text.upper()}")

    def account(self, tenant: str) -> Account:
        """Return the account of a tenant."""
        return self.accounts.setdefault(tenant, Account())


# The server


@dataclass(slots=True)
class Intake:
    """Where connections become jobs: a producer for `Pipeline.from_producer`."""

    listeners: list[trio.SocketListener]
    is_closing: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, jobs: trio.MemorySendChannel[Job]) -> None:
        """Accept connections until it is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, partial(self._talk, jobs), self.listeners)
            await self.is_closing.wait()
            nursery.cancel_scope.cancel()

    async def _talk(self, jobs: trio.MemorySendChannel[Job], stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a client that has gone needs no answer
            async with stream, aclosing(lines(stream)) as received:
                async for line in received:
                    name, _, text = line.partition(" ")
                    job = Job(name, text, trio.current_time())
                    await jobs.send(job)
                    await job.is_answered.wait()
                    await stream.send_all(f"{job.answer}\n".encode())


async def lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    """Yield the complete lines of a stream, up to one that is too long."""
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if len(line) > LONGEST:
                return
            yield line.decode(errors="replace")
        if len(rest) > LONGEST:  # otherwise an endless line would be kept
            return


# The clients


async def client(name: str, port: int, until: float, service: Service, *, is_noisy: bool) -> None:
    """Send lines, one at a time, until the time is over; a noisy client pauses only when it is refused."""
    account = service.account(name)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, aclosing(lines(stream)) as answers:
        while trio.current_time() < until:
            await stream.send_all(f"{name} hello\n".encode())
            is_refused = (await anext(answers)).startswith("429")
            account.refused += is_refused
            account.done += not is_refused
            if is_refused or not is_noisy:
                await trio.sleep(PAUSE)


async def clients(port: int, seconds: float, noisy: int, service: Service) -> None:
    """Start a noisy tenant with many connections, and two others with one each."""
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for name, connections in (("noisy", noisy), ("small", 1), ("tiny", 1)):
            service.account(name)
            for _ in range(connections):
                start = partial(client, name, port, until, service, is_noisy=name == "noisy")
                nursery.start_soon(start)


# The run


async def serve(is_fair: bool, seconds: float, noisy: int, weights: Weights) -> int:
    """Serve the clients until they have gone, and print what happened; return the exit status."""
    service, status = Service(), 0
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    intake = Intake([listener])
    pipeline = plan(Pipeline.from_producer(intake, name="intake"), service.work, weights, is_fair=is_fair)
    print(pipeline.describe(), end="\n\n", flush=True)
    try:
        async with listener, trio.open_nursery() as nursery:
            run = await nursery.start(pipeline.run)
            await clients(listener.socket.getsockname()[1], seconds, noisy, service)
            intake.is_closing.set()
        print(run.report.describe(), end="\n\n")
    except* KeyboardInterrupt:
        status = complain(
            f"interrupted: {sum(account.done for account in service.accounts.values()):,} lines answered", 130
        )
    print(table(service.accounts), end="\n\n", flush=True)
    return status


def table(accounts: Mapping[str, Account]) -> str:
    """Format what happened to each tenant's lines."""
    rows = [f"{'tenant':10}{'answered':>10}{'refused':>10}{'median wait':>14}{'worst wait':>14}"]
    for name, account in accounts.items():
        waits = account.waits or [0.0]
        shown = (f"{1000 * wait:.1f} ms" for wait in (median(waits), max(waits)))
        rows.append(
            f"{printable(name):10}{account.done:>10,}{account.refused:>10,}" + "".join(f"{wait:>14}" for wait in shown)
        )
    return "\n".join(rows)


def printable(name: str) -> str:
    """Make a name printable: it came over the network, and may contain escape codes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    options = parser().parse_args(argv)
    for way in WAYS if options.way == "both" else (options.way,):
        print(WAYS[way])
        run = partial(serve, way == "fair", options.seconds, options.noisy, dict(options.weight))
        # Ctrl-C at any other place could break the server, which then would never end.
        if status := trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True):
            return status
    return 0


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"noisy_tenant: {printable(message)}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="noisy_tenant.py", allow_abbrev=False, description="Serve several tenants, one of which is noisy."
    )
    made.add_argument("--way", choices=("both", *WAYS), default="both", help="(default: %(default)s)")
    made.add_argument("--seconds", type=positive, default=1.0, help="for each way (default: %(default)s)")
    made.add_argument(
        "--noisy", type=connections, default=40, metavar="N", help="connections of the noisy tenant (default: 40)"
    )
    weight = "a tenant's share while others want it too: an int or a fraction such as 1/3 (default: 1)"
    made.add_argument("--weight", type=weight_of, action="append", default=[], metavar="TENANT=WEIGHT", help=weight)
    return made


def positive(text: str) -> float:
    """Read seconds."""
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return seconds


def connections(text: str) -> int:
    """Read a number of connections."""
    number = int(text)
    if not 1 <= number <= 500:
        raise argparse.ArgumentTypeError(f"must be 1 to 500, not {text!r}")
    return number


def weight_of(text: str) -> tuple[str, Fraction]:
    """Read a tenant's weight."""
    name, equals, weight = text.partition("=")
    with suppress(ZeroDivisionError):
        if name and equals and re.fullmatch(r"[0-9]{1,18}(/[0-9]{1,18})?", weight) and (share := Fraction(weight)):
            return name, share
    raise argparse.ArgumentTypeError(f"must be TENANT=WEIGHT, an int or a fraction above 0 such as 1/3, not {text!r}")


if __name__ == "__main__":
    program.run(main)
