"""Between which numbers of calls at once is chosen while a run goes on, and how much slower may calls become?"""

from __future__ import annotations

from dataclasses import KW_ONLY, field

from .._base import checks
from .._base.frozen import dataclass
from .retry import ErrorFilter, error_filter, filter_name

__all__ = ["Adaptive"]


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A number of calls at once that is chosen while the run goes on: ``concurrency=Adaptive(1, 64)``.

    It begins with `minimum`. While all places are in use and calls are not much slower than they are when few run, it
    grows: it doubles until calls first become slow or fail, and from then on it grows by a tenth. When calls take more
    than `target` times their *floor*, or more than one in twenty fails, it shrinks, by half at most, and what was too
    many is tried again when that is worth what it cost. So it stays about the number at which what is called begins to
    slow down or to refuse, and follows when that changes. What the floor is, and what each rule is from, is said in
    ``docs/adaptive.md``.

    The time of a call counts from its start to its end, without those that waited for a rate limit, a circuit, another
    attempt or a resource: more places would only let more of them wait. Waiting for one of ``threads(4)`` does count.
    While not all places are in use (the source, or what is behind, is slower), it does not grow.

    Args:
      minimum: the fewest calls at once, an int >= 1; it begins with so many.
      maximum: the most calls at once, an int >= `minimum`; `max_in_flight` counts these.
      target: how many times as long as at the floor calls may take, a number > 1. Where more calls at once only wait
        for each other, a higher one costs waiting and gains nothing; below 1.2 chance alone makes it shrink.
      on: the errors that say that there are too many calls: an exception type, a tuple of them, or a sync predicate,
        as in `Retry`. A call that ends with another error counts as one that succeeded. If more than one call in twenty
        fails for reasons of its own, name here what is not such a reason, such as a `trio.TooSlowError`.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.
    """

    minimum: int
    maximum: int
    _: KW_ONLY
    target: float = 1.3
    on: ErrorFilter = field(default=Exception, hash=False)

    def __post_init__(self) -> None:
        checks.integer("Adaptive", "minimum", self.minimum, at_least=1)
        checks.integer("Adaptive", "maximum", self.maximum, at_least=1)
        if self.maximum < self.minimum:
            use = "Use Adaptive(1, 64), say."
            raise checks.refuse(ValueError, "Adaptive", "maximum", f"be >= minimum, {self.minimum}", self.maximum, use)
        checks.number("Adaptive", "target", self.target, above=1)
        error_filter("Adaptive", "on", self.on)

    def describe(self) -> str:
        """One-line description."""
        return f"concurrency {self.minimum} to {self.maximum}, adaptive"

    def details(self) -> str:
        """What makes it smaller, in one line."""
        meant = "fails" if self.on is Exception else f"fails with {filter_name(self.on)}"
        return f"fewer when calls take {self.target:g} times their floor, or more than 1 in 20 {meant}"
