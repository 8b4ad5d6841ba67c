"""From a layout to the objects of one run; nothing is started here."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..plan import operations as plan
from ..plan.layout import FanInLayout, LineLayout, StageLayout
from ..plan.nodes import Source
from ..plan.timing import Paced, Watched
from ..policies.fair_share import FairShare
from .calls import calling_of
from .expand import ExpandingPool
from .fan_in import ConcatInlet, FanInInlet, MergeInlet, ZipInlet
from .fuse import fuse
from .fused import FusedOperation
from .inlet import Inlet
from .keyed import KeyedPool
from .link import Link
from .overflow import FullFails, LossyLink
from .paced import PacedStage
from .pool import Pool
from .sink import Sink
from .sources import (
    AsyncIterableSource,
    AsyncSource,
    ChannelSource,
    IterableInlet,
    ProducerSource,
    TickSource,
)
from .stage import Host, Stage, TimedStage
from .watched import WatchedStage

__all__ = ["Machinery", "build"]


@dataclass(slots=True)
class Machinery:
    """The parts of one run."""

    host: Host
    links: list[Link] = field(default_factory=list)
    fan_ins: list[FanInInlet] = field(default_factory=list)
    sources: list[IterableInlet | AsyncSource | ConcatInlet] = field(default_factory=list)
    """What a drain stops."""


_SOURCES: dict[str, type[AsyncSource]] = {
    "async iterable": AsyncIterableSource,
    "channel": ChannelSource,
    "producer": ProducerSource,
    "ticks": TickSource,
}


def build(line: LineLayout, machinery: Machinery, sink: Sink | None = None) -> Inlet:
    """Make the stages, links and fan-ins of a line; answer the inlet that its consumer takes from.

    With a sink, the last stage fills that in place of a link; the answer is then what that stage takes from.
    """
    inlet: Inlet | None = None if line.origin is None else _fan_in(line.origin, machinery)
    stages = line.stages
    if sink is not None and not stages:  # a fan-in has no task, so somebody must pull
        stages = (StageLayout(line.origin.name if line.origin else "sink", None, (), 1),)
    if sink is not None:
        sink.capacity = stages[-1].capacity
    for layout in stages:
        is_last = layout is stages[-1]
        outlet = sink if sink is not None and is_last else _link(layout, machinery)
        stage = _stage(layout, inlet, outlet, machinery)
        outlet.sender = stage
        if isinstance(outlet, Link):
            machinery.links.append(outlet)
            inlet = outlet
    assert inlet is not None or sink is not None
    return inlet  # type: ignore[return-value]  # with a sink nobody takes from it


def _link(layout: StageLayout, machinery: Machinery) -> Link:
    ledger = machinery.host.ledger
    if layout.overflow == "block":
        return Link(ledger, layout.capacity)
    return LossyLink(ledger, layout.capacity, layout.overflow)


def _fan_in(layout: FanInLayout, machinery: Machinery) -> FanInInlet:
    ledger = machinery.host.ledger
    inputs = [(key, build(line, machinery)) for key, line in layout.inputs]
    inlets = [inlet for _key, inlet in inputs]
    made: FanInInlet
    if layout.kind == "concat":
        made = ConcatInlet(layout.name, ledger, inlets)
        machinery.sources.append(made)
    elif layout.kind == "zip":
        made = ZipInlet(layout.name, ledger, inlets, strict=layout.strict)
    else:
        made = MergeInlet(layout.name, ledger, inputs, layout.share or FairShare())
    machinery.fan_ins.append(made)
    return made


def _stage(layout: StageLayout, inlet: Inlet | None, outlet: Link | Sink, machinery: Machinery) -> Stage:
    host, head = machinery.host, layout.head
    fused: list[FusedOperation] = [fuse(operation) for operation in layout.fused]
    if isinstance(outlet, LossyLink) and outlet.policy == "fail":
        fused.append(FullFails(outlet, layout.name))
    if isinstance(head, Source):
        if head.kind == "iterable":
            source = IterableInlet(head)
            machinery.sources.append(source)
            stage = Stage(host, layout.name, source, outlet, fused)
            stage.kind = "source"
            source.stage = stage
            return stage
        waiting = _SOURCES[head.kind](host, head, outlet, fused)
        machinery.sources.append(waiting)
        return waiting
    assert inlet is not None
    if head is None:
        return Stage(host, layout.name, inlet, outlet, fused)
    if isinstance(head, plan.Batch):
        return TimedStage(host, layout.name, inlet, outlet, [fuse(head), *fused])
    if isinstance(head, Paced):
        return PacedStage(host, layout.name, inlet, outlet, fused, head)
    if isinstance(head, Watched):
        return WatchedStage(host, layout.name, inlet, outlet, fused, head)
    call, concurrency = calling_of(head), layout.concurrency
    if isinstance(head, plan.FlatMap):
        return ExpandingPool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=False)
    ordered = not isinstance(head, plan.Map) or head.ordered
    if isinstance(head, plan.Map) and head.key is not None:
        keyed = KeyedPool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=ordered)
        keyed.key = head.key
        return keyed
    return Pool(host, layout.name, inlet, outlet, fused, call, concurrency=concurrency, ordered=ordered)
