"""What limits the throughput of a run?

The rule: who was busy for the greatest part of the whole run, since everyone else waited for it; of equals the one
furthest downstream, for it is what held the others up. Two are not what they seem:

  a source that waits   is busy while it waits for the outside; if anybody else was nearly as busy, the outside may well
                        be waiting for that one, as clients wait for answers. So then it is not the source.
  one that is outpaced  behind it is a buffer that dropped, or the queues of a `fair_by` that turned away, a good part
                        of what it gave: it was too fast, however busy it was.
"""

from __future__ import annotations

from .._errors import BufferOverflow
from .engine import Engine
from .fair_link import FairLink
from .fan_in import FanInInlet, MergeInput
from .fan_out import Fork
from .gate import Gate
from .inlet import Receiver
from .link import Link
from .report import StageReport
from .sources import AsyncSource
from .stage import Outlet, Stage

__all__ = ["lasted", "name_bottleneck"]

_EQUAL = 0.005
_NEARLY = 0.05
"""Parts of the run by which two may differ, and be equally, or nearly as, busy."""
_GOOD_PART = 0.05
"""Of what was given: so much turned away says that what comes behind is slower."""


def name_bottleneck(engine: Engine, reports: tuple[StageReport, ...], now: float) -> str | None:
    """Name the stage, or the consumer; None if no time has passed."""
    whole = now - engine.began
    if whole <= 0:
        return None
    too_fast = _too_fast(engine.stages)
    waiting: list[tuple[float, str]] = []
    busy: list[tuple[float, str]] = []
    for stage, report in zip(engine.stages, reports, strict=True):
        if stage not in too_fast:
            kind = waiting if isinstance(stage, AsyncSource) else busy
            kind.append((report.busy * lasted(stage, now) / whole, report.name))
    if engine.sink is None:
        busy.append((1 - engine.waited / whole, "consumer"))
    most, most_waiting = (max((share for share, _ in each), default=0.0) for each in (busy, waiting))
    if most_waiting - most > _NEARLY or not busy:
        busy, most = waiting, most_waiting
    return next((name for share, name in reversed(busy) if share > most - _EQUAL), None)


def lasted(stage: Stage, now: float) -> float:
    """How long a stage has been at work, in seconds."""
    return (now if stage.left is None else stage.left) - stage.began if stage.started else 0.0


def _too_fast(stages: list[Stage]) -> set[Stage]:
    """Give the stages that gave more than what comes behind took."""
    found: set[Stage] = set()
    for stage in reversed(stages):  # downstream first
        outlet = stage.outlet
        links = [port.link for port in outlet.ports.values()] if isinstance(outlet, Fork) else [outlet]
        if all(_lost_much(stage, each) or _taker(each) in found for each in links):
            found.add(stage)
    return found


def _lost_much(stage: Stage, outlet: Outlet) -> bool:
    lost = outlet.dropped if isinstance(outlet, Link) else 0
    given = outlet.passed
    if isinstance(outlet, FairLink):  # what was turned away did not pass
        gate = stage.fused[-1]
        assert isinstance(gate, Gate)
        lost = gate.dropped + stage.failures[BufferOverflow.__name__]
        given += lost
    return lost > given * _GOOD_PART


def _taker(outlet: Outlet) -> Stage | None:
    """Give the stage that takes from here, through fan-ins; None at the end."""
    receiver: Receiver | None = outlet.receiver if isinstance(outlet, Link) else None
    while isinstance(receiver, MergeInput | FanInInlet):
        receiver = receiver.merge if isinstance(receiver, MergeInput) else receiver.receiver
    return receiver if isinstance(receiver, Stage) else None
