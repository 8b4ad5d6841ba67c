"""A report as a picture and in a notebook; a plan in a notebook: complete, harmless, and without the user's data.

Mutants that die here: a stage without a bar; a bar that is longer than its time; a bottleneck that is not marked; a
name that is markup, or mathematics; a key of a `fair_by` or the text of an error in what is kept and passed on.
"""

import re
import sys
from functools import partial
from html.parser import HTMLParser

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import OnError, Pipeline, merge
from funcpipe_trio._runtime.reports.plot import MOST
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, every, nap
from tests.watch._plans import HOSTILE, SECRET, hostile, large, small


async def left(plan):
    async with plan.open() as run:
        with trio.move_on_after(4):
            async for _ in run:
                await trio.sleep(0.01)
    return run.report


REPORTS = {make.__name__: run_virtual(partial(left, make())) for make in (small, large, hostile)}
VOID = {"br"}


class Reader(HTMLParser):
    """What a browser makes of it: the texts, and the kinds of elements; every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.kinds, self.open = [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.kinds.add(tag)
        assert {name for name, _ in attributes} <= {"style"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def named(name):
    line = Pipeline.from_iterable(range(3), name=name).map(nap, name=name)
    return merge(line, line, name=name).broadcast({name: lambda items: items, "b": lambda items: items}, name=name)


# ---- pictures


@pytest.mark.parametrize(
    ("name", "ending"), [("small", "svg"), ("small", "png"), ("small", "pdf"), ("hostile", "png"), ("large", "svg")]
)
def test_a_report_is_drawn_in_each_form_and_always_the_same(name, ending, tmp_path):
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    REPORTS[name].plot(first)
    REPORTS[name].plot(str(second))

    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 1000


def test_the_picture_shows_stages_shares_and_the_limit(tmp_path):
    report = REPORTS["small"]
    report.plot(tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)

    for stage in report.stages:
        assert (f"▶ {stage.name}" if stage.name == report.bottleneck else stage.name) in shown
    assert {"in use", "waits for room", "waits for input", "waits for earlier items", "due by weight"} <= set(shown)
    assert {"tenants / big", "tenants / small"} <= set(shown)
    assert any(line.startswith("left after 4.") for line in shown)


def test_no_name_is_mathematics_and_no_data_is_in_it(tmp_path):
    for report in (REPORTS["hostile"], run_virtual(partial(left, named(r"$\frac{1}{0}$")))):
        report.plot(tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text()
        assert SECRET not in text
        assert "<script" not in text
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)  # also a comment has it
    assert sum(r"$\frac{1}{0}$" in each for each in shown) >= 4  # two stages, a share, what limits the run


def test_of_many_stages_the_busiest_are_drawn(tmp_path):
    plan = every(1, range(3))
    for number in range(MOST + 20):
        plan = plan.map(nap, name=f"stage {number}")
    report = run_virtual(partial(left, plan))
    report.plot(tmp_path / "a.svg")

    assert f"and {len(report.stages) - MOST} stages that were less busy" in (tmp_path / "a.svg").read_text()


def test_a_run_in_which_nothing_happened_has_a_picture(tmp_path):
    async def main():
        async with Pipeline.from_iterable([]).open() as run:
            pass
        return run.report

    run_virtual(main).plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ImportError, match=r'pip install "funcpipe-trio\[plot\]"'):
        REPORTS["small"].plot(tmp_path / "a.svg")


def test_wrong_paths_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Report\.plot: path must be a str or a path, not 3"):
        REPORTS["small"].plot(3)
    with pytest.raises(ValueError, match="nope"):
        REPORTS["small"].plot(tmp_path / "a.nope")
    with pytest.raises(OSError, match="missing"):
        REPORTS["small"].plot(tmp_path / "missing" / "a.svg")


# ---- notebooks


@pytest.mark.parametrize("make", [small, large, hostile])
def test_a_plan_in_a_notebook_says_what_it_says_elsewhere(make):
    read = Reader(make()._repr_html_())
    text = " ".join(read.texts)

    assert read.kinds == {"div", "b", "br"}
    assert SECRET not in text or SECRET in make().describe()
    if make is not hostile:
        for line in make().describe().splitlines()[1:]:
            for said in re.sub(r"[:']| \(of an open run.*", " -> ", line).split(" -> "):
                assert said.strip(" |-") in text
    assert "items in flight: at most" in text


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_no_name_is_markup(name):
    assert Reader(named(name)._repr_html_()).kinds == {"div", "b", "br"}
    report = run_virtual(named(name).run)
    assert Reader(report._repr_html_()).kinds <= {"div", "table", "tr", "th", "td", "b"}
    for text in (named(name)._repr_html_(), report._repr_html_()):
        assert text.encode()


def test_a_plan_that_cannot_be_described_says_why():
    deep = Pipeline.from_iterable([1], name="<b>")
    for _ in range(60):
        deep = merge(deep, Pipeline.from_iterable([1]), name="again").buffer(2)
    text = deep._repr_html_()

    assert text.startswith("<pre>&lt;Pipeline")
    assert "nested" in text


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_in_a_notebook_has_its_numbers(name):
    report = REPORTS[name]
    read = Reader(report._repr_html_())

    assert SECRET not in "".join(read.texts)
    assert report.describe().splitlines()[0] in read.texts
    for stage in report.stages:
        assert {str(stage.received), str(stage.emitted)} <= set(read.texts)
    limits = [stage for stage in report.stages if stage.name == report.bottleneck]  # none if it is the consumer
    assert sum(text.startswith("▶ ") for text in read.texts) == len(limits)
    assert HOSTILE not in report._repr_html_()


def test_errors_are_told_by_their_types():
    async def fail(item):
        raise Boom(SECRET)

    plan = every(1, range(3)).map(fail, on_error=OnError.skip(max_failures=1), name="fail")

    async def main():
        async with plan.open() as run:
            with pytest.raises(Boom):
                await run.receive()
        return run.report

    text = run_virtual(main)._repr_html_()
    assert "error: Boom" in text
    assert "went on after 1 Boom in fail" in text or "1 Boom" in text
    assert SECRET not in text
