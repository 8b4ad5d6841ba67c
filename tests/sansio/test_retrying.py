"""The attempts of one item; mutants of `retrying.py` that die here:

- one attempt more or less; an attempt that is counted although its error is final;
- a filter that names more or less; `CircuitOpen` retried because `Exception` means it, or not although it is named;
- `retry_after` that is asked for a final error, whose None or 0 is mistaken for the other, or whose nonsense is waited;
- a group that is meant because one leaf is, or because none is asked; one that is not, though all its leaves are; a
  `CircuitOpen` that hides in a group; a predicate that is asked about leaves;
- a wait for another item or attempt; a note without a wait, with the wrong ones, or without end.
"""

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._base.errors import CircuitOpen, FuncpipeError, MisuseError
from funcpipe_trio._base.shown import shown
from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio._sansio.retrying import RetryState, is_meant
from funcpipe_trio.policies.retry import Backoff, Retry

STEADY = Backoff(1, 1, 1, jitter=0)


def waits_of(retry, errors, item=0):
    """What each error is answered with, until one is final."""
    attempts, waits = RetryState(retry, item), []
    for error in errors:
        waits.append(attempts.failed(error))
        if waits[-1] is None:
            break
    return waits


@given(attempts=st.integers(1, 20), item=st.integers(0, 10**6), seed=st.integers(0, 9))
def test_a_call_is_tried_as_often_as_the_policy_says(attempts, item, seed):
    """The waits are the backoff's for this item, attempt by attempt; the last error is final."""
    retry = Retry(attempts, backoff=Backoff(seed=seed))
    machine = RetryState(retry, item, stage="embed", seed=seed)
    waits, numbers = [], [machine.number]
    while (wait := machine.failed(OSError())) is not None:
        waits.append(wait)
        numbers.append(machine.number)

    assert waits == [backoff_delay(retry.backoff, item, k, stage="embed", seed=seed) for k in range(1, attempts)]
    assert numbers == list(range(1, attempts + 1))
    assert machine.number == attempts


def test_an_error_that_is_not_meant_is_final_and_counts_nothing():
    attempts = RetryState(Retry(3, on=OSError, backoff=STEADY), 0)

    assert [attempts.failed(error) for error in (OSError(), ValueError(), ValueError())] == [1.0, None, None]
    assert (attempts.number, attempts.note()) == (2, "waited 1 s between its attempts")


@pytest.mark.parametrize(
    ("meant", "error", "expected"),
    [
        (Exception, ValueError(), True),
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, KeyError), KeyError(), True),
        ((OSError, KeyError), LookupError(), False),
        (lambda error: error.args == (1,), ValueError(1), True),
        (lambda error: error.args == (1,), ValueError(2), False),
        (lambda error: [], ValueError(), False),
        (lambda error: "yes", ValueError(), True),
    ],
)
def test_a_filter_means_its_types_or_what_its_predicate_says(meant, error, expected):
    assert is_meant(meant, error) is expected
    assert waits_of(Retry(2, on=meant, backoff=STEADY), [error]) == [1.0 if expected else None]


class Promise:
    """Something to await."""

    def __await__(self):
        yield


def gives_a_promise(error):
    return Promise()


def test_a_predicate_that_gives_something_to_await_is_an_error():
    """It would mean yes whatever it comes to; the attempt does not count."""
    attempts = RetryState(Retry(2, on=gives_a_promise), 0)
    message = "gives_a_promise must be a sync predicate, but returned something to await"

    for ask in (lambda: attempts.failed(OSError()), lambda: is_meant(gives_a_promise, OSError())):
        with pytest.raises(TypeError, match=rf"^{message}$"):
            ask()
    assert (attempts.number, attempts.note()) == (1, None)


class Tripped(CircuitOpen):
    """A kind of CircuitOpen."""


@pytest.mark.parametrize(
    ("meant", "expected"),
    [
        (Exception, False),
        (FuncpipeError, False),
        ((Exception, FuncpipeError), False),
        (OSError, False),
        (CircuitOpen, True),
        ((OSError, CircuitOpen), True),
        ((Exception, CircuitOpen), True),
        (Tripped, True),
        (lambda error: True, True),
        (lambda error: False, False),
    ],
)
def test_an_open_circuit_is_retried_only_if_it_is_named(meant, expected):
    """That a base class means it is not enough: a call that was not made needs no second try."""
    assert waits_of(Retry(2, on=meant, backoff=STEADY), [Tripped("open")]) == [1.0 if expected else None]
    assert is_meant(Exception, Tripped("open")) is True


def test_who_names_a_kind_of_open_circuit_means_no_other():
    """A subclass is named: the base class itself is not met by it."""
    assert waits_of(Retry(2, on=Tripped, backoff=STEADY), [CircuitOpen("open")]) == [None]


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(None, 1.0), (0, 0.0), (0.25, 0.25), (3, 3.0), (-1, 0.0), (-0.5, 0.0), (-1e300, 0.0), (1e6, 1e6)],
)
def test_what_the_error_asks_for_is_waited_in_place_of_the_backoff(asked, wait):
    """A time that has passed means at once; None leaves it to the backoff."""
    assert waits_of(Retry(2, backoff=STEADY, retry_after=lambda error: asked), [OSError()]) == [wait]


def test_the_error_itself_is_asked_and_a_final_one_is_not():
    """It is asked about the error that came, once; nobody asks about one that is not retried."""
    errors, seen = [OSError(1), OSError(2), OSError(3)], []
    retry = Retry(3, on=OSError, backoff=STEADY, retry_after=seen.append)

    assert waits_of(retry, errors) == [1.0, 1.0, None]
    assert seen == errors[:2]
    assert waits_of(retry, [ValueError()]) == [None]
    assert len(seen) == 2


def test_a_policy_that_pauses_its_limits_asks_about_each_error_that_it_means():
    """At the last attempt, too, and if there is no time for another; what was named is for others, and only once."""
    errors, seen = [OSError(3), OSError(-1), ValueError(7), OSError(9), OSError(None)], []

    def after(error):
        seen.append(error)
        return error.args[0]

    attempts = RetryState(Retry(3, OSError, STEADY, retry_after=after, pauses_limit=True), 0)
    assert attempts.named == 0
    answers = [(attempts.failed(error), attempts.named) for error in errors]

    assert answers == [(3, 3), (0, 0), (None, 0), (None, 9), (None, 0)]
    assert seen == [errors[0], errors[1], errors[3], errors[4]]
    assert (attempts.number, attempts.note()) == (3, "waited 3, 0 s between its attempts")
    late = RetryState(Retry(3, OSError, STEADY, retry_after=after, pauses_limit=True), 0)
    assert (late.failed(errors[0], now=5.0, deadline=6.0), late.named) == (None, 3)


def test_what_the_error_asks_for_counts_as_an_attempt():
    """The backoff continues by the number of the attempt, wherever the earlier waits came from."""
    answers = iter([5, None, 0])
    retry = Retry(5, backoff=Backoff(1, 2, 100, jitter=0), retry_after=lambda error: next(answers, None))
    attempts = RetryState(retry, 0)

    assert [attempts.failed(OSError()) for _ in range(5)] == [5, 2.0, 0, 8.0, None]
    assert attempts.note() == "waited 5, 2, 0, 8 s between its attempts"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (ValueError, math.nan),
        (ValueError, math.inf),
        (ValueError, -math.inf),
        (ValueError, 10**400),
        (TypeError, "3"),
        (TypeError, True),
        (TypeError, False),
        (TypeError, Fraction(1, 2)),
    ],
)
def test_what_is_no_time_is_refused_and_counts_nothing(kind, asked):
    attempts = RetryState(Retry(2, retry_after=lambda error: asked), 0)
    message = f"Retry: what retry_after(KeyError) gives must be a finite number, not {shown(asked)}"

    with pytest.raises(kind, match=rf"^{re.escape(message)}$"):
        attempts.failed(KeyError("k"))
    assert (attempts.number, attempts.note()) == (1, None)


def test_an_error_of_the_predicate_or_of_retry_after_passes_unchanged():
    broken = ZeroDivisionError()

    def fails(error):
        raise broken

    for retry in (Retry(2, on=fails), Retry(2, retry_after=fails)):
        with pytest.raises(ZeroDivisionError, match=r"^$") as caught:
            RetryState(retry, 0).failed(OSError())
        assert caught.value is broken


@pytest.mark.parametrize(
    ("waits", "note"),
    [
        ([], None),
        ([0.5], "waited 0.5 s between its attempts"),
        ([1, 2.25, 1 / 3], "waited 1, 2.25, 0.333333 s between its attempts"),
        ([0] * 8, "waited 0, 0, 0, 0, 0, 0, 0, 0 s between its attempts"),
        ([1] * 9, "waited 1, 1, 1, 1, 1, 1, 1, 1, ... (9 waits, 9 s in all) between its attempts"),
        (
            [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 1 / 3],
            "waited 0.5, 1, 2, 4, 8, 16, 32, 64, ... (10 waits, 255.833 s in all) between its attempts",
        ),
    ],
)
def test_the_note_tells_the_waits_and_of_many_the_first_and_the_sum(waits, note):
    given_waits = iter(waits)
    attempts = RetryState(Retry(100, retry_after=lambda error: next(given_waits)), 0)
    for _ in waits:
        attempts.failed(OSError())

    assert attempts.note() == note


def test_a_wait_that_ends_at_the_deadline_or_behind_it_is_not_begun():
    """The error is final, counts nothing, and the note says what was left."""
    attempts = RetryState(Retry(9, backoff=STEADY), 0)
    too_late = "not tried again: the next attempt is due in 1 s, its timeout is over in"

    assert attempts.failed(OSError(), 10.0, 12.0) == 1
    assert attempts.note() == "waited 1 s between its attempts"
    assert attempts.failed(OSError(), 11.0, 12.0) is None
    assert (attempts.number, attempts.note()) == (2, f"waited 1 s between its attempts; {too_late} 1 s")
    assert attempts.failed(OSError(), 11.75, 12.0) is None
    assert attempts.note() == f"waited 1 s between its attempts; {too_late} 0.25 s"
    late = RetryState(Retry(9, backoff=STEADY), 0)
    assert late.failed(OSError(), 13.0, 12.0) is None
    assert late.note() == f"{too_late} 0 s"


def test_who_says_no_clock_stage_or_seed_begins_at_zero():
    """A stage without a name, and a clock that begins with the item."""
    retry = Retry(2, backoff=Backoff(1))

    assert RetryState(retry, 7).failed(OSError()) == backoff_delay(retry.backoff, 7, 1)
    assert RetryState(Retry(2, backoff=STEADY), 7).failed(OSError(), deadline=1.5) == 1


def test_a_mistake_in_the_program_is_meant_by_no_filter():
    """Not even by one that names it, or all."""
    for meant in (MisuseError, Exception, lambda error: True):
        assert is_meant(meant, MisuseError()) is False
        assert waits_of(Retry(2, on=meant, backoff=STEADY), [MisuseError()]) == [None]


# ---- groups


LEAVES = [OSError, ConnectionError, ValueError, CircuitOpen, Tripped]


def group_of(members):
    return ExceptionGroup("some", members)


leaves = st.sampled_from(LEAVES).map(lambda kind: kind("a leaf"))
errors = st.recursive(leaves, lambda inner: st.lists(inner, min_size=1, max_size=3).map(group_of), max_leaves=8)
kinds = st.sampled_from([*LEAVES, Exception, ExceptionGroup])
meanings = kinds | st.lists(kinds, min_size=1, max_size=3).map(tuple)


def leaves_of(error):
    return [leaf for each in error.exceptions for leaf in leaves_of(each)] if hasattr(error, "exceptions") else [error]


def means(meant, error):
    """Whether one error that is not looked into is of these types."""
    return isinstance(error, meant)


def means_all(meant, error):
    return means(meant, error) or (
        isinstance(error, ExceptionGroup) and all(means_all(meant, each) for each in error.exceptions)
    )


@given(meant=meanings, error=errors)
def test_types_mean_a_group_if_they_mean_all_its_leaves(meant, error):
    assert is_meant(meant, error) is means_all(meant, error)


@given(meant=meanings, error=errors)
def test_an_open_circuit_in_a_group_is_retried_only_if_it_is_named(meant, error):
    named = tuple(kind for kind in (meant if isinstance(meant, tuple) else (meant,)) if issubclass(kind, CircuitOpen))
    open_circuits = [leaf for leaf in leaves_of(error) if isinstance(leaf, CircuitOpen)]
    expected = means_all(meant, error) and all(isinstance(leaf, named) for leaf in open_circuits)

    assert (RetryState(Retry(2, on=meant), 0).failed(error) is not None) is expected


@given(error=errors)
def test_a_predicate_gets_a_group_as_it_is(error):
    asked = []
    retry = Retry(2, on=lambda each: asked.append(each) or True, retry_after=lambda each: asked.append(each) or 0.0)

    assert RetryState(retry, 0).failed(error) == 0
    assert [each is error for each in asked] == [True, True]


def test_a_group_may_be_nested_deeper_than_a_stack_is():
    error = OSError()
    for _ in range(10_000):
        error = group_of([error])

    assert is_meant(OSError, error) is True
    assert is_meant(ValueError, error) is False
    while isinstance(error, ExceptionGroup):  # Python's own way to free it may be recursive
        (error,) = error.exceptions
