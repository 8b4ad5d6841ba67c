"""What can be said of a function is said without calling it."""

from abc import ABC, abstractmethod
from functools import partial

import pytest

from funcpipe_trio._base.functions import function_name, is_async, yields_async


def plain(item):
    raise AssertionError("called")


async def fetch(item):
    raise AssertionError("called")


async def pages(item):
    raise AssertionError("called")
    yield


class Plain:
    def __call__(self, item):
        raise AssertionError("called")

    async def fetch(self, item):
        raise AssertionError("called")


class Fetch(Plain):
    async def __call__(self, item):
        raise AssertionError("called")


class Inherited(Fetch):
    pass


class Abstract(ABC):
    @abstractmethod
    async def __call__(self, item):
        raise AssertionError("called")


class Pages:
    async def __call__(self, item):
        raise AssertionError("called")
        yield


ASYNC = [fetch, Fetch(), Inherited(), Plain().fetch, partial(fetch), partial(partial(Fetch()), 1)]
GENERATORS = [pages, Pages(), partial(pages), partial(Pages())]
SYNC = [plain, Plain(), len, str, Plain, Fetch, Pages, Abstract, partial(plain), lambda item: item]


@pytest.mark.parametrize("fn", [*ASYNC, *GENERATORS, *SYNC])
def test_a_function_is_async_if_its_call_gives_something_to_await(fn):
    """It may be hidden in a partial, or be the call of an object, inherited too; a class gives an object."""
    assert is_async(fn) == (fn in ASYNC)


@pytest.mark.parametrize("fn", [*ASYNC, *GENERATORS, *SYNC])
def test_an_async_generator_function_is_told_from_an_async_function(fn):
    assert yields_async(fn) == (fn in GENERATORS)


@pytest.mark.parametrize("value", [3, None, "fetch"])
def test_what_is_no_function_is_neither(value):
    assert (is_async(value), yields_async(value)) == (False, False)


def test_a_function_is_named_as_it_was_defined_and_an_object_after_its_class():
    names = [function_name(fn) for fn in (plain, partial(partial(fetch), 1), Fetch(), len, Plain, lambda item: item)]

    assert names == ["plain", "fetch", "Fetch", "len", "Plain", "<lambda>"]


def test_a_name_without_end_is_cut_and_one_that_is_no_text_is_none():
    """It stands in every error and report."""

    def long():
        pass

    class Odd:
        __name__ = 3

        def __call__(self):
            pass

    long.__name__ = "x" * 1000

    assert function_name(long) == "x" * 200
    assert function_name(Odd()) == "Odd"
