"""A run inside another: what does the outer stage report of it?

The pipeline that a function returns for an item is run in the worker that holds the item, as a block of its own: it
begins, ends, fails and is cancelled there, and nothing of it is left when the worker puts the item down. Its results
are the item's children, its failure is the item's.

Everything else is reported too. The outer `on_discard` is called with what it gives up, under both names; the outer
stage counts that as a child that came and was discarded, or dropped if a policy of overflow did it. Errors that were
not raised are kept with those of the outer run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from ..._plan.operations import DROPS
from ..reports.report import Report
from .chain import Chain

INSIDE: Final = " > "
"""Stands between the name of a stage and that of a stage in the run inside it."""


class Outer(Protocol):
    """A stage with a run inside."""

    chain: Chain
    """What it drives, and where it counts."""

    @property
    def name(self) -> str:
        """As reports call it."""


class NestedRun:
    """Adds what an inner run gives up, and at the end its report, to the counts of the outer stage."""

    def __init__(self, stage: Outer, outer_reason: Callable[[], str | None]) -> None:
        self._stage = stage  # the outer one
        self._outer_reason = outer_reason  # why the stage gives up all that belongs to the item; None if it does not

    def discard(self, item: Any, inner: str, reason: str) -> None:
        """Give up an item of the inner run, for its own reason unless the whole of it is given up."""
        chain, name = self._stage.chain, f"{self._stage.name}{INSIDE}{inner}"
        chain.created += 1
        if reason in DROPS:
            chain.dropped += 1
            chain.host.ledger.drop(item, name, reason)
        else:
            chain.discarded += 1
            chain.host.ledger.discard(item, name, self._outer_reason() or reason)

    def keep_errors(self, report: Report, raised: BaseException | None) -> None:
        """Keep the errors in the inner run's report, except `raised`, which it has raised in the stage already."""
        ledger = self._stage.chain.host.ledger
        for error in report.cleanup_errors:
            ledger.keep(error)
        ledger.cleanup_error_count += report.cleanup_error_count - len(report.cleanup_errors)
        if report.error is not None and report.error is not raised:
            ledger.keep(report.error)
        for stage in report.stages:
            self._stage.chain.failures.update(dict(stage.failures))
        self._stage.chain.failures.update(each.failure for each in report.inputs if each.failure is not None)
