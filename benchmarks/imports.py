"""How long does it take to import the package, compared with trio, which it needs?

Each import is made in fresh interpreters, one after another, and each measures the CPU time of the import statement
alone, with the compiled files present. The others are for comparison; anyio imports its event loop only when it runs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from ._model import Benchmark, Case, Contender, Sample, Target, Timed

__all__ = ["BENCHMARK"]

NAMES = ("aiostream", "aiometer", "streamable", "reactivex", "anyio")
CODE = "from time import process_time; before = process_time(); import {}; print(process_time() - before)"


def run(name: str, interpreters: int) -> Timed:
    wall, cpu = time.perf_counter(), 0.0
    for _ in range(interpreters):
        done = subprocess.run([sys.executable, "-c", CODE.format(name)], capture_output=True, check=True, text=True)
        cpu += float(done.stdout)
    return Timed(interpreters, Sample(cpu, time.perf_counter() - wall))


def _contender(name: str, *needs: str) -> Contender:
    return Contender(name, partial(run, name), lambda timed: timed.result, needs=needs)


BENCHMARK = Benchmark(
    name="imports",
    question="how long does it take to import the package, next to trio?",
    unit="ms per import",
    per_second=1e3,
    cases=(
        Case(
            name="import",
            contenders=(
                _contender("funcpipe_trio"),
                _contender("trio"),
                _contender("asyncio"),
                *(_contender(name, name) for name in NAMES),
            ),
            targets=(Target("funcpipe_trio", "trio", at_most=1.3),),
            items=10,
            quick_items=1,
            check_items=1,
        ),
    ),
)
