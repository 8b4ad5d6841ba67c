"""Where a loop begins: what enters its body next, and when is the loop over?

A loop is a merge of its source and of what waits to go round, one of each in turn; so there is no task, and the stage
behind it pulls. What waits stands in a link that the end of the body fills and the beginning takes from. Filling it
never waits (see `operations.again`), so the circle cannot block itself.

  going on    source -> [merge] -> body -> end of the body -> out
                           ^______ Back ______|
  the end     the source is over, nothing waits to go round, and nothing is on its way in the body: no stage, link or
              branch of it holds anything. Then nothing can come any more, so the end is put behind what went round, and
              travels through the body as any end does.
  failure     that of the source is such an end, too: it stands behind all that comes of what came before it
  drain       what waits is given up, and so is all that comes later; the rest is as if the source had ended
  stopped     whatever closes the merge closes the source and gives up what waits

It can only become true that nothing is left when a stage of the body has done what it could, or has ended. So it is
looked for then, by each of them, and first where something was found the last time: a look costs little, and none is
made while the source goes on or something waits. The end is put by a task of its own, because the stage that looks is
about to park.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ..._base.errors import BufferOverflow, MisuseError
from ..._base.shown import named
from ..._plan.loops import Again
from ...policies.fair_share import FairShare
from ..core.ledger import Ledger
from ..core.protocols import Host, Inlet
from ..core.signals import DRAINED, ENDED, FAILED, IDLE, READY, Readiness
from ..links.link import Link
from .fan_in import MergeInlet, MergeInput
from .fan_out import Fork

if TYPE_CHECKING:
    from ..stages.chain import Chain


class BodyStage(Protocol):
    """A stage of a body, as far as a loop knows it."""

    chain: Chain

    @property
    def received(self) -> int:
        """How many items it took."""

    @property
    def dropped(self) -> int:
        """How many items it dropped itself."""


class Back(Link):
    """What waits to go round."""

    __slots__ = ("is_paused", "loop")

    def __init__(self, ledger: Ledger, loop: Loop) -> None:
        super().__init__(ledger, 1)
        self.loop = loop  # whose it is
        self.is_paused = False  # nothing more goes round for now

    @property
    def behind(self) -> str:
        return self.loop.name

    @trio.lowlevel.enable_ki_protection
    def add(self, work: Any) -> bool:
        """Take new work, or give it up if none is begun any more; return False if it cannot go round."""
        buffer = self.buffer
        if self.closed is None and (len(buffer) >= self.capacity or self.ended):
            return False
        buffer.append(work)
        if len(buffer) == 1:  # empty before, or closed: nothing that takes from here knows
            self.commit(1)
        else:  # half a microsecond less
            self.passed += 1
            self.peak = max(self.peak, len(buffer))
        return True

    def refusal(self) -> Exception:
        """Return the error that there is no room, with the counts, or that the loop is over."""
        if self.ended:
            return MisuseError(
                f"loop {named(self.loop.name)}: again gave new work for what an operation in its body gave at its end, "
                "which cannot go round\nUse no operation in the body that keeps items until the end."
            )
        taken, done = self.loop.inputs[0].flow.served, self.passed - len(self.buffer)
        return BufferOverflow(
            f"loop {named(self.loop.name)}: {self.capacity} items wait to go round, as many as room allows, and there "
            f"is one more; {taken} came from its source, and {done} have gone round\n"
            "Use a larger room, distinct in the body, or full=OnError.divert(step)."
        )

    def state(self) -> Readiness:
        if self.buffer:
            return IDLE if self.is_paused else READY
        return super().state()

    def start(self) -> None:
        """Do nothing: what fills it is started from the other end."""

    def close(self, reason: str) -> None:
        self.shut(reason)  # what fills it is behind the loop, and goes on

    def pause(self, *, is_paused: bool) -> None:
        """Let nothing go round for a time, or go on."""
        self.is_paused = is_paused
        self.receiver.on_input()


class Loop(MergeInlet):
    """The merge of a source and of what goes round."""

    def __init__(self, name: str, host: Host, source: Inlet, outside: int) -> None:
        self.name = name  # as plans, reports and errors call it
        self.back = Back(host.ledger, self)  # what waits to go round
        self.outside = outside  # how many stages of the run were made before its body
        self._host = host  # the run
        self._parts: list[Callable[[], int]] = []  # each says how many items a part of the body holds
        self._last: Callable[[], int] = lambda: 0  # the part that held something when it was last looked for
        self._is_source_over = False  # it has ended, or failed
        self._is_ending = False  # the end is on its way
        super().__init__(name, host.ledger, [("source", source), ("again", self.back)], FairShare())

    def enclose(self, again: Again, body: Sequence[BodyStage], loops: Iterable[Loop]) -> None:
        """Connect the loop with its body, whose last stage has been made; `loops` are those within it."""
        self.back.capacity, self.back.sender = again.room, body[-1]  # type: ignore[assignment]  # a stage is a sender
        for stage in body:
            stage.chain.turn_over = partial(self._turn_over, stage.chain.turn_over)
            self._parts.append(partial(_in_hand, stage))
            if stage is not body[-1]:
                self._parts += _behind(stage)
        self._parts += [partial(_held, loop.back) for loop in loops]

    def _turn_over(self, turn_over: Callable[[], None]) -> None:
        turn_over()
        self.look()

    def refresh(self, each: MergeInput) -> None:
        super().refresh(each)
        self.look()

    def _look(self, each: MergeInput) -> None:
        if each is self.inputs[0] and each.inlet.state() in (ENDED, FAILED):
            self._is_source_over = True
            if each.inlet.state() is FAILED and not self._is_ending and self.back.closed is None:
                self._set_aside(each)
                return
        super()._look(each)

    def _set_aside(self, each: MergeInput) -> None:
        """Let the failure of the source wait until nothing is left."""
        self._refilling -= each.is_refilling
        each.is_refilling = each.is_waiting = False
        self._queue.idle(each.flow)

    def look(self) -> None:
        """End the loop if nothing is left in it."""
        back = self.back
        if back.buffer or not self._is_source_over or self._is_ending or back.closed is not None:
            return
        if self._last():
            return
        for held in self._parts:
            if held():
                self._last = held
                return
        self._is_ending = True
        self._host.start_task(self._put_end, self.name)

    async def _put_end(self) -> None:  # noqa: ASYNC124  # a task
        self.refresh(self.inputs[0])  # its failure now has its turn, if there is one
        self.back.finish(None)

    def drain(self) -> None:
        self.back.shut(DRAINED)
        self.back.receiver.on_input()
        self.refresh(self.inputs[0])

    def pause(self) -> None:
        self.back.pause(is_paused=True)

    def resume(self) -> None:
        self.back.pause(is_paused=False)


def _in_hand(stage: BodyStage) -> int:
    """Return how many values a stage has taken or made, and neither passed on nor given up."""
    chain = stage.chain
    held = stage.received + chain.created - chain.absorbed - chain.failed - chain.discarded - stage.dropped
    for operation in chain.operations:
        held += operation.created - operation.absorbed - operation.dropped - operation.is_through
    return held - chain.outlet.given()


def _behind(stage: BodyStage) -> Iterator[Callable[[], int]]:
    """Yield what says how much is held by what a stage fills."""
    outlet = stage.chain.outlet
    if isinstance(outlet, Fork):  # an item that a partition holds back waits behind others in a link
        for port in outlet.ports.values():
            yield partial(_held, port.link)
    elif isinstance(outlet, Link):
        yield partial(_held, outlet)


def _held(link: Link) -> int:
    return link.held
