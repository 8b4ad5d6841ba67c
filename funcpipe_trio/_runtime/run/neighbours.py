"""Who is whose neighbour in a run? The graph along which waits are followed (`_sansio.blame`).

Its nodes are the stages, by their numbers, and then the consumer. Links, fan-ins and fan-outs are its edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._sansio.blame import Feed, Graph, Node, Out
from ..core.protocols import Receiver, Sender
from ..junctions.fan_in import AlignedInlet, ConcatInlet, FanInInlet, MergeInput
from ..junctions.fan_out import Fork, Port
from ..links.link import Link
from ..pools.pool import Pool
from ..stages.sources import AsyncSource
from ..stages.stage import Stage
from .parts import AnyStage

if TYPE_CHECKING:
    from .engine import Engine

CONSUMER = "consumer"
"""What reports call it."""


def graph_of(engine: Engine) -> Graph:
    """Return the graph of a run that was built; it stays the same."""
    numbers = {stage: number for number, stage in enumerate(engine.stages)}
    nodes = [_node(stage, numbers) for stage in engine.stages]
    if engine.attendance is not None:
        nodes.append(Node(CONSUMER, engine.attendance.shift, False, False, _feed(engine.inlet, numbers), ()))
    return Graph(tuple(nodes), engine.pause_shift, has_loop=bool(engine.parts.loops))


def _node(stage: AnyStage, numbers: dict[AnyStage, int]) -> Node:
    shift = stage.crew.usage.shift if isinstance(stage, Pool) else stage.shift
    outs = tuple(_outs(stage, numbers))
    return Node(
        stage.name, shift, isinstance(stage, Pool), isinstance(stage, AsyncSource), _feed(stage.upstream, numbers), outs
    )


def _feed(inlet: object, numbers: dict[AnyStage, int]) -> Feed | None:
    """Return what an inlet is filled by; None if it is a source."""
    if isinstance(inlet, Link):
        return Feed("link", numbers[_filler(inlet.sender)])
    if not isinstance(inlet, FanInInlet):
        return None
    feeds = [_feed(each, numbers) for each in inlet.inlets]
    how = "zip" if isinstance(inlet, AlignedInlet) else "concat" if isinstance(inlet, ConcatInlet) else "merge"
    shift = inlet.shift if isinstance(inlet, AlignedInlet) else 0
    return Feed(how, feeds=tuple(each for each in feeds if each is not None), shift=shift)


def _filler(sender: Sender) -> AnyStage:
    """Return the stage that fills a link, through a fan-out."""
    if isinstance(sender, Port):
        sender = sender.fork.sender
    assert isinstance(sender, Stage | Pool)
    return sender


def _outs(stage: AnyStage, numbers: dict[AnyStage, int]) -> list[Out]:
    outlet = stage.chain.outlet
    if isinstance(outlet, Fork):
        shifts = {port.link: port.shift for port in outlet.ports.values()}
        return [Out(_number(taker_of(link), numbers), shifts[link]) for link in filled_by(stage)]
    return [Out(_number(taker_of(link), numbers)) for link in filled_by(stage)]


def _number(taker: AnyStage | None, numbers: dict[AnyStage, int]) -> int:
    return len(numbers) if taker is None else numbers[taker]


def filled_by(stage: AnyStage) -> list[Link]:
    """Return the links that a stage fills."""
    outlet = stage.chain.outlet
    if isinstance(outlet, Fork):
        return [port.link for port in outlet.ports.values()]
    return [outlet] if isinstance(outlet, Link) else []


def taker_of(source: Link | FanInInlet) -> AnyStage | None:
    """Return the stage that takes from a link or fan-in, through other fan-ins; None at the end of the line."""
    receiver: Receiver | None = source.receiver
    while isinstance(receiver, MergeInput | FanInInlet):
        receiver = receiver.merge if isinstance(receiver, MergeInput) else receiver.receiver
    return receiver if isinstance(receiver, Stage | Pool) else None
