"""What an `Adaptive` says of itself; what it refuses is in `tests/test_bad_input.py`.

Mutants that die here: the minimum for the maximum, a word of a description, a default.
"""

import pytest

from funcpipe_trio.policies.adaptive import Adaptive


def is_meant(error):
    return True


def test_its_defaults():
    assert Adaptive(1, 64) == Adaptive(minimum=1, maximum=64, target=1.3, on=Exception)


def test_both_may_be_the_same():
    assert Adaptive(1, 1).maximum == 1


@pytest.mark.parametrize(
    ("policy", "details"),
    [
        (Adaptive(2, 64), "fewer when calls take 1.3 times their floor, or more than 1 in 20 fails"),
        (
            Adaptive(2, 64, target=2, on=(OSError, KeyError)),
            "fewer when calls take 2 times their floor, or more than 1 in 20 fails with OSError or KeyError",
        ),
        (
            Adaptive(2, 64, on=is_meant),
            "fewer when calls take 1.3 times their floor, or more than 1 in 20 fails with is_meant",
        ),
    ],
)
def test_it_describes_itself(policy, details):
    assert policy.describe() == "concurrency 2 to 64, adaptive"
    assert policy.details() == details
