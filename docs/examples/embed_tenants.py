"""Embed the texts of several tenants with a service that is slow, strict and flaky; store the vectors in SQLite.

    embed_tenants.py                                     # three tenants, whose texts are docstrings of this Python
    embed_tenants.py acme=~/notes:3 bolt=~/mail          # folders; while both have work, three calls to one
    embed_tenants.py acme=~/notes --db vectors.sqlite3 --seed 7
    embed_tenants.py --record run.jsonl
    funcpipe simulate embed_tenants.py:sample_plan run.jsonl --set "embed acme.places=2,4"

The service is a stand-in, which this program starts on this machine (`flaky_service.py`, next to this file): it allows
a fixed number of calls in any second and counts them itself, and now and then it is busy, broken or slow. A text that
it can never embed becomes a dead letter. The last line compares its count with what it allows.

It shows a plan that can be read before it runs (`plan`, the first function below), with every policy in it: timeouts,
retries that wait as long as the service asks, circuit breakers, dead letters, and limits that all tenants share: by
weight, at the place where they wait. The plan takes its service and store as protocols, so its test runs the same plan
in virtual time. The run can be stopped at any
moment: stored vectors stay, each batch is one transaction, and the same command embeds only what is missing. What a run
recorded says what other settings would have done.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import ast
import os
import re
import sqlite3
import sys
import sysconfig
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import httpx
import trio
from flaky_service import CONTRACT, serving
from trio_util import periodic

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    Failure,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Recorder,
    Recording,
    Report,
    Retry,
    Step,
    merge,
    retry_after_header,
    threads,
)

DATABASE = "funcpipe_vectors.sqlite3"
CONCURRENCY = 4  # calls at once, of all tenants together
BURST = 2
# A call counts at the service when it arrives, not when it starts. The calls that arrive in a second are those that
# start in it, at most BURST + rate, and those already on their way, at most CONCURRENCY: so network delays cannot break
# the contract, as long as an abandoned call has arrived by then.
LIMIT = RateLimit(CONTRACT - BURST - CONCURRENCY, burst=BURST)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's texts, and its share of the service while others want it too."""

    name: str
    texts: Pipeline[str]
    weight: int | Fraction = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A text to embed."""

    tenant: str
    content: str

    @property
    def key(self) -> bytes:
        """A hash of its content, to check whether it is already stored."""
        return blake2b(f"{self.tenant}\0{self.content}".encode(), digest_size=16).digest()


Vector = Sequence[float]
Row = tuple[Text, Vector]


class Unavailable(Exception):
    """The service gave no answer; it may later."""


class Busy(Unavailable):
    """The service is called too often; `retry_after` is the number of seconds that it asks to wait, if it does."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unfit(Exception):
    """A text that can never be embedded."""


class EmbeddingService(Protocol):
    """Makes vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector | Unfit]:
        """Return for each text a vector, or why there is none; raise `Unavailable` if it cannot answer now."""


class Store(Protocol):
    """Keeps the vectors."""

    def lacks(self, text: Text) -> bool:
        """Return whether a text is neither stored nor refused."""

    async def upsert(self, rows: Sequence[Row]) -> int:
        """Store vectors, all or none; return the number of new ones."""

    async def bury(self, failure: Failure[tuple[Text, Unfit]]) -> None:
        """Keep a text that got no vector, with the reason."""


# The plan: all of it


def plan(tenants: Sequence[Tenant], service: EmbeddingService, store: Store, limit: RateLimit) -> Pipeline[int]:
    """Describe the work; nothing happens yet. Each item that comes out is the number of vectors a batch has added."""
    limiter = RateLimiter(limit, FairShare({tenant.name: tenant.weight for tenant in tenants}))
    embed = (
        Step(partial(embed_batch, service), name="embed")
        .timeout(1)  # of one call, without its wait for the limits
        .rate_limit(limiter, key=tenant_of)  # each attempt is a call; of those that wait, whose turn is it?
        .places(PlaceLimiter(CONCURRENCY))  # taken together with the token
        .circuit_breaker(CircuitBreaker(failures=4, reset_after=0.5, on=is_outage, wait=True))
        .retry(Retry(8, on=(Unavailable, trio.TooSlowError), backoff=Backoff(0.1), retry_after=asked_wait))
        .timeout(60)  # of all attempts, with their waits
    )
    lines = [
        tenant.texts.map(clean)
        .filter(bool)
        .map(partial(Text, tenant.name))
        .filter(store.lacks)
        .batch(10)
        .map(embed, concurrency=CONCURRENCY, ordered=False, name=f"embed {tenant.name}")
        .unbatch()
        for tenant in tenants
    ]
    return (
        merge(*lines)  # a service that stays unavailable ends the run
        .map(accept, on_error=OnError.divert(store.bury))  # a refused text does not
        .batch(100, max_delay=0.5, name="collect")
        .buffer(1)
        .map(store.upsert)
    )


# The steps, in the order of the plan


def clean(text: str) -> str:
    """Make one line of a text."""
    return " ".join(text.split())


async def embed_batch(service: EmbeddingService, batch: Sequence[Text]) -> list[tuple[Text, Vector | Unfit]]:
    """Make one call for all texts of a batch."""
    return list(zip(batch, await service.embed([text.content for text in batch]), strict=True))


def tenant_of(batch: Sequence[Text]) -> str:
    """Return whose share of the service a call takes: a batch is of one tenant."""
    return batch[0].tenant


def is_outage(error: Exception) -> bool:
    """Return whether the circuit breaker counts an error: a service that asks to wait works."""
    return not isinstance(error, Busy)


def asked_wait(error: Exception) -> float | None:
    """Read the wait that the service asks for."""
    return error.retry_after if isinstance(error, Busy) else None


def accept(answer: tuple[Text, Vector | Unfit]) -> Row:
    """Return the row for a vector; raise if there is none."""
    text, vector = answer
    if isinstance(vector, Unfit):
        raise vector
    return text, vector


# The service, as the plan sees it


class HttpService:
    """The service behind a URL; a call is one request, without retries here."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector | Unfit]:
        """See `EmbeddingService`."""
        try:
            answer = await self._client.post("/embed", json=texts)
        except httpx.TransportError as error:
            raise Unavailable(f"no connection: {error}") from error
        if answer.status_code == 429:
            raise Busy("429 Too Many Requests", retry_after_header(answer))
        if answer.is_server_error:
            raise Unavailable(f"{answer.status_code} {answer.reason_phrase}")
        answer.raise_for_status()
        return [Unfit(each["detail"]) if each["status"] == 422 else each["vector"] for each in answer.json()]


# The database


OURS = 0x66756E65  # the `PRAGMA application_id` of databases made by this program
SCHEMA = (
    "CREATE TABLE embedding (key BLOB PRIMARY KEY, tenant TEXT, text TEXT, vector BLOB)",
    "CREATE TABLE dead_letter (key BLOB PRIMARY KEY, tenant TEXT, text TEXT, reason TEXT)",
    f"PRAGMA application_id = {OURS}",
)
ADD = "INSERT OR IGNORE INTO embedding VALUES (?, ?, ?, ?)"
BURY = "INSERT OR REPLACE INTO dead_letter VALUES (?, ?, ?, ?)"


class SqliteStore:
    """The database. A started step with one thread owns its connection: one call at a time, each a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.added = self.buried = 0
        self._connection = connection
        known = "SELECT key FROM embedding UNION SELECT key FROM dead_letter"
        self._known = {key for (key,) in connection.execute(known)}
        self._write = Step(self._transact, name="write").on(threads(1)).start()

    def lacks(self, text: Text) -> bool:
        """See `Store`; it knows what was stored when it was opened."""
        return text.key not in self._known

    async def upsert(self, rows: Sequence[Row]) -> int:
        """See `Store`."""
        added = await self._write(
            (ADD, [(text.key, text.tenant, text.content, array("f", vector).tobytes()) for text, vector in rows])
        )
        self.added += added
        return added

    async def bury(self, failure: Failure[tuple[Text, Unfit]]) -> None:
        """See `Store`."""
        text, _ = failure.item
        self.buried += await self._write((BURY, [(text.key, text.tenant, text.content, str(failure.error))]))

    def _transact(self, change: tuple[str, list[tuple[Any, ...]]]) -> int:
        with self._connection as connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            return connection.executemany(*change).rowcount

    def size(self, table: str) -> int:
        """Return the number of rows in a table."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


class Refused(Exception):
    """Something that the user asked for cannot be done; the message says what and why, in one line."""


@contextmanager
def open_store(file: Path) -> Iterator[SqliteStore]:
    """Open or create the database; close it at the end. Leave nothing behind if it cannot be used."""
    is_new = not file.exists()
    try:
        # Not bound to a thread: transactions may run in different threads, but never two at a time.
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            if is_new:
                file.unlink(missing_ok=True)
            raise
    except (sqlite3.Error, OSError) as error:
        raise Refused(f"cannot use {shown(file)} as the database: {error}") from None
    with closing(connection):
        yield SqliteStore(connection)


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables in a new database; refuse one that is not writable or belongs to another program."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and owner != OURS:
            raise sqlite3.DatabaseError("it belongs to another program")
        for statement in SCHEMA[-1:] if tables else SCHEMA:  # write in any case, to check that it is writable
            connection.execute(statement)


# The run


async def work(tenants: Sequence[Tenant], url: str, store: SqliteStore, recorder: Recorder | None) -> Report:
    """Show the plan, and run it to its end while a progress line is shown."""
    async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:  # the step has the timeouts
        pipeline = plan(tenants, HttpService(client), store, LIMIT)
        print(pipeline.describe(), end="\n\n", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_progress, store)
            report = await pipeline.run(record=recorder)
            nursery.cancel_scope.cancel()
    return report


async def show_progress(store: SqliteStore) -> None:
    """Print the progress now and then."""
    async for elapsed, _ in periodic(2):
        if elapsed > 0:
            print(f"{elapsed:6.1f} s  {progress(store)}", file=sys.stderr, flush=True)


def progress(store: SqliteStore) -> str:
    """Return the progress as text."""
    return f"{store.added:,} vectors stored, {store.buried:,} dead letters"


async def embed_tenants(tenants: Sequence[Tenant], file: Path, seed: int, record: Path | None) -> int:
    """Embed what has no vector yet; return the exit status."""
    report, status = None, 0
    recorder = None if record is None else Recorder()
    with open_store(file) as store, serving(seed) as server:
        try:
            report = await work(tenants, f"http://127.0.0.1:{server.server_port}", store, recorder)
        except* KeyboardInterrupt:
            status = complain(f"interrupted: {progress(store)}; the same command embeds the rest", 130)
        except* (Unavailable, trio.TooSlowError, httpx.HTTPError) as failed:
            status = complain(
                f"the service does not answer: {failed.exceptions[0]}; the same command embeds the rest", 1
            )
        except* sqlite3.Error as failed:
            status = complain(f"writing {shown(file)} failed: {failed.exceptions[0]}", 1)
        if report is not None:
            print(report.describe(), end="\n\n")
        if report is not None and recorder is not None and record is not None:
            status = save(recorder.recording, record)
        print(f"vectors: {store.added:,} new, {store.size('embedding'):,} in {shown(file)}")
        print(f"dead letters: {store.buried:,} new, {store.size('dead_letter'):,} in all")
        print(f"calls: the service counted {server.calls:,}, at most {server.most} in a second; it allows {CONTRACT}")
    return status


def save(recording: Recording, file: Path) -> int:
    """Write what was recorded; return the exit status."""
    try:
        recording.save(file)
    except OSError as error:
        return complain(f"cannot write {shown(file)}: {error.strerror}", 1)
    return 0


# The texts


def texts_in(name: str, folder: Path) -> Pipeline[str]:
    """Describe where the texts of a tenant come from: files are read only as far as there is room for their texts."""
    aside = threads(2, abandon_on_cancel=True)  # these only read, so Ctrl-C need not wait for them
    return (
        Pipeline.from_iterable([folder], name=f"folder of {name}")
        .flat_map(Step(files).on(aside), name=f"list {name}")
        .flat_map(Step(texts).on(aside), name=f"read {name}")
    )


def files(folder: Path) -> list[Path]:
    """List the text files under a folder; links to folders are not followed, so there are no loops."""
    found = (Path(here, name) for here, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix in {".md", ".py", ".rst", ".txt"} and path.is_file())


def texts(path: Path) -> list[str]:
    """Read the paragraphs of a file, or the docstrings of a module; return none for an unreadable file."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if path.suffix != ".py":
            return re.split(r"\n\s*\n", text)
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    options = parser().parse_args(argv)
    try:
        tenants = tenants_of(options.tenants or samples())
        run = partial(embed_tenants, tenants, Path(os.path.realpath(options.db)), options.seed, options.record)
        return trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)  # so it never interrupts half-way
    except Refused as error:
        return complain(str(error), 2)


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"embed_tenants: {shown(message)}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="embed_tenants.py", allow_abbrev=False, description="Embed the texts of several tenants, fairly."
    )
    tenant = "a name, a folder of texts, and a weight: an int or a fraction such as 1/3 (default: 1). Default: samples"
    made.add_argument("tenants", nargs="*", metavar="NAME=FOLDER[:WEIGHT]", help=tenant)
    database = "the SQLite file, created if it does not exist (default: %(default)s in the current folder)"
    made.add_argument("--db", type=Path, default=DATABASE, metavar="FILE", help=database)
    made.add_argument("--seed", type=int, default=1, help="selects the faults of the service (default: %(default)s)")
    record = "where to write how long everything took, for `funcpipe simulate` (default: nowhere)"
    made.add_argument("--record", type=Path, metavar="FILE", help=record)
    return made


def tenants_of(arguments: Sequence[str]) -> list[Tenant]:
    """Make a tenant of each argument."""
    made: dict[str, Tenant] = {}
    for argument in arguments:
        name, equals, rest = argument.partition("=")
        if not (name.strip() and equals and rest):
            raise Refused(f"a tenant must be given as NAME=FOLDER or NAME=FOLDER:WEIGHT, not {argument!r}")
        if name in made:
            raise Refused(f"the tenant {shown(name)} is given twice")
        folder, weight = folder_and_weight(rest)
        made[name] = Tenant(name, texts_in(name, folder), weight)
    return list(made.values())


def folder_and_weight(argument: str) -> tuple[Path, int | Fraction]:
    """Split ``FOLDER:WEIGHT``; the name of an existing folder may itself contain a ``:``."""
    whole = Path(argument).expanduser()
    folder, colon, weight = argument.rpartition(":")
    if not colon or whole.is_dir():
        folder, weight = argument, "1"
    if not folder:
        raise Refused(f"a folder must come before {argument!r}")
    path = Path(folder).expanduser()
    try:
        if not path.is_dir():
            raise Refused(f"{shown(path)} {'is not a folder' if path.exists() else 'does not exist'}")
    except OSError as error:
        raise Refused(f"cannot use {shown(folder)}: {error.strerror}") from None
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}(/0*[1-9][0-9]{0,17})?", weight):
        rule = "must be an int or a fraction above 0, such as 3 or 1/3"
        raise Refused(f"the weight of {shown(folder)} {rule}, not {weight!r}")
    return path, Fraction(weight)


def samples() -> list[str]:
    """Return three tenants with the docstrings of packages of the standard library."""
    library = sysconfig.get_path("stdlib")
    return [f"acme={library}/asyncio:3", f"bolt={library}/email:1", f"cozy={library}/http:1"]


def sample_plan() -> Pipeline[int]:
    """Return the plan for the samples, to describe or simulate it: there is no service and no store behind it."""
    return plan(tenants_of(samples()), Absent(), Absent(), LIMIT)


class Absent:
    """In the place of a service or a store that is never asked."""

    def lacks(self, text: Text) -> bool:
        """See `Store`."""
        raise NotImplementedError

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector | Unfit]:
        """See `EmbeddingService`."""
        raise NotImplementedError

    async def upsert(self, rows: Sequence[Row]) -> int:
        """See `Store`."""
        raise NotImplementedError

    async def bury(self, failure: Failure[tuple[Text, Unfit]]) -> None:
        """See `Store`."""
        raise NotImplementedError


def shown(name: str | Path) -> str:
    """Make a name printable: file names may contain any bytes, including escape codes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


if __name__ == "__main__":
    program.run(main)
