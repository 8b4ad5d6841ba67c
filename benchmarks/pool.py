"""What does it cost to put an item through an async call, with several calls at once?

The call is a single checkpoint (``asyncio.sleep(0)``), so that the cost of the pool shows. On trio and on asyncio the
contender is a hand-written worker pool: a task feeds a channel, N workers take from it and send to a second, the main
task collects. In the ordered version the workers carry each item's number, and the main task keeps early results in a
dict until their turn; unlike ours that dict has no bound, which makes it cheaper. The libraries use the one operator
that they have for it; all of them run on uvloop.

Two contenders are not pools, and show the minimum for a pool: the calls alone on trio, that many at once, without a
queue, an order or an end; and streamable at a concurrency of 1, which is a plain loop without a task.

Note that a trip through trio's scheduler costs several times as much as one through uvloop's, and that every contender
makes at least one per item.
"""

from __future__ import annotations

from collections.abc import Callable

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

LIBRARIES = {
    "ordered": ("aiostream", "streamable", "aiometer"),
    "unordered": ("aiostream", "streamable", "aiometer", "reactivex"),
}

ALONE = "trio, the calls alone"

# The results of an ordered pool must already be in order; those of an unordered one are sorted first.
VIEWS: dict[str, Callable[[list[int]], object]] = {
    "ordered": tuple,
    "unordered": lambda results: tuple(sorted(results)),
}


def _contenders(concurrency: int, order: str) -> tuple[Contender, ...]:
    view, ordered = VIEWS[order], order == "ordered"
    libraries = {
        "aiostream": way("by_aiostream:pool", concurrency, ordered),
        "streamable": way("by_streamable:pool", concurrency, ordered),
        "aiometer": way(f"by_aiometer:pool_{order}", concurrency),
        "reactivex": way("by_reactivex:pool_unordered", concurrency),
    }
    return (
        Contender(f"funcpipe {order}", way("ours:pool", concurrency, ordered), view),
        Contender(f"trio {order}", way(f"by_trio:pool_{order}", concurrency), view),
        Contender(f"asyncio on uvloop {order}", way(f"by_asyncio:pool_{order}", concurrency), view, needs=("uvloop",)),
        *(Contender(f"{name} {order}", libraries[name], view, needs=(name, "uvloop")) for name in LIBRARIES[order]),
    )


def _targets(order: str) -> tuple[Target, ...]:
    ours = f"funcpipe {order}"
    return (
        Target(f"trio {order}", ours, at_least=2.0),
        Target(f"asyncio on uvloop {order}", ours),
        *(Target(f"{name} {order}", ours, at_least=1.0) for name in LIBRARIES[order]),
    )


def _case(concurrency: int) -> Case:
    return Case(
        name=f"concurrency {concurrency}",
        contenders=(
            *_contenders(concurrency, "ordered"),
            *_contenders(concurrency, "unordered"),
            Contender(ALONE, way("by_trio:calls", concurrency), VIEWS["ordered"]),
        ),
        targets=(
            *_targets("ordered"),
            *_targets("unordered"),
            Target("funcpipe ordered", "funcpipe unordered", at_most=1.2),
            Target(ALONE, "funcpipe unordered"),
        ),
        items=50_000,
        quick_items=2_000,
        check_items=500,
        points={"concurrency": concurrency},
    )


BENCHMARK = Benchmark(
    name="pool",
    question="what does it cost to put an item through an async call, with several calls at once?",
    unit="ns per item",
    cases=tuple(map(_case, (1, 10, 100))),
)
