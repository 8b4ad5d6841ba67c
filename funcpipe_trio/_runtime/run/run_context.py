"""The block of a run: which exception leaves it, of the body's, the tasks' and a cancellation from outside?

the body raised         its exception passes, unchanged
a task was killed       (KeyboardInterrupt, SystemExit, ...): that is raised instead, once and in no group
cancelled from outside  the body's Cancelled; if the body had ended, the tasks': a cancelled run never looks complete
user code failed while it was cancelled: the error is kept in the report, and that is all
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ..._base.errors import StateError
from ..._base.shown import told
from ..._plan.check import claim_sources
from ..._plan.layout import lay_out
from ..._plan.nodes import Plan
from ..core.failures import is_cancellation, leaves_of
from ..core.ledger import Ledger, OnDiscard
from ..core.misused import misused
from ..core.protocols import Inlet
from ..core.signals import CANCELLED, NOT_NEEDED
from ..links.sink import Sink
from .build import build
from .engine import Engine
from .parts import Parts
from .run import Consumer, Run
from .statistics import report_of
from .witness import Witness, Witnesses

T = TypeVar("T")

_NOT_IN_TRIO = (
    "a pipeline runs on trio, inside of trio.run(...), and on no other event loop\n"
    "Use `trio.run(plan.collect)`, say, without parentheses behind its name; `trio.run(main)` for an async function."
)
_ELSEWHERE = (
    "a run was left in another task than the one that opened it (an async generator around it was not closed, say); "
    "it is stopped\n"
    "Use `async with contextlib.aclosing(...)` around the generator, or leave the block in the task that entered it."
)


class RunContext(Generic[T]):
    """Open a run for the length of an ``async with`` block; all its tasks have ended when the block is left."""

    __slots__ = (
        *("_cleanup_timeout", "_consumer", "_is_logged", "_manager", "_on_discard", "_plan", "_sink", "_task"),
        "_witness",
    )

    def __init__(
        self,
        plan: Plan,
        *,
        on_discard: OnDiscard | None,
        cleanup_timeout: float,
        sink: Sink | None = None,
        witness: Witness | None = None,
        is_logged: bool = True,
    ) -> None:
        self._plan = plan  # what is run
        self._witness = witness  # is told of the run; None if nobody is
        self._on_discard = on_discard  # told of each lost item; None if nobody wants to know
        self._cleanup_timeout = cleanup_timeout  # seconds in which a source must be closed
        self._sink = sink  # takes the results if no consumer does; None if one does
        self._is_logged = is_logged  # whether the log is told of it; not if it is part of another run, or of a call
        self._manager: Any = None  # of the nursery; None before it is opened
        self._consumer: Consumer | None = None  # of the run; None until the block is entered, which happens once
        self._task: trio.lowlevel.Task | None = None  # that entered the block, and must leave it

    if not TYPE_CHECKING:
        # The second line of each error that says how a beginner misused it.
        _USE = "Use `async with plan.open() as run: async for item in run: ...`."
        __aiter__ = __iter__ = misused("plan.open(): items come from the run that `async with` gives", _USE)
        __enter__ = __exit__ = misused("plan.open(): a run needs `async with`, because leaving it may wait", _USE)
        __await__ = misused("plan.open(): a run needs `async with`, which stops it when the block is left", _USE)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Run[T]:
        if not trio.lowlevel.in_trio_task():
            raise StateError(_NOT_IN_TRIO)
        await trio.lowlevel.checkpoint()
        if self._consumer is not None:
            raise trio.BusyResourceError("one `pipeline.open()` opens one run; call `open` again for another")
        written = self._plan
        played = written if self._witness is None else self._witness.begin(written)  # it may refuse
        claim_sources(written)
        self._plan = played
        engine = Engine(
            *(self._build, self._on_discard, self._cleanup_timeout, self._sink, self._inner),
            is_logged=self._is_logged,
        )
        self._consumer = Consumer(engine, written)
        if self._witness is not None:
            self._witness.attach(self._consumer)
        self._task = trio.lowlevel.current_task()
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        try:
            engine.begin(nursery, self._consumer)
        except BaseException:  # a nursery that was entered must be left, whatever happens
            nursery.cancel_scope.cancel()
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102, ASYNC120  # it cannot be cancelled
            raise
        return Run(self._consumer)

    def admit(self, witness: Witness) -> None:
        """Let one more witness be present; before the block is entered."""
        self._witness = witness if self._witness is None else Witnesses(self._witness, witness)

    def _build(self, parts: Parts) -> Inlet:
        """Make the parts of the run; return what its consumer takes from."""
        return build(lay_out(self._plan), parts, self._sink)

    def _inner(self, plan: Plan, on_discard: OnDiscard) -> RunContext[Any]:
        """Return the block of a run inside this one."""
        return RunContext(plan, on_discard=on_discard, cleanup_timeout=self._cleanup_timeout, is_logged=False)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._consumer is not None
        engine = self._consumer.engine
        # A `Cancelled` that no scope around the block caused is an error of the body like any other.
        is_cancelled = is_cancellation(error) and trio.current_effective_deadline() == -math.inf
        if engine.sink is None or error is not None:
            self._consumer.leave(CANCELLED if is_cancelled else NOT_NEEDED)
        if trio.lowlevel.current_task() is not self._task:
            raise RuntimeError(_ELSEWHERE)
        from_tasks: BaseException | None = None
        try:
            # Without the body's exception: that passes by itself.
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102  # a nursery's exit cannot be cancelled
        except BaseException as met:  # noqa: ASYNC103  # sorted and raised below
            from_tasks = met
        cancelled, fatal = _sort(from_tasks, engine.ledger)
        fatal = engine.ledger.fatal if fatal is None else fatal
        engine.finish(cancelled=cancelled is not None or is_cancelled)
        if self._witness is not None:
            self._witness.end(self._consumer, report_of(engine))
        if fatal is not None and _wins(fatal, error):
            raise fatal
        if error is None and cancelled is not None:
            raise cancelled
        return False


def _wins(fatal: BaseException, error: BaseException | None) -> bool:
    """Whether what killed a task is raised instead of the body's exception: only the strongest are."""
    if error is None or is_cancellation(error):
        return True
    return isinstance(fatal, KeyboardInterrupt | SystemExit) and not isinstance(error, KeyboardInterrupt | SystemExit)


def _sort(error: BaseException | None, ledger: Ledger) -> tuple[BaseException | None, BaseException | None]:
    """Return a cancellation, and what must end the program, of what the tasks raised; the ledger keeps the rest."""
    leaves = list(leaves_of(error))
    cancelled = next((leaf for leaf in leaves if isinstance(leaf, trio.Cancelled)), None)
    fatal = killer_of(error)
    errors = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if errors and cancelled is None and fatal is None:
        return None, error  # errors of user code never come this way: a defect of this package, raised as it is
    for each in errors:
        ledger.keep(each, f"then a cancelled task raised {told(each)}")
    return cancelled, fatal


def killer_of(error: BaseException | None) -> BaseException | None:
    """Return what must end the program: an interrupt or one other error bare, several others in a group; or None."""
    fatal = [leaf for leaf in leaves_of(error) if not isinstance(leaf, trio.Cancelled | Exception)]
    interrupts = [leaf for leaf in fatal if isinstance(leaf, KeyboardInterrupt | SystemExit)]
    if interrupts or len(fatal) < 2:
        return next(iter(interrupts or fatal), None)
    return BaseExceptionGroup("several tasks of a run were killed", fatal)
