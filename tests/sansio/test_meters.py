"""The laws of what every meter can do, each with the mutants of `meter.py`, `meters.py` and both rules that it kills.

| law | mutant |
|---|---|
| it is the model, over takes, pauses, settlements and changes | an amount or an instant that is off by the least bit |
| the bound with what was given back and charged | a refund above the burst, or of what counts no more; a charge twice |
| a pause: nothing starts in it, to the last float | an end that is rounded down; a shorter pause that wins |
| a pause costs nothing else | tokens that are lost, or gained beyond the burst, while it lasts |
| another kind: never more than was there | a full meter after an empty one; a debt or a pause that is dropped |
| a question changes nothing | a debt that is paid when it is asked about; a copy that shares its records |

The models count in fractions, one start or one level at a time, and know nothing of ticks.
"""

import math
from copy import copy, deepcopy
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from funcpipe_trio import RateLimit, RollingLimit
from funcpipe_trio._sansio.meter import Meter
from funcpipe_trio._sansio.meters import meter_of, meter_under
from funcpipe_trio._sansio.rolling_window import RollingWindow
from funcpipe_trio._sansio.token_bucket import TokenBucket

START = 8.0


def first_float(instant):
    """The first float that is not before an exact instant."""
    near = float(instant)
    return near if near >= instant else math.nextafter(near, math.inf)


class Model:
    """What both rules share: a pause."""

    paused = Fraction(0)

    def pause(self, now, seconds):
        self.paused = max(self.paused, Fraction(now) + Fraction(seconds))

    def when(self, now, cost, behind=0):
        if cost > self.limit.burst:
            return math.inf
        at = max(Fraction(now), self.paused)
        model = deepcopy(self)
        if behind:
            at = model.free_at(at, behind)
            model.spend(at, behind)
        return first_float(model.free_at(at, cost))

    def take(self, now, cost):
        at = self.when(now, cost)
        if at > now:
            return at
        self.spend(Fraction(now), cost)
        return None


class BucketModel(Model):
    """A level, which may be below zero."""

    def __init__(self, limit):
        self.limit, self.level, self.since = limit, Fraction(limit.burst), Fraction(0)

    @property
    def rate(self):
        return Fraction(self.limit.rate) / Fraction(self.limit.per)

    def held(self, now):
        return min(Fraction(self.limit.burst), self.level + self.rate * (Fraction(now) - self.since))

    def free_at(self, at, cost):
        return max(at, self.since + (cost - self.level) / self.rate)

    def spend(self, now, cost):
        self.level, self.since = min(Fraction(self.limit.burst), self.held(now) - cost), Fraction(now)

    owe = spend

    def give_back(self, now, cost, since):
        self.spend(now, -cost)

    def charge(self, now, cost):
        paid = min(cost, max(Fraction(0), self.held(now)))
        self.spend(now, paid)
        return cost - paid

    def set_rate(self, now, limit):
        self.level, self.since, self.limit = min(Fraction(limit.burst), self.held(now)), Fraction(now), limit


class WindowModel(Model):
    """A list of starts, and how many of them must still be paid."""

    def __init__(self, limit):
        self.limit, self.starts, self.debt = limit, [], 0

    def age(self, now):
        per = Fraction(self.limit.per)
        while self.starts and min(self.starts) + per <= now:
            end = min(self.starts) + per
            self.starts = [at for at in self.starts if at + per > end]
            self.pay(end)

    def pay(self, at):
        while self.debt and len(self.starts) < self.limit.n:
            self.starts.append(at)
            self.debt -= 1

    def held(self, now):
        self.age(now)
        return max(0, self.limit.n - len(self.starts)) - self.debt

    def free_at(self, at, cost):
        later = deepcopy(self)
        while later.held(at) < cost:
            at = min(later.starts) + Fraction(self.limit.per)
        return at

    def spend(self, now, cost):
        self.age(now)
        self.starts += [Fraction(now)] * cost

    def give_back(self, now, cost, since):
        self.age(now)
        for _ in range(min(cost, self.starts.count(Fraction(since)))):
            self.starts.remove(Fraction(since))
        self.pay(Fraction(now))

    def charge(self, now, cost):
        paid = min(cost, max(0, self.held(now)))
        self.spend(now, paid)
        return cost - paid

    def owe(self, now, cost):
        self.age(now)
        self.debt += cost
        self.pay(Fraction(now))

    def set_rate(self, now, limit):
        self.age(now)
        self.limit = limit
        self.starts = [at for at in self.starts if at + Fraction(limit.per) > now]
        self.pay(Fraction(now))


def model_of(limit):
    return BucketModel(limit) if isinstance(limit, RateLimit) else WindowModel(limit)


pers = st.sampled_from([1.0, 0.1, 1 / 3, 7.3, 2.0**-10, 60.0])
rates = st.builds(RateLimit, st.sampled_from([1, 3, 0.1, 7.3, 2**0.5]), per=pers, burst=st.integers(1, 6))
rolls = st.builds(RollingLimit, st.integers(1, 6), per=pers)
GREEDY = None  # wait until the instant that the last refusal named, and no longer
gaps = st.one_of(st.just(GREEDY), st.just(0.0), st.sampled_from([0.1, 1.0]), st.floats(0, 5), st.floats(0, 1e3))


def events(limits, costs):
    amount = st.tuples(st.sampled_from(["take", "take", "take", "charge", "owe"]), costs)
    back = st.tuples(st.just("give_back"), st.tuples(st.integers(0, 5), costs))
    pause = st.tuples(st.just("pause"), st.sampled_from([0.0, 0.1, 1.0, 3.3, 100.0]))
    ask = st.tuples(st.just("when"), st.tuples(costs, costs))
    change = st.tuples(st.just("set_rate"), limits)
    return st.lists(st.tuples(gaps, st.one_of(amount, amount, back, pause, ask, change)), max_size=30)


KINDS = {
    "bucket": (rates, st.one_of(st.integers(1, 7), st.fractions(0, 3, max_denominator=7).filter(bool))),
    "window": (rolls, st.integers(1, 7)),
}
traces = st.one_of([st.tuples(limits, events(limits, costs)) for limits, costs in KINDS.values()])


def play(meter, model, trace):
    """Do the same with both, and compare each answer; give what was taken, given back and charged, at its instant."""
    now, named, log, calls = START, None, [], []
    for gap, (verb, given_) in trace:
        now = (named or now) if gap is GREEDY else now + gap
        named = None
        if verb == "take":
            cost = min(given_, Fraction(meter.rate_limit.burst))
            cost = cost.numerator if cost.denominator == 1 else cost
            named = model.take(now, cost)
            assert meter.take(now, cost) == named
            if named is None:
                log.append((now, cost))
                calls.append([now, cost])
            named = None if named == math.inf else named
        elif verb == "when":
            cost, behind = given_
            behind = min(behind, meter.rate_limit.burst)
            assert meter.when(now, cost, behind=behind) == model.when(now, cost, behind)
        elif verb == "give_back":
            if calls:
                call = calls[given_[0] % len(calls)]
                back = min(given_[1], call[1])
                before = model.held(now)
                meter.give_back(now, back, call[0])
                model.give_back(now, back, call[0])
                call[1] -= back
                log.append((now, before - model.held(now)))
                calls = [each for each in calls if each[1]]
        elif verb == "charge":
            rest = model.charge(now, given_)
            assert meter.charge(now, given_) == rest
            log.append((now, given_ - rest))
        else:
            getattr(meter, verb)(now, given_)
            getattr(model, verb)(now, given_)
        compare(meter, model, now)
    return log


def compare(meter, model, now):
    held, paused = model.held(now), model.paused > now
    assert meter.held(now) == held
    assert meter.tokens(now) == float(max(0, held))
    assert meter.whole_tokens(now) == (0 if paused else max(0, math.floor(held)))
    assert meter.paused_until(now) == (first_float(model.paused) if paused else None)
    assert meter.full_at(now) == model.when(now, model.limit.burst)
    assert meter.is_full(now) == (model.when(now, model.limit.burst) == now)
    assert meter.rate_limit is model.limit


@settings(max_examples=250, deadline=None)
@given(traces)
def test_a_meter_is_its_model(case):
    limit, trace = case
    model = model_of(limit)
    meter = meter_of(limit)
    meter.owe(START, limit.burst)  # a bucket that nothing was taken from stays full under any limit: not so a used one
    model.owe(START, limit.burst)

    play(meter, model, trace)


@settings(max_examples=100, deadline=None)
@given(traces)
def test_in_every_window_what_is_taken_keeps_to_the_burst_and_the_rate(case):
    """What was taken, less given back, plus charged, each at its instant: without any tolerance, under one limit."""
    limit, trace = case
    log = play(meter_of(limit), model_of(limit), [event for event in trace if event[1][0] != "set_rate"])
    if isinstance(limit, RateLimit):
        rate = Fraction(limit.rate) / Fraction(limit.per)
        sums = [0, *accumulate(cost for _, cost in log)]
        for end in range(len(log)):
            for start in range(end + 1):
                length = Fraction(log[end][0]) - Fraction(log[start][0])
                assert sums[end + 1] - sums[start] <= limit.burst + rate * length


def rolling(limit, trace):
    """Play takes and refunds; give for each instant of a start what then counts, by a list of starts alone."""
    meter, now, starts = meter_of(limit), START, []  # each start with what it took and did not get back
    for gap, cost, (back, which) in trace:
        now += gap or 0.0
        cost = min(cost, limit.n)
        if (answer := meter.take(now, cost)) is not None:
            now = answer
            assert meter.take(now, cost) is None
        starts.append([now, cost])
        yield now, starts
        mine = starts[which % len(starts)]
        back = min(back, mine[1])
        meter.give_back(now, back, mine[0])
        mine[1] -= back


@settings(max_examples=100, deadline=None)
@given(
    rolls,
    st.lists(st.tuples(gaps, st.integers(1, 6), st.tuples(st.integers(0, 3), st.integers(0, 9))), max_size=25),
)
def test_in_no_half_open_window_are_more_than_n(limit, trace):
    """Counted back from each start: those after ``t - per``, each less what it got back until then."""
    for now, starts in rolling(limit, trace):
        begin = Fraction(now) - Fraction(limit.per)
        assert sum(cost for at, cost in starts if Fraction(at) > begin) <= limit.n


# ---- a pause


@settings(max_examples=100, deadline=None)
@given(st.one_of(rates, rolls), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 9)), min_size=1, max_size=5))
def test_nothing_starts_in_a_pause_and_it_costs_nothing_else(limit, pauses):
    """To the last float before the latest end; then it holds what one does that was never paused."""
    paused, free, now, end = meter_of(limit), meter_of(limit), START, Fraction(0)
    for meter in (paused, free):
        meter.take(now, 1)
    for gap, seconds in pauses:
        now += gap
        paused.pause(now, seconds)
        end = max(end, Fraction(now) + Fraction(seconds))
        if now < end:
            assert paused.take(now, 1) == max(first_float(end), free.when(now, 1))
    last = first_float(end)

    if (before := math.nextafter(last, 0)) >= now:
        assert paused.take(before, 1) is not None
    assert paused.held(max(now, last)) == free.held(max(now, last))
    assert paused.take(max(now, last), 1) == free.take(max(now, last), 1)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=2), RollingLimit(2, per=1)])
def test_by_another_clock_what_is_left_of_a_pause_stays(limit):
    meter = meter_of(limit)
    meter.pause(10.0, 8)
    assert meter.take(13.0, 1) == 18.0
    meter.rebase(100.0)

    assert (meter.paused_until(100.0), meter.take(104.5, 1)) == (105.0, 105.0)
    meter.rebase(0.0)
    assert (meter.take(0.25, 1), meter.take(0.5, 1)) == (0.5, None)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=2), RollingLimit(2, per=1)])
def test_by_another_clock_all_of_a_pause_stays_that_nobody_asked_about(limit):
    meter = meter_of(limit)
    meter.pause(10.0, 8)
    meter.rebase(100.0)
    meter.rebase(50.0)

    assert meter.paused_until(50.0) == 58.0


@pytest.mark.parametrize("limit", [RateLimit(1, burst=2), RollingLimit(2, per=1)])
@pytest.mark.parametrize("now", [1e-20, 5e-324])
def test_to_ask_inside_of_a_tick_is_answered_with_now(limit, now):
    assert (meter_of(limit).when(now, 2), meter_of(limit).full_at(now)) == (now, now)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=2), RollingLimit(2, per=1)])
def test_debts_add_up(limit):
    meter = meter_of(limit)
    for cost in (1, 2, 3):
        meter.owe(5.0, cost)

    assert (meter.held(5.0), meter.tokens(5.0)) == (-4, 0)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=2), RollingLimit(2, per=1)])
def test_by_another_clock_a_pause_that_is_over_is_over(limit):
    meter = meter_of(limit)
    meter.pause(10.0, 3)
    assert meter.take(13.0, 1) is None
    meter.rebase(0.0)

    assert (meter.paused_until(0.0), meter.take(0.0, 1)) == (None, None)


@pytest.mark.parametrize("limit", [RateLimit(1), RollingLimit(1)])
def test_a_pause_may_be_longer_than_any_clock_goes(limit):
    meter = meter_of(limit)
    meter.pause(1.0, 1e300)

    assert (meter.take(2.0, 1), meter.paused_until(2.0), meter.whole_tokens(2.0)) == (math.inf, math.inf, 0)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=3), RollingLimit(3, per=1)])
def test_one_that_is_paused_is_not_as_good_as_new(limit):
    meter = meter_of(limit)
    assert (meter.is_full(5.0), meter.full_at(5.0)) == (True, 5.0)
    meter.pause(5.0, 2)

    assert (meter.is_full(6.0), meter.full_at(6.0)) == (False, 7.0)
    assert (meter.tokens(6.0), meter.whole_tokens(6.0)) == (3, 0)
    assert (meter.is_full(7.0), meter.whole_tokens(7.0)) == (True, 3)


@pytest.mark.parametrize("now", [1e-20, 5e-324])
def test_a_pause_inside_of_a_tick_is_rounded_against_the_caller(now):
    meter = meter_of(RateLimit(1))
    meter.pause(now, 1)

    assert meter.take(now, 1) == math.nextafter(1, 2)


# ---- another kind


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.tuples(rates, rolls), st.tuples(rolls, rates)), st.integers(1, 9), st.integers(0, 9), gaps)
def test_under_another_kind_what_is_there_stays_and_no_more(limits, cost, debt, gap):
    """A used meter gives at once no more than before; its debt and its pause go with it."""
    old, new = limits
    meter, now = meter_of(old), START
    meter.owe(now, cost)
    meter.owe(now, debt)
    now += gap or 0.0
    meter.pause(now, 1.5)
    held = meter.held(now)
    is_new = isinstance(old, RollingLimit) and held == old.n  # a bucket from which something was taken is a used one

    other = meter_under(meter, now, new)

    assert (type(other), other.rate_limit) == (type(meter_of(new)), new)
    expected = new.burst if is_new else min(held, new.burst)
    if isinstance(new, RollingLimit):
        expected = math.floor(expected)
    assert other.held(now) == expected
    assert other.paused_until(now) == now + 1.5


def test_a_meter_that_nothing_was_taken_from_is_full_under_any_limit():
    for old, new in ((RateLimit(1, burst=2), RollingLimit(9)), (RollingLimit(2), RateLimit(1, burst=9))):
        assert meter_under(meter_of(old), 5.0, new).held(5.0) == 9


def test_under_the_same_kind_it_stays_the_same_object():
    for old, new in ((RateLimit(1), RateLimit(2)), (RollingLimit(2), RollingLimit(9))):
        meter = meter_of(old)

        assert meter_under(meter, 5.0, new) is meter
        assert meter.rate_limit is new


def test_the_kinds_are_these():
    assert type(meter_of(RateLimit(1))) is TokenBucket
    assert type(meter_of(RollingLimit(1))) is RollingWindow


@pytest.mark.parametrize("limit", [RateLimit(1, burst=3), RollingLimit(3)])
def test_a_copy_is_one_of_its_own(limit):
    meter = meter_of(limit)
    meter.take(5.0, 1)
    other = copy(meter)
    other.take(5.0, 2)

    assert (meter.tokens(5.0), other.tokens(5.0)) == (2, 0)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=3), RollingLimit(3)])
def test_what_costs_more_than_the_burst_never_comes(limit):
    meter = meter_of(limit)

    assert (meter.take(5.0, 4), meter.when(5.0, 4), meter.when(5.0, 3, behind=2) > 5.0) == (math.inf, math.inf, True)


def test_a_refund_is_rounded_down_where_it_cannot_be_exact():
    """Beyond a sane size a cost is rounded up, and what is given back down."""
    meter = meter_of(RateLimit(1))
    meter.take(5.0, 1)
    meter.give_back(5.0, Fraction(1, 2**1024), 5.0)

    assert meter.held(5.0) == 0


@example(5)
@given(st.integers(0, 9))
def test_the_base_decides_nothing(cost):
    meter = Meter()
    for ask in ("take", "when", "charge", "owe"):
        with pytest.raises(NotImplementedError):
            getattr(meter, ask)(0.0, cost)
