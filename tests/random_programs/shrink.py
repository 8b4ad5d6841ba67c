"""Make a program that shows a violation smaller: take away what it does not need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from .program import Fn, Line, Op, Program, Source

Edit = Callable[[Program], None]


def shrink(program: Program, shows: Callable[[Program], bool], most: int = 400) -> Program:
    """Greedily: try each smaller program, keep the first that still shows it, until none does."""
    tried = 0
    progress = True
    while progress and tried < most:
        progress = False
        number = 0
        while tried < most:
            smaller = copy.deepcopy(program)
            edit = next((edit for at, edit in enumerate(edits(smaller)) if at == number), None)
            if edit is None:
                break
            edit()
            tried += 1
            if _safely(shows, smaller):
                program, progress = smaller, True
            else:
                number += 1
    return program


def _safely(shows: Callable[[Program], bool], program: Program) -> bool:
    try:
        return shows(program)
    except Exception:
        return False


def edits(program: Program) -> Iterator[Callable[[], Any]]:
    """All ways to make it a little smaller, the great ones first."""
    yield from _line_edits(program.line)
    for events in (program.outside,):
        yield from (lambda events=events, at=at: events.pop(at) for at in range(len(events)))
    for table in (program.inside, program.faults):
        yield from (lambda table=table, key=key: table.pop(key) for key in list(table))
    ending = program.ending
    if ending.kind != "open":
        yield lambda: setattr(ending, "kind", "open")
    for name, plain in (("readers", 1), ("pauses", [0]), ("leave_after", None), ("leave_by", "break"), ("loop", True)):
        if getattr(ending, name) != plain:
            yield lambda name=name, plain=plain: setattr(ending, name, plain)
    if ending.reraise:
        yield lambda: setattr(ending, "reraise", False)
    for name, plain in (("watch", False), ("error_items", False), ("schedule", 0), ("cleanup_timeout", 5.0)):
        if getattr(program, name) != plain:
            yield lambda name=name, plain=plain: setattr(program, name, plain)


def _line_edits(line: Line) -> Iterator[Callable[[], Any]]:
    yield from _ops_edits(line.ops)
    yield from _source_edits(line.source)


def _ops_edits(ops: list[Op]) -> Iterator[Callable[[], Any]]:
    yield from (lambda at=at: ops.pop(at) for at in range(len(ops)))
    for op in ops:
        args = op.args
        for at in range(len(args.get("others", ()))):
            yield lambda args=args, at=at: args["others"].pop(at)
        for other in args.get("others", ()):
            yield from _line_edits(other)
        branches = args.get("branches", {})
        if len(branches) > 1:
            yield from (lambda branches=branches, key=key: branches.pop(key) for key in list(branches))
        for branch in branches.values():
            yield from _ops_edits(branch)
        yield from _ops_edits(args.get("inner_ops", []))
        if args.get("inner"):
            yield from _source_edits(args["inner"])
        yield from _args_edits(op)


def _args_edits(op: Op) -> Iterator[Callable[[], Any]]:
    args = op.args
    for at in range(len(args.get("layers", ()))):
        yield lambda at=at: args["layers"].pop(at)
    if args.get("on_error", ("stop",))[0] != "stop" and op.kind != "fair_by":
        yield lambda: args.pop("on_error")
    if args.get("key") is not None:
        yield lambda: args.pop("key")
    if isinstance(args.get("cost"), Fn) and op.kind != "batch":
        yield lambda: args.update(cost=None)
    if isinstance(args.get("concurrency"), int) and args["concurrency"] > 1:
        yield lambda: args.update(concurrency=1)
    if args.get("retries_elsewhere"):
        yield lambda: args.pop("retries_elsewhere")
    if args.get("ordered") is False:
        yield lambda: args.update(ordered=True)
    for value in [*args.values(), *args.get("on_error", ()), *(p for layer in args.get("layers", ()) for p in layer)]:
        if isinstance(value, Fn):
            yield from _fn_edits(value)


def _fn_edits(fn: Fn) -> Iterator[Callable[[], Any]]:
    yield from (lambda key=key: fn.faults.pop(key) for key in list(fn.faults))
    for fault in fn.faults.values():
        if fault.kind != "error":
            yield lambda fault=fault: setattr(fault, "kind", "error")
    if fn.sleeps is not None and fn.sleeps != [0]:
        yield lambda: setattr(fn, "sleeps", [0])
        if len(fn.sleeps) > 1:
            yield from (lambda at=at: fn.sleeps.pop(at) for at in range(len(fn.sleeps)))  # type: ignore[union-attr]
    if fn.stubborn:
        yield lambda: setattr(fn, "stubborn", 0)


def _source_edits(source: Source) -> Iterator[Callable[[], Any]]:
    if source.count > 1:
        yield lambda: setattr(source, "count", source.count // 2)
    if source.count > 0:
        yield lambda: setattr(source, "count", source.count - 1)
    if source.kind not in ("gen", "list", "pipeline"):
        yield lambda: setattr(source, "kind", "gen")
    if source.kind == "agen object":
        yield lambda: setattr(source, "kind", "agen")
    plain: list[tuple[str, Any]] = [
        ("fail", {}),
        ("hold", "none"),
        ("close", "none"),
        ("silent", False),
        ("sleeps", [0]),
    ]
    for name, value in [*plain, ("buffer", 0), ("prefill", 0)]:
        if getattr(source, name) != value and not (source.kind == "ticks" and name == "sleeps"):
            yield lambda name=name, value=value: setattr(source, name, value)
    for key, kind in list(source.fail.items()):
        if kind != "error":
            yield lambda key=key: source.fail.update({key: "error"})
