"""By which rules is a plan reviewed? A table: each has a name, a reason, and a search for what breaks it.

The rule for rules: what one finds does harm in nearly every program, and the plan alone shows it. So there is none for
plain async functions, about which a plan knows nothing; none for calls on a runner, where a timeout cannot stop a
thread; and none for fast sources: a run takes from a source only when it has room, so a flood can only grow in front of
it, and what can be seen of that is a memory channel without a limit.

The invariant: nothing of the user's is called, except that a memory channel of trio tells its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

from .._base import checks
from .._base.errors import CircuitOpen
from .._base.frozen import dataclass
from .._base.shown import named, option
from ..policies.circuit_breaker import CircuitBreaker
from ..policies.on_error import Divert, Emit, Skip
from ..policies.retry import Retry
from .bound import bounds
from .check import describable
from .layout import SegmentLayout, lay_out
from .nodes import Plan, Source
from .operations import FlatMap, Grouping, Map, Operation
from .review import Finding
from .settings import steps_in
from .steps import Call, Fallback, Layer, Limit, Part, Places, Timeout, Within, same_limiter, step_of

_MOST_STAGES = 3  # named as those that hold the most

_Hits = Iterator[tuple[str, str]]
"""What a rule finds: the name of the part, and what is there."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for, and why."""

    name: str
    what: str
    why: str
    fix: str
    search: Callable[[SegmentLayout, int | None], _Hits]


def findings(plan: Plan, most: int | None, ignore: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings of all rules but those to ignore, part by part."""
    known = {rule.name for rule in RULES}
    for name in ignore:
        if name not in known:
            rule = f"name rules, which are {', '.join(sorted(known))}"
            raise checks.refuse(ValueError, "review", "ignore", rule, name, show=option)
    describable(plan)
    line = lay_out(plan)
    order = {part.name: number for number, part in enumerate(_parts(line))}
    found = [
        (order.get(where, len(order)), Finding(rule.name, where, what, rule.why, rule.fix))
        for rule in RULES
        if rule.name not in ignore
        for where, what in dict.fromkeys(rule.search(line, most))
    ]
    return tuple([finding for _number, finding in sorted(found, key=lambda each: each[0])])


# ---- what there is to search


def _parts(line: SegmentLayout) -> Iterator[Source | Operation]:
    for stage in line.all_stages():
        yield from (part for part in (stage.head, *stage.fused) if part is not None)


def _calls(line: SegmentLayout) -> Iterator[tuple[Operation, Call, tuple[Layer, ...]]]:
    """Yield each call of a step, with the policies around it, outermost first."""
    for part in _parts(line):
        if isinstance(part, Operation):
            for _field, step in steps_in(part):
                for call, around in _in_row(step.plan.parts, ()):
                    yield part, call, around


def _in_row(parts: tuple[Part, ...], around: tuple[Layer, ...]) -> Iterator[tuple[Call, tuple[Layer, ...]]]:
    for part in parts:
        if isinstance(part, Within):
            yield from _in_row(part.inner, (*around, part.layer))
            if isinstance(part.layer, Fallback):
                yield from _in_row(part.layer.step.parts, around)
        elif isinstance(part, Call):
            started = step_of(part.fn)
            if started is None:
                yield part, around
            else:
                yield from _in_row(started.parts, around)


def _retries(layer: Layer) -> bool:
    return isinstance(layer, Retry) and layer.attempts > 1


# ---- the rules


def _without_timeout(line: SegmentLayout, _most: int | None) -> _Hits:
    for operation, call, around in _calls(line):
        if call.runner is None and not any(isinstance(layer, Timeout) for layer in around):
            yield operation.name, f"the call of {named(call.name)} has no timeout."


def _limit_around_retry(line: SegmentLayout, _most: int | None) -> _Hits:
    for operation, call, around in _calls(line):
        retries = [number for number, layer in enumerate(around) if _retries(layer)]
        limits = [number for number, layer in enumerate(around) if isinstance(layer, Limit)]
        if retries and limits and limits[-1] < retries[-1]:
            yield operation.name, f"the rate limit of {named(call.name)} is around its retry."


def _repeated(line: SegmentLayout, _most: int | None) -> _Hits:
    for operation, call, around in _calls(line):
        if not call.idempotent and any(map(_retries, around)):
            yield operation.name, f"the call of {named(call.name)}, which is not idempotent, is retried."


def _waiting_breaker_in_limit(line: SegmentLayout, _most: int | None) -> _Hits:
    for operation, call, around in _calls(line):
        waits = [number for number, each in enumerate(around) if isinstance(each, CircuitBreaker) and each.wait]
        if waits and any(isinstance(layer, Limit) for layer in around[: waits[-1]]):
            yield operation.name, f"calls of {named(call.name)} wait for the circuit with their tokens taken."


def _idle_places(line: SegmentLayout, _most: int | None) -> _Hits:
    for operation, call, around in _calls(line):
        places = [number for number, each in enumerate(around) if isinstance(each, Places)]
        if places and any(map(_lets_wait, around[places[0] :])):
            yield operation.name, f"a call of {named(call.name)} keeps its place while it waits to be made again."


def _lets_wait(layer: Layer) -> bool:
    return _retries(layer) or (isinstance(layer, CircuitBreaker) and layer.wait)


def _places_in_a_circle(line: SegmentLayout, _most: int | None) -> _Hits:
    held = [(operation.name, pair) for operation, _call, around in _calls(line) for pair in _held_pairs(around)]
    for name, (outer, inner) in held:
        if any(same_limiter(outer, within) and same_limiter(inner, around) for _name, (around, within) in held):
            yield name, "a call holds a place while it waits for one that others hold while they wait for that."


def _held_pairs(around: tuple[Layer, ...]) -> Iterator[tuple[object, object]]:
    """Yield each limiter whose place is held while one of another is waited for, and that one."""
    held: list[object] = []
    together: list[object] = []  # taken at one instant
    for layer in around:
        if isinstance(layer, Places):
            yield from ((limiter, layer.limiter) for limiter in held)
            together.append(layer.limiter)
        elif not isinstance(layer, Limit):
            held, together = held + together, []


def _emptied_by_open_circuit(line: SegmentLayout, _most: int | None) -> _Hits:
    for part in _parts(line):
        step = step_of(part.fn) if isinstance(part, Map | FlatMap) and _goes_on(part.on_error) else None
        for call, around in () if step is None else _in_row(step.parts, ()):
            for number, layer in enumerate(around):
                if isinstance(layer, CircuitBreaker) and not layer.wait and not any(map(_awaits_it, around[:number])):
                    yield part.name, f"items fail at once while the circuit of {named(call.name)} is open."


def _goes_on(policy: object) -> bool:
    """Whether any number of items may fail."""
    unlimited = isinstance(policy, Skip) and policy.max_failures is None and policy.max_ratio is None
    return unlimited or isinstance(policy, Emit | Divert)


def _awaits_it(layer: Layer) -> bool:
    """Whether it may deal with a `CircuitOpen`: a retry that names it or asks a predicate, or a fallback."""
    if isinstance(layer, Fallback):
        return True
    kinds: Any = layer.on if isinstance(layer, Retry) else ()
    return CircuitOpen in kinds if isinstance(kinds, tuple) else kinds is CircuitOpen or not isinstance(kinds, type)


def _endless_batch(line: SegmentLayout, _most: int | None) -> _Hits:
    for part in _parts(line):
        if isinstance(part, Grouping) and part.max_items is None:
            yield part.name, f"the {part.verb} has no max_items."


def _unlimited_channel(line: SegmentLayout, _most: int | None) -> _Hits:
    for part in _parts(line):
        if isinstance(part, Source) and part.kind == "channel":
            channel: Any = part.origin.value
            is_trio = type(channel).__module__.partition(".")[0] == "trio"
            if is_trio and hasattr(channel, "statistics") and channel.statistics().max_buffer_size == math.inf:
                yield part.name, "the buffer of the channel has no limit."


def _too_many(line: SegmentLayout, most: int | None) -> _Hits:
    held = bounds(line)
    bound = held[id(line)]
    if most is not None and bound > most:
        largest = sorted(line.all_stages(), key=lambda stage: held[id(stage)], reverse=True)[:_MOST_STAGES]
        stages = ", ".join(f"{stage.name} {_at_most(held[id(stage)])}" for stage in largest)
        yield "plan", f"items in flight: {_at_most(bound)}, more than {most} ({stages})."


def _at_most(bound: int | float) -> str:
    return "without limit" if bound == math.inf else f"at most {bound}"


RULES = (
    Rule(
        "timeout",
        "an async call of a step without a timeout",
        "A call that never returns holds its place, and in order all results behind it, for as long as the run lasts.",
        "Write .timeout(seconds) around the call, inside its retry.",
        _without_timeout,
    ),
    Rule(
        "limit-around-retry",
        "a rate limit around a retry",
        "Only the first attempt takes a token, so retries go beyond the rate, just when the service has trouble.",
        "Write .rate_limit(limit) before .retry(retry).",
        _limit_around_retry,
    ),
    Rule(
        "not-idempotent",
        "a retry of a call that is not idempotent",
        "A failed call may have had its effect, which a retry repeats.",
        "Leave out the retry, or make the call safe to repeat and write idempotent=True.",
        _repeated,
    ),
    Rule(
        "breaker-in-limit",
        "a circuit that calls wait for with their tokens",
        "When the circuit closes they start together, in a burst that the rate does not allow.",
        "Write .rate_limit(limit) before .circuit_breaker(breaker).",
        _waiting_breaker_in_limit,
    ),
    Rule(
        "idle-places",
        "places around a retry, or around a circuit that calls wait for",
        "Nobody uses the place meanwhile, though all who share the limiter wait for one, just when there is trouble.",
        "Write .places(limiter) before .retry(retry), or before .circuit_breaker(breaker).",
        _idle_places,
    ),
    Rule(
        "places-in-a-circle",
        "places of two limiters that are held in opposite orders",
        "When each holds the place that the other waits for, neither goes on.",
        "Write both directly one behind the other, .places(one).places(other), or in the same order everywhere.",
        _places_in_a_circle,
    ),
    Rule(
        "open-circuit",
        "an outage that passes all items to on_error",
        "So an outage of some seconds passes everything that comes in that time to on_error, as fast as it comes.",
        "Write CircuitBreaker(wait=True), a retry of CircuitOpen around it, or OnError.skip(max_failures=...).",
        _emptied_by_open_circuit,
    ),
    Rule(
        "batch-size",
        "a batch or window without max_items",
        "In a burst the list, and with it the items in flight, grow without limit.",
        "Write max_items as well.",
        _endless_batch,
    ),
    Rule(
        "channel-size",
        "a memory channel without a limit",
        "A fast sender fills the memory in front of the pipeline, where no bound and no report counts it.",
        "Write trio.open_memory_channel(n) with a number.",
        _unlimited_channel,
    ),
    Rule(
        "bound",
        "more items in flight than max_in_flight allows",
        "That is more memory, and more work that is lost or delayed at a stop, than you allow.",
        "Lower concurrency, capacity or max_items of the stages named, or allow more.",
        _too_many,
    ),
)
"""All rules, in the order in which the findings of one part are told."""
