"""The example that embeds texts: its plan in virtual time, against a scripted service; then all of it, real.

In virtual time every instant is exact, and each test fails if the policy it is about is taken out of the plan, or put
at another place in it: a rate limit outside of the retry (a retry costs no token), a timeout outside of the rate limit
(waiting for a turn times out), a breaker that counts "too many calls", an upsert that adds twice, shares counted in
batches of any size. In the real runs no clock is asked: not one line depends on how fast this machine is.
"""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from array import array
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from funcpipe_trio import Backoff, Pipeline, RateLimit, Recorder, Recording, Retry, simulate
from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio.testing import (
    assert_fair,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    interrupt_everywhere,
    run_virtual,
)

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "embed_tenants.py"
FAULTY = 308  # a seed whose first eight calls meet each fault once


@pytest.fixture(scope="module")
def service(load):
    return load("flaky_service")


@pytest.fixture(scope="module")
def example(load, service):
    return load("embed_tenants")


# ---- the plan, in virtual time


@dataclass
class FakeService:
    """Each call takes `takes` seconds; what a call of the script does instead is an error, or other seconds."""

    unfit: type[Exception]
    script: dict[int, Exception | float] = field(default_factory=dict)
    takes: float = 0.25
    calls: list[tuple[float, list[str]]] = field(default_factory=list)

    async def embed(self, texts):
        self.calls.append((trio.current_time(), list(texts)))
        event = self.script.get(len(self.calls), self.takes)
        await trio.sleep(event if isinstance(event, float) else self.takes)
        if isinstance(event, Exception):
            raise event
        return [self.unfit("poison") if "poison" in text else [float(len(text))] for text in texts]

    @property
    def starts(self):
        return [start for start, _ in self.calls]


class FakeStore:
    def __init__(self):
        self.rows = {}
        self.dead = {}
        self.batches = []

    def lacks(self, text):
        return text not in self.rows and text not in self.dead

    async def upsert(self, rows):
        await trio.lowlevel.checkpoint()
        new = {text: vector for text, vector in rows if text not in self.rows}
        self.rows |= new
        self.batches.append((trio.current_time(), len(rows)))
        return len(new)

    async def bury(self, failure):
        await trio.lowlevel.checkpoint()
        self.dead[failure.item[0]] = str(failure.error)


WIDE = RateLimit(1000, burst=100)


@dataclass
class World:
    """The plan with the fakes around it."""

    example: object
    fake: FakeService
    store: FakeStore
    limit: RateLimit = WIDE

    def tenant(self, name, texts, weight=1):
        return self.example.Tenant(name, Pipeline.from_iterable(texts, name=name), weight)

    def plan(self, *tenants):
        return self.example.plan(tenants, self.fake, self.store, self.limit)

    def run(self, *tenants):
        return run_virtual(self.plan(*tenants).run)


@pytest.fixture
def world(example):
    return World(example, FakeService(example.Unfit), FakeStore())


def named(name, count):
    return [f"{name} {number}" for number in range(count)]


PLAN = """\
pipeline: 11 stages, items in flight: at most 2623
input 0:
  source folder of acme: iterable
    | link of 16
  stage list acme: async flat_map files, 1 at a time
      call files on up to 2 threads, left behind when cancelled
    | link of 16
  stage read acme: async flat_map texts, 1 at a time -> map clean -> filter bool -> map Text -> filter lacks -> batch of 10 items
      call texts on up to 2 threads, left behind when cancelled
    | link of 16
  stage embed acme: async map embed, 4 at a time, as completed -> unbatch
      call embed_batch
        timeout of 1 s
        rate limit of 1000 in 1 s, burst 100, shared by tenant_of
        4 places, shared, at one instant with the one above
        circuit breaker: opens after 4 failures in a row (is_outage), probes after 0.5 s, calls wait meanwhile
        retry: up to 8 attempts on Unavailable or TooSlowError, waits 0.1 s x 2 up to 10 s +-10%, or what asked_wait says
        timeout of 60 s
    | link of 16
input 1:
  source folder of bolt: iterable
    | link of 16
  stage list bolt: async flat_map files, 1 at a time
      call files on up to 2 threads, left behind when cancelled
    | link of 16
  stage read bolt: async flat_map texts, 1 at a time -> map clean -> filter bool -> map Text -> filter lacks -> batch of 10 items
      call texts on up to 2 threads, left behind when cancelled
    | link of 16
  stage embed bolt: async map embed, 4 at a time, as completed -> unbatch
      call embed_batch
        timeout of 1 s
        rate limit of 1000 in 1 s, burst 100, shared by tenant_of
        4 places, shared, at one instant with the one above
        circuit breaker: opens after 4 failures in a row (is_outage), probes after 0.5 s, calls wait meanwhile
        retry: up to 8 attempts on Unavailable or TooSlowError, waits 0.1 s x 2 up to 10 s +-10%, or what asked_wait says
        timeout of 60 s
    | link of 16
merge: equal shares of what is handed over (start-time fair queueing)
stage accept: async map accept, 1 at a time, in order
    on error: divert to bury
  | link of 16
stage collect: batch of 100 items or 0.5 s after its first item
  | link of 1
stage upsert: async map upsert, 1 at a time, in order
  | link of 16 (of an open run; run(), collect() and the like need none)
consumer"""  # noqa: E501


def test_plan_reads_as_expected(world):
    """The plan shows every stage, link, weight, policy and limit."""
    acme, bolt = (world.example.texts_in(name, Path(name)) for name in ("acme", "bolt"))
    tenants = [world.example.Tenant("acme", acme, 3), world.example.Tenant("bolt", bolt, Fraction(1, 2))]

    assert world.example.plan(tenants, world.fake, world.store, world.limit).describe() == PLAN


def test_calls_start_as_fast_as_the_limit_allows_and_no_faster(world):
    """Two at once, then one each 1/8 s; an attempt after a failure is a call like any other."""
    world.limit = RateLimit(8, burst=2)
    world.fake.script = {number: world.example.Busy("busy", 0.25) for number in (3, 4, 11)}

    world.run(world.tenant("acme", named("acme", 170)))

    assert world.fake.starts == [0, 0, *(number / 8 for number in range(1, 19))]


def test_bound_holds_in_every_window(world):
    """Whatever fails, waits and comes back: in each window [s, t] at most burst + rate * (t - s) calls start."""
    world.limit, world.fake.takes = RateLimit(10, burst=3), 0.125
    errors = [world.example.Unavailable("down"), world.example.Busy("busy", 1.0), 3.0]
    world.fake.script = {number: errors[number % 3] for number in range(1, 60) if number % 7 in (0, 2, 3)}
    world.fake.script |= dict.fromkeys(range(20, 33), world.example.Unavailable("down"))  # the circuit opens

    world.run(*(world.tenant(name, named(name, 200)) for name in "abc"))

    starts = list(map(Fraction, world.fake.starts))
    assert len(starts) > 80
    assert all(
        last - first + 1 <= 3 + 10 * (starts[last] - starts[first])
        for last in range(len(starts))
        for first in range(last)
    )


def test_wait_that_the_service_asks_for_is_kept_exactly(world):
    """A 429 with Retry-After is tried again so many seconds later, each time."""
    world.fake.script = {1: world.example.Busy("busy", 3.0), 2: world.example.Busy("busy", 0.0)}

    world.run(world.tenant("acme", ["a"]))

    assert world.fake.starts == [0, 3.25, 3.5]


def test_waits_are_the_backoff_where_the_service_asks_for_none(world):
    world.fake.script = {1: world.example.Busy("busy"), 2: world.example.Unavailable("down")}

    world.run(world.tenant("acme", ["a"]))

    first, second = (backoff_delay(Backoff(0.1), 0, attempt, stage="embed acme") for attempt in (1, 2))
    assert world.fake.starts == [0, 0.25 + first, 0.25 + first + 0.25 + second]


def test_slow_call_is_given_up_and_made_again(world):
    """A call has 1 s, and then another attempt; the report counts it."""
    world.fake.script = {1: 5.0}

    report = world.run(world.tenant("acme", ["a"]))

    assert world.fake.starts == [0, 1 + backoff_delay(Backoff(0.1), 0, 1, stage="embed acme")]
    assert [stage.policies.timeouts for stage in report.stages if stage.name == "embed acme"] == [1]
    assert len(world.store.rows) == 1


def test_waiting_for_its_turn_is_no_part_of_a_calls_time(world):
    """With a call each 4 s, calls wait longer than the second that each of them has, and none times out."""
    world.limit = RateLimit(1, per=4)

    report = world.run(world.tenant("acme", named("acme", 40)))

    assert world.fake.starts == [0, 4, 8, 12]
    assert [stage.policies.timeouts for stage in report.stages if stage.name == "embed acme"] == [0]


def test_circuit_opens_after_four_failures_and_closes_after_a_probe(world):
    """While it is open nothing is called; one probe finds out, then all that waited continues."""
    world.fake.script = {number: world.example.Unavailable("down") for number in (1, 2, 3, 4, 5)}

    report = world.run(world.tenant("acme", named("acme", 40)))

    # Open from 0.25 on, a probe at 0.75 that fails at 1.0, another at 1.5 that succeeds at 1.75.
    assert world.fake.starts == [0, 0, 0, 0, 0.75, 1.5, 1.75, 1.75, 1.75]
    assert len(world.store.rows) == 40
    assert [stage.policies.refused for stage in report.stages if stage.name == "embed acme"] == [0]


def test_service_that_asks_to_wait_opens_no_circuit(world):
    """However many calls are too many: each waits as long as it was asked to, and no longer."""
    world.fake.script = {number: world.example.Busy("busy", 0.25) for number in range(1, 9)}

    world.run(world.tenant("acme", named("acme", 40)))

    assert world.fake.starts == [0] * 4 + [0.5] * 4 + [1.0] * 4


def test_service_that_stays_away_ends_the_run(world):
    """After eight attempts its own error is raised; what was embedded before is stored."""
    down = [world.example.Unavailable(f"down {number}") for number in range(9)]
    world.fake.script = {number + 5: down[number] for number in range(9)}

    with pytest.raises(world.example.Unavailable) as raised:
        world.run(world.tenant("acme", named("acme", 50)))

    assert raised.value is down[7]
    assert raised.value.__notes__[-1] == "in stage 'embed acme', item 4, attempt 8 of 8"
    assert sorted(text.content for text in world.store.rows) == sorted(named("acme", 40))


def test_dead_letters_are_the_texts_that_cannot_be_embedded(world):
    """They and no others, with the reason; what is in the same batch is stored."""
    texts = {name: [*named(name, 25), f"poison {name}", *named(f"{name}'s", 9)] for name in ("acme", "bolt")}

    report = world.run(*(world.tenant(name, texts[name]) for name in texts))

    Text = world.example.Text
    assert world.store.dead == {Text(name, f"poison {name}"): "poison" for name in texts}
    assert world.store.rows == {
        Text(name, text): [float(len(text))] for name in texts for text in texts[name] if "poison" not in text
    }
    assert (report.failed, report.outcome) == (2, "completed")


def test_every_text_is_stored_once_and_clean(world):
    """Texts that differ in white space only are one; blank ones are none; each tenant has its own."""
    items = run_virtual(
        world.plan(
            world.tenant("acme", ["one two", " one\n\ttwo ", "", " \n ", "three"]), world.tenant("bolt", ["three"])
        ).collect
    )

    assert sum(items) == 3
    assert sorted((text.tenant, text.content) for text in world.store.rows) == [
        ("acme", "one two"),
        ("acme", "three"),
        ("bolt", "three"),
    ]


def test_second_run_calls_nobody(world):
    """What has a vector, or can have none, is not sent again."""
    tenants = [world.tenant("acme", [*named("acme", 25), "poison"]), world.tenant("bolt", named("bolt", 7))]
    world.run(*tenants)
    before = list(world.fake.calls), dict(world.store.rows), dict(world.store.dead)

    report = world.run(*tenants)

    assert (world.fake.calls, world.store.rows, world.store.dead) == before
    assert (report.delivered, report.dropped) == (0, 33)


def test_tenants_share_the_service_by_weight(world):
    """While all wait, three calls for texts of the first start for one of each of the others: at the limit itself."""
    world.limit = RateLimit(8, burst=2)
    weights = {"acme": 3, "bolt": 1, "cozy": 1}

    report = world.run(*(world.tenant(name, named(name, 300), weight) for name, weight in weights.items()))

    calls = [texts[0].split()[0] for _, texts in world.fake.calls[5:45]]  # from when all wait until the first is done
    assert Counter(calls) == {"acme": 24, "bolt": 8, "cozy": 8}
    assert_fair(calls, weights)
    waited = {wait.key: wait.waited for stage in report.stages if stage.policies for wait in stage.policies.limits}
    for other in ("bolt", "cozy"):  # some half, by who happened to be first
        assert 3 * waited["acme"] < 2 * waited[other]


def test_no_more_calls_run_at_once_than_before_however_many_tenants_there_are(world):
    """Four, of all of them together: the contract counts on it."""
    world.fake.takes = 0.5

    world.run(*(world.tenant(name, named(name, 100)) for name in ("acme", "bolt", "cozy")))

    assert Counter(world.fake.starts) == {**dict.fromkeys([at / 2 for at in range(7)], 4), 3.5: 2}


def test_vectors_are_written_half_a_second_after_the_first_of_them(world):
    """A call each 3/8 s: what has come half a second after a first vector is one transaction, then the rest."""
    world.limit = RateLimit(1, per=0.375)

    world.run(world.tenant("acme", named("acme", 45)))

    assert world.store.batches == [(0.75, 20), (1.5, 20), (1.75, 5)]


def test_vectors_are_written_by_hundreds(world):
    """Four calls at a time, an eighth of a second each: the third four fill a hundred, and the rest is the end."""
    world.fake.takes = 0.125

    world.run(world.tenant("acme", named("acme", 120)))

    assert world.store.batches == [(0.375, 100), (0.375, 20)]


# ---- the plan, disturbed everywhere

TEXTS = {"acme": [*named("acme", 23), "poison a"], "bolt": ["poison b", *named("bolt", 12)]}


class Trials:
    """A small instance of the plan that has every trouble, made afresh for each trial; keeps the stores."""

    def __init__(self, example):
        self.example = example
        self.stores = []

    def make(self, store=None):
        world = World(self.example, FakeService(self.example.Unfit, self.script()), store or FakeStore())
        world.limit = RateLimit(8, burst=2)
        self.stores.append(world.store)
        return world.plan(*(world.tenant(name, TEXTS[name], weight) for name, weight in (("acme", 3), ("bolt", 1))))

    def script(self):
        down = [self.example.Unavailable("down") for _ in range(4)]
        return {1: self.example.Busy("busy", 1.0), 2: 3.0, **dict(enumerate(down, 4))}  # the third is well

    def content(self, store):
        return {(text.tenant, text.content) for text in store.rows}, {text.content for text in store.dead}


@pytest.fixture
def trials(example):
    return Trials(example)


WHOLE = (
    {(name, text) for name, texts in TEXTS.items() for text in texts if "poison" not in text},
    {"poison a", "poison b"},
)


def test_any_order_of_tasks_gives_the_same_store(trials):
    """Under every schedule that is tried, each text ends where it belongs."""
    explore_schedules(trials.make, seeds=range(40))

    assert [trials.content(store) for store in trials.stores] == [WHOLE] * 40


def test_run_that_was_cut_anywhere_is_completed_by_the_next(trials):
    """Wherever the cancellation falls, what is stored is right, and a second run brings the store to the same end."""
    campaign = cancel_everywhere(trials.make)
    cut = list(trials.stores)
    sizes = {len(store.rows) for store in cut}
    for store in cut:
        run_virtual(trials.make(store).run)

    assert len(cut) == campaign.runs > 50
    assert len(sizes) > 2
    assert [trials.content(store) for store in cut] == [WHOLE] * len(cut)


def test_drained_run_loses_nothing_that_was_taken(trials):
    """Wherever the drain falls, each text is stored, a dead letter, or was not taken."""
    drain_everywhere(trials.make, every=5)


def test_interrupted_run_raises_only_that(trials):
    """Ctrl-C at any step arrives once, in no group."""
    interrupt_everywhere(trials.make, every=5)


def test_failing_anywhere_loses_nothing_silently(trials):
    """Whichever call of the plan's own code fails: it is raised, or dealt with by a policy that says so."""
    fail_everywhere(trials.make, every=3)


# ---- the real thing


@pytest.fixture
def calm(example, service, monkeypatch):
    """Let the service be well and allow more, so that a run takes no time."""
    monkeypatch.setattr(service, "mood_of", lambda seed, number: "well")
    monkeypatch.setattr(service, "CONTRACT", 10_000)
    monkeypatch.setattr(example, "CONTRACT", 10_000)
    monkeypatch.setattr(example, "LIMIT", RateLimit(5_000, burst=100))


def make_folder(folder, count):
    """Make a file with so many texts, no two alike."""
    folder.mkdir()
    (folder / "texts.txt").write_text("\n\n".join(named(folder.name, count)))
    return folder


def lines_with(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def content(db):
    """All that is in the database, after a check that it is sound."""
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        vectors = connection.execute("SELECT tenant, text, vector FROM embedding ORDER BY tenant, text").fetchall()
        dead = connection.execute("SELECT tenant, text, reason FROM dead_letter ORDER BY tenant, text").fetchall()
    return [(tenant, text, list(array("f", vector))) for tenant, text, vector in vectors], dead


def row(service, tenant, text):
    return tenant, text, service.embedded(text)["vector"]


def test_texts_of_folders_are_embedded(run, service, calm, tmp_path):
    """Paragraphs of text files and docstrings of modules, in folders below too; what is too long is a dead letter."""
    notes, code = tmp_path / "notes", tmp_path / "code"
    (notes / "old").mkdir(parents=True)
    code.mkdir()
    (notes / "a.txt").write_text("one\nline\n \n\n\ntwo\n\none line")
    (notes / "old" / "b.md").write_text("\ufeff" + "x" * 2001 + "\n\nthree")
    (notes / "empty.rst").write_text("")
    (notes / "picture.png").write_text("no text")
    (code / "c.py").write_text('"""Of the module."""\ndef f():\n    """Of f."""\n\ndef g(): pass')
    (code / "d.py").write_text("this is no Python")
    (code / "gone.py").symlink_to("nowhere")
    (code / "loop").symlink_to(code)

    status, out, err = run("acme=notes:3", "bolt=code")

    assert (status, err) == (0, "")
    assert content("out.db") == (
        [
            row(service, "acme", "one line"),
            row(service, "acme", "three"),
            row(service, "acme", "two"),
            row(service, "bolt", "Of f."),
            row(service, "bolt", "Of the module."),
        ],
        [("acme", "x" * 2001, "longer than 2000 characters")],
    )
    assert out.splitlines()[-3:] == [
        f"vectors: 5 new, 5 in {tmp_path}/out.db",
        "dead letters: 1 new, 1 in all",
        "calls: the service counted 2, at most 2 in a second; it allows 10000",
    ]


def test_plan_and_report_are_printed(run, calm, tmp_path):
    """First the plan, then what became of it."""
    make_folder(tmp_path / "notes", 35)

    _status, out, _err = run("acme=notes:1/2")

    assert out.startswith("pipeline: 7 stages, items in flight: at most ")
    assert [line.split()[:4] for line in lines_with(out, "embed acme  ")] == [["embed", "acme", "4", "35"]]


def test_second_run_adds_nothing(run, calm, tmp_path):
    """What is stored, or is a dead letter, is not sent again; what is new is."""
    folder = make_folder(tmp_path / "notes", 25)
    (folder / "long.txt").write_text("x" * 3000)
    run("acme=notes")
    before = content("out.db")

    status, out, err = run("acme=notes")

    assert (status, err) == (0, "")
    assert out.splitlines()[-3:] == [
        f"vectors: 0 new, 25 in {tmp_path}/out.db",
        "dead letters: 0 new, 1 in all",
        "calls: the service counted 0, at most 0 in a second; it allows 10000",
    ]
    assert content("out.db") == before
    (folder / "new.txt").write_text("new")
    assert lines_with(run("acme=notes")[1], "vectors: ") == [f"vectors: 1 new, 26 in {tmp_path}/out.db"]


def test_faults_of_the_service_cost_nothing_but_time(service, tmp_path):
    """As a program of its own, against a service that is busy, broken and slow: all is stored, within its contract."""
    make_folder(tmp_path / "notes", 55)
    make_folder(tmp_path / "mail", 25)
    assert (
        sorted(service.mood_of(FAULTY, number) for number in range(1, 9)) == ["broken", "busy", "slow"] + ["well"] * 5
    )
    command = [sys.executable, SCRIPT, "acme=notes:3", "bolt=mail", "--seed", str(FAULTY)]

    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    (counted,) = lines_with(done.stdout, "calls: ")
    calls, most, allowed = map(int, re.findall(r"\d+", counted))
    assert done.returncode == 0
    assert re.search(r"^embed (acme|bolt): \d+ retr(y|ies), ", done.stdout, re.MULTILINE)
    assert calls >= 9 + 3
    assert most <= allowed == service.CONTRACT
    assert content(tmp_path / "funcpipe_vectors.sqlite3") == (
        sorted(
            [row(service, "acme", text) for text in named("notes", 55)]
            + [row(service, "bolt", text) for text in named("mail", 25)]
        ),
        [],
    )


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait"),
    [
        (429, {"Retry-After": "7"}, "Busy", 7.0),
        (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, "Busy", 0.0),
        (429, {"Retry-After": "soon"}, "Busy", None),
        (429, {}, "Busy", None),
        (500, {}, "Unavailable", None),
        (503, {"Retry-After": "7"}, "Unavailable", None),
    ],
)
async def test_answers_that_ask_for_another_try(example, status, headers, error, wait):
    """A 429 says how long to wait, if it does; what is broken is tried again as the plan says."""
    answers = httpx.MockTransport(lambda request: httpx.Response(status, headers=headers))
    async with httpx.AsyncClient(transport=answers, base_url="http://service") as client:
        with pytest.raises(example.Unavailable) as raised:
            await example.HttpService(client).embed(["a"])

    assert type(raised.value).__name__ == error
    assert example.asked_wait(raised.value) == wait


async def test_no_connection_asks_for_another_try_and_a_refusal_does_not(example):
    def refuse(request):
        raise httpx.ConnectError("nobody there")

    for transport, error in (
        (httpx.MockTransport(refuse), example.Unavailable),
        (httpx.MockTransport(lambda request: httpx.Response(401)), httpx.HTTPStatusError),
    ):
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            with pytest.raises(error):
                await example.HttpService(client).embed(["a"])


def test_limit_leaves_room_for_what_is_under_way(example, service):
    """Calls that start in a second, and those that started before and arrive in it, are within the contract."""
    assert example.LIMIT.burst + example.LIMIT.rate * example.LIMIT.per + example.CONCURRENCY <= service.CONTRACT


def test_service_counts_exactly(service, monkeypatch):
    """The call that is one too many in a second is refused, and counted; a second later there is room again."""
    now = 100.0
    monkeypatch.setattr(service.time, "monotonic", lambda: now)
    monkeypatch.setattr(service, "mood_of", lambda seed, number: "well")
    with service.serving(0) as server, client_of(server) as client:
        first = [client.post("/embed", json=["a"]) for _ in range(21)]
        now = 100.9375
        second = client.post("/embed", json=["a"])
        now = 101.0
        third = client.post("/embed", json=["a"])

    assert [answer.status_code for answer in first] == [200] * 20 + [429]
    assert (first[-1].headers["Retry-After"], second.status_code, third.status_code) == ("1", 429, 200)
    assert (server.calls, server.most) == (23, 22)


def test_moods_depend_on_the_seed_and_the_number_alone(service):
    moods = [service.mood_of(1, number) for number in range(1, 200)]

    assert moods == [service.mood_of(1, number) for number in range(1, 200)]
    assert moods != [service.mood_of(2, number) for number in range(1, 200)]
    assert set(moods) == {"well", "busy", "broken", "slow"}


def client_of(server):
    return httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("mood", "problem"),
    [("broken", "500 Internal Server Error"), ("busy", "429 Too Many Requests")],
)
def test_service_that_gives_no_answer_ends_the_run_in_a_line(
    run, example, service, monkeypatch, tmp_path, mood, problem
):
    monkeypatch.setattr(service, "mood_of", lambda seed, number: mood)
    monkeypatch.setattr(example, "Retry", lambda attempts, **rest: Retry(1, **rest))
    make_folder(tmp_path / "notes", 5)

    status, out, err = run("acme=notes")

    assert status == 1
    assert err == f"embed_tenants: the service does not answer: {problem}; the same command embeds the rest\n"
    assert lines_with(out, "vectors: ") == [f"vectors: 0 new, 0 in {tmp_path}/out.db"]


def test_failing_write_is_one_line_and_leaves_whole_transactions(run, calm, service, tmp_path):
    make_folder(tmp_path / "notes", 5)
    run("acme=notes")
    before = content("out.db")
    with closing(sqlite3.connect("out.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON embedding WHEN new.text = 'mail 7'"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    make_folder(tmp_path / "mail", 15)

    status, out, err = run("bolt=mail")

    assert status == 1
    assert err == f"embed_tenants: writing {tmp_path}/out.db failed: no room\n"
    assert lines_with(out, "vectors: ") == [f"vectors: 0 new, 5 in {tmp_path}/out.db"]
    assert content("out.db") == before


def test_the_service_says_nothing_of_a_client_that_goes_away_within_its_request(service, capfd):
    """As one does that is interrupted."""
    with service.serving(0) as server:
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n[")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
        assert server.calls == 0

    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to another process")
def test_interrupted_run_is_completed_by_the_next(run, start, calm, service, tmp_path):
    """Ctrl-C leaves a sound database and says how far it came; the next run makes it whole."""
    make_folder(tmp_path / "notes", 3000)
    process = start("embed_tenants", "acme=notes", "--db", "out.db")
    for line in process.stderr:
        if re.search(r" [1-9][0-9]* vectors stored", line):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    there = len(content("out.db")[0])
    assert process.returncode == 130
    assert 0 < there < 3000
    assert err.splitlines()[-1] == (
        f"embed_tenants: interrupted: {there:,} vectors stored, 0 dead letters; the same command embeds the rest"
    )
    assert lines_with(out, "vectors: ") == [f"vectors: {there:,} new, {there:,} in {tmp_path}/out.db"]
    assert run("acme=notes")[0] == 0
    assert content("out.db") == (sorted(row(service, "acme", text) for text in named("notes", 3000)), [])


# ---- the command line


FORM = "a tenant must be given as NAME=FOLDER or NAME=FOLDER:WEIGHT, not"
WEIGHT = "the weight of here must be an int or a fraction above 0, such as 3 or 1/3, not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here"], f"{FORM} 'here'"),
        (["=here"], f"{FORM} '=here'"),
        ([" =here"], f"{FORM} ' =here'"),
        (["a="], f"{FORM} 'a='"),
        ([""], f"{FORM} ''"),
        (["a=here", "b=missing"], "missing does not exist"),
        (["a=missing:2"], "missing does not exist"),
        (["a=file"], "file is not a folder"),
        (["a=:2"], "a folder must come before ':2'"),
        (["a=" + "x" * 300], f"cannot use {'x' * 300}: File name too long"),
        (["a=here:0"], f"{WEIGHT} '0'"),
        (["a=here:-1"], f"{WEIGHT} '-1'"),
        (["a=here:1.5"], f"{WEIGHT} '1.5'"),
        (["a=here:1/0"], f"{WEIGHT} '1/0'"),
        (["a=here:much"], f"{WEIGHT} 'much'"),
        (["a=here:"], f"{WEIGHT} ''"),
        (["a=here", "a=.:2"], "the tenant a is given twice"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(run, tmp_path, arguments, message):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()

    assert run(*arguments) == (2, "", f"embed_tenants: {message}\n")
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["a=no\x1b[2J\nfolder"],
        ["a\x1b[2J=here", "a\x1b[2J=here"],
        ["a=" + "x\x1b[2J" * 100],
        ["a=here\x1b[2J:much"],
        ["\x1b[2J"],
    ],
)
def test_complaints_are_one_line_whatever_the_argument_holds(run, tmp_path, arguments):
    (tmp_path / "here").mkdir()

    status, out, err = run(*arguments)

    assert (status, out) == (2, "")
    assert err.endswith("\n") and err[:-1].isprintable()
    assert "\\x1b[2J" in err


def test_names_of_tenants_are_shown_as_a_terminal_can_show_them(run, calm, tmp_path):
    """In the plan and in the report."""
    folder = make_folder(tmp_path / "fol\x1b[2Jder", 3)

    status, out, err = run(f"a\x1b]0;x\x07={folder}")

    assert (status, (out + err).replace("\n", "").isprintable()) == (0, True)
    assert "a\\x1b]0;x\\x07" in out


def test_unknown_option_is_refused(run, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        run("--seed", "much")

    assert capsys.readouterr().err.endswith("error: argument --seed: invalid int value: 'much'\n")


@pytest.mark.parametrize(
    ("argument", "folder", "weight"),
    [
        ("a", "a", 1),
        ("a:3", "a", 3),
        ("a:1/3", "a", Fraction(1, 3)),
        ("b:2", "b:2", 1),
        ("b:2:5", "b:2", 5),
        ("~/a:2", "~/a", 2),
    ],
)
def test_folder_and_weight(example, tmp_path, monkeypatch, argument, folder, weight):
    """A suffix is a weight, unless the whole is a folder; `~` is the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b:2"):
        Path(name).mkdir()

    assert example.folder_and_weight(argument) == (Path(folder.replace("~", str(tmp_path))), weight)


@pytest.mark.parametrize(
    ("db", "problem"),
    [
        ("missing/out.db", "unable to open database file"),
        ("here", "unable to open database file"),
        ("text", "file is not a database"),
        ("other.db", "it belongs to another program"),
    ],
)
def test_bad_database_is_one_line_and_stays_as_it_is(run, tmp_path, db, problem):
    (tmp_path / "here").mkdir()
    (tmp_path / "text").write_text("no database, but a text that is longer than the header of one" * 10)
    with closing(sqlite3.connect("other.db")) as connection:
        connection.execute("CREATE TABLE embedding (key)")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    assert run("a=here", db=db) == (2, "", f"embed_tenants: cannot use {tmp_path}/{db} as the database: {problem}\n")
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_samples_without_tenants(example):
    """Without arguments there are three tenants, of weights 3, 1 and 1, with docstrings of the standard library."""
    tenants = example.tenants_of(example.samples())
    folders = [Path(argument.partition("=")[2].rpartition(":")[0]) for argument in example.samples()]

    assert [(tenant.name, tenant.weight) for tenant in tenants] == [("acme", 3), ("bolt", 1), ("cozy", 1)]
    assert all(sum(map(len, map(example.texts, example.files(folder)))) > 100 for folder in folders)


# ---- what if


@pytest.mark.parametrize("changes", [(4, 14), (8, 14), (8, 20), (2, 40)], ids=str)
def test_a_recorded_run_says_what_other_settings_would_do(example, monkeypatch, changes):
    """The same plan, run with those settings against the same service, takes as long: within 2 %."""
    concurrency, rate = changes

    def plan(concurrency=4, rate=14):
        monkeypatch.setattr(example, "CONCURRENCY", concurrency)
        by_texts = {"acme": named("acme", 400), "bolt": named("bolt", 200)}
        fake = FakeService(example.Unfit, takes=0.25)
        fake.embed = slow_by_text(fake)
        world = World(example, fake, FakeStore(), RateLimit(rate, burst=2))
        return world.plan(*(world.tenant(name, texts) for name, texts in by_texts.items()))

    recorder = Recorder()
    run_virtual(partial(plan().run, record=recorder))

    shared = {"rate_limit.rate": rate, "places": concurrency}
    changed = {"embed acme": {"concurrency": concurrency, **shared}, "embed bolt": {"concurrency": concurrency}}
    said = simulate(plan(), recorder.recording, changed)

    truth = run_virtual(plan(concurrency, rate).run)
    assert said.elapsed == pytest.approx(truth.elapsed, rel=0.02)
    assert said.delivered == pytest.approx(truth.delivered, abs=1)


def slow_by_text(fake):
    """Let each call take as long as its first text says."""

    async def embed(texts):
        await trio.sleep(0.1 + 0.05 * (int(texts[0].split()[1]) // 10 % 7))
        return [[float(len(text))] for text in texts]

    return embed


def test_the_recording_of_a_real_run_answers_the_command(run, calm, tmp_path, capsys):
    """Recorded by the option, and simulated by the name of its plan; without an option nothing is written."""
    make_folder(tmp_path / "acme", 45)
    status, _out, err = run("acme=acme", "--record", "run.jsonl")
    assert (status, err) == (0, "")

    recording = Recording.load(tmp_path / "run.jsonl")
    assert recording.outcome == "completed"
    assert "text" not in (tmp_path / "run.jsonl").read_text()

    status, _out, err = run("acme=acme", "--record", "not/there.jsonl")
    assert (status, err) == (1, "embed_tenants: cannot write not/there.jsonl: No such file or directory\n")


def test_the_plan_of_the_samples_can_be_shown_and_simulated(example):
    """It needs no service: nothing of it is called."""
    shown = example.sample_plan().describe()

    assert "rate limit of 14 in 1 s, burst 2, shared" in shown
    assert shown.count("input ") == 3
