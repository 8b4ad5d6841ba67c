"""What a report says of links, keys and branches; what it says of policies is in `test_policy_report.py`."""

import ast
import inspect
import itertools

import pytest
import trio

import funcpipe_trio
from funcpipe_trio import BufferOverflow, FairShare, Pipeline, fair_merge
from funcpipe_trio._runtime.reports import counts, report
from funcpipe_trio.testing import run_virtual
from tests._kit import nap


def told(line):
    return run_virtual(line.run).describe().splitlines()


def numbers(count, name="numbers"):
    async def each():
        for number in range(count):
            await trio.sleep(0.25)
            yield number

    return Pipeline.from_async_iterable(each, name=name)


def test_it_says_where_an_overflow_policy_dropped():
    """The table of stages has nothing of it, since no stage dropped them; the name is the buffer's."""
    named = numbers(8).buffer(1, overflow="drop_oldest", name="latest").map(nap)
    unnamed = numbers(8).buffer(1, overflow="drop_newest").map(nap)

    assert told(named)[-1] == "link latest behind numbers: 5 dropped"
    assert told(unnamed)[-1] == "link behind numbers: 5 dropped"


def test_it_tells_inputs_keys_and_branches_apart():
    """For weights decide of inputs while all had work, of keys while others had; of branches they decide nothing."""
    line = (
        fair_merge(
            {"left": Pipeline.from_iterable("aab"), "right": Pipeline.from_iterable("ab")}, FairShare({"left": 2})
        )
        .fair_by(str, FairShare({"b": 3}), max_keys=2)
        .partition(str, {"a": lambda items: items.map(nap), "b": lambda items: items})
    )
    lines = told(line)

    assert lines[-12:] == [
        "",
        "input               weight  taken  while all had work  share",
        "fair_merge / left        2      3                   2  50.0%",
        "fair_merge / right       1      2                   2  50.0%",
        "",
        "key      weight  taken  while others had work  share of all",
        "str / a       1      3                      1         60.0%",
        "str / b       3      2                      2         40.0%",
        "",
        "branch                gave",
        "partition joined / a     3",
        "partition joined / b     2",
    ]


@pytest.mark.parametrize(("name", "called"), [("queue", "buffer 'queue' of 1"), (None, "buffer of 1")])
def test_a_buffer_has_its_name_in_the_plan_in_reports_and_in_its_error(name, called):
    """Also where it is the link of a branch; without a name nothing is said of one."""

    def full(line):
        return line.buffer(1, overflow="fail", name=name).map(nap)

    plain = full(numbers(4))
    branch = numbers(4).broadcast({"one": full})

    for line, behind in ((plain, "'numbers'"), (branch, "branch 'broadcast.one'")):
        alias = "" if name is None else f" as {name}"
        assert f"  | link of 1{alias}, fails when full" in line.describe()
        with pytest.raises(BufferOverflow, match=f"^the {called} (behind|of) {behind} was full\\n"):
            run_virtual(line.run)

    async def links():
        async with numbers(1).buffer(1, name=name).map(nap).open() as run:
            return [link.name for link in run.statistics().links]

    assert run_virtual(links) == [name, None]


REPORTS = [getattr(funcpipe_trio, name) for name in (*counts.__all__, *report.__all__) if hasattr(funcpipe_trio, name)]
REPORTS = [each for each in REPORTS if isinstance(each, type)]


def documented(cls):
    """Return the docstring that stands under each field of a class, as its source has them."""
    source = inspect.getsource(counts) + inspect.getsource(report).replace("from __future__ import annotations", "")
    (tree,) = (node for node in ast.walk(ast.parse(source)) if _defines(node, cls))
    texts = {}
    for node, after in itertools.pairwise([*tree.body, ast.Pass()]):
        if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            texts[node.target.id] = after.value.value if is_text else ""
    return texts


def _defines(node, cls):
    return isinstance(node, ast.ClassDef) and node.name == cls.__name__


@pytest.mark.parametrize("cls", REPORTS, ids=lambda cls: cls.__name__)
def test_every_field_of_a_report_says_what_it_is(cls):
    """A sentence each; without a colon, which makers of pages take for the end of a type."""
    texts = documented(cls)

    assert list(texts) == [name for name in cls.__slots__ if not name.startswith("_")]
    assert [name for name, text in texts.items() if len(text.split()) < 2 or not text.endswith(".")] == []
    assert [name for name, text in texts.items() if ": " in text] == []


def test_all_kinds_of_reports_are_looked_at():
    assert {cls.__name__ for cls in REPORTS} == {
        *(
            "AdaptiveReport",
            "InputReport",
            "Latency",
            "LimitWaitReport",
            "LinkReport",
            "PolicyReport",
            "RemakeReport",
            "Report",
            "RunStatistics",
            "StageReport",
        )
    }
