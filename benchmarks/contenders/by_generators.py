"""Plain generators: no tasks, no waiting; the minimum in Python."""

from __future__ import annotations

from collections.abc import Iterable

from .._work import add, inc

__all__ = ["fused"]


def fused(maps: int, items: int) -> int:
    values: Iterable[int] = range(items)
    for _ in range(maps):
        values = _mapped(values)
    total = 0
    for value in values:
        total = add(total, value)
    return total


def _mapped(values: Iterable[int]) -> Iterable[int]:
    return (inc(value) for value in values)
