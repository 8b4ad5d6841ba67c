"""Who is next among the calls that wait for one limit, by keys with weights, in one line or several.

| law | mutants of `fair_lines.py` (and of `overtake`, `adjust`, `View` in `fair_queue.py`) |
|---|---|
| the first is that of the model | a view that is not told of a charge elsewhere; `overtake` that leaves V |
| lag between keys that no limit holds up | V set back by a flow that was passed over; a flow for each line of a key |
| first come, first served within a key | `first` that takes the last of a lane |
| a key that leaves keeps its debt | `drop` before the charge; a lane that stays |
| groups share, and inside of them their members | `served` that charges one level; `_hide` that leaves a group |
| nothing is left behind | a view, lane or flow that stays |
| weights that were set | a group that is forgotten with its weights |
| corrections | `adjust` that serves, or that lets a debt get below 0; one of a group that does not wait |
| copies | weights lost or under another name; a copy that shares them; a copy of a group that is no group of a copy |
"""

import gc
import pickle
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.fair_lines import Branch, FairLine

KEYS = "abcd"
COME, SERVE, GIVE_UP, WEIGH, CORRECT = "come", "serve", "give up", "weigh", "correct"
weights = st.one_of(st.integers(1, 9), st.sampled_from([10**9, 999_999_937]), st.fractions(Fraction(1, 9), 9))


class Model:
    """Start-time fair queueing with Fractions, as it is defined, over keys that wait in lines."""

    def __init__(self, weight_of):
        self.weight = dict(weight_of)
        self.tags, self.turns, self.waiting = {}, {}, []  # waiting: (line, key, name), in the order of arrival
        self.now = self.latest = Fraction(0)
        self.count = 0

    def turn(self, key):
        self.count += 1
        self.turns[key] = self.count

    def come(self, line, key, name):
        if all(other != key for _, other, _ in self.waiting):
            self.tags[key] = max(self.tags.get(key, self.now), self.now)
            self.turn(key)
        self.waiting.append((line, key, name))

    def first(self, line):
        return min(
            (place for place in self.waiting if place[0] == line),
            key=lambda place: (self.tags[place[1]], self.turns[place[1]], self.waiting.index(place)),
            default=None,
        )

    def serve(self, line, cost):
        place = self.first(line)
        _, key, _ = place
        self.now = max(self.now, self.tags[key])
        self.tags[key] = self.now + Fraction(cost) / self.weight[key]
        self.latest = max(self.latest, self.tags[key])
        self.turn(key)
        self.leave(place)
        return place

    def leave(self, place):
        self.waiting.remove(place)
        if not self.waiting:
            self.tags.clear()
            self.now = self.latest

    def weigh(self, key, weight):
        if key in self.tags and self.tags[key] > self.now:
            self.tags[key] = self.now + (self.tags[key] - self.now) * self.weight[key] / weight
        self.weight[key] = weight
        if any(other == key for _, other, _ in self.waiting):
            self.turn(key)

    def correct(self, key, cost):
        if self.waiting:
            self.tags[key] = max(
                self.now, max(self.tags.get(key, self.now), self.now) + Fraction(cost) / self.weight[key]
            )
            self.latest = max(self.latest, self.tags[key])
            if any(other == key for _, other, _ in self.waiting):
                self.turn(key)


events = st.lists(
    st.tuples(
        st.sampled_from([COME, COME, COME, SERVE, SERVE, GIVE_UP, WEIGH, CORRECT]),
        st.integers(0, 1),
        st.sampled_from(KEYS),
        st.integers(1, 8),
    ),
    max_size=80,
)


@given(events, st.tuples(*[st.sampled_from([1, 2, 4, Fraction(1, 2)])] * 4))
@settings(max_examples=300, deadline=None)
def test_the_first_of_each_line_is_that_of_the_model(steps, given_weights):
    """Weights that are powers of two: no tag is rounded, so each tie is one in the model too."""
    start = dict(zip(KEYS, given_weights, strict=True))
    model, top = Model(start), Branch(start.__getitem__)
    lines = [FairLine(top), FairLine(top)]
    for number, (event, line, key, size) in enumerate(steps):
        if event == COME:
            model.come(line, key, number)
            lines[line].add((line, key, number), top, key)
        elif event == SERVE and model.first(line):
            place = model.serve(line, size)
            lines[line].served(place, size)
            lines[line].remove(place)
        elif event == GIVE_UP and model.waiting:
            place = model.waiting[size % len(model.waiting)]
            model.leave(place)
            lines[place[0]].remove(place)
        elif event == WEIGH:
            weight = Fraction(2) ** (size - 4)
            model.weigh(key, weight)
            top.set_weight(key, weight)
        elif event == CORRECT:
            model.correct(key, size - 4)
            top.adjust(key, size - 4)
        assert [each.first() for each in lines] == [model.first(each) for each in (0, 1)]
        assert [*lines[0]] == [place for place in model.waiting if place[0] == 0]
        firsts = [each.first() for each in lines]
        if None not in firsts:
            before = lines[0].is_before(firsts[0], lines[1], firsts[1])
            assert before is (
                None
                if firsts[0][1] == firsts[1][1]
                else model.first(0)
                == min(
                    (model.first(each) for each in (0, 1)),
                    key=lambda place: (model.tags[place[1]], model.turns[place[1]]),
                )
            )


def lags_of(log, weight_of):
    """Return the greatest lag between any two keys over intervals in which both wait, by what the bound allows."""
    worst = Fraction(0)
    most = {key: max((cost for served, cost, _ in log if served == key), default=0) for key in KEYS}
    for one, other in combinations(KEYS, 2):
        lead, low, high = Fraction(0), Fraction(0), Fraction(0)
        for served, cost, waiting in log:
            if not {one, other} <= waiting:
                lead = low = high = Fraction(0)
                continue
            if served in (one, other):
                lead += Fraction(cost) / weight_of[served] * (1 if served == one else -1)
                low, high = min(low, lead), max(high, lead)
                bound = sum(Fraction(most[key]) / weight_of[key] for key in (one, other))
                worst = max(worst, (high - low) / bound)
    return worst


@given(events, st.tuples(*[weights] * 4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_two_waiting_keys_got_differs_by_at_most_one_call_of_each(steps, given_weights, is_held_up):
    """By weight, over every interval in which both wait; in one line, or while the other line is held up throughout."""
    weight_of = dict(zip(KEYS, given_weights, strict=True))
    top = Branch(weight_of.__getitem__)
    lines, waiting, log = [FairLine(top), FairLine(top)], [], []
    for number, (event, line, key, size) in enumerate(steps * 2):
        if event == COME:
            line *= is_held_up
            waiting.append((line, key, number))
            lines[line].add(waiting[-1], top, key)
        elif event == SERVE and (place := lines[0].first()):
            served_of = {each[1] for each in waiting if each[0] == 0}
            lines[0].served(place, size)
            lines[0].remove(place)
            waiting.remove(place)
            log += [(place[1], size, served_of), (None, 0, {each[1] for each in waiting if each[0] == 0})]
        elif event == GIVE_UP and waiting:
            place = waiting.pop(size % len(waiting))
            lines[place[0]].remove(place)
            log.append((None, 0, {each[1] for each in waiting if each[0] == 0}))
    assert lags_of(log, weight_of) <= 1


def in_turn(line, places, costs=1):
    """Serve all that waits; give the places in their order."""
    served = []
    while place := line.first():
        line.served(place, costs)
        line.remove(place)
        served.append(place)
    assert sorted(served, key=str) == sorted(places, key=str)
    return served


def test_a_line_that_is_held_up_gets_no_credit_for_it():
    """It is served at once when it can be, once for each key, and then shares; nor has it delayed the others."""
    top = Branch(lambda key: 1)
    free, stuck = FairLine(top), FairLine(top)
    for number in range(20):
        stuck.add(("x", number), top, "x")
        for key in "ab":
            free.add((key, number), top, key)
    first = Counter()
    for _ in range(10):
        place = free.first()
        free.served(place, 1)
        free.remove(place)
        first[place[0]] += 1
    assert first == {"a": 5, "b": 5}

    order = []
    for _ in range(9):  # now both lines can be served
        one, other = free.first(), stuck.first()
        line, place = (free, one) if free.is_before(one, stuck, other) else (stuck, other)
        line.served(place, 1)
        line.remove(place)
        order.append(place[0])
    assert order[0] == "x"
    assert Counter(order) == {"x": 3, "a": 3, "b": 3}


def test_a_key_in_two_lines_has_one_share():
    top = Branch({"x": 1, "y": 1}.__getitem__)
    one, other = FairLine(top), FairLine(top)
    for number in range(40):
        one.add(("x", number), top, "x")
        other.add(("x", 100 + number), top, "x")
        other.add(("y", number), top, "y")
    served = Counter()
    for turn in range(40):
        first, second = one.first(), other.first()
        before = one.is_before(first, other, second)
        line, place = (one, first) if (turn % 2 if before is None else before) else (other, second)
        line.served(place, 1)
        line.remove(place)
        served[place[0]] += 1
    assert served == {"x": 20, "y": 20}


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_groups_share_and_inside_of_them_their_members(data):
    """While all of a level wait, each gets its part of what its group gets, to one call of each."""
    top = Branch(lambda name: 1)
    weight = {name: data.draw(st.integers(1, 9)) for name in ("g", "h", "x", ("g", 1), ("g", 2), ("h", 1))}
    groups = {name: top.group(name) for name in "gh"}
    for name, value in weight.items():
        branch, key = (groups[name[0]], name[1]) if isinstance(name, tuple) else (top, name)
        branch.set_weight(key, value)
    line, leaves = FairLine(top), [("g", 1), ("g", 2), ("h", 1), "x"]
    for number in range(60):
        for leaf in leaves:
            branch, key = (groups[leaf[0]], leaf[1]) if isinstance(leaf, tuple) else (top, leaf)
            line.add((leaf, number), branch, key)
    got = defaultdict(int)
    for _ in range(60):
        place = line.first()
        line.served(place, 1)
        line.remove(place)
        got[place[0]] += 1
    got["g"], got["h"] = got["g", 1] + got["g", 2], got["h", 1]
    for one, other in (("g", "h"), ("g", "x"), ("h", "x"), (("g", 1), ("g", 2))):
        lag = abs(Fraction(got[one], weight[one]) - Fraction(got[other], weight[other]))
        assert lag <= Fraction(1, weight[one]) + Fraction(1, weight[other])
    # A key is no group: both may have one name.
    line.add("twin", top, "g")
    assert {*in_turn(line, [*line])} >= {"twin"}


def test_a_group_that_comes_and_goes_keeps_its_debt():
    """Its calls cost three times as much; it is away whenever one was served."""
    top = Branch(lambda name: 1)
    line, served = FairLine(top), Counter()
    for number in range(80):
        line.add(("x", number), top, "x")
    for number in range(20):
        if ("g", number - 1) not in line or number == 0:
            line.add(("g", number), top.group("g"), "job")
        else:
            line.remove(("g", number - 1))
            line.add(("g", number), top.group("g"), "job")
        for _ in range(2):
            place = line.first()
            line.served(place, 3 if place[0] == "g" else 1)
            line.remove(place)
            served[place[0]] += 1
            if place[0] == "g":
                break
    assert abs(3 * served["g"] - served["x"]) <= 4


def test_a_group_has_the_weight_of_its_name_also_while_it_waits():
    weight_of = {"g": 1, "x": 1, ("g", "a"): 2, ("g", "b"): 1}
    top = Branch(weight_of.__getitem__)
    line, group = FairLine(top), top.group("g")
    for number in range(60):
        for branch, key in ((group, "a"), (group, "b"), (top, "x")):
            line.add((key, number), branch, key)

    def serve(times):
        served = Counter()
        for _ in range(times):
            place = line.first()
            line.served(place, 1)
            line.remove(place)
            served[place[0]] += 1
        return served

    served = serve(36)
    assert served == {"a": 12, "b": 6, "x": 18}
    top.set_weight("g", 2)
    served = serve(36)
    assert abs(served["x"] - 12) <= 1
    assert abs(served["a"] - 2 * served["b"]) <= 3


def test_a_key_without_calls_leaves_nothing_behind():
    top = Branch(lambda name: 1)
    line, other = FairLine(top), FairLine(top)
    for number in range(300):
        group = top.group(number % 7).group("inner")
        line.add(number, group, number)
        other.add(-number, top, number)
        del group
        if number % 3:
            line.served(line.first(), 1)
        line.remove(number)
        other.remove(-number)
        gc.collect(0)
    gc.collect()
    assert (len(line), line.first(), line._views, top.lanes, [*top._groups]) == (0, None, {}, {}, [])
    assert (top.queue.backlogged, len(top.queue._flows), top.queue._views) == (0, 0, {})


def test_weights_that_were_set_in_a_group_stay():
    """Also where nobody keeps the group; they count when the key comes."""
    top = Branch(lambda name: 1)
    top.group("g").set_weight("a", 3)
    gc.collect()
    other = Branch(lambda name: 1)
    other.copy_weights(top)
    gc.collect()
    for branch in (top, other):
        line, group = FairLine(branch), branch.group("g")
        for number in range(30):
            for key in "ab":
                line.add((key, number), group, key)
        served = in_turn(line, [*line])
        assert abs(Counter(key for key, _ in served[:20])["a"] - 15) <= 1


def ten(name):
    """The weight of each key that has no other."""
    return 10


NAMED = {("g",): 2, ("x",): 3, ("g", "a"): 4, ("g", "inner"): 5, ("g", "inner", "a"): 6, ("g", "inner", "b"): 7}


def named(top, name):
    """The branch that has a name, and the key of it there."""
    branch = top
    for key in name[:-1]:
        branch = branch.group(key)
    return branch, name[-1]


def weights_of(top):
    others = [("a",), ("g", "x"), ("h", "a"), ("g", "inner", "x")]
    return {name: branch.weight(key) for name in [*NAMED, *others] for branch, key in [named(top, name)]}


def with_weights():
    """A branch in which weights were set."""
    top = Branch(ten)
    for name, weight in NAMED.items():
        branch, key = named(top, name)
        branch.set_weight(key, weight)
    return top


def test_a_copy_has_the_weights_and_nobody_waits_in_it():
    """Nor has it the groups in which none was set: here one whose key cannot be pickled."""
    top = with_weights()
    line = FairLine(top)
    line.add("call", *named(top, ("g", "a")))
    line.add("another", top.group(lambda: None), "a")

    made = pickle.loads(pickle.dumps(top))

    assert weights_of(made) == weights_of(top)
    assert {name: weights_of(made)[name] for name in NAMED} == NAMED
    assert set(weights_of(made).values()) == {*NAMED.values(), 10}
    assert (made.lanes, made.queue.backlogged, top.queue.backlogged) == ({}, 0, 2)
    made.set_weight("g", 100)
    assert top.weight("g") == 2


@pytest.mark.parametrize("name", [("g",), ("g", "inner"), ("g", "inner", "b")])
def test_a_copy_of_a_group_is_that_group_of_a_copy(name):
    top = with_weights()
    copied, made = pickle.loads(pickle.dumps((top, named(top, (*name, "a"))[0])))

    assert made.name == name
    assert made is named(copied, (*name, "a"))[0]
    assert made is not named(top, (*name, "a"))[0]


def test_weights_that_are_taken_from_another_are_added_and_then_apart():
    top, other = with_weights(), Branch(ten)
    other.set_weight("mine", 1)
    other.group("g").set_weight("a", 99)

    other.copy_weights(top)

    assert weights_of(other) == weights_of(top)
    assert other.weight("mine") == 1
    other.set_weight("x", 8)
    assert (top.weight("x"), top.weight("mine")) == (3, 10)


def test_the_name_of_a_key_has_the_groups_around_it():
    top = Branch(ten)

    assert top.full_name("a") == "a"
    assert top.group("g").full_name("a") == ("g", "a")
    assert top.group("g").group(None).full_name("a") == ("g", None, "a")


def test_a_key_is_no_group_whatever_its_hash():
    top = Branch(ten)
    line, group = FairLine(top), top.group("g")
    line.add("of the group", group, "a")
    the_same = hash(group.flow.key)

    class Twin:
        def __hash__(self):
            return the_same

    line.add("of the key", top, Twin())

    assert in_turn(line, [*line]) == ["of the group", "of the key"]


def test_a_correction_where_a_whole_group_does_not_wait_changes_nothing():
    """Nobody of it shares with anyone; the others wait on, and it starts level with them."""
    top = Branch(ten)
    line = FairLine(top)
    line.add("first", top, "x")

    top.group("g").adjust("a", 50)

    line.add("second", top.group("g"), "a")
    line.add("third", top, "x")
    assert in_turn(line, [*line]) == ["first", "second", "third"]


def test_a_key_that_is_not_hashable_changes_nothing():
    top = Branch(lambda name: 1)
    line = FairLine(top)
    with pytest.raises(TypeError):
        line.add("place", top, [])
    assert (len(line), line.first(), top.lanes) == (0, None, {})


def test_a_correction_is_paid_off_and_never_a_credit():
    top = Branch(lambda name: 1)
    line = FairLine(top)
    for number in range(30):
        for key in "ab":
            line.add((key, number), top, key)
    top.adjust("a", 5)
    order = []
    for _ in range(12):
        place = line.first()
        line.served(place, 1)
        line.remove(place)
        order.append(place[0])
    assert Counter(order) == {"b": Counter(order)["b"], "a": Counter(order)["a"]}
    assert Counter(order)["b"] - Counter(order)["a"] in (4, 5)
    top.adjust("b", -100)
    order = []
    for _ in range(6):
        place = line.first()
        line.served(place, 1)
        line.remove(place)
        order.append(place[0])
    assert Counter(order)["b"] <= 4


def test_many_thousand_keys_with_weights_of_every_size():
    """Each key waits throughout; what any two of them got, by weight, differs by at most one call of each."""
    chance = Random(1)
    weight_of = [chance.choice([1, 7, 10**9, chance.randrange(1, 10**9)]) for _ in range(20_000)]
    top = Branch(weight_of.__getitem__)
    line, got = FairLine(top), Counter()
    for key in range(len(weight_of)):
        line.add((key, 0), top, key)
        line.add((key, 1), top, key)
    for number in range(2, 20_000):
        place = line.first()
        line.served(place, 1)
        got[place[0]] += 1
        line.add((place[0], number), top, place[0])
        line.remove(place)
    served = [*got, *range(100)]
    fractions = {key: Fraction(got[key], weight_of[key]) for key in served}
    highest = max(served, key=lambda key: fractions[key] - Fraction(1, weight_of[key]))
    lowest = min(served, key=lambda key: fractions[key] + Fraction(1, weight_of[key]))
    lag = fractions[highest] - fractions[lowest]
    assert lag <= Fraction(1, weight_of[highest]) + Fraction(1, weight_of[lowest])
