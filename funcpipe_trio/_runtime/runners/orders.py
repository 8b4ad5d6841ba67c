"""What goes to a worker process and back, as bytes, and what becomes of a value that cannot be pickled or loaded?

An order is two pickles, of the function and of the item. An answer is a letter and its content: a result, or an error
as text and as a pickle. An error that cannot be loaded here is raised as a `WorkerError` (or, if it is not an
`Exception`, as the builtin that it derives from), with its name and text. Each has the worker's traceback as a note,
because a traceback cannot be sent; its cause and context come along.

The names of the main module belong to ``__mp_main__`` in a worker; here they belong to ``__main__`` again.

It sends nothing: `worker_processes` does.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import pickle
import re
from typing import Any

import trio

from ..._base.errors import WorkerError
from ..._base.functions import AnyFunction, function_name
from .worker_program import LENGTH, MAIN

MOST_NOTES = 16
"""Notes of its own that an error keeps."""


@trio.lowlevel.disable_ki_protection  # pickling runs user code
def order_of(fn: AnyFunction, item: Any) -> bytes:
    """Make the order of a call.

    Raises:
      TypeError: if the function, or the item, cannot be pickled.
    """
    what = "function"
    try:
        first = pickle.dumps(fn, pickle.HIGHEST_PROTOCOL)
        what = "item"
        second = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise _unfit(what, fn, error, _DUMP) from error
    return b"".join((len(first).to_bytes(LENGTH, "big"), first, second))


def result_of(letter: bytes, told: bytes, process: int, fn: AnyFunction) -> Any:
    """Return the result in the answer to an order.

    Raises:
      BaseException: what the function raised.
      TypeError: if the function or the item could not be loaded there, or the result could not be pickled or loaded.
    """
    if letter == b"R":
        try:
            return _load(told)
        except Exception as error:
            raise _unfit("result", fn, error, _LOAD) from error
    met = _error(pickle.loads(told), _where(process))
    if letter == b"E":
        raise met
    what, rule = {b"F": ("function", _LOAD), b"I": ("item", _LOAD), b"P": ("result", _DUMP)}[letter]
    raise _unfit(what, fn, met, rule) from met


def problem_of(told: bytes, process: int) -> tuple[str, BaseException]:
    """Return why a worker could not load the main module: the error and its place as text, and the error itself."""
    words = pickle.loads(told)
    lines = re.findall(r'^ *File "(.+)", line (\d+)', words["trace"], re.MULTILINE)
    place = " in {}, line {}".format(*lines[-1]) if lines else ""
    return f"{words['name']}{place}: {words['text']}", _error(words, _where(process))


def _where(process: int) -> str:
    return f"in worker process {process}:\n"


_DUMP = "be picklable, which it is not"
_LOAD = "load from its pickle, which it does not"


def _unfit(what: str, fn: AnyFunction, error: BaseException, rule: str) -> TypeError:
    words = type(error).__name__
    with contextlib.suppress(Exception):
        words = f"{words}: {error}"
    use = "Use what pickle takes: plain data, and classes and functions at the top of a module."
    return TypeError(f"processes: the {what} of {function_name(fn)} must {rule}: {words}\n{use}")


# ---- errors


def _error(told: dict[str, Any], where: str) -> BaseException:
    note = where + told["trace"].rstrip()
    error: BaseException | None = _itself(told)
    if error is None or not _noted(error, note):
        error = _stand_in(told, where)
        _noted(error, note)
    if told["before"] is not None:
        _set(error, "__cause__" if told["is_cause"] else "__context__", _error(told["before"], where))
    return error


def _noted(error: BaseException, note: str) -> bool:
    """Add a note, even to an error that refuses notes; return False if that fails, or if it is not an error."""
    try:
        notes = getattr(error, "__notes__", None)
        _set(error, "__notes__", [*(notes[:MOST_NOTES] if isinstance(notes, list) else ()), note])
    except Exception:
        return False
    return True


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of an error, even of a frozen one."""
    BaseException.__setattr__(error, name, value)


def _itself(told: dict[str, Any]) -> Any:
    """Load an error from its pickle, which may return any object; None if that fails, or there is no pickle."""
    if told["pickled"] is None:
        return None
    try:
        return _load(told["pickled"])
    except Exception:
        return None


def _stand_in(told: dict[str, Any], where: str) -> BaseException:
    if told["parts"]:
        return BaseExceptionGroup(told["text"], [_error(part, where) for part in told["parts"]])
    if told["ends"] == "Exception":
        return WorkerError(told["name"], told["text"])
    kind: type[BaseException] = getattr(builtins, told["ends"])
    return kind(f"{told['name']}: {told['text']}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class("__main__" if module == MAIN else module, name)


@trio.lowlevel.disable_ki_protection
def _load(pickled: bytes) -> Any:
    return _Unpickler(io.BytesIO(pickled)).load()
