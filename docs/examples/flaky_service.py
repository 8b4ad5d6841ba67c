"""A stand-in for an embedding service: a small HTTP server on this machine, strict, and flaky in a repeatable way.

It allows a fixed number of calls in any second, counts them itself, and refuses more: 429, with Retry-After. In
addition, depending only on its seed and the number of the call, it is busy with others (also 429), broken (500) or
slow. A text that is too long gets its own 422 in the answer.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

CONTRACT = 20  # calls allowed in any second
LONGEST = 2000  # characters of a text
DIMENSIONS = 32  # of a vector


@contextmanager
def serving(seed: int) -> Iterator[Server]:
    """Run the service in threads for the length of a block."""
    with Server(seed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Server(ThreadingHTTPServer):
    """A service on a free port of this machine."""

    daemon_threads = True

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seed = seed
        self.calls = self.most = 0
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def arrive(self) -> tuple[int, int]:
        """Count a call; return its number, and how many there were in the second that ends with it."""
        with self._lock:
            now = time.monotonic()
            self._recent.append(now)
            while self._recent[0] <= now - 1:
                self._recent.popleft()
            self.calls += 1
            self.most = max(self.most, len(self._recent))
            return self.calls, len(self._recent)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing if the client went away: the service was too slow for it, or Ctrl-C ended it."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection to the service."""

    protocol_version = "HTTP/1.1"  # keeps its connections
    wbufsize = -1  # an answer is one packet
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        """Answer a call."""
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away during its request")
        texts = json.loads(body)
        number, recent = self.server.arrive()
        mood = mood_of(self.server.seed, number)
        if mood == "slow":
            time.sleep(1.5)
        if recent > CONTRACT or mood == "busy":  # with other clients of the same account, for example
            self.answer(429, {"Retry-After": "1"}, "too many calls")
        elif mood == "broken":
            self.answer(500, {}, "out of order")
        else:
            self.answer(200, {}, [embedded(text) for text in texts])

    def answer(self, status: int, headers: dict[str, str], value: object) -> None:
        """Send an answer."""
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


def mood_of(seed: int, number: int) -> str:
    """Return how the service treats its n-th call."""
    if 40 <= number < 46:
        return "broken"  # for a while: the circuit opens
    return random.Random(f"{seed} {number}").choices(("well", "busy", "broken", "slow"), (88, 4, 4, 4))[0]


def embedded(text: str) -> dict[str, object]:
    """Make a vector of a text: word counts by hash."""
    if len(text) > LONGEST:
        return {"status": 422, "detail": f"longer than {LONGEST} characters"}
    vector = [0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        vector[crc32(word.encode()) % DIMENSIONS] += 1
    return {"status": 200, "vector": vector}
