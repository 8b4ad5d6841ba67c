"""Where public classes say that they are from, and what their annotations mean there.

Mutants that die here: a class behind a function that is left out; annotations that mean something elsewhere only.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, get_type_hints

from funcpipe_trio._base.published import publish


def faces():
    """A function, a class with annotations whose names only this file knows, and one without."""

    def helper():
        raise AssertionError("called")

    class Price:
        amount: Decimal
        currency: ClassVar[str] = "EUR"

    class Bare:
        pass

    return {"helper": helper, "Price": Price, "number": 3, "Bare": Bare}


def test_classes_say_that_they_are_from_where_they_are_found():
    """All that are classes, and nothing else."""
    names = faces()
    publish(names, "shop")

    assert (names["Price"].__module__, names["Bare"].__module__) == ("shop", "shop")
    assert (names["helper"].__module__, names["number"]) == (__name__, 3)


def test_annotations_mean_what_they_meant_where_they_were_written():
    """In a module that has none of their names."""
    names = faces()
    publish(names, "math")

    assert get_type_hints(names["Price"]) == {"amount": Decimal, "currency": ClassVar[str]}
    assert get_type_hints(names["Bare"]) == {}
