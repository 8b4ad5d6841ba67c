"""What a program delivers, as lists: the model that its runs are compared with.

A stream is a set of *strands*: lists whose order is promised, each with the error that may stand at its end. One
strand is a plain list. Fan-ins, branches and keys give several, of which nothing is promised about how they are mixed.
What the documents leave open (which items a debounce meets, where a batch by time ends) makes the model say less:

sub      items may be missing (dropped by time or overflow)
cut      the stream may end early without an error (a `take` of a mixture)
grouped  it is not known which items are in one list
maybe    kinds of errors that the library itself may raise somewhere
loose    nothing is said about what is delivered
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from funcpipe_trio import BufferOverflow, CircuitOpen, Failure, TooManyKeys

from .items import FATAL, STOPS, Wrap, num_of
from .program import ENDING, INF, Fn, Line, Op, Program, Source, done_to
from .world import Raised, World

Key = tuple[Any, ...]  # of an error: (site, role, number of the item), or ("library", type)
TOO_SLOW: Key = ("library", "TooSlowError")


@dataclass
class Strand:
    items: list[Any]
    ends: list[Key] = field(default_factory=list)


@dataclass
class Stream:
    strands: list[Strand]
    ordered: bool = True
    sub: bool = False
    cut: bool = False
    grouped: bool = False
    maybe: set[type] = field(default_factory=set)
    loose: bool = False

    @property
    def exact(self) -> bool:
        one = len(self.strands) == 1 and self.ordered
        return one and not (self.sub or self.cut or self.grouped or self.loose)


# ---- shapes: what a value is made of, as plain data


def shape(value: Any, world: World) -> Any:
    kind = type(value)
    if kind is Wrap:
        return ("w", value.op, shape(value.inner, world))
    if kind is list or kind is tuple:
        return ("L" if kind is list else "T", *(shape(each, world) for each in value))
    if kind is Failure:
        return ("F", shape(value.item, world), key_of(value.error, world))
    if kind is int:
        return ("i", value)
    return ("it", value.id) if hasattr(value, "id") else ("?", kind.__name__)


def key_of(error: BaseException | None, world: World) -> Key:
    """Say which error of the program this is; also one that stands for it (as the cause of a RuntimeError)."""
    for raised in world.raised:
        if raised.error is error:
            return raised.key
    for raised in world.raised:
        if _stands_for(error, raised):
            return raised.key
    return ("library", type(error).__name__)


def _stands_for(error: BaseException | None, raised: Raised) -> bool:
    """A `StopIteration`, or a `Cancelled` of nobody, cannot be raised as it is."""
    if error is None or not (raised.kind == "cancelled" or (raised.kind in STOPS and type(error) is RuntimeError)):
        return False
    return error.__cause__ is raised.error or error.__context__ is raised.error


def leaf_of(item: Any) -> Any:
    """The id of the first item in a shape, None if there is none."""
    tag = item[0]
    if tag == "it":
        return item[1]
    if tag == "w":
        return leaf_of(item[2])
    if tag == "F":
        return leaf_of(item[1])
    if tag in ("L", "T"):
        for each in item[1:]:
            if (found := leaf_of(each)) is not None:
                return found
    return None


def number(item: Any) -> int:
    id = leaf_of(item)
    return 0 if id is None else num_of(id)


# ---- evaluation


class Model:
    """Evaluate a program; `taken` says what each source gave, where not all of it."""

    def __init__(self, program: Program, taken: dict[int, list[Any]] | None) -> None:
        self.program, self.taken = program, taken
        self.copies = copies_of(program.line)

    def evaluate(self) -> Stream:
        line, ending = self.program.line, self.program.ending
        ops = list(line.ops)
        if ending.kind != "open" and ops and ops[-1].kind == "buffer":
            ops.pop()  # there is no link behind the last stage, so nothing overflows
        stream = self.apply(self.source(line.source), ops)
        if ending.kind == "first":
            stream = take(stream, 1)
        return stream

    def line(self, line: Line) -> Stream:
        return self.apply(self.source(line.source), line.ops)

    def apply(self, stream: Stream, ops: list[Op]) -> Stream:
        for op in ops:
            stream = getattr(self, op.kind)(stream, op)
        return stream

    def source(self, spec: Source) -> Stream:
        ids = [(spec.site, k) for k in range(max(spec.count, 0))]
        stream = Stream([Strand([])])
        if self.taken is not None and (spec.kind != "list" or spec.site in self.taken):
            ids = self.taken.get(spec.site, [])
            stream.cut = bool(spec.fail)
        elif self.taken is not None or spec.hold == "deadline" or (spec.kind == "ticks" and spec.count < 0):
            stream.cut = True
        ends: list[Key] = []
        if spec.kind == "restarting":
            at = last_opening(spec)
            if at is not None:
                ids, ends = ids if self.taken is not None else ids[:at], [(spec.site, "source", None)]
        elif spec.fail and min(spec.fail) > spec.count:
            pass
        elif spec.fail and self.taken is None:
            at = min(spec.fail)
            ids, ends = ids[:at], [(spec.site, "source", None)]
        elif spec.fail:
            ends = [(spec.site, "source", None)]
        if fails_at_its_end(spec):
            ends, stream.cut = [(spec.site, "close", None)], stream.cut or self.taken is not None
        stream.strands = [Strand([("it", id) for id in ids], ends)]
        return stream

    # ---- operations on each item

    def each(self, stream: Stream, put: Callable[[Any], tuple[list[Any], Key | None]]) -> Stream:
        """Put each item through `put`, which gives items, and an error that ends the strand."""
        if stream.grouped or stream.loose:
            return replace(stream, loose=True)
        return replace(
            stream, strands=[self._strand(each, put, stream.ordered and not stream.sub) for each in stream.strands]
        )

    def _strand(self, strand: Strand, put: Any, ordered: bool) -> Strand:
        items: list[Any] = []
        errors: list[Key] = []
        for item in strand.items:
            given, error = put(item)
            items += given
            if error is not None:
                errors.append(error)
                if ordered:
                    return Strand(items, [error])
        return Strand(items, [*errors, *strand.ends])

    def called(self, fn: Fn | None, role: str, item: Any) -> Key | None:
        """The error that a function without policies raises at an item."""
        if fn is None or not fn.faults or number(item) not in fn.faults or leaf_of(item) is None:
            return None
        return (fn.site, role, number(item))

    def map(self, stream: Stream, op: Op) -> Stream:
        policy = op.args.get("on_error", ("stop",))
        if op.fn.sleeps is not None and not op.ordered and self._overtakes(op):
            keyed = op.args.get("key") is not None
            stream = self._by_key(stream, op) if keyed else replace(stream, ordered=False)
        if policy[0] == "skip" and policy[1] is not None and not stream.exact and op.fn.faults:
            stream = replace(stream, loose=True)
        of = op.args.get("of", "all")  # which items the function is called with; the others pass
        call = Call(op)
        call.unknown = self.copies > 1 and any(fault.times < 99 for fn in fns_of(op) for fault in fn.faults.values())
        skipped = 0

        def put(item: Any) -> tuple[list[Any], Key | None]:
            nonlocal skipped
            if of != "all" and (item[0] == "F") is not (of == "failures"):
                return [item], None
            if (error := self.called(op.args.get("key"), "key", item)) is not None:
                call.unknown = call.unknown or policy[0] != "stop"  # whether the policy meets it is not said
                return [], error
            result, error = call.outcome(item)
            if error is None:
                return [result], None
            if policy[0] == "stop" or self._fatal(op, error):
                return [], error
            if policy[0] == "emit":
                return [("F", item, error)], None
            if policy[0] == "divert":
                return [], self.called(policy[1], "divert", item)
            skipped += 1
            return [], error if policy[1] is not None and skipped > policy[1] else None

        stream = self.each(stream, put)
        if op.args.get("latest"):  # which items are superseded is not known, and so whether one fails
            return replace(stream, sub=True, loose=True)
        return replace(stream, loose=stream.loose or call.unknown, maybe=stream.maybe | call.maybe)

    def _by_key(self, stream: Stream, op: Op) -> Stream:
        """Items of one key stay in order, whatever others do (but a key that fails is asked for at once)."""
        if op.key.faults or "of" in op.args:
            return replace(stream, ordered=False)
        parts = [self._parted(each, lambda item: number(item) % 3) for each in stream.strands]
        return replace(stream, strands=[strand for group in parts for strand in group])

    def _overtakes(self, op: Op) -> bool:
        """Whether one item may be done before another that came first."""
        return bool(op.concurrency > 1 or self._set(op) or op.args.get("retries_elsewhere"))

    def _set(self, op: Op) -> bool:
        """Whether its concurrency is changed on the way."""
        return any(what[:2] == ("set_concurrency", op.site) for what in done_to(self.program))

    def _fatal(self, op: Op, error: Key) -> bool:
        faults = [fn.faults.get(error[2]) for fn in fns_of(op) if fn.site == error[0]]
        return any(fault is not None and fault.kind in FATAL for fault in faults)

    def filter(self, stream: Stream, op: Op) -> Stream:
        def put(item: Any) -> tuple[list[Any], Key | None]:
            error = self.called(op.fn, "filter", item)
            return ([item] if error is None and number(item) % op.mod != op.rest else []), error

        return self.each(stream, put)

    def tap(self, stream: Stream, op: Op) -> Stream:
        def put(item: Any) -> tuple[list[Any], Key | None]:
            error = self.called(op.fn, "tap", item)
            return ([] if error else [item]), error

        return self.each(stream, put)

    def flat_map(self, stream: Stream, op: Op) -> Stream:
        spec, policy = op.inner, op.args.get("on_error", ("stop",))
        if op.concurrency not in (None, 1) or self._set(op):
            stream = replace(stream, ordered=False)
        if spec.hold == "deadline":
            stream = replace(stream, sub=True)
        inner_unknown = policy[0] == "skip" and policy[1] is not None and not stream.exact
        skipped = 0

        def put(item: Any) -> tuple[list[Any], Key | None]:
            nonlocal inner_unknown, skipped
            error = self.called(op.fn, "flat_map", item)
            children: list[Any] = []
            if error is None:
                count = int(spec.count + number(item) % 2)
                fails = min(spec.fail, default=None) if spec.kind != "list" else None
                ids = [("it", (leaf_of(item), spec.site, k)) for k in range(count)]
                if fails is not None and fails <= count:
                    ids, error = ids[:fails], (spec.site, "source", number(item))
                if fails_at_its_end(spec):
                    error = (spec.site, "close", number(item))
                inner = self.apply(Stream([Strand(ids, [error] if error else [])]), op.args.get("inner_ops", []))
                inner_unknown = inner_unknown or not inner.exact or bool(inner.maybe)
                children, error = inner.strands[0].items, next(iter(inner.strands[0].ends), None)
            if error is None or policy[0] == "stop":
                return children, error
            if policy[0] == "emit":
                return [*children, ("F", item, error)], None
            if policy[0] == "divert":
                return children, self.called(policy[1], "divert", item)
            skipped += 1
            return children, error if policy[1] is not None and skipped > policy[1] else None

        stream = self.each(stream, put)
        return replace(stream, loose=stream.loose or inner_unknown)

    def scan(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, loose=True)
        strand, items = stream.strands[0], []
        for item in strand.items:
            if (error := self.called(op.fn, "scan", item)) is not None:
                return replace(stream, strands=[Strand(items, [error])])
            items.append(("w", (op.site, len(items)), item))
        return replace(stream, strands=[Strand(items, strand.ends)])

    def enumerate(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, loose=True)
        strand = stream.strands[0]
        items = [("T", ("i", n), item) for n, item in enumerate(strand.items, op.start)]
        return replace(stream, strands=[Strand(items, strand.ends)])

    # ---- operations on the stream

    def take(self, stream: Stream, op: Op) -> Stream:
        return take(stream, op.n)

    def skip(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, sub=True)
        strand = stream.strands[0]
        return replace(stream, strands=[Strand(strand.items[op.n :], strand.ends)])

    def take_while(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, cut=True, loose=stream.loose or stream.grouped or bool(op.fn.faults))
        strand, items = stream.strands[0], []
        for item in strand.items:
            if (error := self.called(op.fn, "take_while", item)) is not None:
                return replace(stream, strands=[Strand(items, [error])])
            if number(item) % 100 >= op.n:
                return replace(stream, strands=[Strand(items)])
            items.append(item)
        return replace(stream, strands=[Strand(items, strand.ends)])

    def take_until(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, cut=True, loose=stream.loose or stream.grouped or bool(op.fn.faults))
        strand, items = stream.strands[0], []
        for item in strand.items:
            if (error := self.called(op.fn, "take_until", item)) is not None:
                return replace(stream, strands=[Strand(items, [error])])
            items.append(item)
            if number(item) % 100 >= op.n:
                return replace(stream, strands=[Strand(items)])
        return replace(stream, strands=[Strand(items, strand.ends)])

    def skip_while(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, sub=True, loose=stream.loose or stream.grouped or bool(op.fn.faults))
        strand = stream.strands[0]
        for at, item in enumerate(strand.items):
            if (error := self.called(op.fn, "skip_while", item)) is not None:
                return replace(stream, strands=[Strand([], [error])])
            if number(item) % 100 >= op.n:
                return replace(stream, strands=[Strand(strand.items[at:], strand.ends)])
        return replace(stream, strands=[Strand([], strand.ends)])

    def distinct(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, sub=True, loose=stream.loose or stream.grouped or bool(op.fn and op.fn.faults))
        seen: OrderedDict[Any, None] = OrderedDict()

        def put(item: Any) -> tuple[list[Any], Key | None]:
            if op.fn is not None and (error := self.called(op.fn, "distinct", item)) is not None:
                return [], error
            key = leaf_of(item) if op.fn is None else number(item) % op.mod
            new = key not in seen
            seen[key] = None
            seen.move_to_end(key)
            if len(seen) > op.n:
                seen.popitem(last=False)
            return ([item] if new else []), None

        return self.each(stream, put)

    def _keyed_stateful(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact or stream.maybe:
            maybe = {TooManyKeys} if op.full == "fail" else set()
            return replace(stream, loose=True, maybe=stream.maybe | maybe)
        kept: dict[int, Any] = {}  # in the order in which the keys came
        touched: list[int] = []  # in the order of their last items
        strand, given = stream.strands[0], []
        ends = strand.ends
        for item in strand.items:
            error, key = self.called(op.key, "key", item), number(item) % op.mod
            if error is None and key not in kept and len(kept) == op.max_keys:
                if op.full == "fail":
                    error = ("library", "TooManyKeys")
                else:
                    given.append(kept.pop(touched.pop(0)))
            error = error or self.called(op.fn, "stateful", item)
            if error is not None:
                ends = [error]
                break
            if key in kept:
                given.append(kept[key])
                touched.remove(key)
            kept[key] = item
            touched.append(key)
        return replace(stream, strands=[Strand([*given, *(() if ends else kept.values())], ends)])

    def stateful(self, stream: Stream, op: Op) -> Stream:
        if op.args.get("key") is not None:
            return self._keyed_stateful(stream, op)
        if not stream.exact:
            return replace(stream, sub=True, loose=stream.loose or stream.grouped or bool(op.fn.faults))
        strand, taken, ends = stream.strands[0], 0, stream.strands[0].ends
        for item in strand.items:
            if (error := self.called(op.fn, "stateful", item)) is not None:
                ends = [error]
                break
            taken += 1
        return replace(stream, strands=[Strand(strand.items[: taken - 1 if ends and taken else taken], ends)])

    def batch(self, stream: Stream, op: Op) -> Stream:
        return self._plain_batch(stream, op) if op.args.get("key") is None else self._keyed_batch(stream, op)

    def _keyed_batch(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact or stream.maybe or op.delay is not None:
            maybe = {TooManyKeys} if op.full == "fail" else set()
            return replace(stream, loose=True, maybe=stream.maybe | maybe)
        strand, out = stream.strands[0], []
        open: dict[int, list[Any]] = {}  # in the order of their first items
        spent: dict[int, int] = {}  # in the order of their last items
        ends = strand.ends

        def close(key: int) -> None:
            spent.pop(key)
            out.append(("L", *open.pop(key)))

        for item in strand.items:
            error = self.called(op.key, "key", item) or self.called(op.cost, "cost", item)
            key, cost = number(item) % op.mod, 1 if op.cost is None else number(item) % 4
            if error is None and op.max_cost is not None and key in open and spent[key] + cost > op.max_cost:
                close(key)
            alone = op.n == 1 or (op.max_cost is not None and cost >= op.max_cost)
            if error is None and key not in open and len(open) == op.max_keys and not alone:
                if op.full == "fail":
                    error = ("library", "TooManyKeys")
                else:
                    close(next(iter(spent)))
            if error is not None:
                ends = [error]
                break
            open.setdefault(key, []).append(item)
            spent[key] = spent.pop(key, 0) + cost
            if len(open[key]) == op.n or (op.max_cost is not None and spent[key] >= op.max_cost):
                close(key)
        return replace(stream, strands=[Strand([*out, *(("L", *each) for each in open.values())], ends)])

    def _plain_batch(self, stream: Stream, op: Op) -> Stream:
        faulty = op.cost is not None and bool(op.cost.faults)
        if not stream.exact or stream.maybe or op.delay is not None:
            return replace(stream, grouped=True, loose=stream.loose or stream.grouped or faulty)
        strand, out, open, spent = stream.strands[0], [], [], 0
        ends = strand.ends
        for item in strand.items:
            if (error := self.called(op.cost, "cost", item)) is not None:
                ends = [error]
                break
            cost = 1 if op.cost is None else number(item) % 4
            if op.max_cost is not None and open and spent + cost > op.max_cost:
                out.append(("L", *open))
                open, spent = [], 0
            open.append(item)
            spent += cost
            full = (op.n is not None and len(open) >= op.n) or (op.max_cost is not None and spent >= op.max_cost)
            if full:
                out.append(("L", *open))
                open, spent = [], 0
        return replace(stream, strands=[Strand([*out, *([("L", *open)] if open else [])], ends)])

    def window(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact or stream.maybe or op.period is not None:
            return replace(stream, grouped=True, loose=stream.loose or stream.grouped)
        strand = stream.strands[0]
        cut = [("L", *strand.items[at : at + op.n]) for at in range(0, len(strand.items), op.n)]
        return replace(stream, strands=[Strand(cut, strand.ends)])

    def unbatch(self, stream: Stream, op: Op) -> Stream:
        if stream.grouped:
            return replace(stream, grouped=False)
        return self.each(stream, lambda item: (list(item[1:]), None))

    def sliding(self, stream: Stream, op: Op) -> Stream:
        if not stream.exact:
            return replace(stream, loose=True)
        items = stream.strands[0].items
        made = [("T", *items[at : at + op.n]) for at in range(0, len(items) - op.n + 1, op.step)]
        return replace(stream, strands=[Strand(made, stream.strands[0].ends)])

    def pairwise(self, stream: Stream, op: Op) -> Stream:
        return self.sliding(stream, Op("sliding", op.site, {"n": 2, "step": 1}))

    def on_end(self, stream: Stream, op: Op) -> Stream:
        return stream

    def buffer(self, stream: Stream, op: Op) -> Stream:
        if op.overflow == "block":
            return stream
        if op.overflow == "fail":
            return replace(stream, maybe=stream.maybe | {BufferOverflow})
        return replace(stream, sub=True)

    # ---- time

    def throttle(self, stream: Stream, op: Op) -> Stream:
        def put(item: Any) -> tuple[list[Any], Key | None]:
            error = self.called(op.cost, "cost", item)
            return ([] if error else [item]), error

        return self.each(stream, put) if op.cost is not None and op.cost.faults else stream

    def debounce(self, stream: Stream, op: Op) -> Stream:
        return replace(stream, sub=True)

    sample = debounce

    def delay(self, stream: Stream, op: Op) -> Stream:
        return stream

    def idle_timeout(self, stream: Stream, op: Op) -> Stream:
        return stream if op.seconds > 1e4 else replace(stream, maybe=stream.maybe | {trio.TooSlowError})

    def take_for(self, stream: Stream, op: Op) -> Stream:
        return stream if op.seconds > 1e4 else replace(stream, cut=True, loose=stream.loose or stream.grouped)

    def timeout(self, stream: Stream, op: Op) -> Stream:
        never = (op.seconds or 1e9) > 1e4 and (op.first or 1e9) > 1e4
        return stream if never else replace(stream, maybe=stream.maybe | {trio.TooSlowError})

    # ---- several

    def fair_by(self, stream: Stream, op: Op) -> Stream:
        faulty = bool(op.fn.faults or (op.cost is not None and op.cost.faults))
        if stream.grouped or (faulty and not stream.exact):
            return replace(stream, loose=True)

        def put(item: Any) -> tuple[list[Any], Key | None]:
            error = self.called(op.fn, "key", item) or self.called(op.cost, "cost", item)
            return ([] if error else [item]), error

        stream = self.each(stream, put) if faulty else stream
        parted = [self._parted(each, lambda item: number(item) % op.mod) for each in stream.strands]
        drops = op.overflow != "block"
        loose = isinstance(op.overflow, tuple) and bool(op.overflow[1].faults)
        strands = [strand for group in parted for strand in group]
        return replace(stream, strands=strands, sub=stream.sub or drops, loose=stream.loose or loose)

    def _parted(self, strand: Strand, key: Callable[[Any], Any]) -> list[Strand]:
        """One strand for each key, all with the same end: an error stands behind all that came before it."""
        parts: dict[Any, list[Any]] = {}
        for item in strand.items:
            parts.setdefault(key(item), []).append(item)
        return [Strand(items, list(strand.ends)) for items in parts.values()] or [strand]

    def broadcast(self, stream: Stream, op: Op) -> Stream:
        branches = [self.apply(stream, ops) for ops in op.branches.values()]
        if op.args.get("zip"):
            exact = all(each.exact and not each.maybe for each in branches) and self.taken is None
            return self._zip(branches, strict=False) if exact else replace(mixed(branches), loose=True)
        ended = any(op.kind in ENDING for ops in op.branches.values() for op in ops)
        made = mixed(branches)
        return replace(made, cut=made.cut or ended)

    def balance(self, stream: Stream, op: Op) -> Stream:
        return replace(mixed([self.apply(stream, ops) for ops in op.branches.values()]), loose=True)

    def partition(self, stream: Stream, op: Op) -> Stream:
        faulty = bool(op.fn.faults) or op.wrong is not None
        if stream.grouped or (faulty and not stream.exact):
            return replace(stream, loose=True, maybe=stream.maybe | {KeyError})
        names = list(op.branches)

        def put(item: Any) -> tuple[list[Any], Key | None]:
            error = self.called(op.fn, "route", item)
            if error is None and number(item) == op.wrong:
                error = ("library", "KeyError")
            return ([] if error else [item]), error

        stream = self.each(stream, put)
        branches = []
        for place, ops in enumerate(op.branches.values()):
            strands = [
                Strand([item for item in each.items if number(item) % len(names) == place], list(each.ends))
                for each in stream.strands
            ]
            branches.append(self.apply(replace(stream, strands=strands), ops))
        ended = any(op.kind in ENDING for ops in op.branches.values() for op in ops)
        made = mixed(branches)
        return replace(made, cut=made.cut or ended)

    def join(self, stream: Stream, op: Op) -> Stream:
        streams = [stream, *map(self.line, op.others)]
        if op.how in ("merge", "fair_merge", "prefer"):
            made = mixed(streams)
            faulty = op.cost is not None and bool(op.cost.faults)
            return replace(made, loose=made.loose or faulty)
        exact = all(each.exact and not each.maybe for each in streams)
        if op.how == "concat":
            if not exact:
                return replace(mixed(streams), cut=True)
            return self._concat(streams)
        if op.how == "merge_sorted" and (not exact or self.taken is not None):
            return replace(mixed(streams), cut=not exact)
        if op.how == "merge_sorted":
            return self._sorted([each.strands[0] for each in streams])
        if op.how == "zip_latest" or not exact or self.taken is not None:
            return replace(mixed(streams), loose=True)
        return self._zip(streams, op.strict)

    def _concat(self, streams: list[Stream]) -> Stream:
        items: list[Any] = []
        for each in streams:
            items += each.strands[0].items
            if each.strands[0].ends:
                return Stream([Strand(items, each.strands[0].ends)])
        return Stream([Strand(items)])

    def _sorted(self, strands: list[Strand]) -> Stream:
        """Take the least of the first items, until the next item of an input is its failure."""
        items: list[Any] = []
        left = [list(each.items) for each in strands]
        while True:
            for each, more in zip(strands, left, strict=True):
                if not more and each.ends:
                    return Stream([Strand(items, each.ends)])
            if not any(left):
                return Stream([Strand(items)])
            first = min((more for more in left if more), key=lambda more: number(more[0]))
            items.append(first.pop(0))

    def _zip(self, streams: list[Stream], strict: bool) -> Stream:
        strands = [each.strands[0] for each in streams]
        length = min(len(each.items) for each in strands)
        made = [("T", *parts) for parts in zip(*(each.items[:length] for each in strands), strict=True)]
        short = [each for each in strands if len(each.items) == length]
        ends = [end for each in short for end in each.ends]
        plain = any(not each.ends for each in short)  # one that just ends: which is met first is not said
        longer = len(short) < len(strands)
        if strict and plain and (longer or ends):
            ends = [*ends, ("library", "ValueError")]
        cut = bool(ends) and plain and not (strict and longer)
        return Stream([Strand(made, ends)], cut=cut)


def fails_at_its_end(spec: Source) -> bool:
    """Whether its own code fails when it ends: the ``finally`` of a generator is part of it, unlike `aclose`."""
    return spec.close == "fail" and spec.kind in ("gen", "gen object", "agen", "agen object", "producer", "pipeline")


def last_opening(spec: Source) -> int | None:
    """Behind how many items a source that restarts fails for good; None: never."""
    for failures, at in enumerate(sorted(at for at in spec.fail if at <= spec.count), 1):
        if failures == spec.attempts or spec.fail[at] in (*FATAL, "cancelled"):
            return at
    return None


def take(stream: Stream, n: int) -> Stream:
    if not stream.exact:
        return replace(stream, cut=True, loose=stream.loose or (stream.grouped and n > 0))
    strand = stream.strands[0]
    return replace(stream, strands=[Strand(strand.items[:n], strand.ends if n > len(strand.items) else [])])


def mixed(streams: list[Stream]) -> Stream:
    return Stream(
        [strand for each in streams for strand in each.strands],
        ordered=all(each.ordered for each in streams),
        sub=any(each.sub for each in streams),
        cut=any(each.cut for each in streams),
        grouped=any(each.grouped for each in streams),
        maybe=set().union(*(each.maybe for each in streams)),
        loose=any(each.loose for each in streams) or len({each.grouped for each in streams}) > 1,
    )


def copies_of(line: Line) -> int:
    """In how many places an item may be at most: every branch has it, and windows overlap."""
    return _copies(line.ops)


def _copies(ops: list[Op]) -> int:
    copies = 1
    for op in ops:
        branches = [_copies(branch) for branch in op.args.get("branches", {}).values()]
        if op.kind in ("broadcast", "partition", "balance"):
            copies *= sum(branches) if op.kind == "broadcast" else max(branches)
        elif op.kind in ("sliding", "pairwise"):
            copies *= 2 if op.kind == "pairwise" else -(-op.n // op.step)
        elif op.kind == "join" and op.how == "zip_latest":
            return 10**6  # an item is in any number of tuples
        copies = max([copies, *(copies_of(other) for other in op.args.get("others", ()))])
    return copies


def fns_of(op: Op) -> list[Fn]:
    """The functions of a call: its own and those of its layers."""
    return [op.fn, *(part for layer in op.args.get("layers", ()) for part in layer if isinstance(part, Fn))]


class Call:
    """One call of a step with its policies, as far as it is known beforehand."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.unknown = False
        self.maybe: set[type] = set()

    def outcome(self, item: Any) -> tuple[Any, Key | None]:
        self.tries: dict[Any, int] = {}
        result, error, _ = self.through(list(self.op.args.get("layers", ())), item)
        return result, error

    def through(self, layers: list[Any], item: Any, left: float = INF) -> tuple[Any, Key | None, float | None]:
        """Give (result, error, seconds); seconds are None where they depend on others.

        `left` is how long it may take before the first of the timeouts around it is over.
        """
        if not layers:
            return self.base(self.op.fn, "fn", item, ("w", self.op.site, item), left)
        *inner, (kind, *args) = layers
        if kind == "retry":
            return self.retried(inner, item, left, *args)
        result, error, seconds = self.through(inner, item, min(left, args[0]) if kind == "timeout" else left)
        if kind == "rate":
            cost = args[2]
            if cost is not None and cost.faults:
                self.unknown = True
            return result, error, None
        if kind == "timeout":
            return self.limited(result, error, seconds, args[0])
        if kind == "breaker":
            self.unknown = True  # whether it opens depends on which calls end first
            self.maybe.add(CircuitOpen)
            return result, error, None
        if kind == "fallback":
            if error is None or not self.is_failure(error):
                return result, error, seconds
            result = item
        elif error is not None:
            return result, error, seconds
        left -= seconds or 0
        again, error, more = self.base(args[0], kind, result, ("w", (args[0].site, kind), result), left)
        return again, error, None if seconds is None or more is None else seconds + more

    def base(self, fn: Fn, role: str, item: Any, result: Any, left: float) -> tuple[Any, Key | None, float | None]:
        n, leaf = number(item), leaf_of(item)
        seconds = 0.0 if fn.sleeps is None else max(fn.sleeps[n % len(fn.sleeps)], 0)
        if seconds >= left < INF:  # cancelled, so it does not come to its fault
            return None, TOO_SLOW, left + fn.stubborn
        fault = fn.faults.get(n) if leaf is not None else None
        if fault is not None and seconds < INF:
            tries = self.tries[(fn.site, role)] = self.tries.get((fn.site, role), 0) + 1
            if tries <= fault.times:
                return None, (fn.site, role, n), seconds
        return result, None, seconds

    def limited(self, result: Any, error: Any, seconds: float | None, limit: float) -> tuple[Any, Any, float | None]:
        if seconds is None:
            self.maybe.add(trio.TooSlowError)
            self.unknown = True
            return result, error, None
        return (None, TOO_SLOW, seconds) if seconds >= limit else (result, error, seconds)

    def retried(
        self, inner: list[Any], item: Any, left: float, attempts: int, on: str, initial: float, pred: Fn | None
    ) -> tuple[Any, Key | None, float | None]:
        """Try again; but a wait that would end when the time is over, or behind that, is not begun."""
        if pred is not None and pred.faults:
            self.unknown = True
        total: float | None = 0.0
        for attempt in range(attempts):
            result, error, seconds = self.through(inner, item, left - (total or 0))
            total = None if total is None or seconds is None else total + seconds
            if error is None or not self.met(error, on) or attempt == attempts - 1:
                break
            wait = min(initial * 2.0**attempt, 10.0)
            if total is not None and total + wait >= left < INF:
                break
            total = None if total is None else total + wait
        return result, error, total

    def is_failure(self, error: Key) -> bool:
        """Whether a fallback deals with this error: not with what ends the program."""
        return error[0] == "library" or self.kind_of(error) not in FATAL

    def kind_of(self, error: Key) -> str:
        fns = [fn for fn in fns_of(self.op) if fn.site == error[0] and error[2] in fn.faults]
        return fns[0].faults[error[2]].kind

    def met(self, error: Key, on: str) -> bool:
        """Whether a retry means this error."""
        if error[0] == "library":
            return on != "boom"
        kind = self.kind_of(error)
        if kind in (*FATAL, "cancelled"):
            return False
        return kind in ("error", "group") if on == "boom" else True
