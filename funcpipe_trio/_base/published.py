"""Which module is a public class from? Tracebacks, pickles and docs name the one that users import it from.

The annotations of a class resolve only in the module that defines it, so each of them is given that module:
`typing.get_type_hints` still works.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import get_annotations
from typing import ForwardRef


def publish(names: Mapping[str, object], module: str) -> None:
    """Set ``__module__`` of the classes in a namespace to that module."""
    for face in names.values():
        if not isinstance(face, type):
            continue
        if kinds := get_annotations(face):
            home = face.__module__
            face.__annotations__ = {name: ForwardRef(kind, module=home, is_class=True) for name, kind in kinds.items()}
        face.__module__ = module
