"""Sort the access log of a web server: each line goes to an archive, and to the report on its kind.

    fan_out.py                              # a generated log of 20,000 lines
    fan_out.py access.log other.log         # logs in the common format of web servers
    fan_out.py access.log --out sorted
    zcat old.log.gz | fan_out.py /dev/stdin         # any readable file, including a pipe

In the folder it writes the archive (``archive.log.gz``, every line), ``errors.txt`` (the lines of requests that the
server failed to answer, and how often for each path), ``traffic.txt`` (bytes by path, of the answered ones), and
``unreadable.txt`` (lines that are not requests).

It shows a plan with branches (`plan`, the first function below). `broadcast` sends each line to the archive and to the
sorting; `partition` sends each request to the branch for its status. All branches work at the same time, each at its
own pace. The archive branch compresses in a thread and is the slowest, so once its buffer is full it holds up the
reading of the log, but no other branch. If it is stopped, the files hold what was written until then.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import gzip
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from funcpipe_trio import Pipeline, Step, threads

FOLDER = "funcpipe_sorted_log"
CHUNK = 65536  # bytes that are read at once, and the longest line
T = TypeVar("T")
LINE = re.compile(r'\S+ \S+ \S+ \[[^\]]+\] "\S+ (?P<path>\S+)[^"]*" (?P<status>\d{3}) (?P<size>\d+|-)')


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a log; without a status it is not a request."""

    line: str
    path: str = ""
    status: int = 0
    size: int = 0

    @staticmethod
    def read(line: str) -> Request:
        """Parse a line."""
        found = LINE.match(line)
        if found is None:
            return Request(line)
        size = 0 if found["size"] == "-" else int(found["size"])
        return Request(line, found["path"], int(found["status"]), size)


class Writable(Protocol):
    """What the branches need from a file."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""


def plan(lines: Pipeline[str], archive: Writable, tally: Tally) -> Pipeline[object]:
    """Return the whole plan; after a run the counts are in `tally`."""
    pack = Step(partial(write_lines, archive), name="archive").on(threads(1))

    def archived(requests: Pipeline[Request]) -> Pipeline[object]:
        return requests.buffer(2000).map(lambda request: request.line, name="line").batch(500).map(pack)

    def sorted_by_kind(requests: Pipeline[Request]) -> Pipeline[object]:
        return requests.partition(
            kind,
            {
                "answered": lambda answered: answered.tap(tally.answered),
                "failed": lambda failed: failed.tap(tally.failed),
                "unreadable": lambda unreadable: unreadable.tap(tally.unreadable),
            },
        )

    return lines.map(Request.read, name="read").broadcast({"archive": archived, "sort": sorted_by_kind})


def kind(request: Request) -> str:
    """Return the name of the branch for a request."""
    if not request.status:
        return "unreadable"
    return "failed" if request.status >= 500 else "answered"


class Tally:
    """What the branches find; each is one task, so they need no lock."""

    def __init__(self, errors: Writable, strange: Writable) -> None:
        self._errors = errors
        self._strange = strange
        self.sizes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.count_answered = self.count_unreadable = 0

    def answered(self, request: Request) -> None:
        """Count the bytes of an answer."""
        self.count_answered += 1
        self.sizes[request.path] += request.size

    def failed(self, request: Request) -> None:
        """Record a request that the server failed to answer."""
        self.errors[request.path] += 1
        write_lines(self._errors, [request.line])

    def unreadable(self, request: Request) -> None:
        """Record a line that is not a request."""
        self.count_unreadable += 1
        write_lines(self._strange, [request.line])


def write_lines(file: Writable, lines: list[str]) -> int:
    """Write lines; return how many."""
    file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    return len(lines)


async def lines_of(logs: Sequence[Path]) -> AsyncIterator[str]:
    """Yield the lines of all logs, one log after the other, each line as soon as it arrives: a log may be a pipe."""
    for log in logs:
        rest = b""
        with await aside(partial(FileIO, log), log) as file:
            while chunk := await aside(partial(file.read, CHUNK), log):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield text_of(line)  # noqa: ASYNC119  # read by `aclosing`
                if len(rest) > CHUNK:  # otherwise an endless line would be kept
                    yield text_of(rest)  # noqa: ASYNC119  # read by `aclosing`
                    rest = b""
        if rest:
            yield text_of(rest)


async def aside(read: Callable[[], T], log: Path) -> T:
    """Read in a thread; Ctrl-C does not wait for the writer of a pipe."""
    is_pipe = not await trio.Path(log).is_file()
    return await trio.to_thread.run_sync(read, abandon_on_cancel=is_pipe)


def text_of(line: bytes) -> str:
    """Decode any bytes as text."""
    return line.decode(errors="surrogateescape")


def made_up(count: int = 20_000, seed: int = 1) -> Iterator[str]:
    """Generate a log: a few paths, one of which sometimes fails, and some noise."""
    chance = random.Random(seed)
    paths = ("/", "/index.html", "/style.css", "/api/orders", "/api/search?q=trio", "/favicon.ico")
    for number in range(count):
        path, status = chance.choice(paths), chance.choice((200, 200, 200, 304, 404))
        if path == "/api/orders" and number % 10 == 0:
            status = 503
        if number % 997 == 996:
            yield "GET / HTTP/1.1"
            continue
        stamp = f"27/Nov/2026:{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02} +0000"
        yield f'192.0.2.{number % 250} - - [{stamp}] "GET {path} HTTP/1.1" {status} {chance.randrange(100, 9000)}'


async def sort_log(lines: Pipeline[str], folder: Path) -> int:
    """Run the plan, with its files in a folder; results are written and printed even if it is stopped."""
    with (
        gzip.open(folder / "archive.log.gz", "wb", compresslevel=6) as archive,
        (folder / "errors.txt").open("wb") as errors,
        (folder / "unreadable.txt").open("wb") as strange,
    ):
        tally, status = Tally(errors, strange), 0
        pipeline = plan(lines, archive, tally)
        print(pipeline.describe(), end="\n\n", flush=True)
        try:
            report = await pipeline.run()
            print(report.describe(), end="\n\n")
        except KeyboardInterrupt:
            status = complain(f"interrupted; {shown(folder)} holds what was written until then", 130)
        finally:
            write_lines(errors, [f"# {count} of {path}" for path, count in tally.errors.most_common()])
            with (folder / "traffic.txt").open("wb") as traffic:
                write_lines(traffic, [f"{size:>12} {path}" for path, size in tally.sizes.most_common()])
    tell(tally, folder)
    return status


def tell(tally: Tally, folder: Path) -> None:
    """Print a summary in a few lines."""
    failed = tally.errors.total()
    lines = tally.count_answered + failed + tally.count_unreadable
    print(f"{lines} lines: {tally.count_answered} answered, {failed} failed, {tally.count_unreadable} unreadable")
    for path, count in tally.errors.most_common(3):
        print(f"  failed {count} times: {shown(path)}")
    print(f"written: {shown(folder)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    options = parser().parse_args(argv)
    for log in options.logs:
        if log.is_dir() or not log.exists():
            problem = f"{shown(log)} is a folder, not a log" if log.is_dir() else f"there is no log {shown(log)}"
            return complain(problem, 2)
    if options.logs:
        lines = Pipeline.from_async_iterable(partial(lines_of, options.logs), name="logs")
    else:
        lines = Pipeline.from_iterable(made_up, name="made_up")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return complain(f"cannot make the folder {shown(options.out)}: {error.strerror}", 2)
    return trio.run(sort_log, lines, options.out, restrict_keyboard_interrupt_to_checkpoints=True)


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"fan_out: {shown(message)}", file=sys.stderr)
    return status


def shown(name: str | Path) -> str:
    """Make a name printable: file names and logs may contain any bytes, including escape codes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(prog="fan_out.py", allow_abbrev=False, description="Sort the log of a web server.")
    made.add_argument("logs", nargs="*", type=Path, metavar="LOG", help="logs to read; by default a generated one")
    folder = "where to write (default: %(default)s in the current folder)"
    made.add_argument("--out", type=Path, default=Path(FOLDER), metavar="DIR", help=folder)
    return made


if __name__ == "__main__":
    program.run(main)
