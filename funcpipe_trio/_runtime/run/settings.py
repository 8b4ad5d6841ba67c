"""What can be changed while a run goes on? Weights, and how many calls a stage makes at once.

Each is a number that the next choice reads, so a change interrupts nothing: what was handed over stays handed over,
calls that run go on.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction
from typing import Any

from ..._base import checks
from ..._base.shown import cut, escaped, listed, named, option
from ..junctions.fan_in import MergeInlet
from ..links.fair_link import FairLink
from ..pools.pool import Pool
from .engine import Engine

Weighted = MergeInlet | FairLink

_LONGEST = 400  # characters of the list of inputs in an error


def set_weight(engine: Engine, key: Hashable, weight: Any, merge: str | None) -> None:
    """Change the weight of an input of a merge, or of a key of a `fair_by`."""
    exact: int | Fraction = checks.weight("Run.set_weight", "weight", weight)
    checks.hashable("Run.set_weight", "key", key)
    everything = _weighted(engine)
    meant = [each for each in everything if merge is None or each.name == merge]
    if not everything:
        raise KeyError("Run.set_weight: this run has no merge and no fair_by, so there are no weights")
    if not meant:
        names = listed(each.name for each in everything)
        raise KeyError(f"Run.set_weight: no merge is named {option(merge)}; the merges are {names}")
    having = [each for each in meant if isinstance(each, FairLink) or key in each.input_keys()]
    if not having:
        known = cut("; ".join(f"{escaped(each.name)}: {_keys(each)}" for each in meant), _LONGEST)
        raise KeyError(f"Run.set_weight: no input is named {option(key)}; the inputs are {known}")
    if len(having) > 1:
        names = listed(each.name for each in having)
        raise ValueError(
            f"Run.set_weight: several merges may have an input {named(key)}: {names}\nUse merge= to name one."
        )
    having[0].set_weight(key, exact)


def _weighted(engine: Engine) -> list[Weighted]:
    """Return all parts that share by weight."""
    parts = engine.parts
    merges: list[Weighted] = [each for each in parts.fan_ins if isinstance(each, MergeInlet) and each.has_shares]
    return merges + [link for link in parts.links if isinstance(link, FairLink)]


def _keys(weighted: Weighted) -> str:
    return "any" if isinstance(weighted, FairLink) else listed(weighted.input_keys())


def set_concurrency(engine: Engine, stage: str, concurrency: int) -> None:
    """Let a stage make more, or fewer, calls at once."""
    checks.integer("Run.set_concurrency", "concurrency", concurrency, at_least=1)
    pools = {each.name: each for each in engine.stages if isinstance(each, Pool)}
    if stage not in pools:
        known = listed(pools)
        raise KeyError(f"Run.set_concurrency: no stage named {option(stage)} makes calls; those that do are {known}")
    if pools[stage].adapting is not None:
        raise ValueError(
            f"Run.set_concurrency: stage must have a number as its concurrency; that of {named(stage)} is an Adaptive, "
            "which chooses it\nUse concurrency=n in the plan, or another minimum and maximum of its Adaptive."
        )
    pools[stage].set_concurrency(concurrency)
