"""When are calls that would only fail no longer made, and when are they tried again?"""

from __future__ import annotations

from dataclasses import KW_ONLY, field

from .._base import checks
from .._base.frozen import dataclass
from .retry import ErrorFilter, error_filter, filter_name

__all__ = ["CircuitBreaker"]


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When to stop calling something that fails, and when to try it again.

    While it is *closed*, calls go through. It *opens* after `failures` failed calls in a row, or when at least `ratio`
    of the last `window` calls failed; then calls fail at once with `CircuitOpen`, which says when to try again. After
    `reset_after` seconds it is *half-open*: the next call goes through as a probe, and the others still fail. A probe
    that succeeds closes the circuit; one that fails opens it again; one that is cancelled leaves its place to the next.
    The results of calls that began before it opened do not count afterwards.

    Args:
      failures: failed calls in a row that open it, an int >= 1; None: no number of failures in a row opens it.
      reset_after: seconds > 0 from opening to the probe.
      ratio: fraction of the last `window` calls that opens it when they fail, above 0 and at most 1, checked when a
        call fails; needs `window`.
      window: number of calls that `ratio` looks back on, an int >= 1; the ratio counts only after that many calls.
      on: the errors that count as failures: an exception type, a tuple of them, or a sync predicate; any other error
        counts as an answer. Types also match an `ExceptionGroup` if they match all its leaves; a predicate gets the
        group as it is.
      wait: whether a call made while it is open waits, first come first served, instead of failing.

    Raises:
      TypeError: if an argument has a wrong type, or `ratio` or `window` is given without the other.
      ValueError: if an argument is out of range, or nothing could ever open it.
    """

    failures: int | None = 5
    reset_after: float = 30.0
    _: KW_ONLY
    ratio: float | None = None
    window: int | None = None
    on: ErrorFilter = field(default=Exception, hash=False)
    wait: bool = False

    def __post_init__(self) -> None:
        if self.failures is not None:
            checks.integer("CircuitBreaker", "failures", self.failures, at_least=1)
        checks.seconds("CircuitBreaker", "reset_after", self.reset_after)
        if self.ratio is not None:
            checks.number("CircuitBreaker", "ratio", self.ratio, above=0, at_most=1)
        if self.window is not None:
            checks.integer("CircuitBreaker", "window", self.window, at_least=1)
        error_filter("CircuitBreaker", "on", self.on)
        checks.boolean("CircuitBreaker", "wait", self.wait)
        if (self.ratio is None) != (self.window is None):
            raise TypeError("CircuitBreaker: ratio and window must be given together")
        if self.failures is None and self.ratio is None:
            raise ValueError("CircuitBreaker: failures or ratio must be given: nothing would open it")

    def describe(self) -> str:
        """One-line description."""
        row = "a failure" if self.failures == 1 else f"{self.failures} failures in a row"
        opens = [] if self.failures is None else [row]
        if self.ratio is not None:
            opens.append(f"{self.ratio:.0%} of the last {self.window} failed")
        meant = "" if self.on is Exception else f" ({filter_name(self.on)})"
        waits = ", calls wait meanwhile" if self.wait else ""
        return f"opens after {' or when '.join(opens)}{meant}, probes after {self.reset_after:g} s{waits}"
