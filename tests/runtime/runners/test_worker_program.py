"""The program of a worker by itself, with a parent that does nothing for it: what it does where nobody ends it.

Mutants that die here: an answer that is written to a file of the function's; a worker that continues without a parent.
"""

import pickle
import socket
import subprocess
import sys

import pytest

from funcpipe_trio._runtime.runners import worker_program
from funcpipe_trio._runtime.runners.orders import order_of
from tests.runtime.runners import _deeds, _work


class Worker:
    """A worker process, and the other end of its connection."""

    def __init__(self):
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(60)
        with theirs:
            self.process = subprocess.Popen([sys.executable, worker_program.__file__], stdin=theirs)
        start = {"name": None, "file": None, "path": sys.path, "argv": [], "seconds": 60}
        assert self.ask(pickle.dumps(start)) == (b"R", b"")

    def ask(self, order):
        """Send an order; give its answer, or None."""
        self.ours.sendall(len(order).to_bytes(8, "big") + order)
        head = self._read(9)
        return None if head is None else (head[:1], self._read(int.from_bytes(head[1:], "big")))

    def _read(self, count):
        data = b""
        while len(data) < count:
            more = self.ours.recv(count - len(data))
            if not more:
                return None
            data += more
        return data

    def close(self):
        self.ours.close()
        return self.process.wait(60)


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.ours.close()
    made.process.kill()
    made.process.wait()


def test_each_order_has_one_answer(worker):
    """In their order, one after the other."""
    answers = [worker.ask(order_of(_work.double, number)) for number in range(5)]

    assert [(letter, pickle.loads(told)) for letter, told in answers] == [(b"R", 2 * number) for number in range(5)]


@pytest.mark.parametrize("deed", [_deeds.closes_all, _deeds.opens_where_it_closed, _deeds.puts_a_file_over_all])
def test_no_answer_goes_where_it_does_not_belong(deed, worker, tmp_path):
    """A worker that cannot answer ends, and says so by its status; the function's files are as it left them."""
    assert worker.ask(order_of(deed, str(tmp_path))) is None

    assert worker.process.wait(60) == worker_program.CLOSED
    assert {path.read_bytes() for path in tmp_path.iterdir()} <= {b""}


def test_it_ends_when_its_parent_has_gone(worker):
    """Nobody kills it: it sees the end of the connection."""
    worker.ask(order_of(_work.double, 1))

    assert worker.close() == 0


def test_it_ends_when_its_parent_has_gone_while_it_worked(worker):
    """Its answer finds nobody."""
    order = order_of(_work.double, 1)
    worker.ours.sendall(len(order).to_bytes(8, "big") + order)

    assert worker.close() == 0
