"""What does the plan say of each stage of a run, as far as advice asks for it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..._plan import operations as plan
from ..._plan import timing
from ..._plan.layout import StageLayout
from ..._plan.loops import Again
from ..._plan.steps import Coalesce, Fallback, Hedge, Layer, Limit, Part, Places, StepPlan, Within, layers_in, step_of
from ...policies.retry import Retry
from ..junctions.fan_out import Broadcasting, Port
from ..links.link import Link
from ..reports.advice import Setting
from .parts import AnyStage

if TYPE_CHECKING:
    from .engine import Engine


def settings_of(engine: Engine) -> tuple[Setting, ...]:
    """Return the settings of the stages, in their order."""
    layouts = engine.parts.layouts
    return tuple([_setting(each, layouts[each]) if each in layouts else Setting() for each in engine.stages])


def _setting(stage: AnyStage, layout: StageLayout) -> Setting:
    head = layout.throttle if layout.throttle is not None else layout.head
    if isinstance(head, timing.Throttle):
        rate = head.rate_limit.rate / head.rate_limit.per
        return Setting(paced_by=head.name, rate=rate, is_rate_sure=head.cost is None, fan_out=_fan_out_of(stage))
    step = step_of(getattr(head, "fn", None))
    limits = [] if step is None else list(_limits(step.parts))
    lowest, around = min(limits, key=lambda each: _rate(each[0]), default=(None, 0))
    retries = 0 if step is None else sum(isinstance(each, Retry) for each in layers_in(step.parts))
    return Setting(
        is_ordered=isinstance(head, plan.Map) and head.ordered,
        is_keyed=isinstance(head, plan.Map) and head.key is not None,
        has_key_rate=isinstance(head, plan.Map) and head.key_rate is not None,
        can_retry_elsewhere=isinstance(head, plan.Map) and retries > 0 and not head.latest,
        retries_elsewhere=getattr(head, "retries_elsewhere", 0),
        is_latest=getattr(head, "latest", False),
        paced_by=head.name if isinstance(head, timing.Paced | Again) else None,
        rate=None if lowest is None else _rate(lowest),
        is_rate_sure=around in (0, retries)
        and all(each.limiter is each.cost is each.settle is None for each, _ in limits)
        and not any(_changes_calls(each) for each in (() if step is None else layers_in(step.parts))),
        is_rate_retried=around > 0,
        shares_limits=step is not None and any(_is_shared(each) for each in layers_in(step.parts)),
        runner=None if step is None else next(_full_runners(step, layout.concurrency), None),
        fan_out=_fan_out_of(stage),
    )


def _changes_calls(layer: Layer) -> bool:
    """Whether an item may need more calls than one and its retries, or none."""
    return isinstance(layer, Fallback | Hedge | Coalesce)


def _is_shared(layer: Layer) -> bool:
    return isinstance(layer, Places) or (isinstance(layer, Limit) and layer.limiter is not None)


def _rate(limit: Limit) -> float:
    return limit.rate_limit.rate / limit.rate_limit.per


def _limits(parts: tuple[Part, ...], around: int = 0) -> Iterator[tuple[Limit, int]]:
    """Yield each rate limit, with the number of retries around it."""
    for part in parts:
        if isinstance(part, Within):
            if isinstance(part.layer, Limit):
                yield part.layer, around
            yield from _limits(part.inner, around + isinstance(part.layer, Retry))


def _full_runners(step: StepPlan, concurrency: int) -> Iterator[str]:
    """Yield the runners that take fewer calls at once than the stage makes."""
    for call in step.calls():
        limit = getattr(call.runner, "limit", None)
        if call.runner is not None and limit is not None and limit < concurrency:
            yield f"a free {call.runner.place}, of which there are {limit}"


def _fan_out_of(stage: AnyStage) -> str | None:
    """Return the name of the broadcast in whose branch a stage is."""
    inlet: object = stage.upstream
    while isinstance(inlet, Link):
        sender = inlet.sender
        if isinstance(sender, Port):
            return sender.fork.name if isinstance(sender.fork, Broadcasting) else None
        inlet = sender.upstream
    return None
