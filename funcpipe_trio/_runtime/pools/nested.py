"""A run inside another: what of it does the stage outside tell?

The pipeline that a function gives for an item is run in the worker that holds the item, as a block of its own: it
begins, ends, fails and is cancelled there, and nothing of it is left when the worker puts the item down. Its results
are the item's children, its failure is the item's.

Nothing of the rest is silent. What it gives up is told to the outer `on_discard`, under both names, and counts with the
stage outside as a child that came and was discarded, or dropped, if that is what a policy of overflow did; errors that
nobody got are kept with those of the outer run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from ..._plan.operations import Overflow
from ..reports.report import Report
from .pool import Pool

INSIDE: Final = " > "
"""Between the names of a stage and of one in the run inside it."""
_POLICIES = get_args(Overflow)


class NestedRun:
    """Takes what an inner run gives up, and in the end its report, into the books of the stage outside."""

    def __init__(self, stage: Pool, outer_reason: Callable[[], str | None]) -> None:
        self._stage = stage
        self._outer_reason = outer_reason
        """Why the stage gives up all that belongs to the item; None if it does not."""

    def discard(self, item: Any, inner: str, reason: str) -> None:
        """Give up an item of the inner run, for its own reason unless the whole of it is given up."""
        chain, name = self._stage.chain, f"{self._stage.name}{INSIDE}{inner}"
        chain.created += 1
        if reason in _POLICIES:
            chain.dropped += 1
            chain.host.ledger.drop(item, name, reason)
        else:
            chain.discarded += 1
            chain.host.ledger.discard(item, name, self._outer_reason() or reason)

    def close(self, report: Report, raised: BaseException | None) -> None:
        """Keep what the inner run says of its errors; `raised` is what it gave its stage already."""
        ledger = self._stage.chain.host.ledger
        for error in report.cleanup_errors:
            ledger.keep(error)
        ledger.cleanup_error_count += report.cleanup_error_count - len(report.cleanup_errors)
        if report.error is not None and report.error is not raised:
            ledger.keep(report.error)
        for stage in report.stages:
            self._stage.chain.failures.update(dict(stage.failures))
