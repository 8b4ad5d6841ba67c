"""How values, names, keys and errors are shown: briefly, without a look into them, and fit for a terminal."""

import asyncio
from collections import namedtuple
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial

import pytest

from funcpipe_trio._base.shown import escaped, label, listed, named, option, quoted, shown, told


class Hostile:
    """Refuses to be looked into."""

    def _refuse(self, *_args):
        raise AssertionError("it was looked into")

    __repr__ = __str__ = __len__ = __iter__ = __bool__ = __eq__ = __hash__ = __format__ = _refuse


class Liar(type):
    """A metaclass that says what its classes are called."""

    __name__ = property(lambda cls: "x" * 10**6)


class Told(metaclass=Liar):
    pass


class Color(Enum):
    RED = "card 4111"


class Number(int):
    def __repr__(self):
        return "card 4111"


Pair = namedtuple("Pair", "a b")


def fetch(item):
    return item


async def embed(item):
    return item


async def pages(item):
    yield item


ODD = type("\x1b[2J" + "x" * 100, (), {})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (-3, "-3"),
        (2**128 - 1, str(2**128 - 1)),
        (2**128, "an int of 129 bits"),
        (10**5000, "an int of 16610 bits"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        (1j, "1j"),
        (Fraction(1, 3), "Fraction(1, 3)"),
        (Fraction(1, 10**400), "a Fraction of 1329 bits"),
        (Decimal("1.5"), "a Decimal"),
        (Number(3), "a Number"),
        ("card 4111", "a str of length 9"),
        ("", "a str of length 0"),
        (b"card", "a bytes of length 4"),
        ([1] * 10**6, "a list of length 1000000"),
        (("card",), "a tuple of length 1"),
        ({"card": 4111}, "a dict of length 1"),
        ({1, 2}, "a set of length 2"),
        (range(9), "a range of length 9"),
        (Pair(1, 2), "a Pair"),
        (int, "the type int"),
        (OSError, "the type OSError"),
        (OSError("card"), "an OSError"),
        (fetch, "the function fetch"),
        (lambda: 1, "the function <lambda>"),
        (len, "the function len"),
        ("".join, "the function join"),
        (partial(fetch, "card"), "the function fetch"),
        (embed, "the async function embed"),
        (partial(partial(embed), 1), "the async function embed"),
        (pages, "the async generator function pages"),
        (pages(1), "an async_generator"),
        (iter([1]), "a list_iterator"),
        (Hostile(), "a Hostile"),
        (Color.RED, "a Color"),
        (Told(), "a Told"),
        (Told, "the type Told"),
        (ODD(), "a \\x1b[2J" + "x" * 50 + "..."),
        (asyncio, "a module"),
    ],
    ids=lambda _: "",
)
def test_a_value_is_shown_by_what_it_is(value, words):
    """Numbers and the like by themselves, functions and types by name, all others by type and size."""
    assert shown(value) == words


def test_a_word_where_one_of_a_few_is_asked_for_is_shown():
    assert [option(value) for value in ("drop", "a\nb", "x" * 40, "x" * 41, 3)] == [
        "'drop'",
        "'a\\nb'",
        repr("x" * 40),
        "a str of length 41",
        "3",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embed", "'embed'"),
        ("x" * 200, f"'{'x' * 57}...'"),
        ("x" * 201, "a str of length 201"),
        ("\x1b]0;title\x07", "'\\x1b]0;title\\x07'"),
        ("x" * 60, repr("x" * 60)),
        ("x" * 61, f"'{'x' * 57}...'"),
        (7, "7"),
        (None, "None"),
        (("tenant", "stream"), "('tenant', 'stream')"),
        (("one",), "('one',)"),
        ((), "()"),
        (("a", (1, 2), Hostile()), "('a', a tuple of length 2, a Hostile)"),
        (tuple(range(5)), "(0, 1, 2, 3, 4)"),
        (tuple(range(9)), "(0, 1, 2, 3, 4, ...)"),
        (Color.RED, "Color.RED"),
        (Hostile(), "a Hostile"),
        (Fraction(1, 2), "Fraction(1, 2)"),
    ],
    ids=lambda _: "",
)
def test_a_name_is_shown_in_quotes(name, words):
    assert named(name) == words


def test_of_many_names_the_first_are_shown():
    assert listed([]) == "none"
    assert listed(["a", 1]) == "'a', 1"
    assert listed(map(str, range(10**5))) == ", ".join(f"'{n}'" for n in range(41)) + ", and 99959 more"
    assert listed(["x" * 56] * 4) == ", ".join([repr("x" * 56)] * 4)  # the very 240 characters
    assert listed(["x" * 56] * 3 + ["x" * 57]) == ", ".join([repr("x" * 56)] * 3) + ", and 1 more"
    assert listed("x" * 99 for _ in range(9)) == ", ".join([repr("x" * 57 + "...")] * 3) + ", and 6 more"
    assert len(listed([("x" * 99,) * 9] * 9)) < 400


class Tenant:
    def __init__(self, says):
        self.says = says

    def __str__(self):
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.mark.parametrize(
    ("key", "words", "in_quotes"),
    [
        ("big", "big", "'big'"),
        ("a\nb", "a\nb", "'a\\nb'"),
        ("x" * 99, "x" * 57 + "...", f"'{'x' * 57}...'"),
        ("x" * 201, "x" * 57 + "...", "a str of length 201"),
        (3, "3", "3"),
        (10**5000, "an int of 16610 bits", "an int of 16610 bits"),
        (("a", 1), "('a', 1)", "('a', 1)"),
        (("a", Hostile()), "('a', a Hostile)", "('a', a Hostile)"),
        (Color.RED, "Color.RED", "Color.RED"),
        (Tenant("acme"), "acme", "acme"),
        (Tenant("x" * 10**7), "x" * 57 + "...", "x" * 57 + "..."),
        (Tenant(OSError("card")), "a Tenant", "a Tenant"),
        (Tenant(None), "a Tenant", "a Tenant"),
        (object(), "an object", "an object"),
    ],
    ids=lambda _: "",
)
def test_a_key_is_shown_to_people_as_it_calls_itself(key, words, in_quotes):
    """Never an address, and not without end; what cannot be printed is left to the caller that puts it into a line."""
    assert (label(key), quoted(key)) == (words, in_quotes)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain, ünïcode 日本 🙂 'quotes' \\", "plain, ünïcode 日本 🙂 'quotes' \\"),
        ("\x1b[31m\x07\x9b", "\\x1b[31m\\x07\\x9b"),
        ("a\nb\r\tc\x7f", "a\\nb\\r\\tc\\x7f"),
        ("ünïcode \\ 日本\n", "ünïcode \\ 日本\\n"),
        ("\u2028\u202e\u200b\xa0", "\\u2028\\u202e\\u200b\\xa0"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_cannot_be_printed_is_written_as_python_writes_it(text, written):
    assert escaped(text) == written


def test_what_an_error_says_is_told_in_one_line():
    class Broken(Exception):
        def __str__(self):
            raise OSError

    assert told(KeyError("a")) == "KeyError: 'a'"
    assert told(ValueError()) == "ValueError: "
    assert told(ValueError("a\n\x1bb")) == "ValueError: a\\n\\x1bb"
    assert told(ValueError("x" * 10**7)) == f"ValueError: {'x' * 497}..."
    assert told(Broken()) == "Broken: (its text cannot be shown)"
