"""Make a program from a seed."""

from __future__ import annotations

import random
from typing import Any

from .items import ERRORS
from .program import (
    INF,
    Ending,
    Event,
    Fault,
    Fn,
    Line,
    Op,
    Program,
    Source,
    functions_of,
    is_endless,
    lines_of,
    sources_of,
)

KINDS = [*ERRORS, "cancelled"]
COMMON = ["error", "error", "error", "error", "aborted", "cancelled", "falsy", "group", "endofchannel", "stopiter"]
TIMES = [0, 0, 0.25, 0.5, 1, 1, 2]
NAMES = ["a", "b", "c"]


class Generator:
    """Choices of one program; `calm` programs have no faults, `wild` ones many."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.sites = 0
        self.faults_left = self.pick([0, 0, 1, 1, 1, 2, 3, 4])
        self.size = self.pick([1, 2, 3, 3, 4, 5, 6, 7])
        self.ranges: list[int] = []  # numbers of items that may come, to choose faults from

    def pick(self, options: Any) -> Any:
        return self.random.choice(options)

    def chance(self, part: float) -> bool:
        return self.random.random() < part

    def site(self) -> int:
        self.sites += 1
        return self.sites

    # ---- the whole

    def program(self) -> Program:
        focused = self.chance(0.2)
        line = self.focused() if focused else self.line(self.size, depth=0)[0]
        ending = self.ending()
        made = Program(self.seed, line, ending, schedule=self.random.randrange(1 << 30))
        made.cleanup_timeout = self.pick([5.0, 5.0, 1.0])
        made.hashable = any(op.kind == "distinct" and op.fn is None for each in lines_of(line) for op in _all(each.ops))
        made.error_items = not made.hashable and self.chance(0.08)
        made.watch = self.chance(0.3)
        self.meddle(made, focused)
        if is_endless(made) and not any(event.when == "time" for event in made.outside):
            made.outside.append(
                Event("time", self.pick([5.0, 20.0]), self.pick(["cancel", "abort", "drain", "cancel"]))
            )
        return made

    def ending(self) -> Ending:
        kind = self.pick(["open"] * 10 + ["collect"] * 3 + ["start", "start", "run", "count", "fold", "first"])
        if kind != "open":
            return Ending(kind)
        made = Ending(kind, loop=self.chance(0.5), reraise=self.chance(0.4))
        made.readers = self.pick([1, 1, 1, 1, 1, 2, 3])
        made.pauses = self.pick([[0], [0], [0], [1], [0, 3], [0.5], [0, 0, 7]])
        if self.chance(0.25):
            made.leave_after = self.pick([0, 1, 1, 2, 3, 5])
            made.leave_by = self.pick(["break", "raise"])
            made.readers = 1
        return made

    # ---- what is done to the run

    def meddle(self, made: Program, focused: bool) -> None:
        has_run = made.ending.kind in ("open", "start")
        for _ in range(self.pick([0, 0, 0, 1, 1, 2])):
            made.outside.append(self.outside(made, has_run))
        if has_run and self.chance(0.9 if focused else 0.4):
            functions, sources = self.places(made)
            for _ in range(self.pick([1, 1, 2])):
                places = self.pick([functions or sources, functions or sources, sources, [(0, "discard")]])
                made.inside[(*self.pick(places), self.pick([1, 1, 2, 2, 3, 4]))] = self.what(made)
        if self.chance(0.06):
            made.faults = {self.pick([1, 2]): self.pick(COMMON)}

    def outside(self, made: Program, has_run: bool) -> Event:
        when = self.pick(["time", "time", "step", "got"])
        what = self.what(made) if has_run else ("cancel",)
        if when == "step":
            step = self.pick([3, 5, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80]) + self.random.randrange(5)
            return Event(when, step, *(("cancel", ()) if self.chance(0.5) else (what[0], what[1:])))
        if when == "got" and made.ending.kind == "open":
            return Event(when, self.pick([1, 1, 2, 3, 4]), what[0], what[1:])
        if has_run and self.chance(0.2):
            what = ("drain", self.pick([0, 0.5, 2.0])) if self.chance(0.5) else ("drain",)
        return Event("time", self.pick([0, 0.25, 0.5, 1, 1, 1.5, 2, 3, 5]), what[0], what[1:])

    def what(self, made: Program) -> tuple[Any, ...]:
        what = self.pick(
            ["abort"] * 4 + ["drain_nowait"] * 4 + ["pause"] * 2 + ["resume", "cancel", "statistics", "report"]
        )
        if self.chance(0.15):
            ops = [op for each in lines_of(made.line) for op in _all(each.ops)]
            calling = [op for op in ops if op.kind == "map" and op.fn.sleeps is not None]
            pools = [op for op in calling if not op.args.get("latest")]
            shared = [op for op in ops if op.kind == "fair_by" or (op.kind == "join" and "merge" in op.how)]
            if pools and self.chance(0.5):
                return ("set_concurrency", self.pick(pools).site, self.pick([1, 2, 5]))
            if shared:
                return ("set_weight", self.pick([0, 1]), self.pick([1, 2, 7]))
        return ("burn",) if self.chance(0.04) else (what,)

    def places(self, made: Program) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """All user functions: where they are called, and as what; and the sources."""
        found: list[tuple[int, str]] = []
        roles = {("map", "fn"): "fn", ("fair_by", "fn"): "key", ("partition", "fn"): "route"}
        for op, role, fn in functions_of(made.line):
            known = role if role != "fn" else roles.get((op.kind, role), op.kind)
            found.append((fn.site, {"rate": "cost"}.get(known, known)))
        return found, [
            (source.site, role) for source in sources_of(made.line) for role in ("source", "source", "close")
        ]

    # ---- functions

    def fn(self, *, asynchronous: bool = False, faulty: float = 0.35) -> Fn:
        made = Fn(self.site())
        if asynchronous:
            made.sleeps = [self.pick(TIMES) for _ in range(self.pick([1, 1, 2, 3]))]
            if self.chance(0.05):
                made.sleeps = [-1]  # no checkpoint at all
            elif self.chance(0.02):
                made.sleeps = [0, INF]
            if self.chance(0.04):
                made.stubborn = 0.5
        if self.faults_left and self.chance(faulty) and self.ranges:
            self.faults_left -= 1
            made.faults = {
                self.pick(self.ranges): Fault(self.kind(), self.pick([99, 99, 1, 2]) if asynchronous else 99)
            }
            while self.chance(0.3):
                made.faults[self.pick(self.ranges)] = Fault(self.kind())
        return made

    def kind(self) -> str:
        kind = self.pick(COMMON if self.chance(0.6) else KINDS)
        return "error" if kind in ("keyboard", "falsybase") and self.chance(0.6) else kind

    # ---- sources

    def line(self, size: int, depth: int) -> tuple[Line, str]:
        source = self.source()
        self.ranges += [100 * source.site + k for k in range(max(source.count, 0))]
        ops, shape = self.ops(size, depth, "item", source)
        return Line(source, ops), shape

    def source(self) -> Source:
        kinds = ["list", "gen", "gen", "agen", "agen", "agen", "agen", "aiter", "channel", "producer", "restarting"]
        kind = self.pick([*kinds, "gen object", "stepper", "agen object", "own channel", "ticks"])
        made = Source(kind, self.site(), self.pick([0, 1, 2, 3, 4, 5, 6, 8, 12, 20]))
        made.sleeps = [self.pick(TIMES) for _ in range(self.pick([1, 2, 3]))] if self.chance(0.7) else [0]
        if kind == "ticks":
            made.sleeps = [self.pick([0.25, 1, 2])]
            made.count = -1 if self.chance(0.2) else made.count
        if kind in ("agen", "agen object", "channel", "own channel", "producer", "aiter"):
            made.silent = self.chance(0.12)
        if kind in ("agen", "agen object", "restarting"):
            made.hold = self.pick(["none"] * 5 + ["scope", "deadline", "nursery"])
        if kind == "channel":
            made.buffer = self.pick([0, 1, 3, 10])
            made.prefill = self.pick([0, 0, 10])
        else:
            self.closing(made)
        if kind == "restarting" and made.close == "fail":
            made.close = "quick"
        self.failing(made)
        return made

    def focused(self) -> Line:
        """A slow source, something that mixes, something fused: to be stopped from inside."""
        source = Source(self.pick(["agen", "agen", "aiter", "gen", "producer"]), self.site(), self.pick([3, 6, 9]))
        source.sleeps = [self.pick([0, 0.25, 1])]
        self.ranges += [100 * source.site + k for k in range(source.count)]
        ops, shape = [], "item"
        mixing = ["join", "join", "broadcast", "partition", "balance", "fair_by", "buffer", "map"]
        fused = [
            "filter",
            "filter",
            "tap",
            "batch",
            "flat_map",
            "throttle",
            "delay",
            "fair_by",
            "scan",
            "distinct",
            "map",
        ]
        for kinds in (mixing, fused, fused)[self.pick([0, 0, 1]) : self.pick([2, 2, 3])]:
            op = Op(self.pick(kinds), self.site(), {})
            shape = getattr(self, f"_{op.kind}")(op, 1, shape) or shape
            ops.append(op)
        return Line(source, ops)

    def closing(self, made: Source) -> None:
        if made.kind in ("gen", "gen object", "stepper", "producer"):
            made.close = "fail" if self.chance(0.06) else "none"
        elif made.kind in ("agen", "agen object", "restarting", "own channel"):
            made.close = self.pick(["none"] * 6 + ["quick"] * 3 + ["slow", "stuck", "fail"])
        elif made.kind == "aiter":
            made.close = self.pick(["none", "quick", "quick", "slow", "stuck", "fail"])

    def failing(self, made: Source) -> None:
        never = ("list", "channel", "ticks")
        if made.kind == "restarting" and self.chance(0.7):
            made.fail = {self.random.randint(0, made.count): "error" for _ in range(self.pick([1, 1, 2, 3, 4]))}
        elif made.kind not in never and self.faults_left and self.chance(0.25):
            self.faults_left -= 1
            kind = self.kind()
            ends = {"stepper": ["stopiter"], "aiter": ["stopasync"], "own channel": ["endofchannel"]}
            changed = ["cancelled", "group"] if made.hold == "nursery" else []  # by the nursery itself
            if kind in [*ends.get(made.kind, []), *changed]:
                kind = "error"
            made.fail = {self.random.randint(0, made.count): kind}

    # ---- operations

    def ops(self, size: int, depth: int, shape: str, source: Source | None) -> tuple[list[Op], str]:
        made: list[Op] = []
        for _ in range(self.random.randint(0, size)):
            kind = self.op_kind(depth, shape)
            op = Op(kind, self.site(), {})
            shape = getattr(self, f"_{kind}")(op, depth, shape) or shape
            made.append(op)
        return made, shape

    def op_kind(self, depth: int, shape: str) -> str:
        if shape == "list" and self.chance(0.35):
            return "unbatch"
        kinds = (
            ["map"] * 9 + ["filter"] * 3 + ["tap", "on_end", "scan", "enumerate", "take", "take", "skip", "take_while"]
        )
        kinds += ["take_until", "take_for"]
        kinds += ["skip_while", "distinct", "stateful", "batch", "batch", "window", "sliding", "pairwise"] + [
            "buffer"
        ] * 4
        kinds += (
            ["throttle", "debounce", "sample", "delay", "idle_timeout", "timeout"] + ["fair_by"] * 2 + ["flat_map"] * 3
        )
        if depth < 2:
            kinds += ["broadcast", "broadcast", "partition", "partition", "balance", "balance"] + ["join"] * 5
        return str(self.pick(kinds))

    def _map(self, op: Op, depth: int, shape: str) -> str:
        asynchronous = self.chance(0.65)
        op.args["fn"] = self.fn(asynchronous=asynchronous, faulty=0.6)
        if shape == "mixed" and self.chance(0.6):
            op.args["of"] = self.pick(["ok", "failures"])
        if self.chance(0.3):
            op.args["on_error"] = self.policy()
        if not asynchronous:
            return "mixed" if self._leaves_failures(op) else "item"
        op.args["concurrency"] = self.pick([1, 1, 2, 2, 3, 5])
        op.args["ordered"] = self.chance(0.65)
        if self.chance(0.15):
            op.args["key"] = self.fn(faulty=0.2)
            op.args["waiting"] = self.pick([0, 0, 1, 2, 9])
            op.args["key_rate"] = self.pick([None, None, (0.5, 1), (2, 2), ("rolling", 2)])
        elif "of" not in op.args and self.chance(0.12):
            op.args |= {"latest": True, "concurrency": 1}
        if not op.args.get("latest") and self.chance(0.15):
            op.args["adapts"] = True
        if self.chance(0.35):
            op.args["layers"] = self.layers()
        if any(layer[0] == "retry" for layer in op.args.get("layers", ())):
            if not op.args.get("latest"):
                op.args["retries_elsewhere"] = self.pick([0, 0, 1, 2, 9])
        else:
            for fault in op.fn.faults.values():
                fault.times = 99
        return "mixed" if self._leaves_failures(op) else "item"

    def _leaves_failures(self, op: Op) -> bool:
        return op.args.get("of") == "ok" or op.args.get("on_error", ("stop",))[0] == "emit"

    def policy(self) -> tuple[Any, ...]:
        kind = self.pick(["skip", "emit", "divert", "stop"])
        if kind == "skip":
            return ("skip", self.pick([None, None, 0, 1]))
        return ("divert", self.fn(asynchronous=True, faulty=0.2)) if kind == "divert" else (kind,)

    def layers(self) -> list[Any]:
        made: list[Any] = []
        for _ in range(self.pick([1, 1, 2, 3])):
            kind = self.pick(
                ["timeout", "timeout", "retry", "retry", "retry", "rate", "breaker", "then", "map", "fallback"]
            )
            if kind == "timeout":
                made.append((kind, self.pick([0.25, 0.5, 1, 2, 30])))
            elif kind == "retry":
                on = self.pick(["all", "all", "boom", "pred"])
                pred = self.fn(faulty=0.1) if on == "pred" else None
                made.append((kind, self.pick([1, 2, 3]), on, self.pick([0, 0.5, 1]), pred))
            elif kind == "rate":
                cost = self.fn(faulty=0.1) if self.chance(0.3) else None
                made.append(
                    (
                        kind,
                        self.pick([0.5, 1, 2, 4, "rolling"]),
                        self.pick([1, 1, 2, 3]),
                        cost,
                        self.pick([True, False, "by key"]),
                    )
                )
            elif kind == "breaker":
                made.append((kind, self.pick([1, 2, 5]), self.pick([0.5, 3]), self.chance(0.4)))
            else:
                made.append((kind, self.fn(asynchronous=kind != "map", faulty=0.3)))
        return made

    def _filter(self, op: Op, depth: int, shape: str) -> None:
        op.args = {
            "fn": self.fn(asynchronous=self.chance(0.3)),
            "mod": self.pick([1, 2, 3, 5]),
            "rest": self.pick([0, 1, 1]),
        }

    def _tap(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"fn": self.fn(asynchronous=self.chance(0.3))}

    def _on_end(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"fn": self.fn(faulty=0)}

    def _scan(self, op: Op, depth: int, shape: str) -> str:
        op.args = {"fn": self.fn(asynchronous=self.chance(0.3))}
        return "item"

    def _enumerate(self, op: Op, depth: int, shape: str) -> str:
        op.args = {"start": self.pick([0, 7])}
        return "tuple"

    def _take(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"n": self.pick([0, 1, 2, 3, 5, 10, 30])}

    def _skip(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"n": self.pick([0, 1, 3])}

    def _take_while(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"fn": self.fn(asynchronous=self.chance(0.3)), "n": self.pick([0, 2, 5, 50])}

    _skip_while = _take_until = _take_while

    def _distinct(self, op: Op, depth: int, shape: str) -> None:
        by_item = shape == "item" and self.sites < 3  # only right behind a source are items themselves hashable
        op.args = {"fn": None if by_item else self.fn(), "mod": self.pick([2, 3, 50]), "n": self.pick([1, 2, 100])}

    def _stateful(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"fn": self.fn()}
        if self.chance(0.3):
            keys = {
                "mod": self.pick([1, 2, 3]),
                "max_keys": self.pick([1, 2, 5]),
                "full": self.pick(["oldest", "fail"]),
            }
            op.args |= {"key": self.fn(), **keys}

    def _batch(self, op: Op, depth: int, shape: str) -> str:
        plain, timed = [(1, None, None), (2, None, None), (3, None, None)], [(2, 1.0, None), (3, 0, None)]
        costly = [(3, None, 3), (None, 0, 2)]
        n, delay, max_cost = self.pick([*plain, *timed, (None, 0.5, None), (10, 2.0, None), *costly, (None, None, 4)])
        cost = self.fn() if max_cost is not None and self.chance(0.8) else None
        op.args = {"n": n, "delay": delay, "max_cost": max_cost, "cost": cost}
        if self.chance(0.25):
            keys = {
                "mod": self.pick([1, 2, 3]),
                "max_keys": self.pick([1, 2, 5]),
                "full": self.pick(["oldest", "fail"]),
            }
            op.args |= {"key": self.fn(), **keys}
        return "list"

    def _unbatch(self, op: Op, depth: int, shape: str) -> str:
        return "mixed"  # what was in the lists

    def _window(self, op: Op, depth: int, shape: str) -> str:
        n, period = self.pick([(1, None), (3, None), (2, 1.0), (None, 1.0), (10, 0.5)])
        op.args = {"n": n, "period": period}
        return "list"

    def _sliding(self, op: Op, depth: int, shape: str) -> str:
        op.args = {"n": self.pick([1, 2, 3]), "step": self.pick([1, 1, 2, 4])}
        return "list"

    def _pairwise(self, op: Op, depth: int, shape: str) -> str:
        return "list"

    def _buffer(self, op: Op, depth: int, shape: str) -> None:
        overflow = self.pick(["block", "block", "drop_oldest", "drop_newest", "fail"])
        sizes = [1, 1, 2, 3, 10] + [0] * (overflow != "drop_oldest")
        op.args = {"n": self.pick(sizes), "overflow": overflow}

    def _throttle(self, op: Op, depth: int, shape: str) -> None:
        burst = self.pick([1, 1, 2, 3])
        rate = self.pick([0.5, 1, 2, 4, "rolling"])
        op.args = {"rate": rate, "burst": burst, "cost": self.fn() if self.chance(0.3) else None}

    def _debounce(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"seconds": self.pick([0.25, 1, 1.5, 3]), "max_wait": self.pick([None, None, 3, 4.5])}

    def _sample(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"seconds": self.pick([0.25, 1, 1.5, 3])}

    def _delay(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"seconds": self.pick([0.25, 1, 3]), "n": self.pick([1, 2, 16])}

    def _idle_timeout(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"seconds": self.pick([0.5, 1, 3, 1e6, 1e6])}

    _take_for = _idle_timeout

    def _timeout(self, op: Op, depth: int, shape: str) -> None:
        op.args = {"seconds": self.pick([0.5, 1, 3, 1e6, 1e6]), "first": self.pick([None, None, 1, 1e6])}

    def _fair_by(self, op: Op, depth: int, shape: str) -> None:
        overflow = self.pick(["block", "block", "drop_newest", "divert"])
        if overflow == "divert":
            overflow = ("divert", self.fn(asynchronous=True, faulty=0.3))
        op.args = {"fn": self.fn(), "mod": self.pick([1, 2, 3]), "overflow": overflow}
        op.args |= self.share({0: self.pick([1, 3])})
        op.args["max_keys"] = self.pick([1, 2, 5])
        if isinstance(overflow, tuple):
            op.args["on_error"] = overflow

    def share(self, weights: dict[Any, int]) -> dict[str, Any]:
        cost = self.fn() if self.chance(0.3) else None
        return {"weights": weights, "capacity": self.pick([1, 1, 2, 16]), "cost": cost}

    def _flat_map(self, op: Op, depth: int, shape: str) -> str:
        kind = self.pick(["list", "gen", "agen", "agen", "agen", "aiter", "pipeline", "pipeline"])
        inner = Source(kind, self.site(), self.pick([0, 1, 2, 3]), [self.pick(TIMES)])
        if kind in ("agen", "pipeline"):
            inner.hold = self.pick(["none"] * 4 + ["scope", "nursery"])
        if kind not in ("list", "gen"):
            inner.silent = self.chance(0.08)
            inner.close = self.pick(["none"] * 4 + ["quick", "quick", "stuck", "fail"])
            if kind == "aiter" and inner.close == "none":
                inner.close = "quick"
        if kind != "list" and self.faults_left and self.chance(0.2):
            self.faults_left -= 1
            inner.fail = {self.pick([0, 1, 2]): self.pick(["error", "aborted", "falsy", "cancelled", "group"])}
            if inner.hold == "nursery":
                inner.hold = "none"
        inner_ops: list[Op] = []
        if kind == "pipeline" and self.chance(0.6):
            step = Op("map", self.site(), {})
            step.args = {"fn": self.fn(asynchronous=True), "concurrency": self.pick([1, 2]), "ordered": True}
            inner_ops = [step]
        asynchronous = self.chance(0.3) and kind in ("list", "pipeline", "gen")
        op.args["own"] = kind == "agen" and self.chance(0.5)  # an async generator function
        free = op.own or asynchronous or kind in ("list", "gen")
        concurrency = self.pick([None, 1, 2, 3] if free else [1, 2, 3])
        op.args |= {"fn": self.fn(asynchronous=asynchronous), "inner": inner, "inner_ops": inner_ops}
        op.args["concurrency"] = concurrency
        if self.chance(0.25):
            op.args["on_error"] = self.policy()
        return "mixed"

    def branches(self, depth: int, shape: str) -> dict[str, list[Op]]:
        return {name: self.ops(2, depth + 1, shape, None)[0] for name in NAMES[: self.pick([1, 2, 2, 3])]}

    def _broadcast(self, op: Op, depth: int, shape: str) -> str:
        if self.chance(0.4):
            names = NAMES[: self.pick([1, 2, 2, 3])]
            op.args = {"branches": {name: self.one_to_one(depth + 1, shape) for name in names}, "zip": True}
            return "tuple"
        op.args = {"branches": self.branches(depth, shape)}
        return "mixed"

    def one_to_one(self, depth: int, shape: str) -> list[Op]:
        """Make operations that give one result for each item, in order."""
        made = []
        for _ in range(self.pick([0, 1, 1, 2])):
            op = Op(self.pick(["map", "map", "map", "tap", "scan", "enumerate", "buffer", "delay"]), self.site(), {})
            getattr(self, f"_{op.kind}")(op, depth, shape)
            if op.kind == "map":
                op.args.pop("latest", None)
                op.args["ordered"] = True
                if op.args.get("on_error", ("stop",))[0] != "emit":
                    op.args.pop("on_error", None)
            elif op.kind == "buffer":
                op.args["overflow"] = "block"
            made.append(op)
        return made

    def _balance(self, op: Op, depth: int, shape: str) -> str:
        op.args = {"branches": self.branches(depth, shape)}
        return "mixed"

    def _partition(self, op: Op, depth: int, shape: str) -> str:
        op.args = {"fn": self.fn(), "branches": self.branches(depth, shape), "wrong": None}
        if self.faults_left and self.chance(0.3) and self.ranges:
            self.faults_left -= 1
            op.args["wrong"] = self.pick(self.ranges)
        return "mixed"

    def _join(self, op: Op, depth: int, shape: str) -> str:
        how = self.pick(["merge", "merge", "fair_merge", "concat", "prefer", "zip", "zip_latest", "merge_sorted"])
        others = [self.line(2, depth + 1)[0] for _ in range(self.pick([0, 1, 1, 2]))]
        op.args = {"how": how, "others": others}
        if how == "fair_merge":
            op.args |= self.share({0: self.pick([1, 3])})
        else:
            op.args["cost"] = None
        op.args["strict"] = how == "zip" and self.chance(0.4)
        return "tuple" if how in ("zip", "zip_latest") else "mixed"


def _all(ops: list[Op]) -> list[Op]:
    found = []
    for op in ops:
        found.append(op)
        for branch in op.args.get("branches", {}).values():
            found += _all(branch)
    return found


def generate(seed: int) -> Program:
    return Generator(seed).program()


def generate_step(seed: int) -> Program:
    """Make a program of one step, whose policies only wait and try again: what it does is known to the instant."""
    made = Generator(seed)
    source = Source("gen", made.site(), 3)
    made.ranges = [100 * source.site + k for k in range(source.count)]
    made.faults_left = 4
    op = Op("map", made.site(), {"fn": made.fn(asynchronous=True, faulty=0.9)})
    layers = [layer for _ in range(3) for layer in made.layers() if layer[0] not in ("rate", "breaker")]
    on_error = made.policy() if made.chance(0.3) else ("stop",)
    op.args |= {"layers": layers[:5], "on_error": on_error, "concurrency": 1, "ordered": True}
    return Program(seed, Line(source, [op]), Ending("open"), schedule=made.random.randrange(1 << 30))
