"""The program of a worker process: how does it stay in step with its parent, whatever the functions do that it runs?

It is run by its path, stands alone, and needs nothing of this package. Its parent sends how to begin, then orders, one
at a time; each gets one answer: a letter for its kind, a length, and bytes. The other end is `worker_processes`.

* Functions have the standard streams for themselves. Orders come by what is standard input when the process begins; it
  is moved out of the way of functions and their children, which read nothing there.
* Whatever is raised, in any step of a call, is an answer: plain data that any parent can load, with the error itself as
  a pickle (`told`). What cannot be answered ends the process, which the parent sees.
* Signals are held back except while a function runs or the worker is idle. So a handler that a function left here,
  which may raise, does not strike in the middle of an order or an answer.
* A child that a function forked never answers. Nor does a worker write to a descriptor that a function has closed,
  though it was not its own, and opened again as something else.

It ends when its parent has gone, or has closed the connection.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib.machinery
import importlib.util
import io
import os
import resource
import select
import signal
import sys
import traceback
from _signal import pthread_sigmask  # type: ignore[import-not-found]  # the public one takes as long as a whole call
from collections.abc import Callable, Iterator
from functools import partial
from pickle import HIGHEST_PROTOCOL, dumps, loads
from types import CodeType, ModuleType
from typing import Any, NoReturn

LENGTH = 8
"""Bytes of a length."""
HEAD = 1 + LENGTH
"""Bytes of an answer before its content."""
MAIN = "__mp_main__"
"""Name of the main module in a worker, as in `multiprocessing`: so it does not run as a program."""
LOADING = "__worker_is_loading__"
"""An attribute that the main module has while a worker loads it."""
CLOSED = 113
"""Exit status of a worker that cannot answer, because a function closed the descriptor that its answer goes by."""

_MOST_TEXT = 10_000
"""Characters of a text of user code that are sent."""
_MOST_TRACE = 50_000
"""Characters of a traceback that are sent."""
_MOST_ERRORS = 64
"""Errors that are sent with one: the parts of a group, causes and contexts."""
_ALL_SIGNALS = signal.valid_signals()


def main() -> NoReturn:
    """Run a worker until its parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes: the parent decides
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a worker may be killed at any time
    signals, parent = _Signals(), _Parent()
    start = loads(parent.receive())
    if start.get("drains"):
        _leave_sigterm_to_the_parent()
    sys.path[:], sys.argv[:] = start["path"], start["argv"]
    faulthandler.dump_traceback_later(start["seconds"], exit=True, file=2)
    answer = _answer(signals, _Load(start["name"], start["file"]))
    faulthandler.cancel_dump_traceback_later()
    parent.send(*answer)
    while True:
        signals.wait(parent)
        parent.send(*_answer(signals, _Call(parent.receive())))  # no name keeps it: it may be large, and the wait long


def _leave_sigterm_to_the_parent() -> None:
    """Do nothing at a SIGTERM: supervisors send it to all processes, and the parent still needs its workers to drain.

    What a function starts is not spared: another program has no such handler, and a fork gives it up. Until it has, the
    signal is held back.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    masks: list[set[int]] = []  # of threads that fork now

    def hold() -> None:
        masks.append(pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))

    def let_in() -> None:
        pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def give_up() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_in()

    os.register_at_fork(before=hold, after_in_parent=let_in, after_in_child=give_up)


def _answer(signals: _Signals, action: _Call | _Load) -> tuple[bytes, bytes]:
    """Carry out an order, and return its answer: a letter, and its content."""
    try:
        try:
            answer = b"R", action(signals)
        except BaseException as error:  # or the error of a signal handler, which struck meanwhile
            signals.held(_hold())
            answer = action.letter, dumps(_told(error), HIGHEST_PROTOCOL)
    except BaseException as error:  # of a handler that struck as the first error came here
        answer = action.letter, dumps(_told(error), HIGHEST_PROTOCOL)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):  # a function may have put any object there
            stream.flush()
    return answer


class _Call:
    """Make a call. Its order is the length of the first pickle, that pickle (the function), and another (the item)."""

    letter = b"F"
    """Where an error comes from: loading the function (F) or the item (I), the call (E), pickling its result (P)."""

    def __init__(self, order: bytearray) -> None:
        self._order = memoryview(order)  # the bytes of the order, which are large: they are not copied

    def __call__(self, signals: _Signals) -> bytes:
        end = LENGTH + int.from_bytes(self._order[:LENGTH], "big")
        fn = loads(self._order[LENGTH:end])
        self.letter = b"I"
        item = loads(self._order[end:])
        self.letter = b"E"
        signals.let_in()
        result = fn(item)
        signals.hold()
        self.letter = b"P"
        pickled = dumps(result, HIGHEST_PROTOCOL)
        self.letter = b"E"
        return pickled


class _Load:
    """Load the main module of the parent: by its name if it was run by ``python -m``, or else by its file."""

    letter = b"M"
    """Where an error comes from: the main module."""

    def __init__(self, name: str | None, file: str | None) -> None:
        self._name = name  # of the module, or None if the program was run by its file
        self._file = file  # of the module; None if there is nothing to load

    def __call__(self, signals: _Signals) -> bytes:
        signals.let_in()
        module = ModuleType(MAIN)
        self._name_it(module)
        code = self._code(module)
        if code is not None:
            setattr(module, LOADING, True)
            exec(code, module.__dict__)
            delattr(module, LOADING)
            self._name_it(module)  # it may have given the names to another module
        signals.hold()
        return b""

    def _name_it(self, module: ModuleType) -> None:
        sys.modules["__main__"] = sys.modules[MAIN] = module

    def _code(self, module: ModuleType) -> CodeType | None:
        if self._name is None:
            if self._file is None:
                return None
            module.__file__ = self._file
            with io.open_code(self._file) as file:
                return compile(file.read(), self._file, "exec", dont_inherit=True)
        # A folder, or a zip file, that is run by its path: its __main__ is in the first entry of the path.
        find = importlib.machinery.PathFinder.find_spec if self._name == "__main__" else importlib.util.find_spec
        spec = find(self._name)
        if spec is None:
            raise ModuleNotFoundError(f"there is no module {self._name!r}")
        module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, spec.parent
        module.__file__ = spec.origin
        code: CodeType = spec.loader.get_code(self._name)  # type: ignore[union-attr]  # the parent was run by it
        is_program = self._name.rpartition(".")[2] == "__main__" and "__name__" not in code.co_names
        return None if is_program else code  # code that never asks for its name would run as a program here too


class _Parent:
    """The connection to the parent: whole orders come in, whole answers go out."""

    def __init__(self) -> None:
        most, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._descriptor = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, min(most, 4096) - 1 if most > 3 else 3)
        """By which orders come and answers go. High: a function that closes many descriptors rarely gets so far."""
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        if nothing:
            os.close(nothing)
        self._is = self._identity()  # what the descriptor was opened as: a function may close it, and open another
        self._process = os.getpid()  # that of the worker: a child that a function forked has another
        self._poll = select.poll()  # waits for an order
        self._poll.register(self._descriptor, select.POLLIN)

    def wait(self) -> None:
        """Wait until an order comes."""
        self._poll.poll()

    def receive(self) -> bytearray:
        return self._read(int.from_bytes(self._read(LENGTH), "big"))

    def send(self, letter: bytes, told: bytes) -> None:
        if os.getpid() != self._process or self._identity() != self._is:
            leave(CLOSED)
        view = memoryview(b"".join((letter, len(told).to_bytes(LENGTH, "big"), told)))
        while view:
            view = view[self._done(os.write, view) :]

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            view = view[self._done(os.readv, [view]) :]
        return data

    def _done(self, transfer: Callable[[int, Any], int], data: Any) -> int:
        try:
            count = transfer(self._descriptor, data)
        except OSError:
            count = 0
        return count or leave(0)

    def _identity(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = os.fstat(self._descriptor)
            return found.st_dev, found.st_ino
        return None


_hold = partial(pthread_sigmask, signal.SIG_BLOCK, _ALL_SIGNALS)
"""Hold signals back: call it first where an error is caught, because other Python code would let handlers in before.

It returns the mask from before. It raises what the handlers of pending signals raise; signals are held back then too.
"""


class _Signals:
    """Signals, held back from now on except where they are let in."""

    def __init__(self) -> None:
        self._mask: set[int] = set()  # the mask to let them in with; a function may change it
        self.hold()

    def let_in(self) -> None:
        """Let them in. What the handlers of pending ones raise is kept from the caller, unlike that of later ones."""
        _until_quiet(lambda: pthread_sigmask(signal.SIG_SETMASK, self._mask))

    def hold(self) -> None:
        """Hold them back. What the handlers of pending ones raise is kept from the caller."""
        _until_quiet(lambda: self.held(_hold()))

    def held(self, mask: set[int]) -> None:
        """Keep the mask from before they were held back: a function may have changed it."""
        if len(mask) < len(_ALL_SIGNALS) // 2:  # otherwise they were held back already
            self._mask = mask

    def wait(self, parent: _Parent) -> None:
        """Let them in until an order comes."""

        def wait() -> None:
            self.let_in()
            parent.wait()
            self.hold()

        _until_quiet(wait)


def _until_quiet(action: Callable[[], object]) -> None:
    """Repeat an action until no signal handler strikes in it. What the handlers raise is kept from the caller."""
    while True:
        try:
            try:
                action()
                return
            except BaseException as error:
                _hold()
                _told_to_nobody(error)
        except BaseException as error:  # of a handler that struck as the first error came here
            _told_to_nobody(error)


def _told_to_nobody(error: BaseException) -> None:
    """Show what a handler raised while no call was running, as Python does with an error that is not caught."""
    if isinstance(error, SystemExit):
        leave(0)
    if not isinstance(error, KeyboardInterrupt):
        with contextlib.suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)


def leave(status: int) -> NoReturn:
    """End this process at once, without waiting for its threads and children."""
    os._exit(status)


# ---- errors as plain data


def _told(error: BaseException) -> dict[str, Any]:
    try:
        return told(error, iter(range(_MOST_ERRORS)))
    except BaseException as worse:  # the attributes of an error may be user code
        return told(RuntimeError(f"a {_plain(lambda: _name(type(error)))} that makes {type(worse).__name__}"), iter(()))


def told(error: BaseException, left: Iterator[int]) -> dict[str, Any]:
    """Return an error as plain data: its pickle, if it can be made, and its texts; its parts, its cause or context.

    Args:
      error: the error.
      left: yields a value for each further error that may be sent.
    """
    before, is_cause = _asked(error, "__cause__"), True
    if before is None and not _asked(error, "__suppress_context__"):
        before, is_cause = _asked(error, "__context__"), False
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    all_told = [told(part, left) for part in parts if next(left, None) is not None]
    return {
        "pickled": _pickled(error),
        "name": _plain(lambda: _name(type(error))),
        "text": _plain(lambda: error.message if isinstance(error, BaseExceptionGroup) else str(error)),
        "trace": _plain(lambda: _trace(error), _MOST_TRACE),
        "ends": next(kind.__name__ for kind in _ENDS if isinstance(error, kind)),
        "parts": all_told if len(all_told) == len(parts) else [],
        "before": None if before is None or next(left, None) is None else told(before, left),
        "is_cause": is_cause,
    }


_ENDS = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException)


def _asked(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name)
    except BaseException:  # the attribute may be user code
        return None


def _pickled(error: BaseException) -> bytes | None:
    try:
        return dumps(error, HIGHEST_PROTOCOL)
    except BaseException:  # pickling runs user code
        return None


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__", MAIN) else f"{module}.{kind.__qualname__}"


def _trace(error: BaseException) -> str:
    """Return the lines of the user's code that an error came through, and its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        lines = traceback.format_exception(type(error), error, trace, chain=False)
    except BaseException:  # as above
        lines = traceback.format_tb(trace)
    return "".join(lines).replace(f"{MAIN}.", "")


def _plain(make: Callable[[], str], most: int = _MOST_TEXT) -> str:
    """Return a text that user code makes as a plain `str`, not too long."""
    try:
        text = "".join(("", make()))  # never a subclass of str, which the parent may not know
    except BaseException as error:
        return f"<not to be shown, {type(error).__name__}>"
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... {len(text) - most} characters ...\n{text[-(most // 2) :]}"


if __name__ == "__main__":
    main()
