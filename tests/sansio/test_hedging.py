"""When one more call is due, as a machine: against a list of all calls that is looked through at every instant.

Mutants that die here: one more call too early, too late, or one too many; a call that is forgotten and comes again; one
that is due twice at once and told once; a next time that is wrong when the first of a line is gone.
"""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.hedging import SlowCalls

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.sampled_from((0, 0.25, 0.5, 1, 2.25, 7))),
        st.tuples(st.just("due"), st.just(0)),
    ),
    max_size=60,
)


@given(st.sampled_from((0.25, 1, 3)), st.integers(2, 5), steps)
def test_it_is_the_list_of_all_calls(after, most, steps):
    machine = SlowCalls(after, most)
    calls = {}  # by number: when it began, and how many calls it has
    now = 0.0
    for kind, value in steps:
        if kind == "add":
            machine.add(len(calls), (now,))
            calls[len(calls)] = [now, 1]
        elif kind == "remove":
            machine.remove(value)
            if value in calls:
                calls[value][1] = inf
        elif kind == "wait":
            now += value
        else:
            expected = []
            for number, call in calls.items():
                while call[1] < most and call[0] + call[1] * after <= now:
                    call[1] += 1
                    expected.append(number)
            assert sorted(number for number, _begun in machine.due(now)) == expected
        dues = [began + count * after for began, count in calls.values() if count < most]
        assert machine.next_at() == min(dues, default=inf)


def test_at_the_time_that_it_names_calls_are_due():
    """Not before it, and not only after it; a second one of the same call likewise."""
    machine = SlowCalls(0.5, 3)
    machine.add("a", (1.0, "told"))
    due = [("a", (1.0, "told"))]
    assert [machine.due(now) for now in (1.0, 1.4375, 1.5, 1.5)] == [[], [], due, []]
    assert [machine.due(now) for now in (1.9375, 2.0, 9.0)] == [[], due, []]
    assert machine.next_at() == inf


def test_a_call_is_forgotten_in_whatever_line_it_is():
    for calls in range(3):
        machine = SlowCalls(1, 4)
        machine.add("a", (0.0,))
        for now in range(1, calls + 1):
            machine.due(now)
        assert machine.next_at() == calls + 1
        machine.remove("a")
        machine.remove("a")
        assert (machine.next_at(), machine.due(9)) == (inf, [])


def test_one_for_which_no_other_was_due_gives_what_is_known_of_it():
    machine = SlowCalls(1, 3)
    machine.add("a", (0.0, "told"))
    assert machine.end("a") == (0.0, "told")
    assert machine.next_at() == inf
