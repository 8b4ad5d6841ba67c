"""What limits the throughput of a run, or limited it between two snapshots? A pure function of the snapshots.

The rule: the stage, or the consumer, that worked for the longest time, because all others waited for it; of equals the
one furthest downstream, because it held the others up. There are two exceptions:

  a waiting source  works while it waits for the outside; if another stage worked nearly as long, the outside may well
                    be waiting for that stage, as clients wait for answers. Then the source is not named.
  a stage too fast  has behind it a buffer that dropped, or the queues of a `fair_by` that turned away, a good part of
                    what it gave. It limits nothing, however long it worked.

In an idle service only the sources work, which wait: what limits it is that nothing comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..._base.frozen import dataclass
from .blame import Waited
from .counts import LinkReport, StageReport

if TYPE_CHECKING:
    from .advice import Setting

_EQUAL = 0.005
"""Times that differ by at most this part of the longest are equal."""
_NEARLY = 0.05
"""Times that differ by at most this part of the longer are nearly equal."""
_GOOD_PART = 0.05
"""Part of what a stage gave: if more than that was lost, what comes behind it is slower."""
_NOTHING = 1e-9
"""Part of the elapsed time up to which work is only the result of rounding."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """How the stages and links of a run, by number, are connected. There is one such object for each run."""

    waits_outside: tuple[bool, ...]
    """For each stage: whether it is a source that waits for its items."""
    fills: tuple[tuple[int, ...], ...]
    """For each stage: the links that it fills."""
    takers: tuple[int | None, ...]
    """For each link: the stage that takes from it, through fan-ins; None if the consumer does."""
    has_consumer: bool
    """Whether a consumer iterates the run; a run that only collects has none."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a snapshot holds for `since` alone."""

    wiring: Wiring
    """That of the run; the same object in all its snapshots."""
    worked: tuple[float, ...]
    """Seconds that each stage and, last, the consumer worked, without the pauses of the run."""
    waited: Waited
    """Who waited for whom."""
    settings: tuple[Setting, ...]
    """What the plan says of each stage; the same object in all snapshots of a run."""
    places: tuple[int, ...]
    """How many calls each stage may make at once; 0 for a stage without calls."""


def name_bottleneck(
    basis: Basis, stages: Sequence[StageReport], links: Sequence[LinkReport], elapsed: float
) -> str | None:
    """Return the name of the stage, or ``consumer``; None if neither worked."""
    wiring, too_fast = basis.wiring, stages_too_fast(basis.wiring, links)
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


def stages_too_fast(wiring: Wiring, links: Sequence[LinkReport]) -> set[int]:
    """Return the stages that gave more than what comes behind them took."""
    found: set[int] = set()
    for stage, filled in reversed([*enumerate(wiring.fills)]):  # downstream first
        if filled and all(_lost_much(links[each]) or wiring.takers[each] in found for each in filled):
            found.add(stage)
    return found


def _lost_much(link: LinkReport) -> bool:
    lost, given = link.dropped + link.turned_away, link.passed + link.turned_away
    return lost > given * _GOOD_PART
