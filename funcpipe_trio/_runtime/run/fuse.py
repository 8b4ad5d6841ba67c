"""Which running form an operation has when it is fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._plan import operations as plan
from ..._plan.fair_by import FairBy
from ..._plan.windows import Distinct, Sliding, Window
from ..junctions import fan_out
from ..operations import fused
from ..operations.fused import FusedOperation
from ..stages.gate import Gate

_FORMS: dict[type[plan.Operation], Callable[[Any], FusedOperation]] = {
    plan.Map: fused.Mapping,
    plan.Filter: fused.Filtering,
    plan.Scan: fused.Scanning,
    plan.Tap: fused.Tapping,
    plan.Enumerate: fused.Enumerating,
    plan.Take: fused.Taking,
    plan.Skip: fused.Skipping,
    plan.TakeWhile: fused.TakingWhile,
    plan.SkipWhile: fused.SkippingWhile,
    plan.Route: fan_out.Routing,
    FairBy: Gate,
}


def _rarer() -> dict[type[plan.Operation], Callable[[Any], FusedOperation]]:
    # When they are needed, see `build`.
    from ..operations import regroup, windows

    return {
        plan.FlatMap: regroup.Expanding,
        plan.Batch: regroup.Batching,
        plan.Unbatch: regroup.Unbatching,
        Window: windows.Windowing,
        Sliding: windows.SlidingOver,
        Distinct: windows.Distinguishing,
    }


def fuse(operation: plan.Operation) -> FusedOperation:
    """Make the running form of an operation; fresh for each run."""
    kind = type(operation)
    form = _FORMS[kind] if kind in _FORMS else _rarer()[kind]
    return form(operation)
