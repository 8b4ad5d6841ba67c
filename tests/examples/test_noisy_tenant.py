"""The example of the noisy tenant: its plan in virtual time, against scripted arrivals; then all of it, real.

In virtual time every wait is exact. Mutants of the plan that die here: one queue for all; a full queue that blocks; a
refusal that waits its turn; workers behind a link in which lines were chosen long before. In the real runs no clock is
asked: not one line depends on how fast this machine is.
"""

import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import Script, run_virtual

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "noisy_tenant.py"


@pytest.fixture(scope="module")
def example(load):
    return load("noisy_tenant")


def waits(example, arrivals, *, is_fair, weights=None):
    """Let jobs arrive at their times; give the waits of each tenant, and how many were refused."""
    service = example.Service()
    jobs = [(at, example.Job(tenant, "hello", at)) for at, tenant in sorted(arrivals)]
    source = Pipeline.from_async_iterable(Script(jobs))

    async def main():
        return await example.plan(source, service.work, weights or {}, is_fair=is_fair).run()

    report = run_virtual(main)
    assert all(job.is_answered.is_set() for _, job in jobs)
    assert report.failed == sum(job.answer.startswith("429") for _, job in jobs)
    return {name: account.waits for name, account in service.accounts.items()}, report.failed


FLOOD = [(number / 1024, "noisy") for number in range(1024)]  # five times what the workers can do
SMALL = [(number / 8 + 1 / 256, "small") for number in range(1, 8)]


def test_in_one_queue_all_wait_behind_the_noisy_tenant(example):
    waited, refused = waits(example, FLOOD + SMALL, is_fair=False)

    assert max(waited["small"]) > 3
    assert refused == 0


def test_with_a_queue_for_each_the_others_wait_for_a_worker(example):
    """No longer than one line takes; the noisy tenant's lines wait no longer than its queue is long."""
    waited, refused = waits(example, FLOOD + SMALL, is_fair=True)

    assert len(waited["small"]) == len(SMALL)
    assert max(waited["small"]) <= example.WORK
    assert max(waited["noisy"]) <= (example.ROOM + 3) * example.WORK / example.WORKERS
    assert refused + len(waited["noisy"]) == len(FLOOD)
    assert refused > len(FLOOD) / 2


def test_weights_decide_between_two_that_are_noisy(example):
    """Three lines to one, while both want more than there is; what waits at the end is served in any case."""
    other = [(at, "other") for at, _ in FLOOD]
    waited, _ = waits(example, FLOOD + other, is_fair=True, weights={"other": 3})

    assert 2.8 < (len(waited["other"]) - example.ROOM) / (len(waited["noisy"]) - example.ROOM) < 3.2


def test_a_refusal_is_an_answer(example):
    """A job that its tenant's queue has no room for is answered at once."""
    jobs = [example.Job("noisy", f"{number}", 0) for number in range(30)]
    answered = []

    async def main():
        async def watch(job):
            await job.is_answered.wait()
            answered.append((trio.current_time(), job.answer))

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(watch, job)
            await example.plan(Pipeline.from_iterable(jobs), example.Service().work, {}, is_fair=True).run()

    run_virtual(main)
    refused = [at for at, answer in answered if answer == "429 too many requests"]
    assert len(refused) == len(jobs) - example.ROOM - example.WORKERS
    assert set(refused) == {0}


def test_lines_are_cut_where_they_end(example):
    """However the bytes come: two lines in one chunk, one line in two; the rest without an end is none."""

    async def main():
        send, receive = trio.testing.memory_stream_one_way_pair()
        for chunk in (b"a b\nc", b" d\n", b"\n\xff e\nrest"):
            await send.send_all(chunk)
        await send.aclose()
        return [line async for line in example.lines(receive)]

    assert run_virtual(main) == ["a b", "c d", "", "\ufffd e"]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nb d\n"])
def test_a_line_that_is_too_long_is_the_last(example, end):
    """However it comes, and whatever comes behind it; one as long as may be is a line."""

    async def main(longest, chunks):
        send, receive = trio.testing.memory_stream_one_way_pair()
        taken = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sent, send, [b"a b\n", *chunks])
            async for line in example.lines(receive):
                taken.append(line)
            nursery.cancel_scope.cancel()
        return [line if len(line) < 9 else len(line) for line in taken] == longest

    async def sent(send, chunks):
        for chunk in chunks:
            await send.send_all(chunk)
        await send.aclose()

    long = b"x" * example.LONGEST
    assert run_virtual(main, ["a b", example.LONGEST], [long + b"\n"])
    assert run_virtual(main, ["a b"], [long + b"x" + end])
    assert run_virtual(main, ["a b"], [b"x" * 100] * 100 + [end])


def test_who_sends_a_line_without_end_is_hung_up_on(example):
    """Nothing of it is kept, and the others are served."""

    async def main():
        intake = example.Intake([])
        send, receive = trio.open_memory_channel(9)
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake._talk, send, far)
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(20):
                    await near.send_all(b"x" * 100)
            return await near.receive_some(), receive.statistics().current_buffer_used

    assert run_virtual(main) == (b"", 0)


def test_names_of_tenants_are_shown_as_a_terminal_can_show_them(example):
    """They come over the net."""
    shown = example.table({"\x1b]0;x\x07": example.Account(done=1), "a\nb": example.Account()})

    assert [row.split()[0] for row in shown.splitlines()] == ["tenant", "\\x1b]0;x\\x07", "a\\nb"]


def test_both_ways_run_for_real():
    """Every line of every tenant is answered; the plan, the report and a table are shown for each way."""
    command = [sys.executable, SCRIPT, "--seconds", "0.3", "--noisy", "20", "--weight", "small=1/3"]

    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")
    plain, fair = done.stdout.split("fair: a queue for each tenant; the way to it is first come, first served\n")
    assert plain.startswith("plain: one queue for all\npipeline: 2 stages")
    assert "  | fair by tenant: shares by weight ('small' 1/3, others 1), up to 100 keys of 16 items," in fair
    for shown in (plain, fair):
        taken, delivered, failed = map(
            int, re.search(r"; of (\d+) taken: (\d+) delivered, (\d+) failed", shown).groups()
        )
        rows = re.findall(r"^(noisy|small|tiny) +([\d,]+) +([\d,]+) +[\d.]+ ms +[\d.]+ ms$", shown, re.M)
        assert [name for name, *_ in rows] == ["noisy", "small", "tiny"]
        answers = [[int(number.replace(",", "")) for number in numbers] for _, *numbers in rows]
        assert (sum(done for done, _ in answers), sum(refused for _, refused in answers)) == (delivered, failed)
        assert taken == delivered + failed
        assert not (shown is plain and failed)
        assert [refused for _, refused in answers[1:]] == [0, 0]


def test_interrupt_ends_it_in_a_line(start):
    """And what was done is shown."""
    process = start("noisy_tenant", "--seconds", "100")
    for line in process.stdout:
        if line == "consumer\n":
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert re.fullmatch(r"noisy_tenant: interrupted: [\d,]+ lines answered\n", err)
    assert "tenant      answered" in out


WEIGHT = "must be TENANT=WEIGHT, an int or a fraction above 0 such as 1/3,"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "argument --seconds: must be above 0, not '0'"),
        (["--seconds", "nan"], "argument --seconds: must be above 0, not 'nan'"),
        (["--seconds", "long"], "argument --seconds: invalid positive value: 'long'"),
        (["--noisy", "0"], "argument --noisy: must be 1 to 500, not '0'"),
        (["--noisy", "501"], "argument --noisy: must be 1 to 500, not '501'"),
        *(
            (["--weight", weight], f"argument --weight: {WEIGHT} not {weight!r}")
            for weight in (
                "small",
                "=1",
                "small=0",
                "small=-1",
                "small=1/0",
                "small=0.5",
                "small=much",
                "small=1e99999999",
            )
        ),
        (["--way", "other"], "argument --way: invalid choice: 'other'"),
    ],
)
def test_bad_input_is_refused(example, capsys, arguments, message):
    with pytest.raises(SystemExit, match=r"^2$"):
        example.main(arguments)

    assert message in capsys.readouterr().err


def test_weights_are_exact(example):
    assert example.weight_of("a=1/3") == ("a", Fraction(1, 3))
