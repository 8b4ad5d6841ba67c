"""Run random programs, and say what is wrong: ``python -m tests.random_programs --programs 20000 --seed 0``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .generate import generate
from .oracle import judge, same_trace
from .program import Program, ops_of, render, sources_of
from .run import execute, kinds_of_faults
from .shrink import shrink

SHRUNK = 3  # programs made small of each rule and detail


def examine(program: Program, twice: bool = False) -> list[tuple[str, str]]:
    """Run a program and judge it."""
    world = execute(program)
    return judge(world) or (same_trace(program, world) if twice else [])


WITHOUT: set[str] = set()


def check(seed: int) -> list[tuple[str, str]]:
    program = generate(seed)
    return [] if kinds_of_faults(program) & WITHOUT else examine(program, twice=seed % 10 == 0)


def _work(seeds: range) -> list[tuple[int, list[tuple[str, str]]]]:
    return [(seed, found) for seed in seeds if (found := check(seed))]


def kind_of(rule: str, program: Program) -> str:
    """A rule and the coarse shape of a small program that breaks it."""
    ops = sorted({op.kind if op.kind != "join" else op.how for op in ops_of(program.line)})
    sources = sorted({source.kind for source in sources_of(program.line)})
    return f"{rule} | {' '.join(sources)} | {' '.join(ops) or '-'} | {program.ending.kind}"


def smaller(program: Program, rule: str, detail: str) -> Program:
    def shows(each: Program) -> bool:
        return any(
            found[0] == rule and _same(found[1], detail) for found in examine(each, twice=rule.startswith("P17a"))
        )

    return shrink(program, shows)


def _same(a: str, b: str) -> bool:
    """Whether two details say the same, numbers aside."""
    return _plain(a) == _plain(b)


def _plain(detail: str) -> str:
    return "".join(letter for letter in detail if not letter.isdigit() and letter not in ".-")


def batches(first: int, number: int, size: int) -> Iterator[range]:
    return (range(at, min(at + size, first + number)) for at in range(first, first + number, size))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.random_programs", description=__doc__)
    parser.add_argument("--programs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--replay", type=int, help="run one seed, and show it")
    parser.add_argument("--raw", action="store_true", help="do not make it small")
    parser.add_argument("--without", nargs="*", default=[], help="kinds of errors whose programs are left out")
    args = parser.parse_args()
    WITHOUT.update(args.without)
    return replay(args.replay, args.raw) if args.replay is not None else search(args)


def replay(seed: int, raw: bool) -> int:
    program = generate(seed)
    found = examine(program, twice=True)
    print(render(program))
    for rule, detail in found:
        print(f"\n== {rule}: {detail}")
        if not raw:
            print(render(smaller(program, rule, detail)))
    return int(bool(found))


def search(args: Any) -> int:
    counts: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    kinds: dict[str, str] = {}
    done, start = 0, time.perf_counter()
    seeds = batches(args.seed, args.programs, 200)
    context = multiprocessing.get_context("fork")
    with context.Pool(args.jobs, maxtasksperchild=20) as pool:
        for results in pool.imap_unordered(_work, seeds):
            done += 200
            for seed, found in results:
                for rule, detail in found:
                    counts[rule] += 1
                    key = rule, _plain(detail)
                    shown[key] += 1
                    if shown[key] <= (0 if args.raw else SHRUNK):
                        _show(seed, rule, detail, kinds)
            rate = done / (time.perf_counter() - start)
            print(
                f"... {min(done, args.programs)} programs, {sum(counts.values())} violations, {rate:.0f}/s",
                file=sys.stderr,
            )
    print(f"\n{args.programs} programs from seed {args.seed}: {sum(counts.values())} violations of {len(counts)} rules")
    for (rule, detail), times in sorted(shown.items()):
        print(f"{times:7}  {rule}: {detail}")
    return int(bool(counts))


def _show(seed: int, rule: str, detail: str, kinds: dict[str, str]) -> None:
    small = smaller(generate(seed), rule, detail)
    kind = kind_of(rule, small)
    if kind not in kinds:
        kinds[kind] = rule
        print(f"\n==== {kind}\n{detail}; --replay {seed}\n{render(small)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
