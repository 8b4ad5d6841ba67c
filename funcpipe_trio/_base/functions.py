"""What can be known about a user's function without calling it: its name, and whether its result must be awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

AnyFunction = Callable[..., Any]

LONGEST_NAME = 200
"""The most characters of a function's name to show: it appears in every error, plan and report."""


def is_async(fn: AnyFunction) -> bool:
    """Return whether calling ``fn`` returns an awaitable."""
    fn = _bare(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(_call(fn))


def yields_async(fn: AnyFunction) -> bool:
    """Return whether ``fn`` is an async generator function."""
    fn = _bare(fn)
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(_call(fn))


def never_awaitable(fn: AnyFunction) -> bool:
    """Return whether the result of ``fn`` is certainly not awaitable; for most functions only a call can tell."""
    fn = _bare(fn)
    if isinstance(fn, type):
        return type(fn).__call__ is type.__call__ and not hasattr(fn, "__await__")
    if inspect.isbuiltin(fn) and fn.__module__ == "builtins":
        return fn is not anext
    return inspect.isgeneratorfunction(fn) and not fn.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE


def function_name(fn: AnyFunction) -> str:
    """Return the name of a function as the plan shows it."""
    fn = _bare(fn)
    name = getattr(fn, "__name__", None)
    return (name if isinstance(name, str) and name else type(fn).__name__)[:LONGEST_NAME]


def _call(fn: AnyFunction) -> object:
    """Return the ``__call__`` that runs: that of the type, since a class is called through its metaclass."""
    return type(fn).__call__


def _bare(fn: AnyFunction) -> AnyFunction:
    while isinstance(fn, partial):
        fn = fn.func
    return fn
