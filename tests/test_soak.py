"""A short soak: random pipelines in real time, with threads, with everything that can go wrong; and it can fail."""

import re
from itertools import count

import trio

from benchmarks.__main__ import main
from benchmarks.soak import THREADS, soak
from funcpipe_trio._runtime.core.ledger import Ledger


def test_nothing_is_lost_in_real_time():
    """P1, P6, P7, P8 with threads and failures, many runs at once: every item is accounted for, nothing is left."""
    expected = {"completed", "drained", "left", "aborted", "failed", "cancelled"}
    outcomes, failures, discarded, thread_calls = set(), 0, 0, 0
    for seed in range(1, 21):  # a busy machine does few runs in three seconds
        done = trio.run(soak, 3.0, seed)
        outcomes |= set(done.outcomes)
        failures, discarded = failures + done.failures, discarded + done.discarded
        thread_calls += done.thread_calls
        assert done.threads <= THREADS
        if outcomes >= expected and min(failures, discarded, thread_calls) > 0 and done.threads > 1:
            break

    assert outcomes == expected
    assert min(failures, discarded, thread_calls) > 0
    assert done.threads > 1


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
