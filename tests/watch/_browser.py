"""A headless Chromium, driven by its own protocol (DevTools) over a pipe: pages that are looked at, and clicked on.

It needs no driver and no websocket: the browser reads commands from its file descriptor 3, and writes answers and
events to 4, each a JSON text that ends with a zero byte.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from contextlib import asynccontextmanager
from itertools import count

import trio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--remote-debugging-pipe", "--no-proxy-server"),
]
_START = "import os, sys; os.dup2({0}, 3); os.dup2({1}, 4); os.execv(sys.argv[1], sys.argv[1:])"


class Browser:
    """The connection to it."""

    def __init__(self, commands, answers):
        self._commands = commands
        self._answers = answers
        self._numbers = count(1)
        self._waiting = {}
        self._answered = {}

    async def call(self, method, session=None, **params):
        """Do a command, and give its answer."""
        number = next(self._numbers)
        self._waiting[number] = trio.Event()
        said = {"id": number, "method": method, "params": params}
        if session is not None:
            said["sessionId"] = session
        await self._commands.send_all(json.dumps(said).encode() + b"\0")
        await self._waiting[number].wait()
        del self._waiting[number]
        answer = self._answered.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    async def listen(self):
        """Take what it says, until it ends."""
        rest = b""
        async for some in self._answers:
            *texts, rest = (rest + some).split(b"\0")
            for text in texts:
                said = json.loads(text)
                if said.get("id") in self._waiting:
                    self._answered[said["id"]] = said
                    self._waiting[said["id"]].set()

    async def open(self, address, width=1400, height=900, *, dark=False):
        """Open a page in a window of that size."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"], target["targetId"])
        await page.resize(width, height)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.call("Emulation.setEmulatedMedia", features=[feature])
        await page.call("Page.navigate", url=address)
        return page


class Page:
    """A page in a tab."""

    def __init__(self, browser, session, target):
        self._browser = browser
        self._session = session
        self._target = target

    async def call(self, method, **params):
        return await self._browser.call(method, self._session, **params)

    async def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def evaluate(self, code):
        """Give the value of an expression of JavaScript, which may be a promise."""
        answer = await self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, code):
        """Wait until an expression is true; it is asked again and again, by the page's own clock."""
        while not await self.evaluate(f"document.readyState === 'complete' && Boolean({code})"):
            await self.evaluate("new Promise((done) => setTimeout(done, 20))")

    async def picture(self, *, whole=False):
        """Give what is seen, or all of the page, as a PNG."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return b64decode(answer["data"])

    async def close(self):
        await self._browser.call("Target.closeTarget", targetId=self._target)


def _pipe():
    """Make a pipe whose ends are neither 3 nor 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


@asynccontextmanager
async def chromium(folder):
    """Start a browser with a profile in a folder, and end it."""
    (reads, commands), (answers, writes) = _pipe(), _pipe()
    program = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"]
    start = [sys.executable, "-c", _START.format(reads, writes), *program]
    null = subprocess.DEVNULL
    process = await trio.lowlevel.open_process(start, pass_fds=(reads, writes), stdin=null, stdout=null, stderr=null)
    os.close(reads)
    os.close(writes)
    browser = Browser(trio.lowlevel.FdStream(commands), trio.lowlevel.FdStream(answers))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(browser.listen)
            yield browser
            await browser.call("Browser.close")
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await browser._commands.aclose()
            await browser._answers.aclose()
            with trio.move_on_after(10):
                await process.wait()
            process.kill()
            await process.wait()
