"""Who is present at a run from its beginning to its end, and may have functions of its plan replaced?"""

from __future__ import annotations

from ..._plan.nodes import Plan
from ..reports.report import Report
from .run import Consumer


class Witness:
    """Is told of one run; its methods are called by that run."""

    def begin(self, plan: Plan) -> Plan:
        """Return the plan that runs in the place of the given one, with the same names."""
        return plan

    def attach(self, consumer: Consumer) -> None:
        """Called when all parts of the run are made, and none has begun."""

    def end(self, consumer: Consumer, report: Report) -> None:
        """Called when the run is over, with its final report."""
