"""Random pipelines through the campaigns, and what the strategies promise of what they give."""

import random
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairShare, Pipeline
from funcpipe_trio.testing import (
    Fail,
    Script,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    run_virtual,
)
from funcpipe_trio.testing.strategies import arrivals, costs, failures, pipelines, weights

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(pipelines())
def test_any_pipeline_cancelled_anywhere(pipeline):
    cancel_everywhere(lambda: pipeline, every=7)


@few
@given(pipelines())
def test_any_pipeline_drained_anywhere(pipeline):
    drain_everywhere(lambda: pipeline, every=7)


@few
@given(pipelines())
def test_any_pipeline_failing_anywhere(pipeline):
    fail_everywhere(lambda: pipeline, every=3)


@few
@given(pipelines(depth=2))
def test_any_pipeline_under_any_schedule(pipeline):
    explore_schedules(lambda: pipeline, seeds=range(5))


@settings(max_examples=60, deadline=None)
@given(pipelines(depth=2))
def test_items_of_a_pipeline_are_unique_ints_at_each_replay(pipeline):
    """So a test can tell every item from every other."""
    first, second = run_virtual(pipeline.collect), run_virtual(pipeline.collect)

    assert all(type(item) is int for item in first)
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)


@few
@given(st.data(), st.sets(st.integers(), max_size=5))
def test_weights_and_costs_are_what_a_share_takes(data, keys):
    drawn = data.draw(weights(keys))

    assert FairShare(drawn).weights == drawn
    assert drawn.keys() == keys
    assert all(cost > 0 and type(cost) in (int, Fraction) for cost in [*drawn.values(), data.draw(costs())])


@given(arrivals(start=5, fail=True))
def test_arrivals_are_a_timeline(timeline):
    """Each is what `Script` takes; items count up from the start, and only the last entry may fail."""
    Script(timeline)
    events = [event for _at, event in timeline]
    if events and isinstance(events[-1], Fail):
        events.pop()

    assert events == list(range(5, 5 + len(events)))


@given(failures())
def test_failures_are_exceptions_of_user_code(error):
    assert isinstance(error, Exception)


@pytest.mark.parametrize("seed", range(10))
def test_pipelines_shrink_to_the_simplest_that_shows_it(seed):
    """The smallest pipeline that gives anything at all is one item of an iterable, wherever shrinking began."""
    smallest = find(
        pipelines(),
        lambda pipeline: bool(run_virtual(pipeline.collect)),
        settings=settings(database=None),
        random=random.Random(seed),
    )

    assert smallest.describe() == Pipeline.from_iterable(range(1)).describe()
    assert run_virtual(smallest.collect) == [0]


@pytest.mark.parametrize("module", ["hypothesis", "pytest"])
def test_the_kit_works_without(module):
    """Only who imports the strategies needs Hypothesis; nobody needs pytest."""
    code = f"""
import sys
sys.modules[{module!r}] = None  # importing it fails
from funcpipe_trio import Pipeline
from funcpipe_trio.testing import cancel_everywhere
print(cancel_everywhere(lambda: Pipeline.from_iterable(range(3))))
"""

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.startswith("cancel_everywhere of <lambda>: ")


def test_importing_the_kit_does_not_import_hypothesis():
    """It takes half a second, and not everybody has it."""
    code = "import sys, funcpipe_trio.testing; assert 'hypothesis' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)
