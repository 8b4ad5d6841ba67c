"""The process of one contender: does a small piece of the work, waits for its turn, then does and measures the work.

A contender that hangs is ended after `LIMIT` seconds, with a traceback.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import sys
import time
import tracemalloc
from dataclasses import asdict

# Not from `.`: worker processes load this file by its path.
from benchmarks._harness import PROFILE, load
from benchmarks._model import Contender, Metric, Sample, Timed
from benchmarks._profile import Profile, profiled

__all__ = ["main"]

LIMIT = 1800.0


def main(benchmark_name: str, case_name: str, contender_name: str, items: str) -> None:
    """Print a digest of the small piece's result; when told to continue, print the measurement, or a profile."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    benchmark = load(benchmark_name)
    case = benchmark.case(case_name)
    contender = case.contender(contender_name)
    print(contender.digest(case.check_items), flush=True)  # this also warms it up
    turn, work = sys.stdin.readline().strip(), int(items) * contender.times
    if turn:
        faulthandler.dump_traceback_later(LIMIT, exit=True)  # waiting for its turn does not count
        take = _profile if turn == PROFILE else _peak if benchmark.metric is Metric.PEAK else _times
        print(json.dumps(asdict(take(contender, work))), flush=True)


def _times(contender: Contender, items: int) -> Sample:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = contender.run(items)
    sample = Sample(time.process_time() - cpu, time.perf_counter() - wall)
    if isinstance(result, Timed):
        sample = result.sample
    del result  # kept until here: freeing it is not part of the work
    return sample


def _profile(contender: Contender, items: int) -> Profile:
    return profiled(lambda: contender.run(items))


def _peak(contender: Contender, items: int) -> Sample:
    tracemalloc.start()
    sample = _times(contender, items)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Sample(sample.cpu, sample.wall, peak)


if __name__ == "__main__":
    main(*sys.argv[1:])
