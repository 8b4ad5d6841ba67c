"""A short soak: random pipelines in real time, with threads, with everything that can go wrong; and it can fail."""

import re
from itertools import count

import trio

from benchmarks.__main__ import main
from benchmarks.soak import THREADS, soak
from funcpipe_trio._runtime.core.ledger import Ledger


def test_nothing_is_lost_in_real_time():
    """P1, P6, P7, P8 with threads and failures, many runs at once: every item is accounted for, nothing is left."""
    done = trio.run(soak, 3.0, 1)

    assert set(done.outcomes) == {"completed", "drained", "left", "aborted", "failed", "cancelled"}
    assert min(done.failures, done.discarded, done.thread_calls) > 0
    assert 1 < done.threads <= THREADS


def test_the_command_says_what_was_done(capsys):
    """Counts on stdout, exit status 0."""
    assert main(["soak", "--minutes", "0.005", "--seed", "7"]) == 0

    printed = capsys.readouterr().out
    assert printed.startswith("soak: 0.3 s from seed 7, 24 runs at once\n  runs ")
    assert re.search(r"^  memory +\d+ blocks after the warm-up, \d+ at the end", printed, re.MULTILINE)


def test_an_item_that_is_lost_is_found(monkeypatch, capsys):
    """A ledger that forgets each tenth item it gives up: exit status 1, with the seed of the run."""
    calls, discard = count(1), Ledger.discard

    def forgetful(self, *args):
        if next(calls) % 10:
            discard(self, *args)

    monkeypatch.setattr(Ledger, "discard", forgetful)

    assert main(["soak", "--minutes", "0.05"]) == 1

    said = capsys.readouterr().err
    run = re.match(r"^soak: run (\d+) ", said)
    assert run is not None
    assert "items were lost\n" in said
    assert said.endswith(f"To try to reproduce it: --seed {run[1]}\n")
