"""The laws of the waits between attempts, each with the mutants of `backoff.py` that it kills.

| law | mutant |
|---|---|
| the formula | a power one too high; the maximum after the jitter; no maximum; jitter added, not multiplied |
| no overflow | a power that raises, in floats or in ints; 0 times infinity |
| never below zero, never more than jitter away | u from a range wider than [-1, 1], or from half of it |
| seed, stage, item and attempt all count, and nothing else | one of them left out; two of them mixed alike |
| the seed of the run counts only where the policy has none | the other way about; a seed of 0 taken for none |
| it looks random | a weaker mixer (fewer rounds, another shift); items that are neighbours wait alike |
| golden waits | any change of the hash: a recorded run would wait otherwise |
"""

import math
import random
from statistics import correlation, fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio.policies.retry import Backoff

PLAIN = Backoff(0.1, 2.0, 10.0, jitter=0)
WHOLE = Backoff(1, 1, 1, jitter=1)  # waits 1 + u


def chance(item, attempt=1, seed=0, stage=""):
    """The u of one wait."""
    return backoff_delay(Backoff(1, 1, 1, jitter=1, seed=seed), item, attempt, stage=stage) - 1


def test_each_wait_is_longer_by_the_factor_up_to_the_maximum():
    waits = [backoff_delay(PLAIN, 0, attempt) for attempt in range(1, 10)]

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


@given(
    initial=st.floats(0, 100),
    factor=st.floats(1, 10),
    maximum=st.floats(0, 1000),
    jitter=st.floats(0, 1),
    seed=st.integers(),
    stage=st.text(max_size=9),
    item=st.integers(0, 10**9),
    attempt=st.integers(1, 100),
)
def test_a_wait_is_the_formula(initial, factor, maximum, jitter, seed, stage, item, attempt):
    """min(initial * factor**(k-1), maximum) * (1 + jitter * u), to the last bit; the policy's seed goes first."""
    wait = backoff_delay(Backoff(initial, factor, maximum, jitter, seed), item, attempt, stage=stage, seed=7)
    base = min(initial * factor ** (attempt - 1), maximum)

    assert backoff_delay(Backoff(initial, factor, maximum, 0, seed), item, attempt) == base
    assert wait == base * (1 + jitter * chance_exactly(seed, stage, item, attempt))
    assert wait == backoff_delay(Backoff(initial, factor, maximum, jitter), item, attempt, stage=stage, seed=seed)
    assert 0 <= base * (1 - jitter) <= wait <= base * (1 + jitter)


def chance_exactly(seed, stage, item, attempt):
    """The u of the formula."""
    for byte in stage.encode("utf-8", "surrogatepass"):
        seed = finalised(seed) ^ byte
    return 2 * finalised(finalised(finalised(seed) ^ item) ^ attempt) / (2**64 - 1) - 1


def finalised(bits):
    """A number of SplitMix64, as its paper has it, after the state `bits`."""
    bits = (bits + 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


def test_the_mixer_is_split_mix_64():
    """The first numbers of SplitMix64 from seed 0, as its reference has them."""
    numbers = [finalised(k * 0x9E3779B97F4A7C15) for k in range(3)]

    assert numbers == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_recorded_run_waits_alike_for_ever():
    """Waits are part of what the same seed repeats: these never change."""
    waits = [backoff_delay(Backoff(seed=seed), item, attempt, stage=stage) for seed, stage, item, attempt in GOLDEN]

    assert waits == list(GOLDEN.values())


GOLDEN = {
    (0, "", 0, 1): 0.09368733348599155,
    (0, "", 0, 2): 0.2078981308715814,
    (0, "", 1, 1): 0.09549425313976416,
    (1, "", 0, 1): 0.09846422896391654,
    (-1, "", 0, 1): 0.10241673826979199,
    (7, "", 10**6, 3): 0.36665808792962884,
    (0, "embed", 0, 1): 0.09795072334770084,
    (2**64 - 1, "日本\ud800", 3, 2): 0.2048732897131143,
}


@pytest.mark.parametrize("attempt", [1025, 10_000, 10_000_000])
@pytest.mark.parametrize("factor", [2, 2.0, 1e300, 10**300])
@pytest.mark.parametrize("initial", [1, 0.1, 5e-324, 1e308])
def test_a_late_attempt_waits_the_maximum(initial, factor, attempt):
    """However large the power is, it is beyond the maximum, not beyond the program."""
    assert backoff_delay(Backoff(initial, factor, 7.5, jitter=0), 0, attempt) == 7.5


@pytest.mark.parametrize("attempt", [1, 2, 10_000])
@pytest.mark.parametrize("policy", [Backoff(0, 1e300), Backoff(0.0, 2, 10), Backoff(1, 2, 0), Backoff(1, 2, 0.0)])
def test_no_wait_stays_no_wait(policy, attempt):
    assert backoff_delay(policy, 3, attempt) == 0.0


@pytest.mark.parametrize(("initial", "longest"), [(0.1, 10), (10, 10), (60, 60), (1e9, 1e9)])
def test_without_a_maximum_no_wait_is_cut_below_the_first(initial, longest):
    """10 s, unless the first wait is longer: then that is how long each one is."""
    waits = [backoff_delay(Backoff(initial, jitter=0), 0, attempt) for attempt in (1, 2, 99)]

    assert waits == [min(initial, longest), min(2 * initial, longest), longest]
    assert Backoff(initial).describe().endswith(f" up to {longest:g} s +-10%")


@pytest.mark.parametrize("initial", [0, 1, 0.5])
def test_a_wait_is_a_float(initial):
    assert type(backoff_delay(Backoff(initial, 2, 10, jitter=0), 0, 1)) is float


def test_no_two_of_many_waits_are_alike():
    """Seed, stage, item and attempt each change the wait, and none of them stands for another."""
    by_place = {
        (seed, stage, item, attempt): chance(item, attempt, seed, stage)
        for seed in (-1, 0, 1, 2, 2**63)
        for stage in ("", "\0", "\0\0", "a", "aa", "ab", "ba", "feed", "feed#2", "feed#3")
        for item in (*range(30), 10**12)
        for attempt in range(1, 30)
    }

    assert len(set(by_place.values())) == len(by_place)


def test_a_wait_depends_on_nothing_else():
    """Asked in any order, as often as one likes, whatever the global generator did: the same waits."""
    places = [(item, attempt) for item in range(20) for attempt in range(1, 6)]
    waits = {place: backoff_delay(WHOLE, *place) for place in places}
    state = random.getstate()
    random.shuffle(places)

    again = {place: backoff_delay(WHOLE, *place) for place in places for _ in range(2)}

    assert again == waits
    random.setstate(state)


@pytest.mark.parametrize("seed", [0, 1, -7, 2**70])
def test_chance_is_spread_evenly(seed):
    """Over 10 000 items, u has the mean, the spread, and the tenths of an even number in [-1, 1], and no memory."""
    chances = [chance(item, seed=seed) for item in range(10_000)]
    tenths = [0] * 10
    for u in chances:
        tenths[min(9, math.floor((u + 1) * 5))] += 1

    assert all(-1 <= u <= 1 for u in chances)
    assert abs(fmean(chances)) < 0.03
    assert abs(pstdev(chances) - 1 / math.sqrt(3)) < 0.01
    assert all(850 < count < 1150 for count in tenths)
    assert abs(correlation(chances[1:], chances[:-1])) < 0.04
    assert abs(correlation(chances, [chance(item, 2, seed) for item in range(10_000)])) < 0.04
    assert abs(correlation(chances, [chance(item, seed=seed + 1) for item in range(10_000)])) < 0.04
    assert abs(correlation(chances, [chance(item, seed=seed, stage="feed") for item in range(10_000)])) < 0.04


def test_who_names_no_stage_and_no_seed_has_the_empty_name_and_zero():
    policy = Backoff(1, jitter=0.5)

    assert backoff_delay(policy, 3, 1) == backoff_delay(policy, 3, 1, stage="", seed=0)
