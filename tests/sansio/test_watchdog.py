"""The times of a stream: idle, first, whole.

Mutants that die here: `<=` for `<` at the deadline; an item that does not end `first`; time without room that counts
as idle; room that ends the whole's time, too; a watchdog that barks twice; a pause that counts, or that brings back the
time of the first item.
"""

import math

import pytest

from funcpipe_trio._sansio.watchdog import Watchdog

IDLE = "timeout of 5 s without an item"
FIRST = "timeout of 3 s for the first item"
WHOLE = "timeout of 20 s for the whole stream"


def watchdog(**times):
    dog = Watchdog(**times)
    dog.begin(100.0)
    return dog


@pytest.mark.parametrize(
    ("times", "at", "why"), [({"idle": 5}, 105, IDLE), ({"first": 3}, 103, FIRST), ({"whole": 20}, 120, WHOLE)]
)
def test_a_time_is_over_at_its_deadline(times, at, why):
    """P10: exactly at the deadline is too late; the float before it is not. It is reported once."""
    dog = watchdog(**times)

    assert dog.deadline == at
    assert dog.overdue(math.nextafter(at, 0)) is None
    assert dog.overdue(at) == why
    assert dog.overdue(at + 1000) is None
    assert dog.deadline == math.inf


def test_an_item_begins_the_idle_time_again_and_ends_the_first():
    """The whole's time continues."""
    dog = watchdog(idle=5, first=3, whole=20)
    dog.heard(102)

    assert (dog.deadline, dog.whole_at) == (107, 120)
    assert dog.overdue(106.9) is None
    dog.heard(106.9)
    dog.heard(111)
    dog.heard(115.5)
    assert dog.deadline == dog.whole_at == 120
    assert dog.overdue(120) == WHOLE


def test_time_without_room_is_not_idle():
    """But it counts for the whole, and for the first item."""
    dog = watchdog(idle=5, first=30, whole=40)
    dog.resumed(120)

    assert dog.overdue(124.9) is None
    assert dog.overdue(125) == IDLE
    late = watchdog(first=3, whole=20)
    late.resumed(110)
    assert late.overdue(110) == FIRST


def test_nothing_is_overdue_before_the_start():
    """Times count from the start, whenever that is."""
    dog = Watchdog(idle=5, first=3, whole=20)

    assert (dog.deadline, dog.overdue(1000)) == (math.inf, None)


def test_time_of_a_pause_counts_for_the_whole_only():
    """The idle time and that to the first item start anew when it goes on."""
    dog = watchdog(idle=5, first=3, whole=20)
    dog.pause()

    assert (dog.deadline, dog.overdue(119.9)) == (120, None)
    dog.go_on(110)
    assert dog.deadline == 113
    assert dog.overdue(113) == FIRST
    late = watchdog(idle=5, whole=20)
    late.pause()
    late.go_on(110)
    assert (late.deadline, late.overdue(115)) == (115, IDLE)


def test_first_item_is_not_awaited_again_after_a_pause():
    """It came; only the idle time starts anew."""
    dog = watchdog(idle=5, first=3)
    dog.heard(101)
    dog.pause()
    dog.go_on(110)

    assert (dog.deadline, dog.overdue(115)) == (115, IDLE)


def test_of_times_that_end_together_the_longer_lasting_is_said():
    """The whole's before the first item's, which is before that between two."""
    assert watchdog(idle=5, first=5, whole=5).overdue(105) == "timeout of 5 s for the whole stream"
    assert watchdog(idle=5, first=5).overdue(105) == "timeout of 5 s for the first item"


def test_it_does_not_bark_again_after_an_item():
    """What has failed is not watched any more."""
    dog = watchdog(idle=5)
    dog.overdue(105)
    dog.heard(106)

    assert dog.overdue(1000) is None


def test_what_is_over_in_a_pause_is_the_whole_time():
    """The others wait with the sources; by then their old deadlines have passed, too."""
    dog = watchdog(idle=5, first=3, whole=20)
    dog.pause()

    assert dog.overdue(119) is None
    assert dog.overdue(120) == WHOLE
