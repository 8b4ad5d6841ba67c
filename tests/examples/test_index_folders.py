"""The example that indexes folders: real threads, real files, a real database, and a real Ctrl-C.

No clock is read here, except in the run that is interrupted: it must still have work when its first batch is written.
"""

import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "index_folders.py"

PLAN = """\
pipeline: 6 stages, items in flight: at most 4160
input 'docs', weight 3:
  source walk docs: async iterable walk
    | link of 16
  stage read docs: async map read, 8 at a time, as completed -> filter keep_text -> flat_map split
    | link of 256
input 'code', weight 1/2:
  source walk code: async iterable walk
    | link of 16
  stage read code: async map read, 8 at a time, as completed -> filter keep_text -> flat_map split
    | link of 256
fair_merge: shares by weight of what is handed over (start-time fair queueing)
stage batch: batch of 200 items or 0.5 s after its first item
  | link of 1
stage write: async map add, 1 at a time, in order
  | link of 16 (of an open run; run(), collect() and the like need none)
consumer"""

not_as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture(scope="module")
def example(load):
    return load("index_folders")


def make_folder(folder, files, passages):
    """Make files of so many passages, no two alike."""
    folder.mkdir()
    for number in range(files):
        lines = (f"{folder.name} {number} {line} common word{line % 97}" for line in range(20 * passages))
        (folder / f"{number}.txt").write_text("\n".join(lines))
    return folder


def rows(db):
    """All that is in the index, after a check that it is sound."""
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        found = "SELECT passage.id FROM words JOIN passage ON id = words.rowid WHERE words MATCH ?"
        hits = [len(connection.execute(found, (word,)).fetchall()) for word in ("common", "word13", "absent")]
        return sorted(connection.execute("SELECT hash, path, line, text FROM passage").fetchall()), hits


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


# What it does


def test_words_of_two_folders_are_found(run, tmp_path):
    """Every passage of every folder is in the index, with its path and line."""
    notes, mail = tmp_path / "notes", tmp_path / "mail" / "old"
    notes.mkdir()
    mail.mkdir(parents=True)
    (notes / "a.txt").write_text("\n" * 25 + "the quick brown fox\njumps\n")
    (mail / "b.txt").write_text("a slow fox")
    (mail / "empty.txt").write_text("")

    status, out, _err = run(notes, tmp_path / "mail", "--query", "fox quick")

    assert status == 0
    assert out.splitlines()[-5:] == [
        "files: 3 found, 3 read, 0 skipped",
        f"passages: 2 written, 2 of them new; 2 in {tmp_path}/out.db",
        "",
        "passages with 'fox quick': 1, the best:",
        f"  {notes}/a.txt:21: the [quick] brown [fox] jumps",
    ]
    assert [(path, line) for _, path, line, _ in rows("out.db")[0]] in (
        [(f"{notes}/a.txt", 21), (f"{mail}/b.txt", 1)],
        [(f"{mail}/b.txt", 1), (f"{notes}/a.txt", 21)],
    )


def test_second_run_adds_nothing(run, tmp_path):
    """What is in the index is not added again, whichever folders it is reached through."""
    folder = make_folder(tmp_path / "folder", files=3, passages=4)
    (folder / "deep").mkdir()
    (folder / "deep" / "x.txt").write_text("deep")
    run(folder)
    before = rows("out.db")

    status, out, _err = run(folder, folder / "deep")

    assert status == 0
    assert lines_with(out, "passages:") == [f"passages: 14 written, 0 of them new; 13 in {tmp_path}/out.db"]
    assert rows("out.db") == before


def test_new_file_is_added_by_the_next_run(run, tmp_path):
    folder = make_folder(tmp_path / "folder", files=2, passages=1)
    run(folder)
    (folder / "new.txt").write_text("new")

    _status, out, _err = run(folder)

    assert lines_with(out, "passages:") == [f"passages: 3 written, 1 of them new; 3 in {tmp_path}/out.db"]


async def test_weights_share_the_writer(example, tmp_path):
    """Of what is written while both folders have work, the one of weight 3 has three quarters, within a batch."""
    tenants = [
        example.Tenant("heavy", make_folder(tmp_path / "heavy", files=60, passages=25), 3),
        example.Tenant("light", make_folder(tmp_path / "light", files=60, passages=25), 1),
    ]
    with example.open_index(tmp_path / "out.db") as index:
        report = await example.work(example.plan(tenants, index, files := example.Files()), index, files)

    heavy, light = report.inputs
    contested = heavy.contested + light.contested
    assert (heavy.taken, light.taken) == (1500, 1500)
    assert contested > 1000
    assert abs(heavy.contested - Fraction(3, 4) * contested) <= 200


def test_plan_reads_as_expected(example, tmp_path):
    """The plan shows every stage, link, weight and limit, and no path."""
    tenants = [
        example.Tenant("docs", tmp_path / "docs", 3),
        example.Tenant("code", tmp_path / "code", Fraction(1, 2)),
    ]
    with example.open_index(tmp_path / "out.db") as index:
        assert example.plan(tenants, index, example.Files()).describe() == PLAN


def test_report_is_printed(run, tmp_path):
    """It says what each stage did, what each folder got, and which stage was the limit."""
    _status, out, _err = run(make_folder(tmp_path / "folder", files=3, passages=70))

    (limit,) = lines_with(out, "limited by: ")
    assert limit.removeprefix("limited by: ") in {"walk folder", "read folder", "write"}
    assert [line.split()[1:4] for line in lines_with(out, "read folder")] == [["folder", "3", "210"]]
    assert [line.split()[:3] for line in lines_with(out, "write ")] == [["write", "2", "2"]]
    assert [line.split() for line in lines_with(out, "fair_merge / ")] == [
        ["fair_merge", "/", "folder", "1", "210", "210", "100.0%"]
    ]


def test_lines_are_counted_as_editors_do(example):
    """A form feed or a carriage return does not begin a line; blank passages are left out."""
    text = "a\x0cb\r\n" + "\n" * 39 + "c\u2028d\n" + " \n" * 40
    passages = example.split(example.Document(Path("x"), text))

    assert [(passage.line, passage.text.strip()) for passage in passages] == [(1, "a\x0cb"), (41, "c\u2028d")]


def test_standard_library_without_folders(example):
    """Without folders it takes packages of the standard library, each with modules, none of them of others."""
    tenants = example.standard_library()

    assert len(tenants) == 6
    assert all(any(tenant.folder.rglob("*.py")) for tenant in tenants)
    assert not {"site-packages", "test"} & {tenant.name for tenant in tenants}


# What it skips


def skipped_in(out):
    first, *reasons = lines_with(out, "files: ") + lines_with(out, "  ")
    return [first, *sorted(line for line in reasons if " skipped: " in line)]


def test_what_cannot_be_read_is_skipped_and_counted(run, example, tmp_path):
    """A file that is binary, in another encoding, too large, gone or no file at all ends nothing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.txt").write_text("good")
    (folder / "binary").write_bytes(b"a\0b")
    (folder / "module.pyc").write_text("not even text is read here")
    (folder / "module.so").mkdir()
    (folder / "library.so").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "object.o")
    (folder / "latin-1.txt").write_bytes("é".encode("latin-1"))
    (folder / "fits.txt").write_text("y" * example.LARGEST)
    (folder / "large.txt").write_text("y" * (example.LARGEST + 1))
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo")

    status, out, _err = run(folder)

    assert status == 0
    assert skipped_in(out) == [
        "files: 10 found, 2 read, 8 skipped",
        "  1 skipped: binary",
        "  1 skipped: larger than 1000000 bytes",
        "  1 skipped: not a regular file",
        "  1 skipped: text, but not in UTF-8",
        "  1 skipped: unreadable (No such file or directory)",
        "  3 skipped: compiled, so not opened",
    ]
    assert [Path(path).name for _, path, _, _ in rows("out.db")[0]] in (
        ["good.txt", "fits.txt"],
        ["fits.txt", "good.txt"],
    )


@not_as_root
def test_what_may_not_be_read_is_skipped_and_counted(run, tmp_path):
    folder = make_folder(tmp_path / "folder", files=2, passages=1)
    (folder / "0.txt").chmod(0)
    (folder / "closed").mkdir(mode=0)

    status, out, _err = run(folder)

    assert status == 0
    assert skipped_in(out) == [
        "files: 3 found, 1 read, 2 skipped",
        "  1 skipped: unreadable (Permission denied)",
        "  1 skipped: unreadable folder",
    ]


def test_links_make_no_loop(run, tmp_path):
    """Links to folders are not followed, so that a loop of them has an end."""
    folder = make_folder(tmp_path / "folder", files=1, passages=1)
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")

    status, out, _err = run(folder)

    assert status == 0
    assert skipped_in(out) == [
        "files: 2 found, 1 read, 1 skipped",
        "  1 skipped: unreadable (Too many levels of symbolic links)",
    ]
    assert len(rows("out.db")[0]) == 1


def test_database_in_the_folder_is_not_indexed(run, tmp_path):
    """The database and its journal are left out, also of the count; a file with a similar name is not."""
    folder = make_folder(tmp_path / "folder", files=1, passages=1)
    (folder / "own.db.txt").write_text("mine")
    for new in (2, 0):
        status, out, _err = run(folder, db=folder / "own.db")

        assert status == 0
        assert skipped_in(out) == ["files: 2 found, 2 read, 0 skipped"]
        assert lines_with(out, "passages:") == [f"passages: 2 written, {new} of them new; 2 in {folder}/own.db"]


def test_name_that_is_no_text(run, tmp_path):
    """A file name of arbitrary bytes is shown with escapes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    try:
        Path(os.fsdecode(bytes(folder) + b"/caf\xe9.txt")).write_text("coffee")
    except OSError:
        pytest.skip("this file system takes no such name")

    status, out, _err = run(folder, "--query", "coffee")

    assert status == 0
    assert out.splitlines()[-1] == f"  {folder}/caf\\xe9.txt:1: [coffee]"


def test_escape_codes_are_shown_as_such(run, tmp_path):
    """In the names of folders and files, and in what is in them: none gets to the terminal."""
    folder = tmp_path / "fol\x1b[2Jder"
    folder.mkdir()
    (folder / "a\n\x1b]0;x\x07.txt").write_text("coffee \x1b[31m\x07 red")

    status, out, err = run(folder, "--query", "coffee", db=tmp_path / "in\x1b[2Jdex.db")

    assert (status, (out + err).replace("\n", "").isprintable()) == (0, True)
    path = f"{tmp_path}/fol\\x1b[2Jder/a\\n\\x1b]0;x\\x07.txt"
    assert out.splitlines()[-1] == f"  {path}:1: [coffee] \\x1b[31m\\x07 red"


@pytest.mark.parametrize("argument", ["no\x1b[2J\nfolder", "x\x1b[2J" * 100, "here\x1b[2J=much"])
def test_complaints_are_one_line_whatever_the_argument_holds(run, argument):
    status, out, err = run(argument)

    assert (status, out) == (2, "")
    assert err.endswith("\n") and err[:-1].isprintable()
    assert "\\x1b[2J" in err


def test_any_text_is_a_query(run, tmp_path):
    """The words of a query are words, never operators of the query language."""
    folder = make_folder(tmp_path / "folder", files=1, passages=1)

    status, out, _err = run(folder, "--query", 'NEAR( "* AND -- ^')

    assert status == 0
    assert out.splitlines()[-1] == "passages with 'NEAR( \"* AND -- ^': 0"


# The command line


@pytest.mark.parametrize(
    ("argument", "path", "weight"),
    [
        ("a", "a", 1),
        ("a=3", "a", 3),
        ("a=1/3", "a", Fraction(1, 3)),
        ("b=2", "b=2", 1),
        ("b=2=5", "b=2", 5),
        ("c=x", "c=x", 1),
        ("c=x=2", "c=x", 2),
        ("d", "d", 1),
        ("d=7", "d", 7),
        ("d=7=1", "d=7", 1),
        ("./=", "./=", 1),
    ],
)
def test_path_and_weight(example, tmp_path, monkeypatch, argument, path, weight):
    """A suffix that is a weight is one, unless only the whole is a folder; any other is part of the path."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b=2", "c=x", "d", "d=7", "="):
        Path(name).mkdir()

    assert example.folder_and_weight(argument) == (Path(path), weight)


def test_folders_of_one_name_are_told_apart(run, tmp_path):
    for parent in ("old", "new"):
        (tmp_path / parent / "docs").mkdir(parents=True)

    _status, out, _err = run("old/docs", "new/docs=2")

    assert lines_with(out, "input '") == ["input 'old/docs', weight 1:", "input 'new/docs', weight 2:"]


WEIGHT = "the weight of here must be an int or a fraction above 0, such as 3 or 1/3, not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist"),
        (["here", "missing=2"], "missing does not exist"),
        (["file"], "file is not a folder"),
        (["file/below"], "file/below does not exist"),
        (["x" * 300], f"cannot use {'x' * 300}: File name too long"),
        ([""], "a path is empty"),
        (["=2"], "a path is empty"),
        (["here=0"], f"{WEIGHT} '0'"),
        (["here=-1"], f"{WEIGHT} '-1'"),
        (["here=1.5"], f"{WEIGHT} '1.5'"),
        (["here=1/0"], f"{WEIGHT} '1/0'"),
        (["here=much"], f"{WEIGHT} 'much'"),
        (["here="], f"{WEIGHT} ''"),
        (["here", "./here/../here=2"], "the folder here/../here is given twice"),
        (["here", "link"], "the folder link is given twice"),
        (["here", "--query", " "], "--query must contain a word"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(run, tmp_path, arguments, message):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("here")

    assert run(*arguments) == (2, "", f"index_folders: {message}\n")
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(
    ("db", "problem"),
    [
        ("missing/out.db", "unable to open database file"),
        ("file/out.db", "unable to open database file"),
        ("here", "unable to open database file"),
        ("text", "file is not a database"),
        ("other.db", "it belongs to another program"),
    ],
)
def test_bad_database_is_one_line_and_stays_as_it_is(run, tmp_path, db, problem):
    folder = make_folder(tmp_path / "here", files=1, passages=1)
    (tmp_path / "file").touch()
    (tmp_path / "text").write_text("no database, but a text that is longer than the header of one" * 10)
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("CREATE TABLE passage (id)")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    assert run(folder, db=db) == (2, "", f"index_folders: cannot use {tmp_path}/{db} as the database: {problem}\n")
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@not_as_root
def test_database_that_may_not_be_written_is_one_line(run, tmp_path):
    """Both one that is there, and one that would have to be made."""
    folder = make_folder(tmp_path / "here", files=1, passages=1)
    (tmp_path / "closed").mkdir(mode=0o500)
    run(folder)
    (tmp_path / "out.db").chmod(0o400)

    for db, problem in (
        ("out.db", "attempt to write a readonly database"),
        ("closed/out.db", "unable to open database file"),
    ):
        assert run(folder, db=db) == (2, "", f"index_folders: cannot use {tmp_path}/{db} as the database: {problem}\n")


def test_new_database_that_cannot_be_made_is_removed(run, example, tmp_path, monkeypatch):
    """Half a schema does not stay."""
    folder = make_folder(tmp_path / "here", files=1, passages=1)
    monkeypatch.setattr(example, "SCHEMA", (*example.SCHEMA, "CREATE VIRTUAL TABLE more USING fts99(text)"))

    assert run(folder) == (
        2,
        "",
        f"index_folders: cannot use {tmp_path}/out.db as the database: no such module: fts99\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_failing_write_is_one_line_and_leaves_whole_batches(run, tmp_path):
    """An error of the database ends the run; nothing of the batch at which it happens is written."""
    folder = make_folder(tmp_path / "here", files=1, passages=2)
    run(folder)
    before = rows("out.db")
    with closing(sqlite3.connect("out.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON passage WHEN new.line = 221 BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    make_folder(tmp_path / "more", files=1, passages=15)

    status, out, err = run("more")

    assert status == 1
    assert err == f"index_folders: writing {tmp_path}/out.db failed: no room\n"
    assert lines_with(out, "passages") == [f"passages: 0 written, 0 of them new; 2 in {tmp_path}/out.db"]
    assert rows("out.db") == before


# The progress line


def test_progress_is_one_line_of_any_terminal(example, tmp_path):
    """What does not fit is left out as a whole, so that no number is cut."""
    files = example.Files(read=5, skipped=Counter(binary=1597))
    with example.open_index(tmp_path / "out.db") as index:
        index.written = 12_345
        shown = [example.progress(1.25, index, files, width) for width in range(1, 90)]

    assert all(len(line) < width for width, line in enumerate(shown, 1))
    assert list(dict.fromkeys(shown)) == [
        "",
        "   1.2 s",
        "   1.2 s  12,345 passages written",
        "   1.2 s  12,345 passages written, 1,597 files skipped",
    ]


@pytest.mark.skipif(os.name != "posix", reason="makes a terminal")
@pytest.mark.parametrize(
    ("environ", "is_rewritten"),
    [({"COLUMNS": "40"}, True), ({"COLUMNS": "", "TERM": "xterm"}, True), ({"TERM": "dumb"}, False)],
)
def test_progress_on_a_terminal(start, tmp_path, environ, is_rewritten):
    """Rewritten in place where that is possible, and not where the terminal knows no such thing."""
    make_folder(tmp_path / "folder", files=30, passages=25)
    ours, theirs = os.openpty()
    process = start("index_folders", "folder", stderr=theirs, env={"TERM": "xterm", **environ})
    out, _ = process.communicate(timeout=60)
    os.write(theirs, b"<end>")  # a terminal that no process has open may lose what it has not passed on
    shown = b""
    while not shown.endswith(b"<end>"):
        shown += os.read(ours, 1 << 16)
    os.close(ours)
    os.close(theirs)
    shown = shown.removesuffix(b"<end>").decode().replace("\r\n", "\n")

    assert (process.returncode, "passages: 750 written" in out) == (0, True)
    lines = shown.rstrip("\n").replace("\x1b[K", "").split("\r" if is_rewritten else "\n")
    assert ("\x1b" in shown) == ("\r" in shown) == is_rewritten
    assert not is_rewritten or "\n" not in shown.rstrip("\n")
    assert all(len(line) < (40 if environ.get("COLUMNS") else 80) for line in lines)


# Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to another process")
def test_interrupted_run_is_completed_by_the_next(run, start, tmp_path):
    """Ctrl-C leaves a sound database of whole batches; the next run makes of it what an undisturbed one makes."""
    folder = make_folder(tmp_path / "folder", files=300, passages=25)
    process = start("index_folders", "folder", "--db", "cut.db")
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert "passages written" in first
    assert process.returncode == 130
    assert err.splitlines()[-1] == "index_folders: interrupted; the same command completes the index"
    there = len(rows("cut.db")[0])
    assert 200 <= there < 7500
    assert there % 200 == 0
    assert lines_with(out, "passages:")[0].endswith(f"{there:,} in {tmp_path}/cut.db")
    assert run(folder, db="cut.db")[0] == run(folder, db="whole.db")[0] == 0
    assert rows("cut.db") == rows("whole.db")
    assert len(rows("whole.db")[0]) == 7500
