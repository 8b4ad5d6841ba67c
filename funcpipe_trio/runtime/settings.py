"""What can be changed while a run is at work, besides ending it: weights, and how many calls a stage makes at once.

Each is a number that the next choice reads, so a change interrupts nothing: what was handed over stays handed over,
calls that run go on.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction
from typing import Any

from ..policies import _check
from .engine import Engine
from .fan_in import MergeInlet
from .pool import Pool

__all__ = ["set_concurrency", "set_weight"]


def set_weight(engine: Engine, key: Hashable, weight: Any, merge: str | None) -> None:
    """Give an input of a merge another weight."""
    exact: int | Fraction = _check.weight("Run.set_weight", "weight", weight)
    merges = [each for each in engine.machinery.fan_ins if isinstance(each, MergeInlet)]
    if merge is not None:
        merges = [each for each in merges if each.name == merge]
        if not merges:
            raise KeyError(f"Run.set_weight: no merge is named {merge!r}; the merges are {_merges(engine)}")
    having = [each for each in merges if key in each.input_keys()]
    if not having:
        known = "; ".join(f"{each.name}: {', '.join(map(repr, each.input_keys()))}" for each in merges)
        raise KeyError(f"Run.set_weight: no input is named {key!r}; the inputs are {known or 'none'}")
    if len(having) > 1:
        names = ", ".join(repr(each.name) for each in having)
        raise ValueError(f"Run.set_weight: several merges have an input {key!r}: {names}\nUse merge= to name one.")
    having[0].set_weight(key, exact)


def _merges(engine: Engine) -> str:
    names = [repr(each.name) for each in engine.machinery.fan_ins if isinstance(each, MergeInlet)]
    return ", ".join(names) or "none"


def set_concurrency(engine: Engine, stage: str, concurrency: int) -> None:
    """Let a stage make more, or fewer, calls at once."""
    _check.integer("Run.set_concurrency", "concurrency", concurrency, at_least=1)
    pools = {each.name: each for each in engine.stages if isinstance(each, Pool)}
    if stage not in pools:
        known = ", ".join(map(repr, pools)) or "none"
        raise KeyError(f"Run.set_concurrency: no stage named {stage!r} makes calls; those that do are {known}")
    pools[stage].set_concurrency(concurrency)
