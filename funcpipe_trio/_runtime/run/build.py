"""How does a layout become the objects of one run? Nothing is started here."""

from __future__ import annotations

from ..._plan.layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout
from ..._plan.loops import Again
from ..._plan.nodes import FanOutKind
from ...policies.fair_share import FairShare
from ...policies.on_error import Stop
from ..core.ledger import Ledger
from ..core.protocols import Inlet
from ..junctions.fan_in import ConcatInlet, FanInInlet, MergeInlet, ZipInlet
from ..junctions.fan_out import Broadcasting, Fork, Join, Partitioning
from ..links.fair_link import FairLink
from ..links.link import Link
from ..links.lossy_link import LossyLink
from ..links.sink import Sink
from .forms import stage_of
from .parts import Parts


def build(line: SegmentLayout, parts: Parts, end: Sink | Fork | None = None) -> Inlet:
    """Make the stages, links and fan-ins of a line; return the inlet that its consumer takes from.

    With an end, the last stage fills that instead of a link; what is returned then is the inlet of that stage.
    """
    inlet: Inlet | None = _origin(line, parts)
    stages = line.stages
    if end is not None and not stages:  # a fan-in has no task, so a stage must pull
        stages = (StageLayout(_puller(line), None, (), 1),)
    elif end is not None and (fair_by := stages[-1].fair_by) is not None:  # nor has a fair_by behind it
        stages = (*stages, StageLayout(f"{fair_by.name} (out)", None, (), 1))
    if isinstance(end, Sink):
        capacity = stages[-1].capacity
        end.capacity = capacity if isinstance(capacity, int) else 0
    for layout in stages:
        is_last = layout is stages[-1]
        outlet = end if end is not None and is_last else _link(layout, parts)
        stage = stage_of(layout, inlet, outlet, parts)
        parts.layouts[stage] = layout
        if layout.again is not None:
            _close_loop(layout.again, parts)
        outlet.sender = stage
        if isinstance(outlet, Link):
            parts.links.append(outlet)
            inlet = outlet
    assert inlet is not None or end is not None
    return inlet  # type: ignore[return-value]  # with an end nothing takes from it


def _puller(line: SegmentLayout) -> str:
    origin = line.origin
    return origin.join if isinstance(origin, FanOutLayout) else origin.name if origin is not None else "sink"


def _origin(line: SegmentLayout, parts: Parts) -> Inlet | None:
    origin = line.origin
    if isinstance(origin, FanInLayout):
        return _fan_in(origin, parts)
    if isinstance(origin, FanOutLayout):
        return _fan_out(origin, parts)
    return None if origin is None else _branch(origin, parts)


def _fan_out(layout: FanOutLayout, parts: Parts) -> FanInInlet:
    host = parts.host
    fork = _fork(layout.kind)(layout.name, host.state_times)
    parts.forks[layout.name] = fork
    build(layout.trunk, parts, fork)
    branches = [(key, build(line, parts)) for key, line in layout.branches]
    join: FanInInlet
    if layout.joined_by == "zip":
        from ..junctions.rejoining import ZippedJoin

        join = ZippedJoin(layout.join, host.ledger, branches, host.state_times, fork)
    else:
        join = Join(layout.join, host.ledger, branches, fork)
    parts.fan_ins.append(join)
    return join


def _fork(kind: FanOutKind) -> type[Fork]:
    if kind == "balance":
        from ..junctions.balancing import Balancing

        return Balancing
    return Partitioning if kind == "partition" else Broadcasting


def _branch(layout: BranchLayout, parts: Parts) -> Link:
    link = _sized_link(parts.host.ledger, layout)
    parts.links.append(link)
    parts.forks[layout.fan_out].add(layout.key, link)
    return link


def _fan_in(layout: FanInLayout, parts: Parts) -> FanInInlet:
    ledger = parts.host.ledger
    inputs = [(key, build(line, parts)) for key, line in layout.inputs]
    if layout.kind == "loop":
        return _loop(layout, inputs[0][1], parts)
    inlets = [inlet for _key, inlet in inputs]
    made: FanInInlet
    if layout.kind == "concat":
        made = ConcatInlet(layout.name, ledger, inlets)
    elif layout.kind == "zip":
        made = ZipInlet(layout.name, ledger, inlets, parts.host.state_times, strict=layout.strict)
    elif layout.kind == "merge_sorted":
        from ..junctions.sorting import SortedInlet

        made = SortedInlet(layout.name, ledger, inlets, parts.host.state_times, layout.key, reverse=layout.reverse)
    elif layout.kind == "zip_latest":
        from ..junctions.combining import LatestInlet

        made = LatestInlet(layout.name, ledger, inlets)
    elif layout.kind == "prefer":
        from ..._sansio.preference import PreferenceQueue

        made = MergeInlet(layout.name, ledger, inputs, FairShare(), PreferenceQueue(layout.at_least))
    elif not isinstance(layout.on_error, Stop):
        from ..junctions.tolerant_merge import TolerantMergeInlet

        made = TolerantMergeInlet(layout.name, ledger, inputs, layout.share or FairShare(), layout.on_error)
    else:
        made = MergeInlet(layout.name, ledger, inputs, layout.share or FairShare())
    parts.fan_ins.append(made)
    return made


def _loop(layout: FanInLayout, source: Inlet, parts: Parts) -> FanInInlet:
    from ..junctions.loop import Loop  # rare

    loop = parts.loops[layout.name] = Loop(layout.name, parts.host, source, len(parts.layouts))
    parts.links.append(loop.back)
    parts.fan_ins.append(loop)
    return loop


def _close_loop(again: Again, parts: Parts) -> None:
    """Tell a loop what its body is, whose last stage has just been made."""
    loop, stages = parts.loops[again.loop], list(parts.layouts)
    ends = [parts.layouts[stage].again for stage in stages[loop.outside :]]
    inner = [parts.loops[end.loop] for end in ends if end is not None and end is not again]
    loop.enclose(again, stages[loop.outside :], inner)


def _link(layout: StageLayout, parts: Parts) -> Link:
    ledger = parts.host.ledger
    if layout.fair_by is not None:
        return FairLink(ledger, layout.fair_by)
    return _sized_link(ledger, layout)


def _sized_link(ledger: Ledger, filled: StageLayout | BranchLayout) -> Link:
    capacity, overflow = filled.capacity, filled.overflow
    if isinstance(filled, StageLayout) and filled.by_cost is not None:
        from ..links.cost_link import CostLink

        return CostLink(ledger, filled.by_cost, filled.link_name)
    assert isinstance(capacity, int)
    block: type[Link] = Link
    lossy: type[LossyLink] = LossyLink
    if not capacity:
        from ..links.rendezvous import LossyRendezvous, Rendezvous

        block, lossy = Rendezvous, LossyRendezvous
    if overflow == "block":
        return block(ledger, capacity, filled.link_name)
    return lossy(ledger, capacity, overflow, filled.link_name)
