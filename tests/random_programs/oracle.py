"""Judge a run by what the documents promise, from what user code saw.

Each law is a function that gives what is wrong, as pairs of a rule and a detail.

Left out, since the documents are silent or leave it open:

- in which order errors of several inputs are met, whether a zip whose inputs end and fail at once ends or fails, and
  what an item is counted as that says no to `take_while` (dropped or discarded: either is taken);
- what becomes of the waits of an async generator's own `finally` when it is stopped inside of `__anext__` (P9);
- which items meet at a `debounce`, `sample`, a buffer that drops, an open circuit, a timeout around a rate limit;
- whether a channel is closed that belongs to an input of a `concat` which was never started;
- how a stray `Cancelled` and a real cancellation at the same instant are told apart;
- the fairness of shares (P13), real time (P16), memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import trio

from funcpipe_trio import Aborted, BufferOverflow, CircuitOpen, Failure, Report, TooManyKeys

from .items import FATAL, STOPS, NoNotes, Wrap, leaves, root_of
from .model import Key, Model, Stream, copies_of, key_of, shape
from .program import ENDING, INF, Line, Op, Program, done_to, functions_of, lines_of, ops_of, sources_of
from .run import SILENT, execute, fails_in_silence
from .world import World

Found = Iterator[tuple[str, str]]
POLICIES = ("drop_oldest", "drop_newest", "latest")


class Facts:
    """What several laws ask of a run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.program: Program = world.program
        self.ops = list(ops_of(self.program.line))
        self.kinds = {op.kind for op in self.ops}
        self.report = world.report
        self.kind = self.program.ending.kind
        what = {what for _, what, finished in world.stops if not finished}
        self.aborted = "abort" in what
        self.drained = bool(what & {"drain", "drain_nowait", "grace"})
        self.grace = "grace" in what
        self.cancelled = world.cancelled_at is not None or world.resorted
        self.left = "left" in world.consuming
        self.fatal = any(raised.kind in FATAL for raised in world.raised)
        self.stopped = self.aborted or self.cancelled or self.left or self.grace or self.fatal
        self.values = self._values()
        self.sources = {source.site: source for source in sources_of(self.program.line)}
        self.roots = [line.source for line in lines_of(self.program.line)]
        self.error = world.caller_error
        self._see_lists()
        self.own_abort = isinstance(self.error, Aborted) and not self.mine(self.error)

    def _values(self) -> list[Any] | None:
        """What was delivered, None where nobody saw it."""
        world = self.world
        if self.kind == "open":
            return [value for _, value in world.delivered]
        if not world.has_result or self.kind not in ("collect", "fold", "first"):
            return None
        return [world.result] if self.kind == "first" else list(world.result)

    def _see_lists(self) -> None:
        """What was taken from a list is seen by the report only: so many from its beginning."""
        stages = {stage.name: stage for stage in self.report.stages} if self.report is not None else {}
        for source in self.roots:
            if source.kind == "list" and (stage := stages.get(f"s{source.site}")):
                self.world.taken[source.site] = [(source.site, k) for k in range(stage.received)]

    def mine(self, error: BaseException | None) -> bool:
        return any(raised.error is error for raised in self.world.raised)


# ---- the laws


def ends(facts: Facts) -> Found:
    """A run ends; nothing comes out of it that it was not given."""
    world = facts.world
    if world.hang is not None:
        yield "hang", world.hang
        return
    escaped = world.escaped
    if escaped is None or any(escaped is each for each in world.kept) or escaped is world.caller_error:
        return
    if isinstance(escaped, trio.Cancelled):
        if not facts.cancelled:
            yield "P2a stray Cancelled out of the run", "no scope outside was cancelled"
    elif not _killed(facts, escaped):
        if facts.cancelled and isinstance(escaped, BaseExceptionGroup):
            escaped = escaped.split(trio.Cancelled)[1] or trio.Cancelled
        if escaped is not trio.Cancelled:
            yield "escapes from the block", _name(escaped)


def _killed(facts: Facts, escaped: BaseException) -> bool:
    """Whether this is what kills a task: bare, or if several of a kind that is no interrupt met, all in one group."""
    fatal = [raised for raised in facts.world.raised if raised.kind in FATAL]
    if isinstance(escaped, BaseExceptionGroup):
        fatal = [raised for raised in fatal if raised.kind != "keyboard"]
        several = len(escaped.exceptions) == len(set(map(id, escaped.exceptions))) > 1
        return several and all(any(raised.error is each for raised in fatal) for each in escaped.exceptions)
    return any(raised.error is escaped for raised in fatal)


def _name(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}[{', '.join(sorted({_name(each) for each in error.exceptions}))}]"
    text = "" if type(error).__module__.endswith("world") else _text(error)[:50]
    return f"{type(error).__name__}({text})"


def _text(error: BaseException | None) -> str:
    try:
        return str(error)
    except Exception:
        return "?"


def error_is_known(facts: Facts) -> Found:
    """P5: the caller gets the original error itself, with a note of where it was met."""
    error, world = facts.error, facts.world
    if error is None:
        return
    key = key_of(error, world)
    if key[0] == "library":
        if not any(isinstance(error, kind) for kind in _library_errors(facts)) and not facts.own_abort:
            yield "P5 foreign error", _name(error)
        elif facts.own_abort and not (facts.aborted or facts.cancelled):
            yield "P5 Aborted, but nobody aborted", ""
        return
    near = (error, error.__cause__, error.__context__)
    raised = next(r for each in near for r in world.raised if r.error is each)
    if raised.error is not error:
        stray = raised.kind == "cancelled"
        if not stray and not (type(error) is RuntimeError and raised.kind in STOPS):
            yield "P5 another error in its place", f"{_name(error)} for {raised.kind}"
    elif raised.kind in STOPS:
        yield "P5 a word of trio is raised", raised.kind
    notes = getattr(error, "__notes__", None) or []
    if raised.kind != "nonotes" and not any("in stage " in note for note in notes):
        yield "P5 no note of the stage", f"{raised.role}, {raised.kind}"


def _library_errors(facts: Facts) -> list[type]:
    kinds: list[type] = []
    for op in facts.ops:
        layers = [layer[0] for layer in op.args.get("layers", ())]
        if op.kind in ("idle_timeout", "timeout") or "timeout" in layers:
            kinds.append(trio.TooSlowError)
        if "breaker" in layers:
            kinds.append(CircuitOpen)
        if op.args.get("overflow") == "fail":
            kinds.append(BufferOverflow)
        if op.args.get("full") == "fail":
            kinds.append(TooManyKeys)
        if op.kind == "partition" and op.wrong is not None:
            kinds.append(KeyError)
        if op.kind == "join" and op.args.get("strict"):
            kinds.append(ValueError)
    return [*kinds, LookupError] if facts.kind == "first" else kinds


def outcome(facts: Facts) -> Found:
    """The outcome says how the run ended."""
    report, world = facts.report, facts.world
    if report is None or facts.kind not in ("open", "run", "start") or world.hang:
        return
    said, error = report.outcome, facts.error
    allowed = {"completed"}
    if world.raised or _library_errors(facts):
        allowed.add("failed")
    causes = {"aborted": facts.aborted, "drained": facts.drained, "cancelled": facts.cancelled, "left": facts.left}
    allowed |= {name for name, cause in causes.items() if cause}
    if facts.fatal:
        return
    if said == "cancelled" and not facts.cancelled:
        yield "P2a outcome cancelled", "no scope outside was cancelled"
    elif said not in allowed:
        yield "outcome", f"{said}, not one of {', '.join(sorted(allowed))}"
    if facts.own_abort and said not in ("aborted", "cancelled"):
        yield "outcome", f"{said}, though the consumer got Aborted"
    elif error is not None and not facts.own_abort:
        if said != "failed":
            yield "outcome", f"{said}, though the consumer got an error"
        if report.error is not error:
            yield "report.error is another", f"{_name(report.error)} for {_name(error)}"
    elif error is None and said == "failed" and not facts.stopped:
        yield "outcome", "failed, though the consumer got no error"
    if said == "failed" and report.error is None:
        yield "report.error is missing", ""


def conservation(facts: Facts) -> Found:
    """P1, P2: every item taken has exactly one fate."""
    world, report = facts.world, facts.report
    if world.hang or (facts.values is None and facts.kind != "first") or facts.fatal:
        return
    seen: Counter[Any] = Counter()
    for value in facts.values or ():
        seen.update(leaf.id for leaf in leaves(value))
    told: Counter[Any] = Counter()
    for item, _, _ in world.discards:
        told.update(leaf.id for leaf in leaves(item))
    most = copies_of(facts.program.line)
    taken = [id for ids in world.taken.values() for id in ids]
    if len(taken) != len(set(taken)):
        again = [id for id, times in Counter(taken).items() if times > 1]
        yield "P2 a source is read twice", f"{len(again)} items"
        return
    taken += world.children
    for id in set(seen) | set(told):
        if seen[id] + told[id] > most:
            rule = "P2 delivered twice" if seen[id] > most else "P1 two fates"
            yield rule, f"delivered {seen[id]}, discarded {told[id]} times; {_reasons(world, id)}"
            return
    if facts.kind not in ("open", "collect"):
        return
    unopened = {source.site for source in facts.roots if source.kind == "channel"} if _may_not_start(facts) else set()
    missing = [id for id in taken if not seen[id] and not told[id] and id not in world.known]
    missing = [id for id in missing if root_of(id)[0] not in unopened]
    if not missing:
        return
    allowed = _silent(facts)
    if len(missing) > allowed:
        where = sorted({"channel" if facts.sources[root_of(id)[0]].kind == "channel" else "other" for id in missing})
        inner = " (of a flat_map)" if any(type(id[0]) is tuple for id in missing) else ""
        how = report.outcome if report is not None else "collected" if facts.error is None else "raised"
        yield "P1 lost", f"of {', '.join(where)}{inner}; {how}"


def _reasons(world: World, id: Any) -> str:
    return ", ".join(
        sorted({reason for item, _, reason in world.discards if any(leaf.id == id for leaf in leaves(item))})
    )


def _silent(facts: Facts) -> float:
    """How many items may have gone without a word to user code."""
    unseen = facts.kinds & (SILENT | {"take_while", "partition"})
    by_policy = any(fails_in_silence(op) for op in facts.ops) or bool(_library_errors(facts))
    superseded = any(op.kind == "join" and op.how == "zip_latest" for op in facts.ops)
    if not unseen and not by_policy and not superseded:
        return 0
    if facts.report is None or facts.kinds & {"batch", "window", "sliding", "pairwise", "stateful", "flat_map", "join"}:
        return INF
    return float(facts.report.dropped + facts.report.failed)


def waits(report: Report) -> Found:
    """All that a stage waited is blamed on somebody; each second was watched, for time is virtual."""
    waited = report._basis.waited
    watched = [0.0] * len(waited.totals())
    for (waiter, _whom), seconds in waited.pairs().items():
        watched[waiter] += seconds
    for number, stage in enumerate(report.stages):
        if abs(watched[number] - stage.waited_input - stage.waited_room) > _ROUNDING:
            yield "blame of a stage", f"{watched[number]} s watched; {report.outcome}"


_ROUNDING = 1e-6
"""Seconds, for sums of many waits."""


def sums(facts: Facts) -> Found:
    """The report can be added up, per stage, per link, and as a whole."""
    world, report = facts.world, facts.report
    if report is None or world.hang:
        return
    for stage in report.stages:
        came = stage.received + stage.created
        went = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        if came != went:
            yield "sum of a stage", f"{came} came, {went} went; {report.outcome}"
    for link in report.links:
        if link.passed != link.taken + link.discarded + link.dropped:
            yield "sum of a link", f"{link.passed} passed; {report.outcome}"
    yield from waits(report)
    told = sum(reason not in POLICIES for _, _, reason in world.discards)
    if told != report.discarded:
        yield "on_discard and the report differ", f"{told} told, {report.discarded} counted; {report.outcome}"
    if facts.kind == "open" and len(world.delivered) != report.delivered:
        yield "delivered and the report differ", f"{len(world.delivered)} got, {report.delivered} counted"
    hidden = {source.kind for source in facts.roots} & {"ticks", "channel" if _may_not_start(facts) else "ticks"}
    taken = sum(map(len, world.taken.values()))
    if not hidden and taken != report.taken:
        kinds = "with a channel" if any(source.kind == "channel" for source in facts.roots) else "no channel"
        yield (
            "taken and the report differ",
            f"{'less' if report.taken < taken else 'more'} counted, {kinds}; {report.outcome}",
        )
    if facts.kinds <= {"map", "filter", "tap", "scan", "enumerate", "buffer", "take", "skip", "distinct", "delay"}:
        went = report.delivered + report.failed + report.dropped + report.discarded
        if report.taken != went:
            yield "sum of the report", f"{report.taken} taken, {went} went; {report.outcome}"


def lists(facts: Facts) -> Found:
    """P2, P3, P5: what is delivered is what the model gives; all of it, or what stands before the end."""
    world, values = facts.world, facts.values
    if world.hang or facts.fatal:
        return
    taken = dict(world.taken) if facts.drained or _is_cut(facts) else None
    stream = Model(facts.program, taken).evaluate()
    if stream.loose:
        return
    if values is None:
        yield from _ending(facts, stream, None)
        yield from _count(facts, stream)
    else:
        yield from _compared(facts, stream, values)


def _compared(facts: Facts, stream: Stream, values: list[Any]) -> Found:
    world = facts.world
    got = [shape(value, world) for value in values]
    if stream.grouped:
        got = [each for value in got for each in value[1:]]
    strands = [each.items for each in stream.strands]
    if world.program.ending.readers > 1:
        stream.ordered = False
    places: dict[Any, tuple[int, int]] = {}
    for number, items in enumerate(strands):
        for at, item in enumerate(items):
            if item in places:  # two branches that give the same: who gave it is not seen
                stream.ordered = False
            places[item] = (number, at)
    if stream.ordered:
        yield from _in_order(got, strands, places, stream)
    elif extra := Counter(got) - Counter(each for items in strands for each in items):
        yield "P3 delivers what it should not", _brief(next(iter(extra)))
    counts = Counter(places[item][0] for item in got if item in places)
    whole = {number for number, items in enumerate(strands) if counts[number] == len(items)}
    if not stream.ordered and len(got) == sum(map(len, strands)):
        whole = set(range(len(strands)))
    yield from _ending(facts, stream, whole)


def _is_cut(facts: Facts) -> bool:
    """Whether a source may have ended on its own before its time (at a deadline of its own)."""
    return any(
        source.hold == "deadline" or (source.kind == "ticks" and source.count < 0) for source in facts.sources.values()
    )


def _in_order(got: list[Any], strands: list[list[Any]], places: dict[Any, tuple[int, int]], stream: Stream) -> Found:
    upto = [0] * len(strands)
    for item in got:
        if item not in places:
            yield "P3 delivers what it should not", _brief(item)
            return
        number, at = places[item]
        if at < upto[number]:
            yield "P3 order", f"{_brief(item)} comes late"
            return
        if at > upto[number] and not stream.sub:
            yield "P3 an item is missing before others", _brief(item)
            return
        upto[number] = at + 1


def _brief(item: Any) -> str:
    return item[0] if isinstance(item, tuple) else str(item)


def _ending(facts: Facts, stream: Stream, whole: set[int] | None) -> Found:
    """A run that nobody stopped is complete, or ends with the error of a strand of which nothing is missing."""
    strays = any(raised.kind == "cancelled" for raised in facts.world.raised)
    if facts.stopped or facts.own_abort or (facts.drained and strays):
        return
    ends = [end for strand in stream.strands for end in strand.ends]
    must_end = not stream.cut and not stream.sub
    if facts.error is None or (facts.kind == "first" and type(facts.error) is LookupError):
        if ends and must_end:
            yield "P5 the failure is not raised", f"{facts.kind}: {_where(facts, ends)}"
        elif must_end and whole is not None and len(whole) < len(stream.strands):
            yield "P2a a part as the whole", facts.report.outcome if facts.report is not None else facts.kind
        return
    key = key_of(facts.error, facts.world)
    if key[0] == "library" and any(key[1] == kind.__name__ for kind in stream.maybe):
        return
    if key not in ends:
        yield "P5 the wrong error", f"{_where(facts, [key])} in place of {_where(facts, ends) or 'none'}"
    elif whole is not None and stream.ordered and not stream.sub:
        failing = [number for number, strand in enumerate(stream.strands) if strand.ends == [key]]
        # It may have failed in one of several branches; an error of the library does not say for which strand it is.
        enough = any if copies_of(facts.program.line) > 1 or key[0] == "library" else all
        if failing and not stream.cut and not enough(number in whole for number in failing):
            yield "P5 what is before a failure is not delivered", _where(facts, [key])
    yield from _numbers(facts, stream)


def _where(facts: Facts, ends: list[Key]) -> str:
    """Name errors by role and kind, without numbers."""
    kinds = {raised.key: raised.kind for raised in facts.world.raised}
    return ", ".join(sorted({f"{end[1]} {kinds.get(end, '')}".strip() for end in ends}))


def _numbers(facts: Facts, stream: Stream) -> Found:
    """The note says which operation and which item, where the plan is one line of one-to-one operations."""
    world, error = facts.world, facts.error
    raised = next((r for r in world.raised if r.error is error), None)
    if raised is None or raised.role != "fn" or raised.kind == "nonotes" or not raised.ids:
        return
    ops = facts.program.line.ops
    at = next((at for at, op in enumerate(ops) if op.kind == "map" and op.fn.site == raised.site), None)
    if at is None:
        return
    before, here = ops[:at], ops[at]
    if {op.kind for op in before} <= {"map", "tap", "scan", "enumerate", "delay", "buffer", "throttle"}:
        if any(op.args.get("on_error", ("stop",))[0] in ("skip", "divert") for op in before):
            return
        if any(op.kind == "buffer" and op.overflow != "block" for op in before) or raised.ids[0][0] != world_site(
            facts
        ):
            return
        if any(op.kind == "map" and op.fn.sleeps is not None and not op.ordered for op in before):
            return
        note = f"in stage 'op{here.site}', item {raised.ids[0][1]}"
        notes = getattr(error, "__notes__", None) or []
        if not any(each == note or each.startswith(note + ",") for each in notes):
            yield "P5 the note is wrong", "stage or number"


def world_site(facts: Facts) -> int:
    return facts.program.line.source.site


def _count(facts: Facts, stream: Stream) -> Found:
    """`count()` and the report of `run()` count what the model gives."""
    if facts.stopped or facts.error is not None or stream.sub or stream.cut or stream.grouped or stream.maybe:
        return
    expected = sum(len(strand.items) for strand in stream.strands)
    got = facts.world.result if facts.kind == "count" else None if facts.report is None else facts.report.delivered
    if got is not None and got != expected and not any(strand.ends for strand in stream.strands):
        yield "P2a a part as the whole", facts.kind


def order(facts: Facts) -> Found:
    """P3: items of one source come in its order, where no operation mixes them."""
    mixes = facts.kinds & {"fair_by", "broadcast", "partition", "balance"} or facts.program.ending.readers > 1
    if mixes or facts.values is None or facts.world.hang or copies_of(facts.program.line) > 1:
        return
    for op in facts.ops:
        if op.kind == "flat_map" and op.concurrency not in (None, 1):
            return
        if op.kind == "map" and op.fn.sleeps is not None and not op.ordered:
            return
        if op.kind in ("batch", "stateful") and op.args.get("key") is not None:
            return
    last: dict[int, int] = defaultdict(lambda: -1)
    seen = set()
    for value in facts.values:
        for leaf in leaves(value):
            site, k = root_of(leaf.id)
            if leaf.id not in seen and k < last[site]:
                yield "P3 order of a source", f"item {k} behind {last[site]}"
                return
            seen.add(leaf.id)
            last[site] = max(k, last[site])


def errors_are_kept(facts: Facts) -> Found:
    """P5, P9b: no error of user code is lost: it is raised, in the report, in the log, or met by a policy."""
    world, report = facts.world, facts.report
    reported = facts.kind in ("open", "start", "run")
    if world.hang or facts.fatal or (reported and report is None) or len(world.raised) >= 100:
        return
    found = _found_errors(facts)
    met = _met_by_policies(facts) | world.replaced
    notes = [note for note in getattr(facts.error, "__notes__", None) or [] if not note.startswith("in stage")]
    for raised in world.raised:
        stopped = facts.stopped or facts.drained or facts.error is not None
        if raised.site in met or (raised.kind == "cancelled" and stopped):
            continue
        kept = any(raised.error is each for each in found)
        told = type(raised.error).__name__ in " ".join(notes) or (not reported and bool(world.logged))
        if not kept and not told and (reported or raised.role == "cleanup"):
            yield "P5 an error is lost", f"{raised.role} {raised.kind}; {report.outcome if report else facts.kind}"
            return
        beside = facts.error is not None and not facts.own_abort and key_of(facts.error, world) != raised.key
        if raised.role == "cleanup" and beside and not told and type(facts.error) is not NoNotes:
            yield "P9b no note of an error of cleanup", f"{type(facts.error).__name__}; {facts.kind}"
            return


def _found_errors(facts: Facts) -> list[BaseException]:
    """All errors that the caller can see, with what is behind them."""
    world, report = facts.world, facts.report
    found: list[BaseException] = []
    queue = [facts.error, world.escaped]
    queue += [] if report is None else [report.error, *report.cleanup_errors]
    queue += [part.error for value in facts.values or () for part in _failures(value)]
    while queue:
        error = queue.pop()
        if error is not None and not any(error is each for each in found):
            found.append(error)
            queue += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return found


def _failures(value: Any) -> Iterator[Any]:
    while type(value) is Wrap:
        value = value.inner
    if type(value) is Failure:
        yield value
        yield from _failures(value.item)
    elif type(value) in (list, tuple):
        for each in value:
            yield from _failures(each)


def _met_by_policies(facts: Facts) -> set[int]:
    """Sites whose errors may rightly go no further."""
    sites: set[int] = set()
    for op in facts.ops:
        meets = op.args.get("on_error", ("stop",))[0] != "stop"
        again = any(layer[0] in ("retry", "breaker", "fallback") for layer in op.args.get("layers", ()))
        if meets or again:
            sites.update(
                fn.site for each, role, fn in functions_of(facts.program.line) if each is op and role != "divert"
            )
            if op.kind == "flat_map":
                sites.add(op.inner.site)
                sites.update(fn.site for inner, _, fn in functions_of(Line(op.inner, op.inner_ops)))
    return sites | {source.site for source in facts.sources.values() if source.kind == "restarting"}


def sources_are_closed(facts: Facts) -> Found:
    """P7, P9: every source that was opened is closed (once, in its task), and every channel."""
    world = facts.world
    if world.hang:
        return
    for site, _ in world.open_sources.values():
        yield "P7 a source is left open", facts.sources[site].kind
        return
    for spec, channel in world.channels:
        if channel.statistics().open_receive_channels and not _may_not_start(facts):
            yield "P7 a channel is left open", spec.kind
            return


def _may_not_start(facts: Facts) -> bool:
    """Whether an input may never have been started, so that its channel is not the run's to close."""
    concat = any(op.kind == "join" and op.how == "concat" for op in facts.ops)
    return concat or (facts.cancelled and facts.world.run is None)


def leaving(facts: Facts) -> Found:
    """P6, P7: stopping takes no longer than the limit of cleanup and what calls take."""
    world = facts.world
    if world.hang or world.exited is None:
        return
    limit = world.program.cleanup_timeout if facts.kind in ("open", "run", "start", "collect") else 5.0
    allowed = limit + 1e-6 + max((fn.stubborn for _, _, fn in functions_of(facts.program.line)), default=0)
    began = world.stop_read if facts.kind == "open" else None
    aborts = [time for time, what, finished in world.stops if what == "abort" and not finished]
    if aborts and began is None:
        began = aborts[0]
    if world.cancelled_at is not None:
        began = world.cancelled_at if began is None else min(began, world.cancelled_at)
    if began is not None and world.exited - began > allowed:
        yield "P6 leaving takes too long", f"{world.exited - began:g} s, {allowed:g} allowed"
    for start, end, grace in world.drains:
        if grace is not None and end - start > grace + allowed:
            yield "P8 drain takes longer than its grace", f"{end - start:g} s for {grace:g} s"


def drain(facts: Facts) -> Found:
    """P8: a drained run delivers all that was taken."""
    world, report = facts.world, facts.report
    if not facts.drained or facts.stopped or facts.own_abort or facts.error is not None or world.hang or report is None:
        return
    ends_early = facts.kinds & ENDING or facts.kind == "first"
    if ends_early or any(op.kind == "join" and "zip" in op.how for op in facts.ops) or world.raised:
        return
    for _, _, reason in world.discards:
        if reason not in POLICIES:
            yield "P8 a drained run discards", reason
            return


def reasons(facts: Facts) -> Found:
    """A reason names what happened."""
    world, report = facts.world, facts.report
    if world.hang or facts.fatal or report is None:
        return
    causes = {
        "aborted": facts.aborted or facts.cancelled,
        "cancelled": facts.cancelled
        or any(r.kind == "cancelled" for r in world.raised if facts.aborted or facts.drained),
        "grace period over": facts.grace,
        "behind a failure": report.error is not None
        or facts.error is not None
        or bool(report.cleanup_errors or _met_by_policies(facts)),
    }
    for _, _, reason in world.discards:
        if reason in causes and not causes[reason]:
            yield "a reason that is not so", f"{reason}; {report.outcome}"
            return


def prompt(facts: Facts) -> Found:
    """P14, P15: with a consumer that always waits, results leave the instant they are there; inputs are asked."""
    world, program = facts.world, facts.program
    if facts.kind != "open" or world.hang or any(program.ending.pauses) or world.paused is not None:
        return
    if _meddles(program) or not all(_is_prompt(op) for op in facts.ops):
        return
    concat = any(op.kind == "join" and op.how == "concat" for op in facts.ops)
    for time, value in world.delivered:
        if "flat_map" in facts.kinds and any(_failures(value)):
            continue  # it stands behind the item's children
        if concat and any(facts.sources[root_of(leaf.id)[0]].kind == "channel" for leaf in leaves(value)):
            continue  # it waited until its turn came
        late = time - max((world.touched[leaf.id] for leaf in leaves(value) if leaf.id in world.touched), default=time)
        if late > 1e-9:
            yield "P15 results are withheld", f"{late:g} s"
            return
    if any(fn.sleeps and any(fn.sleeps) for _, _, fn in functions_of(program.line)):
        return
    flat_maps = [op for op in facts.ops if op.kind == "flat_map"]  # one that stands behind another comes later here
    slow = {op.inner.site for op in flat_maps if any(op.inner.sleeps) or op.inner.close != "none"}
    behind = {op.inner.site: {each.inner.site for each in flat_maps[at + 1 :]} for at, op in enumerate(flat_maps)}
    for id, time in world.given.items():
        source = facts.sources.get(id[-2])
        asked = source is not None and source.kind not in ("restarting", "channel") and id in world.due
        if asked and time - world.due[id] > 1e-9 and not facts.stopped:
            inner = type(id[0]) is tuple
            if slow & behind[id[-2]] if inner else slow:
                continue  # what takes items apart one by one may take its time, and then there is no room before it
            yield ("P14a an inner stream is not asked" if inner else "P14 a source is not asked"), str(source.kind)
            return


def _meddles(program: Program) -> bool:
    return any(what[0] in ("pause", "set_concurrency", "burn") for what in done_to(program))


def _is_prompt(op: Op) -> bool:
    late = ("batch", "window", "sliding", "pairwise", "stateful", "debounce", "sample", "delay", "throttle", "zip")
    if op.kind in late:
        return False
    if op.kind == "join":
        return bool(op.how in ("merge", "fair_merge", "prefer", "concat"))
    if op.kind == "map" and (op.args.get("latest") or op.args.get("on_error", ("stop",))[0] == "divert"):
        return False
    if op.kind == "map" and op.fn.sleeps is not None:
        waits = any(seconds > 0 for seconds in op.fn.sleeps)
        return not op.args.get("layers") and (not waits or op.concurrency == 1 or not op.ordered)
    if op.kind in ("skip_while", "take_while", "take_until") and op.fn.sleeps is not None:
        return not any(seconds > 0 for seconds in op.fn.sleeps)  # an item waits for the call for one before it
    if op.kind == "fair_by":
        return bool(op.overflow == "block")
    return True


def rates(facts: Facts) -> Found:
    """P12: in every window, calls started <= burst + rate * length; under a rolling limit, in any second <= burst."""
    for op in facts.ops:
        layers = op.args.get("layers", ())
        if (
            op.kind != "map"
            or not layers
            or layers[0][0] != "rate"
            or layers[0][3] is not None
            or layers[0][4] == "by key"
        ):
            continue
        _, rate, burst, _, _ = layers[0]
        times = [Fraction(time) for time, _, role in facts.world.calls[op.fn.site] if role == "fn"]
        if rate == "rolling":
            if any(late - early < 1 for early, late in zip(times, times[burst:], strict=False)):
                yield "P12 too many calls", f"more than {burst} in a second"
            continue
        for first in range(len(times)):
            for last in range(first + burst, len(times)):
                if last - first + 1 > burst + Fraction(rate) * (times[last] - times[first]) + Fraction(1, 10**9):
                    yield "P12 too many calls", f"{last - first + 1} in {float(times[last] - times[first]):g} s"
                    return


def attempts(facts: Facts) -> Found:
    """P11: no item is tried more often than its policy says, and waits are exact."""
    copied = copies_of(facts.program.line) > 1
    for op in facts.ops:
        retries = [layer for layer in op.args.get("layers", ()) if layer[0] == "retry"]
        if not retries:
            continue
        most = 1
        for layer in retries:
            most *= layer[1]
        calls: dict[Any, list[float]] = defaultdict(list)
        for time, id, role in facts.world.calls[op.fn.site]:
            if role == "fn":
                calls[id].append(time)
        for id, times in calls.items():
            if len(times) > most and not copied:
                yield "P11 too many attempts", f"{len(times)} for {most}"
            elif len(op.layers) == 1 and id is not None and not copied:
                yield from _waits(facts, op, id, times, retries[0][3])


def _waits(facts: Facts, op: Op, id: Any, times: list[float], initial: float) -> Found:
    ends = [r.time for r in facts.world.raised if r.site == op.fn.site and r.role == "fn" and id in r.ids]
    for attempt, (end, start) in enumerate(zip(ends, times[1:], strict=False)):
        late = start - end - min(initial * 2.0**attempt, 10.0)
        if late < -1e-9 or (late > 1e-9 and not op.args.get("retries_elsewhere")):  # after that it waits for a place
            yield "P11 a wait is not exact", f"attempt {attempt + 2}"
            return


def ends_are_told(facts: Facts) -> Found:
    """Each `on_end` of the line itself is told once, whatever ends the run; one in an input or branch at most once."""
    if facts.report is None:
        return
    told = facts.world.ended
    for op in facts.program.line.ops:
        if op.kind == "on_end" and told[op.site] == 0:
            yield "on_end is told", "not at all"
    if any(times > 1 for times in told.values()):
        yield "on_end is told", "more than once"


LAWS: list[Callable[[Facts], Found]] = [
    *(ends, error_is_known, outcome, conservation, sums, lists, order, errors_are_kept, sources_are_closed),
    *(leaving, drain, reasons, prompt, rates, attempts, ends_are_told),
]


def judge(world: World) -> list[tuple[str, str]]:
    """Say what is wrong with a run: (rule, detail) each; nothing if all is well."""
    facts = Facts(world)
    found = list(dict.fromkeys(world.violations))
    for law in LAWS:
        found += law(facts)
    return list(dict.fromkeys(found))


def same_trace(program: Program, first: World) -> list[tuple[str, str]]:
    """P17a: one seed, one trace."""
    second = execute(program)
    if first.trace == second.trace:
        return []
    at = next((n for n, (a, b) in enumerate(zip(first.trace, second.trace, strict=False)) if a != b), None)
    return [("P17a another trace", "one is longer" if at is None else "at some step")]
