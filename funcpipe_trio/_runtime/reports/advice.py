"""What limits a run, and what would help? One sentence, from a small table of rules; a pure function of a snapshot.

The rule: the limit is the one that `bottleneck` names, and the first rule that fits it says what would help. Where the
limit was at work for less than `_SURE` of the time, nothing is said: then it is the interplay that limits.

How much it would help is estimated by the utilisation law. Let T be the time (without pauses), and w the part of it for
which something was at work, as `bottleneck` counts it. At N times the throughput it is at work N times as long, so

    a stage, the source, the consumer  allows at most  N = 1 / w
    all that runs in the event loop    at most         N = 1 / (the sum of w over stages without places)
    a rate limit of r a second         at most         N = r * T / (calls, or attempts if each takes a token)
    the limit, changed from c to d     at most         N = d / c

and the estimate is the lowest of these, if it is at least `_WORTH_IT`. It holds if calls take no longer when more of
them are made at once, and if there are enough items and buffers to keep the stages apart: it is a bound that long runs
come close to. Nothing is estimated from fewer than `_FEW` calls, nor where the law does not hold: for calls by key, for
costs, for limits that are shared, for calls that share threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import Final, NamedTuple, Protocol

from ..._base.frozen import dataclass
from .bottleneck import Basis, stages_too_fast
from .counts import LinkReport, StageReport

__all__ = ["Setting", "advise"]

_SURE: Final = 0.75
_WORTH_IT: Final = 1.1
_FEW: Final = 50
_STEP: Final = 2.0
"""By how much a setting is raised at most: what is far from what was seen is not known."""
_MUCH: Final = 0.5
"""Part of the time of its places for which a cause counts as the cause."""
_SOME: Final = 0.05
_IN_LOOP: Final = "the event loop"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the plan says of a stage, as far as rules ask for it."""

    is_ordered: bool = False
    is_keyed: bool = False
    has_key_rate: bool = False
    """Whether calls of one key begin at a limited rate."""
    can_retry_elsewhere: bool = False
    """Whether items could wait for their next attempt without a place."""
    retries_elsewhere: int = 0
    """How many items may wait for their next attempt without a place."""
    is_latest: bool = False
    """Whether a newer item supersedes the one it works on."""
    paced_by: str | None = None
    """Name of its operation that waits for the clock; with a rate it is a throttle."""
    rate: float | None = None
    """Calls, or items, a second that its lowest rate limit allows; None without one."""
    is_rate_sure: bool = False
    """Whether each costs 1, nothing else shares the limit, and how many take a token is known."""
    is_rate_retried: bool = False
    """Whether a retry is around that limit, so that each attempt counts."""
    shares_limits: bool = False
    """Whether others share a limit of it, so that nobody knows what that allows."""
    runner: str | None = None
    """What runs its calls, such as ``threads``, if that takes fewer at once than the stage makes."""
    fan_out: str | None = None
    """The broadcast in one of whose branches it is, so that it holds up the others."""


class Bound(NamedTuple):
    """What allows no more than some times the throughput."""

    times: float
    what: str = ""
    does: str = "is the limit"


class Snapshot(Protocol):
    """What is read of a snapshot."""

    @property
    def stages(self) -> tuple[StageReport, ...]: ...
    @property
    def links(self) -> tuple[LinkReport, ...]: ...
    @property
    def delivered(self) -> int: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def paused(self) -> float: ...
    @property
    def bottleneck(self) -> str | None: ...
    @property
    def _basis(self) -> Basis: ...


def advise(snapshot: Snapshot) -> str:
    """Return the sentence; empty if nothing is sure."""
    if snapshot.bottleneck is None or snapshot.elapsed <= snapshot.paused:
        return ""
    case = _Case(snapshot)
    if case.part < _SURE:
        return ""
    said = next((say(case) for fits, say in _RULES if fits(case)), "")
    if said and case.setting.fan_out is not None:
        said += f" ({case.setting.fan_out}: the other branches wait for it)"
    return said


class _Case:
    """The limit of a run, and what the rules ask about it."""

    def __init__(self, snapshot: Snapshot) -> None:
        basis = snapshot._basis
        names = [stage.name for stage in snapshot.stages]
        self.name: str = snapshot.bottleneck or ""
        self.seconds = snapshot.elapsed - snapshot.paused  # for which the sources were let run
        self.stages = snapshot.stages
        self.settings: Sequence[Setting] = basis.settings
        self.number: int | None = names.index(self.name) if self.name in names else None  # None: the consumer
        self.stage: StageReport | None = None if self.number is None else snapshot.stages[self.number]
        self.setting = Setting() if self.number is None else basis.settings[self.number]
        self.places: int = 0 if self.number is None else basis.places[self.number]
        self.calls = snapshot.delivered if self.stage is None else self.stage.received
        self.waits_outside: bool = self.number is not None and basis.wiring.waits_outside[self.number]
        self._worked = basis.worked
        self._ignored = {*stages_too_fast(basis.wiring, snapshot.links), self.number}
        self._has_consumer = basis.wiring.has_consumer
        self._waits_outside = basis.wiring.waits_outside
        self.part = self._part(len(names) if self.number is None else self.number)

    def _part(self, number: int) -> float:
        """Return for which part of the time something was at work."""
        return self._worked[number] / self.seconds

    def others(self) -> list[Bound]:
        """Return how many times the throughput all else allows, and what it is that allows no more."""
        found = [Bound(_over(self._part(number)), self.stages[number].name) for number in self._rest()]
        found += [
            Bound(limit, f"the rate limit of {self.stages[number].name}", "binds")
            for number in self._rest()
            if (limit := self._rate_allows(number)) is not None
        ]
        if self._has_consumer and self.number is not None:
            found.append(Bound(_over(self._part(len(self.stages))), "consumer"))
        in_loop = [self._part(each) for each, stage in enumerate(self.stages) if self._is_in_loop(each, stage)]
        return [*found, Bound(_over(sum(in_loop)), _IN_LOOP)]

    def own_rate(self) -> list[Bound]:
        """Return the same for the rate limit of the stage itself."""
        limit = None if self.number is None else self._rate_allows(self.number)
        return [] if limit is None else [Bound(limit, "its rate limit", "binds")]

    def _rest(self) -> list[int]:
        return [number for number in range(len(self.stages)) if number not in self._ignored]

    def _is_in_loop(self, number: int, stage: StageReport) -> bool:
        setting = self.settings[number]
        is_working = stage.kind in ("sync", "source") and not self._waits_outside[number] and setting.paced_by is None
        return is_working and number not in self._ignored

    def _rate_allows(self, number: int) -> float | None:
        stage, setting = self.stages[number], self.settings[number]
        if setting.rate is None or not setting.is_rate_sure or stage.received == 0:
            return None
        retries = stage.policies.retries if stage.policies is not None and setting.is_rate_retried else 0
        return setting.rate * self.seconds / (stage.received + retries)

    def waits(self, name: str, part: float) -> bool:
        """Whether its calls spent more than a part of their time in one kind of wait for a policy."""
        if self.stage is None or self.stage.policies is None:
            return False
        return bool(getattr(self.stage.policies, name) > part * self.stage.used)

    def waits_mostly(self, name: str) -> bool:
        """Whether that was most of their time."""
        return self.waits(name, _MUCH)

    @property
    def mostly_retries(self) -> bool:
        """Whether its items kept their places for most of their time only to wait for their next attempts."""
        policies = None if self.stage is None else self.stage.policies
        if self.stage is None or policies is None:
            return False
        return policies.waited_retry - policies.waited_elsewhere > _MUCH * self.stage.used

    @property
    def mostly_fails(self) -> bool:
        """Whether most of what it took came to nothing, by an error that was handled or that ended the run."""
        return self.stage is not None and self.stage.failed > _MUCH * self.stage.received

    @property
    def maximum(self) -> int | None:
        """The most places that it may have, if it adapts their number; None otherwise."""
        adapted = None if self.stage is None else self.stage.adapted
        return None if adapted is None else adapted.maximum

    @property
    def stalled(self) -> float:
        """Part of the time of its places for which they waited for an earlier item."""
        return 0.0 if self.stage is None or not self.stage.offered else self.stage.stalled / self.stage.offered

    @property
    def can_estimate(self) -> bool:
        """Whether enough was seen."""
        return self.calls >= _FEW


def _over(part: float) -> float:
    return 1 / part if part > 0 else inf


def _estimate(allowed: float, others: Sequence[Bound]) -> str:
    """Return how much it would help, and what is the limit then; empty if it would hardly help."""
    most = min(others, default=Bound(inf))
    if min(allowed, most.times) < _WORTH_IT:
        return ""
    then = f", then {most.what} {most.does}" if most.times <= allowed else ""
    return f": about {min(allowed, most.times):.1f}x{then}"


def _nearly(case: _Case, others: Sequence[Bound], said: str = "it is the limit") -> str | None:
    """Return what is said where something else is nearly as busy; None if nothing is."""
    most = min(others, default=Bound(inf))
    if most.times >= _WORTH_IT:
        return None
    return f"{case.name}: {said}, and {most.what} hardly less; to change one of them would help little"


# ---- the rules: what they say


def _slow_source(case: _Case) -> str:
    given = 0 if case.stage is None else case.stage.received / case.seconds
    return f"{case.name}: nothing else limits; only a source that gives more than {given:.3g} items a second would help"


def _slow_consumer(case: _Case) -> str:
    most = min(case.others()).times
    gain = f"; the stages could give about {most:.1f}x" if _WORTH_IT <= most < inf and case.can_estimate else ""
    return f"consumer: the code that takes the results is the limit{gain}"


def _open_circuit(case: _Case) -> str:
    return f"{case.name}: its calls wait for a circuit to close; what they call must recover first"


def _failing(case: _Case) -> str:
    return f"{case.name}: most of its calls fail; that is to be mended first"


def _retries(case: _Case) -> str:
    if case.setting.can_retry_elsewhere:
        most = case.setting.retries_elsewhere
        how = f"a larger retries_elsewhere than {most}" if most else "retries_elsewhere"
        return f"{case.name}: its calls wait between attempts; fewer failures, a shorter backoff, or {how} would help"
    return f"{case.name}: its calls wait between attempts; fewer failures, or a shorter backoff, would help"


def _rate_binds(case: _Case) -> str:
    assert case.stage is not None
    rate = case.setting.rate
    if rate is None or not case.setting.is_rate_sure:
        return f"{case.name}: its rate limit binds; only a higher one would help"
    waited = 0.0 if case.stage.policies is None else case.stage.policies.waited_rate
    own = Bound(_over((case.stage.used - waited) / case.stage.offered), "its concurrency")
    others = [*case.others(), own]
    if said := _nearly(case, others, "its rate limit binds"):
        return said
    gain = _estimate(_STEP, others) if case.can_estimate else ""
    return f"{case.name}: its rate limit binds; raise it from {rate:g} to {_STEP * rate:g} a second{gain}"


def _places_bind(case: _Case) -> str:
    use = "more of them, or quicker calls, would help"
    return f"{case.name}: its calls wait for places that it shares; {use}"


def _one_key(case: _Case) -> str:
    if case.setting.has_key_rate:
        what, how = "their key's rate, or for each other", "a higher key_rate, more keys at once, or a larger waiting"
    else:
        what, how = "each other", "more keys at once, quicker calls, or a larger waiting"
    return f"{case.name}: items of one key wait for {what}; {how} would help"


def _behind_the_head(case: _Case) -> str:
    assert case.stage is not None
    most = _over(case.stage.used / case.stage.offered)
    is_sure = case.can_estimate and not case.setting.shares_limits
    gain = _estimate(most, [*case.others(), *case.own_rate()]) if is_sure else ""
    return f"{case.name}: results wait for an earlier one; use ordered=False, or a larger buffer{gain}"


def _runner_is_full(case: _Case) -> str:
    return f"{case.name}: its calls wait for {case.setting.runner}; more of them would help, not more concurrency"


def _superseding(case: _Case) -> str:
    return f"{case.name}: it works on one item at a time, the latest; only quicker calls would help"


def _all_places_in_use(case: _Case) -> str:
    others = [*case.others(), *case.own_rate()]
    if said := _nearly(case, others):
        return said
    most = min(min(others).times, _STEP)
    raised = max(case.places + 1, ceil(case.places * most))
    is_sure = case.can_estimate and not case.setting.is_keyed and not case.setting.shares_limits
    gain = _estimate(raised / case.places, others) if is_sure else ""
    return f"{case.name}: raise concurrency from {case.places} to {raised}{gain}"


def _adapts(case: _Case) -> str:
    at_once = f"{case.places} call{'s' * (case.places > 1)} at once"
    if case.places < (case.maximum or 0):
        return f"{case.name}: {at_once} is what it bears, as far as its latency says; only quicker calls would help"
    if said := _nearly(case, [*case.others(), *case.own_rate()]):
        return said
    return f"{case.name}: it would bear more than {at_once}; raise the maximum of its Adaptive"


def _throttled(case: _Case) -> str:
    rate = case.setting.rate
    if rate is None or not case.setting.is_rate_sure:
        return f"{case.setting.paced_by}: it waits for the clock, as the plan says"
    gain = _estimate(_STEP, case.others()) if case.can_estimate else ""
    return f"{case.setting.paced_by}: raise its rate from {rate:g} to {_STEP * rate:g} a second{gain}"


def _busy_function(case: _Case) -> str:
    return f"{case.name}: its functions keep the event loop busy; make them a Step on processes(n), or on threads(n)"


def _generator_at_work(case: _Case) -> str:
    return f"{case.name}: its generator is the limit, one item at a time; calls in a map have concurrency"


def _is_limited(case: _Case) -> bool:
    """Whether its calls wait for their rate limit, or are as many as that allows."""
    if not case.places:
        return False
    return case.waits_mostly("waited_rate") or min(case.own_rate(), default=Bound(inf)).times < _WORTH_IT


def _has_places(case: _Case) -> bool:
    return case.places > 0


def _runs_another(case: _Case) -> bool:
    """Whether it runs a pipeline in its own task, as `or_else` does."""
    return case.stage is not None and case.stage.kind == "async"


def _slow_inside(case: _Case) -> str:
    return f"{case.name}: nothing else limits; only a pipeline inside it that gives more would help"


_Rule = tuple[Callable[[_Case], bool], Callable[[_Case], str]]
_RULES: tuple[_Rule, ...] = (
    (lambda case: case.number is None, _slow_consumer),
    (lambda case: case.mostly_retries, _retries),
    (lambda case: case.waits_outside, _slow_source),
    (lambda case: case.places > 0 and case.mostly_fails, _failing),
    (lambda case: case.waits_mostly("waited_circuit"), _open_circuit),
    (_is_limited, _rate_binds),
    (lambda case: case.waits("waited_places", _SOME), _places_bind),
    (lambda case: case.setting.is_keyed and case.stalled > _SOME, _one_key),
    (lambda case: case.setting.is_ordered and case.stalled > _SOME and case.places > 1, _behind_the_head),
    (lambda case: case.setting.runner is not None, _runner_is_full),
    (lambda case: case.setting.is_latest, _superseding),
    (lambda case: case.maximum is not None, _adapts),
    (_has_places, _all_places_in_use),
    (lambda case: case.setting.paced_by is not None, _throttled),
    (lambda case: case.stage is not None and case.stage.kind == "through", _generator_at_work),
    (_runs_another, _slow_inside),
    (lambda case: True, _busy_function),
)
"""Of the limit, the first that fits: whether it does, and what is said."""
