"""Which pipeline does a user mean by ``MODULE:NAME`` or ``FILE.py:NAME``?

The rule: what the name stands for is a pipeline, or a function without arguments that returns one. A module is imported
as Python would from the current folder, a file as a script would be, but not as ``__main__``.

The invariant: whatever is wrong is one `TargetError`, which says what to write, or shows the user's own traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import outcome
import trio

from .._base.errors import FuncpipeError
from .._base.shown import listed, named, shown
from .._plan.diff import is_document
from .._plan.document import SCHEMA, document
from ..pipeline import Pipeline

_FRAMES = 5
"""The most frames of the user's traceback that are shown."""
_NOT_THE_USERS = {Path(__file__).parents[1], *(Path(str(each.__file__)).parent for each in (importlib, outcome, trio))}
"""Folders of this package, and of what calls the user's code for it."""


class TargetError(FuncpipeError):
    """No pipeline can be had."""


def find(target: str) -> Pipeline[Any]:
    """Return the pipeline that a target names.

    Raises:
      TargetError: if there is none.
    """
    with found(target) as plan:
        return plan


@contextmanager
def found(target: str) -> Iterator[Pipeline[Any]]:
    """Yield the pipeline that a target names; in the block its code can import what is beside it.

    Raises:
      TargetError: if there is none.
    """
    place, colon, name = target.rpartition(":")
    if not (place and colon and name):
        raise TargetError(f"{target!r} must be MODULE:NAME or FILE.py:NAME, such as app:plan or src/app.py:make_plan")
    with _loaded(place) as module:
        yield _made(target, _looked_up(target, module, name))


def find_document(target: str) -> dict[str, Any]:
    """Return the document of a plan: of the pipeline that a target names, or one that was written to FILE.json before.

    Raises:
      TargetError: if there is none.
    """
    path = Path(target)
    if path.suffix != ".json":
        return document(find(target)._plan)
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(f"{target!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TargetError(f"{target!r} cannot be read: {error}") from None
    if not (isinstance(written, dict) and written.get("schema") == SCHEMA and is_document(written)):
        raise TargetError(f"{target!r} must be what `funcpipe describe --format json` of this version writes")
    return written


# ---- modules and files


@contextmanager
def _loaded(place: str) -> Iterator[ModuleType]:
    """Import a module or file; afterwards forget what came from the folder of the file: the next file has its own."""
    path = Path(place)
    is_file = path.suffix == ".py"
    folder = str(path.resolve().parent if is_file else Path.cwd())
    before, modules = list(sys.path), dict(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield _from_file(path) if is_file else _from_module(place)
    finally:
        sys.path[:] = before
        if is_file:
            _forget(modules, folder)


def _forget(before: dict[str, ModuleType], folder: str) -> None:
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if before.get(name) is not module and origin is not None and Path(folder) in Path(origin).parents:
            del sys.modules[name]
            if name in before:
                sys.modules[name] = before[name]


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{str(path)!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as for any module: classes look themselves up there
    _run(f"importing {path}", partial(spec.loader.exec_module, module))
    return module


def _from_module(name: str) -> ModuleType:
    try:
        missing = not _has_spec(name)
    except (ImportError, ValueError):  # an error of a parent package, or a name like "a..b"
        missing = False
    if missing:
        raise TargetError(f"there is no module {name!r} here or among the installed ones")
    module: ModuleType = _run(f"importing {name}", lambda: importlib.import_module(name))
    return module


def _has_spec(name: str) -> bool:
    """Return whether a module can be found; without importing it, and its parents only if the first is there."""
    top = name.partition(".")[0]
    return top in sys.modules or importlib.util.find_spec(top) is not None


# ---- names


def _looked_up(target: str, module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise TargetError(f"{target!r}: there is no {named(part)}; {_offered(value)}") from None
    return value


def _offered(scope: Any) -> str:
    """Say what there is: pipelines, and functions without arguments of the module itself."""
    names = {name: value for name, value in vars(scope).items() if not name.startswith("_")}
    plans = [name for name, value in names.items() if isinstance(value, Pipeline)]
    makers = [name for name, value in names.items() if _may_make(value, getattr(scope, "__name__", None))]
    functions = f"; functions without arguments: {listed(makers)}" if makers else ""
    return f"pipelines: {listed(plans)}{functions}"


def _may_make(value: Any, module: str | None) -> bool:
    is_own = inspect.isfunction(value) and value.__module__ == module
    return is_own and not inspect.iscoroutinefunction(value) and _needs(value) == []


def _needs(fn: Callable[..., Any]) -> list[str]:
    """Return the arguments that a function must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(fn).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.kind not in kinds]


def _made(target: str, value: Any) -> Pipeline[Any]:
    rule = "must be a pipeline, or a function without arguments that returns one"
    if isinstance(value, Pipeline):
        return value
    if not callable(value) or isinstance(value, type):
        raise TargetError(f"{target!r} {rule}, not {shown(value)}")
    try:
        needed = _needs(value)
    except (TypeError, ValueError):  # a C function without a signature
        needed = []
    if needed:
        raise TargetError(f"{target!r} {rule}; it must be given {listed(needed)}")
    made = _run(f"calling {target}", value)
    if inspect.iscoroutine(made):
        made.close()
    if not isinstance(made, Pipeline):
        raise TargetError(f"{target!r} {rule}; it returned {shown(made)}")
    return made


# ---- the user's code


def _run(what: str, call: Callable[[], Any]) -> Any:
    """Call the user's code; make one error of what it raises, with the end of its own traceback."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise TargetError(f"{what} failed:\n{_traceback(error)}") from None


def _traceback(error: BaseException) -> str:
    """Return the user's part of a traceback: without this package and the import system, the last frames only."""
    told = traceback.TracebackException.from_exception(error)
    told.stack = users_part(told.stack)
    return "".join(told.format(chain=False)).rstrip()


def users_part(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return the last frames that are the user's."""
    return traceback.StackSummary.from_list([each for each in stack if _is_the_users(each.filename)][-_FRAMES:])


def _is_the_users(file: str) -> bool:
    is_generated = file.startswith("<")  # by the import system, or the methods of our frozen values
    return not (is_generated or _NOT_THE_USERS & {*Path(file).parents})
