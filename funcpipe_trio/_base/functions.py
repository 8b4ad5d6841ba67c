"""What can be said of a user's function without calling it: its name, and whether it must be awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

AnyFunction = Callable[..., Any]

LONGEST_NAME = 200
"""Characters of a function's name, at most: it stands in every error, plan and report."""


def is_async(fn: AnyFunction) -> bool:
    """Tell whether calling ``fn`` gives something to await."""
    fn = _bare(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(_call(fn))


def yields_async(fn: AnyFunction) -> bool:
    """Tell whether ``fn`` is an async generator function."""
    fn = _bare(fn)
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(_call(fn))


def never_awaitable(fn: AnyFunction) -> bool:
    """Tell whether what ``fn`` gives can surely not be awaited; of most, nobody knows before they are called."""
    fn = _bare(fn)
    if isinstance(fn, type):
        return type(fn).__call__ is type.__call__ and not hasattr(fn, "__await__")
    if inspect.isbuiltin(fn) and fn.__module__ == "builtins":
        return fn is not anext
    return inspect.isgeneratorfunction(fn) and not fn.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE


def function_name(fn: AnyFunction) -> str:
    """Name a function as the plan shows it."""
    fn = _bare(fn)
    name = getattr(fn, "__name__", None)
    return (name if isinstance(name, str) and name else type(fn).__name__)[:LONGEST_NAME]


def _call(fn: AnyFunction) -> object:
    """Find what runs when an object with ``__call__`` is called: its type's, for a class is called by its metaclass."""
    return type(fn).__call__


def _bare(fn: AnyFunction) -> AnyFunction:
    while isinstance(fn, partial):
        fn = fn.func
    return fn
