"""The benchmarks work: contenders agree; the command measures, reports, writes and draws. No test looks at a time."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import _harness, _libraries, _profile
from benchmarks.__main__ import main
from benchmarks._harness import NAMES, BenchmarkError, Effort, agreed_digest, load, measure
from benchmarks._markdown import page_with, page_with_targets, places
from benchmarks._model import Benchmark, Case, CaseResult, Contender, Metric, Sample, Spread, Target, way
from benchmarks._plot import draw
from benchmarks._profile import Profile, profiled
from benchmarks._report import case_lines, summary
from funcpipe_trio._runtime.links.link import Link
from funcpipe_trio._runtime.stages.stage import Stage

ROOT = Path(__file__).parents[1]
CASES = [(name, case) for name in NAMES for case in load(name).cases[: 1 if name == "processes" else None]]
"""All, but of those that start processes: they differ in one number only."""
FACTS = {
    "python": "CPython 3.x",
    "trio": "0.1",
    "funcpipe-trio": "0.2",
    "system": "Linux",
    "processor": "abacus",
    "cores": 2,
    "load": None,
    "libraries": {"lib": "1.0"},
}


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}, {case.name}" for name, case in CASES])
def test_all_contenders_give_the_same_result(name, case):
    """What is compared does the same work. (Those whose library is not here, or in an environment of its own, not.)"""
    here = [each for each in case.contenders if not each.isolated and _libraries.missing(each, make=False) is None]

    digests = {each.name: each.digest(case.check_items) for each in here}

    assert agreed_digest(case, digests) == digests[case.contenders[0].name]


APART = [(name, case, each) for name, case in CASES for each in case.contenders if each.isolated]


@pytest.mark.parametrize(
    ("name", "case", "contender"), APART, ids=[f"{name}, {case.name}, {each.name}" for name, case, each in APART]
)
def test_a_contender_in_an_environment_of_its_own_gives_the_same_result(name, case, contender):
    """It is asked there, and needs nothing of this environment."""
    python = _libraries.interpreter(contender.isolated, make=False)
    if python is None:
        pytest.skip(f"{contender.isolated} is not there; a benchmark without --quick makes its environment")

    command = [python, "-m", "benchmarks._contender", name, case.name, contender.name, "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)

    assert done.stdout.split() == [case.contenders[0].digest(case.check_items)]


N = 200
RESULTS = {
    "hop": sum(range(N)) + 5 * N,
    "fused": sum(range(N)) + 5 * N,
    "pool": list(range(N)),
    "fair": 2 * sum(range(N // 2)),
    "channel": sum(range(N)),
    "resilience": sum(range(N)),
    "second_calls": sum(range(N)),
    "batch": sum(range(N)),
    "loop": sum(range(N)),
    "report": sum(range(N)) + 5 * N,
    "keys": sum(range(N)),
    "memory": 2 * sum(range(N // 2)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_they_agree_on_is_right(name):
    """All could agree on nothing done."""
    assert load(name).cases[0].contenders[0].run(N) == RESULTS[name]


def test_what_counts_less_leaves_the_package_as_it_was():
    """The contender that takes counting out puts it back, or the tests after this one would run without it."""
    parts = Stage.park, Link.commit

    load("report").cases[0].contender("without").run(100)

    assert parts == (Stage.park, Link.commit)


@pytest.mark.parametrize("name", NAMES)
def test_every_target_names_contenders_of_its_case(name):
    """A table can be made from every result."""
    for case in load(name).cases:
        named = {each for target in case.targets for each in (target.left, target.right)}

        assert named <= {each.name for each in case.contenders}


def test_contenders_that_disagree_are_not_timed():
    """Another result is an error that shows who gave what."""
    case = Case("c", (), (), items=1, quick_items=1)

    with pytest.raises(BenchmarkError, match=r"^case 'c': the contenders must agree, not give {'a': '1', 'b': '2'}$"):
        agreed_digest(case, {"a": "1", "b": "2"})


def test_ratios_are_of_medians_and_their_range_is_of_single_rounds():
    """One slow round moves the range of a ratio, not the ratio."""
    target = Target("slow", "fast", at_least=3.0)
    case = Case("c", (Contender("slow", int), Contender("fast", int)), (target,), items=10, quick_items=10, divisor=5)
    rounds = tuple({"slow": Sample(slow, 0.0), "fast": Sample(1e-6, 0.0)} for slow in (4e-6, 100e-6, 2e-6))

    result = CaseResult(Benchmark("b", "?", "ns", (case,)), case, 10, rounds)

    assert result.spread("slow") == Spread(*map(pytest.approx, (80, 40, 2000)))
    assert result.compared(target) == Spread(*map(pytest.approx, (4, 2, 100)))
    assert target.met(4.0)
    assert not target.met(2.9)


def test_elapsed_time_is_compared_where_it_is_the_question():
    """Not the CPU time, which other processes spend; a comparison without a bound has nothing to miss."""
    target = Target("a", "b")
    case = Case("c", (Contender("a", int), Contender("b", int)), (target,), items=10, quick_items=10)
    rounds = ({"a": Sample(1.0, 6.0), "b": Sample(1.0, 2.0)},)

    result = CaseResult(Benchmark("b", "?", "ns", (case,), Metric.WALL), case, 10, rounds)

    assert result.compared(target).median == 3.0
    assert (target.bound, target.met(0.0)) == ("", True)


def _benchmark(**points):
    """Make a benchmark of two contenders and one that is not there, with a case for each value."""
    contenders = (
        Contender("ours", int),
        Contender("theirs", int),
        Contender("absent", way("nowhere:nothing"), needs=("no_such_library",)),
    )
    targets = (Target("theirs", "ours", at_least=3), Target("absent", "ours", at_least=1))
    ((axis, values),) = points.items()
    cases = tuple(
        Case(f"{axis} {value}", contenders, targets, items=1, quick_items=1, points={axis: value}) for value in values
    )
    return Benchmark("b", "what?", "ns", cases)


def _results(**points):
    """Make what a measurement of it gives: 10 and 20 ns, so that one target is missed."""
    benchmark = _benchmark(**points)
    rounds = ({"ours": Sample(1e-8, 0.5), "theirs": Sample(2e-8, 1.0)},)
    absent = {"absent": "no_such_library is not installed"}
    return [CaseResult(benchmark, case, 1, rounds, absent) for case in benchmark.cases]


def test_a_contender_whose_library_is_missing_is_not_started():
    """Nor does it spoil the others' comparison: it is named as missing, with its targets left out."""
    contenders = (Contender("ours", int), Contender("absent", way("nowhere:nothing"), needs=("no_such_library",)))
    case = Case("c", contenders, (Target("absent", "ours", at_least=1),), items=1, quick_items=1)

    def missing(contender):
        return _libraries.missing(contender, make=False) or "not now"  # no process is started in this test

    (result,) = measure(Benchmark("b", "?", "ns", (case,)), Effort(rounds=0), missing)

    assert result.missing == {"ours": "not now", "absent": "no_such_library is not installed"}
    assert (result.contenders, result.targets) == ((), ())


def test_an_environment_that_is_not_there_is_not_made_unasked(tmp_path, monkeypatch):
    """With --quick nothing is fetched; half an environment does not count as one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contender = Contender("isolated", int, isolated="lib==1")

    said = _libraries.missing(contender, make=False)
    (tmp_path / "funcpipe-benchmarks").mkdir()

    assert said == "lib==1 needs its own environment, which does not exist"
    assert _libraries.missing(contender, make=False) == said


def test_a_result_reads_like_this():
    """A line for each contender and target; what is missing is said, and what was missed is summed up."""
    (result,) = _results(size=[1])

    assert case_lines(result) == [
        "  size 1, 1 items",
        "    ours    10.0                               0.500 s",
        "    theirs  20.0                               1.000 s",
        "    absent  no_such_library is not installed",
        "    theirs / ours: 2.00, target >= 3: NOT REACHED",
    ]
    assert summary([result]) == "0 of 1 targets reached\n  b, size 1: theirs / ours is 2.00, not >= 3"


PROFILE = Profile((("trio", "_core._run.unrolled_run", 6), ("funcpipe_trio", "x.f", 3), ("funcpipe_trio", "x.g", 1)))


def test_where_the_time_goes_is_shown_with_a_missed_target():
    """Each package's part, and the functions that take the most; on the screen, and in the page."""
    result = replace(_results(size=[1])[0], profiles={"ours": PROFILE})

    page = page_with("<!-- benchmark b -->\n<!-- end of b -->\n", "b", [result], FACTS, "python -m benchmarks b")

    assert case_lines(result)[-4:] == [
        "    where the time of ours goes: trio 60%, funcpipe_trio 40%",
        "       60%  trio._core._run.unrolled_run",
        "       30%  funcpipe_trio.x.f",
        "       10%  funcpipe_trio.x.g",
    ]
    assert page.endswith(
        "| size 1 | theirs / ours | 2.00 | >= 3 | NOT REACHED |\n"
        "\n"
        "Where the time of ours goes, size 1: trio 60%, funcpipe_trio 40%.\n"
        "\n"
        "| share | function |\n|---|---|\n"
        "| 60% | `trio._core._run.unrolled_run` |\n"
        "| 30% | `funcpipe_trio.x.f` |\n"
        "| 10% | `funcpipe_trio.x.g` |\n"
        "<!-- end of b -->\n"
    )


def test_a_look_counts_for_the_innermost_function_of_a_package(monkeypatch):
    """What the standard library does for it is its own cost; the previous signal handler is restored."""
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(_profile, "ENOUGH", 0.2)

    profile = profiled(lambda: load("fused").cases[0].contenders[0].run(2_000))

    assert {"funcpipe_trio", "benchmarks", "trio"} >= profile.packages().keys() - {"elsewhere"}
    assert "funcpipe_trio" in profile.packages()
    assert sum(profile.packages().values()) == pytest.approx(1)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_look_does_not_count_for_a_folder_that_is_named_as_a_package(monkeypatch):
    """Catches a look at a library whose path leads through this project's own folder: its environment is in there."""
    monkeypatch.setattr(_profile, "ENOUGH", 0.05)
    library = {"__name__": "library"}
    code = "def spin():\n    for _ in range(100_000):\n        pass\n"
    exec(compile(code, "/home/me/funcpipe_trio/.venv/lib/library.py", "exec"), library)

    assert profiled(library["spin"]).packages().keys() == {"benchmarks"}  # which called it


def _measured_without_reaching_a_target():
    """Measure ours next to plain generators, by a target that nobody reaches."""
    benchmark = load("fused")
    never = Target("funcpipe", "generators", at_most=0.0)
    here = tuple(each for each in benchmark.cases[0].contenders if not each.needs)
    case = replace(benchmark.cases[0], contenders=here, targets=(never,), quick_items=200)
    (result,) = measure(replace(benchmark, cases=(case,)), Effort(rounds=1, few_items=True), lambda _: None)
    assert result.missed == (never,)
    return result


def test_where_there_is_no_timer_nothing_is_looked_into(monkeypatch):
    """Catches a benchmark that fails on Windows where a target is missed."""
    monkeypatch.setattr(_harness, "ABLE", False)

    assert not _measured_without_reaching_a_target().profiles


def test_those_of_ours_that_miss_a_target_are_looked_into():
    """In a process of their own; others, and those that reach what they should, are not."""
    profiles = _measured_without_reaching_a_target().profiles

    assert profiles.keys() == {"funcpipe"}
    assert profiles["funcpipe"].packages()["funcpipe_trio"] > 0


def test_the_tables_of_a_page_are_put_in_their_place_and_all_else_stays():
    """Also a second time: what was there before is gone."""
    rest = "<!-- end of b -->\n\n<!-- benchmark c -->\n<!-- end of c -->\nmore words\n"
    page = f"# Words\n<!-- benchmark b -->\nold\n{rest}"

    once = page_with(page, "b", _results(size=[1, 2]), FACTS, "python -m benchmarks b")

    assert places(page) == {"b", "c"}
    assert page_with(once, "b", _results(size=[1, 2]), FACTS, "python -m benchmarks b") == once
    assert once == (
        "# Words\n<!-- benchmark b -->\n"
        "`python -m benchmarks b`: CPU time, ns; median of 1 (min..max). CPython 3.x, trio 0.1, funcpipe-trio 0.2, "
        "Linux, abacus, 2 cores; lib 1.0.\n"
        "\n"
        "|  | size 1 | size 2 |\n|---|---|---|\n"
        "| ours | 10.0 | 10.0 |\n| theirs | 20.0 | 20.0 |\n| absent | not there | not there |\n"
        "\n"
        "| case | compared | median (min..max) | target |  |\n|---|---|---|---|---|\n"
        "| size 1 | theirs / ours | 2.00 | >= 3 | NOT REACHED |\n"
        "| size 2 | theirs / ours | 2.00 | >= 3 | NOT REACHED |\n"
        f"{rest}"
    )


def test_all_targets_stand_in_one_table():
    """What has no bound is no target; what was not measured this time stays, in the order of the benchmarks."""
    kept, gone = "| `a` | c | x / y | 1.00 | >= 1 | reached |\n", "| `b` | size 0 | x / y | 1.00 | >= 1 | reached |\n"
    before = f"words\n<!-- targets -->\n{gone}{kept}<!-- end of targets -->\nwords\n"

    page = page_with_targets(before, _results(size=[1, 2]), ["a", "b"])

    assert places(page) == set()
    assert page == (
        "words\n<!-- targets -->\n"
        "| benchmark | case | compared | median (min..max) | target |  |\n|---|---|---|---|---|---|\n"
        f"{kept}"
        "| `b` | size 1 | theirs / ours | 2.00 | >= 3 | NOT REACHED |\n"
        "| `b` | size 2 | theirs / ours | 2.00 | >= 3 | NOT REACHED |\n"
        "<!-- end of targets -->\nwords\n"
    )


def test_the_page_has_a_place_for_every_benchmark():
    """And only for those that there are."""
    assert places((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")) == set(NAMES)


def test_every_picture_of_the_page_is_one_that_is_drawn():
    """One is drawn for each number that a benchmark changes."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\(plots/([\w-]+)\.svg\)", page))
    axes = {(name, axis) for name in NAMES for case in load(name).cases for axis in case.points}

    assert shown <= {f"{name}-{axis.replace(' ', '-')}" for name, axis in axes}


def test_a_picture_is_drawn_where_a_number_changes(tmp_path):
    """Twice the same picture from the same results; none of a single point."""
    pytest.importorskip("matplotlib")

    drawn = draw(_results(size=[1, 2]), tmp_path)

    assert drawn == [tmp_path / "b-size.svg"]
    first = drawn[0].read_bytes()
    assert draw(_results(size=[2, 1]), tmp_path) == drawn
    assert drawn[0].read_bytes() == first
    assert draw(_results(size=[1]), tmp_path) == []


def test_the_command_measures_prints_and_writes(tmp_path):
    """From the command line to the files, with every sample in them."""
    written, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text("<!-- benchmark memory -->\n<!-- end of memory -->\n")

    command = [sys.executable, "-m", "benchmarks", "memory", "--quick"]
    files = ["--json", str(written), "--markdown", str(page)]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "memory: does memory grow with the length of the stream?" in done.stdout
    assert "    100 N items - N items: " in done.stdout
    assert "1 of 1 targets reached" in done.stdout
    results = json.loads(written.read_text(encoding="utf-8"))
    assert set(results) == {"command", "machine", "results"}
    (only,) = results["results"]
    assert [len(each["samples"]) for each in only["contenders"].values()] == [1, 1]
    assert "| slow consumer | 100 N items - N items | " in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hop", "hopp"], f"benchmarks: NAME must be one of {', '.join(NAMES)}, not 'hopp'\n"),
        (
            ["--json", "nowhere/results.json"],
            "benchmarks: --json must name a file in a directory that exists, not 'nowhere/results.json'\n",
        ),
        (
            ["hop", "--markdown", "nowhere.md"],
            "benchmarks: --markdown must name a page with places for hop, not 'nowhere.md'\n",
        ),
        (["fused", "--rounds", "0"], "benchmarks: --rounds must be at least 1, not 0\n"),
        (["--plot", "nowhere"], "benchmarks: --plot must name a directory that exists, not 'nowhere'\n"),
    ],
)
def test_a_wrong_argument_is_said_in_one_line(arguments, said, capsys):
    """Before anything is measured, with exit status 2."""
    assert main(arguments) == 2

    assert capsys.readouterr().err == said
