"""Crawl linked pages: each page once, to a depth, politely: one request at a time for each host, and 5 a second.

    crawl.py                                  # 60 made-up pages on 3 hosts, served by this program on this machine
    crawl.py --pages 500 --rate 50 --depth 4
    crawl.py http://127.0.0.1:8000/ --depth 2 # pages that are there; only links to hosts of the same name are followed

It shows a loop (`plan`, the first function below): the links of a page are new work, which goes back to the beginning,
and the stream ends exactly when no work is left. Results stay in order, so links go round in the order of their depth:
each page is met first on a shortest way to it, whichever host is slow, and the same pages are found in every run.

A page that does not answer, after three attempts, ends nothing; it is listed with its error, and the exit status is 1.
If it is stopped by Ctrl-C, it takes up nothing new, finishes the few requests that are in line, and says what was left.

It needs `httpx`; for the made-up pages also `starlette` and `hypercorn`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports: they take long enough for Ctrl-C
    try:
        import program

        program.begin()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
import trio

from funcpipe_trio import Failure, OnError, Pipeline, RateLimit, Retry, Run, Step

PAGES, HOSTS, DEPTH, RATE = 60, 3, 8, 5.0
ROOM = 10_000  # links that may wait
WAITING = 32  # links that may wait for their hosts without holding up others
SEEN = 100_000  # addresses that are remembered
TIMEOUT = 10.0  # seconds for one request

N = TypeVar("N", int, float)
Get: TypeAlias = Callable[[str], Awaitable[tuple[int, str]]]
"""Requests an address; returns the status and the text."""


@dataclass(frozen=True, slots=True)
class Link:
    """An address, and how many links lead to it."""

    url: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """What was found at a link."""

    link: Link
    status: int
    """Of the answer; 0 if there was none."""
    links: tuple[str, ...] = ()
    lost: str = ""
    """Why there was no answer: the name of the error."""


def plan(start: str, get: Get, *, depth: int = DEPTH, rate: float = RATE, hosts: int = 8) -> Pipeline[Page]:
    """Return the whole plan: all pages that at most `depth` links lead to, also those that do not answer."""
    fetch = Step(partial(visit, get), name="fetch").timeout(TIMEOUT).retry(Retry(3, httpx.TransportError))
    pace = RateLimit(rate, burst=1)

    def visited(links: Pipeline[Link]) -> Pipeline[Page]:
        unseen = links.distinct(lambda link: link.url, remember=SEEN)
        pages = unseen.map(
            fetch, key=host_of, key_rate=pace, waiting=WAITING, concurrency=hosts, on_error=OnError.emit()
        )
        return pages.recover(lost)

    def deeper(page: Page) -> Iterator[Link]:
        if page.link.depth < depth:
            yield from (Link(url, page.link.depth + 1) for url in page.links)

    return Pipeline.from_iterable([Link(start)], name="start").loop(visited, again=deeper, room=ROOM, name="crawl")


def lost(failure: Failure[Link]) -> Page:
    """Return what stands for a page that did not answer: it ends nothing."""
    return Page(failure.item, 0, lost=type(failure.error).__name__)


def host_of(link: Link) -> str:
    """Return the host of a link, with its port."""
    return urlsplit(link.url).netloc


async def visit(get: Get, link: Link) -> Page:
    """Request a page, and find its links."""
    status, text = await get(link.url)
    return Page(link, status, links_in(text, link.url) if status == 200 else ())


class _Finder(HTMLParser):
    """Finds where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def links_in(text: str, url: str) -> tuple[str, ...]:
    """Return the addresses that a page links to, on hosts of the same name."""
    finder = _Finder()
    finder.feed(text)
    found = [urldefrag(urljoin(url, each)).url for each in finder.found]
    return tuple(each for each in found if urlsplit(each).hostname == urlsplit(url).hostname)


# ---- the made-up pages, and what serves them


@dataclass
class Site:
    """Pages that link to each other over several hosts, and what their servers saw."""

    pages: int = PAGES
    addresses: list[str] = field(default_factory=list)
    """Of the hosts, once they are served."""
    requests: list[int] = field(default_factory=list)
    """The page of each request."""
    at_once: dict[int, int] = field(default_factory=dict)
    """Requests that each host is answering."""
    most_at_once: int = 0
    """The most that one host was answering."""

    def url(self, page: int) -> str:
        """Return the address of a page."""
        return f"{self.addresses[page % len(self.addresses)]}/{page}"

    def text(self, page: int) -> str:
        """Return a page: it links to two new ones, back to others, and sometimes to one that is not there."""
        linked = [2 * page + 1, 2 * page + 2, page // 3, page * 7 % self.pages]
        links = [self.url(each) for each in linked if each < self.pages] + (["/none"] if page % 10 == 9 else [])
        return "".join(f'<p><a href="{link}#top">{link}</a></p>' for link in links)

    async def answer(self, host: int, page: int) -> str:
        """Answer a request, which takes a moment."""
        self.requests.append(page)
        self.at_once[host] = self.at_once.get(host, 0) + 1
        self.most_at_once = max(self.most_at_once, self.at_once[host])
        try:
            await trio.sleep(0.01)
            return self.text(page)
        finally:
            self.at_once[host] -= 1


@asynccontextmanager
async def served(site: Site, hosts: int = HOSTS) -> AsyncIterator[None]:
    """Serve a site on this machine, each host on a free port, for as long as the block lasts."""
    async with AsyncExitStack() as servers:
        for host in range(hosts):
            site.addresses.append(await servers.enter_async_context(_served(_app(site, host))))
        yield


def _app(site: Site, host: int) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(await site.answer(host, request.path_params["page"]))

    return Starlette(routes=[Route("/{page:int}", page)])


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[str]:
    """Serve an application with Hypercorn; give its address."""
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind, config.accesslog, config.errorlog = ["127.0.0.1:0"], None, None
    config.graceful_timeout = 0.1
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=over.wait))
        try:
            yield address
        finally:
            over.set()


# ---- the program


async def crawl(start: str, depth: int, rate: float) -> int:
    """Crawl, and print each page; Ctrl-C begins nothing new."""
    left: list[str] = []
    missing = 0

    def keep(link: Link, stage: str, reason: str) -> None:
        left.append(link.url)

    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        pages = plan(start, partial(_get, client), depth=depth, rate=rate)
        print(pages.describe(), end="\n\n", flush=True)
        async with trio.open_nursery() as nursery, pages.open(on_discard=keep) as run:
            nursery.start_soon(_drain_at_ctrl_c, run)
            async for page in run:
                print(f"{page.lost or page.status} {page.link.depth} {shown(page.link.url)}", flush=True)
                missing += page.status == 0
            nursery.cancel_scope.cancel()
    print(f"\n{run.report.describe()}")
    if left:
        return complain(f"interrupted; {len(left)} links were left", 130)
    return complain(f"{missing} of the pages did not answer", 1) if missing else 0


async def _get(client: httpx.AsyncClient, url: str) -> tuple[int, str]:
    answer = await client.get(url)
    return answer.status_code, answer.text


async def _drain_at_ctrl_c(run: Run[Page]) -> None:
    """Drain the run at the first Ctrl-C; the second one stops the program."""
    import signal

    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            break
    run.drain_nowait()


async def crawl_made_up(pages: int, depth: int, rate: float) -> int:
    """Serve a site, and crawl it."""
    site = Site(pages)
    async with served(site):
        status = await crawl(site.url(0), depth, rate)
    print(f"the hosts saw {len(site.requests)} requests, at most {site.most_at_once} at a time")
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    options = parser().parse_args(argv)
    if options.start is None:
        call = partial(crawl_made_up, options.pages, options.depth, options.rate)
    elif urlsplit(options.start).scheme not in ("http", "https"):
        return complain(f"{shown(options.start)} is not an address that begins with http:// or https://", 2)
    else:
        call = partial(crawl, options.start, options.depth, options.rate)
    return trio.run(call, restrict_keyboard_interrupt_to_checkpoints=True)


def complain(message: str, status: int) -> int:
    """Print one line about what is wrong; return the exit status."""
    print(f"crawl: {message}", file=sys.stderr)
    return status


def shown(name: str) -> str:
    """Make an address printable: a page may contain any text, including escape codes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


def number(low: float, text: str) -> float:
    """Parse a number that is at least `low`."""
    return _checked(float, low, text)


def whole(low: int, text: str) -> int:
    """Parse a whole number that is at least `low`."""
    return _checked(int, low, text)


def _checked(parse: Callable[[str], N], low: float, text: str) -> N:
    try:
        value = parse(text)
    except ValueError:
        value = None
    if value is None or not low <= value < 1e6:
        raise argparse.ArgumentTypeError(f"must be at least {low:g}, and below 1000000, not {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(prog="crawl.py", allow_abbrev=False, description="Crawl linked pages.")
    made.add_argument("start", nargs="?", metavar="URL", help="where to begin; by default at a made-up page")
    depth = "links to a page (default: %(default)s)"
    made.add_argument("--depth", type=partial(whole, 0), default=DEPTH, metavar="N", help=depth)
    rate = "requests a second to each host (default: %(default)s)"
    made.add_argument("--rate", type=partial(number, 0.001), default=RATE, metavar="N", help=rate)
    pages = "made-up pages (default: %(default)s)"
    made.add_argument("--pages", type=partial(whole, 1), default=PAGES, metavar="N", help=pages)
    return made


if __name__ == "__main__":
    program.run(main)
