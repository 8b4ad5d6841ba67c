"""How many items may fail before the stream must end? Asked at each failed item, in the order of the stream.

The rule: more than `max_failures` is too many; so is more than `max_ratio` of all items so far, once there are
`min_items`. The failure that exceeds a limit is the one that ends the stream.
"""

from __future__ import annotations

from ..policies.on_error import Skip


class Tolerance:
    """The count of one stage under `OnError.skip`."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._failures = 0

    def failed(self, items: int) -> str | None:
        """Count a failed item; return None, or the note for its error that says which limit it exceeded.

        Args:
          items: the number of items so far, including this one.
        """
        self._failures += 1
        skip, counts = self._skip, f"{self._failures} of {items} items failed"
        if skip.max_failures is not None and self._failures > skip.max_failures:
            return f"{counts}, more than max_failures={skip.max_failures}"
        if skip.max_ratio is not None and items >= skip.min_items and self._failures / items > skip.max_ratio:
            return f"{counts}, more than max_ratio={skip.max_ratio:g}"
        return None
