"""How do these programs begin and end? With a single line, even if they are stopped or their output is not read.

Each of them calls `begin` before its other imports and passes its `main` to `run`. Otherwise Python would show a
traceback of wherever it was: at Ctrl-C while it is still importing or already ending, and at a closed pipe, as after
``| head -1``. Only Ctrl-C before the first line of a program has run, in the first hundredths of a second, is still
handled by Python: it may end in a traceback of ``site``, or of no line at all.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

CLOSED_PIPE = 141  # exit status that a shell shows for a program ended by SIGPIPE


def begin() -> None:
    """From here on, let Ctrl-C end the program with one line, and drop output that nothing can receive."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, leave)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file or socket would get its descriptor
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not all terminals can show all names


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program and exit with its status, or with the status for what stopped it."""
    is_interruptible = signal.getsignal(signal.SIGINT) is leave
    status = status_of(main, is_interruptible=is_interruptible)
    if is_interruptible:  # however it ended: the rest has nothing more to report
        signal.signal(signal.SIGINT, leave)
    if lost := status_of(sys.stdout.flush):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
    sys.exit(status or lost)


def status_of(call: Callable[[], int | None], *, is_interruptible: bool = False) -> int:
    """Return the exit status of a call, or of what stopped it, even in a group, since nurseries make groups."""
    status = 0
    try:
        if is_interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = call() or 0
        if is_interruptible:
            signal.signal(signal.SIGINT, leave)  # inside `try`, so that there is no gap
    except* SystemExit as stop:  # from `argparse`
        status = getattr(first(stop), "code", 0) or 0
    except* KeyboardInterrupt:
        status = say("interrupted", 130)
    except* BrokenPipeError:  # from printing: trio has another error for sockets
        status = CLOSED_PIPE
    except* OSError as failed:
        status = say(str(first(failed)), 1)
    return status


def first(error: BaseException) -> BaseException:
    """Return the first error in a group, including nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def leave(number: int, frame: object) -> None:
    """End at once, without a KeyboardInterrupt, which may be raised where Python only prints it and continues."""
    os._exit(say("interrupted", 130))


def say(message: str, status: int) -> int:
    """Print one line about what ended the program, if stderr is open; return the exit status."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    with suppress(OSError):
        os.write(2, f"{name}: {message}\n".encode(errors="backslashreplace"))
    return status
