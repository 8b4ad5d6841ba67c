"""Where is a public class from? Tracebacks, pickles and pages say: from where a user finds it.

The names in the annotations of a class mean something only in the module that it was written in, so they are told where
that is: `typing.get_type_hints` finds them all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import get_annotations
from typing import ForwardRef


def publish(names: Mapping[str, object], module: str) -> None:
    """Let the classes among the names of a module say that they are from there."""
    for face in names.values():
        if not isinstance(face, type):
            continue
        if kinds := get_annotations(face):
            home = face.__module__
            face.__annotations__ = {name: ForwardRef(kind, module=home, is_class=True) for name, kind in kinds.items()}
        face.__module__ = module
