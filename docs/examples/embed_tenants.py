"""Embed the texts of several tenants by a service that is slow, strict and flaky; store the vectors in SQLite.

    embed_tenants.py                                     # three tenants, whose texts are docstrings of this Python
    embed_tenants.py acme=~/notes:3 bolt=~/mail          # folders; while both have work, three calls to one
    embed_tenants.py acme=~/notes --db vectors.sqlite3 --seed 7

The service is a stand-in, which this program starts on this machine (`flaky_service.py`, beside this file): it allows
so many calls in any second and counts them itself, and now and then it is busy, broken or slow. A text that it can
never embed becomes a dead letter. The last line compares its count with what it allows.

It shows a plan that can be read before it runs (`plan`, the first function below), with every policy in it: timeouts,
retries that wait as long as the service asks, a rate limit, a circuit breaker, dead letters, shares by weight. It takes
its service and store as protocols, so its test runs the same plan in virtual time. The run can be stopped at any
moment: what is stored stays, each batch is one transaction, and the same command embeds only what is missing.
"""

from __future__ import annotations

import argparse
import ast
import io
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
    RateLimit,
    RateLimiter,
    Report,
    Retry,
    Step,
    fair_merge,
    threads,
)

DATABASE = "funcpipe_vectors.sqlite3"
CONCURRENCY = 4  # calls under way at once
BURST = 2
# A call counts at the service when it arrives, not when it starts. Those that arrive in a second are those that start
# in it, at most BURST + rate, and those that were under way before it began, at most CONCURRENCY: so no delay on the
# way can break the contract, as long as a call that is given up has arrived by then.
LIMIT = RateLimit(CONTRACT - BURST - CONCURRENCY, burst=BURST)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose texts, and how much of the service they get while others want it too."""

    name: str
    texts: Pipeline[str]
    weight: int | Fraction = 1


@dataclass(frozen=True, slots=True)
class Text:
    """What is embedded."""

    tenant: str
    content: str

    @property
    def key(self) -> bytes:
        """What tells whether it is stored already: a hash of its content."""
        return blake2b(f"{self.tenant}\0{self.content}".encode(), digest_size=16).digest()


Vector = Sequence[float]
Row = tuple[Text, Vector]


class Unavailable(Exception):
    """The service gave no answer; later it may."""


class Busy(Unavailable):
    """The service is called too often; `retry_after` is the seconds that it asks to wait, if it says so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unfit(Exception):
    """A text that can never be embedded."""


class EmbeddingService(Protocol):
    """What makes vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector | Unfit]:
        """Give a vector for each text, or say why there is none; raise `Unavailable` if it cannot answer now."""


class Store(Protocol):
    """What keeps them."""

    def lacks(self, text: Text) -> bool:
        """Say whether it is not known yet what becomes of a text."""

    async def upsert(self, rows: Sequence[Row]) -> int:
        """Store vectors, all or none; give the number of those that are new."""

    async def bury(self, failure: Failure[tuple[Text, Unfit]]) -> None:
        """Keep a text that got no vector, with the reason."""


# The plan: all of it


def plan(tenants: Sequence[Tenant], service: EmbeddingService, store: Store, limiter: RateLimiter) -> Pipeline[int]:
    """Describe the work; nothing happens yet. Each item that comes out is the number of vectors a batch has added."""
    embed = (
        Step(partial(embed_batch, service), name="embed")
        .timeout(1)  # of one call; it does not wait for its turn in this time
        .rate_limit(limiter)  # each attempt is a call
        .circuit_breaker(CircuitBreaker(failures=4, reset_after=0.5, on=is_outage, wait=True))
        .retry(Retry(8, on=(Unavailable, trio.TooSlowError), backoff=Backoff(0.1), retry_after=asked_wait))
        .timeout(60)  # of all attempts, with their waits
    )
    batches = {
        tenant.name: tenant.texts.map(clean).filter(bool).map(partial(Text, tenant.name)).filter(store.lacks).batch(10)
        for tenant in tenants
    }
    share = FairShare({tenant.name: tenant.weight for tenant in tenants}, capacity=4)  # of the calls
    return (
        fair_merge(batches, share)
        .map(embed, concurrency=CONCURRENCY, ordered=False)  # a service that stays away ends the run
        .unbatch()
        .map(accept, on_error=OnError.divert(store.bury))  # a text that it refuses does not
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


def is_outage(error: Exception) -> bool:
    """Tell what the circuit breaker counts: a service that asks to wait is well."""
    return not isinstance(error, Busy)


def asked_wait(error: Exception) -> float | None:
    """Read the wait that the service asks for."""
    return error.retry_after if isinstance(error, Busy) else None


def accept(answer: tuple[Text, Vector | Unfit]) -> Row:
    """Let a vector pass."""
    text, vector = answer
    if isinstance(vector, Unfit):
        raise vector
    return text, vector


# The service, as the plan sees it


class HttpService:
    """The service behind a URL; a call is one request, with no second try of its own."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector | Unfit]:
        """See `EmbeddingService`."""
        try:
            answer = await self._client.post("/embed", json=texts)
        except httpx.TransportError as error:
            raise Unavailable(f"no connection: {error}") from error
        if answer.status_code == 429:
            seconds = answer.headers.get("Retry-After", "")  # a date is allowed, too; this service gives none
            raise Busy("429 Too Many Requests", float(seconds) if seconds.isdigit() else None)
        if answer.is_server_error:
            raise Unavailable(f"{answer.status_code} {answer.reason_phrase}")
        answer.raise_for_status()
        return [Unfit(each["detail"]) if each["status"] == 422 else each["vector"] for each in answer.json()]


# The database


OURS = 0x66756E65  # what `PRAGMA application_id` says of a database that this program made
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
        """Give the number of rows in a table."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


class Refused(Exception):
    """Something that the user asked for cannot be done; the message says what and why, in a line."""


@contextmanager
def open_store(file: Path) -> Iterator[SqliteStore]:
    """Open the database, or make it; close it at the end. Nothing is left behind if it cannot be used."""
    is_new = not file.exists()
    try:
        # Not bound to a thread: each transaction may run in another one, but never two at a time.
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
    """Make the tables in a new database; refuse one that cannot be written, or is not of this program."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and owner != OURS:
            raise sqlite3.DatabaseError("it belongs to another program")
        for statement in SCHEMA[-1:] if tables else SCHEMA:  # a write in any case, to see that it can be written
            connection.execute(statement)


# The run


async def work(tenants: Sequence[Tenant], url: str, store: SqliteStore) -> Report:
    """Show the plan, and run it to its end with a progress line beside it."""
    async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:  # the step has the timeouts
        pipeline = plan(tenants, HttpService(client), store, RateLimiter(LIMIT))
        print(pipeline.describe(), end="\n\n", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_progress, store)
            report = await pipeline.run()
            nursery.cancel_scope.cancel()
    return report


async def show_progress(store: SqliteStore) -> None:
    """Say now and then how far it is."""
    async for elapsed, _ in periodic(2):
        if elapsed > 0:
            print(f"{elapsed:6.1f} s  {progress(store)}", file=sys.stderr, flush=True)


def progress(store: SqliteStore) -> str:
    """Say how far it is."""
    return f"{store.added:,} vectors stored, {store.buried:,} dead letters"


def embed_tenants(tenants: Sequence[Tenant], file: Path, seed: int) -> int:
    """Embed what has no vector yet; give the exit status."""
    report, status = None, 0
    with open_store(file) as store, serving(seed) as server:
        try:
            report = trio.run(work, tenants, f"http://127.0.0.1:{server.server_port}", store)
        except* KeyboardInterrupt:
            status = complain(f"interrupted: {progress(store)}; the same command embeds the rest", 130)
        except* (Unavailable, trio.TooSlowError, httpx.HTTPError) as failed:
            status = complain(
                f"the service gives no answer: {failed.exceptions[0]}; the same command embeds the rest", 1
            )
        except* sqlite3.Error as failed:
            status = complain(f"writing {shown(file)} failed: {failed.exceptions[0]}", 1)
        if report is not None:
            print(report.describe(), end="\n\n")
        print(f"vectors: {store.added:,} new, {store.size('embedding'):,} in {shown(file)}")
        print(f"dead letters: {store.buried:,} new, {store.size('dead_letter'):,} in all")
        print(f"calls: the service counted {server.calls:,}, at most {server.most} in a second; it allows {CONTRACT}")
    return status


# The texts


def texts_in(name: str, folder: Path) -> Pipeline[str]:
    """Describe where the texts of a tenant come from: what is read, only as far as there is room for it."""
    aside = threads(2, abandon_on_cancel=True)  # it only reads, so Ctrl-C need not wait for it
    return (
        Pipeline.from_iterable([folder], name=f"folder of {name}")
        .flat_map(Step(files).on(aside), name=f"list {name}")
        .flat_map(Step(texts).on(aside), name=f"read {name}")
    )


def files(folder: Path) -> list[Path]:
    """List the files under a folder that hold texts; links to folders are not followed, so there are no loops."""
    found = (Path(here, name) for here, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix in {".md", ".py", ".rst", ".txt"} and path.is_file())


def texts(path: Path) -> list[str]:
    """Read the paragraphs of a file, or the docstrings of a module; a file that cannot be read has none."""
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
    """Run the program; give its exit status."""
    try:
        options = parser().parse_args(argv)
        tenants = tenants_of(options.tenants or samples())
        return embed_tenants(tenants, Path(os.path.realpath(options.db)), options.seed)
    except Refused as error:
        return complain(str(error), 2)
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def complain(message: str, status: int) -> int:
    """Say in a line what is wrong; give the exit status back."""
    print(f"embed_tenants: {shown(message)}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="embed_tenants.py", allow_abbrev=False, description="Embed the texts of several tenants, fairly."
    )
    tenant = "a name, a folder of texts, and a weight: an int or a fraction such as 1/3, else 1. Without any: samples"
    made.add_argument("tenants", nargs="*", metavar="NAME=FOLDER[:WEIGHT]", help=tenant)
    database = "the SQLite file, made if it is not there (default: %(default)s in the current folder)"
    made.add_argument("--db", type=Path, default=DATABASE, metavar="FILE", help=database)
    made.add_argument("--seed", type=int, default=1, help="gives the service other faults (default: %(default)s)")
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
    """Take ``FOLDER:WEIGHT`` apart; a folder whose own name has a ``:`` is a folder all the same."""
    whole = Path(argument).expanduser()
    folder, colon, weight = argument.rpartition(":")
    if not colon or whole.is_dir():
        folder, weight = argument, "1"
    if not folder:
        raise Refused(f"a folder must come before {argument!r}")
    path = Path(folder).expanduser()
    try:
        if not path.is_dir():
            raise Refused(f"{shown(path)} {'is no folder' if path.exists() else 'does not exist'}")
    except OSError as error:
        raise Refused(f"cannot use {shown(folder)}: {error.strerror}") from None
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}(/0*[1-9][0-9]{0,17})?", weight):
        rule = "must be an int or a fraction above 0, such as 3 or 1/3"
        raise Refused(f"the weight of {shown(folder)} {rule}, not {weight!r}")
    return path, Fraction(weight)


def samples() -> list[str]:
    """Give three tenants the docstrings of packages of the standard library."""
    library = sysconfig.get_path("stdlib")
    return [f"acme={library}/asyncio:3", f"bolt={library}/email:1", f"cozy={library}/http:1"]


def shown(name: str | Path) -> str:
    """Give a name as a terminal can show it: one of a file may hold any bytes, and escape codes."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every name
    sys.exit(main())
