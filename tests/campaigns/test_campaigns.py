"""Every campaign over every pipeline of the list.

FUNCPIPE_SCHEDULES sets how many orders of tasks each pipeline is run under (30 if it is not set).
"""

import os

import pytest

from funcpipe_trio.testing import (
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    interrupt_everywhere,
)
from tests._kit import STRIDE

from .pipelines import SCENARIOS

SCHEDULES = int(os.environ.get("FUNCPIPE_SCHEDULES", "30"))

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@every_scenario
def test_cancelled_at_every_step(scenario, record_property):
    """P6: wherever the cancellation falls, the run ends at once, gives up what it held, and closes its sources."""
    record_property("campaign", str(cancel_everywhere(scenario, every=STRIDE)))


@every_scenario
def test_interrupted_at_every_step(scenario, record_property):
    """P6: KeyboardInterrupt arrives once, in no group, and nothing is left behind."""
    record_property("campaign", str(interrupt_everywhere(scenario, every=2 * STRIDE)))


@every_scenario
def test_drained_at_every_step(scenario, record_property):
    """P8: wherever the drain falls, what was taken is delivered, and the run ends normally."""
    record_property("campaign", str(drain_everywhere(scenario, every=2 * STRIDE)))


@every_scenario
def test_failing_at_every_call(scenario, record_property):
    """P5: whichever call of user code fails, its error is what the caller gets, and nothing is lost."""
    record_property("campaign", str(fail_everywhere(scenario, every=STRIDE)))


@every_scenario
def test_under_many_schedules(scenario, record_property):
    """P1-P4: whatever the order of tasks, the run ends, loses nothing and stays within its bound."""
    record_property("campaign", str(explore_schedules(scenario, seeds=range(SCHEDULES))))
