"""What can be said of a function is said without calling it."""

import math
import types
from abc import ABC, abstractmethod
from functools import partial

import pytest

from funcpipe_trio._base.functions import function_name, is_async, never_awaitable, yields_async


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


class Future(Plain):
    def __await__(self):
        raise AssertionError("called")
        yield


class Factory(type):
    def __call__(cls, item):
        raise AssertionError("called")


class Made(metaclass=Factory):
    pass


def lines(item):
    raise AssertionError("called")
    yield


@types.coroutine
def waits(item):
    raise AssertionError("called")
    yield


@pytest.mark.parametrize("fn", [Plain, str, len, lines, partial(lines), partial(partial(len))])
def test_what_is_of_a_known_kind_is_never_to_be_awaited(fn):
    """A class, what is built in, a generator function."""
    assert never_awaitable(fn) is True


@pytest.mark.parametrize("fn", [plain, fetch, pages, Plain(), Fetch(), Future, Made, waits, math.sqrt, "".join, anext])
def test_of_all_others_nobody_knows_before_they_are_called(fn):
    """A plain function may give a coroutine, as may a metaclass, one written in C, or an old style of generator."""
    assert never_awaitable(fn) is False


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
