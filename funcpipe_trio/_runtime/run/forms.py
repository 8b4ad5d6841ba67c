"""Which class runs a plan value: fused into a stage, or as the stage itself?

Two tables, from the type of a plan value to what makes its running form; an operation is added to one of them, or to
both. What only a rare operation needs is imported where that is made, here, and for a circuit in `layers`: 1 ms when a
program first runs one, instead of an eighth of what the import of this package adds to trio's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Any

from ..._plan import operations as plan
from ..._plan import timing
from ..._plan.failures import MapSome, OnEnd, OnOk, OrElse, Recover
from ..._plan.fair_by import FairBy
from ..._plan.layout import StageLayout
from ..._plan.loops import Again
from ..._plan.nodes import Source
from ..._plan.own import Through, WithState
from ..._plan.resources import IterableInThread, UsingSource
from ..._plan.restarts import RestartingSource
from ..._plan.windows import Distinct, Sliding, Window
from ...policies.adaptive import Adaptive
from ...policies.on_error import Divert
from ...policies.on_full import OnFull
from ..calls.calling import Calling
from ..calls.step_calls import calling_of, concern_of, layered
from ..core.protocols import Inlet, Outlet
from ..links.fair_link import FairLink
from ..links.link import Link
from ..links.lossy_link import LossyLink
from ..operations import per_item
from ..operations.base import FusedOperation
from ..operations.fair_by import FairByOp
from ..operations.overflow_guard import OverflowGuard, OverflowMerge
from ..pools.pool import Pool
from ..stages.chain import Chain, Ends
from ..stages.diverting import DivertingStage
from ..stages.sources import AsyncIterableSource, AsyncSource, ChannelSource, IterableInlet, ProducerSource, TickSource
from ..stages.stage import Stage
from .parts import AnyStage, Parts

# ---- fused into a stage

_FUSED: dict[type[plan.Operation], Callable[[Any], FusedOperation]] = {
    plan.Map: per_item.MapOp,
    plan.Filter: per_item.FilterOp,
    plan.Scan: per_item.ScanOp,
    plan.Tap: per_item.TapOp,
    plan.Enumerate: per_item.EnumerateOp,
    plan.Take: per_item.TakeOp,
    plan.Skip: per_item.SkipOp,
    plan.TakeWhile: per_item.TakeWhileOp,
    plan.TakeUntil: per_item.TakeUntilOp,
    plan.SkipWhile: per_item.SkipWhileOp,
    plan.Route: per_item.RouteOp,
}


def _rarely_fused() -> dict[type[plan.Operation], Callable[[Any], FusedOperation]]:
    from ..operations import expanding, map_some, windows

    return {
        plan.FlatMap: expanding.FlatMapOp,
        OnOk: map_some.MapSomeOp,
        Recover: map_some.MapSomeOp,
        plan.Batch: _batch,
        plan.Unbatch: expanding.UnbatchOp,
        Window: windows.WindowOp,
        Sliding: windows.SlidingOp,
        Distinct: windows.DistinctOp,
        WithState: _stateful,
    }


def _batch(operation: plan.Batch) -> FusedOperation:
    if operation.key is None:
        from ..operations.batching import BatchOp

        return BatchOp(operation)
    from ..operations.keyed_batching import KeyedBatchOp

    return KeyedBatchOp(operation)


def _stateful(operation: WithState) -> FusedOperation:
    if operation.key is None:
        from ..operations.own import StatefulOp

        return StatefulOp(operation)
    from ..operations.own_by_key import KeyedStatefulOp

    return KeyedStatefulOp(operation)


def fuse(operation: plan.Operation) -> FusedOperation:
    """Return the running form of an operation, a new one for each run."""
    kind = type(operation)
    form = _FUSED[kind] if kind in _FUSED else _rarely_fused()[kind]
    return form(operation)


# ---- as a stage


class Site:
    """What a stage is made of, and where it stands."""

    __slots__ = ("fused", "inlet", "layout", "outlet", "parts")

    def __init__(self, layout: StageLayout, inlet: Inlet | None, outlet: Outlet, parts: Parts) -> None:
        self.layout = layout  # of the stage
        self.inlet = inlet  # what it takes from; None for a source
        self.outlet = outlet  # what it fills
        self.parts = parts  # of the run
        # Its fused operations, in order; a throttle among them becomes the pacer of the stage.
        self.fused = [self._fused(operation) for operation in layout.fused if operation is not layout.throttle]
        if isinstance(outlet, LossyLink) and outlet.policy == "fail":
            self.fused.append(OverflowGuard(outlet, layout.name))
        elif isinstance(outlet, LossyLink) and isinstance(outlet.policy, OnFull):
            self.fused.append(OverflowMerge(outlet, outlet.policy, layout.name))

        elif layout.by_cost is not None and isinstance(outlet, Link):
            from ..links.cost_link import CostLink
            from ..operations.costs import CostOp

            assert isinstance(outlet, CostLink)
            assert layout.by_cost.cost is not None
            self.fused.append(CostOp(outlet, layout.by_cost.cost, layout.name))

    def _fused(self, operation: plan.Operation) -> FusedOperation:
        if isinstance(operation, Again):
            from ..operations.again import AgainOp

            return AgainOp(operation, self.parts.loops[operation.loop].back)
        if not isinstance(operation, FairBy):
            return fuse(operation)
        assert isinstance(self.outlet, FairLink)  # the only operation that looks into the link behind it
        return FairByOp(operation, self.outlet)

    def chain(self, *, head: FusedOperation | None = None) -> Chain:
        """Return the chain of the stage, with `head` before its fused operations."""
        ends = self.ends()
        return Chain(ends if head is None else ends._replace(operations=[head, *ends.operations]))

    def ends(self) -> Ends:
        """Return what every chain is made of."""
        assert self.inlet is not None
        return Ends(self.parts.host, self.layout.name, self.inlet, self.outlet, self.fused)


def _plain(site: Site, _head: None, kind: str = "sync") -> Stage:
    overflow = None if site.layout.fair_by is None else site.layout.fair_by.overflow
    if not isinstance(overflow, Divert):
        return Stage(site.chain(), kind=kind)
    fair_by = site.fused[-1]
    assert isinstance(fair_by, FairByOp)
    counters = site.parts.counters(f"{site.layout.name} (diverting)", overflow.step)
    return DivertingStage(site.chain(), fair_by, layered(overflow.step, site.parts.host), counters, kind=kind)


def _iterable(site: Site, head: Source) -> Stage:
    site.inlet = inlet = IterableInlet(head)
    site.parts.sources.append(inlet)
    stage: Stage
    if site.layout.throttle is not None:
        from ..stages.paced import PacedStage

        stage = PacedStage(site.ends(), site.layout.throttle, kind="source")
    elif site.layout.is_timed:
        from ..stages.deadline import DeadlineSource

        stage = DeadlineSource(site.chain(), kind="source")
    else:
        stage = _plain(site, None, kind="source")
    inlet.chain = stage.chain
    return stage


_WAITING: dict[str, type[AsyncSource]] = {
    "async iterable": AsyncIterableSource,
    "channel": ChannelSource,
    "producer": ProducerSource,
    "ticks": TickSource,
}


def _source(site: Site, head: Source) -> Stage:
    if head.kind == "iterable":
        return _iterable(site, head)
    source = _WAITING[head.kind](site.parts.host, head, site.outlet, site.fused)
    site.parts.sources.append(source)
    return source


def _restarting(site: Site, head: RestartingSource) -> Stage:
    from ..stages.restarting import RestartedSource

    counters = site.parts.counters(head.name, head.retry)
    source = RestartedSource(site.parts.host, head, site.outlet, site.fused, counters)
    site.parts.sources.append(source)
    return source


def _in_thread(site: Site, head: IterableInThread) -> Stage:
    from ..stages.threaded import ThreadedSource

    counters = site.parts.counters(head.name, None)
    source = ThreadedSource(site.parts.host, head, site.outlet, site.fused, counters)
    site.parts.sources.append(source)
    return source


def _using(site: Site, head: UsingSource) -> Stage:
    from ..stages.using import ResourceSource

    source = ResourceSource(site.parts.host, head, site.outlet, site.fused)
    site.parts.sources.append(source)
    return source


def _timed(site: Site, head: plan.Operation) -> Stage:
    operation = fuse(head)
    if isinstance(head, plan.Batch) and head.takes_what_is_there:
        from ..operations.batching import GroupingOp
        from ..stages.eager import EagerStage

        assert isinstance(operation, GroupingOp)
        return EagerStage(site.chain(head=operation), operation)
    from ..stages.deadline import DeadlineStage

    return DeadlineStage(site.chain(head=operation))


def _paced(site: Site, head: timing.Paced) -> Stage:
    from ..stages.paced import PacedStage

    return PacedStage(site.ends(), head)


def _stopping(site: Site, head: timing.StopWhen) -> Stage:
    from ..stages.stop_when import StopWhenStage

    return StopWhenStage(site.ends(), head)


def _keep_alive(site: Site, head: timing.KeepAlive) -> Stage:
    from ..stages.keep_alive import KeepAliveStage

    return KeepAliveStage(site.ends(), head)


def _through(site: Site, head: Through) -> Stage:
    from ..stages.through import ThroughStage

    assert site.inlet is not None
    return ThroughStage(site.parts.host, head, site.inlet, site.outlet, site.fused)


def _watched(site: Site, head: timing.Watched) -> Stage:
    from ..stages.stream_timeout import StreamTimeoutStage

    return StreamTimeoutStage(site.ends(), head)


def _pool(site: Site, head: plan.Operation, *, ordered: bool = True, make: Callable[..., Pool] = Pool) -> Pool:
    policy = getattr(head, "concurrency", None)
    if isinstance(policy, Adaptive):
        return _adaptive(site, head, policy, partial(make, ordered=ordered))
    call = calling_of(head, site.parts.counters, site.parts.host)
    return make(site.ends(), call, concurrency=site.layout.concurrency, ordered=ordered)


def _adaptive(site: Site, head: plan.Operation, policy: Adaptive, make: Callable[..., Pool]) -> Pool:
    from ..pools.adapting import Adapting

    adapting = Adapting(policy)
    call = calling_of(head, site.parts.counters, site.parts.host, adapting.around)
    pool = adapting.pool = make(site.ends(), call, concurrency=adapting.start)
    pool.adapting = adapting
    return pool


def _map(site: Site, head: plan.Map) -> Pool:
    if head.latest:
        from ..pools.latest import LatestPool

        return _pool(site, head, make=LatestPool)
    return _pool(site, head, ordered=head.ordered, make=_maker(head))


def _maker(head: plan.Map) -> Callable[..., Pool]:
    """Return what makes the pool of a map, from what each pool is made of."""
    if head.key is None:
        if not head.retries_elsewhere:
            return Pool
        from ..pools.elsewhere import ElsewherePool

        return partial(ElsewherePool, retries_elsewhere=head.retries_elsewhere)
    key = _key_of_some(head, head.key) if isinstance(head, MapSome) else head.key
    how: dict[str, Any] = {"key": key, "per_key": head.per_key, "key_rate": head.key_rate, "waiting": head.waiting}
    how["method"] = head.method
    if head.retries_elsewhere:
        from ..pools.elsewhere import KeyedElsewherePool

        return partial(KeyedElsewherePool, retries_elsewhere=head.retries_elsewhere, **how)
    from ..pools.keyed import KeyedPool

    return partial(KeyedPool, **how)


def _key_of_some(head: MapSome, key: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the key function for an operation that some items do not concern: each of those has a key of its own."""
    concerns = concern_of(head)
    return lambda item: key(item) if concerns(item) else object()


def _flat_map(site: Site, head: plan.FlatMap) -> Pool:
    if head.latest:
        from ..pools.latest import LatestFlatMapPool

        return _pool(site, head, make=LatestFlatMapPool)
    from ..pools.flat_map import FlatMapPool

    return _pool(site, head, ordered=False, make=FlatMapPool)


def _again(site: Site, head: Again) -> Pool:
    from ..operations.again import Spilling

    assert isinstance(head.full, Divert)  # otherwise it is fused
    counters = site.parts.counters(f"{head.name} (diverting)", head.full.step)
    line, divert = site.parts.loops[head.loop].back, layered(head.full.step, site.parts.host)
    spilling = Spilling(head, line, divert, counters)
    call = Calling(spilling.call, divert_counters=counters)
    spilling.pool = pool = Pool(site.ends(), call, concurrency=1, ordered=True)
    return pool


def _or_else(site: Site, head: OrElse) -> Stage:
    from ..pools.or_else import OrElseStage

    return OrElseStage(site.ends(), head)


def _on_end(site: Site, head: OnEnd) -> Stage:
    from ..stages.on_end import OnEndStage

    return OnEndStage(site.ends(), head)


_STAGES: dict[type, Callable[[Site, Any], AnyStage]] = {
    NoneType: _plain,
    Source: _source,
    RestartingSource: _restarting,
    IterableInThread: _in_thread,
    UsingSource: _using,
    plan.Batch: _timed,
    Window: _timed,
    WithState: _timed,
    Through: _through,
    timing.Throttle: _paced,
    timing.Debounce: _paced,
    timing.Sample: _paced,
    timing.Delay: _paced,
    timing.IdleTimeout: _watched,
    timing.Timeout: _watched,
    timing.TakeFor: _watched,
    timing.StopWhen: _stopping,
    timing.KeepAlive: _keep_alive,
    plan.Map: _map,
    OnOk: _map,
    Recover: _map,
    OrElse: _or_else,
    OnEnd: _on_end,
    plan.FlatMap: _flat_map,
    plan.Filter: _pool,
    plan.Tap: _pool,
    plan.Scan: _pool,
    plan.TakeWhile: _pool,
    plan.TakeUntil: _pool,
    plan.SkipWhile: _pool,
    Again: _again,
}


def stage_of(layout: StageLayout, inlet: Inlet | None, outlet: Outlet, parts: Parts) -> AnyStage:
    """Return a new stage between an inlet and an outlet."""
    return _STAGES[type(layout.head)](Site(layout, inlet, outlet, parts), layout.head)
