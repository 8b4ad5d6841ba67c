"""How these programs begin and end: in a line, also when they are stopped, or nobody reads what they print.

Each of them calls `begin` before its other imports and gives `run` its `main`. What Python would show otherwise is a
traceback of wherever it was: at Ctrl-C while it still imports or already ends, and at a pipe that was closed, as by
``| head -1``. Only Ctrl-C before the first line of a program has run, in the first hundredths of a second, is still
Python's own: it may end in a traceback of ``site``, or of no line at all.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

CLOSED_PIPE = 141  # what a shell says of a program that SIGPIPE has ended


def begin() -> None:
    """Let Ctrl-C end the program in a line from here on, and what it prints be lost where nothing takes it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, leave)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file or socket would be taken for it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every name


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program and exit with its status, or with that of what stopped it."""
    is_interruptible = signal.getsignal(signal.SIGINT) is leave
    status = status_of(main, is_interruptible=is_interruptible)
    if is_interruptible:  # however it ended: what is left to do says nothing of what was done
        signal.signal(signal.SIGINT, leave)
    if lost := status_of(sys.stdout.flush):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python itself flushes once more
    sys.exit(status or lost)


def status_of(call: Callable[[], int | None], *, is_interruptible: bool = False) -> int:
    """Give the exit status of a call, or of what stopped it; in groups, too, since nurseries make them."""
    status = 0
    try:
        if is_interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = call() or 0
        if is_interruptible:
            signal.signal(signal.SIGINT, leave)  # in here, so that no moment is left out
    except* SystemExit as stop:  # of `argparse`
        status = getattr(first(stop), "code", 0) or 0
    except* KeyboardInterrupt:
        status = say("interrupted", 130)
    except* BrokenPipeError:  # of what it prints: trio has another error for sockets
        status = CLOSED_PIPE
    except* OSError as failed:
        status = say(str(first(failed)), 1)
    return status


def first(error: BaseException) -> BaseException:
    """Give the first error in a group, and in the groups in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def leave(number: int, frame: object) -> None:
    """End at once, without a KeyboardInterrupt: it may come up where Python prints it and goes on."""
    os._exit(say("interrupted", 130))


def say(message: str, status: int) -> int:
    """Say in a line what ended the program, if anybody listens; give the exit status back."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    with suppress(OSError):
        os.write(2, f"{name}: {message}\n".encode(errors="backslashreplace"))
    return status
