"""How is a run watched in a browser, or by a monitoring system? By an ASGI application that any server can mount.

The rule: it only reads the run, answers GET and HEAD, and needs nothing but this package. Every client of the events
has a loop of its own, which ends when the run is over or the client leaves; the pictures that they send are made once
for each period, whoever asks first. So a client that is slow, or stops reading, holds nobody up: it misses pictures.

The invariant: nothing of the user's but names that stand in the plan. On the page they are texts, never code: its
policy (a Content-Security-Policy) allows the one script and style that it came with, and no other address.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import quote

import trio

from .._base import checks
from .._runtime.run.run import Run, plan_of_run

_Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[_Message]]
Send: TypeAlias = Callable[[_Message], Awaitable[None]]
Application: TypeAlias = Callable[[_Message, Receive, Send], Awaitable[None]]
"""An application as ASGI 3 defines it."""

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


def watch_app(
    run: Run[Any], *, name: str | None = None, period: float = 0.5, keys: Callable[[Hashable], str] | None = None
) -> Application:
    """Return an ASGI application that shows what a run is doing, to mount in a server of the same trio run.

    It has no authentication: whoever reaches it sees the names in the plan, counts and times (never an item, a key of a
    `fair_by` or the text of an error), and can change nothing. It may be mounted at any path.

    ======================  ===========================================================================================
    ``/``                   a page: the plan as a graph, with rates, fills and latencies that follow the run
    ``/events``             the same numbers as server-sent events, one for each period; it ends with the run
    ``/statistics``         `Report.to_dict` as JSON
    ``/metrics``            all counts for Prometheus, in its text format 0.0.4
    ``/ready``              200, or 503 while the run drains and when it is over; with its state as JSON
    ======================  ===========================================================================================

    Other paths are 404, other methods than GET and HEAD 405.

    Args:
      run: the run; when it is over, its last numbers stay.
      name: what the page and the label ``pipeline`` of the metrics call it; ``pipeline`` by default.
      period: seconds > 0 between two events.
      keys: ``keys(key)`` returns what to call a key of a `fair_by`; by default it is called by its rank (``#1``).

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `name` is empty or `period` is not > 0.

    Checkpoint: never (sync); the application itself waits only for the server, and in ``/events``.
    """
    where = "watch_app"
    checks.instance(where, "run", run, Run, "Use the run that `async with plan.open() as run` gives.")
    if name is not None:
        checks.text(where, "name", name)
    checks.seconds(where, "period", period)
    if keys is not None:
        checks.takes(where, "keys", checks.sync_callable(where, "keys", keys), 1)
    return _App(run, name or "pipeline", period, keys)


class _App:
    """The application for one run."""

    def __init__(self, run: Run[Any], name: str, period: float, keys: Callable[[Hashable], str] | None) -> None:
        self._run = run  # is only read
        self._name = name  # of the pipeline, on the page and in the metrics
        self._period = period  # seconds between events
        self._keys = keys  # tells what to call keys of a `fair_by`; None if they are called by their ranks
        self._pictures = _Pictures(run, period, keys)  # what the events say
        self._answers: dict[str, Callable[[], tuple[int, str, str]]] = {
            "/": self._page,
            "/statistics": self._statistics,
            "/metrics": self._metrics,
            "/ready": self._ready,
        }  # by path: returns status, content type and text

    async def __call__(self, scope: _Message, receive: Receive, send: Send) -> None:
        """Answer a request; a websocket is refused."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"watch_app: a scope of type {scope['type']!r} is unknown")

    async def _answer(self, scope: _Message, receive: Receive, send: Send) -> None:
        path, has_body = path_of(scope), scope["method"] == "GET"
        if path == "":  # of the place where it is mounted, without the slash that relative addresses need
            await _say(send, 307, _TEXT, "", {"location": f"./{_asked(scope).rpartition('/')[2]}/"})
        elif path not in self._answers and path != "/events":
            await _say(send, 404, _TEXT, "there is no such path\n", has_body=scope["method"] != "HEAD")
        elif scope["method"] not in ("GET", "HEAD"):
            await _say(send, 405, _TEXT, "only GET and HEAD\n", {"allow": "GET, HEAD"})
        elif path == "/events":
            await self._tell(receive, send, has_body=has_body)
        else:
            status, kind, text = self._answers[path]()
            more = {"content-security-policy": _page()[1]} if path == "/" else {}
            await _say(send, status, kind, text, more, has_body=has_body)

    # ---- what is answered

    def _page(self) -> tuple[int, str, str]:
        from html import escape

        from .graph import graph

        data = {"name": self._name, "plan": graph(plan_of_run(self._run))}
        # In a script element only "<" could end it, or begin another one.
        inside = _as_json(data).replace("<", "\\u003c")
        before, between, after = _page()[0]
        name = escape(self._name).encode("utf-8", "replace").decode()
        return 200, "text/html; charset=utf-8", f"{before}{name}{between}{inside}{after}"

    def _statistics(self) -> tuple[int, str, str]:
        return 200, _JSON, _as_json(self._run.report.to_dict(keys=self._keys))

    def _metrics(self) -> tuple[int, str, str]:
        from .exposition import CONTENT_TYPE, exposition

        return 200, CONTENT_TYPE, exposition(self._run.report, self._name)

    def _ready(self) -> tuple[int, str, str]:
        state = self._run.state.value
        return (200 if state in ("running", "paused") else 503), _JSON, _as_json({"state": state})

    async def _tell(self, receive: Receive, send: Send, *, has_body: bool) -> None:
        """Send a picture after each period, until the run is over or the client has left."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # a proxy is not to collect them
        await _begin(send, 200, "text/event-stream", headers)
        has_left = not has_body
        with suppress(OSError):  # how a server may say that the client has left
            while not has_left:
                event, is_last = self._pictures.event()
                await send({"type": "http.response.body", "body": event, "more_body": True})
                if is_last:
                    break
                with trio.move_on_at(self._pictures.next_time()):
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    has_left = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Pictures:
    """The pictures of a run: one for each period, which all clients share."""

    def __init__(self, run: Run[Any], period: float, keys: Callable[[Hashable], str] | None) -> None:
        from .picture import SPAN, Recent

        self._run = run  # whose pictures they are
        self._period = period  # seconds of a slot
        self._keys = keys  # as for `picture`
        self._recent = Recent(SPAN + 2 * period)  # what rates are computed with
        self._slot: int | None = None  # in which the last picture was made; None before the first
        self._event: tuple[bytes, bool] = b"", False  # that picture, and whether it is the last

    def event(self) -> tuple[bytes, bool]:
        """Return the picture of this period as an event, and whether it is the last one."""
        from .._runtime.reports.plain import plain
        from .picture import picture

        slot = math.floor(trio.current_time() / self._period)
        if slot != self._slot:
            report = self._run.report
            now = picture(report, self._recent.earlier(report), self._run.state.value, self._keys)
            data = _as_json({**plain(now), "is_over": now.is_over})
            self._slot, self._event = slot, (f"data: {data}\n\n".encode(), now.is_over)
        return self._event

    def next_time(self) -> float:
        """Return when the next one can be made, by trio's clock."""
        return (math.floor(trio.current_time() / self._period) + 1) * self._period


def path_of(scope: _Message) -> str:
    """Return the path of a request within the place where the application is mounted; "" for that place itself.

    Frameworks differ in whether ``path`` includes the ``root_path``, and some tell of that place as of ``/`` within it.
    """
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path.removeprefix(root)
    return path if path != "/" or _asked(scope).endswith("/") else ""


def _asked(scope: _Message) -> str:
    """Return the whole path as the client asked for it, in the form of an address."""
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0]
    return raw.decode("ascii", "replace") if raw else quote(str(scope["path"]))


def _as_json(value: Any) -> str:
    import json

    return json.dumps(value, allow_nan=False)


async def _live(receive: Receive, send: Send) -> None:
    """Agree to the beginning and the end of the server."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _say(
    send: Send, status: int, kind: str, text: str, more: dict[str, str] | None = None, *, has_body: bool = True
) -> None:
    body = text.encode("utf-8", "backslashreplace")
    headers = {"content-length": str(len(body)), "cache-control": "no-store", **(more or {})}
    await _begin(send, status, kind, headers)
    await send({"type": "http.response.body", "body": body if has_body else b"", "more_body": False})


async def _begin(send: Send, status: int, kind: str, headers: dict[str, str]) -> None:
    said = {"content-type": kind, "x-content-type-options": "nosniff", **headers}
    pairs = [(name.encode(), value.encode()) for name, value in said.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


@cache
def _page() -> tuple[tuple[str, str, str], str]:
    """Return the three pieces of the page, between which name and plan stand, and the policy for it."""
    from base64 import b64encode
    from hashlib import sha256
    from importlib.resources import files

    text = files(__package__).joinpath("page.html").read_text("utf-8")
    before, between, after = text.split("<!-- name -->")[0], *text.split("<!-- name -->")[1].split("<!-- data -->")
    sums = {}
    for element in ("style", "script"):
        inside = text.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
        sums[element] = b64encode(sha256(inside.encode()).digest()).decode()
    policy = "; ".join([
        "default-src 'none'",
        f"script-src 'sha256-{sums['script']}'",
        f"style-src 'sha256-{sums['style']}'",
        "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'",
    ])  # fmt: skip
    return (before, between, after), policy
