"""What a ``Retry-After`` header says, wherever it is; and that nothing in it can do harm.

Mutants that die here: a date in the past as a wait below 0, or as None; seconds that are read as Python reads numbers
(1_0, 1e3, nan, other digits); a date in local time; a name that is found in one case only; an odd header, or an object
that raises when it is asked, as an error; the first of a group in the place of the longest; a date by trio's clock.
"""

import io
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from email.utils import format_datetime
from http.client import parse_headers
from urllib.error import HTTPError

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import Backoff, Retry, Step, retry_after_header
from funcpipe_trio.testing import run_virtual

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
FORMS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
"""The three of RFC 9110, 5.6.7."""


class Response:
    """Has headers, as a response of httpx, requests or aiohttp does."""

    def __init__(self, headers):
        self.headers = headers


class StatusError(Exception):
    """Has a response, as those of httpx and requests do."""

    def __init__(self, headers):
        super().__init__("status")
        self.response = Response(headers)


class NoCase(Mapping):
    """Headers whose names are found in any case, as those of most clients."""

    def __init__(self, headers):
        self._headers = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name):
        return self._headers[name.lower()]

    def __iter__(self):
        return iter(self._headers)

    def __len__(self):
        return len(self._headers)


def http_error(value):
    headers = Message()
    headers["Retry-After"] = value
    return HTTPError("http://localhost", 429, "slow down", headers, None)


def http_headers(value):
    return parse_headers(io.BytesIO(f"Host: x\r\nretry-after: {value}\r\n\r\n".encode()))


CARRIERS = {
    "a value": lambda value: value,
    "bytes": lambda value: value.encode(),
    "headers": lambda value: {"Retry-After": value},
    "headers in lower case": lambda value: {"Host": "x", "retry-after": value},
    "headers of bytes": lambda value: {b"RETRY-AFTER": value.encode()},
    "headers without case": lambda value: NoCase({"rEtry-aFter": value}),
    "a response": lambda value: Response({"Retry-After": value}),
    "headers of email": lambda value: http_error(value).headers,
    "headers of http.client": http_headers,
    "an error of urllib": http_error,
    "an error with a response": lambda value: StatusError({"retry-after": value}),
    "a group": lambda value: ExceptionGroup("", [OSError(), ExceptionGroup("", [StatusError({"Retry-After": value})])]),
}  # fmt: skip


class Asked:
    """Has a method of that name that means something else, as a client does."""

    def get(self, url):
        raise AssertionError("it is no mapping")


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), (" 1.5 ", 1.5), ("Sun, 06 Nov 1994 08:49:57 GMT", 20), ("soon", None), ("-1", None)],
)
def test_it_is_found_wherever_it_is(carrier, value, seconds):
    assert retry_after_header(CARRIERS[carrier](value), now=NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "1_0", "1e3", "nan", "inf", "9" * 400, "+1", "0x1", "1,5", "5, 10", "\u0661\u0662", "120 seconds"),
        *("2024-01-01T00:00:00Z", "Sun, 06 Nov 1994 25:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -9999", b"\xff"),
        *(
            -1,
            -0.5,
            float("nan"),
            float("inf"),
            10**400,
            True,
            None,
            [5],
            object(),
            ValueError("5"),
            {},
            Message(),
            Asked(),
        ),
        *({"Retry-After": None}, {None: "5", 3: 4}, Response(None), Response(["Retry-After: 5"]), StatusError(None)),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_says_nothing_clear_is_none(value):
    assert retry_after_header(value, now=NOW) is None


def test_an_odd_name_hides_nothing():
    assert retry_after_header({None: "1", 3: "2", b"x": "3", "retry-AFTER": "7"}) == 7


class Hostile:
    """Raises whatever it is asked."""

    def __getattr__(self, name):
        raise RuntimeError(name)


class HostileHeaders(dict):
    """Headers that cannot be read."""

    def get(self, name, default=None):
        raise RuntimeError(name)


def test_an_object_that_raises_is_none():
    for value in (Hostile(), HostileHeaders(), Response(Hostile()), Response(HostileHeaders())):
        assert retry_after_header(value) is None


@given(st.one_of(st.text(), st.binary(), st.floats(), st.integers(), st.none(), st.booleans()))
def test_any_value_is_none_or_a_wait(value):
    """Never an error, never below 0, always finite; and the same in every carrier."""
    wait = retry_after_header(value, now=NOW)

    assert wait is None or (type(wait) is float and 0 <= wait < float("inf"))
    assert retry_after_header({"Retry-After": value}, now=NOW) == wait


@given(st.integers(0, 10**9), st.integers(-(10**6), 10**6), st.sampled_from(FORMS))
def test_a_date_is_the_seconds_until_then(now, ahead, form):
    """In each of the three forms, to the second; one in the past is 0."""
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=now + ahead)

    assert retry_after_header(at.strftime(form), now=now) == max(0, ahead)


@given(st.integers(-12, 12), st.integers(0, 10**6))
def test_a_date_of_another_zone_is_the_same_instant(hours, ahead):
    at = datetime.fromtimestamp(NOW + ahead, timezone(timedelta(hours=hours)))

    assert retry_after_header(format_datetime(at), now=NOW) == ahead


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_number_is_itself_and_of_a_group_the_longest(one, other):
    group = ExceptionGroup("", [StatusError({"Retry-After": one}), OSError(), StatusError({"Retry-After": other})])

    assert retry_after_header(one) == one
    assert retry_after_header(group) == max(one, other)


def test_a_group_may_be_nested_deeper_than_the_stack():
    group = StatusError({"Retry-After": "3"})
    for _ in range(5000):
        group = ExceptionGroup("", [group])

    assert retry_after_header(group) == 3


def test_the_wall_clock_is_asked_and_not_that_of_trio(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)

    async def main():
        await trio.sleep(1000)
        return retry_after_header("Sun, 06 Nov 1994 08:50:37 GMT")

    assert run_virtual(main) == 60


def test_a_wrong_now_is_refused():
    with pytest.raises(TypeError, match="retry_after_header: now must be a finite number"):
        retry_after_header("5", now="6")


def test_a_retry_waits_as_long_as_it_says_and_else_its_backoff():
    """Two errors with a header, one without: 7 s, the backoff of 1 s, and none."""
    errors = [StatusError({"Retry-After": "7"}), OSError(), StatusError({"retry-after": "0"})]
    calls = []

    async def fetch(item):
        calls.append(trio.current_time())
        if errors:
            raise errors.pop(0)

    retry = Retry(4, backoff=Backoff(1, factor=1, jitter=0), retry_after=retry_after_header)
    run_virtual(Step(fetch).retry(retry), None)

    assert calls == [0, 7, 8, 8]
