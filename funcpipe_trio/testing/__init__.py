"""How do you test a pipeline? In virtual time, with scripted sources, probes, and campaigns that try every ending.

``cancel_everywhere(make)``, where ``make`` is a function that returns your pipeline, is all it takes;
``fail_everywhere``, ``interrupt_everywhere``, ``drain_everywhere`` and ``explore_schedules`` work the same way, in any
test runner or without one. Hypothesis strategies are in `funcpipe_trio.testing.strategies`.
"""

from ._campaign import Campaign as Campaign
from ._campaign import CampaignError as CampaignError
from ._campaign import cancel_everywhere as cancel_everywhere
from ._campaign import drain_everywhere as drain_everywhere
from ._campaign import explore_schedules as explore_schedules
from ._campaign import fail_everywhere as fail_everywhere
from ._campaign import interrupt_everywhere as interrupt_everywhere
from ._fairness import assert_fair as assert_fair
from ._fairness import service_lag as service_lag
from ._lab import InjectedError as InjectedError
from ._lab import Lab as Lab
from ._probe import Probe as Probe
from ._schedule import missing_private_names as missing_private_names
from ._script import Fail as Fail
from ._script import Script as Script
from ._trial import Consume as Consume
from ._trial import Scenario as Scenario
from ._virtual import run_virtual as run_virtual
