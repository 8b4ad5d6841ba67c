"""The kit, piece by piece: what each says when all is well, and what when it is not."""

import itertools
import pydoc
import subprocess
import sys
import time
from fractions import Fraction

import pytest
import trio
import trio.testing
from trio._core import _run as trio_run

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import (
    CampaignError,
    Consume,
    Fail,
    Lab,
    Probe,
    Scenario,
    Script,
    assert_fair,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    interrupt_everywhere,
    missing_private_names,
    run_virtual,
    service_lag,
)
from funcpipe_trio.testing._schedule import Choices, Schedule, scheduled

EVERY_POINT = [cancel_everywhere, drain_everywhere, fail_everywhere, interrupt_everywhere]


# ---- run_virtual


def test_virtual_time_starts_at_zero_and_takes_none():
    """A year passes at once, and the next run starts at 0 again."""

    async def main(seconds, word):
        start = trio.current_time()
        await trio.sleep(seconds)
        return start, trio.current_time(), word

    before = time.perf_counter()

    assert run_virtual(main, 3e7, "a") == (0, 3e7, "a")
    assert run_virtual(main, 1, "b") == (0, 1, "b")
    assert time.perf_counter() - before < 5


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, ExceptionGroup])
def test_what_a_function_raises_passes_unchanged(kind):
    error = ExceptionGroup("mine", [ValueError()]) if kind is ExceptionGroup else kind("mine")

    async def main():
        raise error

    with pytest.raises(kind) as met:
        run_virtual(main)
    assert met.value is error


def test_a_deadlock_names_the_tasks_and_where_they_wait():
    """Each task under the one that holds its nursery, with the user's own line."""

    async def wait_for_the_other(event):
        await event.wait()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_other, trio.Event(), name="left")
            nursery.start_soon(wait_for_the_other, trio.Event(), name="right")

    with pytest.raises(AssertionError) as met:
        run_virtual(main)

    lines = str(met.value).splitlines()
    assert lines[0] == "run_virtual: not done after 10**9 virtual seconds; these tasks wait:"
    waiting = [line for line in lines if "wait_for_the_other, line " in line]
    assert sorted(line.split(":")[0].strip() for line in waiting) == ["left", "right"]


# ---- Script


def play(script, **how):
    async def main():
        async with Probe(Pipeline.from_async_iterable(script)) as probe:
            await probe.take(**how)
            return probe.log

    return run_virtual(main)


def test_a_script_as_text():
    """Each character is a step; a bracket is one instant."""
    script = Script("a-(bc)--d|", step=0.5)

    assert script.timeline[:4] == ((0.0, "a"), (1.0, "b"), (1.0, "c"), (2.5, "d"))
    assert play(script, count=4) == [(0.0, "a"), (1.0, "b"), (1.0, "c"), (2.5, "d")]


def test_a_script_as_pairs():
    """Times are seconds from the start of the run; a failure is raised as it is."""
    error = LookupError("gone")
    script = Script([(0.25, None), (1.5, "y"), (2, Fail(error))])

    async def main():
        await trio.sleep(100)
        async with Probe(Pipeline.from_async_iterable(script)) as probe:
            await probe.expect(None, at=0.25)
            await probe.expect("y", at=1.5)
            assert await probe.expect_error(LookupError) is error

    run_virtual(main)


def test_a_script_in_text_fails_and_ends_in_time():
    async def main():
        async with Probe(Pipeline.from_async_iterable(Script("a-#"))) as probe:
            await probe.expect("a", at=0)
            assert "scripted failure" in str(await probe.expect_error(RuntimeError))
            assert trio.current_time() == 2
        async with Probe(Pipeline.from_async_iterable(Script("a---|"))) as probe:
            await probe.expect("a")
            await probe.expect_end(at=4)

    run_virtual(main)


def test_a_late_item_comes_at_once():
    """Asking late does not shift what comes after."""

    async def main():
        script = aiter(Script("ab-c|"))
        await trio.sleep(0.5)
        got = [(await anext(script), trio.current_time())]
        await trio.sleep(1.5)
        got += [(await anext(script), trio.current_time()) for _ in range(2)]
        await script.aclose()
        return got

    assert run_virtual(main) == [("a", 0.5), ("b", 2.0), ("c", 3.5)]


def test_a_script_says_what_was_asked():
    """Only as many items as there is room for, and one more at most."""
    script = Script("abcdefgh|")

    async def main():
        async with Probe(Pipeline.from_async_iterable(script).buffer(2)) as probe:
            await trio.sleep(100)
            assert (script.asked, script.opened, script.closed) == (2, 1, 0)
            await probe.expect("a", "b", "c")

    run_virtual(main)

    assert (script.opened, script.closed) == (1, 1)


def test_a_script_says_that_it_was_cancelled_and_why():
    """While it was asked; a script that was left between two items was closed, not cancelled."""
    script = Script("a---------b|")

    async def main():
        async with Probe(Pipeline.from_async_iterable(script)) as probe:
            await probe.expect("a")
            assert not script.cancelled
            await trio.sleep(1)
        assert script.cancelled
        with trio.CancelScope() as scope:
            async with aclosing_probe(script) as probe:
                await probe.expect("a")
                await trio.sleep(1)
                scope.cancel(reason="enough of it")
                await trio.sleep(1)

    def aclosing_probe(source):
        return Probe(Pipeline.from_async_iterable(source))

    run_virtual(main)

    assert script.cancelled
    assert script.cancel_reason is None or "enough of it" in script.cancel_reason


def test_a_script_is_reused_over_runs():
    """Each run starts the timeline anew; what was asked is the last run's, openings are counted."""
    script = Script("a-b|")
    pipeline = Pipeline.from_async_iterable(script)

    assert [run_virtual(pipeline.collect) for _ in range(3)] == [["a", "b"]] * 3
    assert (script.opened, script.closed, script.asked, script.cancelled) == (3, 3, 3, False)


@pytest.mark.parametrize(
    ("timeline", "how", "kind", "message"),
    [
        ("a!b", {}, ValueError, "Script: timeline must be letters, digits, '-', '(..)', '#', '|', not '!'"),
        ("a(b-c)", {}, ValueError, "Script: timeline must be letters, digits, '-', '(..)', '#', '|', not '-'"),
        ("a)b", {}, ValueError, "Script: timeline must be letters, digits, '-', '(..)', '#', '|', not ')'"),
        ("a(bc", {}, ValueError, "Script: timeline must close its '(', not 'a(bc'"),
        ([(1, "a"), (0.5, "b")], {}, ValueError, "Script: timeline must not go backwards in time"),
        (["ab"], {}, TypeError, "Script: timeline must be text, or (time, item) pairs, not a str of length 2"),
        (3, {}, TypeError, "Script: timeline must be text, or (time, item) pairs, not 3"),
        ([("1", "a")], {}, TypeError, "Script: time must be a number of seconds >= 0, not a str of length 1"),
        ([(-1, "a")], {}, ValueError, "Script: time must be a number of seconds >= 0, finite, not -1"),
        ("ab", {"step": 0}, ValueError, "Script: step must be a number of seconds > 0, finite, not 0"),
    ],
)
def test_a_bad_timeline_is_refused(timeline, how, kind, message):
    with pytest.raises(kind) as met:
        Script(timeline, **how)
    assert str(met.value) == message


# ---- Probe


async def expect_wrong_item(probe):
    await probe.expect("a", "x")


async def expect_wrong_time(probe):
    await probe.expect("a", "b", at=1)


async def expect_item_at_end(probe):
    await probe.expect("a", "b", "c")


async def expect_nothing_but_item(probe):
    await probe.expect("a")
    await probe.expect_nothing(2.5)


async def expect_nothing_but_end(probe):
    await probe.expect("a", "b")
    await probe.expect_nothing(2)


async def expect_end_but_item(probe):
    await probe.expect("a")
    await probe.expect_end()


async def expect_end_at_wrong_time(probe):
    await probe.expect("a", "b")
    await probe.expect_end(at=2)


async def expect_error_but_item(probe):
    await probe.expect("a")
    await probe.expect_error(ValueError)


async def expect_error_but_end(probe):
    await probe.expect("a", "b")
    await probe.expect_error(ValueError)


BOTH = "log:\n         0 s  'a'\n         2 s  'b'\n"


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        (expect_wrong_item, "expected 'x', not 'b'\n" + BOTH + "now: 2 s"),
        (expect_wrong_time, "expected 'b' at 1 s, not at 2 s\n" + BOTH + "now: 2 s"),
        (expect_item_at_end, "expected 'c', but the stream ended\n" + BOTH + "now: 3 s"),
        (expect_nothing_but_item, "expected nothing for 2.5 s, but an item arrived\n" + BOTH + "now: 2 s"),
        (expect_nothing_but_end, "expected nothing for 2 s, but the stream ended\n" + BOTH + "now: 3 s"),
        (expect_end_but_item, "expected the end, but an item arrived\n" + BOTH + "now: 2 s"),
        (expect_end_at_wrong_time, "expected the end at 2 s, not at 3 s\n" + BOTH + "now: 3 s"),
        (expect_error_but_item, "expected ValueError, but an item arrived\n" + BOTH + "now: 2 s"),
        (expect_error_but_end, "expected ValueError, but the stream ended\n" + BOTH + "now: 3 s"),
    ],
)
def test_a_failed_expectation_shows_the_whole_log(expect, message):
    """With times from the opening on, whenever that was."""

    async def main():
        await trio.sleep(7)
        async with Probe(Pipeline.from_async_iterable(Script("a-b|"))) as probe:
            await expect(probe)

    with pytest.raises(AssertionError) as met:
        run_virtual(main)
    assert str(met.value) == message


def test_expectations_that_hold():
    async def main():
        async with Probe(Pipeline.from_async_iterable(Script("a--b#"))) as probe:
            await probe.expect("a", at=0)
            await probe.expect_nothing(2.5)
            await probe.expect("b", at=3)
            await probe.expect_error(RuntimeError)
        assert probe.log == [(0, "a"), (3, "b")]
        assert probe.items == ["a", "b"]
        async with Probe(Pipeline.from_iterable([1, 2, 3])) as probe:
            assert await probe.take(2) == [1, 2]
        assert probe.run.report.outcome == "left"
        assert probe.discarded == [(3, "iterable", "not needed")]

    run_virtual(main)


def test_an_empty_log_says_so():
    async def main():
        async with Probe(Pipeline.from_iterable([])) as probe:
            await probe.expect("a")

    with pytest.raises(
        AssertionError, match=r"^expected 'a', but the stream ended\nlog:\n  \(nothing arrived\)\nnow: 0 s$"
    ):
        run_virtual(main)


# ---- fairness


def test_service_lag_by_hand():
    """a a b: a is 2 ahead, over the weights 2 and 1 that is 1; then b comes level, and passes by 1."""
    assert service_lag("aab", {"a": 1, "b": 1}) == {("a", "b"): 2}
    assert service_lag("aabb", {"a": 2, "b": 1}) == {("a", "b"): 2}  # +1/2 +1/2 -1 -1: from 1 down to -1
    assert service_lag("abab", {"a": 1, "b": 1}) == {("a", "b"): 1}
    assert service_lag("abc", {"a": 1, "b": Fraction(1, 3), "c": 2}) == {
        ("a", "b"): 3,
        ("a", "c"): 1,
        ("b", "c"): 3,
    }


def test_service_lag_with_costs():
    """What counts is the cost over the weight: 5/5 against 3/1."""
    lag = service_lag("abb", {"a": 5, "b": 1}, costs=[5, 3, Fraction(1, 2)])

    assert lag == {("a", "b"): Fraction(7, 2)}


def test_service_lag_counts_only_while_both_have_items():
    """An interval ends where one of them has none, and the next begins level."""
    alone, both = {"a"}, {"a", "b"}

    assert service_lag("aaaa", {"a": 1, "b": 1}, [alone] * 4) == {("a", "b"): 0}
    assert service_lag("aaaabaa", {"a": 1, "b": 1}, [both, alone, alone, both, both, alone, both]) == {("a", "b"): 1}
    assert service_lag("aaaabaa", {"a": 1, "b": 1}) == {("a", "b"): 5}


def test_assert_fair_holds_the_bound_of_each_pair():
    """cost_f/weight_f + cost_m/weight_m, with the greatest costs that were served."""
    assert_fair("aabb", {"a": 1, "b": 1})
    assert_fair("aaab" * 5, {"a": 3, "b": 1})
    assert_fair("abbbb", {"a": 1, "b": 1}, costs=[3, 1, 1, 1, 1])
    assert_fair("aaaa", {"a": 1, "b": 1}, [{"a"}] * 4)
    with pytest.raises(AssertionError, match=r"^inputs 'a' and 'b': lag 3 is above the bound 2$"):
        assert_fair("aaab", {"a": 1, "b": 1})
    with pytest.raises(AssertionError, match=r"^inputs 'a' and 'c': lag 1\.5 is above the bound 1$"):
        assert_fair("aaacbc", {"a": 2, "b": 1, "c": 2})


# ---- schedules


def test_every_order_of_three_tasks_is_gone_through_once():
    """3! orders of a single batch; each seen once."""
    orders = []
    choices = []
    while choices is not None:
        schedule = Choices(choices)
        order = list("abc")
        schedule.shuffle(order)
        orders.append("".join(order))
        choices = schedule.following()

    assert sorted(orders) == ["".join(order) for order in itertools.permutations("abc")]


def tiny():
    return Pipeline.from_iterable(range(2)).buffer(1)


def test_exhaustive_orders_are_distinct_and_counted():
    """As many schedules as runs; seeds find no other."""
    campaign = explore_schedules(tiny, exhaustive=True)

    assert campaign.schedules == campaign.runs > 1
    assert explore_schedules(tiny, seeds=range(60)).schedules == campaign.schedules
    assert explore_schedules(tiny, exhaustive=True, most=2).runs == 2


def test_a_seed_gives_the_same_order_again():
    async def main():
        log = []

        async def note(number):
            for _ in range(3):
                log.append(number)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(note, number)
        return log

    def run(seed):
        with scheduled(Schedule(seed)) as schedule:
            return tuple(trio.run(main)), schedule.digest

    assert [run(seed) for seed in range(20)] == [run(seed) for seed in range(20)]
    assert len({run(seed)[0] for seed in range(20)}) == len({run(seed)[1] for seed in range(20)}) > 15


async def race(run, lab):
    """A consumer with its own race: which of its two tasks is first?"""
    log = []

    async def note(name):
        log.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "a")
        nursery.start_soon(note, "b")
    async for _item in run:
        lab.delivered += 1
    assert log == ["a", "b"]


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_schedule_that_fails_is_replayed(exhaustive):
    """The pair in the message is all it takes; other orders pass."""
    scenario = Scenario(tiny, race, name="race")

    with pytest.raises(CampaignError) as met:
        explore_schedules(scenario, exhaustive=exhaustive)
    message = str(met.value)
    runs, seed = int(message.split("after ")[1].split()[0]), int(message.split("only=(")[1].split(",")[0])
    again = f"only=({seed}, 0), exhaustive=True)" if exhaustive else f"only=({seed}, 0))"

    assert message.endswith(f"To reproduce it: explore_schedules(race, {again}")
    assert isinstance(met.value.__cause__, AssertionError)
    for _ in range(3):
        with pytest.raises(CampaignError, match=r"^explore_schedules of race, after 0 good runs: raised Assertion"):
            explore_schedules(scenario, exhaustive=exhaustive, only=(seed, 0))
    for good in range(runs):
        assert explore_schedules(scenario, exhaustive=exhaustive, only=(good, 0)).runs == 1


def test_this_trio_has_the_private_names():
    """If this fails, a release of trio took away what the message names: see `task_order.py`."""
    assert missing_private_names() == []


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", "trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING"),
        (trio_run, "_r", "trio._core._run._r"),
    ],
)
def test_a_private_name_that_vanished_is_named(owner, name, told, monkeypatch):
    monkeypatch.delattr(owner, name)

    assert missing_private_names() == [told]
    with pytest.raises(RuntimeError, match=rf"^this version of trio lacks {told}: its schedules cannot be chosen$"):
        explore_schedules(tiny)


def test_the_schedule_of_others_comes_back():
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    explore_schedules(tiny, seeds=[1])

    assert (trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING) == before


# ---- campaigns


@pytest.mark.parametrize("campaign", [*EVERY_POINT, explore_schedules])
def test_a_function_that_makes_a_pipeline_is_a_scenario(campaign):
    """Its name is the scenario's; what the campaign did is summed up in a line."""
    done = campaign(tiny, seeds=range(2))

    assert done == campaign(Scenario(tiny, name="tiny"), seeds=range(2))
    assert str(done).startswith(f"{campaign.__name__} of tiny: {done.runs} runs, {done.schedules} schedules")


@pytest.mark.parametrize("campaign", EVERY_POINT)
def test_every_skips_points_and_seeds_add_up(campaign):
    all_points = campaign(tiny).runs

    assert campaign(tiny, every=2).runs in (all_points // 2, all_points // 2 + 1)
    assert campaign(tiny, seeds=(0, 0)).runs == 2 * all_points
    assert campaign(tiny, only=(0, 2)).runs == 1


@pytest.mark.parametrize("campaign", EVERY_POINT)
def test_every_is_checked(campaign):
    with pytest.raises(ValueError, match=rf"^{campaign.__name__}: every must be >= 1, not 0$"):
        campaign(tiny, every=0)
    with pytest.raises(TypeError, match=rf"^{campaign.__name__}: every must be an int >= 1, not 1\.5$"):
        campaign(tiny, every=1.5)


@pytest.mark.parametrize("campaign", [*EVERY_POINT, explore_schedules])
@pytest.mark.parametrize(("subject", "told"), [(tiny(), "a Pipeline"), (None, "None"), ("tiny", "a str of length 4")])
def test_what_is_no_scenario_is_refused(campaign, subject, told):
    """A pipeline, above all: each run needs a fresh one."""
    name = campaign.__name__
    with pytest.raises(TypeError) as met:
        campaign(subject)

    rule = f"{name}: scenario must be a function that makes the pipeline, or a Scenario, not {told}"
    assert str(met.value) == f"{rule}\nUse {name}(lambda: pipeline): each run gets a fresh one."


async def make_async():
    """Make nothing."""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"make": tiny()}, "make must be a function that makes the pipeline, not a Pipeline"),
        ({"make": None}, "make must be callable, not None"),
        ({"make": make_async}, "make must be a sync function, not the async function make_async"),
        ({"make": tiny, "consume": 3}, "consume must be callable, not 3"),
        ({"make": tiny, "name": 3}, "name must be a str, not 3"),
    ],
)
def test_a_scenario_checks_itself(arguments, told):
    with pytest.raises(TypeError) as met:
        Scenario(**arguments)
    assert str(met.value).startswith(f"Scenario: {told}")


def test_what_makes_no_pipeline_is_told():
    with pytest.raises(CampaignError, match=r"raised TypeError\('dict must return a pipeline, not a dict'\)"):
        explore_schedules(dict)


class Sharp:
    """A consumer that is no function."""

    async def __call__(self, run, lab):
        raise LookupError


async def never_content(run, lab):
    raise LookupError


@pytest.mark.parametrize(
    ("scenario", "again"),
    [
        (Scenario(tiny, never_content), ": explore_schedules(Scenario(tiny, never_content), only=(0, 0))"),
        (Scenario(tiny, never_content, "mine"), ": explore_schedules(mine, only=(0, 0))"),
        (Scenario(tiny, never_content, "two words"), ", add to the arguments of explore_schedules: only=(0, 0)"),
        (Scenario(lambda: tiny(), never_content), ", add to the arguments of explore_schedules: only=(0, 0)"),
        (Scenario(tiny, Sharp()), ", add to the arguments of explore_schedules: only=(0, 0)"),
    ],
)
def test_the_line_to_see_it_again_can_be_pasted(scenario, again):
    """Where the names tell; else it says what to add."""
    with pytest.raises(CampaignError) as met:
        explore_schedules(scenario)
    assert str(met.value).splitlines()[-1] == f"To reproduce it{again}"


@pytest.mark.parametrize(
    ("documented", "words"),
    [
        (Scenario, ["make:", "consume:", "name:", "lab.delivered"]),
        (Lab, ["delivered:", "produced:", "calls:", "discarded:", "injected:"]),
        (Consume, ["consume(run, lab)", "lab.delivered += 1"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_help_tells_what_a_scenario_is_made_of(documented, words):
    told = pydoc.plain(pydoc.render_doc(documented))

    assert [word for word in words if word not in told] == []


def test_a_deadlock_in_a_campaign_is_reported():
    """Not as a hang: with the tasks, and where they wait."""

    async def never(item):
        await trio.sleep_forever()

    with pytest.raises(CampaignError, match=r"(?s)deadlock: every task waits for another\n.*never, line \d+"):
        explore_schedules(lambda: Pipeline.from_iterable([1]).map(never))


def test_a_livelock_in_a_campaign_is_reported(monkeypatch):
    """Tasks run and run, and no time passes."""
    monkeypatch.setattr("funcpipe_trio.testing._trial.LIVELOCK", 2000)

    async def spin(item):
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(CampaignError, match=r"livelock: 2000 steps and no time has passed"):
        explore_schedules(lambda: Pipeline.from_iterable([1]).map(spin))


def test_an_error_of_the_scenario_is_reported_as_it_is():
    def broken():
        raise LookupError("no such thing")

    with pytest.raises(CampaignError, match=r"raised LookupError\('no such thing'\)") as met:
        cancel_everywhere(broken)
    assert isinstance(met.value.__cause__, LookupError)


def test_a_consumer_that_counts_wrong_is_reported():
    async def forgetful(run, lab):
        async for _item in run:
            pass

    with pytest.raises(CampaignError, match=r"delivered: 0, the report says: 2"):
        explore_schedules(Scenario(tiny, forgetful))


def test_channels_and_producers_fail_at_each_item():
    """Whatever hands items over is user code that may fail."""

    async def produce(channel):
        async with channel:
            for number in range(4):
                await channel.send(number)

    def channel():
        send, receive = trio.open_memory_channel(4)
        with send:
            for number in range(4):
                send.send_nowait(number)
        return Pipeline.from_channel(receive)

    assert fail_everywhere(lambda: Pipeline.from_producer(produce)).runs == 1 + 4 + 1
    assert fail_everywhere(channel).runs > 4
    assert cancel_everywhere(channel).runs > 4


def test_a_script_of_no_pytest():
    """Everything works from a plain script."""
    code = """
from funcpipe_trio import Pipeline
from funcpipe_trio.testing import *
import funcpipe_trio.testing as kit

async def main():
    async with kit.Probe(Pipeline.from_async_iterable(kit.Script("a-b|"))) as probe:
        await probe.expect("a", "b", at=2)
        await probe.expect_end()

kit.run_virtual(main)
pipeline = Pipeline.from_iterable(range(3)).buffer(1)
for name in ("cancel", "drain", "fail", "interrupt"):
    print(getattr(kit, name + "_everywhere")(lambda: pipeline))
print(kit.explore_schedules(lambda: pipeline, seeds=range(3)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert [line.split(" of ")[0] for line in done.stdout.splitlines()] == [
        "cancel_everywhere",
        "drain_everywhere",
        "fail_everywhere",
        "interrupt_everywhere",
        "explore_schedules",
    ]


def test_a_thread_that_is_still_lent_is_seen():
    """A run that ends while a thread of trio's pool works for it has left something behind."""

    async def borrow(run, lab):
        trio.to_thread.current_default_thread_limiter().acquire_on_behalf_of_nowait(borrow)
        async for _ in run:
            lab.delivered += 1

    with pytest.raises(CampaignError, match=r"after 0 good runs: 1 threads are still lent\n"):
        explore_schedules(Scenario(lambda: Pipeline.from_iterable([1]), borrow, name="lent"), seeds=range(1))


def test_a_replay_that_shows_nothing_says_so():
    """The run is another one by now; else it would look as if the fault were gone."""
    for campaign in (cancel_everywhere, fail_everywhere, drain_everywhere):
        with pytest.raises(ValueError, match=r"only=\(0, 100000\): the run now ends before that point"):
            campaign(lambda: Pipeline.from_iterable(range(3)).map(str), only=(0, 100_000))
        for wrong in (3, (0,), ("a", 1), [0, 1]):
            with pytest.raises(TypeError, match=r"only must be a \(seed, point\) of two ints"):
                campaign(lambda: Pipeline.from_iterable(range(3)), only=wrong)


def test_run_virtual_takes_a_function():
    """As `trio.run` does."""
    plan = Pipeline.from_iterable(range(3))
    for wrong in (plan, plan.collect(), None):
        with pytest.raises(TypeError, match=r"^run_virtual: async_fn must be an async function, not "):
            run_virtual(wrong)
