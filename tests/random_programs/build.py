"""Make the pipeline of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from funcpipe_trio import (
    Adaptive,
    Backoff,
    CircuitBreaker,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio._plan.steps import retries_elsewhere_in
from tests._kit import Boom

from .items import Wrap, num
from .program import Fn, Line, Op, Source
from .sources import AsyncStepper, BareAsyncStepper, Feed, Stepper, StepperChannel, opener
from .world import World

PLAIN: dict[str, dict[str, str]] = {  # operations without functions: their parameters, and as what they are given here
    "enumerate": {"start": "start"},
    "take": {"n": "n"},
    "skip": {"n": "n"},
    "unbatch": {},
    "sliding": {"n": "n", "step": "step"},
    "pairwise": {},
    "debounce": {"delay": "seconds", "max_wait": "max_wait"},
    "sample": {"period": "seconds"},
    "window": {"max_items": "n", "period": "period"},
    "buffer": {"capacity": "n", "overflow": "overflow"},
    "delay": {"seconds": "seconds", "max_items": "n"},
    "idle_timeout": {"seconds": "seconds"},
    "take_for": {"seconds": "seconds"},
    "timeout": {"seconds": "seconds", "first": "first"},
}


@asynccontextmanager
async def held_open() -> AsyncIterator[None]:
    """Hold a nursery open, as a connection does."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


def limit_of(rate: Any, burst: int) -> RateLimit | RollingLimit:
    """A rate a second, or so many in any second."""
    return RollingLimit(burst, per=1) if rate == "rolling" else RateLimit(rate, burst=burst)


class Builder:
    """Make the pipeline of a program."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.senders: list[Callable[[], Any]] = []
        self.inner = False

    def line(self, line: Line) -> Pipeline[Any]:
        return self.ops(self.source(line.source), line.ops)

    def ops(self, pipeline: Pipeline[Any], ops: list[Op]) -> Pipeline[Any]:
        for op in ops:
            name = f"op{op.site}"
            if op.kind in PLAIN:
                given = {key: op.args[arg] for key, arg in PLAIN[op.kind].items()}
                pipeline = getattr(pipeline, op.kind)(**given, name=name)
            else:
                pipeline = getattr(self, op.kind)(pipeline, op, name)
        return pipeline

    def source(self, spec: Source) -> Pipeline[Any]:
        world, name, kind = self.world, f"s{spec.site}", spec.kind
        feed = Feed(world, spec)
        if kind == "list":
            return Pipeline.from_iterable(feed.all(), name=name)
        if kind == "gen":
            return Pipeline.from_iterable(feed.gen, name=name)
        if kind == "gen object":
            return Pipeline.from_iterable(feed.gen(), name=name)
        if kind == "stepper":
            return Pipeline.from_iterable(Stepper(feed), name=name)
        if kind == "agen":
            return self._generator(feed, name)
        if kind == "agen object":
            return Pipeline.from_async_iterable(feed.agen(), name=name)
        if kind == "aiter":
            made = BareAsyncStepper if spec.close == "none" else AsyncStepper
            return Pipeline.from_async_iterable(lambda: made(feed), name=name)
        if kind == "channel":
            return self._channel(feed, name)
        if kind == "own channel":
            return Pipeline.from_channel(StepperChannel(feed), name=name)
        if kind == "producer":
            return Pipeline.from_producer(feed.produce, name=name)
        if kind == "ticks":
            ticks = Pipeline.ticks(spec.sleeps[0], name=name)
            return (ticks if spec.count < 0 else ticks.take(spec.count)).map(lambda k: feed.hand(feed.make(k)))
        retry = Retry(spec.attempts, Exception, Backoff(0.5, jitter=0))
        return Pipeline.restarting(opener(world, spec), retry, reset_after=1000, name=name)

    def _generator(self, feed: Feed, name: str) -> Pipeline[Any]:
        if feed.spec.site % 3 == 1:  # by its number: to draw it would make other programs of all seeds
            return Pipeline.using(held_open, lambda _: feed.agen(), name=name)
        return Pipeline.from_async_iterable(feed.agen, name=name)

    def _channel(self, feed: Feed, name: str) -> Pipeline[Any]:
        send, receive = trio.open_memory_channel[Any](feed.spec.buffer)
        for _ in range(min(feed.spec.prefill, feed.spec.buffer, feed.count)):
            item = feed.make(feed.k)
            send.send_nowait(item)
            feed.hand(item)
        self.senders.append(lambda: feed.send(send))
        self.world.channels.append((feed.spec, receive))
        return Pipeline.from_channel(receive, name=name)

    # ---- functions

    def fn(self, fn: Fn, role: str, body: Callable[..., Any]) -> Callable[..., Any]:
        return self.world.function(fn, role, body)

    def step(self, fn: Fn, layers: list[Any], op: Op) -> Any:
        call = self.world.asynchronous(fn, "fn", lambda value: Wrap(op.site, value))
        per: Any = {1: "run", 2: "worker"}.get(op.site % 4)  # by its number, as for sources
        if per is None:
            step = Step(call)
        else:

            async def with_connection(_connection: None, item: Any) -> Any:
                return await call(item)

            step = Step(with_connection, name=getattr(call, "__name__", None)).using(held_open, per)
        for layer in layers:
            step = getattr(self, f"_{layer[0]}")(step, *layer[1:])
        return step

    def _timeout(self, step: Any, seconds: float) -> Any:
        return step.timeout(seconds)

    def _retry(self, step: Any, attempts: int, on: str, initial: float, pred: Fn | None) -> Any:
        met: Any = {"all": Exception, "boom": Boom}.get(on)
        if on == "pred":
            assert pred is not None
            met = self.world.sync(pred, "retry", lambda _: True)
        return step.retry(Retry(attempts, met, Backoff(initial, jitter=0)))

    def _rate(self, step: Any, rate: float | str, burst: int, cost: Fn | None, shared: bool | str) -> Any:
        limit: Any = limit_of(rate, burst)
        paid = None if cost is None else self.world.sync(cost, "cost", lambda value: 1 + num(value) % burst)
        if shared == "by key":
            return step.rate_limit(limit, cost=paid, per_key=lambda value: num(value) % 3, max_keys=2)
        if not shared:
            return step.rate_limit(limit, cost=paid)
        if burst == 1:
            return step.rate_limit(RateLimiter(limit), cost=paid)

        def key(value: Any) -> int:
            return num(value) % 3

        share = FairShare({0: 3})  # what is settled below is never less than was paid: so P12 holds for starts
        if burst == 2:
            return step.rate_limit(
                RateLimiter(limit, share), key=key, cost=paid, settle=lambda value: 2 + num(value) % 2
            )
        return step.rate_limit(RateLimiter(limit, share), key=key, cost=paid).places(PlaceLimiter(2, share), key=key)

    def _breaker(self, step: Any, failures: int, reset: float, wait: bool) -> Any:
        return step.circuit_breaker(CircuitBreaker(failures, reset, wait=wait))

    def _then(self, step: Any, fn: Fn) -> Any:
        return step.then(Step(self.world.asynchronous(fn, "then", lambda value: Wrap((fn.site, "then"), value))))

    def _fallback(self, step: Any, fn: Fn) -> Any:
        other = self.world.asynchronous(fn, "fallback", lambda value: Wrap((fn.site, "fallback"), value))
        return step.fallback(Step(other))

    def _map(self, step: Any, fn: Fn) -> Any:
        return step.map(self.world.sync(fn, "map", lambda value: Wrap((fn.site, "map"), value)))

    def on_error(self, policy: tuple[Any, ...]) -> Any:
        if policy[0] == "skip":
            return OnError.skip(policy[1])
        if policy[0] == "divert":
            return OnError.divert(self.world.asynchronous(policy[1], "divert", lambda _: None))
        return getattr(OnError, policy[0])()

    # ---- operations

    def map(self, p: Any, op: Op, name: str) -> Any:
        world, fn = self.world, op.fn
        on_error = self.on_error(op.args.get("on_error", ("stop",)))
        method = {"all": p.map, "ok": p.on_ok, "failures": p.recover}[op.args.get("of", "all")]
        if fn.sleeps is None:
            return method(world.sync(fn, "fn", lambda value: Wrap(op.site, value)), on_error=on_error, name=name)
        if not self.inner:
            world.concurrency[fn.site], world.pools[op.site] = op.concurrency, fn.site
        layers = op.args.get("layers")
        made = self.step(fn, layers, op) if layers else self.fn(fn, "fn", lambda value: Wrap(op.site, value))
        key = op.args.get("key")
        if key is not None:
            world.keyed.add(fn.site)
        by = None if key is None else world.sync(key, "key", lambda value: num(value) % 3)
        how = {"concurrency": op.concurrency, "ordered": op.ordered, "key": by, "on_error": on_error, "name": name}
        if op.args.get("adapts"):
            how["concurrency"] = Adaptive(1, op.concurrency)
        if by is not None:
            rate = op.args.get("key_rate")
            how["waiting"] = op.args.get("waiting", 0)
            how["key_rate"] = None if rate is None else limit_of(*rate)
        if layers and any(retries_elsewhere_in(made.plan.parts)):  # otherwise it is refused
            how["retries_elsewhere"] = op.args.get("retries_elsewhere", 0)
        if op.args.get("latest"):
            how["latest"] = True
        return method(made, **how)

    def filter(self, p: Any, op: Op, name: str) -> Any:
        def says(value: Any) -> bool:
            if keeps(op, num(value)):
                return True
            self.world.gone(value)
            return False

        return p.filter(self.fn(op.fn, "filter", says), name=name)

    def tap(self, p: Any, op: Op, name: str) -> Any:
        return p.tap(self.fn(op.fn, "tap", lambda _: None), name=name)

    def on_end(self, p: Any, op: Op, name: str) -> Any:
        ended: Counter[int] = Counter() if self.inner else self.world.ended

        def told(_outcome: Any) -> None:
            ended[op.site] += 1

        return p.on_end(self.world.sync(op.fn, "on_end", told), name=name)

    def scan(self, p: Any, op: Op, name: str) -> Any:
        def body(state: Any, value: Any) -> Any:
            return Wrap((op.site, state.op[1] + 1 if type(state) is Wrap else 0), value)

        return p.scan(self.fn(op.fn, "scan", body), None, name=name)

    def take_while(self, p: Any, op: Op, name: str) -> Any:
        return p.take_while(self.fn(op.fn, "take_while", lambda value: num(value) % 100 < op.n), name=name)

    def take_until(self, p: Any, op: Op, name: str) -> Any:
        return p.take_until(self.fn(op.fn, "take_until", lambda value: num(value) % 100 >= op.n), name=name)

    def skip_while(self, p: Any, op: Op, name: str) -> Any:
        return p.skip_while(self.fn(op.fn, "skip_while", lambda value: num(value) % 100 < op.n), name=name)

    def distinct(self, p: Any, op: Op, name: str) -> Any:
        by = None if op.fn is None else self.fn(op.fn, "distinct", lambda value: num(value) % op.mod)
        return p.distinct(by, remember=op.n, name=name)

    def stateful(self, p: Any, op: Op, name: str) -> Any:
        """Give each value when the next one comes."""
        taken = self.world.sync(op.fn, "stateful", lambda value: value)

        class Late:
            def __init__(self) -> None:
                self.kept: list[Any] = []

            def push(self, value: Any) -> list[Any]:
                value = taken(value)
                given, self.kept = self.kept, [value]
                return given

            def flush(self) -> list[Any]:
                return self.kept

            def held(self) -> list[Any]:
                return self.kept

        return p.stateful(Late, holds=1, **self.keys(op), name=name)

    def batch(self, p: Any, op: Op, name: str) -> Any:
        cost = None if op.cost is None else self.world.sync(op.cost, "cost", lambda value: num(value) % 4)
        return p.batch(op.n, max_delay=op.delay, max_cost=op.max_cost, cost=cost, **self.keys(op), name=name)

    def keys(self, op: Op) -> dict[str, Any]:
        """The arguments of what is kept for each key, if it is."""
        if op.args.get("key") is None:
            return {}
        by = self.world.sync(op.key, "key", lambda value: num(value) % op.mod)
        return {"key": by, "max_keys": op.max_keys, "full": op.full}

    def throttle(self, p: Any, op: Op, name: str) -> Any:
        cost = None if op.cost is None else self.world.sync(op.cost, "cost", lambda value: 1 + num(value) % op.burst)
        return p.throttle(limit_of(op.rate, op.burst), cost=cost, name=name)

    def share(self, op: Op, weights: dict[Any, int]) -> FairShare[Any]:
        cost = None if op.cost is None else self.world.sync(op.cost, "cost", lambda value: 1 + num(value) % 2)
        return FairShare(weights, capacity=op.capacity, cost=cost)

    def fair_by(self, p: Any, op: Op, name: str) -> Any:
        key = self.world.sync(op.fn, "key", lambda value: num(value) % op.mod)
        full = self.on_error(op.overflow) if isinstance(op.overflow, tuple) else op.overflow
        return p.fair_by(key, self.share(op, op.weights), max_keys=op.max_keys, overflow=full, name=name)

    def broadcast(self, p: Any, op: Op, name: str) -> Any:
        if not op.args.get("zip"):
            return p.broadcast(self.branches(op), name=name)

        def in_order(results: Any) -> tuple[Any, ...]:
            assert [*results] == [*op.branches]
            return tuple(results.values())

        return p.broadcast(self.branches(op), join="zip", name=name).map(in_order, name=f"{name} in order")

    def balance(self, p: Any, op: Op, name: str) -> Any:
        return p.balance(self.branches(op), name=name)

    def partition(self, p: Any, op: Op, name: str) -> Any:
        names = list(op.branches)

        def route(value: Any) -> str:
            if op.wrong is not None and num(value) == op.wrong:
                self.world.gone(value)
                return "nowhere"
            return names[num(value) % len(names)]

        return p.partition(self.world.sync(op.fn, "route", route), self.branches(op), name=name)

    def branches(self, op: Op) -> dict[str, Any]:
        return {key: lambda p, ops=ops: self.ops(p, ops) for key, ops in op.branches.items()}

    def join(self, p: Any, op: Op, name: str) -> Any:
        inputs = [p, *map(self.line, op.others)]
        if op.how == "merge":
            return merge(*inputs, name=name)
        if op.how == "concat":
            return concat(*inputs, name=name)
        if op.how == "merge_sorted":
            return merge_sorted(*inputs, key=num, name=name)
        if op.how == "zip_latest":
            return zip_latest(*inputs, name=name)
        if op.how == "prefer":
            return prefer(*inputs, at_least=2 + op.site % 3, name=name)
        if op.how == "zip":
            return zip_pipelines(*inputs, strict=op.strict, name=name)
        return fair_merge(dict(enumerate(inputs)), self.share(op, op.weights), name=name)

    def flat_map(self, p: Any, op: Op, name: str) -> Any:
        world, spec, shape = self.world, op.inner, op.inner.kind
        on_error = self.on_error(op.args.get("on_error", ("stop",)))

        def give(value: Any) -> Any:
            feed = Feed(world, spec, value, children_of(op, num(value)))
            if shape == "list":
                world.gone(value)
                return feed.all()
            if shape == "pipeline":
                source = Pipeline.from_async_iterable(feed.agen, name=f"s{spec.site}")
                self.inner = True  # each of those runs has places of its own
                return self.ops(source, op.inner_ops)
            if shape == "aiter":
                return AsyncStepper(feed)
            return feed.gen() if shape == "gen" else feed.agen()

        fn = self.fn(op.fn, "flat_map", give)

        async def generator(value: Any) -> Any:
            async with aclosing(fn(value)) as children:
                async for child in children:
                    yield child

        how = {"concurrency": op.concurrency, "on_error": on_error, "name": name}
        return p.flat_map(generator if op.own else fn, **how)


def keeps(op: Op, n: int) -> bool:
    return bool(n % op.mod != op.rest)


def children_of(op: Op, n: int) -> int:
    return int(op.inner.count + n % 2)
