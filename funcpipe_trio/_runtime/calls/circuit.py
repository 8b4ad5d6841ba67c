"""A circuit breaker around a call: which calls are let through, which wait, and what if a call is cancelled?

The choice is `_sansio.breaker`. Every permit is handed back exactly once: as succeeded, failed, or abandoned. Whenever
one was given, or handed back, a change of the state is told to the log, and to the tasks that wait for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from ..._base.errors import CircuitOpen
from ..._base.shown import named, type_name
from ..._sansio.breaker import Breaker, Refused
from ..._sansio.retrying import is_meant
from ...policies.circuit_breaker import CircuitBreaker
from ..core.call_context import CALL, CallContext, Layered
from ..core.log import INFO, WARNING, log
from ..core.wait_queue import Waiter, WaitQueue

if TYPE_CHECKING:
    from trio_util import AsyncValue

    from ..._sansio.breaker import State


def circuit_around(inner: Layered, circuit: Circuit) -> Layered:
    """Put one circuit, which all calls share, around a call."""

    async def guarded(item: Any, context: CallContext) -> Any:
        permit = await circuit.enter(context)
        try:
            result = await inner(item, context)
        except Exception as error:
            context.counters.opened += circuit.failed(permit, error)
            raise
        except BaseException:
            circuit.abandoned(permit)
            raise
        circuit.succeeded(permit)
        return result

    return guarded


class Circuit:
    """The breaker, the calls that wait for a permit, and the tasks that wait for a state."""

    def __init__(self, policy: CircuitBreaker, name: str) -> None:
        self.policy: CircuitBreaker = policy  # what counts as a failure, and whether calls wait
        self._name = name  # of the step, for the log
        self._breaker = Breaker(policy)  # decides which calls get a permit
        self._line: WaitQueue[Waiter] = WaitQueue()  # calls that wait for one
        self._told: State = "closed"  # the state that was last told
        self._state: AsyncValue[State] | None = None  # made when asked for

    def state(self) -> AsyncValue[State]:
        """Return its state, as a value whose changes can be awaited."""
        if self._state is None:
            from trio_util import AsyncValue  # 3 ms, and few circuits are watched

            self._state = AsyncValue(self._told)
        return self._state

    def _look(self) -> None:
        """Tell of the state if it has changed."""
        state = self._breaker.state
        if state == self._told:
            return
        self._told = state
        why = f": {self._breaker.why}" if state == "open" else ""
        log(INFO, "the circuit of %s is %s%s", named(self._name), state, why)
        if self._state is None:
            return
        try:
            self._state.value = state
        except Exception as error:  # of a predicate that a task waits with: it is asked right here
            log(WARNING, "a predicate that waits for the circuit of %s raised %s", named(self._name), type_name(error))

    async def enter(self, context: CallContext) -> int:
        """Return a permit, at once or when there is one.

        Raises:
          CircuitOpen: if there is none, and calls do not wait.
        """
        if not len(self._line):
            answer = self._breaker.admit(trio.current_time())
            self._look()
            if not isinstance(answer, Refused):
                return answer
            if not self.policy.wait:
                context.counters.refused += 1
                raise self._open(answer)
        return await self._wait(context)

    async def _wait(self, context: CallContext) -> int:
        permit = -1

        def ask() -> float | None:
            nonlocal permit
            answer = self._breaker.admit(trio.current_time())
            self._look()
            if isinstance(answer, Refused):
                return math.inf if answer.until is None else answer.until
            permit = answer
            return None

        since = trio.current_time()
        try:
            context.waits_for, context.has_waited = "circuit", True
            await self._line.join(ask)
        finally:
            context.waits_for = CALL
            context.counters.waited_circuit += trio.current_time() - since
        return permit

    def succeeded(self, permit: int) -> None:
        self._breaker.succeeded(permit)
        self._look()
        self._line.poke()

    @trio.lowlevel.disable_ki_protection  # the predicate is user code
    def _is_failure(self, error: Exception) -> bool:
        return is_meant(self.policy.on, error)

    def failed(self, permit: int, error: Exception) -> bool:
        """Hand a permit in; return whether that opened the circuit."""
        before = self._breaker.opened
        try:
            is_failure = self._is_failure(error)
        except BaseException:
            self.abandoned(permit)
            raise
        if is_failure:
            self._breaker.failed(permit, trio.current_time())
        else:
            self._breaker.succeeded(permit)
        self._look()
        self._line.poke()
        return self._breaker.opened > before

    def abandoned(self, permit: int) -> None:
        self._breaker.abandoned(permit)
        self._line.poke()

    def _open(self, answer: Refused) -> CircuitOpen:
        if answer.until is None:
            return CircuitOpen(f"the circuit is half-open ({self._breaker.why}): its probe has no answer yet")
        left = max(0.0, answer.until - trio.current_time())
        return CircuitOpen(f"the circuit is open ({self._breaker.why}): try again in {left:.6g} s", left)
