"""Calls that need tokens of several buckets, as a game of claims; mutants of `token_claims.py` that die here:

- tokens of one bucket taken while another has none; a call that is asked for one bucket only;
- an older call that a younger one delays, in one bucket or by little; one that keeps its tokens from all others;
- calls for the same buckets that overtake each other; a call that is never served.
"""

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.token_bucket import TokenBucket
from funcpipe_trio._sansio.token_claims import may_start, ready_at
from funcpipe_trio.policies.rate_limit import RateLimit

limits = st.builds(RateLimit, st.sampled_from([0.25, 1, 2, 8]), burst=st.integers(1, 6))
costs = st.sampled_from([Fraction(1, 4), Fraction(1, 2), 1, 2, 3])


class Call:
    """A call that came, what it costs at which bucket, and when it started."""

    def __init__(self, came, claim):
        self.came, self.claim = came, claim
        self.start = None
        self.ready = math.inf


@st.composite
def games(draw):
    """Some buckets, and calls in the order in which they come."""
    buckets = [TokenBucket(draw(limits)) for _ in range(draw(st.integers(1, 3)))]
    times = sorted(draw(st.lists(st.integers(0, 40).map(lambda n: n / 4), min_size=1, max_size=12)))
    calls = []
    for came in times:
        needed = draw(st.lists(st.sampled_from(buckets), min_size=1, max_size=3, unique=True))
        claim = {each: min(draw(costs), each.rate_limit.burst) for each in needed}
        calls.append(Call(came, claim))
    return buckets, calls


def firsts(waiting):
    """The first of each line, the oldest of them first."""
    lines = {}
    for call in waiting:
        lines.setdefault(frozenset(call.claim), call)
    return list(lines.values())


def serve(now, waiting):
    """Let start who may, in an order that favours the young; answer when to ask again."""
    while True:
        first, again = firsts(waiting), math.inf
        for number in reversed(range(len(first))):
            call = first[number]
            answer = may_start(now, call.claim, [older.claim for older in first[:number]])
            if answer is None:
                assert [bucket.take(now, cost) for bucket, cost in call.claim.items()] == [None] * len(call.claim)
                call.start = now
                waiting.remove(call)
                break
            if isinstance(answer, float):
                assert answer > now
                again = min(again, answer)
            else:
                assert any(answer is older.claim for older in first[:number])
        else:
            return again


def play(calls, look=lambda now, waiting: None):
    waiting, coming, now = [], list(calls), 0.0
    while True:
        again = serve(now, waiting)
        look(now, waiting)
        if not (coming or waiting):
            return
        now = min(again, coming[0].came if coming else math.inf)
        assert now < math.inf, "nobody may ever start"
        while coming and coming[0].came == now:
            waiting.append(coming.pop(0))


def worst(bucket, calls):
    """By how much the worst window is above the bound."""
    taken = sorted((Fraction(call.start), call.claim[bucket]) for call in calls if bucket in call.claim)
    limit = bucket.rate_limit
    return max(
        (
            sum(cost for _, cost in taken[i : j + 1]) - limit.burst - Fraction(limit.rate) * (taken[j][0] - begin)
            for i, (begin, _) in enumerate(taken)
            for j in range(i, len(taken))
        ),
        default=0,
    )


@settings(max_examples=300, deadline=None)
@given(games())
def test_all_bounds_hold_at_the_start_of_the_calls_and_all_are_served(game):
    buckets, calls = game
    play(calls)

    assert all(call.start is not None and call.start >= call.came for call in calls)
    assert all(worst(bucket, calls) <= 0 for bucket in buckets)


@settings(max_examples=300, deadline=None)
@given(games())
def test_calls_for_the_same_buckets_start_in_the_order_in_which_they_came(game):
    _, calls = game
    play(calls)

    for number, call in enumerate(calls):
        assert all(call.start <= later.start for later in calls[number:] if later.claim.keys() == call.claim.keys())


@settings(max_examples=300, deadline=None)
@given(games())
def test_nobody_delays_the_one_that_waits_longest(game):
    """Whatever the others take: when it may start can only come nearer. So nobody starves."""

    def look(now, waiting):
        if waiting:
            oldest = waiting[0]
            ready = ready_at(now, oldest.claim)
            assert ready <= oldest.ready
            oldest.ready = ready

    _, calls = game
    play(calls, look)

    assert all(call.ready in (math.inf, call.start) for call in calls)


@settings(max_examples=300, deadline=None)
@given(games())
def test_a_call_that_delays_none_and_has_its_tokens_does_not_wait(game):
    """One that waits at an instant lacks tokens, or an older one would start later for it."""

    def look(now, waiting):
        first = firsts(waiting)
        for number, call in enumerate(first):
            if ready_at(now, call.claim) > now:
                continue
            assert any(
                bucket.when(now, older.claim[bucket], behind=call.claim[bucket]) > ready_at(now, older.claim)
                for older in first[:number]
                for bucket in older.claim.keys() & call.claim.keys()
            )

    play(game[1], look)


def test_who_waits_for_another_bucket_holds_up_nobody_in_vain():
    """Until its own tokens could come too late."""
    shared, slow = TokenBucket(RateLimit(1, burst=1)), TokenBucket(RateLimit(1, per=10, burst=1))
    both = {shared: 1, slow: 1}
    slow.take(0.0, 1)
    only = [Call(0, {shared: 1}) for _ in range(12)]
    calls = [Call(0, both), *only]
    play(calls)

    assert calls[0].start == 10
    assert [call.start for call in only] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]


@given(limits, st.lists(st.tuples(st.integers(0, 20), costs), max_size=6), costs, costs)
def test_when_says_when_a_bucket_has_the_tokens_of_two(limit, taken, cost, behind):
    """To the instant: as if the other had taken its own as soon as it may."""
    bucket, now = TokenBucket(limit), 0.0
    for wait, each in taken:
        now += wait / 4
        bucket.take(now, min(each, limit.burst))
    cost, behind = min(cost, limit.burst), min(behind, limit.burst)
    expected = bucket.when(now, cost, behind=behind)
    at = bucket.when(now, behind)
    full_since = bucket.tokens(at) + 0.0
    assert bucket.take(at, behind) is None
    found = bucket.when(at, cost)

    assert found == expected or (full_since >= limit.burst and found >= expected)
