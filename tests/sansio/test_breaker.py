"""The laws of the circuit breaker, each with the mutants of `breaker.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | a permit of an earlier generation that counts; a second probe |
| the same | an abandoned probe that is never replaced; a row or a window that survives a change of state |
| a row opens it, exactly | one failure more or less; a success that does not reset it; an abandoned call that counts |
| a ratio opens it, over a full window only | looked at too early; `>` for `>=`; a window that forgets nothing |
| the time | `<=` for `<` at the instant of the probe; the instant of the first opening kept |
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from funcpipe_trio._sansio.breaker import Breaker, Refused
from funcpipe_trio.policies.circuit_breaker import CircuitBreaker


def tripped(policy, now=0.0):
    """A breaker that has just opened."""
    breaker = Breaker(policy)
    for _ in range(policy.failures):
        breaker.failed(breaker.admit(now), now)
    assert breaker.state == "open"
    return breaker


def told(breaker, outcomes, now=0.0):
    """Make calls one after the other; `F` fails, `s` succeeds, `a` is given up. Give the states after each."""
    states = []
    for outcome in outcomes:
        permit = breaker.admit(now)
        if outcome == "F":
            breaker.failed(permit, now)
        elif outcome == "s":
            breaker.succeeded(permit)
        else:
            breaker.abandoned(permit)
        states.append(breaker.state)
    return states


def test_a_new_circuit_is_closed_and_lets_all_calls_through():
    breaker = Breaker(CircuitBreaker())

    assert (breaker.state, breaker.opened, breaker.why) == ("closed", 0, "")
    assert len({breaker.admit(0.0) for _ in range(100)}) == 1


def test_failures_in_a_row_open_it():
    breaker = Breaker(CircuitBreaker(3))

    assert told(breaker, "FFsFFaF") == ["closed"] * 6 + ["open"]
    assert (breaker.opened, breaker.why) == (1, "3 failures in a row")


def test_one_failure_may_be_enough():
    breaker = Breaker(CircuitBreaker(1, 10))

    assert told(breaker, "sF") == ["closed", "open"]
    assert breaker.why == "a failure"
    assert breaker.admit(9.0) == Refused(10.0)


@pytest.mark.parametrize(
    ("ratio", "outcomes", "last"),
    [
        (0.5, "FFF", "closed"),
        (0.5, "aFaFas", "closed"),
        (0.5, "sFsF", "open"),
        (0.75, "FsssFF", "closed"),
        (0.75, "FsssFsF", "closed"),
        (0.75, "FssFFF", "open"),
    ],
)
def test_a_part_of_the_last_calls_opens_it_once_there_are_so_many(ratio, outcomes, last):
    """Not before four were answered, and by the last four alone; a call that was given up is not an answer."""
    breaker = Breaker(CircuitBreaker(None, ratio=ratio, window=4))

    assert told(breaker, outcomes) == ["closed"] * (len(outcomes) - 1) + [last]


@pytest.mark.parametrize(("ratio", "failures"), [(0.1, 1), (0.3, 3), (0.7, 7), (1.0, 10), (1, 10), (0.31, 4)])
def test_the_ratio_is_reached_by_exactly_so_many_of_ten(ratio, failures):
    """Enough is as many as the ratio says; one less is not."""
    for count, state in ((failures - 1, "closed"), (failures, "open")):
        breaker = Breaker(CircuitBreaker(None, ratio=ratio, window=10))
        if count:
            assert told(breaker, "s" * (10 - count) + "F" * count)[-1] == state
        assert breaker.why == ("" if state == "closed" else f"{failures} of the last 10 calls failed")


def test_of_two_reasons_the_row_is_told():
    breaker = Breaker(CircuitBreaker(2, ratio=0.5, window=2))

    assert told(breaker, "FF") == ["closed", "open"]
    assert breaker.why == "2 failures in a row"


def test_without_failures_a_row_does_not_open_it():
    assert told(Breaker(CircuitBreaker(None, ratio=1, window=50)), "F" * 49) == ["closed"] * 49


def test_a_success_never_opens_it():
    """A window that fills up with a success is judged at the next failure."""
    breaker = Breaker(CircuitBreaker(None, ratio=0.5, window=4))

    assert told(breaker, "FFFs") == ["closed"] * 4
    assert told(breaker, "F") == ["open"]
    assert breaker.why == "3 of the last 4 calls failed"


def test_open_it_refuses_until_the_instant_of_the_probe():
    """At that instant, not after it; a refused caller is told it."""
    breaker = tripped(CircuitBreaker(2, 30), now=5.0)
    assert [breaker.admit(now) for now in (5.0, 34.9)] == [Refused(35.0)] * 2
    assert breaker.state == "open"

    assert isinstance(breaker.admit(35.0), int)
    assert breaker.state == "half-open"
    assert [breaker.admit(now) for now in (35.0, 1e9)] == [Refused(None)] * 2


def test_a_probe_that_succeeds_closes_it_and_all_starts_anew():
    breaker = tripped(CircuitBreaker(2, 30))
    breaker.succeeded(breaker.admit(30.0))

    assert breaker.state == "closed"
    assert told(breaker, "FsFF", now=30.0) == ["closed", "closed", "closed", "open"]
    assert (breaker.opened, breaker.why) == (2, "2 failures in a row")
    assert breaker.admit(59.0) == Refused(60.0)


def test_a_probe_that_fails_opens_it_again_for_as_long():
    breaker = tripped(CircuitBreaker(2, 30))
    breaker.failed(breaker.admit(31.0), 40.0)

    assert (breaker.state, breaker.opened, breaker.why) == ("open", 2, "its probe failed")
    assert [breaker.admit(now) for now in (40.0, 69.0)] == [Refused(70.0)] * 2
    assert isinstance(breaker.admit(70.0), int)


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next():
    breaker = tripped(CircuitBreaker(2, 30))
    breaker.abandoned(breaker.admit(30.0))
    assert breaker.state == "half-open"

    probe = breaker.admit(30.0)

    assert breaker.admit(30.0) == Refused(None)
    breaker.succeeded(probe)
    assert breaker.state == "closed"


@pytest.mark.parametrize("fate", ["succeeded", "failed", "abandoned"])
def test_what_becomes_of_calls_from_before_it_opened_does_not_count(fate):
    """Neither while it is open, nor while it is half-open, nor when it is closed again."""
    breaker = Breaker(CircuitBreaker(2, 30))
    late = [breaker.admit(0.0) for _ in range(6)]

    def tell_late():
        for _ in range(2):
            permit = late.pop()
            breaker.failed(permit, 99.0) if fate == "failed" else getattr(breaker, fate)(permit)

    told(breaker, "FF")
    tell_late()
    assert (breaker.state, breaker.opened, breaker.admit(1.0)) == ("open", 1, Refused(30.0))

    probe = breaker.admit(30.0)
    tell_late()
    assert (breaker.state, breaker.opened, breaker.admit(30.0)) == ("half-open", 1, Refused(None))

    breaker.succeeded(probe)
    breaker.failed(breaker.admit(31.0), 31.0)
    tell_late()
    assert (breaker.state, breaker.opened) == ("closed", 1)
    assert told(breaker, "F") == ["open"]


def test_the_row_and_the_window_start_anew_when_it_closes():
    breaker = tripped(CircuitBreaker(3, 30, ratio=0.75, window=4))
    breaker.succeeded(breaker.admit(30.0))

    assert told(breaker, "FFsF", now=30.0) == ["closed"] * 3 + ["open"]
    assert breaker.why == "3 of the last 4 calls failed"


class AgainstTheModel(RuleBasedStateMachine):
    """Calls overlap, end in any order and any way, and time continues: the breaker does what the model does."""

    @initialize(
        failures=st.integers(1, 4),
        ratio=st.sampled_from([None, 0.25, 0.5, 0.6, 1.0]),
        window=st.integers(1, 5),
        row_counts=st.booleans(),
    )
    def begin(self, failures, ratio, window, row_counts):
        self.failures = failures if row_counts or ratio is None else None
        self.ratio, self.window = ratio, None if ratio is None else window
        self.breaker = Breaker(CircuitBreaker(self.failures, 10.0, ratio=ratio, window=self.window))
        self.now = 0.0
        self.calls = []  # (permit, epoch) of each call that runs
        self.state, self.epoch, self.opened, self.why = "closed", 0, 0, ""
        self.answered = []  # since it closed: whether each call failed
        self.probes = 0  # under way

    def open(self, why):
        self.state, self.epoch, self.until = "open", self.epoch + 1, self.now + 10.0
        self.opened += 1
        self.why, self.probes, self.answered = why, 0, []

    @rule(seconds=st.sampled_from([0.0, 0.5, 9.5, 10.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def call(self):
        answer = self.breaker.admit(self.now)
        if self.state == "open" and self.now >= self.until:
            self.state, self.epoch = "half-open", self.epoch + 1
        if self.state == "open":
            assert answer == Refused(self.until)
        elif self.state == "half-open" and self.probes:
            assert answer == Refused(None)
        else:
            self.probes += self.state == "half-open"
            assert not isinstance(answer, Refused)
            self.calls.append((answer, self.epoch))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), fate=st.sampled_from(["succeeded", "failed", "failed", "failed", "abandoned"]))
    def end(self, which, fate):
        permit, epoch = self.calls.pop(which % len(self.calls))
        if fate == "failed":
            self.breaker.failed(permit, self.now)
        else:
            getattr(self.breaker, fate)(permit)
        if epoch != self.epoch:
            return
        if self.state == "half-open":
            self.probes -= 1
            if fate == "failed":
                self.open("its probe failed")
            elif fate == "succeeded":
                self.state, self.epoch, self.answered = "closed", self.epoch + 1, []
        elif fate != "abandoned":
            self.answered.append(fate == "failed")
            if fate == "failed":
                self.judge()

    def judge(self):
        row = 0
        while row < len(self.answered) and self.answered[-1 - row]:
            row += 1
        last = self.answered[-self.window :] if self.window else []
        if self.failures is not None and row >= self.failures:
            self.open("a failure" if row == 1 else f"{row} failures in a row")
        elif self.window is not None and len(last) == self.window and sum(last) >= self.ratio * self.window:
            self.open(f"{sum(last)} of the last {self.window} calls failed")

    @invariant()
    def they_agree(self):
        if hasattr(self, "breaker"):
            assert (self.breaker.state, self.breaker.opened, self.breaker.why) == (self.state, self.opened, self.why)


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
