"""Does an adaptive stage come close to the best fixed number of calls, and what does adapting cost?

Four services that too many calls are too much for (`tests/_services.py`), in virtual time: so the figures do not depend
on the machine. The best fixed number is found by trying all up to 64; nobody knows it beforehand. Every run includes
the beginning, with one call at a time.

The cost: calls that never wait, sixteen at once, told to the machine or not. That is CPU time.
"""

from __future__ import annotations

import time
from functools import partial
from operator import attrgetter

import trio

from funcpipe_trio import Adaptive, Backoff, Pipeline, Retry, Step
from funcpipe_trio.testing import run_virtual
from tests._services import SERVICES, Overloaded, Saturating, best_fixed, calling

from ._model import Benchmark, Case, Contender, Metric, Sample, Target, Timed
from ._trio_work import visit
from ._work import add

__all__ = ["BENCHMARK"]

MOST = 64
RETRY = Retry(1000, on=Overloaded, backoff=Backoff(0.1, factor=1, jitter=0))
RESULT = attrgetter("result")
ITEMS = {"saturates": 10_000, "slows down": 5_000, "fails": 5_000, "degrades": 14_000}
"""Some fifty seconds each; of the last, ninety, so that the time in which it is degraded is in the middle."""


def served(name: str, adapts: bool, items: int) -> Timed:
    """Put items through a service; the time is virtual."""
    before = time.process_time()
    service = SERVICES[name]
    number = Adaptive(1, MOST) if adapts else best_fixed(Saturating if name == "degrades" else service, MOST)[1]
    step = Step(calling(service())).retry(RETRY)
    line = Pipeline.from_iterable(range(items)).map(step, concurrency=number, ordered=False)

    async def run() -> tuple[int, float]:
        return await line.fold(add, 0), trio.current_time()

    result, seconds = run_virtual(run, max_steps=100 * items + 10_000)
    return Timed(result, Sample(time.process_time() - before, seconds))


def made(adapts: bool, items: int) -> Timed:
    """Make calls that never wait."""
    concurrency = Adaptive(16, 16) if adapts else 16
    line = Pipeline.from_iterable(range(items)).map(visit, concurrency=concurrency)
    before = time.process_time()
    result = trio.run(line.fold, add, 0)
    cpu = time.process_time() - before
    return Timed(result, Sample(cpu, cpu))


def _case(name: str) -> Case:
    return Case(
        name=f"a service that {name}",
        contenders=(
            Contender("adaptive", partial(served, name, True), RESULT),
            Contender("the best fixed number", partial(served, name, False), RESULT),
        ),
        targets=(Target("adaptive", "the best fixed number", at_most=1.25),),
        items=ITEMS[name],
        quick_items=1_000,
    )


COST = Case(
    name="the cost of a call",
    contenders=(
        Contender("adaptive", partial(made, True), RESULT),
        Contender("a fixed number", partial(made, False), RESULT),
    ),
    targets=(Target("adaptive", "a fixed number", at_most=1.3),),
    items=100_000,
    quick_items=5_000,
)


BENCHMARK = Benchmark(
    name="adaptive",
    question="does an adaptive stage come close to the best fixed number of calls, and what does adapting cost?",
    unit="us per item",
    cases=(*map(_case, SERVICES), COST),
    metric=Metric.WALL,
    per_second=1e6,
)
