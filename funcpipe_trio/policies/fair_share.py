"""How do inputs share a consumer? By their weights, their capacity, and what one item costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from .._base import checks
from .._base.frozen import dataclass
from .._base.shown import named

__all__ = ["FairShare"]


K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class FairShare(Generic[K]):
    """How much of a consumer each input gets while it competes with others.

    An input of weight 3 gets three times the service of an input of weight 1 while both have items. Shares stay exact
    forever, so weights are exact numbers; only their ratios matter, not their unit.

    Args:
      weights: weight of each input, by its key: an int or Fraction > 0. Copied; read-only afterwards.
      default_weight: weight of an input that ``weights`` does not name: an int or Fraction > 0.
      capacity: items that each input may hold, an int >= 1. One is enough for the shares; more lets a consumer take
        several items per wake-up.
      cost: ``cost(item)`` is the service that one item uses, an int or Fraction > 0; a sync function. Without it
        every item costs 1. Costs are counted exactly while their common denominator has at most 1024 bits; a cost
        that would need more is rounded up, by less than ``2**-1023``.

    Raises:
      TypeError: if an argument has a wrong type; this includes a float weight, which is not exact.
      ValueError: if an argument is out of range.
    """

    weights: Mapping[K, int | Fraction] = field(default_factory=dict)
    _: KW_ONLY
    default_weight: int | Fraction = 1
    capacity: int = 16
    cost: Callable[[Any], int | Fraction] | None = None  # Any: items are opaque

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping):
            raise checks.refuse(TypeError, "FairShare", "weights", "be a mapping of keys to weights", self.weights)
        weights = {
            key: checks.weight("FairShare", f"weights[{named(key)}]", weight) for key, weight in self.weights.items()
        }
        object.__setattr__(self, "weights", MappingProxyType(weights))
        checks.weight("FairShare", "default_weight", self.default_weight)
        checks.integer("FairShare", "capacity", self.capacity, at_least=1)
        if self.cost is not None:
            checks.sync_callable("FairShare", "cost", self.cost)

    def __hash__(self) -> int:
        return hash((frozenset(self.weights.items()), self.default_weight, self.capacity))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (dict(self.weights), self.default_weight, self.capacity, self.cost)

    def weight_of(self, key: K) -> int | Fraction:
        """Return the weight of one input: the one given for its key, or the default.

        Args:
          key: the key of the input; any hashable value.

        Checkpoint: never (sync).
        """
        return self.weights.get(key, self.default_weight)


def _remade(weights: dict[Any, Any], default_weight: Any, capacity: int, cost: Any) -> FairShare[Any]:
    """Make a copy; a read-only mapping cannot be copied or pickled."""
    return FairShare(weights, default_weight=default_weight, capacity=capacity, cost=cost)
