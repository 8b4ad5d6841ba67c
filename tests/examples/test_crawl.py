"""The example that crawls: the same pages under any schedule, politely, and it ends; then all of it, as a program."""

import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from funcpipe_trio.testing import Scenario, cancel_everywhere, explore_schedules, run_virtual

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "crawl.py"


@pytest.fixture(scope="module")
def example(load):
    return load("crawl")


class FakeSite:
    """The made-up pages without a network: each request takes as long as its page says."""

    def __init__(self, example, pages):
        self.site = example.Site(pages, [f"http://h:{port}" for port in (1, 2, 3)])
        self.requests = []
        self.at_work = Counter()

    async def get(self, url):
        host, _, page = url.rpartition("/")
        self.requests.append((trio.current_time(), host, url))
        self.at_work[host] += 1
        assert self.at_work[host] == 1, "two requests at once"
        await trio.sleep(0.5 if page == "none" else int(page) * 7 % 5)
        self.at_work[host] -= 1
        return (404, "") if page == "none" else (200, self.site.text(int(page)))


def within(site, example, depth):
    """Return the addresses that at most so many links lead to: a search in breadth."""
    found = {site.url(0): 0}
    level = [site.url(0)]
    for number in range(depth):
        texts = [(url, site.text(int(url.rpartition("/")[2]))) for url in level if not url.endswith("none")]
        level = [link for url, text in texts for link in example.links_in(text, url) if link not in found]
        found |= dict.fromkeys(level, number + 1)
        level = list(dict.fromkeys(level))
    return found


@pytest.mark.parametrize("depth", [0, 2, 9])
def test_the_same_pages_under_any_schedule(example, depth):
    expected = within(FakeSite(example, 40).site, example, depth)
    assert len(expected) == {0: 1, 2: 9}.get(depth, 43)

    for seed in range(100 if depth == 9 else 10):
        got = {}

        async def consume(run, lab, got=got):
            async for page in run:
                got[page.link.url] = page.link.depth
                lab.delivered += 1

        def make():
            fake = FakeSite(example, 40)
            return example.plan(fake.site.url(0), fake.get, depth=depth)

        explore_schedules(Scenario(make, consume), seeds=[seed])
        assert got == expected


def test_it_is_polite(example):
    """One request at a time for each host, as the fake asserts, and no more than five a second."""
    fake = FakeSite(example, 40)
    run_virtual(example.plan(fake.site.url(0), fake.get, depth=9).collect)

    assert len(fake.requests) == len({url for *_, url in fake.requests}) == 43
    for host in fake.site.addresses:
        times = [at for at, each, _ in fake.requests if each == host]
        assert all(later - at > 0.2 - 1e-9 for at, later in pairwise(times))


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_drain_finishes_what_is_under_way_and_says_what_is_left(example, after):
    fake = FakeSite(example, 40)
    left = []

    async def main():
        plan = example.plan(fake.site.url(0), fake.get, depth=9)
        async with plan.open(on_discard=lambda link, stage, reason: left.append((link.url, reason))) as run:
            await trio.sleep(after)
            run.drain_nowait()
            return [page.link.url async for page in run]

    got = run_virtual(main)
    assert sorted(got) == sorted(url for *_, url in fake.requests)
    assert {reason for _, reason in left} == {"drained"}
    # Whoever goes on with what is left finds the rest.
    assert {url for url, _ in left} - set(got) != set()


def test_stopped_anywhere_it_leaves_nothing_behind(example):
    def make():
        fake = FakeSite(example, 6)
        return example.plan(fake.site.url(0), fake.get, depth=3)

    cancel_everywhere(make, every=3)


def test_it_crawls_a_real_server(example, capsys):
    site = example.Site(40)

    async def main():
        async with example.served(site):
            return await example.crawl(site.url(0), 9, 1000.0)

    assert trio.run(main) == 0

    assert Counter(site.requests) == Counter(range(40))  # each once; those that are not there do not count
    assert site.most_at_once == 1
    lines = capsys.readouterr().out.splitlines()
    found = within(site, example, 9)
    assert sorted(line.split()[2] for line in lines if line[:3] in ("200", "404")) == sorted(found)
    assert any("43 delivered, 0 failed" in line for line in lines)


def started(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_it_is_a_program():
    done = started("--pages", 20, "--rate", 500)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("the hosts saw 20 requests, at most 1 at a time\n")
    assert "22 delivered, 0 failed" in done.stdout


def test_a_page_that_does_not_answer_ends_nothing(example):
    fake = FakeSite(example, 20)

    async def get(url):
        if url.endswith("/2"):
            raise OSError("refused")
        return await fake.get(url)

    pages = run_virtual(example.plan(fake.site.url(0), get, depth=9).collect)

    assert [(page.status, page.lost) for page in pages if page.link.url.endswith("/2")] == [(0, "OSError")]
    assert len(pages) > 10


def test_a_server_that_is_not_there_is_said_in_a_line(example, capsys):
    assert example.main(["http://127.0.0.1:9/"]) == 1

    said = capsys.readouterr()
    assert "ConnectError 0 http://127.0.0.1:9/\n" in said.out
    assert said.err == "crawl: 1 of the pages did not answer\n"


@pytest.mark.parametrize("wrong", [["--depth", "-1"], ["--pages", "0"], ["--rate", "0"], ["--depth", "two"]])
def test_wrong_numbers_are_refused(example, wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        example.main(wrong)

    assert caught.value.code == 2
    assert f"argument {wrong[0]}: must be at least " in capsys.readouterr().err


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/", "nothing"])
def test_an_address_that_is_none_is_refused(example, address, capsys):
    assert example.main([address]) == 2
    assert "is not an address" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C of POSIX")
def test_ctrl_c_drains_it(start):
    process = start("crawl", "--pages", 10_000, "--rate", 20)
    for line in process.stdout:
        if line.startswith("200"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.startswith("crawl: interrupted; ")
    assert "drained after" in out
