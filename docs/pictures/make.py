"""Make the pictures of the pages: ``uv run python -m docs.pictures.make`` in the root of a checkout.

Pictures of the terminal and of a report come from a run in virtual time. Those of the page are screenshots of Chromium,
of a run in real time behind a real server.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME

from funcpipe_trio import (
    Adaptive,
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Recorder,
    Report,
    Retry,
    RollingLimit,
    Step,
    fair_merge,
    watch_app,
)
from funcpipe_trio._cli import simulating
from funcpipe_trio._watch.drawing import draw
from funcpipe_trio._watch.picture import Picture, Recent, picture
from funcpipe_trio.testing import run_virtual
from tests._services import SERVICES, Overloaded, Saturating, best_fixed, calling
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


def series(calls: Sequence[float], seconds: int, length: float) -> list[float]:
    """Return the calls per second in the time before each second."""
    return [sum(at - length < call <= at for call in calls) / length for at in range(seconds + 1)]


def curves(name: str, title: str, lines: Mapping[str, Sequence[float]], marks: Mapping[float, str]) -> None:
    """Draw calls per second over time."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    plot = figure.subplots()
    for label, values in lines.items():
        plot.plot(range(len(values)), values, label=label)
    for at, text in marks.items():
        plot.axvline(at, color="grey", linewidth=0.8, linestyle=":")
        plot.annotate(f" {text}", (at, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small", color="grey")
    plot.set(xlabel="seconds", ylabel="calls per second", ylim=(0, None), xlim=(0, len(values) - 1))
    plot.set_title(title, fontsize="medium")
    plot.grid(True, axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    save(figure, name)


def save(figure: Figure, name: str) -> None:
    """Write a figure: the same each time, and with text that stays text."""
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})


async def calls_under(acquire: Callable[[], Awaitable[Any]], busy: Sequence[tuple[float, float]]) -> list[float]:
    """Return when the calls of forty clients start, who ask again at once within some times."""
    times: list[float] = []

    async def client() -> None:
        for begin, end in busy:
            await trio.sleep_until(begin)
            with trio.move_on_at(end):
                while True:
                    await acquire()
                    times.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(client)
    return times


def limits() -> None:
    """Draw what each kind of limit lets through of the same load."""
    busy, times = [(5, 35), (50, 80)], {}
    for limit in (RateLimit(20, per=10), RateLimit(20, per=10, burst=20), RollingLimit(20, per=10)):
        times[limit.describe()] = run_virtual(calls_under, RateLimiter(limit).acquire, busy)
    times["4 places, calls of 2 s"] = run_virtual(calls_at_once, busy)
    figure = Figure(figsize=(9, 5), layout="constrained")
    for plot, (name, calls) in zip(figure.subplots(len(times), sharex=True, sharey=True), times.items(), strict=True):
        plot.bar([at - 0.5 for at in range(81)], series([call + 1e-9 for call in calls], 80, 1), width=0.9)
        plot.set(xlim=(0, 81), ylim=(0, 23))
        plot.annotate(f"{name}: {len(calls)} calls", (42, 15), ha="center", fontsize="small")
        plot.grid(True, axis="y", alpha=0.3)
    figure.suptitle("calls in each second, of forty clients that are busy from 5 s to 35 s and from 50 s to 80 s")
    figure.supxlabel("seconds")
    save(figure, "limits")


async def calls_at_once(busy: Sequence[tuple[float, float]]) -> list[float]:
    """Return when calls of two seconds start, of which four run at once."""
    places, times = PlaceLimiter(4), []

    async def hold() -> None:
        async with places.hold():
            times.append(trio.current_time())
            await trio.sleep(2)

    await calls_under(hold, busy)
    return times


async def shared() -> dict[str, list[float]]:
    """Return when the calls of three tenants start: one floods, one dies and returns, weights change."""
    limiter = RateLimiter(RateLimit(10), FairShare({"acme": 3, "bolt": 1, "cosy": 1}))
    times: dict[str, list[float]] = {"acme": [], "bolt": [], "cosy": []}

    async def client(name: str) -> None:
        while True:
            await limiter.acquire(key=name)
            times[name].append(trio.current_time())

    async def tenant(name: str, clients: int, begin: float, end: float) -> None:
        await trio.sleep_until(begin)
        with trio.move_on_at(end):
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(client, name)

    async with trio.open_nursery() as nursery:
        for arguments in (("acme", 4, 0, 80), ("bolt", 100, 0, 80), ("cosy", 4, 0, 20), ("cosy", 4, 40, 80)):
            nursery.start_soon(tenant, *arguments)
        await trio.sleep_until(60)
        limiter.set_weight("acme", 1)
        limiter.set_weight("bolt", 3)
    return times


def shares() -> None:
    """Draw how tenants share a limiter."""
    lines = {name: series(times, 80, 5) for name, times in run_virtual(shared).items()}
    marks = {0: "weights 3:1:1, bolt floods", 20: "cosy dies", 40: "cosy is back", 60: "weights 1:3:1"}
    curves("shares", "three tenants at a limiter of 10 in a second (mean of 5 s)", lines, marks)


async def traced(service: Any, seconds: float) -> list[tuple[float, int, int]]:
    """Let an adaptive stage call a service; return the time, the limit and the answers, ten times a second."""
    step = Step(calling(service)).retry(Retry(1000, on=Overloaded, backoff=Backoff(0.1, factor=1, jitter=0)))
    line = Pipeline.from_iterable(range(10**6)).map(step, concurrency=Adaptive(1, 64), ordered=False)
    seen = []
    async with line.open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(consume, run)
        while trio.current_time() < seconds:
            now = run.statistics()
            seen.append((trio.current_time(), now.stages[-1].concurrency, now.delivered))
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return seen


def adaptive() -> None:
    """Draw the limit and the throughput of an adaptive stage over time, for four services."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    panels = figure.subplots(len(SERVICES), 1)
    for panel, (name, service) in zip(panels, SERVICES.items(), strict=True):
        best, number = best_fixed(Saturating if name == "degrades" else service)
        seen = run_virtual(traced, service(), 90.0 if name == "degrades" else 30.0)
        times = [at for at, _, _ in seen]
        seconds = [*zip(seen[::10], seen[10::10], strict=False)]  # the looks at the beginning and the end of each
        parts = [(after[2] - before[2]) / (after[0] - before[0]) / best for before, after in seconds]
        panel.step(times, [limit for _, limit, _ in seen], where="post", color="#0072b2", label="calls at once")
        panel.axhline(number, color="#0072b2", linestyle=":", label="the best fixed number")
        panel.set(title=f"a service that {name}", ylim=(0, 66), xlim=(0, times[-1]))
        right = panel.twinx()
        right.plot([after[0] for _, after in seconds], parts, color="#e69f00", label="answers a second")
        right.set(ylim=(0, 1.1), ylabel="part of the best")
    panels[-1].set_xlabel("seconds (virtual)")
    lines = [*panels[0].get_lines(), *right.get_lines()]
    figure.legend(handles=lines, loc="outside upper center", ncols=3, frameon=False)
    with rc_context({"svg.hashsalt": "funcpipe_trio", "svg.fonttype": "none"}):
        figure.savefig(FOLDER / "adaptive.svg", metadata={"Date": None})


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
    limits()
    shares()
    adaptive()
    drawn()
    trio.run(photograph, plan(), "page", {400: None, 1400: None})
    trio.run(photograph, large(), "page-large", {400: 900, 1400: 900})
    return 0


if __name__ == "__main__":
    sys.exit(main())
