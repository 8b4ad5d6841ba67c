"""P1: every item taken from a source becomes exactly one thing, whatever happens, and is reported once.

Mutants that die here: a link that forgets its buffer when it is closed; a worker cancelled in its call that says
nothing of its item; a result behind a failure counted and not reported; a superseded failure that still counts as
failed; a batch that is reported as a batch before it went out; a producer whose last item is in nobody's hands.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from ._world import World, ends, failing_lines, lines

schedules = st.integers(0, 2**32)
many = settings(max_examples=250, deadline=None, print_blob=True)


@many
@given(line=lines(), end=ends, seed=schedules)
def test_every_item_becomes_exactly_one_thing_however_the_run_ends(line, end, seed):
    """P1, under every end, without failures."""
    world = World()
    world.play(world.plan(line), end, seed).check()


@many
@given(line=failing_lines(), end=ends, seed=schedules)
def test_every_item_becomes_exactly_one_thing_when_functions_and_sources_fail(line, end, seed):
    """P1, with failures of functions and sources in any number."""
    world = World()
    world.play(world.plan(line), end, seed).check()
