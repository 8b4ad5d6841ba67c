"""Who is present at a run from its beginning to its end, and may have functions of its plan replaced?

There may be several: each gets the plan that the one before it made.
"""

from __future__ import annotations

from ..._plan.nodes import Plan
from ..reports.report import Report
from .run import Consumer


class Witness:
    """Is told of one run; its methods are called by that run."""

    def begin(self, plan: Plan) -> Plan:
        """Return the plan that runs in the place of the given one, with the same names; it may still be refused."""
        return plan

    def attach(self, consumer: Consumer) -> None:
        """Called when all parts of the run are made, and none has begun."""

    def end(self, consumer: Consumer, report: Report) -> None:
        """Called when the run is over, with its final report."""


class Witnesses(Witness):
    """Several witnesses as one."""

    def __init__(self, *witnesses: Witness) -> None:
        self._witnesses = witnesses  # in their order

    def begin(self, plan: Plan) -> Plan:
        for each in self._witnesses:
            plan = each.begin(plan)
        return plan

    def attach(self, consumer: Consumer) -> None:
        for each in self._witnesses:
            each.attach(consumer)

    def end(self, consumer: Consumer, report: Report) -> None:
        for each in self._witnesses:
            each.end(consumer, report)
