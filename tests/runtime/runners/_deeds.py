"""What functions do in worker processes: all that a program may. Each takes a folder that it may write to."""

import _thread
import contextlib
import faulthandler
import fcntl
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

# ---- standard streams


def prints(_folder):
    print("printed")
    return "done"


def prints_much(_folder):
    for _ in range(2000):
        print("x" * 1000)
    sys.stdout.buffer.write(b"y" * 1_000_000)
    return "done"


def writes_to_descriptors(_folder):
    os.write(1, b"RETURN 3\n123")
    os.write(2, b"to stderr\n")
    sys.stderr.write("more")
    return "done"


def writes_to_what_was_stdin(_folder):
    with contextlib.suppress(OSError):
        os.write(0, bytes(100))
    return "done"


def reads_lines(_folder):
    return input()


def reads_all(_folder):
    return sys.stdin.read(), sys.stdin.buffer.read(), os.read(0, 100)


def closes_streams(_folder):
    sys.stdin.close()
    sys.stdout.close()
    sys.stderr.close()
    return "done"


def closes_standard_descriptors(_folder):
    for number in range(3):
        with contextlib.suppress(OSError):
            os.close(number)
    return "done"


def replaces_stdout(_folder):
    sys.stdout = sys.stderr = None
    sys.stdout = object()
    return "done"


def closes_many(_folder):
    os.closerange(3, 200)
    return "done"


def closes_all(_folder):
    os.closerange(3, 10_000)
    return "lost"


KEPT = []


def opens_where_it_closed(folder):
    os.closerange(3, 10_000)
    KEPT.extend(open(Path(folder, f"mine {number}"), "wb") for number in range(40))  # noqa: SIM115
    return len(KEPT)


def puts_a_file_over_all(folder):
    with open(Path(folder, "mine"), "wb") as mine:
        for number in range(3, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0])):
            if number != mine.fileno():
                os.dup2(mine.fileno(), number)
        return "lost"


def makes_others_not_wait(_folder):
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL))
    return "done"


# ---- children and threads


def runs_a_program(_folder):
    subprocess.run(["echo", "from a child"], check=True)
    return subprocess.run(["cat"], stdout=subprocess.PIPE, check=True).stdout


def runs_a_program_that_keeps_descriptors(_folder):
    subprocess.run(["sh", "-c", "echo child; cat <&0; ls /proc/self/fd >/dev/null"], close_fds=False, check=True)
    return "done"


def leaves_a_program(_folder):
    subprocess.Popen(["sleep", "0.5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False)
    return "done"


def _say(queue):
    print("in a child")
    queue.put("done")


def _multiprocess(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_say, args=(queue,))
    child.start()
    said = queue.get()
    child.join()
    return said


def forks_a_process(_folder):
    return _multiprocess("fork")


def spawns_a_process(_folder):
    return _multiprocess("spawn")


def forks_and_both_return(_folder):
    if os.fork():
        os.wait()
        return "done"
    return "child"


def forks_and_the_child_raises(_folder):
    if os.fork():
        os.wait()
        return "done"
    raise ValueError("of the child")


def dies_and_a_child_lives(folder):
    if not os.fork():
        for number in (1, 2):
            os.close(number)
        Path(folder, f"child {os.getpid()}").touch()
        time.sleep(1000)
    os._exit(4)


def leaves_a_daemon_thread_that_prints(_folder):
    def go_on():
        while True:
            print("still here")
            time.sleep(0.001)

    threading.Thread(target=go_on, daemon=True).start()
    return "done"


def leaves_a_thread(_folder):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return "done"


def fails_in_a_thread(_folder):
    _thread.start_new_thread(sys.exit, ())
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    return "done"


def dies_in_a_thread(_folder):
    threading.Thread(target=os._exit, args=(5,)).start()
    time.sleep(1000)


# ---- endings


def leaves(_folder):
    os._exit(3)


def leaves_well(_folder):
    os._exit(0)


def exits(_folder):
    sys.exit(3)


def exits_with_a_text(_folder):
    sys.exit("that was it")


def interrupts(_folder):
    raise KeyboardInterrupt


def interrupts_itself(_folder):
    signal.raise_signal(signal.SIGINT)
    return "done"


class Stop(BaseException):
    pass


class StopThatCannotBeSent(BaseException):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class ExitThatCannotBeSent(SystemExit):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def stops(_folder):
    raise Stop("enough")


def stops_by_what_cannot_be_sent(_folder):
    raise StopThatCannotBeSent("enough")


def exits_by_what_cannot_be_sent(_folder):
    raise ExitThatCannotBeSent("enough")


def closes_a_generator(_folder):
    raise GeneratorExit("enough")


def is_killed(_folder):
    os.kill(os.getpid(), signal.SIGKILL)


def is_terminated(_folder):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)


def aborts(_folder):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.close(2)
    os.abort()


def becomes_another_program(_folder):
    os.execv("/bin/true", ["true"])


def becomes_a_program_that_waits(_folder):
    os.execv("/bin/sleep", ["sleep", "3"])


# ---- the process around it


def changes_folder(folder):
    os.chdir(folder)
    return "done"


def works_in_no_folder(folder):
    gone = Path(folder, f"gone {os.getpid()}")
    gone.mkdir(exist_ok=True)
    os.chdir(gone)
    gone.rmdir()
    return "done"


def forgets_the_path(_folder):
    sys.path[:] = []
    sys.argv[:] = []
    return "done"


def clears_its_environment(_folder):
    os.environ.clear()
    return "done"


def uses_faulthandler(_folder):
    faulthandler.enable()
    faulthandler.dump_traceback()
    faulthandler.dump_traceback_later(1000)
    return "done"


def is_ended_by_faulthandler(_folder):
    faulthandler.dump_traceback_later(0.01, exit=True)
    time.sleep(1000)


def is_alarmed(_folder):
    def raise_it(*_):
        raise TimeoutError("my own alarm")

    signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(1000)


def leaves_handlers(fifo):
    said = os.open(fifo, os.O_WRONLY)

    def raise_it(*_):
        os.write(said, b"x")
        raise TimeoutError("of a handler")

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, raise_it)
    return os.getpid()


def leaves_python_s_own_handler(_folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return os.getpid()


def holds_signals_back(_folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    return "done"


def sets_limits(_folder):
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    sys.setswitchinterval(1)
    socket.setdefaulttimeout(0.001)
    sys.setprofile(None)
    return "done"


def lowers_the_recursion_limit(_folder):
    sys.setrecursionlimit(60)
    return "done"


def turns_warnings_into_errors(_folder):
    warnings.simplefilter("error")
    return "done"


# ---- errors


def recurses(folder):
    return recurses(folder)


def recurses_by_two(folder):
    return recurses_by_one(folder)


def recurses_by_one(folder):
    return recurses_by_two(folder)


class NoArguments(Exception):
    def __init__(self):
        super().__init__("fixed text")


class NeedsTwo(Exception):
    def __init__(self, path, why):
        super().__init__(f"{path}: {why}")


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class CannotBeReduced(Exception):
    def __reduce__(self):
        raise OSError("no reduction")


class ReducesToNothing(Exception):
    def __reduce__(self):
        return str, ("no error at all",)


class ReducesToNone(Exception):
    def __reduce__(self):
        return None


class ExitsWhenReduced(Exception):
    def __reduce__(self):
        sys.exit(9)


class DiesWhenReduced(Exception):
    def __reduce__(self):
        os._exit(9)


class CannotBeMadeAgain(Exception):
    def __setstate__(self, state):
        raise OSError("not again")


class CannotBeShown(Exception):
    def __str__(self):
        raise OSError("no text")

    __repr__ = __str__


class ShowsNoText(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307


class ExitsWhenShown(Exception):
    def __str__(self):  # noqa: PLE0307
        sys.exit(9)


class OddText(str):
    __slots__ = ()


class ShowsAnOddText(Unpicklable):
    def __str__(self):
        return OddText("odd text")


class Falsy(Exception):
    def __bool__(self):
        return False


class Empty(Exception):
    def __len__(self):
        return 0


class CannotBeCompared(Exception):
    def __eq__(self, other):
        raise OSError("no comparison")

    __hash__ = None


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


@dataclass(frozen=True, slots=True)
class FrozenAndSlotted(Exception):
    code: int = 3


class RefusesAttributes(Exception):
    def __setattr__(self, name, value):
        raise OSError("no attributes")


class RefusesNotes(Exception):
    def add_note(self, note):
        raise OSError("no notes")


class HasItsOwnNotes(Exception):
    @property
    def __notes__(self):
        return ["its own"]


class FailsToHaveNotes(Exception):
    @property
    def __notes__(self):
        raise OSError("no notes")


class FailsToHaveACause(Exception):
    @property
    def __cause__(self):
        raise OSError("no cause")


class NoModule(Exception):
    __module__ = None


class OtherModule(Exception):
    __module__ = "a.module.that.is.not.there"


def with_notes(notes):
    error = ValueError("with notes")
    error.__notes__ = notes
    return error


def local_error():
    class Local(Exception):
        pass

    return Local("of a function")


def huge():
    return ValueError("x" * 5_000_000)


def huge_and_unpicklable():
    return Unpicklable("x" * 5_000_000)


def caused(error, cause):
    error.__cause__ = cause
    return error


def in_context(error, context):
    error.__context__ = context
    return error


def in_a_circle():
    first, second = ValueError("first"), KeyError("second")
    return caused(first, caused(second, first))


def behind_many():
    error = ValueError("the first")
    for number in range(500):
        error = caused(ValueError(number), error)
    return error


ERRORS = {
    "plain": lambda: ValueError("some text"),
    "own": lambda: NoArguments(),
    "needs two": lambda: NeedsTwo("/path", "is bad"),
    "unpicklable": lambda: Unpicklable("the table is locked"),
    "cannot be reduced": lambda: CannotBeReduced("the text"),
    "reduces to nothing": lambda: ReducesToNothing("the text"),
    "reduces to None": lambda: ReducesToNone("the text"),
    "exits when reduced": lambda: ExitsWhenReduced("the text"),
    "cannot be made again": lambda: with_attribute(CannotBeMadeAgain("the text")),
    "cannot be shown": lambda: CannotBeShown(),
    "shows no text": lambda: ShowsNoText(),
    "exits when shown": lambda: ExitsWhenShown(),
    "shows an odd text": lambda: ShowsAnOddText("text"),
    "falsy": lambda: Falsy("the text"),
    "empty": lambda: Empty("the text"),
    "cannot be compared": lambda: CannotBeCompared("the text"),
    "frozen": lambda: Frozen(7),
    "frozen, with slots": lambda: FrozenAndSlotted(),
    "refuses attributes": lambda: RefusesAttributes("the text"),
    "refuses notes": lambda: RefusesNotes("the text"),
    "has its own notes": lambda: HasItsOwnNotes("the text"),
    "fails to have notes": lambda: FailsToHaveNotes("the text"),
    "fails to have a cause": lambda: FailsToHaveACause("the text"),
    "no module": lambda: NoModule("the text"),
    "another module": lambda: OtherModule("the text"),
    "local": local_error,
    "notes are None": lambda: with_notes(None),
    "notes are no list": lambda: with_notes(("a", "b")),
    "notes are a number": lambda: with_notes(5),
    "notes that cannot be sent": lambda: with_notes([threading.Lock()]),
    "a hundred notes": lambda: with_notes(list(map(str, range(100)))),
    "huge": huge,
    "huge and unpicklable": huge_and_unpicklable,
    "no text": lambda: ValueError(),
    "odd arguments": lambda: ValueError(None, b"bytes", ("a", 1)),
    "surrogates": lambda: ValueError("\udcff"),
    "unpicklable arguments": lambda: ValueError(threading.Lock()),
    "of the system": lambda: FileNotFoundError(2, "no such thing", "/nowhere"),
    "of unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "of syntax": lambda: SyntaxError("bad", ("file.py", 3, 1, "x =", 3, 4)),
    "an assertion": lambda: AssertionError(),
    "a stop": lambda: StopIteration(3),
    "an async stop": lambda: StopAsyncIteration(3),
    "no memory": lambda: MemoryError(),
    "a group": lambda: ExceptionGroup("two", [ValueError("one"), OSError("two")]),
    "an unpicklable group": lambda: ExceptionGroup("two", [ValueError("one"), Unpicklable("two")]),
    "a group of groups": lambda: ExceptionGroup("outer", [ExceptionGroup("inner", [Unpicklable("deep")])]),
    "a large group": lambda: ExceptionGroup("many", [Unpicklable(number) for number in range(300)]),
    "a cause": lambda: caused(ValueError("the text"), OSError("the cause")),
    "an unpicklable cause": lambda: caused(ValueError("the text"), Unpicklable("the cause")),
    "an unpicklable context": lambda: in_context(ValueError("the text"), Unpicklable("the context")),
    "in a circle": in_a_circle,
    "behind many": behind_many,
}


def with_attribute(error):
    error.attribute = 1
    return error


def raises(name, _folder):
    """Raise an error, two functions deep."""
    raise_it(name)


def raise_it(name):
    raise ERRORS[name]()


def dies_when_reduced(_folder):
    raise DiesWhenReduced


# ---- results


class CannotBeLoaded:
    def __reduce__(self):
        return refuse, ("cannot be loaded",)


def refuse(text):
    raise EOFError(text)


class CannotBeSent:
    def __reduce__(self):
        raise OSError("cannot be sent")


class ExitsWhenSent:
    def __reduce__(self):
        sys.exit(9)


def deep():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested


RESULTS = {
    "a lambda": lambda: lambda: None,
    "a lock": threading.Lock,
    "a generator": lambda: (_ for _ in ()),
    "cannot be sent": CannotBeSent,
    "cannot be loaded": CannotBeLoaded,
    "very deep": deep,
    "a module": lambda: os,
}


def gives(name, _folder):
    return RESULTS[name]()


def gives_nothing(_folder):
    return None


def gives_an_error(_folder):
    return ValueError("as a value")


def gives_much(_folder):
    return bytes(3_000_000)


def exits_when_sent(_folder):
    return ExitsWhenSent()


# ---- calls that never end


def hangs(_folder):
    time.sleep(1000)


def hangs_and_holds_all_signals(_folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(1000)


def computes_for_ever(_folder):
    while True:
        pass


def is_stopped(_folder):
    os.kill(os.getpid(), signal.SIGSTOP)


class HangsWhenSent:
    def __reduce__(self):
        time.sleep(1000)


def hangs_when_sent(_folder):
    return HangsWhenSent()


def waits_for_a_program(_folder):
    subprocess.run(["sleep", "3"], check=True)


# ---- one call and the next


def dies_behind_its_answer(_item):
    write = os.write

    def write_and_die(descriptor, data):
        write(descriptor, data)
        os._exit(0)

    os.write = write_and_die
    return "done"


def meets_its_fate(number):
    if number % 20 == 0:
        os._exit(1)
    if number % 20 == 1:
        raise ValueError(number)
    if number % 20 == 2:
        time.sleep(1000)
    return number * 10
