"""What does a stream send while nothing comes? Items that a function makes, when the stage says that it is time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._plan.timing import KeepAlive, Watched
from ..core.signals import END, NO_ITEM, PENDING
from .gate import Gate


class KeepAliveOp(Gate):
    """Passes values on, and one that a function makes whenever it is due."""

    def __init__(self, operation: Watched) -> None:
        super().__init__(operation)
        assert isinstance(operation, KeepAlive)
        self._make = operation.fn  # makes an item
        self.is_due = False  # the next value is one that it makes

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        while True:
            if self.is_due:
                yield self._made()
            value = next(values, END)
            if value is END:
                return
            self.heard = self.heard or value is not PENDING
            yield value

    def _made(self) -> Any:
        self.is_due, self.heard = False, True
        try:
            made = self._make()
            self.vet(made)
        except BaseException as error:  # noqa: ASYNC103  # `failing` raises
            self.chain.failing(error, self.name, self.created, NO_ITEM)
        self.created += 1
        return made
