"""Index the text files of several folders for full-text search; the folders share one writer by weight.

    index_folders.py                                     # the larger packages of this Python's standard library
    index_folders.py ~/notes ~/mail                      # two folders, equal shares
    index_folders.py /usr/share/doc=3 /usr/lib/python3   # while both have work, three passages to one
    index_folders.py docs --db docs.sqlite3 --query "exit status"

It shows a plan that can be read before it runs (`plan`, the first function below), folders that are walked lazily and
read eight files at a time in threads, a weighted fair merge directly before a slow writer, batches closed by size or
age, and a run that can be stopped at any moment: each batch is one transaction, and a passage that is already in the
index is not added again, so running the same command again only adds what is missing.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import os
import re
import sqlite3
import sys
import sysconfig
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import trio
from trio_util import periodic

from funcpipe_trio import FairShare, Pipeline, Report, fair_merge

DATABASE = "funcpipe_index.sqlite3"
LARGEST = 1_000_000  # bytes of the largest file that is read
LINES = 20  # lines of a passage
COMPILED = {".a", ".dll", ".dylib", ".exe", ".o", ".pyc", ".pyd", ".so"}  # files without text


@dataclass(frozen=True, slots=True)
class Tenant:
    """A folder, and its share of the writer while others want it too."""

    name: str
    folder: Path
    weight: int | Fraction = 1


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file; `problem` says why there is none."""

    path: Path
    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """Some lines of a document: a search result."""

    path: Path
    line: int
    text: str


# The plan: all of it


def plan(tenants: Sequence[Tenant], index: Index, files: Files) -> Pipeline[int]:
    """Describe the work; nothing happens yet. Each item that comes out is the number of passages a batch has added."""
    passages = {
        tenant.name: Pipeline.from_async_iterable(
            partial(walk, tenant.folder, apart_from=index.file), name=f"walk {tenant.name}"
        )
        .map(read, concurrency=8, ordered=False, name=f"read {tenant.name}")
        .filter(files.keep_text)
        .flat_map(split)
        for tenant in tenants
    }
    # Room for more than a batch: a tenant that is read as fast as its share is written never looks idle to the merge.
    share = FairShare({tenant.name: tenant.weight for tenant in tenants}, capacity=256)
    return fair_merge(passages, share).batch(200, max_delay=0.5).buffer(1).map(index.add, name="write")


# The steps, in the order of the plan


async def walk(folder: Path, *, apart_from: Path) -> AsyncIterator[Path]:
    """Yield the files under a folder, listed in a thread, only as far as they are asked for."""
    files = list_files(folder, apart_from)
    try:
        while chunk := await trio.to_thread.run_sync(lambda: list(islice(files, 64))):
            for path in chunk:
                yield path
    finally:
        files.close()  # the run always closes this generator, and this closes the folder being read


def list_files(folder: Path, apart_from: Path) -> Generator[Path, None, None]:
    """Yield everything except folders and the database. Links to folders are not followed, so there are no loops."""
    own = str(apart_from)
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif entry.path.removesuffix("-journal") != own and not os.path.isdir(entry):
                        yield Path(entry.path)
        except OSError:
            yield here  # counted with the unreadable files


async def read(path: Path) -> Document:
    """Read a file in a thread."""
    return await trio.to_thread.run_sync(read_text, path)


def read_text(path: Path) -> Document:
    """Read a file; a problem with it is returned, not raised."""
    if path.suffix in COMPILED:
        return Document(path, problem="compiled, so not opened")
    try:
        mode = path.stat().st_mode
        if not S_ISREG(mode):  # opening a FIFO would wait forever
            return Document(path, problem="unreadable folder" if S_ISDIR(mode) else "not a regular file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if b"\0" in data:
            return Document(path, problem="binary")
        if len(data) > LARGEST:
            return Document(path, problem=f"larger than {LARGEST} bytes")
        return Document(path, data.decode())
    except UnicodeDecodeError:
        return Document(path, problem="text, but not in UTF-8")
    except OSError as error:
        return Document(path, problem=f"unreadable ({error.strerror})")


@dataclass(slots=True)
class Files:
    """What happened to the files."""

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """The number for each reason."""

    def keep_text(self, document: Document) -> bool:
        """Pass documents that could be read, and count the others by problem."""
        if document.problem:
            self.skipped[document.problem] += 1
        else:
            self.read += 1
        return not document.problem


def split(document: Document) -> Iterator[Passage]:
    """Split a document into passages; skip blank ones."""
    lines = document.text.split("\n")  # as editors count them: splitlines() would also split at form feeds
    for start in range(0, len(lines), LINES):
        text = "\n".join(lines[start : start + LINES])
        if text.strip():
            yield Passage(document.path, start + 1, text)


class Index:
    """The database: a table of passages with a full-text index. One call at a time."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self.file = file
        self.written = self.added = 0
        self._connection = connection
        self._one = trio.CapacityLimiter(1)  # its own: eight readers per tenant may use up the default one

    async def add(self, batch: list[Passage]) -> int:
        """Write a batch, in a thread, in one transaction; return the number of new passages."""
        added = await trio.to_thread.run_sync(self._insert, batch, limiter=self._one)
        self.written += len(batch)
        self.added += added
        return added

    def _insert(self, batch: list[Passage]) -> int:
        with self._connection as connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            sql = "INSERT OR IGNORE INTO passage (hash, path, line, text) VALUES (?, ?, ?, ?)"
            return connection.executemany(sql, map(row, batch)).rowcount

    def size(self) -> int:
        """Return the number of passages in the index, from this run and earlier ones."""
        return int(self._connection.execute("SELECT count(*) FROM passage").fetchone()[0])

    def find(self, query: str, limit: int) -> tuple[int, list[tuple[str, int, str]]]:
        """Return the number of passages with all these words, and the best as path, line and snippet."""
        words = " ".join('"' + word.replace('"', '""') + '"' for word in query.split())
        count = "SELECT count(*) FROM words WHERE words MATCH ?"
        best = (
            "SELECT path, line, snippet(words, 0, '[', ']', ' ... ', 12) FROM words JOIN passage ON id = words.rowid"
            " WHERE words MATCH ? ORDER BY rank, path, line LIMIT ?"
        )
        found = self._connection.execute(best, (words, limit)).fetchall()
        return int(self._connection.execute(count, (words,)).fetchone()[0]), found


def row(passage: Passage) -> tuple[bytes, str, int, str]:
    """Make a row of a passage; its hash shows whether it is already in the index."""
    content = b"\0".join((os.fsencode(passage.path), b"%d" % passage.line, passage.text.encode()))
    return blake2b(content, digest_size=16).digest(), shown(passage.path), passage.line, passage.text


def shown(path: str | Path) -> str:
    """Return a path as text even if its name is not: a database and a terminal accept nothing else."""
    return printable(os.fsencode(path).decode(errors="backslashreplace"))


def printable(text: str) -> str:
    """Escape what a terminal would not show, including escape codes, as in a Python string."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


# The database


OURS = 0x66756E63  # the `PRAGMA application_id` of databases made by this program
SCHEMA = (
    "CREATE TABLE passage (id INTEGER PRIMARY KEY, hash BLOB UNIQUE, path TEXT, line INTEGER, text TEXT)",
    "CREATE VIRTUAL TABLE words USING fts5(text, content='passage', content_rowid='id')",
    "CREATE TRIGGER passage_words AFTER INSERT ON passage"
    " BEGIN INSERT INTO words (rowid, text) VALUES (new.id, new.text); END",
    f"PRAGMA application_id = {OURS}",
)


class Refused(Exception):
    """Something that the user asked for cannot be done; the message says what and why, in one line."""


@contextmanager
def open_index(file: Path) -> Iterator[Index]:
    """Open or create the database; close it at the end. Leave nothing behind if it cannot be used."""
    is_new = not file.exists()
    try:
        # Not bound to a thread: batches may be written by different threads, but never two at a time.
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
        yield Index(connection, file)


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


async def work(pipeline: Pipeline[int], index: Index, files: Files) -> Report:
    """Run the plan to its end while a progress line is shown."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_progress, index, files)
        report = await pipeline.run()
        nursery.cancel_scope.cancel()
    return report


async def show_progress(index: Index, files: Files) -> None:
    """Show the progress: on a terminal in one line that is rewritten, otherwise now and then if there is news."""
    terminal, said, next_time = sys.stderr.isatty() and os.environ.get("TERM") != "dumb", 0, 0.0
    try:
        async for elapsed, _ in periodic(0.1):
            if terminal:
                line = progress(elapsed, index, files, columns())
                print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
            elif index.written > said and elapsed >= next_time:
                print(progress(elapsed, index, files), file=sys.stderr, flush=True)
                said, next_time = index.written, elapsed + 2
    finally:
        if terminal:
            print(file=sys.stderr)


def progress(elapsed: float, index: Index, files: Files, width: int = 80) -> str:
    """Return the progress, in at most one terminal line of the given width."""
    parts = (f"{elapsed:6.1f} s", f"{index.written:,} passages written", f"{files.skipped.total():,} files skipped")
    lines = ["  ".join(parts[:1]), "  ".join(parts[:2]), f"{parts[0]}  {parts[1]}, {parts[2]}"]
    return max((line for line in lines if len(line) < width), key=len, default="")


def columns() -> int:
    """Return the width of the terminal that shows the progress."""
    given = os.environ.get("COLUMNS", "")
    return (given.isdecimal() and int(given)) or os.get_terminal_size(sys.stderr.fileno()).columns or 80


async def index_folders(tenants: Sequence[Tenant], file: Path, query: str) -> int:
    """Build the index and answer the query; return the exit status."""
    files = Files()
    report, status = None, 0
    with open_index(file) as index:
        pipeline = plan(tenants, index, files)
        print(pipeline.describe(), end="\n\n", flush=True)
        try:
            report = await work(pipeline, index, files)
        except* KeyboardInterrupt:
            status = complain("interrupted; the same command completes the index", 130)
        except* sqlite3.Error as failed:
            status = complain(f"writing {shown(file)} failed: {failed.exceptions[0]}", 1)
        if report is not None:
            print(report.describe(), end="\n\n")
        show_result(index, files)
        if not status:
            show_answer(index, query)
    return status


def show_result(index: Index, files: Files) -> None:
    """Print what happened to the files, and what the index holds now."""
    skipped = files.skipped.total()
    print(f"files: {files.read + skipped:,} found, {files.read:,} read, {skipped:,} skipped")
    for problem, count in files.skipped.most_common():
        print(f"  {count:,} skipped: {problem}")
    print(f"passages: {index.written:,} written, {index.added:,} of them new; {index.size():,} in {shown(index.file)}")


def show_answer(index: Index, query: str) -> None:
    """Print where the words of the query are."""
    number, best = index.find(query, 3)
    print(f"\npassages with {query!r}: {number:,}" + (", the best:" if best else ""))
    for path, line, snippet in best:
        print(f"  {path}:{line}: {printable(' '.join(snippet.split()))}")


# The command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    options = parser().parse_intermixed_args(argv)
    try:
        if not options.query.split():
            raise Refused("--query must contain a word")
        tenants = tenants_of(options.paths) if options.paths else standard_library()
        run = partial(index_folders, tenants, Path(os.path.realpath(options.db)), options.query)
        return trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)  # so it never interrupts half-way
    except Refused as error:
        return complain(str(error), 2)


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"index_folders: {printable(message)}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="index_folders.py", allow_abbrev=False, description="Build a full-text index of the text files in folders."
    )
    weight = "a folder; its weight is an int or a fraction such as 1/3 (default: 1). Default: the standard library"
    made.add_argument("paths", nargs="*", metavar="PATH[=WEIGHT]", help=weight)
    database = "the SQLite file, created if it does not exist (default: %(default)s in the current folder)"
    made.add_argument("--db", type=Path, default=DATABASE, metavar="FILE", help=database)
    query = "words that a passage must contain; the best passages are shown at the end (default: %(default)s)"
    made.add_argument("--query", default="read file", metavar="WORDS", help=query)
    return made


def tenants_of(arguments: Sequence[str]) -> list[Tenant]:
    """Make a tenant of each argument, named by as many last parts of its path as make it unique."""
    weights: dict[Path, int | Fraction] = {}
    for argument in arguments:
        try:
            path, weight = folder_and_weight(argument)
            if not path.is_dir():
                raise Refused(f"{shown(path)} {'is not a folder' if path.exists() else 'does not exist'}")
            folder = path.resolve()
        except OSError as error:
            raise Refused(f"cannot use {shown(argument)}: {error.strerror}") from None
        if folder in weights:
            raise Refused(f"the folder {shown(path)} is given twice")
        weights[folder] = weight
    return [Tenant(name, folder, weights[folder]) for name, folder in names(list(weights)).items()]


def folder_and_weight(argument: str) -> tuple[Path, int | Fraction]:
    """Split ``PATH=WEIGHT``; the name of an existing folder may itself contain a ``=``."""
    whole = Path(argument)
    path, equals, weight = argument.rpartition("=")
    if not argument or (equals and not path and not whole.exists()):
        raise Refused("a path is empty")
    is_weight = re.fullmatch(r"0*[1-9][0-9]{0,17}(/0*[1-9][0-9]{0,17})?", weight)
    if not equals or (whole.exists() and not (is_weight and Path(path).exists())):
        return whole, 1
    if is_weight:
        return Path(path), Fraction(weight)
    raise Refused(f"the weight of {shown(path)} must be an int or a fraction above 0, such as 3 or 1/3, not {weight!r}")


def names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each folder by as many last parts of its path as make the names different."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        named = {shown(Path(*folder.parts[-parts:])): folder for folder in folders}
        if len(named) == len(folders):
            break
    return named


def standard_library(count: int = 6) -> list[Tenant]:
    """Make tenants of the packages of the standard library with the most modules."""
    library = Path(sysconfig.get_path("stdlib"))
    apart = {"site-packages", "dist-packages", "test", "__pycache__"}
    packages = [folder for folder in library.glob("*/") if folder.name not in apart]
    modules = {folder: sum(1 for _ in folder.rglob("*.py")) for folder in packages if folder.is_dir()}
    largest = sorted(modules, key=lambda folder: (-modules[folder], folder.name))[:count]
    if not largest:
        raise Refused("this Python has no folder with its standard library; name folders to index")
    return [Tenant(folder.name, folder) for folder in largest]


if __name__ == "__main__":
    program.run(main)
