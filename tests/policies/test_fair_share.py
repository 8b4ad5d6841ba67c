"""`FairShare` checks itself, and stays what it was."""

import copy
import pickle
import re
from fractions import Fraction
from functools import partial

import pytest

from funcpipe_trio._base.shown import shown
from funcpipe_trio.policies.fair_share import FairShare


def size(item):
    return len(item)


async def async_size(item):
    return len(item)


class AsyncSize:
    async def __call__(self, item):
        return len(item)


def test_an_input_has_its_own_weight_or_the_default():
    share = FairShare({"a": 3, ("tenant", "stream"): Fraction(1, 2)}, default_weight=7)

    assert [share.weight_of(key) for key in ("a", ("tenant", "stream"), "other")] == [3, Fraction(1, 2), 7]


def test_the_defaults_are_equal_shares():
    share = FairShare()

    assert (dict(share.weights), share.default_weight, share.capacity, share.cost) == ({}, 1, 16, None)


def test_weights_are_copied_and_read_only():
    weights = {"a": 1}
    share = FairShare(weights)
    weights["a"] = 2

    assert share.weight_of("a") == 1
    with pytest.raises(TypeError, match=r"^'mappingproxy' object does not support item assignment$"):
        share.weights["a"] = 3


def test_equal_shares_are_equal_and_have_one_hash():
    one, same = FairShare({"a": 1, "b": 2}, cost=size), FairShare({"b": 2, "a": 1}, cost=size)

    assert one == same
    assert hash(one) == hash(same)
    assert one != FairShare({"a": 1, "b": 3}, cost=size)


def test_unequal_shares_seldom_have_one_hash():
    """Weights, default and capacity count, so that shares can be keys of a large dict."""
    for shares in (
        [FairShare({0: number}) for number in range(1, 100)],
        [FairShare(default_weight=number) for number in range(1, 100)],
        [FairShare(capacity=number) for number in range(1, 100)],
    ):
        assert len(set(map(hash, shares))) > 90


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda share: pickle.loads(pickle.dumps(share))])
def test_a_copy_is_equal_in_every_part(copied):
    share = FairShare({"a": 3, "b": Fraction(1, 2)}, default_weight=7, capacity=5, cost=size)

    assert copied(share) == share


REFUSED = [
    (TypeError, {"weights": [("a", 1)]}, "weights must be a mapping of keys to weights, not a list of length 1"),
    (
        TypeError,
        {"weights": {"b": 0.5}},
        "weights['b'] must be a positive int or Fraction, not 0.5\nUse Fraction(1, 2).",
    ),
    (TypeError, {"weights": {"b": True}}, "weights['b'] must be a positive int or Fraction, not True"),
    (TypeError, {"weights": {"b": "3"}}, "weights['b'] must be a positive int or Fraction, not a str of length 1"),
    (
        TypeError,
        {"weights": {"b": float("nan")}},
        "weights['b'] must be a positive int or Fraction, not nan",
    ),
    (ValueError, {"weights": {"b": 0}}, "weights['b'] must be a positive int or Fraction, not 0"),
    (
        ValueError,
        {"weights": {"b": Fraction(-1, 2)}},
        "weights['b'] must be a positive int or Fraction, not Fraction(-1, 2)",
    ),
    (ValueError, {"default_weight": 0}, "default_weight must be a positive int or Fraction, not 0"),
    (TypeError, {"default_weight": False}, "default_weight must be a positive int or Fraction, not False"),
    (ValueError, {"capacity": 0}, "capacity must be >= 1, not 0"),
    (TypeError, {"capacity": 1.0}, "capacity must be an int >= 1, not 1.0"),
    (TypeError, {"capacity": True}, "capacity must be an int >= 1, not True"),
    (TypeError, {"cost": 3}, "cost must be callable, not 3"),
    (TypeError, {"cost": async_size}, "cost must be a sync function, not the async function async_size"),
]


@pytest.mark.parametrize(("error", "arguments", "message"), REFUSED)
def test_a_broken_rule_is_told_with_the_value(error, arguments, message):
    with pytest.raises(error, match=rf"^FairShare: {re.escape(message)}$"):
        FairShare(**arguments)


@pytest.mark.parametrize("cost", [partial(async_size), AsyncSize()], ids=["partial", "callable object"])
def test_a_hidden_async_cost_function_is_refused(cost):
    with pytest.raises(TypeError, match=rf"^FairShare: cost must be a sync function, not {shown(cost)}$"):
        FairShare(cost=cost)


def test_any_sync_callable_may_tell_the_cost():
    for cost in (size, partial(size), len, lambda item: 1, str):
        assert FairShare(cost=cost).cost is cost
