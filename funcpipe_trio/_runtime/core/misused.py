"""What does a beginner try first, and what is to be written instead? Methods that only raise an error saying so.

Python's own error for `async for item in plan` names the method that is missing, not the one to call. Type checkers do
not see these methods (they are under ``if not TYPE_CHECKING``), so they still find the mistake themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def misused(problem: str, use: str) -> Callable[..., NoReturn]:
    """Return a method that raises TypeError: what is wrong, and on the next line what to use."""

    def method(self: object, *args: object) -> NoReturn:
        raise TypeError(f"{problem}\n{use}")

    return method
