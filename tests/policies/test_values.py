"""What all policies are: values.

Mutants that die here: a policy that can be changed, a field left out of `==`, a function whose hash is asked for, a
copy that forgets something, a word of a description.
"""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from funcpipe_trio._base.errors import CircuitOpen
from funcpipe_trio.policies.adaptive import Adaptive
from funcpipe_trio.policies.circuit_breaker import CircuitBreaker
from funcpipe_trio.policies.on_error import Divert, Emit, Failure, OnError, Skip, Stop
from funcpipe_trio.policies.rate_limit import RateLimit, RollingLimit
from funcpipe_trio.policies.retry import Backoff, Retry


def is_meant(error):
    return bool(error.args)


def asked(error):
    return None


async def bury(failure):
    pass


async def burn(failure):
    pass


class Unhashable:
    """A function, to be found by name, that has no hash."""

    __hash__ = None

    def __eq__(self, other):
        return type(other) is type(self)

    def __call__(self, error):
        return True


class UnhashableAsync(Unhashable):
    async def __call__(self, error):
        return True


ERROR = ValueError("no")

# A policy, and for each of its fields another value that it may have.
POLICIES = [
    (RateLimit(7.3, per=60, burst=4), {"rate": 7, "per": 61.0, "burst": 5}),
    (RollingLimit(7, per=30), {"n": 8, "per": 31.0}),
    (
        Backoff(0.2, 3.0, 20, 0.5, 7),
        {"initial": 0.0, "factor": 1, "maximum": 30, "jitter": 0, "seed": None},
    ),
    (
        Retry(4, (OSError, KeyError), Backoff(1), retry_after=asked),
        {"attempts": 1, "on": is_meant, "backoff": Backoff(2), "retry_after": None, "pauses_limit": True},
    ),
    (
        CircuitBreaker(2, 5.0, ratio=0.5, window=10, on=is_meant, wait=True),
        {"failures": None, "reset_after": 6, "ratio": 1, "window": 1, "on": OSError, "wait": False},
    ),
    (
        Adaptive(2, 9, target=2.0, on=(OSError, KeyError)),
        {"minimum": 1, "maximum": 10, "target": 3, "on": is_meant},
    ),
    (Skip(3, 0.1, 20), {"max_failures": 0, "max_ratio": None, "min_items": 1}),
    (Stop(), {}),
    (Emit(), {}),
    (Divert(bury), {"step": burn}),
    (Failure("item", ERROR, "fetch", 3), {"item": None, "error": OSError(), "stage": "parse", "attempts": 1}),
]
every_policy = pytest.mark.parametrize(("policy", "others"), POLICIES, ids=[type(p).__name__ for p, _ in POLICIES])


@every_policy
def test_a_policy_never_changes(policy, others):
    for name in others:
        with pytest.raises(FrozenInstanceError, match=rf"^cannot assign to field '{name}'$"):
            setattr(policy, name, others[name])

    assert not hasattr(policy, "__dict__")


@every_policy
def test_policies_are_equal_by_value(policy, others):
    """Every field counts; what is equal has one hash."""
    same = replace(policy)
    assert same is not policy
    assert (same == policy, hash(same) == hash(policy)) == (True, True)
    assert set(others) == {field.name for field in fields(policy)}
    for name, value in others.items():
        other = replace(policy, **{name: value})
        assert getattr(other, name) is value
        assert other != policy


def test_what_becomes_of_an_item_is_told_apart():
    policies = {OnError.stop(), OnError.skip(), OnError.emit(), OnError.divert(bury)}

    assert len(policies) == 4


@every_policy
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_copy_is_equal(policy, others, copied):
    made = copied(policy)
    if isinstance(policy, Failure):  # an error is equal to itself alone
        assert (type(made.error), made.error.args) == (ValueError, ("no",))
        made = replace(made, error=policy.error)

    assert made == policy
    assert hash(made) == hash(policy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(on=Unhashable(), retry_after=Unhashable()),
        lambda: CircuitBreaker(on=Unhashable()),
        lambda: Adaptive(1, 2, on=Unhashable()),
        lambda: Divert(UnhashableAsync()),
    ],
)
def test_a_function_without_a_hash_does_no_harm(make):
    """A user's function counts for equality, but its hash is never asked for."""
    assert make() == make()
    assert hash(make()) == hash(make())


def test_a_failure_has_a_hash_if_its_item_has_one():
    with pytest.raises(TypeError):  # in the words of Python, which differ
        hash(Failure([], ERROR, "fetch", 3))


def test_a_failure_does_not_show_its_item():
    """It may hold secrets, or be endless."""
    assert repr(Failure("secret", ERROR, "fetch", 3)) == "Failure(error=ValueError('no'), stage='fetch', attempts=3)"


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (
            Backoff(),
            "Backoff(initial=0.1, factor=2.0, maximum=None, jitter=0.1, seed=None)",
        ),
        (RateLimit(5), "RateLimit(rate=5, per=1.0, burst=1)"),
        (
            Retry(),
            "Retry(attempts=3, on=<class 'Exception'>, "
            "backoff=Backoff(initial=0.1, factor=2.0, maximum=None, jitter=0.1, seed=None), retry_after=None, "
            "pauses_limit=False)",
        ),
        (
            CircuitBreaker(),
            "CircuitBreaker(failures=5, reset_after=30.0, ratio=None, window=None, on=<class 'Exception'>, wait=False)",
        ),
        (OnError.stop(), "Stop()"),
        (OnError.skip(), "Skip(max_failures=None, max_ratio=None, min_items=100)"),
        (OnError.emit(), "Emit()"),
    ],
)
def test_the_defaults_are_these(policy, shown):
    assert repr(policy) == shown


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (RateLimit(5), "5 in 1 s, burst 1"),
        (RateLimit(7.25, per=60, burst=3), "7.25 in 60 s, burst 3"),
        (Backoff(), "0.1 s x 2 up to 10 s +-10%"),
        (Backoff(1, 1, 2.5, 0), "1 s up to 2.5 s"),
        (Backoff(1, 1, 2.5, 0, seed=7), "1 s up to 2.5 s"),
        (Backoff(0.25, 1.5, 60.0, 1), "0.25 s x 1.5 up to 60 s +-100%"),
        (Retry(), "up to 3 attempts on Exception, waits 0.1 s x 2 up to 10 s +-10%"),
        (
            Retry(2, (OSError, KeyError), Backoff(1, 1, 2, 0), retry_after=asked),
            "up to 2 attempts on OSError or KeyError, waits 1 s up to 2 s, or what asked says",
        ),
        (
            Retry(9, CircuitOpen, Backoff(0), retry_after=Unhashable()),
            "up to 9 attempts on CircuitOpen, waits 0 s x 2 up to 10 s +-10%, or what Unhashable says",
        ),
        (
            Retry(1, OSError, retry_after=asked, pauses_limit=True),
            "up to 1 attempts on OSError, pauses its rate limits for what asked says",
        ),
        (RollingLimit(7), "7 in any 60 s"),
        (CircuitBreaker(), "opens after 5 failures in a row, probes after 30 s"),
        (CircuitBreaker(1), "opens after a failure, probes after 30 s"),
        (
            CircuitBreaker(None, 0.5, ratio=0.25, window=20, on=is_meant, wait=True),
            "opens after 25% of the last 20 failed (is_meant), probes after 0.5 s, calls wait meanwhile",
        ),
        (
            CircuitBreaker(3, ratio=1, window=4, on=(OSError, KeyError)),
            "opens after 3 failures in a row or when 100% of the last 4 failed (OSError or KeyError), "
            "probes after 30 s",
        ),
        (OnError.stop(), "stop"),
        (OnError.skip(), "skip"),
        (OnError.skip(0), "skip, at most 0"),
        (OnError.skip(5, 0.125, 40), "skip, at most 5, at most 12.5% from 40 items on"),
        (OnError.skip(max_ratio=0), "skip, at most 0.0% from 100 items on"),
        (OnError.emit(), "emit a Failure in its place"),
        (OnError.divert(bury), "divert to bury"),
        (OnError.divert(UnhashableAsync()), "divert to UnhashableAsync"),
    ],
)
def test_a_policy_says_itself_in_a_few_words(policy, words):
    """The words of the plan: stable, each field that matters is in them."""
    assert policy.describe() == words
