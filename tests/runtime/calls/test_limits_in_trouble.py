"""Limiters in the hands of calls that are cancelled, fail, lie, or hold on: nothing is lost, nobody waits for ever.

Mutants that die here: a place given back by a call that is still to end, twice, or never; tokens that a cancelled task
took with it; a task that stands back for one that cannot go; a key without a hash that stays in the line; a
settlement of one limit that counts though that of the next is refused; an account of each key that ever came.
"""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    FairShare,
    MisuseError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    RollingLimit,
    Step,
    threads,
)
from funcpipe_trio._plan.steps import limits_around
from funcpipe_trio._runtime.calls.limiter_keys import branch_of, shared_of
from funcpipe_trio._sansio.key_waits import KeyWaits
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import run_real

KEYS = "abc"


def told(limiter: Any) -> tuple[int, int]:
    """What it says of tasks: those that hold something, and those that wait."""
    said = limiter.statistics()
    return getattr(said, "held", 0), said.tasks_waiting


# ---- nobody waits for ever


@pytest.mark.parametrize("seed", range(60))
def test_calls_that_hold_places_while_they_wait_for_tokens_go_on(seed: int) -> None:
    """Places first, then tokens, with something between them; beside calls that take both at one instant, or one.

    No two wait for what the other holds, so all are made in the end; some are cancelled, at any moment.
    """
    chance = Random(seed)
    share = FairShare({"a": 3}) if chance.random() < 0.7 else None
    rate, size = chance.choice([2, 5]), chance.choice([1, 2, 3])
    tokens, places = RateLimiter(RateLimit(rate, burst=2), share), PlaceLimiter(size, chance.choice([share, None]))
    inside = 0

    async def work(item: Any) -> Any:
        nonlocal inside
        inside += 1
        try:
            await trio.sleep(item[1] / 8)
        finally:
            inside -= 1
        return item

    def key(item: Any) -> Any:
        return item[0]

    step = Step(work)
    steps = {
        "tokens": step.rate_limit(tokens, key=key),
        "places": step.places(places, key=key),
        "both": step.rate_limit(tokens, key=key).places(places, key=key),
        "both, places first": step.places(places, key=key).rate_limit(tokens, key=key),
        "one in the other": step.rate_limit(tokens, key=key).timeout(10_000).places(places, key=key),
    }

    async def call(kind: str, comes: float, patience: float, item: Any) -> None:
        await trio.sleep(comes)
        with trio.move_on_after(patience):
            await started[kind](item)

    async def main() -> Any:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                kind = chance.choice([*steps])
                patience = chance.choice([9999, 9999, chance.randrange(8) / 8])
                item = chance.choice(KEYS), chance.randrange(4), kind
                nursery.start_soon(call, kind, chance.randrange(32) / 8, patience, item)
        return trio.current_time(), told(tokens), told(places)

    started = {name: each.start() for name, each in steps.items()}
    with scheduled(Schedule(seed)):
        at, of_tokens, of_places = run_virtual(main)

    assert (of_tokens, of_places) == ((0, 0), (0, 0))
    assert at <= 4 + 40 / rate + 40 * 3 / 8


@pytest.mark.parametrize("seed", range(12))
def test_two_limiters_with_shares_in_opposite_orders(seed: int) -> None:
    """Two steps name them the other way round, so each line is in the order of another one: all calls are made."""

    async def main() -> Any:
        one, two = (RateLimiter(RateLimit(4, burst=2), FairShare({"a": 5})) for _ in range(2))
        places = PlaceLimiter(3, FairShare({"c": 2}))
        made: list[Any] = []

        async def note(item: Any) -> None:
            await trio.sleep(0.125)
            made.append(item)

        def key(item: Any) -> Any:
            return item[0]

        step = Step(note)
        steps = [
            step.rate_limit(one, two, key=key).places(places, key=key).start(),
            step.places(places, key=key).rate_limit(two, one, key=key).start(),
            step.rate_limit(two.group("g"), key=key).start(),
        ]
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(steps[number % 3], (KEYS[number // 3 % 3], number))
                if number % 7 == seed % 7:
                    await wait_all_tasks_blocked()
                    one.set_weight("a", 1 + number % 3)
                    two.group("g", 1 + number % 5).set_weight("b", 4)
        return len(made), trio.current_time()

    with scheduled(Schedule(seed)):
        made, at = run_virtual(main)

    assert made == 60
    assert at <= 60 / 4 + 1


# ---- cancelled at any moment

ENTERED: dict[str, Callable[[Any, Any], Any]] = {
    "a place": lambda tokens, places: held(places, tokens),
    "a place of a group": lambda tokens, places: held(places.group("g"), tokens),
    "tokens": lambda tokens, places: Step(at_work).rate_limit(tokens)(1),
    "both": lambda tokens, places: Step(at_work).rate_limit(tokens, key=str).places(places, key=str)(1),
    "one in the other": lambda tokens, places: Step(at_work).rate_limit(tokens).timeout(99).places(places)(1),
}


async def at_work(item: Any) -> Any:
    await trio.lowlevel.checkpoint()
    await trio.sleep(1)
    await trio.lowlevel.checkpoint()
    return item


async def held(places: PlaceLimiter, tokens: RateLimiter) -> None:
    async with places.hold(key="a"):
        await tokens.acquire(key="a")
        await at_work(1)


class CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the k-th step of a task."""

    def __init__(self, step: int) -> None:
        self.step, self.task, self.scope = step, None, trio.CancelScope()

    def before_task_step(self, task: Any) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


@pytest.mark.parametrize("shares", [None, FairShare({"a": 2})], ids=["one line", "shares"])
@pytest.mark.parametrize("what", ENTERED)
def test_what_a_cancelled_task_holds_is_given_back_once(what: str, shares: Any) -> None:
    """Before each of its steps; also in the one in which its call returns. Others get what was there."""
    seen = set()
    for step in range(1, 40):

        async def main(step: int = step) -> Any:
            tokens, places = RateLimiter(RateLimit(1, burst=2), shares), PlaceLimiter(1, shares)
            if shares is None and "group" in what:
                return None
            cancel = CancelAt(step)
            trio.lowlevel.add_instrument(cancel)

            async def cancelled() -> None:
                cancel.task = trio.lowlevel.current_task()  # type: ignore[assignment]
                with cancel.scope:
                    await ENTERED[what](tokens, places)

            async with trio.open_nursery() as nursery:
                async with places.hold(key="b"):
                    nursery.start_soon(cancelled)
                    await trio.sleep(0.5)
                await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(cancel)
            with trio.fail_after(3):
                async with places.hold(key="c"):
                    await tokens.acquire(2, key="c")
                    assert told(places) == (1, 0)
            acquired = tokens.statistics().acquired
            assert acquired in (1, 2)
            assert told(places) == (0, 0)
            assert told(tokens) == (0, 0)
            return acquired, cancel.scope.cancelled_caught

        for order in range(2):
            with scheduled(Schedule(order)):
                seen.add(run_virtual(main))

    assert shares is None or (1, True) in seen
    assert (2, False) in seen or None in seen


@pytest.mark.parametrize("seed", range(10))
def test_a_call_that_returns_at_the_instant_at_which_it_is_cancelled(seed: int) -> None:
    """Whichever comes first, its place is given back once, and its result counts or does not, but is settled once."""

    async def main() -> Any:
        places, tokens = PlaceLimiter(1, FairShare()), RateLimiter(RateLimit(1, burst=5), FairShare())
        ended = trio.Event()

        async def returns(item: Any) -> Any:
            await ended.wait()
            return item

        step = Step(returns).rate_limit(tokens, key=str, cost=lambda item: 3, settle=lambda item: 1)
        started = step.places(places, key=str).start()

        async def call() -> None:
            with scope:
                results.append(await started(1))

        results: list[Any] = []
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            for act in [ended.set, scope.cancel][:: 1 if seed % 2 else -1]:
                act()
        return results, told(places), tokens.statistics().acquired_cost

    with scheduled(Schedule(seed)):
        results, of_places, cost = run_virtual(main)

    assert of_places == (0, 0)
    assert cost == (1 if results else 3)


def test_a_thread_that_is_left_behind_has_given_its_place_back() -> None:
    """The call has ended for everyone who waits; what the thread still does is nobody's."""
    release = threading.Event()

    async def main() -> Any:
        places = PlaceLimiter(1)
        step = Step(lambda _item: release.wait(9)).on(threads(2, abandon_on_cancel=True)).places(places)
        with trio.move_on_after(0.05):
            await step(1)
        left = told(places)
        release.set()
        return left

    assert run_real(main) == (0, 0)


# ---- keys


class Moody:
    """A key whose hash can be asked for some times only."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __hash__(self) -> int:
        self.times -= 1
        if self.times < 0:
            raise RuntimeError("no more")
        return 3


class Unlike:
    """A key that has the hash of others, and cannot be compared with them."""

    def __hash__(self) -> int:
        return 3

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")


@pytest.mark.parametrize("comes", [0, 1 / 4], ids=["at once", "one by one"])
@pytest.mark.parametrize("make", [PlaceLimiter, lambda size, share: RateLimiter(RateLimit(1, burst=size), share)])
@pytest.mark.parametrize(
    "keys",
    [[Moody(0)], [[]], [Unlike(), Unlike(), Unlike()]],
    ids=["no hash any more", "no hash", "not comparable"],
)
def test_a_key_that_cannot_be_used_is_an_error_of_its_call_alone(make: Any, keys: Any, comes: float) -> None:
    """It stays in no line, and holds nothing."""

    async def main() -> Any:
        limiter = make(1, FairShare())
        use = limiter.hold if isinstance(limiter, PlaceLimiter) else partial(acquired, limiter)
        made: list[Any] = []

        async def call(key: Any, comes: float) -> None:
            await trio.sleep(comes)
            try:
                async with use(key=key):
                    made.append(key)
                    await trio.sleep(1)
            except (RuntimeError, TypeError):
                failed.append(key)

        failed: list[Any] = []
        async with trio.open_nursery() as nursery:
            for number, key in enumerate(["first", *keys, "last"] * 2):
                nursery.start_soon(call, key, number * comes)
        return made, failed, told(limiter)

    made, failed, left = run_virtual(main)

    assert left == (0, 0)
    assert [each for each in made if isinstance(each, str)].count("last") == 2
    assert [each for each in made if isinstance(each, str)].count("first") == 2
    assert len(made) + len(failed) >= 2 * (len(keys) + 2)


def test_a_key_that_one_of_two_limits_cannot_use_waits_at_neither() -> None:
    async def main() -> Any:
        one, two = (RateLimiter(RateLimit(1, burst=1), FairShare()) for _ in range(2))
        step = Step(at_work).rate_limit(one, key=lambda _: "plain").rate_limit(two, key=lambda item: item).start()
        keys = [Unlike(), Unlike(), Unlike()]
        failed: list[Any] = []

        async def call(key: Any) -> None:
            try:
                await step(key)
            except RuntimeError:
                failed.append(key)

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(call, key)
        return len(failed), told(one), told(two), [key.waiting for key in one.statistics().keys]

    failed, *left, waiting = run_virtual(main)

    assert failed > 0
    assert left == [(0, 0), (0, 0)]
    assert waiting == [0]


class acquired:  # used as a function is
    """A block that begins when tokens were acquired."""

    def __init__(self, limiter: RateLimiter, key: Any) -> None:
        self.limiter, self.key = limiter, key

    async def __aenter__(self) -> None:
        await self.limiter.acquire(key=self.key)

    async def __aexit__(self, *_error: object) -> None:
        await trio.lowlevel.checkpoint()


def test_groups_of_groups_share_like_the_keys_around_them() -> None:
    """Three levels, with the same names at each, and a key called like a group: the calls of 60 s, by weight."""

    async def main() -> Any:
        limiter = RateLimiter(RateLimit(12, burst=1), FairShare({("a", "a"): 2, ("a", "a", "b"): 3}))
        inner = limiter.group("a", 3).group("a")
        members = {
            "key": (limiter, "a"),  # beside the group "a": a member of its own, of the same weight
            "in it": (limiter.group("a"), "x"),
            "deep a": (inner, "a"),
            "deep b": (inner, "b"),
        }
        counts = dict.fromkeys(members, 0)

        async def use(name: str) -> None:
            group, key = members[name]
            while True:
                await group.acquire(key=key)
                counts[name] += 1

        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                for name in members:
                    nursery.start_soon(use, name)
                    nursery.start_soon(use, name)
        return counts

    counts = run_virtual(main)

    # The key and the group halve it; in the group "x" has 1 of 3, the inner group 2, of which "b" has 3 of 4.
    wanted = {"key": 360, "in it": 120, "deep a": 60, "deep b": 180}
    assert all(abs(counts[name] - wanted[name]) <= 3 for name in counts), counts


def test_a_key_that_is_to_be_awaited_is_refused() -> None:
    """It would be another key for each call: a limit for each key would limit nothing, and shares would not count."""
    tokens, places = RateLimiter(RateLimit(1, burst=9), FairShare()), PlaceLimiter(1, FairShare())

    async def key(item: Any) -> Any:
        return item

    async def main() -> None:
        for step in (
            Step(at_work).rate_limit(tokens, key=lambda item: key(item)),
            Step(at_work).rate_limit(tokens, RateLimit(1), key=lambda item: key(item)),
            Step(at_work).places(places, key=lambda item: key(item)),
            Step(at_work).rate_limit(RateLimit(1), per_key=lambda item: key(item)),
        ):
            with pytest.raises(MisuseError, match=r"^'the key of a limit' is not async, but"):
                await step(1)
        assert tokens.statistics().acquired == 0
        assert told(places) == (0, 0)

    run_virtual(main)


# ---- settlements

STRANGE = [None, -1, 0.5, "1", True, [], Fraction(-1, 2), float("nan"), object()]


@pytest.mark.parametrize("really", STRANGE, ids=lambda value: type(value).__name__)
def test_a_settlement_that_is_refused_settles_nothing_anywhere(really: Any) -> None:
    """The call fails with that error; its places are free, and the limit before it keeps what it took."""

    async def main() -> Any:
        one, two = (RateLimiter(RateLimit(1, burst=9), FairShare()) for _ in range(2))
        places = PlaceLimiter(1)
        step = Step(at_work).rate_limit(one, two, cost=lambda item: 4, settle=[lambda item: 1, lambda item: really])
        with pytest.raises(
            (TypeError, ValueError), match=r"^Step\.rate_limit: settle must be an int or Fraction >= 0, not"
        ):
            await step.places(places)(1)
        return [each.statistics().acquired_cost for each in (one, two)], told(places)

    assert run_virtual(main) == ([4, 4], (0, 0))


def test_a_rolling_limit_counts_whole_starts_also_in_a_settlement() -> None:
    """A part of a start is refused there as it is where a cost is said."""

    async def main() -> None:
        step = Step(at_work).rate_limit(RollingLimit(3), settle=lambda item: Fraction(1, 2))
        await step(1)

    with pytest.raises(ValueError, match=r"^Step\.rate_limit: settle must be a whole number under a RollingLimit"):
        run_virtual(main)


@pytest.mark.parametrize("share", [None, FairShare()], ids=["limiter", "key"])
@pytest.mark.parametrize("really", [0, Fraction(0), 1, Fraction(1, 3), 5, 40])
def test_a_debt_is_kept_from_one_run_to_the_next(really: Any, share: Any) -> None:
    """Each run has its own clock; what is owed is an amount, and paid at the rate of the limiter."""
    limiter = RateLimiter(RateLimit(1, burst=5), share)
    step = Step(at_work).rate_limit(limiter, key=str, cost=lambda item: 2, settle=lambda item: really)

    async def once() -> float:
        began = trio.current_time()
        await step(1)
        return trio.current_time() - began

    waits = [run_virtual(once) - 1 for _ in range(4)]

    # A call of 1 s that costs 2 at first: 5 + 1 a second, less what all calls before it have really cost.
    level, expected = Fraction(5), []
    for _ in range(4):
        wait = max(Fraction(0), 2 - level)
        level = min(Fraction(5), min(Fraction(5), level + wait) - 2 + 1)  # 1 s of work
        level = min(Fraction(5), level + 2 - really)
        expected.append(float(wait))
    assert waits == pytest.approx(expected, abs=1e-6)


# ---- memory


@pytest.mark.parametrize("what", ["tokens", "places"])
def test_keys_that_came_and_went_are_forgotten(what: str) -> None:
    """Of two thousand more that waited no object is left for each, once all have come that are remembered: here 100."""

    async def main() -> tuple[int, int]:
        if what == "tokens":
            limiter: Any = RateLimiter(RateLimit(10**6, burst=1), FairShare())
            use: Any = partial(acquired, limiter)
        else:
            limiter = PlaceLimiter(1, FairShare())
            use = limiter.hold
        shared_of(limiter).waits = KeyWaits(remembered=100)

        async def come(first: int, many: int) -> int:
            for start in range(first, first + many, 100):
                async with trio.open_nursery() as nursery:
                    for number in range(start, start + 100):
                        nursery.start_soon(once, number)
            gc.collect()
            return len(gc.get_objects())

        async def once(number: int) -> None:
            async with use(key=f"tenant {number}"):
                pass

        before = await come(0, 1_000)
        return before, await come(1_000, 2_000)

    before, after = run_virtual(main)
    assert after - before < 1_000


# ---- copies


def test_a_plan_with_shared_limits_can_be_pickled() -> None:
    """As a plan without: its copy has limiters of its own, shared as before, with the weights of now."""
    tokens, places = RateLimiter(RateLimit(4, burst=1), FairShare({"a": 2})), PlaceLimiter(1, FairShare())
    tokens.group("g", 3).set_weight("x", 5)
    tokens.set_weight("b", 7)
    line = Pipeline.from_iterable(["a", "b"] * 3)
    step = Step(at_work).rate_limit(tokens, key=str).places(places.group("p"), key=str)
    plan = line.map(step, concurrency=4).map(Step(at_work).rate_limit(tokens.group("g"), key=str))

    other = pickle.loads(pickle.dumps(plan))

    assert run_virtual(other.collect) == ["a", "b"] * 3
    assert run_virtual(plan.collect) == ["a", "b"] * 3
    assert other.describe("json") == plan.describe("json")
    (one, _), (two, _) = [limits_around(operation.fn.plan.parts[0]) for operation in other._plan.operations]
    assert shared_of(one[-1].limiter) is shared_of(two[-1].limiter) is not shared_of(tokens)
    top, group = branch_of(one[-1].limiter), branch_of(two[-1].limiter)
    assert top is not None
    assert group is not None
    assert [top.weight(key) for key in ("a", "b", "g", "c")] == [2, 7, 3, 1]
    assert [group.weight(key) for key in "xy"] == [5, 1]
    assert top.group("g") is group
