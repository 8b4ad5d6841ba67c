"""What a newcomer writes first, and what to write instead: methods that only say so.

Python's own error of `async for item in plan` names a method that is missing, not the one to call. Type checkers do not
see these methods (they stand under ``if not TYPE_CHECKING``), and still find the mistake by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def misused(problem: str, use: str) -> Callable[..., NoReturn]:
    """Make a method that raises TypeError: what is wrong, and a line of what to use."""

    def method(self: object, *args: object) -> NoReturn:
        raise TypeError(f"{problem}\n{use}")

    return method
