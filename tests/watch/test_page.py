"""The page of a run in a real browser: it draws every plan at any width, follows the run, and says when it is over.

Mutants that die here: a page that is wider than its window; two cards over each other; a number that stays; a name that
becomes code; a page that says nothing when the server is gone.
"""

import shutil
from contextlib import asynccontextmanager

import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Mount

from funcpipe_trio import Pipeline, merge, watch_app
from tests._kit import run_real
from tests.watch._browser import CHROMIUM, chromium
from tests.watch._plans import HOSTILE, SECRET, hostile, large, small
from tests.watch._serving import serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium`")

HAS_NUMBERS = "last && last.seconds > 0.4"
ALL_NAMES = "[...document.querySelectorAll('button.node .name')].map((each) => each.textContent)"
OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll(".node, .link")].map((each) => each.getBoundingClientRect()), found = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) found.push(a);
  }));
  return found.length;
})()"""
OUTSIDE = """[...document.querySelectorAll(".node, .link, td, th, dd, h1, li")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width && (box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5);
}).length"""


@pytest.fixture
def profile(tmp_path):
    """A folder for the browser, which is removed even if it is still written to."""
    yield tmp_path / "profile"
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


async def consume(run):
    async for _ in run:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def shown(plan, profile, **how):
    """Serve a run that is at work, and start a browser; give run, address and browser."""
    async with plan.open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(consume, run)
        app = Starlette(routes=[Mount("/watch", watch_app(run, name="tenants", period=0.1, **how))])
        async with serving(app) as address, chromium(profile) as browser:
            yield run, f"{address}/watch/", browser
        nursery.cancel_scope.cancel()


async def fits(page):
    """Check that the page is not wider than its window, and that nothing hides anything."""
    wide, room = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room
    assert await page.evaluate(OVERLAPS) == 0
    assert await page.evaluate(OUTSIDE) == 0


def deep(levels=12):
    plan = Pipeline.from_iterable(range(10**9), name="deepest")
    for level in range(levels):
        plan = merge(plan, Pipeline.from_iterable(range(10**9), name=f"beside {level}"), name=f"level {level}").buffer(
            3
        )
    return plan


@pytest.mark.parametrize("make", [small, large, hostile, deep])
def test_it_fits_any_window_and_shows_every_stage(make, profile):
    """At 400 and 1400 pixels, light and dark, and when the window changes."""

    async def main():
        async with shown(make(), profile) as (run, address, browser):
            names = [stage.name for stage in run.statistics().stages]
            page = await browser.open(address, 400, 800)
            await page.until(HAS_NUMBERS)
            for width in (400, 1400, 320, 700, 400):
                await page.resize(width, 800)
                await page.until(f"innerWidth === {width} && drawnFor <= {width} && drawnFor > {width - 40}")
                await fits(page)
            assert len(await page.evaluate(ALL_NAMES)) == len(names)
            if make is not hostile:  # what is not seen there is shown by its number
                assert await page.evaluate(ALL_NAMES) == names
            dark = await browser.open(address, 1400, 800, dark=True)
            await dark.until(HAS_NUMBERS)
            colours = [await each.evaluate("getComputedStyle(document.body).backgroundColor") for each in (page, dark)]
            assert colours == ["rgb(255, 255, 255)", "rgb(20, 24, 31)"]
            await fits(dark)

    run_real(main)


def test_numbers_follow_the_run_to_its_end(profile):
    async def main():
        async with shown(small(), profile) as (run, address, browser):
            page = await browser.open(address)
            await page.until(HAS_NUMBERS)
            taken = "Number(facts.children[2].querySelector('dd').textContent.replace('k', 'e3'))"
            before = await page.evaluate(taken)
            await page.until(f"{taken} > {before}")
            assert await page.evaluate("at('state').textContent") == "running"
            assert await page.evaluate("document.title + at('name').textContent") == "tenantstenants"
            await page.until("at('errors').textContent.includes('Busy in call big')")
            await page.until("at('shares').textContent.includes('tenants / big75 %')")
            await page.until("document.querySelectorAll('.node.limit').length === 1")
            await page.until("parseFloat(document.querySelector('.link .fill i').style.width) > 0")
            run.pause()
            await page.until("at('state').textContent === 'paused'")
            run.drain_nowait()
            await page.until("at('notice').textContent.startsWith('The run is over: drained.')")
            assert await page.evaluate("at('state').className") == "state drained"
            assert await page.evaluate("at('notice').hidden") is False

    run_real(main)


def test_it_says_when_the_server_is_gone_and_when_it_is_back(profile):
    async def main():
        async with small().open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            async with chromium(profile) as browser:
                async with serving(watch_app(run, period=0.1)) as address:
                    page = await browser.open(address)
                    await page.until(HAS_NUMBERS)
                    assert await page.evaluate("at('notice').hidden")
                await page.until("at('notice').textContent.startsWith('The server does not answer. These numbers are')")
                async with serving(watch_app(run, period=0.1), address):
                    await page.until("at('notice').hidden")
            nursery.cancel_scope.cancel()

    run_real(main)


def test_a_click_tells_more_about_a_stage(profile):
    async def main():
        async with shown(small(), profile) as (_run, address, browser):
            page = await browser.open(address, 400, 800)
            await page.until(HAS_NUMBERS)
            await page.evaluate("document.querySelectorAll('button.node')[1].click()")
            about = await page.evaluate("at('about').innerText")
            for said in ("stage call big", "4 at a time", "retry", "rate limit", "link of 16", "p99", "Busy"):
                assert said in about
            await fits(page)
            await page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
            assert await page.evaluate("at('about').hidden")
            await page.evaluate("document.querySelectorAll('button.node')[0].click()")
            assert "source big" in await page.evaluate("at('about').innerText")
            await page.evaluate("at('about').querySelector('button').click()")
            assert await page.evaluate("at('about').hidden")

    run_real(main)


def test_names_are_texts(profile):
    """Nothing in a name runs, loads or changes the page."""

    async def main():
        async with shown(hostile(), profile) as (_run, address, browser):
            page = await browser.open(address)
            await page.until(HAS_NUMBERS)
            await page.evaluate("document.querySelectorAll('button.node')[1].click()")
            assert await page.evaluate("typeof hacked") == "undefined"
            assert await page.evaluate("document.querySelectorAll('img').length") == 0
            assert await page.evaluate("document.scripts.length") == 2
            text = await page.evaluate(
                "document.body.innerText + [...document.querySelectorAll('[title]')].map((e) => e.title)"
            )
            assert SECRET not in text
            assert "\u202e" not in text
            assert "\\u202e\\ud800\\u000a" in text
            assert HOSTILE[:40] in text

    run_real(main)
