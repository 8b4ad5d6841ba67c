"""One stream into several branches, and their results into one: what holds an item, and which branch holds up which?

The last stage of the trunk fills the links of all branches: a `Fork` is its outlet, and each link has a `Port` of the
fork as its sender. So there is no task here, and at most one item is held outside the links: that of a partition whose
branch was full.

  backpressure  there is room when every branch that is left has some: a slow branch holds up all, unless its own buffer
                has an overflow policy. No branch waits for another, and their results are merged as they come, so there
                is no circular wait.
  a branch ends (it took what it wanted): it gets no more; the trunk is stopped when no branch is left.
  trunk fails   the failure goes down every branch, behind what came before it. The join delivers it once, when the
                last branch has come to it: only then everything before it has been delivered.
  branch fails  as an input of any merge does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import trio

from ..._base.errors import BufferOverflow
from ..._base.shown import named
from ..._sansio.state_times import StateTimes
from ...policies.fair_share import FairShare
from ..core.failures import noted
from ..core.ledger import Ledger
from ..core.protocols import Inlet, Sender
from ..core.signals import BEHIND_FAILURE, ENDED, FAILED, NO_ITEM, NOT_NEEDED, FailureMark, Readiness, reason_behind
from ..links.link import Link, start_upstream, stop_upstream
from ..links.lossy_link import LossyLink
from .ended import Ended, Failed
from .fan_in import FanInInlet, MergeInlet, MergeInput


class Port:
    """The sender of the link of one branch."""

    __slots__ = ("fork", "is_full", "link", "name", "shift")

    def __init__(self, fork: Fork, link: Link, name: str) -> None:
        self.fork = fork  # whose port it is
        self.link = link  # which it fills
        self.name = name  # of fan-out and branch, as reports and errors call it
        self.shift = fork.state_times.allot(1, lambda: self.is_full)  # where its bit is in the times of all parts
        self.is_full = False  # that bit: the stage waits for room in this branch
        link.sender = self
        if isinstance(link, LossyLink) and link.policy == "fail":
            link.put = self._put_or_fail

    @property
    def upstream(self) -> Fork:
        """What starts and stops with the branches."""
        return self.fork

    def start(self) -> None:
        """Undo `refilling` for a branch that begins after the trunk: no task was started for it."""
        if self.fork.started:
            self.link.refilling = False

    def on_room(self) -> bool:
        """Called when the link has room again; return whether that woke the stage."""
        return self.fork.on_room(self)

    def stop(self, reason: str) -> bool:
        """Called when the branch takes no more; what is upstream decides what that means."""
        return True

    def _put_or_fail(self, item: Any) -> None:
        """Fail this branch alone, behind what its link holds; an operation of the trunk would fail the trunk."""
        link = self.link
        assert isinstance(link, LossyLink)
        if not link.ended and not link.is_full:
            link.buffer.append(item)
            return
        link.passed -= 1  # the commit that follows counts all that was put, but this one does not pass
        if link.ended:  # within the same burst
            self.fork.join.discard(item, BEHIND_FAILURE)
        else:
            error = BufferOverflow(f"the {link.described()} of branch {named(self.name)} was full")
            self.fork.join.failed += 1
            link.finish(FailureMark(noted(error, self.name, None), self.fork.join, item))
            self.fork.look_whether_wanted()


class Fork:
    """The outlet of the trunk's last stage: the links of the branches as one."""

    def __init__(self, name: str, state_times: StateTimes[tuple[int, int]]) -> None:
        self.name = name  # of the fan-out
        self.state_times: StateTimes[tuple[int, int]] = state_times  # told which branches are full
        self.join: FanInInlet  # where the branches are joined again; it counts and discards for the fork
        self.sender: Sender  # the trunk's last stage
        self.ports: dict[str, Port] = {}  # of the branches, by their keys
        self.put: Callable[[Any], object] = self._put  # takes one value of the trunk
        self.closed: str | None = None  # why no branch takes more; None while one does
        self.failure: FailureMark | None = None  # of the trunk; None without one
        self.started = False  # the trunk runs
        self.passed = 0  # values of the trunk
        self.made = 0  # values that the branches got for them: as many, or one for each branch
        self._over = False  # no more will be put

    def add(self, key: str, link: Link) -> None:
        """Add the link of a branch."""
        self.ports[key] = Port(self, link, f"{self.name}.{key}")

    # ---- the stage's side (see `Outlet`)

    def room(self) -> int:
        return min((port.link.room() for port in self._open()), default=0)

    def burst_room(self) -> int:
        return min((port.link.burst_room() for port in self._open()), default=0)

    def waiting_room(self) -> int:
        return min((port.link.waiting_room() for port in self._open()), default=0)

    @property
    def wants_room(self) -> bool:
        """Whether the sender is to be told when some branch has room."""
        return any(port.link.wants_room for port in self.ports.values())

    @wants_room.setter
    def wants_room(self, value: bool) -> None:
        for port in self._open():
            if not port.link.room():
                port.link.wants_room = value
        self._note_full()

    def _note_full(self) -> None:
        """Note which branches hold the stage up."""
        full = self._full()
        for port in self.ports.values():
            if (port in full) is not port.is_full:
                port.is_full = not port.is_full
                self.state_times.change(trio.current_time(), (1 if port.is_full else -1) << port.shift)

    def _full(self) -> list[Port]:
        """Return the branches in which the stage waits for room."""
        return [port for port in self._open() if port.link.wants_room]

    def begin(self) -> None:
        for port in self._open():
            port.link.begin()

    def given(self) -> int:
        return self.passed

    def remade(self) -> tuple[int, int]:
        """Return how many values of the trunk were used, and how many the branches got for them."""
        return self.passed, self.made

    def commit(self, count: int) -> None:
        raise NotImplementedError

    def finish(self, failure: FailureMark | None) -> None:
        self._over, self.failure = True, failure
        for port in self.ports.values():
            port.link.finish(failure)

    def turn_over(self) -> None:
        for port in self.ports.values():
            port.link.turn_over()

    def turn_continues(self) -> None:
        for port in self.ports.values():
            port.link.turn_continues()

    # ---- the branches' side

    def start(self) -> None:
        """Start the trunk, with the first branch that starts."""
        if not self.started:
            self.started = True
            start_upstream(self.sender)

    def on_room(self, port: Port) -> bool:
        """Called when a branch has room; return whether that woke the stage."""
        self._note_full()
        if not self.room() or not self.sender.on_room():
            return False
        for other in self._open():  # all of them will be filled in its turn
            if other is not port:
                other.link.turn_continues()
        return True

    def close(self, reason: str) -> None:
        """Called when a branch takes no more: if none is left, nothing upstream is needed."""
        if self._open():
            self._go_on()
        elif self.closed is None:
            self.closed = reason
            stop_upstream(self.sender, reason)

    def look_whether_wanted(self) -> None:
        """Stop the trunk if the last branch has failed: that is read to its end, so nothing closes it."""
        if not self._open():
            self.close(BEHIND_FAILURE)

    def _go_on(self) -> None:
        """Wake the stage if there is room now that one branch less holds it up."""
        self._note_full()
        if self.started and not self._over and self.room() and self.sender.on_room():
            self.turn_continues()

    def _open(self) -> list[Port]:
        """Return the ports of the branches that still take."""
        return [port for port in self.ports.values() if port.link.closed is None and not port.link.ended]

    def _put(self, value: Any) -> object:
        raise NotImplementedError


class Broadcasting(Fork):
    """Each item goes to every branch that is left."""

    def __init__(self, name: str, state_times: StateTimes[tuple[int, int]]) -> None:
        super().__init__(name, state_times)
        self._targets: list[Link] = []  # of this burst, once it has a value; a branch that ends in it discards its own

    def given(self) -> int:
        return self.passed + self._uncommitted()

    def _uncommitted(self) -> int:
        return max((link.given() - link.passed for link in self._targets), default=0)

    def remade(self) -> tuple[int, int]:
        count = self._uncommitted()
        return self.passed + count, self.made + count * len(self._targets)

    def commit(self, count: int) -> None:
        self.passed += count
        targets, self._targets = self._targets, []
        self.made += count * (len(targets) or 1)
        for link in targets:
            link.commit(count)

    def _put(self, value: Any) -> object:
        if not self._targets:
            self._targets = [port.link for port in self._open()]
            if not self._targets:  # all were closed in this turn, by a user's function
                self.join.discard(value, self.closed or NOT_NEEDED)
        for link in self._targets:
            link.put(value)
        return None


class Partitioning(Fork):
    """Each item goes to one branch; one that finds no room there waits here, and holds up all later ones."""

    def __init__(self, name: str, state_times: StateTimes[tuple[int, int]]) -> None:
        super().__init__(name, state_times)
        self._waits_for: Port | None = None  # of the branch in which the held item found no room; None: none is held
        self._item: Any = NO_ITEM  # that item

    def room(self) -> int:
        if self._waits_for is not None:
            return 0
        # If some branch has no room, the next item may be for another: only one at a time, then.
        return max(1, super().room())

    def burst_room(self) -> int:
        return max(1, super().burst_room())

    def waiting_room(self) -> int:
        return 0 if self._waits_for is not None else super().waiting_room()

    def commit(self, count: int) -> None:
        self.passed += count
        self.made += count

    def finish(self, failure: FailureMark | None) -> None:
        self._over, self.failure = True, failure
        if self._waits_for is None:
            super().finish(failure)

    def on_room(self, port: Port) -> bool:
        if port is self._waits_for:
            self._let_go()
        return not self._over and super().on_room(port)

    def close(self, reason: str) -> None:
        if self._waits_for is not None and self._waits_for.link.closed is not None:
            self._let_go()
        super().close(reason)

    def _full(self) -> list[Port]:
        return super()._full() if self._waits_for is None else [self._waits_for]

    def _put(self, routed: tuple[str, Any]) -> object:
        key, item = routed
        port = self.ports[key]
        if port.link.room() or port.link.closed is not None:
            port.link.put(item)
            port.link.commit(1)
        else:
            port.link.wants_room = True
            self._waits_for, self._item = port, item
        return None

    def _let_go(self) -> None:
        """Put the held item into the link of its branch (which discards it if it is closed)."""
        port = self._waits_for
        assert port is not None
        item, self._waits_for, self._item = self._item, None, NO_ITEM
        port.link.put(item)
        port.link.commit(1)
        if self._over:
            super().finish(self.failure)


class Join(MergeInlet):
    """The merge of the branches: a failure of the trunk ends each of them, and the whole only with the last one."""

    def __init__(self, name: str, ledger: Ledger, inputs: Sequence[tuple[str, Inlet]], fork: Fork) -> None:
        super().__init__(name, ledger, inputs, FairShare())
        self._fork = fork  # what fills the branches; its failure is that of the trunk
        fork.join = self
        self._trunk_failure: FailureMark | None = None  # that failure, once a branch has come to it

    def _look(self, each: MergeInput) -> None:
        inlet = each.inlet
        if not each.ended and not isinstance(inlet, Failed) and inlet.state() is FAILED:
            next(each.items, None)  # reads the failure, to know whether it is the trunk's
            if inlet.failure is None:  # it was closed, and the failure dealt with there
                each.inlet = Ended()
            else:
                self._meet(each, inlet.failure)
        super()._look(each)

    def _meet(self, each: MergeInput, failure: FailureMark) -> None:
        each.inlet = Failed(failure, self.ledger)
        if failure is self._fork.failure:
            self._trunk_failure = failure
            each.inlet = Ended()
        if self._closed:  # by user code, while the failure was read: nobody will ask for it
            self.ledger.unread(failure, self._reason)

    def state(self) -> Readiness:
        state = super().state()
        return FAILED if state is ENDED and self._trunk_failure is not None else state

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        yield from super().items()
        if self.exhausted and self.failure is None:
            self.failure = self._trunk_failure

    def close(self, reason: str) -> None:
        was_open = not self._closed and not self.exhausted
        super().close(reason)
        if was_open and self._trunk_failure is not None:
            self.ledger.unread(self._trunk_failure, reason)

    def _end(self, failure: FailureMark | None) -> None:
        for each in self.inputs:  # the one that failed has no more to say
            if isinstance(each.inlet, Failed) and each.inlet.failure is failure:
                each.inlet = Ended()
        super()._end(failure)
        if self._trunk_failure is not None:
            self.ledger.unread(self._trunk_failure, reason_behind(failure))
