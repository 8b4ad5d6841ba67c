"""How does the command run a plan? As a service, with what shows it beside: a picture in the terminal, a page.

The rule: what can be refused is refused before the run begins (an address that cannot be listened on, a package that is
missing). The picture and the page begin with the run and end with it; neither can end it. At the end comes the report,
on standard output, and where an error was raised, on standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import outcome
import trio

from .._base.errors import FuncpipeError
from .._base.frozen import dataclass
from .._base.shown import escaped, told
from .._recording.recorder import Recorder
from .._runtime.core.failures import leaves_of
from .._runtime.reports.report import Report
from .._runtime.run.run import Run
from .._watch.live import watch
from ..pipeline import Pipeline
from ..service import Service
from .target import users_part

FAILED = 1
LATE = 124  # as `timeout` of coreutils ends
ABORTED = 130  # as a shell shows a program that Ctrl-C ended


class Refused(FuncpipeError):
    """The run was not begun, because of what was to show it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How a run is shown while it is at work."""

    name: str
    """What the page calls it."""
    live: bool
    """Whether it is watched in the terminal."""
    port: int | None
    """Where the page is served; 0: any free port; None: it is not."""
    address: str
    """The address to listen on."""
    record: str | None = None
    """The file for what is recorded of it; None: nothing is."""


def run(plan: Pipeline[Any], grace: float, shown: Shown) -> int:
    """Run a plan until it ends, or a signal ends it; print the report, and return the exit status.

    Raises:
      Refused: if it cannot be shown; the run was not begun.
      PlanError: if the plan cannot work.
    """
    recorder = None if shown.record is None else Recorder()
    service: Service[Any] = Service(plan, grace, record=recorder)
    with writable("--record", shown.record), _listening(shown) as listener:
        if shown.live and sys.stdout is not None and sys.stdout.isatty():
            _import("rich", "--live", "live")
        with _ctrl_c_ends_the_program():
            report = trio.run(_serve, service, shown, listener)
        if recorder is not None and shown.record is not None:
            recorder.recording.save(shown.record)
    if shown.live:
        print()  # below the last picture
    print(report.describe(), flush=True)
    if report.error is not None:
        _say_where(report.error)
    return _status(report, is_late=service.is_late)


@contextlib.contextmanager
def _ctrl_c_ends_the_program() -> Iterator[None]:
    """Let Ctrl-C end the program at once, where it is not handled: a KeyboardInterrupt would wait for every call."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _status(report: Report, *, is_late: bool) -> int:
    if report.outcome == "failed":
        return FAILED
    if report.outcome == "aborted":
        return ABORTED
    return LATE if is_late else 0


def _say_where(error: BaseException) -> None:
    """Print in which stage, at which item and line an error was raised; what it says is in the report."""
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    told_notes = [f": {escaped('; '.join(notes))}"] if notes else []
    print("funcpipe: the run failed", *told_notes, sep="", file=sys.stderr)
    _print_frames(error)
    for each in leaves_of(error) if isinstance(error, BaseExceptionGroup) else ():
        print(f"{escaped(told(each))}, raised", file=sys.stderr)
        _print_frames(each)


def _print_frames(error: BaseException) -> None:
    frames = users_part(traceback.extract_tb(error.__traceback__))
    print("".join(frames.format()), end="", file=sys.stderr)  # none of an error of this package, such as a timeout


# ---- beside the run


class _Beside:
    """What is started beside a run, and told of its beginning as `trio.TaskStatus` is."""

    def __init__(self, nursery: trio.Nursery, shown: Shown, listener: socket.socket | None) -> None:
        self.run: Run[Any] | None = None  # None before it begins
        self.page: trio.CancelScope = trio.CancelScope()  # around the server
        self._nursery = nursery  # for what shows the run
        self._shown = shown  # what is asked for
        self._listener = listener  # of the page; None without one

    def started(self, run: Any = None) -> None:
        self.run = run
        if self._shown.live:
            self._nursery.start_soon(_alone, "--live", partial(watch, run))
        if self._listener is not None:
            self._nursery.start_soon(_alone, "--web", partial(self._serve_page, run, self._listener))

    async def _serve_page(self, run: Run[Any], listener: socket.socket) -> None:
        from .._watch.app import watch_app

        config = _import("hypercorn.config", "--web", "web").Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.loglevel = "WARNING"
        with self.page:
            app: Any = watch_app(run, name=self._shown.name)
            await _import("hypercorn.trio", "--web", "web").serve(app, config, shutdown_trigger=trio.sleep_forever)


async def _alone(option: str, show: Callable[[], Awaitable[object]]) -> None:
    """Show a run; if that fails, say so, and let the run go on."""
    try:
        await show()
    except Exception as error:
        print(f"funcpipe: {option} has ended: {told(error)}", file=sys.stderr)


async def _serve(service: Service[Any], shown: Shown, listener: socket.socket | None) -> Report:
    """Run the service with what shows it, which ends after it; return the report, also of a run that failed."""
    async with trio.open_nursery() as nursery:
        beside = _Beside(nursery, shown, listener)
        ended = await outcome.acapture(service.serve, beside)
        beside.page.cancel()
    # Here, because it would leave the nursery in a group.
    if isinstance(ended, outcome.Error) and isinstance(ended.error, Exception) and beside.run is not None:
        return beside.run.report
    return ended.unwrap()


# ---- before the run


@contextlib.contextmanager
def writable(option: str, path: str | None) -> Iterator[None]:
    """Open the file that an option names, so that it is known before the work that it can be written."""
    if path is None:
        yield
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            is_new = file.tell() == 0
    except OSError as error:
        raise Refused(f"{option}: {path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        if is_new and not os.path.getsize(path):  # nothing was written
            os.unlink(path)


@contextlib.contextmanager
def _listening(shown: Shown) -> Iterator[socket.socket | None]:
    """Listen for the page, if there is one, and say where it is."""
    if shown.port is None:
        yield None
        return
    _import("hypercorn", "--web", "web")
    try:
        found = socket.getaddrinfo(shown.address, shown.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_kind, address = found[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        is_unknown = isinstance(error, socket.gaierror)  # others may hold more than their reason
        why = error.strerror if is_unknown or error.errno is None else os.strerror(error.errno)
        raise Refused(f"--web: nothing can listen on {shown.address}, port {shown.port}: {why}") from None
    with listener:
        host, port, *_rest = listener.getsockname()
        print(f"funcpipe: http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr, flush=True)
        yield listener


def _import(module: str, option: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise Refused(f'{option} needs {package}\nUse `pip install "funcpipe-trio[{extra}]"`.') from None
