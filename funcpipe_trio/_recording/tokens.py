"""Items of a simulation, and which sample each takes: how long did the same item take when it was recorded?

A token knows its origin: the source, its number there, and which child of a child it is; a function that gives one
value for one passes its token on. The n-th call of a function takes what the n-th call took in the recording. That
repeats the recorded run exactly. Under other settings items come in another order, and a slow item should stay slow; so
the recording is first played as it was, to learn which sample belongs to which token, and then each token takes its own
(`Lore`).
"""

from __future__ import annotations

from random import Random
from typing import Any

from ..policies.on_error import Failure
from .recording import Place
from .tapes import Kept, Sample


class Token:
    """An item of a simulation: where it is from, and nothing else."""

    __slots__ = ("path",)

    def __init__(self, path: tuple[Any, ...]) -> None:
        self.path: tuple[Any, ...] = path  # its source, its number there, and the numbers of its children


class Lore:
    """Which sample belongs to which token, by what it is a sample of."""

    def __init__(self) -> None:
        self.learned: dict[Place, dict[Any, Sample]] = {}  # in this simulation
        self.known: dict[Place, dict[Any, Sample]] = {}  # from one before

    def followed(self) -> Lore:
        """Return the lore of the next simulation, which knows what this one has learned."""
        next_one = Lore()
        next_one.known = self.learned
        return next_one


_DEFAULTS: dict[str, Any] = {"calls": 0.0, "answers": True, "children": [0.0], "counts": 0, "dues": None, "holds": 0.0}
"""What happens where the recording has no sample, because nothing was ever called."""


class Reader:
    """Returns the sample for one call after the other."""

    def __init__(self, place: Place, kept: Kept | None, lore: Lore, chance: Random) -> None:
        self._kept = kept if kept is not None and kept.samples else None  # the samples; None if there are none
        self._default = _DEFAULTS[place.role]  # the sample where there are none
        self._chance = chance  # decides between samples
        self._number = 0  # of the next call
        self._known = lore.known.get(place)  # samples by origin; None if nothing is known
        self._learned: dict[Any, Sample] | None = None  # likewise, of this simulation; None if it is not to be kept
        if kept is not None and kept.is_whole:
            self._learned = lore.learned.setdefault(place, {})

    @property
    def seen(self) -> int:
        """How many calls were recorded."""
        return 0 if self._kept is None else self._kept.seen

    def next(self, item: Any, number: int | None = None) -> Sample:
        """Return the sample for a call with an item.

        Args:
          item: a token, or what is made of tokens.
          number: of the item, from 0; None if calls come in the order of the items.
        """
        if number is None:
            number, self._number = self._number, self._number + 1
        if self._kept is None:
            return self._default
        origin = origin_of(item)
        if self._known is not None and origin in self._known:
            return self._known[origin]
        sample = self._kept.at(number, self._chance)
        if self._learned is not None and origin is not None:
            self._learned[origin] = sample
        return sample


def origin_of(item: Any) -> Any:
    """Return where an item is from: of several together, where the first is."""
    while not isinstance(item, Token):
        if isinstance(item, Failure):
            item = item.item
        elif isinstance(item, dict):  # of what zipped branches gave
            item = (*item.values(),)
        elif isinstance(item, list | tuple) and item:
            item = next((each for each in item if not isinstance(each, int | str)), None)
        else:
            return None
    return item.path
