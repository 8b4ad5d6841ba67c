"""What in a plan would a reviewer ask about? `review` says it; the rules themselves are in `rules`.

A plan with findings can run: whether each of them is meant is for people to say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from .._base import checks
from .._base.frozen import dataclass
from .._base.shown import escaped
from .nodes import plan_of

if TYPE_CHECKING:
    from ..pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a plan that is probably not meant; made by `review`."""

    rule: str
    """Name of the rule, by which it can be ignored."""
    where: str
    """Name of the part of the plan, as `describe` shows it; ``plan`` for all of it."""
    what: str
    """What is there, in one sentence."""
    why: str
    """Why that does harm, in one sentence."""
    fix: str
    """What to write instead."""

    def describe(self) -> str:
        """Return all of it as one line."""
        return escaped(f"{self.where}: {self.what} [{self.rule}] {self.why} {self.fix}")


def review(
    pipeline: Pipeline[Any], max_in_flight: int | None = None, *, ignore: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Return what a reviewer would ask about a pipeline, in the order of the plan; nothing runs.

    Each rule has its reason in its findings; ``docs/review.md`` lists them. A plain async function has no findings: the
    plan knows nothing about it. What is known to need care is a `Step`.

    Args:
      pipeline: what to review.
      max_in_flight: the most items that it may hold, an int >= 1; None: any number.
      ignore: names of rules to leave out.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `max_in_flight` is below 1, or `ignore` names no rule.
      PlanError: if the plan cannot work.
    """
    from .rules import findings  # most programs only run their plans

    plan = plan_of(pipeline)
    if plan is None:
        raise checks.refuse(TypeError, "review", "pipeline", "be a Pipeline", pipeline)
    if max_in_flight is not None:
        checks.integer("review", "max_in_flight", max_in_flight, at_least=1)
    return findings(plan, max_in_flight, ignore)
