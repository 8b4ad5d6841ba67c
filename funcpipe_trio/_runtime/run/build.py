"""From a layout to the objects of one run; nothing is started here.

What only a rare operation needs is imported where that operation is built, here, in `fuse`, and for a circuit in
`layers`: 1 ms when a program first runs one, in place of an eighth of what every import adds to trio's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._plan import operations as plan
from ..._plan.layout import BranchLayout, FanInLayout, FanOutLayout, LineLayout, StageLayout
from ..._plan.nodes import Source
from ..._plan.restarts import RestartingSource
from ..._plan.steps import step_of
from ..._plan.timing import Paced, Watched
from ..._plan.windows import Window
from ...policies.fair_share import FairShare
from ...policies.on_error import Divert
from ...policies.retry import Retry, needs_seed
from ..calls.calls import calling_of, layered
from ..core.attempt import Account
from ..core.inlet import Inlet
from ..core.ledger import Ledger
from ..core.protocols import Host, Outlet
from ..core.seeds import draw_seed
from ..junctions.fan_in import ConcatInlet, FanInInlet, MergeInlet, ZipInlet
from ..junctions.fan_out import Broadcasting, Fork, Joint, Partitioning
from ..links.fair_link import FairLink
from ..links.link import Link
from ..links.overflow import LossyLink
from ..links.sink import Sink
from ..operations.fused import FusedOperation
from ..operations.overflow_guard import FullFails
from ..pools.pool import Pool
from ..stages.gate import DivertingStage, Gate
from ..stages.sources import (
    AsyncIterableSource,
    AsyncSource,
    ChannelSource,
    IterableInlet,
    ProducerSource,
    TickSource,
)
from ..stages.stage import Stage
from .fuse import fuse


class Machinery:
    """The parts of one run."""

    __slots__ = ("fan_ins", "forks", "host", "links", "seed", "sources")

    host: Host
    links: list[Link]
    fan_ins: list[FanInInlet]
    sources: list[IterableInlet | AsyncSource]
    forks: dict[str, Fork]
    """By the names of the fan-outs."""
    seed: int | None
    """What the jitter of this run is computed from; None if no policy of the plan needs it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.links, self.fan_ins, self.sources, self.forks = [], [], [], {}
        self.seed = None

    def account(self, stage: str, policies: object) -> Account:
        """Open the books of a stage, for a `Retry`, or for a step or what is called like one."""
        plan = step_of(policies)
        is_seeded = needs_seed(policies) if isinstance(policies, Retry) else plan is not None and plan.needs_seed()
        if is_seeded and self.seed is None:
            self.seed = draw_seed()
        return Account(stage, self.seed)


_SOURCES: dict[str, Callable[[Host, Any, Outlet, list[FusedOperation]], AsyncSource]] = {
    "async iterable": AsyncIterableSource,
    "channel": ChannelSource,
    "producer": ProducerSource,
    "ticks": TickSource,
}


def build(line: LineLayout, machinery: Machinery, end: Sink | Fork | None = None) -> Inlet:
    """Make the stages, links and fan-ins of a line; answer the inlet that its consumer takes from.

    With an end, the last stage fills that in place of a link; the answer is then what that stage takes from.
    """
    inlet: Inlet | None = _origin(line, machinery)
    stages = line.stages
    if end is not None and not stages:  # a fan-in has no task, so somebody must pull
        stages = (StageLayout(_puller(line), None, (), 1),)
    elif end is not None and (fair_by := stages[-1].fair_by) is not None:  # nor has a fair_by behind it
        stages = (*stages, StageLayout(f"{fair_by.name} (out)", None, (), 1))
    if isinstance(end, Sink):
        end.capacity = stages[-1].capacity
    for layout in stages:
        is_last = layout is stages[-1]
        outlet = end if end is not None and is_last else _link(layout, machinery)
        stage = _stage(layout, inlet, outlet, machinery)
        outlet.sender = stage
        if isinstance(outlet, Link):
            machinery.links.append(outlet)
            inlet = outlet
    assert inlet is not None or end is not None
    return inlet  # type: ignore[return-value]  # with an end nobody takes from it


def _puller(line: LineLayout) -> str:
    origin = line.origin
    return origin.joint if isinstance(origin, FanOutLayout) else origin.name if origin is not None else "sink"


def _origin(line: LineLayout, machinery: Machinery) -> Inlet | None:
    origin = line.origin
    if isinstance(origin, FanInLayout):
        return _fan_in(origin, machinery)
    if isinstance(origin, FanOutLayout):
        return _fan_out(origin, machinery)
    return None if origin is None else _branch(origin, machinery)


def _fan_out(layout: FanOutLayout, machinery: Machinery) -> Joint:
    ledger = machinery.host.ledger
    is_partition = layout.kind == "partition"
    fork = Partitioning(layout.name) if is_partition else Broadcasting(layout.name)
    machinery.forks[layout.name] = fork
    build(layout.trunk, machinery, fork)
    branches = [(key, build(line, machinery)) for key, line in layout.branches]
    joint = Joint(layout.joint, ledger, branches, fork)
    fork.joint = joint
    machinery.fan_ins.append(joint)
    return joint


def _branch(layout: BranchLayout, machinery: Machinery) -> Link:
    link = _sized_link(machinery.host.ledger, layout)
    machinery.links.append(link)
    machinery.forks[layout.fan_out].add(layout.key, link)
    return link


def _fan_in(layout: FanInLayout, machinery: Machinery) -> FanInInlet:
    ledger = machinery.host.ledger
    inputs = [(key, build(line, machinery)) for key, line in layout.inputs]
    inlets = [inlet for _key, inlet in inputs]
    made: FanInInlet
    if layout.kind == "concat":
        made = ConcatInlet(layout.name, ledger, inlets)
    elif layout.kind == "zip":
        made = ZipInlet(layout.name, ledger, inlets, strict=layout.strict)
    else:
        made = MergeInlet(layout.name, ledger, inputs, layout.share or FairShare())
    machinery.fan_ins.append(made)
    return made


def _link(layout: StageLayout, machinery: Machinery) -> Link:
    ledger = machinery.host.ledger
    if layout.fair_by is not None:
        return FairLink(ledger, layout.fair_by)
    return _sized_link(ledger, layout)


def _sized_link(ledger: Ledger, filled: StageLayout | BranchLayout) -> Link:
    capacity, overflow = filled.capacity, filled.overflow
    link = Link(ledger, capacity) if overflow == "block" else LossyLink(ledger, capacity, overflow)
    link.name = filled.link_name
    return link


def _stage(layout: StageLayout, inlet: Inlet | None, outlet: Outlet, machinery: Machinery) -> Stage:
    head = layout.head
    fused: list[FusedOperation] = [fuse(operation) for operation in layout.fused if operation is not layout.throttle]
    if isinstance(outlet, FairLink) and isinstance(fused[-1], Gate):
        fused[-1].link = outlet
    if isinstance(outlet, LossyLink) and outlet.policy == "fail":
        fused.append(FullFails(outlet, layout.name))
    if isinstance(head, Source):
        if head.kind == "iterable":
            source = IterableInlet(head)
            machinery.sources.append(source)
            source.stage = _of_iterable(layout, source, outlet, fused, machinery)
            source.stage.kind = "source"
            return source.stage
        waiting = _source(head, outlet, fused, machinery)
        machinery.sources.append(waiting)
        return waiting
    assert inlet is not None
    if head is None:
        return _sync(layout, inlet, outlet, fused, machinery)
    make = _on_time if isinstance(head, plan.Batch | Window | Paced | Watched) else _pool
    return make(layout, head, inlet, outlet, fused, machinery)


def _source(head: Source, outlet: Outlet, fused: list[FusedOperation], machinery: Machinery) -> AsyncSource:
    host = machinery.host
    if not isinstance(head, RestartingSource):
        return _SOURCES[head.kind](host, head, outlet, fused)
    from ..stages.restarting import RestartedSource

    return RestartedSource(host, head, outlet, fused, machinery.account(head.name, head.retry))


def _on_time(
    layout: StageLayout, head: Any, inlet: Inlet, outlet: Outlet, fused: list[FusedOperation], machinery: Machinery
) -> Stage:
    host = machinery.host
    if isinstance(head, Paced):
        from ..stages.paced import PacedStage

        return PacedStage(host, layout.name, inlet, outlet, fused, head)
    if isinstance(head, Watched):
        from ..stages.watched import WatchedStage

        return WatchedStage(host, layout.name, inlet, outlet, fused, head)
    from ..stages.timed import TimedStage

    return TimedStage(host, layout.name, inlet, outlet, [fuse(head), *fused])


def _pool(
    layout: StageLayout, head: Any, inlet: Inlet, outlet: Outlet, fused: list[FusedOperation], machinery: Machinery
) -> Stage:
    host, call, concurrency = machinery.host, calling_of(head, machinery.account), layout.concurrency
    if isinstance(head, plan.FlatMap):
        from ..pools.expand import ExpandingPool

        return ExpandingPool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=False)
    ordered = not isinstance(head, plan.Map) or head.ordered
    if isinstance(head, plan.Map) and head.key is not None:
        from ..pools.keyed import KeyedPool

        keyed = KeyedPool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=ordered)
        keyed.key = head.key
        return keyed
    return Pool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=ordered)


def _of_iterable(
    layout: StageLayout, inlet: IterableInlet, outlet: Outlet, fused: list[FusedOperation], machinery: Machinery
) -> Stage:
    host = machinery.host
    if layout.throttle is not None:
        from ..stages.paced import PacedStage

        return PacedStage(host, layout.name, inlet, outlet, fused, layout.throttle)
    if layout.is_timed:
        from ..stages.timed import TimedSource

        return TimedSource(host, layout.name, inlet, outlet, fused)
    return _sync(layout, inlet, outlet, fused, machinery)


def _sync(
    layout: StageLayout, inlet: Inlet, outlet: Outlet, fused: list[FusedOperation], machinery: Machinery
) -> Stage:
    host = machinery.host
    overflow = None if layout.fair_by is None else layout.fair_by.overflow
    if not isinstance(overflow, Divert):
        return Stage(host, layout.name, inlet, outlet, fused)
    stage = DivertingStage(host, layout.name, inlet, outlet, fused)
    stage.divert = layered(overflow.step)
    stage.divert_account = machinery.account(f"{layout.name} (diverting)", overflow.step)
    return stage
