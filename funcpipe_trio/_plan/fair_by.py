"""How is one mixed stream shared between its keys? `FairBy`, as data.

It decides nothing at run time: the queues are in `_runtime/links`, the choice between them in `_sansio`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from itertools import islice
from typing import Any, ClassVar, Literal, TypeAlias

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name
from .._base.shown import option, quoted
from ..policies.fair_share import FairShare
from ..policies.on_error import Divert
from .operations import Operation, check_share
from .steps import step_of

FairOverflow: TypeAlias = Literal["block", "drop_newest"] | Divert
"""What happens to an item whose key's queue is full."""

_MOST_WEIGHTS = 20
"""The most weights that a plan shows."""
_SAID = {"block": "blocks the stream", "drop_newest": "drops what is new"}


@dataclass(frozen=True, slots=True)
class FairBy(Operation):
    """Instead of the link at this point: a queue for each key, from which the next stage takes by weight."""

    verb: ClassVar[str] = "fair by"
    key: AnyFunction = field(hash=False)
    share: FairShare[Any]
    max_keys: int
    overflow: FairOverflow = "block"

    def __post_init__(self) -> None:
        checks.sync_callable(self.method, "key", self.key)
        Operation.__post_init__(self)
        check_share(self.method, self.share)
        checks.integer(self.method, "max_keys", self.max_keys, at_least=1)
        if not isinstance(self.overflow, Divert) and not (isinstance(self.overflow, str) and self.overflow in _SAID):
            kind = ValueError if isinstance(self.overflow, str) else TypeError
            rule = "be 'block', 'drop_newest' or OnError.divert(step)"
            raise checks.refuse(kind, self.method, "overflow", rule, self.overflow, show=option)

    @property
    def method(self) -> str:
        return "Pipeline.fair_by"

    @property
    def capacity(self) -> int:
        """How many items it holds: those in the queues, and one for which there is no room in them."""
        return self.max_keys * self.share.capacity + 1

    @property
    def waits(self) -> bool:
        """Whether the stage that fills it has to wait for a step, which a stage that waits for anything else cannot."""
        return isinstance(self.overflow, Divert)

    def describe(self) -> str:
        shown = function_name(self.key)
        alias = "" if self.name.partition("#")[0] == shown else f" as {self.name}"
        keys = "1 key" if self.max_keys == 1 else f"{self.max_keys} keys"
        items = "1 item" if self.share.capacity == 1 else f"{self.share.capacity} items"
        overflow = self.overflow
        full = f"gives it to {function_name(overflow.step)}" if isinstance(overflow, Divert) else _SAID[overflow]
        return f"{self.verb} {shown}{alias}: {self._shares()}, up to {keys} of {items}, a full queue {full}"

    def details(self) -> list[str]:
        step = step_of(self.overflow.step) if isinstance(self.overflow, Divert) else None
        return [] if step is None else step.lines()

    def problems(self) -> Iterator[str]:
        step = step_of(self.overflow.step) if isinstance(self.overflow, Divert) else None
        return iter(()) if step is None else step.problems()

    def _shares(self) -> str:
        share, weights = self.share, self.share.weights
        each = [f"{quoted(key)} {weight}" for key, weight in islice(weights.items(), _MOST_WEIGHTS)]
        more = [f"{len(weights) - _MOST_WEIGHTS} more"] if len(weights) > _MOST_WEIGHTS else []
        given = ", ".join([*each, *more, f"others {share.default_weight}"])
        said = f"shares by weight ({given})" if weights else "equal shares"
        return said if share.cost is None else f"{said}, an item costs {function_name(share.cost)}"
