"""The times of a stream: idle, first, whole.

Mutants that die here: `<=` for `<` at the deadline; an item that does not end `first`; time without room that counts
as idle; room that ends the whole's time, too; a watchdog that barks twice.
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


def test_it_does_not_bark_again_after_an_item():
    """What has failed is not watched any more."""
    dog = watchdog(idle=5)
    dog.overdue(105)
    dog.heard(106)

    assert dog.overdue(1000) is None
