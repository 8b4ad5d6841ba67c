"""A program as data: sources, operations, an ending, what is called meanwhile. A small tree, printed like Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

INF = float("inf")
ENDING = {"take", "take_while", "take_until", "take_for"}  # kinds of operations that end the stream early


@dataclass
class Fault:
    """What a user function raises at an item: a kind of error, for the first `times` calls."""

    kind: str
    times: int = 99


@dataclass
class Fn:
    """A user function. Sync if `sleeps` is None, else it sleeps `sleeps[n % len]` seconds for item n."""

    site: int
    sleeps: list[float] | None = None
    faults: dict[int, Fault] = field(default_factory=dict)
    stubborn: float = 0  # seconds for which it shields itself when it is cancelled


@dataclass
class Source:
    """Where items come from; `hold` and `close` are about async generators and iterator classes."""

    kind: str
    site: int
    count: int
    sleeps: list[float] = field(default_factory=lambda: [0])
    fail: dict[int, str] = field(default_factory=dict)  # at which item it raises what; `count` is its end
    hold: str = "none"
    close: str = "none"
    silent: bool = False
    buffer: int = 0
    prefill: int = 0
    attempts: int = 3


@dataclass
class Op:
    kind: str
    site: int
    args: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["args"][name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Line:
    source: Source
    ops: list[Op]


@dataclass
class Ending:
    """How the run is driven: `kind` is the method; the rest is about the consumer of `open()`."""

    kind: str
    readers: int = 1
    pauses: list[float] = field(default_factory=lambda: [0])  # seconds of rest behind each item
    leave_after: int | None = None
    leave_by: str = "break"
    loop: bool = True  # async for, else receive()
    reraise: bool = False


@dataclass
class Event:
    """Something done to the run from outside: at a time, a task step, or behind the n-th item delivered."""

    when: str
    at: float
    what: str
    args: tuple[Any, ...] = ()


@dataclass
class Program:
    seed: int
    line: Line
    ending: Ending
    outside: list[Event] = field(default_factory=list)
    inside: dict[tuple[int, str, int], tuple[Any, ...]] = field(default_factory=dict)  # (site, role, call): what
    faults: dict[int, str] = field(default_factory=dict)  # calls of on_discard that raise
    cleanup_timeout: float = 5.0
    schedule: int = 0
    watch: bool = False  # looks at the statistics at every item
    error_items: bool = False  # items that are exceptions
    hashable: bool = False  # items may be hashed and compared (distinct without key)


def lines_of(line: Line) -> Iterator[Line]:
    """All lines of a plan that are pipelines of the plan itself, not those inside of a flat_map."""
    yield line
    for op in line.ops:
        for other in op.args.get("others", ()):
            yield from lines_of(other)
        for branch in op.args.get("branches", {}).values():
            for op_ in branch:
                for other in op_.args.get("others", ()):
                    yield from lines_of(other)


def ops_of(line: Line) -> Iterator[Op]:
    """All operations, also those of inner pipelines, branches and other inputs."""
    yield from _ops(line.ops)


def _ops(ops: list[Op]) -> Iterator[Op]:
    for op in ops:
        yield op
        for other in op.args.get("others", ()):
            yield from _ops(other.ops)
        for branch in op.args.get("branches", {}).values():
            yield from _ops(branch)
        yield from _ops(op.args.get("inner_ops", []))


def sources_of(line: Line) -> Iterator[Source]:
    """All sources, also inner ones."""
    yield line.source
    for op in ops_of(line):
        for other in op.args.get("others", ()):
            yield other.source
        if op.args.get("inner"):
            yield op.args["inner"]


def functions_of(line: Line) -> Iterator[tuple[Op, str, Fn]]:
    """All user functions, with their operation and the name of their role."""
    for op in ops_of(line):
        for role, value in op.args.items():
            if isinstance(value, Fn):
                yield op, role, value
            elif role == "on_error" and value[0] == "divert":
                yield op, "divert", value[1]
            elif role == "layers":
                for layer in value:
                    yield from ((op, layer[0], part) for part in layer[1:] if isinstance(part, Fn))


def done_to(program: Program) -> list[tuple[Any, ...]]:
    """All that is called on the run, from wherever."""
    return [*program.inside.values(), *((event.what, *event.args) for event in program.outside)]


def is_endless(program: Program) -> bool:
    """Whether it may go on for ever unless it is stopped."""
    for source in sources_of(program.line):
        if source.silent or (source.kind == "ticks" and source.count < 0):
            return True
    return any(fn.sleeps is not None and INF in fn.sleeps for _, _, fn in functions_of(program.line))


# ---- printing


def show(value: Any) -> str:
    """Show a part of a program in one line, without what is as usual."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        text = ", ".join(map(show, value))
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    if isinstance(value, Op):
        return f".{value.kind}({', '.join(f'{k}={show(v)}' for k, v in value.args.items())})  # op{value.site}"
    if isinstance(value, Line):
        return f"{show(value.source)}{''.join(show(op).split('  #')[0] for op in value.ops)}"
    if hasattr(value, "__dataclass_fields__"):
        blank = _BLANK.get(type(value))
        parts = [f"{f.name}={show(getattr(value, f.name))}" for f in fields(value) if _differs(value, blank, f.name)]
        return f"{type(value).__name__}({', '.join(parts)})"
    return repr(value)


def _differs(value: Any, blank: Any, name: str) -> bool:
    return blank is None or getattr(value, name) != getattr(blank, name)


_BLANK: dict[type, Any] = {
    Fault: Fault("", 99),
    Fn: Fn(-1),
    Source: Source("", -1, -1),
    Ending: Ending(""),
    Event: Event("", -1, ""),
}


def render(program: Program) -> str:
    """Print a program like Python code, an operation a line."""
    head = replace(program, line=Line(program.line.source, []), ending=Ending(""))
    options = {f.name: getattr(head, f.name) for f in fields(head) if f.name not in ("line", "ending", "seed")}
    usual = Program(0, head.line, head.ending)
    shown = [f"{name} = {show(value)}" for name, value in options.items() if value != getattr(usual, name)]
    ops = [f"    {show(op)}" for op in program.line.ops]
    return "\n".join([f"# seed {program.seed}", show(program.line.source), *ops, show(program.ending), *shown])
