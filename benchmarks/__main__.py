"""The command: ``python -m benchmarks [NAME ...] [options]``, or ``python -m benchmarks soak``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import _markdown, _plot, _report, soak
from ._harness import FULL, NAMES, QUICK, SMOKE, BenchmarkError, load, measure
from ._libraries import missing, versions
from ._model import CaseResult

__all__ = ["main"]

_DESCRIPTION = """\
Compare funcpipe_trio with other ways to do the same work.

Every contender runs in its own process, in an order that rotates from round to round, after all have given the same
result. Compare only figures from one run: the speed of a machine changes from minute to minute."""

_EPILOG = f"""\
names: {", ".join(NAMES)}
soak, with its own options (soak --help), measures nothing: it checks that nothing is lost when everything goes wrong

exit status: 0 when everything was measured, even if a target was missed (this is a measurement, not a test);
1 if contenders disagree or one fails; 2 for a wrong argument."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["soak"]:
        return soak.main(arguments[1:])
    options = _parser().parse_args(arguments)
    problem = _problem(options)
    if problem is not None:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2
    try:
        _run(options, shlex.join(["python", "-m", "benchmarks", *arguments]))
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: everything)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"few items, {QUICK.rounds} rounds instead of {FULL.rounds}: for a first look; "
        "without a NAME only the first case of each, once: to check that everything works",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="PART",
        help="use this fraction of the items, above 0 and up to 1: for a slow machine (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"number of rounds, at least 1: more for a noisy machine (default: {FULL.rounds}, quick {QUICK.rounds})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also update the tables of this page")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="also plot how cost grows (needs matplotlib)")
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments, before the measurement rather than minutes later."""
    for name in options.names:
        if name not in NAMES:
            return f"NAME must be one of {', '.join(NAMES)}, not {name!r}"
    if not 0 < options.scale <= 1:
        return f"--scale must be a number above 0 and up to 1, not {options.scale}"
    if options.rounds is not None and options.rounds < 1:
        return f"--rounds must be at least 1, not {options.rounds}"
    if options.json is not None and (options.json.is_dir() or not options.json.parent.is_dir()):
        return f"--json must name a file in a directory that exists, not {str(options.json)!r}"
    if options.markdown is not None and not _has_places(options.markdown, options.names):
        places = ", ".join(options.names) or "results"
        return f"--markdown must name a page with places for {places}, not {str(options.markdown)!r}"
    if options.plot is not None and not options.plot.is_dir():
        return f"--plot must name a directory that exists, not {str(options.plot)!r}"
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        return "--plot needs matplotlib\nUse uv run --group bench python -m benchmarks."
    return None


def _has_places(page: Path, names: Sequence[str]) -> bool:
    places = _markdown.places(page.read_text(encoding="utf-8")) if page.is_file() else set()
    return bool(places) and places.issuperset(names)


def _run(options: argparse.Namespace, command: str) -> None:
    effort = replace(FULL, scale=options.scale) if not options.quick else QUICK if options.names else SMOKE
    if options.rounds is not None:
        effort = replace(effort, rounds=options.rounds)
    benchmarks = [load(name) for name in dict.fromkeys(options.names or NAMES)]
    # With --quick nothing is downloaded: it has to work, and finish soon, on a machine without a network.
    why_not = partial(missing, make=not options.quick)
    able = [one for each in benchmarks for case in each.cases for one in case.contenders if why_not(one) is None]
    facts = _report.machine(versions(able))
    print(_report.machine_line(facts))
    results: list[CaseResult] = []
    for benchmark in benchmarks:
        print(f"\n{_report.heading(benchmark, effort)}", flush=True)
        for result in measure(benchmark, effort, why_not):
            print("\n".join(_report.case_lines(result)), flush=True)
            results.append(result)
        _write(options, command, facts, results)  # after each one, so that results are kept if a later one fails
    print(f"\n{_report.summary(results)}")


def _write(options: argparse.Namespace, command: str, facts: dict[str, Any], results: Sequence[CaseResult]) -> None:
    if options.json is not None:
        written = {"command": command, "machine": facts, "results": [_report.as_json(each) for each in results]}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if options.markdown is not None:
        page = options.markdown.read_text(encoding="utf-8")
        for name in dict.fromkeys(each.benchmark.name for each in results):
            block = [each for each in results if each.benchmark.name == name]
            page = _markdown.page_with(page, name, block, facts, command)
        page = _markdown.page_with_targets(page, results, NAMES)
        options.markdown.write_text(page, encoding="utf-8")
    if options.plot is not None:
        _plot.draw(results, options.plot)


if __name__ == "__main__":
    sys.exit(main())
