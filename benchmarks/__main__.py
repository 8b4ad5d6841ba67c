"""The command: ``python -m benchmarks [NAME ...] [--quick] [--json FILE]``, or ``python -m benchmarks soak``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import _report, soak
from ._harness import NAMES, BenchmarkError, load, measure

__all__ = ["main"]

ROUNDS, QUICK_ROUNDS = 5, 3

_DESCRIPTION = """\
Measure funcpipe_trio next to other ways to do the same work.

Every contender runs in a process of its own, in an order that rotates from round to round, after all have given the
same result. Compare only figures of one run with each other: what a machine gives changes from minute to minute."""

_EPILOG = f"""\
names: {", ".join(NAMES)}
soak, with options of its own (soak --help), measures nothing: it looks for what could be lost when all goes wrong

exit status: 0 when everything was measured, also if a target was missed (this is a measurement, not a test);
1 if contenders disagree or one fails; 2 for a wrong argument."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; answer its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["soak"]:
        return soak.main(arguments[1:])
    options = _parser().parse_args(arguments)
    problem = _problem(options.names, options.json)
    if problem is not None:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 2
    try:
        _run(options.names or NAMES, options.json, quick=options.quick)
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
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; else everything")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer items, {QUICK_ROUNDS} rounds in place of {ROUNDS}: for a first look",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to this file")
    return parser


def _problem(names: Sequence[str], json_file: Path | None) -> str | None:
    for name in names:
        if name not in NAMES:
            return f"NAME must be one of {', '.join(NAMES)}, not {name!r}"
    # Known before the measurement, not minutes after it.
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        return f"--json must name a file in a directory that exists, not {str(json_file)!r}"
    return None


def _run(names: Sequence[str], json_file: Path | None, *, quick: bool) -> None:
    facts, rounds = _report.machine(), QUICK_ROUNDS if quick else ROUNDS
    print(_report.machine_line(facts))
    results = []
    for name in names:
        benchmark = load(name)
        print(f"\n{_report.heading(benchmark, rounds)}", flush=True)
        for result in measure(benchmark, rounds=rounds, quick=quick):
            print("\n".join(_report.case_lines(result)), flush=True)
            results.append(_report.as_json(result))
    if json_file is not None:
        written = {"machine": facts, "quick": quick, "rounds": rounds, "results": results}
        json_file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
