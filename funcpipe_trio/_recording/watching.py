"""Which parts of a run are watched where others ask them? Its sources, its consumer, its stages.

Each is watched by a function in the place of one of its methods, so a run without a recorder has nothing to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from .._base.functions import AnyFunction
from .._plan.nodes import Plan
from .._runtime.core.ledger import OnDiscard
from .._runtime.core.signals import END, PENDING
from .._runtime.junctions.fan_in import MergeInlet
from .._runtime.run.run import Consumer
from .._runtime.run.run_context import RunContext
from .._runtime.stages.sources import AsyncSource, IterableInlet, TickSource
from .recording import CONSUMER, Place
from .roles import plain_cost
from .run_tapes import Tapes
from .streams import Counted


def watch(consumer: Consumer, tapes: Tapes, *, is_timed: bool) -> None:
    """Watch the parts of a run that is about to begin; `is_timed` if sync functions take any time by its clock."""
    engine = consumer.engine
    for source in engine.parts.sources:
        if isinstance(source, IterableInlet):
            tapes.at_end.append(_counting(source, tapes))
        elif not isinstance(source, TickSource):
            _watch_source(source, tapes)
    for stage in engine.stages:
        for operation in unbatching(stage.chain):
            _watch_unbatch(operation, tapes)
        if is_timed and (stage.chain.operations or isinstance(stage.chain.inlet, IterableInlet)):
            _watch_bursts(stage.chain, tapes)  # in others no function of the user's holds the event loop
    for merge in engine.parts.fan_ins:
        if isinstance(merge, MergeInlet) and merge.share.cost is not None:
            replace_costs(merge, partial(_noted_cost, tapes, merge.name, merge.share.cost))
    for each in sorting(engine):
        _watch_order(each, tapes)
    engine.on_change = lambda what: tapes.changes.append((tapes.now(), what))
    engine.open_inner = partial(_inner, tapes, engine.cleanup_timeout)
    tapes.has_consumer = engine.sink is None
    if tapes.has_consumer:
        _watch_consumer(consumer, tapes)


def unbatching(chain: Any) -> list[Any]:
    """Return those operations of a stage that are `Pipeline.unbatch`."""
    from .._runtime.operations.expanding import UnbatchOp  # loaded when a run is recorded or played

    return [operation for operation in chain.operations if isinstance(operation, UnbatchOp)]


def sorting(engine: Any) -> list[Any]:
    """Return the merges of sorted inputs in a run."""
    if len(engine.parts.fan_ins) == 0:
        return []
    from .._runtime.junctions.sorting import SortedInlet  # likewise

    return [each for each in engine.parts.fan_ins if isinstance(each, SortedInlet)]


def _watch_order(merge: Any, tapes: Tapes) -> None:
    """Note at which place each item of each input came, which only a comparison of items can tell."""
    take, places = merge.heads.take, count()
    adds = [tapes.tape(merge.name, f"order of {number}", "answers").add for number in range(len(merge.inlets))]

    def taken() -> Any:
        head = take()
        adds[head.number](next(places))
        return head

    merge.heads.take = taken


def _counting(source: IterableInlet, tapes: Tapes) -> Callable[[], None]:
    ends = tapes.tape(source.chain.name, "ends", "ends")

    def count() -> None:
        tapes.counts[Place(source.chain.name, "items", "items")] = source.taken
        if source.exhausted:
            failure = source.failure
            ends.add(0.0 if failure is None else [0.0, tapes.failure(source.chain.name, failure.error)])

    return count


def _watch_source(source: AsyncSource, tapes: Tapes) -> None:
    name, ask, now = source.chain.name, source.next, tapes.now
    pulled, came, ended = (tapes.tape(name, role, role).add for role in ("pulls", "arrivals", "ends"))
    fail, has_ended = source.fail, False

    async def asked() -> Any:
        nonlocal has_ended
        since, source.opened_in = now() - source.opened_in, 0.0
        try:
            item = await ask()
        except BaseException as error:
            has_ended = True
            ended(tapes.ending(name, since, error))
            raise
        at = now()
        if item is END:
            ended(at - since)
        else:  # both tapes keep the same ones
            pulled(at - since)
            came(at - tapes.began)
        return item

    def failed(error: Exception) -> None:
        if not has_ended:  # it was not even opened
            ended(tapes.ending(name, now() - source.opened_in, error))
        fail(error)

    source.next, source.fail = asked, failed  # type: ignore[method-assign]


def _watch_unbatch(operation: Any, tapes: Tapes) -> None:
    opened, name = operation.open, operation.name
    add = tapes.tape(name, "fn", "counts").add

    def opening(value: Any) -> Any:
        try:
            children = opened(value)
        except Exception as error:
            add([0, tapes.failure(name, error)])
            raise
        return Counted(tapes, name, children, add)

    operation.open = opening


def _watch_bursts(chain: Any, tapes: Tapes) -> None:
    """Add up how many values its bursts moved, and how long they held the event loop."""
    burst, now, outlet = chain.burst, tapes.now, chain.outlet
    total = [0, 0.0]

    def timed(room: int) -> Any:
        since, before = now(), outlet.given()
        try:
            return burst(room)
        finally:
            total[0] += outlet.given() - before
            total[1] += now() - since

    chain.burst = timed
    tapes.at_end.append(lambda: tapes.tape(chain.name, "bursts", "bursts").add(total))


def _noted_cost(tapes: Tapes, name: str, cost: AnyFunction, number: int) -> AnyFunction:
    return tapes.noting(name, f"cost of {number}", cost, plain_cost)


def replace_costs(merge: MergeInlet, cost_of: Callable[[int], AnyFunction]) -> None:
    """Let each input of a merge, by its number, have its own function for what an item costs."""
    costs = [cost_of(number) for number in range(len(merge.inputs))]
    current = 0  # the number of the input that gave the latest item

    def marked(items: Iterator[Any], number: int) -> Iterator[Any]:
        nonlocal current
        for item in items:
            current = number
            yield item

    def cost(item: Any) -> Any:
        return costs[current](item)

    for number, each in enumerate(merge.inputs):
        each.items = marked(each.items, number)
    merge.share = replace(merge.share, cost=cost)


def _inner(tapes: Tapes, cleanup_timeout: float, plan: Plan, on_discard: OnDiscard) -> RunContext[Any]:
    """Return the block of a run inside of an item, watched."""
    _plan, witness = tapes.inner.pop(id(plan), (None, None))
    return RunContext(plan, on_discard=on_discard, cleanup_timeout=cleanup_timeout, witness=witness, is_logged=False)


def _watch_consumer(consumer: Consumer, tapes: Tapes) -> None:
    """Note how long it is until it asks for the first item, how long it holds each, and what it does at the end.

    That is how long it asks in vain, or how long it is from the end of the items to that of the run.
    """
    take, now, tape = consumer.take, tapes.now, tapes.tape(CONSUMER, "holds", "holds")
    keep, samples, most = tape.samples.append, tape.samples, tape.most
    given: float | None = tapes.began  # when it got its last item, until it asks for the next
    asked = 0.0  # when it asked last
    ended: float | None = None  # when it was told that there are no more

    def taken() -> Any:
        nonlocal given, asked, ended
        is_first = given is not None  # the first time that it asks for this item
        if given is not None:
            asked = now()
            keep(asked - given)
            if len(samples) > most:
                tape.thin()
            given = None
        try:
            item = take()
        except Exception:
            ended = now() if ended is None else ended
            raise
        if item is not PENDING:  # at once, or after a wait
            given = asked if is_first else now()
        return item

    def end() -> None:
        if given is None:
            tapes.tape(CONSUMER, "ends", "ends").add([now() - asked] if ended is None else now() - ended)
        else:
            tape.add(now() - given)

    consumer.take = taken
    tapes.at_end.append(end)
