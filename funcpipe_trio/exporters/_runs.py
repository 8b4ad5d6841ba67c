"""Which runs are exported, and under which names? Any number, which come and go while others read them.

The rule: a name belongs to one run at a time. A run that is over keeps its name, and its last numbers, until it is
removed or another run takes the name.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from .._base import checks
from .._base.shown import line_of, named
from .._runtime.reports.report import Report
from .._runtime.run.run import Run


class Runs:
    """Runs by their names. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._runs: dict[str, Run[Any]] = {}  # by name, in the order in which they came
        self._lock = threading.Lock()  # around each look at them

    def add(self, name: str, run: Run[Any]) -> None:
        """Export a run from now on, until `remove`. Sync, from any thread.

        Args:
          name: what the label ``pipeline`` of its metrics is; that of a run that is over may be used again.
          run: the run; when it is over, its last numbers stay.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if `name` is empty, or another run of that name is at work.
        """
        where = f"{type(self).__name__}.add"
        shown = line_of(checks.text(where, "name", name))
        checks.instance(where, "run", run, Run, "Use the run that `async with plan.open() as run` gives.")
        other = None
        while True:
            # Outside of the lock, because another thread waits for the event loop of the run.
            if other is not None and other.report.outcome == "running":
                raise ValueError(f"{where}: name must be that of no other run at work, not {named(name)}")
            with self._lock:
                now = self._runs.get(shown)
                if now is None or now is run or now is other:
                    self._runs[shown] = run
                    return
            other = now

    def remove(self, name: str) -> None:
        """Export a run no longer. Sync, from any thread.

        Raises:
          KeyError: if there is none of that name.
        """
        with self._lock:
            if line_of(name) not in self._runs:
                raise KeyError(f"{type(self).__name__}.remove: there is no run {named(name)}")
            del self._runs[line_of(name)]

    def _reports(self) -> list[tuple[str, Report]]:
        """Return a report of each run, with its name."""
        with self._lock:
            runs = list(self._runs.items())
        return [(name, run.report) for name, run in runs]  # outside of the lock: another thread waits for each


def needed(module: str, exporter: str, extra: str) -> Any:
    """Import a module that comes with an extra of this package.

    Raises:
      ImportError: if it is not installed; it names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry-api"}[extra]
        use = f'Use `pip install "funcpipe-trio[{extra}]"`.'
        raise ImportError(f"{exporter} needs {package}\n{use}") from error
