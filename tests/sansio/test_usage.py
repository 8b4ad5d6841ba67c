"""How much of its places a pool uses, against a model that adds up one stretch of time after the other.

Mutants of `usage.py` that die here: a place that is in use while it waits; a wait of one kind taken for the other;
what has not ended left out; the number of places of now times all the time; more than all of the time worked while
there were more calls than places; a stall that counts places in use, or goes on; times not counted from the beginning;
a second place that waits for the same which is counted as the first, or in place of it.
"""

from dataclasses import astuple

from hypothesis import example, given
from hypothesis import strategies as st

from funcpipe_trio._sansio.state_times import StateTimes
from funcpipe_trio._sansio.usage import Usage, Used

STEPS = st.tuples(
    st.integers(0, 8),  # quarters of a second before it
    st.sampled_from(("hire", "dismiss", "starve", "block", "feed", "make room", "stall", "go on", "resize", "read")),
    st.integers(1, 5),
)


class Model:
    """Counts of now, and what they came to."""

    def __init__(self, places):
        self.places = places
        self.in_use = self.starved = self.blocked = 0
        self.stalled = False
        self.sums = dict.fromkeys(Used.__slots__, 0.0)
        self.resized = {"seconds": 0.0, "effort": 0.0, "worked": 0.0}

    def let_pass(self, seconds):
        sums = self.sums
        free = max(0, self.places - self.in_use) if self.stalled else 0
        for name, count in (
            ("used", self.in_use),
            ("stalled", free),
            ("offered", self.places),
            ("starved", self.starved),
            ("blocked", self.blocked),
        ):
            sums[name] += count * seconds
        since = self.resized
        since["seconds"] += seconds
        since["effort"] += (self.in_use + free) * seconds
        sums["worked"] = since["worked"] + min(since["seconds"], since["effort"] / self.places)

    def do(self, usage, event, number, now):
        """Do one thing to both, if it can happen."""
        if event == "hire":
            self.in_use += 1
            usage.hire(now)
        elif event == "dismiss" and self.in_use:
            self.in_use -= 1
            usage.dismiss(now)
        elif event in ("starve", "block") and self.in_use:
            self.change(event == "starve", 1)
            usage.park(now, event == "starve")
        elif (event == "feed" and self.starved) or (event == "make room" and self.blocked):
            self.change(event == "feed", -1)
            usage.unpark(now, event == "feed")
        elif event in ("stall", "go on") and self.in_use <= self.places:
            self.stalled = event == "stall"
            usage.stall(now, self.stalled)
        elif event == "resize" and (self.in_use <= number or not self.stalled):
            self.places = number
            self.resized = {"seconds": 0.0, "effort": 0.0, "worked": self.sums["worked"]}
            usage.resize(now, number)

    def change(self, is_starved, by):
        self.in_use -= by
        if is_starved:
            self.starved += by
        else:
            self.blocked += by


EVERY_CHANGE = [
    (quarters, event, places)
    for quarters, (event, places) in enumerate(
        [
            *[("hire", 1)] * 4,
            ("stall", 1),
            *[("starve", 1)] * 2,
            *[("block", 1)] * 2,
            *[("feed", 1), ("make room", 1)],
            ("go on", 1),
            ("resize", 9),
            *[("feed", 1), ("make room", 1)],
            *[("dismiss", 1)] * 2,
            ("stall", 1),
            ("resize", 7),
            ("read", 1),
        ]
    )
]


@example(start=7, places=5, steps=EVERY_CHANGE)
@given(start=st.integers(0, 1000), places=st.integers(1, 5), steps=st.lists(STEPS, max_size=40))
def test_it_gives_the_integrals_of_the_counts(start, places, steps):
    """At any time, also in the middle of a wait, and at whatever time it all began."""
    usage, model, now = Usage(StateTimes()), Model(places), float(start)
    usage.begin(now, places)

    for quarters, event, number in steps:
        now += quarters / 4
        model.let_pass(quarters / 4)
        if model.stalled and model.in_use == model.places and event in ("hire", "feed", "make room"):
            continue  # nobody works at a place that there is not
        model.do(usage, event, number, now)
        expected = tuple(round(model.sums[name], 9) for name in Used.__slots__)
        assert tuple(round(value, 9) for value in astuple(usage.read(now))) == expected
        assert usage.is_stalled is model.stalled


def test_nothing_is_offered_before_it_begins():
    usage = Usage(StateTimes())
    assert usage.read(0.0) == Used(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    usage.begin(100.0, 4)

    assert usage.read(100.0) == Used(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert usage.read(101.0) == Used(0.0, 0.0, 4.0, 0.0, 0.0, 0.0)


def test_a_stalled_place_counts_as_work_but_not_as_use():
    """One call of four, and the rest may not begin: all of them hold up what is behind."""
    usage = Usage(StateTimes())
    usage.begin(0.0, 4)
    usage.hire(0.0)
    usage.stall(2.0, True)
    usage.stall(3.0, True)

    assert usage.read(10.0) == Used(used=10.0, stalled=24.0, offered=40.0, starved=0.0, blocked=0.0, worked=8.5)


def test_more_calls_than_places_work_no_longer_than_the_time():
    usage = Usage(StateTimes())
    usage.begin(0.0, 4)
    for _ in range(4):
        usage.hire(0.0)
    usage.resize(1.0, 1)

    assert usage.read(3.0) == Used(used=12.0, stalled=0.0, offered=6.0, starved=0.0, blocked=0.0, worked=3.0)
