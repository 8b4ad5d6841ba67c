"""Which of the contenders' libraries are installed, and in which version?

A contender may need libraries that are not installed: then it is not measured, and the result says so. A contender
whose library is incompatible with trio >= 0.34 names a requirement (`Contender.isolated`), for which an environment is
created once, outside this repository, and kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import resolve_name

from ._model import Contender

__all__ = ["interpreter", "missing", "versions"]

LIMIT = 120.0
"""Seconds that creating an environment may take."""


def missing(contender: Contender, *, make: bool) -> str | None:
    """Return why a contender cannot run; None if it can. With `make`, create the environment that it needs."""
    for name in contender.needs:
        if not _is_there(name):
            return f"{name} is not installed"
    if contender.isolated and interpreter(contender.isolated, make=make) is None:
        return f"{contender.isolated} needs its own environment, which does not exist"
    return None


@cache
def _is_there(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def versions(contenders: Sequence[Contender]) -> dict[str, str]:
    """Return the versions of the libraries that contenders need."""
    found = {}
    for contender in contenders:
        if contender.isolated:
            name, _, number = contender.isolated.partition("==")
            found[name] = number
        for name in contender.needs:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
    return found


def interpreter(requirement: str, *, make: bool) -> Path | None:
    """Return the Python of a requirement's environment; None if there is none and none can be created."""
    home = _cache() / f"{requirement.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / "complete").exists() and not (make and _make(requirement, home, python)):
        return None
    return python


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funcpipe-benchmarks"


@cache  # called once per run, even if it fails
def _make(requirement: str, home: Path, python: Path) -> bool:
    uv = shutil.which("uv")
    if uv is None:
        return False
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        [uv, "pip", "install", "--quiet", "--python", str(python), requirement],
        [str(python), "-c", f"import {requirement.partition('==')[0]}"],  # an old release may not support this Python
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
        except (subprocess.SubprocessError, OSError):
            return False
    (home / "complete").touch()  # an interrupted installation does not count
    return True
