"""Make the pictures of the pages: ``uv run python -m docs.pictures.make`` in the root of a checkout.

Pictures of the terminal and of a report come from a run in virtual time. Those of the page are screenshots of Chromium,
of a run in real time behind a real server.
"""

from __future__ import annotations

import io
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, Recorder, Report, Retry, Step, fair_merge, watch_app
from funcpipe_trio._cli import simulating
from funcpipe_trio._watch.drawing import draw
from funcpipe_trio._watch.picture import Picture, Recent, picture
from funcpipe_trio.testing import run_virtual
from tests.watch._browser import chromium
from tests.watch._plans import large
from tests.watch._serving import serving

FOLDER = Path(__file__).parent
FORM = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px }}
{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


class Busy(Exception):
    """What the service of the plan says now and then."""


async def embed(number: int) -> int:
    """Answer a little later; refuse one in twenty."""
    await trio.sleep(0.02 + 0.001 * (number * 7919 % 60))
    if number % 20 == 0:
        raise Busy
    return number


async def store(vectors: list[int]) -> list[int]:
    """Take some time for a batch."""
    await trio.sleep(0.3)
    return vectors


def tenant(name: str) -> Pipeline[int]:
    """Return the texts of a tenant."""
    return Pipeline.from_iterable(range(10**9), name=name)


def plan() -> Pipeline[list[int]]:
    """Return the plan that most pictures show."""
    tenants = {name: tenant(name) for name in ("acme", "bolt", "cosy")}
    step = Step(embed).retry(Retry(2, on=Busy)).rate_limit(RateLimit(120, burst=10))
    return (
        fair_merge(tenants, FairShare({"acme": 3}), name="tenants")
        .map(step, concurrency=8, on_error=OnError.skip(), name="embed")
        .batch(20, max_delay=0.5)
        .map(store, concurrency=2, name="store")
    )


async def looked_at(pipeline: Pipeline[Any], seconds: float) -> tuple[Picture, Report]:
    """Return the picture of a run after some seconds, and its report."""
    recent, shown = Recent(), []
    async with pipeline.open() as run:
        with trio.move_on_after(seconds):
            async for _ in run:
                report = run.report
                shown.append(picture(report, recent.earlier(report), run.state.value))
    return shown[-1], run.report


def draw_terminal(shown: Picture, width: int, height: int, name: str) -> None:
    """Write what a terminal shows, on a light and on a dark one."""
    for kind, theme in (("light", DEFAULT_TERMINAL_THEME), ("dark", SVG_EXPORT_THEME)):
        console = Console(file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor")
        for line in draw(shown, width, height):
            console.print(line, markup=False, highlight=False)
        svg = console.export_svg(title=f"{width} x {height}", theme=theme, code_format=FORM, unique_id="t")
        (FOLDER / f"{name}-{kind}.svg").write_text(svg)


async def photograph(pipeline: Pipeline[Any], name: str, sizes: dict[int, int | None]) -> None:
    """Write screenshots of the page in windows of some widths, and of that height at most, light and dark."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with pipeline.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            async with serving(watch_app(run, name="embed tenants")) as address, chromium(profile) as browser:
                for width, height in sizes.items():
                    for kind in ("light", "dark"):
                        page = await browser.open(address, width, 900, dark=kind == "dark")
                        await page.until("last && last.seconds >= 2")
                        whole = await page.evaluate("document.documentElement.scrollHeight")
                        await page.resize(width, min(whole, height or whole))
                        await page.until("drawnFor === at('graph').clientWidth")
                        (FOLDER / f"{name}-{width}-{kind}.png").write_bytes(await page.picture())
                        await page.close()
            nursery.cancel_scope.cancel()


async def consume(run: Any) -> None:
    """Take all that comes."""
    async for _ in run:
        await trio.lowlevel.checkpoint()


async def embed_evenly(number: int) -> int:
    """Answer after a time that the number says."""
    await trio.sleep(0.2 + 0.05 * (number % 7))
    return number


def what_if() -> None:
    """Draw what more calls at once would bring to a run that was recorded with four."""
    step = Step(embed_evenly).rate_limit(RateLimit(25))
    recorded = Pipeline.from_iterable(range(1000), name="texts").map(step, concurrency=4, name="embed").batch(10)
    recorder = Recorder()
    run_virtual(partial(recorded.run, record=recorder))
    settings = [simulating.parsed("embed.concurrency=1,2,4,8,16,32")]
    rows = simulating.compared(recorded, recorder.recording, settings, 0, [])
    simulating.plot(rows, settings, str(FOLDER / "what-if.svg"), "1000 texts, 4 calls at once, at most 25 a second")


def drawn() -> None:
    """Draw the plan itself, by Graphviz."""
    tenants = {name: Pipeline.from_iterable(range(100), name=name) for name in ("acme", "bolt")}
    step = Step(embed).timeout(5).retry(Retry(2, on=Busy)).rate_limit(RateLimit(120, burst=10))
    line = fair_merge(tenants, FairShare({"acme": 3}), name="tenants").map(step, concurrency=8, name="embed")
    text = line.batch(20, max_delay=0.5).map(store, concurrency=2, name="store").describe("dot")
    svg = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, check=True, text=True).stdout
    (FOLDER / "plan.svg").write_text(svg)


def main() -> int:
    """Make all pictures; return the exit status."""
    small, report = run_virtual(partial(looked_at, plan(), 20))
    draw_terminal(small, 80, 18, "terminal")
    draw_terminal(small, 130, 18, "terminal-wide")
    draw_terminal(run_virtual(partial(looked_at, large(), 6))[0], 80, 23, "terminal-large")
    report.plot(FOLDER / "report.svg")
    what_if()
    drawn()
    trio.run(photograph, plan(), "page", {400: None, 1400: None})
    trio.run(photograph, large(), "page-large", {400: 900, 1400: 900})
    return 0


if __name__ == "__main__":
    sys.exit(main())
