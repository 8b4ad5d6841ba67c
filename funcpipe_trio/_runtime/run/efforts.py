"""How long did each stage work, and the consumer? The seconds in which others may have waited for it.

A stage works while it waits neither for input nor for room. A source that waits for the outside works, because the
others wait for what it gives. Each place of a pool counts as one part (`_sansio.usage`). What was done while the run
was paused is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..._sansio.blame import GONE, NO_INPUT
from ..._sansio.state_times import StateTimes
from ..._sansio.usage import Used
from ..pools.pool import Pool
from ..stages.sources import AsyncSource
from .parts import AnyStage


class Attendance:
    """How long the consumer worked: while the run goes on and the consumer does not wait for an item."""

    __slots__ = ("_state_times", "began", "left", "shift", "since", "waited")

    def __init__(self, state_times: StateTimes[tuple[int, int]]) -> None:
        self._state_times = state_times  # told when it begins to wait, and when it goes on
        self.shift: int = state_times.allot(2, self._field)  # where its field is there
        self.began: float = 0.0  # when the run was opened, by trio's clock
        self.waited: float = 0.0  # seconds in which it waited, except the wait that is not over; see `waited_until`
        self.since: float | None = None  # when that began; None while it does not wait
        self.left: float | None = None  # when it stopped taking: what it does later holds nothing up

    def _field(self) -> int:
        """Return what its field in the times of all parts is now."""
        return GONE if self.left is not None else NO_INPUT if self.since is not None else 0

    def wait(self, now: float) -> None:
        """Count it as waiting from now on."""
        if self.left is None:
            self.since = now
            self._state_times.change(now, NO_INPUT << self.shift)

    def go_on(self, now: float) -> None:
        """Count it as working again, if it waited."""
        if self.since is not None:
            self.waited += now - self.since
            self.since = None
            self._state_times.change(now, -(NO_INPUT << self.shift))

    def leave(self, now: float) -> None:
        """Count no more."""
        if self.left is None:
            self.go_on(now)
            self.left = now
            self._state_times.change(now, GONE << self.shift)

    def worked(self, now: float) -> float:
        """Return how many seconds it worked until now."""
        if self.left is not None:
            now = min(now, self.left)
        return max(0.0, now - self.began - self.waited_until(now))

    def waited_until(self, now: float) -> float:
        """Return how many seconds it waited until now."""
        return self.waited + (0.0 if self.since is None else max(0.0, now - self.since))


class Efforts:
    """How long each stage and, last, the consumer worked."""

    def __init__(self, stages: Sequence[AnyStage], consumer: Attendance | None) -> None:
        self._stages = stages  # the engine's list, which grows while the run is built
        self._consumer = consumer  # None if there is none: then it counts as 0
        self._at_pause: list[float] | None = None  # what each had worked when the pause began; None while not paused
        self._in_pauses: list[float] = []  # what each worked in pauses that are over; empty before the first

    def pause(self, now: float) -> None:
        """Leave out what is done from now on, until `resume`."""
        self._at_pause = self._all([spent_by(stage, now) for stage in self._stages], now)

    def resume(self, now: float) -> None:
        """Count again."""
        _, self._in_pauses = self.apart([spent_by(stage, now) for stage in self._stages], now)
        self._at_pause = None

    def apart(self, all_spent: Sequence[Used], now: float) -> tuple[list[float], list[float]]:
        """Return what was worked until now outside of pauses, and in them."""
        worked = self._all(all_spent, now)
        paused = self._in_pauses or [0.0] * len(worked)
        if self._at_pause is not None:
            paused = [before + now - then for before, then, now in zip(paused, self._at_pause, worked, strict=True)]
        return [seconds - left_out for seconds, left_out in zip(worked, paused, strict=True)], paused

    def _all(self, all_spent: Sequence[Used], now: float) -> list[float]:
        consumer = 0.0 if self._consumer is None else self._consumer.worked(now)
        return [*(each.worked for each in all_spent), consumer]


def spent_by(stage: AnyStage, now: float) -> Used:
    """Return how a stage has spent its time; one without places counts as one place."""
    until = stage.chain.began if not stage.started else now if stage.left is None else stage.left
    if isinstance(stage, Pool):
        return stage.crew.usage.read(until)
    seconds, (waited_input, waited_room) = until - stage.chain.began, stage.waited(until)
    # A source that waits for the outside has no input: what it counts as waiting for that are the pauses.
    used = seconds - waited_room - (0.0 if isinstance(stage, AsyncSource) else waited_input)
    return Used(used=used, stalled=0.0, offered=seconds, starved=waited_input, blocked=waited_room, worked=used)
