"""How long does a server ask to wait? The value of its ``Retry-After``, wherever that is, in seconds.

The rule: what says it clearly is a number >= 0, all else is None; so a policy falls back on its own wait. Headers come
from outside, so nothing in them is an error here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from ..._base import checks

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")  # float() would also take 1_0, 1e3, nan and other digits


def retry_after_header(response_or_value: object, *, now: float | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait, or None if there is no clear answer.

    ``Retry(retry_after=retry_after_header)`` waits as long as the server said, and else its backoff.

    The value is a number of seconds or an HTTP date (RFC 9110, 10.2.3; a date without a time zone is one in GMT). It is
    None if it is absent, malformed, below 0, infinite or NaN. A date is compared with the wall clock of this machine,
    also where trio's clock is virtual; one in the past is 0.

    Args:
      response_or_value: a response, an exception or anything else with `headers`, or with a `response` that has them
        (those of httpx, requests, aiohttp and urllib); headers, a mapping or an `email.message.Message`, whose names
        are compared without case; the value itself, as str, bytes or a number; or None. Of an exception group it is the
        longest wait that any of its errors asks for: after that, all of them may be tried again.
      now: what the wall clock says, in seconds since 1970 (UTC); by default it is asked.

    Raises:
      TypeError: if `now` is not a number. Whatever is odd about the rest is None, and no error.

    Checkpoint: never (sync).
    """
    if now is not None:
        checks.number("retry_after_header", "now", now)
    waits = [_wait(each, now) for each in _each(response_or_value)]
    return max((wait for wait in waits if wait is not None), default=None)


def _each(value: object) -> Iterator[object]:
    """Yield the errors of a group, which may be nested deeper than the stack; anything else as it is."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        else:
            yield each


def _wait(value: object, now: float | None) -> float | None:
    try:
        said = _said(value)
        return _seconds(said.decode("ascii") if isinstance(said, bytes | bytearray) else said, now)
    except Exception:  # of classes of others, and of a parser of dates that is not strict: anything may be raised
        return None


def _said(value: Any) -> Any:
    """Return the value of the header, wherever it is."""
    if value is None or isinstance(value, str | bytes | bytearray | int | float):
        return value
    headers = value if isinstance(value, Mapping) else getattr(value, "headers", None)
    if headers is None:
        headers = getattr(getattr(value, "response", None), "headers", None)
    if headers is None and hasattr(value, "get") and hasattr(value, "items"):
        headers = value  # they are given themselves, and their class is not registered as a mapping
    return None if headers is None else _in_headers(headers)


def _in_headers(headers: Any) -> Any:
    said = headers.get("Retry-After")
    if said is not None:  # the usual names, or a mapping that does not mind the case
        return said
    return next((each for name, each in headers.items() if _is_name(name)), None)


def _is_name(name: object) -> bool:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return isinstance(text, str) and text.lower() == "retry-after"


def _seconds(said: Any, now: float | None) -> float | None:
    if isinstance(said, str):
        text = said.strip()
        if not _SECONDS.fullmatch(text):
            return _until(text, now)
        said = float(text)
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    wait = float(said)
    return wait if isfinite(wait) and wait >= 0 else None


def _until(date: str, now: float | None) -> float:
    """Return the seconds until a date."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # 4 ms, and few programs are told to wait

    at = parsedate_to_datetime(date)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - (time.time() if now is None else now))
