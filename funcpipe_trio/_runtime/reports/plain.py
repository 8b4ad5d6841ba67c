"""A snapshot as plain JSON values, for dashboards, logs and files.

The rule: only counts, times, and names that stand in the plan. No item, no key of an item and no text of an error is in
it: a key of a `fair_by` is told as its rank, an error as the name of its type, unless the caller passes a function for
keys. Exact numbers that are not integers become floats.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields
from fractions import Fraction
from typing import Any, Final

from .counts import InputReport, Latency

VERSION: Final = 1
"""Of the form; it changes when a name goes or means something else, not when one is added."""
Keys = Callable[[Hashable], str]


def plain(value: Any) -> Any:
    """Return a frozen value, or a part of one, as plain JSON values; what begins with an underscore is left out."""
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    if isinstance(value, Latency):
        return {name: getattr(value, name) for name in ("count", "p50", "p90", "p99", "max")}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if hasattr(type(value), "__dataclass_fields__"):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value) if not each.name.startswith("_")}
    return value


def plain_inputs(inputs: tuple[InputReport, ...], keys: Keys | None) -> list[dict[str, Any]]:
    """Return inputs, branches and keys; the key of a `fair_by` as ``keys(key)``, or as its rank by cost, from 1."""
    ranks: dict[str, int] = {}
    told = []
    for each in inputs:
        ranks[each.merge] = ranks.get(each.merge, 0) + 1
        rest = {name: plain(getattr(each, name)) for name in type(each).__slots__ if name != "key"}
        if each.kind != "fair_by":  # its inputs are named in the plan
            key = each.key if isinstance(each.key, str | int) else ranks[each.merge]
        else:
            key = f"#{ranks[each.merge]}" if keys is None else keys(each.key)
        told.append({**rest, "key": key})
    return told
