"""`Tapes`: where is everything noted that is recorded of one run? How did a call fail, as its policies see it?

Errors are remembered only while policies may be asked about them, and everything of the run's is let go at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._base.functions import AnyFunction
from .._plan.nodes import Plan
from .._runtime.run.witness import Witness
from .._sansio.retrying import is_meant
from .recording import Place
from .tapes import FailureKind, Tape, as_kept

_RECENT = 16
"""Errors of failed calls that are remembered, until the policies around the call have been asked about them."""


class Tapes:
    """The tapes of one run, and what belongs to all of them."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit = limit  # the most samples on each
        self.tapes: dict[Place, Tape] = {}  # by what they are of
        self.counts: dict[Place, int] = {}  # of what is only counted, when the run is over
        self.now: Callable[[], float] = now  # the clock
        self.began: float = 0.0  # when the run begins, by that clock
        self.changes: list[tuple[float, str]] = []  # when the run was drained, paused, resumed
        self.has_consumer: bool = False  # a block takes the items
        self.at_end: list[Callable[[], None]] = []  # what is noted when the run is over
        self.inner: dict[int, tuple[Plan, Witness]] = {}  # pipelines of items that wait to be run, by identity
        self._matchers: dict[str, dict[str, Any]] = {}
        """The types of errors that the policies of each part mean, by their paths; predicates are asked by the run."""
        self._recent: dict[int, tuple[BaseException, FailureKind]] = {}
        """Errors of the latest failed calls, by identity, while policies may be asked about them."""

    def tape(self, part: str, path: str, role: str) -> Tape:
        """Return the tape of a function, which is made if needed."""
        place = Place(part, path, role)
        if place not in self.tapes:
            self.tapes[place] = Tape(self._limit)
        return self.tapes[place]

    def noting(self, part: str, path: str, fn: AnyFunction, plain: Callable[[Any], Any]) -> AnyFunction:
        """Return a function that calls another, and notes what it answers in a plain form."""
        add = self.tape(part, path, "answers").add

        def noted(item: Any) -> Any:
            try:
                answer = fn(item)
            except Exception as error:
                add(self.failure(part, error))
                raise
            add(as_kept(plain, answer))
            return answer

        return noted

    def match(self, part: str, path: str, kinds: Any) -> None:
        """Note which types of errors a policy means."""
        self._matchers.setdefault(part, {})[path] = kinds

    def failure(self, part: str, error: Exception) -> FailureKind:
        """Return how something failed; what policies say of that error is added when they are asked."""
        matchers = self._matchers.get(part, {})
        kind = FailureKind(type(error).__name__, {path: is_meant(on, error) for path, on in matchers.items()})
        while len(self._recent) >= _RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[id(error)] = error, kind
        return kind

    def answered(self, error: Exception, path: str, answer: Any) -> None:
        """Note what a policy says of an error."""
        _error, kind = self._recent.get(id(error), (None, None))
        if kind is not None:
            kind.answers[path] = answer

    def ending(self, part: str, since: float, error: BaseException) -> list[Any]:
        """Return how something ended that did not succeed: after how long, and how it failed unless it was cut off."""
        seconds = self.now() - since
        return [seconds, self.failure(part, error)] if isinstance(error, Exception) else [seconds]

    def forget(self) -> None:
        """Let go of everything of the run's."""
        self._recent.clear()
        self._matchers.clear()
        self.at_end.clear()
        self.inner.clear()
