"""Which of the contenders' libraries are there, and in which version?

A contender may need libraries that are not installed: then it is not measured, and the result says so. One whose
library cannot live beside trio >= 0.34 names a requirement (`Contender.isolated`), for which an environment is made
once, outside this repository, and kept.
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
"""Seconds that making an environment may take."""


def missing(contender: Contender, *, make: bool) -> str | None:
    """Say why a contender cannot run; None if it can. With `make`, an environment that it needs is made."""
    for name in contender.needs:
        if not _is_there(name):
            return f"{name} is not installed"
    if contender.isolated and interpreter(contender.isolated, make=make) is None:
        return f"{contender.isolated} needs an environment of its own, which is not there"
    return None


@cache
def _is_there(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def versions(contenders: Sequence[Contender]) -> dict[str, str]:
    """Give the versions of the libraries that contenders need."""
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
    """Give the Python of a requirement's environment; None if there is none, and none can be made."""
    home = _cache() / f"{requirement.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / "complete").exists() and not (make and _make(requirement, home, python)):
        return None
    return python


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funcpipe-benchmarks"


@cache  # asked once a run, also when it fails
def _make(requirement: str, home: Path, python: Path) -> bool:
    uv = shutil.which("uv")
    if uv is None:
        return False
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)],
        [uv, "pip", "install", "--quiet", "--python", str(python), requirement],
        [str(python), "-c", f"import {requirement.partition('==')[0]}"],  # what is old may not know this Python
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
        except (subprocess.SubprocessError, OSError):
            return False
    (home / "complete").touch()  # what was interrupted half-way does not count
    return True
