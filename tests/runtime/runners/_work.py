"""Functions for worker processes, which import them by name."""

import os
import signal
import time
from pathlib import Path


def double(number):
    return 2 * number


def own_pid(_item):
    return os.getpid()


def die(status):
    os._exit(status)


def die_once(path):
    """Die at the first call; remember by a file."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "second"
    os._exit(1)


def say_pid_and_hang(fifo):
    """Say in a pipe that the call has begun; never return."""
    with open(fifo, "w") as said:
        said.write(f"{os.getpid()}\n")
    time.sleep(1000)


def hang_once(fifo, marker):
    """Hang at the first call, as `say_pid_and_hang`; give the process of the second."""
    if Path(marker).exists():
        return os.getpid()
    Path(marker).touch()
    return say_pid_and_hang(fifo)


def stop(item):
    raise StopIteration(item)


def refuses_to_load():
    raise EOFError("cannot be loaded")


class LoadsNowhere:
    """An item that can be sent, and not be loaded."""

    def __reduce__(self):
        return refuses_to_load, ()


def fail_at_two(item):
    if item == 2:
        raise ValueError("no 2")
    return item


def begin_and_wait(begun, end, item):
    """Say by one pipe that it has begun; wait until the other lets it end."""
    with open(begun, "wb", buffering=0) as pipe:
        pipe.write(b"x")
    with open(end, "rb", buffering=0) as pipe:
        pipe.read(1)
    return item


def be_killed_once(path, item):
    """Be killed at the first call; remember by a file."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return item * 10
    os.kill(os.getpid(), signal.SIGKILL)
    return None
