"""Serve the lines of several tenants over TCP, while one of them floods the server: plainly first, then fairly.

    noisy_tenant.py                                      # three tenants, one of whom is noisy; both ways, a second each
    noisy_tenant.py --way fair --seconds 5 --noisy 100   # one way only, with 100 connections of the noisy one
    noisy_tenant.py --weight small=3 --weight tiny=1/2

A client sends a line, ``tenant text``, and waits for the answer; a few workers make the answers. In one queue for all
everyone waits behind the noisy tenant's lines. With `fair_by` each tenant has a short queue of its own, and the workers
take from them by weight: the others wait for a worker, and no longer. A line that its tenant's queue has no room for
gets ``429 too many requests`` at once, so the noisy tenant holds up nobody, and no line of it waits long either. Who
sends a line without end is hung up on.

The server is real, on a port of this machine; its clients are tasks of the same program. The plan is the function
`plan`, which takes its jobs as a pipeline, so its test runs it in virtual time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from statistics import median

import trio

from funcpipe_trio import Failure, FairShare, OnError, Pipeline, Report

WORKERS = 2
WORK = 0.01  # seconds for a line
PAUSE = 0.02  # seconds between two lines of a quiet client, and after a refusal
ROOM = 16  # lines of one tenant that may wait
TENANTS = 100  # that may have lines here at once
LONGEST = 1000  # bytes of a line

Weights = Mapping[str, int | Fraction]


@dataclass(eq=False, slots=True)
class Job:
    """A line that wants an answer."""

    tenant: str
    text: str
    arrived: float
    answer: str = ""
    is_answered: trio.Event = field(default_factory=trio.Event)

    def finish(self, answer: str) -> None:
        """Give the answer to whoever waits for it."""
        self.answer = answer
        self.is_answered.set()


@dataclass(slots=True)
class Account:
    """What became of the lines of one tenant."""

    done: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from the arrival of a line to the worker that took it up."""


# The plan: all of it


def plan(
    jobs: Pipeline[Job], work: Callable[[Job], Awaitable[object]], weights: Weights, *, is_fair: bool
) -> Pipeline[object]:
    """Describe what becomes of jobs; nothing happens yet."""
    share = FairShare(weights, capacity=ROOM)
    queued = (
        jobs.fair_by(tenant, share, max_keys=TENANTS, overflow=OnError.divert(refuse))
        if is_fair
        else jobs.buffer(ROOM * TENANTS)
    )
    return queued.map(work, concurrency=WORKERS, ordered=False)


def tenant(job: Job) -> str:
    """Tell whose job it is."""
    return job.tenant


async def refuse(failure: Failure[Job]) -> None:
    """Answer a job whose tenant has too many already."""
    failure.item.finish("429 too many requests")
    await trio.lowlevel.checkpoint()


class Service:
    """The workers' work, and who had to wait for it how long."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    async def work(self, job: Job) -> None:
        """Make the answer."""
        self.account(job.tenant).waits.append(trio.current_time() - job.arrived)
        await trio.sleep(WORK)
        job.finish(f"200 {job.text.upper()}")

    def account(self, tenant: str) -> Account:
        """Give the account of a tenant."""
        return self.accounts.setdefault(tenant, Account())


# The server


@dataclass(slots=True)
class Intake:
    """Where connections become jobs: a producer for `Pipeline.from_producer`."""

    listeners: list[trio.SocketListener]
    is_closing: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, jobs: trio.MemorySendChannel[Job]) -> None:
        """Take connections until it is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, partial(self._talk, jobs), self.listeners)
            await self.is_closing.wait()
            nursery.cancel_scope.cancel()

    async def _talk(self, jobs: trio.MemorySendChannel[Job], stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a client that has gone wants no answer
            async with stream:
                async for line in lines(stream):
                    name, _, text = line.partition(" ")
                    job = Job(name, text, trio.current_time())
                    await jobs.send(job)
                    await job.is_answered.wait()
                    await stream.send_all(f"{job.answer}\n".encode())


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """Give the lines that a stream holds, up to one that is too long; what has no end is no line."""
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if len(line) > LONGEST:
                return
            yield line.decode(errors="replace")
        if len(rest) > LONGEST:  # it would be kept for as long as it goes on
            return


# The clients


async def client(name: str, port: int, until: float, service: Service, *, is_noisy: bool) -> None:
    """Send lines, one at a time, until the time is over; a noisy one makes no pause unless it is refused."""
    account = service.account(name)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answers = lines(stream)
        while trio.current_time() < until:
            await stream.send_all(f"{name} hello\n".encode())
            is_refused = (await anext(answers)).startswith("429")
            account.refused += is_refused
            account.done += not is_refused
            if is_refused or not is_noisy:
                await trio.sleep(PAUSE)


async def clients(port: int, seconds: float, noisy: int, service: Service) -> None:
    """Let a noisy tenant come with many connections, and two others with one each."""
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for name, connections in (("noisy", noisy), ("small", 1), ("tiny", 1)):
            service.account(name)
            for _ in range(connections):
                start = partial(client, name, port, until, service, is_noisy=name == "noisy")
                nursery.start_soon(start)


# The run


async def serve(is_fair: bool, seconds: float, noisy: int, weights: Weights) -> tuple[Report, Service]:
    """Serve the clients until they have gone, and tell what became of them."""
    service = Service()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    intake = Intake(listeners)
    pipeline = plan(Pipeline.from_producer(intake, name="intake"), service.work, weights, is_fair=is_fair)
    print(pipeline.describe(), end="\n\n", flush=True)
    async with trio.open_nursery() as nursery:
        run = await nursery.start(pipeline.run)
        await clients(listeners[0].socket.getsockname()[1], seconds, noisy, service)
        intake.is_closing.set()
    return run.report, service


def table(accounts: Mapping[str, Account]) -> str:
    """Show what became of each tenant's lines."""
    rows = [f"{'tenant':10}{'answered':>10}{'refused':>10}{'median wait':>14}{'worst wait':>14}"]
    for name, account in accounts.items():
        waits = account.waits or [0.0]
        shown = (f"{1000 * wait:.1f} ms" for wait in (median(waits), max(waits)))
        rows.append(
            f"{printable(name):10}{account.done:>10,}{account.refused:>10,}" + "".join(f"{wait:>14}" for wait in shown)
        )
    return "\n".join(rows)


def printable(name: str) -> str:
    """Give a name as a terminal can show it: it came over the net, and may hold escape codes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; give its exit status."""
    options = parser().parse_args(argv)
    status = 0
    try:
        for way in ("plain", "fair") if options.way == "both" else (options.way,):
            print(f"{way}: {'a queue for each tenant' if way == 'fair' else 'one queue for all'}")
            report, service = trio.run(serve, way == "fair", options.seconds, options.noisy, dict(options.weight))
            print(report.describe(), table(service.accounts), sep="\n\n", end="\n\n", flush=True)
    except* KeyboardInterrupt:
        status = complain("interrupted", 130)
    except* OSError as failed:
        status = complain(f"the server cannot be reached: {failed.exceptions[0]}", 1)
    return status


def complain(message: str, status: int) -> int:
    """Say in a line what is wrong; give the exit status back."""
    print(f"noisy_tenant: {printable(message)}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="noisy_tenant.py", allow_abbrev=False, description="Serve several tenants, one of whom is noisy."
    )
    made.add_argument("--way", choices=("both", "plain", "fair"), default="both", help="(default: %(default)s)")
    made.add_argument("--seconds", type=positive, default=1.0, help="of each way (default: %(default)s)")
    made.add_argument(
        "--noisy", type=connections, default=40, metavar="N", help="connections of the noisy tenant (default: 40)"
    )
    weight = "how much a tenant gets while others want it, too: an int or a fraction such as 1/3, else 1"
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
    with suppress(ValueError, ZeroDivisionError):
        if name and equals and "." not in weight and (share := Fraction(weight)) > 0:
            return name, share
    raise argparse.ArgumentTypeError(f"must be TENANT=WEIGHT, an int or a fraction above 0 such as 1/3, not {text!r}")


if __name__ == "__main__":
    sys.exit(main())
