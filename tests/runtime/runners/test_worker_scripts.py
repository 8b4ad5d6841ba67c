"""Programs with functions of their own for worker processes: what is the script's comes back as the script's.

Each program is written, and run as people run programs: by its file, as a module, as a folder, from a zip file.

Mutants that die here: classes that come back as those of ``__mp_main__``; a main module that is loaded by its file, so
that it has no package; output that is thrown away, or gets into the answers; a program that starts itself again.
"""

import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run_python(*arguments, folder, input=""):
    """Run a program to its end, with a limit in real time; and what it prints."""
    with open(folder / "out", "w+") as out, open(folder / "err", "w+") as err:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            input=input,
            stdout=out,
            stderr=err,
            text=True,
            timeout=100,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        return done.returncode, out.read(), err.read()


OWN = """
{first}
import enum, sys
from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple
import trio
from funcpipe_trio import Backoff, OnError, Pipeline, Retry, Step, WorkerError, processes

@dataclass
class Row:
    number: int

class Colour(enum.Enum):
    RED = 1

class Point(NamedTuple):
    x: int

Pair = namedtuple("Pair", "left right")

class Outer:
    class Inner:
        def __eq__(self, other):
            return type(other) is type(self)

class Refused(Exception):
    pass

class Stop(BaseException):
    pass

def same(value):
    assert type(value) in (Row, Colour, Point, Pair, Outer.Inner, type, type(same), Refused), type(value)
    return value

def make(name):
    return {{"row": Row(1), "colour": Colour.RED, "point": Point(1), "pair": Pair(1, 2), "inner": Outer.Inner(),
            "class": Row, "function": same, "error": Refused("given")}}[name]

def refuse(number):
    raise Refused(number)

def refuse_many(number):
    raise ExceptionGroup("many", [Refused(number)])

def stop(number):
    raise Stop(number)

async def outcome(step, item):
    try:
        return await step(item)
    except BaseException as error:
        return error

async def main():
    on = processes(2)
    for name in ("row", "colour", "point", "pair", "inner", "class", "function"):
        value = await Step(make).on(on)(name)
        assert value == make(name), (name, value)
        assert value == await Step(same).on(on)(value)
    given = await Step(make).on(on)("error")
    assert type(given) is type(await Step(same).on(on)(given)) is Refused
    error = await outcome(Step(refuse).on(on).retry(Retry(3, Refused, Backoff(0))), 7)
    assert type(error) is Refused and error.args == (7,)
    assert "attempt 3 of 3" in error.__notes__[-1], error.__notes__
    assert "in refuse\\n" in error.__notes__[0], error.__notes__
    assert "raise Refused(number)" in error.__notes__[0] or sys.argv[0].endswith("zip"), error.__notes__
    assert "__mp_main__" not in error.__notes__[0], error.__notes__
    group = await outcome(Step(refuse_many).on(on), 7)
    assert [type(each) for each in group.exceptions] == [Refused]
    assert type(await outcome(Step(stop).on(on), 7)) is Stop
    skipped = await Pipeline.from_iterable([1]).map(Step(refuse).on(on), on_error=OnError.emit()).collect()
    assert type(skipped[0].error) is Refused
    print("right", __name__, sys.argv[1:])

if __name__ == "__main__":
    {last}
    trio.run(main)
"""

FIRST = {
    "alone": "",
    "with multiprocessing": "import multiprocessing",
    "with concurrent.futures": "import concurrent.futures.process",
    "where another has the name": "import sys, math; sys.modules['__mp_main__'] = math",
    "that looks at its arguments": "import sys; assert int(sys.argv[1]) == 5",
    "that prints": "print('loaded'); import sys; sys.stdout.flush()",
    "that writes to descriptors": "import os; os.write(1, b'RETURN 3\\n')",
    "that reads": "import sys; sys.stdin.read()",
    "that runs a program": "import subprocess; subprocess.run(['cat'], check=True)",
    "that changes folder": "import os; os.chdir('/')",
}


@pytest.mark.parametrize("kind", FIRST)
def test_what_is_the_scripts_own_comes_back_as_its_own(kind, tmp_path):
    """Whatever else it imports or does as it is loaded: values, and errors that a policy means."""
    (tmp_path / "script.py").write_text(OWN.format(first=FIRST[kind], last=""))

    status, out, err = run_python("script.py", "5", folder=tmp_path)

    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "right __main__ ['5']"


WAYS = {
    "by its file": (["script.py"], "script.py"),
    "by a file without a suffix": (["script"], "script"),
    "from another folder": (["inner/script.py"], "inner/script.py"),
    "as a module": (["-m", "script"], "script.py"),
    "as a module of a package": (["-m", "package.script"], "package/script.py"),
    "as a package": (["-m", "package"], "package/__main__.py"),
    "as a folder": (["folder"], "folder/__main__.py"),
    "isolated from its folder": (["-P", "script.py"], "script.py"),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_does_however_the_script_is_run(way, tmp_path):
    """Relative imports, too, where it is a module of a package."""
    arguments, path = WAYS[way]
    (tmp_path / path).parent.mkdir(exist_ok=True)
    first = ""
    if path.startswith("package"):
        (tmp_path / "package" / "other.py").write_text("value = 1")
        first = "from . import other; from .other import value"
    (tmp_path / path).write_text(OWN.format(first=first, last=""))

    status, out, err = run_python(*arguments, folder=tmp_path)

    assert (status, err) == (0, "")
    assert out == "right __main__ []\n"


def test_it_does_from_a_zip_file(tmp_path):
    """Of which `python` runs the main module."""
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", OWN.format(first="import other", last=""))
        archive.writestr("other.py", "value = 1")

    status, out, err = run_python("program.zip", folder=tmp_path)

    assert (status, err) == (0, "")
    assert out == "right __main__ []\n"


PROGRAM = """
from .work import main
print("begins", flush=True)
main()
"""

WORK = """
import trio
from funcpipe_trio import Step, processes

class Row:
    pass

def make(number):
    return Row()

def main():
    print(type(trio.run(Step(make).on(processes(1)), 1)) is Row)
"""


def test_a_package_that_is_only_a_program_does_not_run_again(tmp_path):
    """Its ``__main__`` never asks what it is called; its functions are in other modules."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "package" / "work.py").write_text(WORK)

    assert run_python("-m", "package", folder=tmp_path) == (0, "begins\nTrue\n", "")


INNER = """
import sys, trio
from funcpipe_trio import Pipeline, Step, processes

class Row:
    pass

def make(number):
    return Row()

def make_inside(number):
    made = trio.run(Step(make).on(processes(1)), number)
    assert type(made) is Row
    return made

if __name__ == "__main__":
    assert type(trio.run(Step(make_inside).on(processes(1)), 1)) is Row
    print("right")
"""


def test_a_function_in_a_worker_may_have_workers_of_its_own(tmp_path):
    """Whose classes are the script's, too."""
    (tmp_path / "script.py").write_text(INNER)

    assert run_python("script.py", folder=tmp_path) == (0, "right\n", "")


TYPED_IN = """
import trio
from funcpipe_trio import Step, processes

def work(number):
    return number

try:
    trio.run(Step(work).on(processes(1)), 1)
except TypeError as error:
    print(error)
"""


@pytest.mark.parametrize("way", ["an argument", "standard input"])
def test_a_program_without_a_file_says_that_its_functions_cannot_be_loaded(way, tmp_path):
    """There is nothing that a worker could load them from."""
    arguments = {"an argument": ["-c", TYPED_IN], "standard input": ["-"]}[way]

    status, out, err = run_python(*arguments, folder=tmp_path, input=TYPED_IN)

    assert (status, err) == (0, "")
    assert out.startswith(
        "processes: the function of work must load from its pickle, which it does not: AttributeError: "
    )
    assert "\nUse what pickle takes: plain data, and classes and functions at the top of a module.\n" in out


# ---- what cannot be loaded

BAD = """
import os, sys, time
from pathlib import Path
import trio
from funcpipe_trio import Step, WorkerDied, processes
{first}

def work(number):
    return number

async def main():
    step = Step(work).on(processes(1)).start()
    for _ in range(2):
        try:
            print(await step(1))
        except WorkerDied as error:
            print(str(error))
            print(type(error.__cause__).__name__, *getattr(error.__cause__, "__notes__", ()))

if __name__ == "__main__":
    trio.run(main)
"""

CANNOT = "a worker process could not load the main module: "
DIED = "a worker process died while it loaded the main module: "
GUARD = """\nUse `if __name__ == "__main__":` for what only the program itself should do.\n"""
IN_WORKER = "if __name__ != '__main__': "

CASES = {
    "raises": (
        IN_WORKER + "raise LookupError('no such thing')",
        CANNOT + "LookupError in {}, line 6: no such thing" + GUARD,
    ),
    "imports what is not there": (IN_WORKER + "import nowhere", CANNOT + "ModuleNotFoundError in {}, line 6: "),
    "exits": (IN_WORKER + "sys.exit(7)", CANNOT + "SystemExit in {}, line 6: 7" + GUARD),
    "is interrupted": (IN_WORKER + "raise KeyboardInterrupt", CANNOT + "KeyboardInterrupt in {}, line 6: " + GUARD),
    "leaves": (IN_WORKER + "os._exit(7)", DIED + "it ended with status 7"),
    "is killed": (IN_WORKER + "os.kill(os.getpid(), 9)", DIED + "it was killed (SIGKILL)"),
    "closes all": (IN_WORKER + "os.closerange(3, 10_000)", DIED),
    "raises what cannot be sent": (
        "class Odd(Exception):\n    def __reduce__(self): raise self\n" + IN_WORKER + "raise Odd('text')",
        CANNOT + "Odd in {}, line 8: text" + GUARD,
    ),
    "raises deep inside": (
        IN_WORKER + "import other",
        CANNOT + "ZeroDivisionError in {other}, line 2: division by zero" + GUARD,
    ),
    "is not Python any more": (
        "Path(__file__).write_text('x = (\\n')",
        CANNOT + "SyntaxError in {}, line ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_main_module_that_cannot_be_loaded_says_why_and_where(case, tmp_path):
    """In the message, with file and line; at each call, and nothing hangs."""
    first, expected = CASES[case]
    script = tmp_path / "script.py"
    script.write_text(BAD.format(first=first))
    (tmp_path / "other.py").write_text("\nvalue = 1 / 0\n")

    status, out, err = run_python("script.py", folder=tmp_path)

    expected = expected.replace("{other}", str(tmp_path / "other.py")).replace("{}", str(script))
    assert (status, err) == (0, "")
    assert out.count(expected) == 2


def test_a_main_module_that_never_ends_to_load_is_ended(tmp_path):
    """By the worker itself, which shows where it was."""
    hang = f"import time\n{IN_WORKER} time.sleep(1000)\n"
    limit = "from funcpipe_trio._runtime.runners import worker_processes; worker_processes.START_LIMIT = 0.5"
    (tmp_path / "script.py").write_text(hang + BAD.format(first=limit))

    status, out, err = run_python("script.py", folder=tmp_path)

    assert status == 0
    assert out.count(DIED + "it ended with status 1") == 2
    assert err.count(f'File "{tmp_path / "script.py"}", line 2 in <module>') == 2


def test_a_script_without_its_guard_does_not_start_itself_again_and_again(tmp_path):
    """It is told so in the worker that loads it, and there are no workers of workers."""
    script = BAD.replace('if __name__ == "__main__":\n    trio', "print('begins')\ntrio").format(first="")
    (tmp_path / "script.py").write_text(script.replace("except WorkerDied", "except ZeroDivisionError"))

    status, out, err = run_python("script.py", folder=tmp_path)

    assert status == 1
    assert out.count("begins") == 2
    assert "StateError: processes: a worker must not start workers while it loads the main module" in err
    assert re.search(r"WorkerDied: a worker process could not load the main module: .*StateError in ", err)


# ---- output

LOUD = """
import os, subprocess, sys, threading, time, trio
from pathlib import Path
from funcpipe_trio import Pipeline, Step, WorkerDied, processes

def say(number):
    print("printed", number)
    print("without an end", end=" ")
    sys.stdout.flush()
    sys.stdout.buffer.write(b"bytes\\n")
    sys.stdout.flush()
    os.write(1, b"by descriptor\\n")
    subprocess.run(["echo", "by a child"], check=True)
    sys.stdout.write("left in the buffer")
    print("to stderr", file=sys.stderr)

def die(number):
    print("before it died")
    os._exit(1)

def hang(mark):
    print("before it was killed")
    mark.touch()
    time.sleep(1000)

def leave_a_thread(mark):
    threading.Thread(target=later, args=(mark,), daemon=True).start()

def later(mark):
    time.sleep(0.1)
    print("of a thread")
    mark.touch()

async def there(mark):
    while not mark.exists():
        await trio.sleep(0.01)

async def main():
    on = processes(1)
    await Step(say).on(on)(1)
    print("", flush=True)
    try:
        await Step(die).on(on)(1)
    except WorkerDied:
        print("died", flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Step(hang).on(on), mark := Path("hangs"))
        await there(mark)
        nursery.cancel_scope.cancel()
    print("killed", flush=True)
    await Step(leave_a_thread).on(on)(mark := Path("printed"))
    await there(mark)

if __name__ == "__main__":
    trio.run(main)
"""


def test_what_functions_print_is_printed(tmp_path):
    """All of it, in its order, by whatever way, and also if the worker dies or is killed then."""
    (tmp_path / "script.py").write_text(LOUD)

    status, out, err = run_python("script.py", folder=tmp_path)

    assert status == 0
    assert out.splitlines() == [
        "printed 1",
        "without an end bytes",
        "by descriptor",
        "by a child",
        "left in the buffer",
        "before it died",
        "died",
        "before it was killed",
        "killed",
        "of a thread",
    ]
    assert err == "to stderr\n"


ORPHAN = """
import os, signal, sys, time, trio
from funcpipe_trio import Step, processes

def pid(number):
    return os.getpid()

async def main():
    print(await Step(pid).on(processes(1))(1), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    trio.run(main)
"""


def test_a_worker_ends_when_its_program_is_killed(tmp_path):
    """It waits for orders, and sees that none will come: then nobody holds its standard output any more."""
    (tmp_path / "script.py").write_text(ORPHAN)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, stdout=subprocess.PIPE) as program:
        out, _err = program.communicate(timeout=100)

    assert int(out) != program.pid
    assert program.returncode == -signal.SIGKILL
