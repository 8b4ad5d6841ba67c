"""How does Ctrl-C leave a simulation? As a `KeyboardInterrupt`, as it leaves any other function.

The rule: an interrupt that arrives in a group is raised by itself. Groups without one are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["plain_interrupts"]


@contextmanager
def plain_interrupts() -> Iterator[None]:
    """Raise a `KeyboardInterrupt` that leaves the block in a group of errors by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None
