"""Worker processes: which task starts one, which call gets it, and what is known of a call whose worker is gone?

* A worker belongs to the trio run. A task of its own starts it, waits for its end and, when the run ends, ends it. So
  a call that is cancelled while its worker starts leaves nothing behind: the next call gets that worker.
* A free worker goes to the call that has waited longest, or else to the idle workers, for all steps of the run. As many
  are being started as there are calls that wait for one.
* A call is one order and one answer. Whatever cuts that short ends the worker, so none is ever out of step.
* An order that a worker did not read, after it had answered others, has begun nothing: it goes to another worker. (The
  operating system tells: it resets the connection. If it does not, the worker died.)

What it does not do: limit anything. `worker_program` is the other end.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys

import outcome
import trio

from ..._base.errors import StateError, WorkerDied
from ..._base.shown import named, type_name
from ..core.log import INFO, log
from . import worker_program
from .orders import problem_of
from .worker_program import CLOSED, HEAD, LENGTH, LOADING

START_LIMIT = 60.0
"""Seconds that a worker has to load the main module, by its own clock; it then writes to stderr where it is."""

_GUARD = 'Use `if __name__ == "__main__":` for what only the program itself should do.'

_workers: trio.lowlevel.RunVar[WorkerProcesses] = trio.lowlevel.RunVar("worker processes of funcpipe_trio")


class Unread(Exception):
    """An order was not read: its call never began."""


class WorkerProcesses:
    """The worker processes of a trio run."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []  # workers that are not lent; the last is taken first
        self._waiting: dict[trio.lowlevel.Task, None] = {}  # tasks that wait for a worker, oldest first
        self._starting = 0  # workers that are being started

    @staticmethod
    def of_this_run() -> WorkerProcesses:
        """Return those of the current trio run; make them at the first call."""
        try:
            return _workers.get()
        except LookupError:
            _workers.set(WorkerProcesses())
            return _workers.get()

    async def take(self) -> Worker:
        """Wait for a worker; it is the caller's until `give_back`.

        Raises:
          WorkerDied: if one could not be started.
          StateError: in a worker that loads its main module.

        Checkpoint: if it waits.
        Cancellation: the worker that is being started goes to another.
        """
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                worker.is_lent = True
                return worker
        if hasattr(sys.modules.get("__main__"), LOADING):
            raise StateError(f"processes: a worker must not start workers while it loads the main module\n{_GUARD}")
        task = trio.lowlevel.current_task()
        self._waiting[task] = None
        self._start_as_needed()

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            del self._waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        found: Worker = await trio.lowlevel.wait_task_rescheduled(give_up)
        return found

    def give_back(self, worker: Worker) -> None:
        """Hand it to the next call if it is alive; close it otherwise."""
        worker.is_lent = False
        if worker.is_alive:
            self._hand_over(outcome.Value(worker))
        else:
            worker.close()

    def _start_as_needed(self) -> None:
        while self._starting < len(self._waiting):
            self._starting += 1
            trio.lowlevel.spawn_system_task(self._see_through, name="a worker process")

    def _hand_over(self, found: outcome.Value[Worker] | outcome.Error) -> None:
        task = next(iter(self._waiting), None)
        if isinstance(found, outcome.Value):
            found.value.is_lent = task is not None
            if task is None:
                self._idle.append(found.value)
        if task is not None:
            del self._waiting[task]
            trio.lowlevel.reschedule(task, found)

    def _come(self, found: outcome.Value[Worker] | outcome.Error) -> None:
        """Called when a start has succeeded or failed."""
        self._starting -= 1
        self._hand_over(found)
        self._start_as_needed()

    async def _see_through(self) -> None:
        """The task of a worker, from its start to its end."""
        try:
            worker = await start_worker()
        except Exception as error:
            log(INFO, "a worker process could not be started, or not load the main module: %s", type_name(error))
            self._come(outcome.Error(error))
            return
        self._come(outcome.Value(worker))
        try:
            await worker.ended()
        finally:
            if worker in self._idle:
                self._idle.remove(worker)
                if not worker.is_alive:  # otherwise the trio run ends, and it with it
                    worker.log_death()
            await worker.end()  # noqa: ASYNC102  # it is shielded there
            if not worker.is_lent:
                worker.close()


async def start_worker() -> Worker:
    """Start a worker, and let it load the main module.

    Raises:
      WorkerDied: if either fails.

    Cancellation: ends it.
    """
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        # -P: or it would also import from the folder of the program, until it has its parent's path.
        process = await trio.lowlevel.open_process([sys.executable, "-P", worker_program.__file__], stdin=theirs)
    except Exception as error:
        stream.socket.close()
        raise WorkerDied(f"a worker process could not be started: {error}") from error
    finally:
        theirs.close()
    worker = Worker(process, stream)
    try:
        await worker.begin()
    except BaseException:
        await worker.end()  # noqa: ASYNC102  # it is shielded there
        worker.close()
        raise
    return worker


class Worker:
    """A worker process that was started."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream) -> None:
        self.is_lent = False  # a call has it, and closes it if it has ended; otherwise its task does
        self._process = process  # what the system runs
        self._stream = stream  # the connection, by which orders go and answers come
        self._has_answered = False  # it was given an order before; then an unread one may go to another worker

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.returncode is None

    @property
    def number(self) -> int:
        """The id of its process."""
        return self._process.pid

    async def begin(self) -> None:
        """Let it load the main module."""
        answer = None
        with contextlib.suppress(Unread):
            answer = await self._exchange(_start())
        if answer is None:
            raise WorkerDied(f"a worker process died while it loaded the main module: {self._fate()}")
        letter, told = answer
        if letter != b"R":
            words, error = problem_of(told, self.number)
            use = "" if _GUARD in words else f"\n{_GUARD}"
            raise WorkerDied(f"a worker process could not load the main module: {words}{use}") from error

    async def ask(self, name: str, order: bytes) -> tuple[bytes, bytes]:
        """Let it make a call, by its order; return the letter of its answer, and the content.

        Raises:
          Unread: if it was gone before it had read the order, and had answered others.
          WorkerDied: if it is gone.

        Cancellation: ends it.
        """
        answer, has_answered, self._has_answered = None, self._has_answered, True
        try:
            answer = await self._exchange(order)
        except Unread:
            if has_answered:
                self.log_death()
                raise
        if answer is None:
            log(INFO, "the worker process of %s died: %s", named(name), self._fate())
            raise WorkerDied(f"the worker process of {name} died: {self._fate()}")
        return answer

    async def _exchange(self, order: bytes) -> tuple[bytes, bytes] | None:
        """Send an order, and wait for its answer; None if none comes. Without an answer it ends."""
        answer = None
        try:
            await self._stream.send_all(len(order).to_bytes(LENGTH, "big") + order)
            answer = await self._receive()
        except trio.BrokenResourceError:
            raise Unread from None
        finally:
            if answer is None:
                await self.end()  # noqa: ASYNC102  # it is shielded there
        return answer

    async def _receive(self) -> tuple[bytes, bytes] | None:
        data, needed = bytearray(), HEAD
        while len(data) < needed:
            more = await self._stream.receive_some(max(_LEAST, min(needed - len(data), _MOST)))
            if not more:
                return None
            data += more
            if len(data) >= HEAD:
                needed = HEAD + int.from_bytes(data[1:HEAD], "big")
        view = memoryview(data)
        return bytes(view[:1]), bytes(view[HEAD:])

    async def ended(self) -> None:
        """Wait until it has ended; a task that still waits for an answer then learns that there is none."""
        await self._process.wait()
        with contextlib.suppress(OSError):  # a process that it forked may hold the other end
            self._stream.socket.shutdown(socket.SHUT_RDWR)

    async def end(self) -> None:
        """Kill it, and wait until it has ended."""
        with trio.CancelScope(shield=True):
            with contextlib.suppress(OSError):  # it may have become another user's
                self._process.kill()
            await self._process.wait()

    def log_death(self) -> None:
        """Tell the log that it died between two calls."""
        log(INFO, "an idle worker process died: %s", self._fate())

    def close(self) -> None:
        """Close the connection; the worker must not be used any more."""
        self._stream.socket.close()

    def _fate(self) -> str:
        """Return how it ended, as text."""
        status = self._process.returncode
        if status in (CLOSED, -signal.SIGKILL):  # the second is ours too, when only the connection is gone
            killed = "" if status == CLOSED else "it was killed (SIGKILL), or "
            return f"{killed}its function closed the descriptor that its answer goes by"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                return f"it was killed ({signal.Signals(-status).name})"
        return f"it ended with status {status}"


_LEAST, _MOST = 2**16, 2**20
"""Bytes to receive at once, at least and at most."""


def _start() -> bytes:
    """Return what a worker needs to begin: the main module, path and arguments of this program."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None) or ""  # an interactive session or a notebook has none: nothing to load
    start = {
        "name": getattr(getattr(main, "__spec__", None), "name", None) if file else None,
        "file": _absolute(file) if os.path.isfile(file) else None,
        "path": [_absolute(entry) for entry in sys.path if isinstance(entry, str)],
        "argv": list(map(str, sys.argv)),
        "seconds": START_LIMIT,
        "drains": callable(signal.getsignal(signal.SIGTERM)),  # it handles SIGTERM, and then needs its workers
    }
    return pickle.dumps(start)


def _absolute(entry: str) -> str:
    """Make an entry of the path independent of the working directory, which a function may change."""
    with contextlib.suppress(OSError):  # there may be no working directory
        return os.path.abspath(entry)
    return entry
