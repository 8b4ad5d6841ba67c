"""How does a pool learn how many calls to make at once? It tells of each that ended, and takes the limit that follows.

The choice is `_sansio.adaptive_limit`. What is told lies directly around the step, or the function, of the operation:
an item that the function is not called with is no call. The time of a call that waited for a policy of its step is
not told; each failed attempt is. The limit changes within the call that changes it: there is no task, and no wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..._base.errors import CircuitOpen
from ..._sansio.adaptive_limit import AdaptiveLimit
from ..._sansio.retrying import is_meant
from ...policies.adaptive import Adaptive
from ..core.call_context import CallContext, Layered
from ..core.user_code import interruptible
from ..reports.counts import AdaptiveReport
from .pool import Pool


class Adapting:
    """The limit of a pool, which follows its calls."""

    def __init__(self, policy: Adaptive) -> None:
        self.pool: Pool  # whose limit it is; set when that is made
        self._policy = policy  # which errors count
        self._limit = AdaptiveLimit(policy)  # what it follows
        self._lowest = self._highest = policy.minimum  # that it was
        self._changes = 0  # how often it changed

    @property
    def start(self) -> int:
        """So many calls at once at the beginning."""
        return self._limit.limit

    def report(self) -> AdaptiveReport:
        """Return what it did."""
        return AdaptiveReport(self._lowest, self._highest, self._changes, self._policy.maximum)

    def around(self, fn: Callable[..., Awaitable[Any]], *, is_layered: bool) -> Layered:
        """Return a function, or a step, whose calls are told."""

        async def told(item: Any, context: CallContext) -> Any:
            since = trio.current_time()
            context.has_waited, context.on_failure = False, (attempts := _Attempts(self, since))
            try:
                result = await (fn(item, context) if is_layered else interruptible(fn, item))
            except Exception as error:
                if not attempts(error):
                    self._answered(context, since)
                raise
            self._answered(context, since)
            return result

        return told

    def _answered(self, context: CallContext, since: float) -> None:
        now = trio.current_time()
        if self._limit.ended(None if context.has_waited else now - since, self.pool.at_work(), now):
            self._follow()

    def failed(self, error: Exception, began: float, now: float) -> bool:
        """Tell of a failed attempt; return whether it failed because of the limit, as far as the policy knows."""
        is_call = not isinstance(error, CircuitOpen)  # then no call was made, which says nothing
        if is_call and not self._is_meant(error):
            return False
        if is_call and self._limit.failed(self.pool.at_work(), now, began):
            self._follow()
        return True

    @trio.lowlevel.disable_ki_protection  # the predicate is user code
    def _is_meant(self, error: Exception) -> bool:
        return is_meant(self._policy.on, error)

    def _follow(self) -> None:
        limit = self._limit.limit
        self._lowest, self._highest = min(self._lowest, limit), max(self._highest, limit)
        self._changes += 1
        self.pool.set_concurrency(limit)


class _Attempts:
    """The attempts of one call; called with the error of each that failed."""

    __slots__ = ("_began", "_limit")

    def __init__(self, limit: Adapting, began: float) -> None:
        self._limit = limit
        self._began = began  # when the attempt began, or earlier: the wait before it is not told

    def __call__(self, error: Exception) -> bool:
        """Tell of a failed attempt; return whether it failed because of the limit, as far as the policy knows."""
        began, self._began = self._began, trio.current_time()
        return self._limit.failed(error, began, self._began)
