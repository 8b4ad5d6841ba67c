"""The benchmarks work: contenders agree, and the command measures, reports and writes. No test looks at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks._harness import (
    NAMES,
    Benchmark,
    BenchmarkError,
    Case,
    CaseResult,
    Contender,
    Metric,
    Sample,
    Spread,
    Target,
    agreed_digest,
    load,
)

ROOT = Path(__file__).parents[1]
CASES = [(name, case) for name in NAMES for case in load(name).cases[: 1 if name == "processes" else None]]
"""All, but of those that start processes: they differ in one number only."""


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}, {case.name}" for name, case in CASES])
def test_all_contenders_give_the_same_result(name, case):
    """What is compared does the same work."""
    digests = {each.name: each.digest(case.check_items) for each in case.contenders}

    assert agreed_digest(case, digests) == digests[case.contenders[0].name]


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
    case = Case("c", (Contender("slow", int), Contender("fast", int)), (target,), items=10, quick_items=10, parts=5)
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


def test_the_command_measures_prints_and_writes(tmp_path):
    """From the command line to the file, with every sample in it."""
    written = tmp_path / "results.json"

    command = [sys.executable, "-m", "benchmarks", "fused", "--quick", "--json", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "fused: what do fused sync operations cost, next to plain generators?" in done.stdout
    assert "    funcpipe / generators: " in done.stdout
    results = json.loads(written.read_text(encoding="utf-8"))
    assert set(results) == {"machine", "quick", "rounds", "results"}
    (only,) = results["results"]
    assert [len(each["samples"]) for each in only["contenders"].values()] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hop", "hopp"], "benchmarks: NAME must be one of hop, fused, pool, fair, processes, memory, not 'hopp'\n"),
        (
            ["--json", "nowhere/results.json"],
            "benchmarks: --json must name a file in a directory that exists, not 'nowhere/results.json'\n",
        ),
    ],
)
def test_a_wrong_argument_is_said_in_one_line(arguments, said, capsys):
    """Before anything is measured, with exit status 2."""
    assert main(arguments) == 2

    assert capsys.readouterr().err == said
