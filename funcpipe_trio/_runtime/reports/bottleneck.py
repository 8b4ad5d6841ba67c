"""What limits the throughput of a run, or limited it between two snapshots? A pure function of what these say.

The rule: who worked for the longest time (`efforts`), since everyone else waited for it; of equals the one furthest
downstream, for it is what held the others up. Two are not what they seem:

  a source that waits   works while it waits for the outside; if anybody else worked nearly as long, the outside may
                        well be waiting for that one, as clients wait for answers. So then it is not the source.
  one that is outpaced  behind it is a buffer that dropped, or the queues of a `fair_by` that turned away, a good part
                        of what it gave: it was too fast, however long it worked.

In a service without work nobody works but its sources, which wait: what limits is that nothing comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..._base.frozen import dataclass

if TYPE_CHECKING:
    from .report import LinkReport, StageReport

_EQUAL = 0.005
_NEARLY = 0.05
"""Parts of the longest time by which two may differ, and have worked equally, or nearly as, long."""
_GOOD_PART = 0.05
"""Of what was given: so much turned away says that what comes behind is slower."""
_NOTHING = 1e-9
"""Part of the time that is no work, but what rounding left of it."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """How the stages and links of a run, by their numbers, hang together. There is one such object for each run."""

    waits_outside: tuple[bool, ...]
    """Of each stage: whether it is a source that waits for its items."""
    fills: tuple[tuple[int, ...], ...]
    """Of each stage: the links that it fills."""
    takers: tuple[int | None, ...]
    """Of each link: the stage that takes from it, through fan-ins; None if the consumer does."""
    has_consumer: bool
    """Whether anybody receives."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What of a snapshot is for `since` alone."""

    wiring: Wiring
    worked: tuple[float, ...]
    """Seconds, of each stage and, last, of the consumer, those of pauses left out."""


def name_bottleneck(
    basis: Basis, stages: Sequence[StageReport], links: Sequence[LinkReport], elapsed: float
) -> str | None:
    """Name the stage, or the consumer; None if nobody worked."""
    wiring, too_fast = basis.wiring, _too_fast(basis.wiring, links)
    waiting: list[tuple[float, str]] = []
    working: list[tuple[float, str]] = []
    for number, (stage, seconds) in enumerate(zip(stages, basis.worked, strict=False)):
        if number not in too_fast:
            (waiting if wiring.waits_outside[number] else working).append((seconds, stage.name))
    if wiring.has_consumer:
        working.append((basis.worked[-1], "consumer"))
    most, most_waiting = (max((seconds for seconds, _ in each), default=0.0) for each in (working, waiting))
    if most_waiting - most > _NEARLY * most_waiting:
        working, most = waiting, most_waiting
    if most <= _NOTHING * elapsed:
        return None
    return next(name for seconds, name in reversed(working) if seconds >= most - _EQUAL * most)


def _too_fast(wiring: Wiring, links: Sequence[LinkReport]) -> set[int]:
    """Give the stages that gave more than what comes behind took."""
    found: set[int] = set()
    for stage, filled in reversed([*enumerate(wiring.fills)]):  # downstream first
        if filled and all(_lost_much(links[each]) or wiring.takers[each] in found for each in filled):
            found.add(stage)
    return found


def _lost_much(link: LinkReport) -> bool:
    lost, given = link.dropped + link.turned_away, link.passed + link.turned_away
    return lost > given * _GOOD_PART
