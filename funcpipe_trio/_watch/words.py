"""How are the numbers of a picture written? Short, in at most six characters, so that columns stay where they are.

A number that is not known is a dash. Rates have two digits or more, durations a unit. `line` writes a whole picture,
for a log.
"""

from __future__ import annotations

from math import isfinite
from typing import Final

from .._base.shown import escaped
from .picture import Picture

UNKNOWN: Final = "-"
_LARGE: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LONG: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def count(number: float) -> str:
    """Write how many there are: ``950``, ``12.3k``, ``1.2M``."""
    if not isfinite(number) or number >= 1e15:
        return "much"
    for size, letter in _LARGE:
        if number >= size * (10 if letter == "k" else 1):
            return f"{_digits(number / size)}{letter}"
    return f"{number:.0f}"


def rate(number: float | None) -> str:
    """Write how many a second: ``0.25``, ``3.4``, ``950``, ``12.3k``."""
    if number is None:
        return UNKNOWN
    if 0 < number < 0.01:
        return "<0.01"
    if number and number < 1:
        return f"{number:.2f}"
    return f"{number:.1f}" if 0 < number < 9.95 else count(number)


def seconds(duration: float | None) -> str:
    """Write how long something took: ``250us``, ``12ms``, ``1.2s``, ``2.5min``, ``3.1h``."""
    if duration is None:
        return UNKNOWN
    for size, letter in _LONG:
        if duration >= size * (2 if letter == "min" else 1):
            return f"{_digits(duration / size)}{letter}"
    if duration >= 0.9995 or not duration:
        return f"{_digits(duration)}s"
    if duration >= 0.9995e-3:
        return f"{_digits(duration * 1e3)}ms"
    return f"{duration * 1e6:.0f}us"


def part(number: float | None) -> str:
    """Write a part of a whole: ``34%``."""
    return UNKNOWN if number is None else f"{number:.0%}"


def _digits(number: float) -> str:
    return f"{number:.1f}" if number < 99.95 and number != int(number) else f"{number:.0f}"


def cause_of(waits_for: str | None) -> str:
    """Write, behind the name of what limits a run, what its calls wait for; empty if nothing is to be said."""
    return f" ({waits_for})" if waits_for in _CAUSES else ""


_CAUSES = {"rate limit", "places", "circuit", "retry", "thread", "process", "executor"}
"""What calls wait for, where that says more than the name of their stage."""


def line(picture: Picture) -> str:
    """Write a picture as one line, with its counts in full."""
    parts = [f"taken {picture.taken}", f"delivered {picture.delivered} ({rate(picture.rate)}/s)"]
    for name in ("failed", "dropped", "discarded", "in_flight"):
        if (number := getattr(picture, name)) or name == "in_flight":
            parts.append(f"{name.replace('_', ' ')} {number}")
    if picture.limit is not None:
        waits = next((stage.waits_for for stage in picture.stages if stage.is_limit), None)
        parts.append(f"limited by {escaped(picture.limit)}{cause_of(waits)}")
    parts += [f"{number} {escaped(error)} in {escaped(stage)}" for stage, error, number in picture.errors]
    error = "" if picture.error is None else f" ({escaped(picture.error)})"
    return f"{picture.elapsed:.1f} s: {picture.state}{error}; {', '.join(parts)}"
