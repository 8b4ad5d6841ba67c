"""How much of its places a pool uses whose items may wait elsewhere, against sums over small steps of time.

Mutants that die here: an item elsewhere that counts as in use, or whose worker counts as waiting; a worker too many
that waits; one that is shown again for no place, or not shown when there is one; one that is woken and counts as
waiting; an item elsewhere at which, to those behind it, nobody is at work.
"""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.blame import PoolField
from funcpipe_trio._sansio.state_times import StateTimes
from funcpipe_trio._sansio.usage_elsewhere import UsageElsewhere

WORKING, AWAY, STARVED, BLOCKED = "working", "away", "starved", "blocked"

events = st.lists(
    st.tuples(
        st.sampled_from(["hire", "leave", "come back", "starve", "block", "wake", "dismiss", "resize"]),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=60,
)


class Crew:
    """The workers and their states, told to the machine, and summed up here second by second."""

    def __init__(self, places):
        self.usage = UsageElsewhere(StateTimes())
        self.places, self.now, self.workers = places, 32, []
        self.used = self.waited = self.offered = 0
        self.usage.begin(float(self.now), places)

    def read(self):
        return self.usage.read(float(self.now))

    def waiting(self):
        """How many count as waiting now: (starved, blocked)."""
        at = float(self.now)
        before, after = self.usage.read(at), self.usage.read(at + 1)
        return after.starved - before.starved, after.blocked - before.blocked

    def of(self, *states):
        return [number for number, state in enumerate(self.workers) if state in states]

    def go_on(self, seconds):
        working, waiting = len(self.of(WORKING)), len(self.of(STARVED, BLOCKED))
        self.now += seconds
        self.used += seconds * working
        self.offered += seconds * self.places
        self.waited += seconds * min(waiting, max(0, self.places - working))

    def do(self, what, which):
        usage, now = self.usage, float(self.now)
        if what == "hire":
            self.workers.append(WORKING)
            usage.hire(now)
        elif what == "resize":
            self.places = which + 1
            usage.resize(now, self.places)
        elif found := self.of(*{"come back": [AWAY], "wake": [STARVED, BLOCKED]}.get(what, [WORKING])):
            worker = found[which % len(found)]
            before = self.workers[worker]
            self.workers[worker] = {"leave": AWAY, "starve": STARVED, "block": BLOCKED}.get(what, WORKING)
            if what in ("starve", "block"):
                usage.park(now, what == "starve")
            elif what == "wake":
                usage.unpark(now, before == STARVED)
            else:
                {"leave": usage.leave, "come back": usage.come_back, "dismiss": usage.dismiss}[what](now)
            if what == "dismiss":
                del self.workers[worker]


TWO_WAIT = [("hire", 0, 0), ("hire", 0, 0), ("starve", 0, 1), ("starve", 0, 1)]


@example(1, [*TWO_WAIT, ("resize", 2, 3)])
@example(1, [*TWO_WAIT, *TWO_WAIT, ("resize", 3, 3)])
@example(1, [*TWO_WAIT, ("wake", 0, 2), ("dismiss", 0, 2)])
@example(3, [("hire", 0, 1), ("hire", 0, 1), ("leave", 0, 3), ("come back", 0, 1)])
@example(4, [*TWO_WAIT, ("resize", 0, 3)])
@example(1, [("hire", 0, 0), ("hire", 0, 0), ("starve", 0, 1), ("wake", 0, 2), ("dismiss", 0, 2), ("dismiss", 0, 2)])
@settings(max_examples=300, deadline=None)
@given(places=st.integers(1, 4), happens=events)
def test_no_more_workers_count_than_there_are_places(places, happens):
    crew = Crew(places)
    for what, which, seconds in happens:
        crew.do(what, which)
        crew.go_on(seconds)
        read, field = crew.read(), crew.usage._field()
        assert read.used == crew.used
        assert read.offered == crew.offered
        assert abs(read.starved + read.blocked - crew.waited) < 1e-9
        assert field >> PoolField.IN_USE & 0xFFFFF == len(crew.of(WORKING, AWAY))


def test_what_has_no_room_counts_before_what_has_nothing_to_take():
    """One place: first both wait for it, then both are hidden while a call runs, then there is a place for one."""
    crew = Crew(1)
    for what in ("hire", "hire", "hire", "block", "starve"):
        crew.do(what, 0)
    assert crew.waiting() == (0, 0)
    crew.do("dismiss", 0)
    assert crew.waiting() == (0, 1)

    crew = Crew(2)
    for what in ("hire", "hire", "starve", "block", "hire"):
        crew.do(what, 0)
    assert crew.waiting() == (0, 1)


def test_what_has_nothing_to_take_counts_as_that_when_it_is_shown_again():
    crew = Crew(1)
    for what in ("hire", "hire", "starve"):
        crew.do(what, 0)
    assert crew.waiting() == (0, 0)
    crew.do("dismiss", 0)
    assert crew.waiting() == (1, 0)


@given(happens=events)
def test_it_counts_kinds_apart_while_there_are_places_for_all(happens):
    """With places enough nothing is hidden: it is the usage of any pool."""
    crew, starved, blocked = Crew(100), 0, 0
    for what, which, seconds in happens:
        if what == "resize":
            continue
        crew.do(what, which)
        crew.go_on(seconds)
        starved += seconds * len(crew.of(STARVED))
        blocked += seconds * len(crew.of(BLOCKED))
        read = crew.read()
        assert (read.starved, read.blocked) == (starved, blocked)


def test_what_waits_in_line_for_room_is_told_from_what_waits_for_others():
    """While there is a place for both: then it is the usage of any pool."""
    states = StateTimes()
    usage = UsageElsewhere(states)
    usage.begin(0.0, 2)
    states.begin(0.0, lambda state: ())
    usage.hire(0.0)
    usage.hire(0.0)
    usage.park(1.0, False)
    usage.park(2.0, False, in_line=True)
    usage.unpark(4.0, False)
    usage.unpark(8.0, False, in_line=True)

    seconds, _ = states.read(9.0)
    blocked, in_line = (
        sum(spent for state, spent in seconds.items() if state >> usage.shift >> field & 1)
        for field in (PoolField.BLOCKED, PoolField.IN_LINE)
    )
    assert (blocked, in_line) == (3, 6)
