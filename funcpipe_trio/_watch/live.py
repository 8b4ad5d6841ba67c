"""How is a run watched in a terminal? `watch` draws its picture anew after each period, until the run is over.

The rule: a terminal gets a picture that stays in place, anything else a line now and then without a code in it. The run
is only read. Drawing waits for nothing, so a picture is of one moment.

The invariant: however watching ends, the cursor is shown again below the last picture, and what was printed meanwhile
is above it. Ctrl-C takes effect only while it waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

import trio

from .._base import checks
from .._base.errors import StateError
from .._base.shown import shown
from .._runtime.run.run import Run, is_elsewhere

if TYPE_CHECKING:
    from .picture import Picture

_NO_RICH = """watch: the package `rich` is missing, which draws in a terminal
Use `pip install "funcpipe-trio[live]"`, or give a file= that is no terminal."""
_ELSEWHERE = """watch: must be called in the trio run that opened the run, and in its thread
Use run.statistics() in another thread."""
_OFTEN, _RARELY = 1.0, 60.0
"""Seconds between two lines, at least and at most, if the period is not longer."""


@trio.lowlevel.enable_ki_protection
async def watch(
    run: Run[Any],
    *,
    period: float = 0.25,
    file: TextIO | None = None,
    keys: Callable[[Hashable], str] | None = None,
) -> None:
    """Show in a terminal what a run is doing, until it is over.

    It shows for each stage its rates, how busy it is, what it holds, how long its calls take and what it waits for; the
    fill of each link; the shares of the inputs of merges beside what they should be by weight; what limits the run; how
    much failed, by the types of the errors. Rates are those of the last two seconds. If there is not enough room, the
    most interesting rows are shown, and how many are not. The last picture stays: there rates are those of the whole
    run. What the program prints meanwhile appears above the picture.

    If the file is not a terminal, it gets plain lines: one when the state changes, and otherwise one after a tenth of
    the time so far, at least a second and at most a minute (or `period`, if that is longer).

    Run it beside the run, in any task of the same trio run: ``async with trio.open_nursery() as nursery, plan.open() as
    run: nursery.start_soon(watch, run)``. (In a nursery within the block of the run it must be cancelled when the block
    is left early: a run is over only then.) One terminal shows one run at a time. If nobody reads the file any more (a
    closed pipe), watching ends.

    Args:
      run: the run, also one that is over.
      period: seconds > 0 between two pictures.
      file: where to write; ``sys.stdout`` by default.
      keys: ``keys(key)`` returns what to call a key of a `fair_by`; by default it is called by its rank (``#1``).

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `period` is not > 0.
      StateError: if it is called in another trio run than that of the run.
      Exception: what `keys` raises.
      ImportError: if the file is a terminal and rich is not installed: it comes with ``funcpipe-trio[live]``.

    Checkpoint: always.
    Cancellation: ends it, with the last picture left in place; the run goes on.
    """
    from .picture import Recent, picture

    _check(run, period, keys)
    if is_elsewhere(run):
        raise StateError(_ELSEWHERE)
    recent = Recent()

    def look() -> Picture:
        report = run.report
        return picture(report, recent.earlier(report), run.state.value, keys)

    try:
        with _screen(sys.stdout if file is None else file, period) as screen:
            try:
                screen.show(now := look())
                while not now.is_over:
                    with trio.move_on_after(screen.wait(now)):
                        await run.state.wait_value(lambda value, shown=now.state: value != shown)
                    screen.show(now := look())
            except trio.Cancelled:
                screen.show(look())  # how the run ended, if that was the reason
                raise
    except BrokenPipeError:  # nobody reads it
        pass
    await trio.lowlevel.checkpoint()


def _check(run: object, period: object, keys: Any) -> None:
    checks.instance("watch", "run", run, Run, "Use the run that `async with plan.open() as run` gives.")
    checks.seconds("watch", "period", period)
    if keys is not None:
        checks.takes("watch", "keys", checks.sync_callable("watch", "keys", keys), 1)


class _Screen(Protocol):
    """Where pictures are shown, for the length of a block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, picture: Picture) -> None:
        """Show a picture in place of the one before it."""

    def wait(self, picture: Picture) -> float:
        """Return how many seconds to wait before the next one, unless the state changes."""


def _screen(file: TextIO, period: float) -> _Screen:
    if not callable(getattr(file, "write", None)):
        raise TypeError(f"watch: file must be a text file to write to, not {shown(file)}")
    if _is_terminal(file) and os.environ.get("TERM") != "dumb":
        return _Terminal(file, period)
    return _Lines(file, period)


def _is_terminal(file: Any) -> bool:
    """Whether a file is a terminal; None, for one that was closed before the program began, is not."""
    return file is not None and file.isatty()


class _Terminal:
    """Pictures by rich, each over the one before it."""

    def __init__(self, file: TextIO, period: float) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            raise ImportError(_NO_RICH) from None
        self._period = period  # seconds between pictures
        self._console = Console(file=file, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,  # by a thread
            redirect_stdout=_is_terminal(sys.stdout),  # what is printed goes above the picture, but not out of a file
            redirect_stderr=_is_terminal(sys.stderr),
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, picture: Picture) -> None:
        from rich.text import Text

        from .drawing import ASCII, FANCY, draw

        width, height = self._console.size
        signs = FANCY if self._console.encoding.startswith("utf") else ASCII
        lines = draw(picture, width, height - 1, signs)
        text = Text("\n", no_wrap=True, overflow="crop").join(lines)
        self._live.update(text, refresh=True)

    def wait(self, picture: Picture) -> float:
        return self._period


class _Lines:
    """A line now and then."""

    def __init__(self, file: TextIO, period: float) -> None:
        self._file = file  # is flushed after each line
        self._period = period  # least seconds between lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def show(self, picture: Picture) -> None:
        from .words import line

        print(_shown_in(line(picture), getattr(self._file, "encoding", None)), file=self._file, flush=True)

    def wait(self, picture: Picture) -> float:
        return max(self._period, _OFTEN, min(_RARELY, picture.elapsed / 10))


def _shown_in(text: str, encoding: str | None) -> str:
    """Return a text with the characters escaped that an encoding does not have."""
    return text if encoding is None else text.encode(encoding, "backslashreplace").decode(encoding)
