"""Which parts does a run have? They are collected here as they are made; nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._plan.layout import StageLayout
from ..._plan.steps import step_of
from ...policies.retry import Retry, needs_seed
from ..core.protocols import Host
from ..core.seeds import draw_seed
from ..core.step_counters import StepCounters
from ..junctions.fan_in import FanInInlet
from ..junctions.fan_out import Fork
from ..links.link import Link
from ..pools.pool import Pool
from ..stages.sources import AsyncSource, IterableInlet
from ..stages.stage import Stage

if TYPE_CHECKING:
    from ..junctions.loop import Loop

AnyStage = Stage | Pool


class Parts:
    """All parts of one run except its stages, and its seed."""

    __slots__ = ("fan_ins", "forks", "host", "layouts", "links", "loops", "seed", "sources")

    def __init__(self, host: Host) -> None:
        self.host: Host = host  # the run; it has the stages, which register themselves
        self.links: list[Link] = []  # upstream first, like the other lists
        self.layouts: dict[AnyStage, StageLayout] = {}  # what the plan says of its stages, if there is a plan
        self.fan_ins: list[FanInInlet] = []  # and the joins of fan-outs
        self.sources: list[IterableInlet | AsyncSource] = []  # which a drain or a pause stops
        self.forks: dict[str, Fork] = {}  # by the names of the fan-outs
        self.loops: dict[str, Loop] = {}  # by name
        self.seed: int | None = None
        """The jitter of the run is computed from it; None if no policy of the plan needs it."""

    def counters(self, stage: str, policies: object) -> StepCounters:
        """Return the counters of a stage, for a `Retry`, or for a step or a function that may be one."""
        plan = step_of(policies)
        is_seeded = needs_seed(policies) if isinstance(policies, Retry) else plan is not None and plan.needs_seed()
        if is_seeded and self.seed is None:
            self.seed = draw_seed()
        return StepCounters(stage, self.seed)
