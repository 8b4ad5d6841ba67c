"""Which finished call comes next? `InOrder` answers by position, `AsCompleted` by time of completion.

The rule: every call gets a position when it begins. A result or a failure is handed in at its position; `pop` returns
what comes next, if that is known. A failure is an end: in order, it stands at its position, everything behind it is
superfluous, and an earlier failure replaces it; as completed, it stands behind all that completed before it.

The invariant: what was handed in is popped once, or returned as superfluous, never both. It never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import Any


class InOrder:
    """Results leave in the order in which their calls began."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self.waiting: Sized = self._done
        """The waiting results; can be counted without a method call."""
        self._next = 0
        self._begun = 0
        self._failed_at: int | None = None
        self.failure: Any = None

    def __len__(self) -> int:
        """How many results wait."""
        return len(self._done)

    @property
    def ready(self) -> bool:
        """Whether `pop` has a result."""
        return self._next in self._done

    @property
    def ended(self) -> bool:
        """Whether the failure is what comes next."""
        return self._failed_at == self._next

    def begin(self) -> int:
        """Return the position of a new call."""
        self._begun += 1
        return self._begun - 1

    def is_superfluous(self, position: int) -> bool:
        """Whether a call at this position no longer matters."""
        return self._failed_at is not None and position > self._failed_at

    def complete(self, position: int, result: Any) -> None:
        """Hand in a result."""
        self._done[position] = result

    def pass_by(self, position: int) -> bool:
        """If a result would come next, count it as handed in and popped; return whether it does."""
        if position != self._next:
            return False
        self._next += 1
        return True

    def fail(self, position: int, failure: Any) -> tuple[Any, list[Any]]:
        """Hand in a failure; return the later failure that it replaces (or None), and the results behind it."""
        replaced, self.failure, self._failed_at = self.failure, failure, position
        behind = sorted(done for done in self._done if done > position)
        return replaced, [self._done.pop(done) for done in behind]

    def pop(self) -> Any:
        """Take the next result."""
        result = self._done.pop(self._next)
        self._next += 1
        return result

    def end(self, failure: Any) -> tuple[Any, list[Any]]:
        """Replace the result that was popped last by a failure; return what `fail` does."""
        self._next -= 1
        return self.fail(self._next, failure)

    def clear(self) -> list[Any]:
        """Remove and return every waiting result."""
        waiting = [self._done[position] for position in sorted(self._done)]
        self._done.clear()
        return waiting


class AsCompleted:
    """Results leave in the order in which their calls ended."""

    def __init__(self) -> None:
        self._done: deque[Any] = deque()
        self.waiting: Sized = self._done
        """The waiting results; can be counted without a method call."""
        self._begun = 0
        self.failure: Any = None

    def __len__(self) -> int:
        """How many results wait."""
        return len(self._done)

    @property
    def ready(self) -> bool:
        """Whether `pop` has a result."""
        return bool(self._done)

    @property
    def ended(self) -> bool:
        """Whether the failure is what comes next."""
        return self.failure is not None and not self._done

    def begin(self) -> int:
        """Return the position of a new call: unused for results, but lanes of keys need it."""
        self._begun += 1
        return self._begun - 1

    def is_superfluous(self, position: int) -> bool:
        """Whether a call no longer matters: after a failure, none does."""
        return self.failure is not None

    def complete(self, position: int, result: Any) -> None:
        """Hand in a result."""
        self._done.append(result)

    def pass_by(self, position: int) -> bool:
        """Return whether a result would come next if it were handed in now."""
        return not self._done

    def fail(self, position: int, failure: Any) -> tuple[Any, list[Any]]:
        """Hand in the failure; it replaces no other, and no completed result is behind it."""
        self.failure = failure
        return None, []

    def pop(self) -> Any:
        """Take the next result."""
        return self._done.popleft()

    def end(self, failure: Any) -> tuple[Any, list[Any]]:
        """Replace the result that was popped last by a failure; all waiting results came after it."""
        replaced, self.failure = self.failure, failure
        return replaced, self.clear()

    def clear(self) -> list[Any]:
        """Remove and return every waiting result."""
        waiting = list(self._done)
        self._done.clear()
        return waiting
