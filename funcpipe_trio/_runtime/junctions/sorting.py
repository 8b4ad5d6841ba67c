"""Sorted inlets as one sorted inlet: what is held until the least item is known?

The first item of each input is taken out and held here, because only what was taken can be compared. Nothing is handed
over until every input that has not ended has one (an item that is still to come might be the least), so the order
depends on no schedule. Like a zip it waits for a silent input.

What stands after the last item of an input is looked at when its next one is needed. If that is a failure, it comes
there: nothing later was handed over, and nothing before it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import trio

from ..._sansio.sorted_heads import SortedHeads
from ..._sansio.state_times import StateTimes
from ..core.failures import failure_of, noted
from ..core.ledger import Ledger
from ..core.protocols import Inlet
from ..core.signals import CANCELLED, END, ENDED, FAILED, PENDING, READY, FailureMark, Readiness
from ..core.user_code import not_awaitable
from .fan_in import AlignedInlet


class SortedInlet(AlignedInlet):
    """A merge of sorted inputs."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        inlets: Sequence[Inlet],
        state_times: StateTimes[tuple[int, int]],
        key: Callable[[Any], Any] | None,
        *,
        reverse: bool,
    ) -> None:
        super().__init__(name, ledger, inlets, state_times)
        self._key = key  # returns what is compared of an item; None: the item itself
        self.heads = SortedHeads(reverse=reverse)  # the first items of the inputs, but of those in `_lack`
        self._takers = [inlet.items() for inlet in inlets]  # of the inputs
        self._lack = [*range(len(inlets))]  # inputs whose first item is not here, and which have not ended; in order
        self._taking = False  # an input is being read: it may not be read within

    @property
    def held(self) -> int:
        return len(self.heads)

    def _needed(self) -> Iterable[int]:
        return self._lack

    def start(self) -> None:
        super().start()
        self._read_ends()  # an input may be empty from the start

    def on_input(self) -> None:
        self._read_ends()
        super().on_input()

    def _read_ends(self) -> None:
        """Read the ends of inputs at once: a zip then closes its longer inputs, which nothing else would."""
        if self._taking or self._closed:
            return
        self._taking = True
        for number in [number for number in self._lack if self.inlets[number].state() is ENDED]:
            next(self._takers[number], None)
            self._lack.remove(number)
        self._taking = False

    def state(self) -> Readiness:
        # As in a zip the first input in order that has nothing decides, whatever the schedule.
        is_ready = len(self.heads) > 0
        for number in self._lack:
            state: Readiness = self.inlets[number].state()
            if state is not READY and state is not ENDED:
                return state
            is_ready = is_ready or state is READY
        return READY if is_ready else ENDED

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        while not self._closed:
            state = self.state()
            if state is ENDED:
                break
            if state is not READY and state is not FAILED:
                yield PENDING
                continue
            if not self._fill():
                return
            head = self.heads.take()
            self._lack.append(head.number)
            self.taken += 1
            yield head.item
        self.exhausted = not self._closed

    def _fill(self) -> bool:
        """Take the first item of each input that lacks one; return False if it ended here."""
        self._taking = True
        try:
            lack, self._lack = self._lack, []
            for number in lack:
                value = next(self._takers[number], END)
                if value is not END:
                    self._add(number, value)
                elif self.inlets[number].failure is not None and not self._closed:
                    self._end(self.inlets[number].failure)
                if self._closed or self.exhausted:
                    return False
        finally:
            self._taking = False
        for number in lack:
            self.inlets[number].release()
        return True

    def _add(self, number: int, item: Any) -> None:
        """Put the first item of an input in its place among the others, as the user's code says."""
        try:
            self._compare(number, item)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:  # KeyboardInterrupt and its like end the whole run
                self.discard(item, CANCELLED)
                raise
            self.failed += 1
            self._end(FailureMark(noted(error, self.name, None), self, item))
            return  # noqa: ASYNC104  # the error goes out as a failure
        if self._closed:  # by that code
            self.discard(item, self._reason)

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _compare(self, number: int, item: Any) -> None:
        self.heads.add(number, self.rank_of(number, item), item)

    def rank_of(self, number: int, item: Any) -> Any:
        """Return what is compared of an item of an input; replaced where a recording is played."""
        return item if self._key is None else not_awaitable(f"the key of {self.name}", self._key(item))

    def _close_inputs(self, reason: str) -> None:
        for item in self.heads.clear():
            self.discard(item, reason)
        super()._close_inputs(reason)
