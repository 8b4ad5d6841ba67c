"""Each rule of `checks`: what it accepts is returned unchanged, what it refuses is reported with the value."""

import math
import re
import sys
from fractions import Fraction
from functools import partial

import pytest

from funcpipe_trio._base import checks
from funcpipe_trio._base.shown import shown


def refusal(error, message):
    """Expect this error, and its whole message."""
    return pytest.raises(error, match=rf"^{re.escape(message)}$")


def test_a_refusal_ends_with_the_usual_fix_if_there_is_one():
    plain = checks.refuse(ValueError, "map 'f'", "limit", "be even", 3)
    helped = checks.refuse(TypeError, "map 'f'", "limit", "be even", "3", "Use int(limit).")

    assert (type(plain), str(plain)) == (ValueError, "map 'f': limit must be even, not 3")
    assert (type(helped), str(helped)) == (
        TypeError,
        "map 'f': limit must be even, not a str of length 1\nUse int(limit).",
    )


def test_an_int_may_be_the_least_one():
    assert [checks.integer("here", "n", value, at_least=2) for value in (2, 3, sys.maxsize)] == [2, 3, sys.maxsize]


@pytest.mark.parametrize("value", [True, False, 2.0, "2", None])
def test_what_is_no_int_is_a_type_error(value):
    """A bool is not a number here, and a float is none that counts."""
    with refusal(TypeError, f"here: n must be an int >= 0, not {shown(value)}"):
        checks.integer("here", "n", value, at_least=0)


def test_an_int_that_can_be_no_length_is_a_value_error():
    with refusal(ValueError, f"here: n must be <= sys.maxsize, {sys.maxsize}, not {sys.maxsize + 1}"):
        checks.integer("here", "n", sys.maxsize + 1, at_least=2)


@pytest.mark.parametrize("value", [10**309, Fraction(1, 10**309), Fraction(10**309, 3)], ids=["large", "small", "long"])
def test_a_weight_that_cannot_be_printed_is_a_value_error(value):
    with refusal(ValueError, f"here: w must have a numerator and a denominator < 1e308, not {shown(value)}"):
        checks.weight("here", "w", value)


def test_an_int_below_the_least_one_is_a_value_error():
    with refusal(ValueError, "here: n must be >= 2, not 1"):
        checks.integer("here", "n", 1, at_least=2)


def test_an_int_of_any_size_comes_back():
    assert [checks.any_integer("here", "n", value) for value in (-(10**20), 0, 3)] == [-(10**20), 0, 3]


@pytest.mark.parametrize("value", [True, 2.0, "2", None])
def test_what_is_no_int_of_any_size_is_a_type_error(value):
    with refusal(TypeError, f"here: n must be an int, not {shown(value)}"):
        checks.any_integer("here", "n", value)


def test_a_bool_comes_back():
    assert [checks.boolean("here", "flag", value) for value in (True, False)] == [True, False]


@pytest.mark.parametrize("value", [0, 1, "", None, []])
def test_what_is_merely_true_or_false_is_a_type_error(value):
    with refusal(TypeError, f"here: flag must be a bool, not {shown(value)}"):
        checks.boolean("here", "flag", value)


def test_a_number_may_be_its_limit_unless_it_must_be_above_it():
    assert checks.number("here", "x", 2, at_least=2) == 2
    assert checks.number("here", "x", 2, at_most=2) == 2
    assert checks.number("here", "x", 2.000001, above=2) == 2.000001
    assert checks.number("here", "x", -1e308) == -1e308


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        ({"at_least": 2}, 1.999, ">= 2"),
        ({"above": 2}, 2, "> 2"),
        ({"above": 2}, -3, "> 2"),
        ({"at_most": 0.5}, 0.501, "<= 0.5"),
        ({"at_least": 0, "at_most": 1}, -0.1, ">= 0 and <= 1"),
        ({"at_least": 0, "at_most": 1}, 1.1, ">= 0 and <= 1"),
        ({"above": 0, "at_most": 1}, 0, "> 0 and <= 1"),
        ({"at_least": 0}, math.inf, ">= 0"),
        ({"at_most": 0}, -math.inf, "<= 0"),
        ({"above": 0}, math.nan, "> 0"),
        ({"above": 0}, 10**400, "> 0"),
    ],
)
def test_a_number_outside_of_its_limits_is_a_value_error(limits, value, rule):
    """All limits are named, whichever was broken; infinity and NaN are refused."""
    with refusal(ValueError, f"here: x must be a finite number {rule}, not {shown(value)}"):
        checks.number("here", "x", value, **limits)


def test_a_number_without_limits_is_finite_all_the_same():
    assert checks.number("here", "x", 10**300) == 10**300
    with refusal(ValueError, "here: x must be a finite number, not nan"):
        checks.number("here", "x", math.nan)


@pytest.mark.parametrize("value", [True, "1", None, Fraction(1, 2)])
def test_what_is_no_number_is_a_type_error(value):
    with refusal(TypeError, f"here: x must be a finite number >= 0, not {shown(value)}"):
        checks.number("here", "x", value, at_least=0)


def test_seconds_come_back_as_a_float():
    times = [checks.seconds("here", "timeout", value) for value in (1, 0.5, 5e-324, 1e308)]

    assert times == [1.0, 0.5, 5e-324, 1e308]
    assert [type(time) for time in times] == [float] * 4


def test_no_time_at_all_and_for_ever_are_times_where_they_make_sense():
    assert checks.seconds("here", "delay", 0, positive=False) == 0
    assert [checks.seconds("here", "timeout", value, finite=False) for value in (math.inf, 10**400)] == [math.inf] * 2


@pytest.mark.parametrize("value", [True, "1", None, Fraction(1, 2)])
@pytest.mark.parametrize(("positive", "rule"), [(True, "> 0"), (False, ">= 0")])
def test_what_is_no_number_of_seconds_is_a_type_error(value, positive, rule):
    with refusal(TypeError, f"here: timeout must be a number of seconds {rule}, not {shown(value)}"):
        checks.seconds("here", "timeout", value, positive=positive)


@pytest.mark.parametrize("value", [0, -1, -5e-324, math.nan, math.inf, -math.inf, 10**400])
def test_seconds_are_positive_and_finite_unless_said_otherwise(value):
    with refusal(ValueError, f"here: timeout must be a number of seconds > 0, finite, not {shown(value)}"):
        checks.seconds("here", "timeout", value)


@pytest.mark.parametrize("value", [-1, -5e-324, math.nan, -math.inf])
def test_seconds_are_never_negative(value):
    with refusal(ValueError, f"here: timeout must be a number of seconds >= 0, not {shown(value)}"):
        checks.seconds("here", "timeout", value, positive=False, finite=False)


def test_a_text_is_not_empty():
    assert checks.text("here", "name", " ") == " "
    with refusal(ValueError, "here: name must not be empty, not ''"):
        checks.text("here", "name", "")
    with refusal(TypeError, "here: name must be a str, not a bytes of length 5"):
        checks.text("here", "name", b"fetch")


def test_a_mapping_comes_back():
    assert checks.mapping("here", "sizes", sizes := {"a": 1}, "names to sizes") is sizes
    with refusal(TypeError, "here: sizes must be a mapping of names to sizes, not a list of length 1"):
        checks.mapping("here", "sizes", [("a", 1)], "names to sizes")


def test_an_object_of_a_class_comes_back():
    """Of a subclass, too; what is none is a type error, and the class is called by its name."""
    assert checks.instance("here", "error", error := KeyError(3), LookupError) is error
    with refusal(TypeError, "here: error must be a LookupError, not 3"):
        checks.instance("here", "error", 3, LookupError)
    with refusal(TypeError, "here: error must be an OSError, not the type OSError\nUse OSError()."):
        checks.instance("here", "error", OSError, OSError, "Use OSError().")


def test_what_can_be_called_comes_back():
    assert checks.callable_("here", "fn", len) is len
    with refusal(TypeError, "here: fn must be callable, not a str of length 3"):
        checks.callable_("here", "fn", "len")


async def fetch(item):
    return item


async def pages(item):
    yield item


def size(item):
    return 1


@pytest.mark.parametrize("function", [size, len, partial(size, 1), str])
def test_a_function_that_answers_at_once_is_sync(function):
    assert checks.sync_callable("here", "fn", function) is function
    with refusal(TypeError, f"here: fn must be an async function, not {shown(function)}"):
        checks.async_callable("here", "fn", function)


@pytest.mark.parametrize("function", [fetch, partial(fetch, 1)])
def test_a_function_whose_answer_is_awaited_is_async(function):
    assert checks.async_callable("here", "fn", function) is function
    with refusal(TypeError, f"here: fn must be a sync function, not {shown(function)}"):
        checks.sync_callable("here", "fn", function)


def test_an_async_generator_function_is_neither():
    with refusal(TypeError, "here: fn must be a sync function, not the async generator function pages"):
        checks.sync_callable("here", "fn", pages)
    with refusal(TypeError, "here: fn must be None or async, not the async generator function pages"):
        checks.async_callable("here", "fn", pages, "be None or async")


def test_what_cannot_be_called_is_no_function():
    with refusal(TypeError, "here: fn must be callable, not 3"):
        checks.sync_callable("here", "fn", 3)
    with refusal(TypeError, "here: fn must be an async function, not 3"):
        checks.async_callable("here", "fn", 3)


@pytest.mark.parametrize("function", [lambda a, b: 1, lambda *all: 1, lambda a, b, c=3: 1, partial(size, item=1), max])
def test_a_function_that_takes_so_many_comes_back(function):
    """So does one written in C that does not say."""
    if isinstance(function, partial):
        assert checks.takes("here", "fn", function, 0) is function
    else:
        assert checks.takes("here", "fn", function, 2) is function


def test_a_function_that_takes_more_or_fewer_is_refused():
    with pytest.raises(TypeError, match=r"^here: fn must take 2 arguments: too many positional arguments$"):
        checks.takes("here", "fn", size, 2)
    with pytest.raises(TypeError, match=r"^here: fn must take 0 arguments: missing a required .*'item'$"):
        checks.takes("here", "fn", size, 0)


exact = pytest.mark.parametrize(("check", "name"), [(checks.weight, "weight"), (checks.cost, "cost")])


@exact
def test_exact_positive_numbers_come_back(check, name):
    values = [1, 10**30, Fraction(1, 10**30)]

    assert [check("here", name, value) for value in values] == values


@exact
@pytest.mark.parametrize("value", [0, -1, Fraction(0), Fraction(-1, 3)])
def test_what_is_not_positive_is_a_value_error(check, name, value):
    with refusal(ValueError, f"here: {name} must be a positive int or Fraction, not {shown(value)}"):
        check("here", name, value)


@exact
@pytest.mark.parametrize("value", [True, "1", None, 0.0, -0.5, math.nan, math.inf, -math.inf])
def test_what_is_not_exact_is_a_type_error(check, name, value):
    """Where no Fraction could be meant, none is proposed."""
    with refusal(TypeError, f"here: {name} must be a positive int or Fraction, not {shown(value)}"):
        check("here", name, value)


@exact
@pytest.mark.parametrize(
    ("value", "use"),
    [
        (0.5, "Fraction(1, 2)"),
        (1 / 3, "Fraction(1, 3)"),
        (2.0, "Fraction(2, 1)"),
        (0.001, "Fraction(1, 1000)"),
        (0.999, "Fraction(999, 1000)"),
        (1 / 1001, "Fraction(1, 1000)"),
        (2.0**-20, "Fraction(1, 1048576)"),
    ],
)
def test_a_float_is_told_the_simplest_fraction_near_it(check, name, value, use):
    """Denominators go up to 1000; a float with no such fraction near it is shown exactly."""
    with refusal(TypeError, f"here: {name} must be a positive int or Fraction, not {shown(value)}\nUse {use}."):
        check("here", name, value)
