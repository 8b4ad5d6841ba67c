"""A run in a terminal: what is drawn fits, and the terminal is left clean in every way to end.

Mutants that die here: a line wider than the terminal, or one too many; a row that is left out and not counted; a
background colour; a cursor that stays hidden; a code in plain lines; a watcher that ends the run, or outlives it.
"""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

import funcpipe_trio
from funcpipe_trio import Aborted, Pipeline, StateError, watch
from funcpipe_trio._watch import words
from funcpipe_trio._watch.drawing import ASCII, FANCY, bar, draw
from funcpipe_trio._watch.picture import picture
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, endless, every, in_virtual_time, nap
from tests.watch._plans import SECRET, hostile, large, small

ROOT = Path(__file__).parents[2]


async def pictures_of(plan):
    """Give pictures of a run: at its beginning, in the middle, and of its end."""

    async def consume(run):
        async for _ in run:
            await trio.lowlevel.checkpoint()

    async with plan.open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(consume, run)
        reports = [run.report]
        for _ in range(2):
            await trio.sleep(1.5)
            reports.append(run.report)
        nursery.cancel_scope.cancel()
    first, before, now = reports
    shown = [picture(first, None, "running"), picture(now, before, "draining")]
    return [*shown, picture(run.report, now, run.state.value)]


PICTURES = {make.__name__: run_virtual(partial(pictures_of, make())) for make in (small, large, hostile)}


def shown(name, width, height, place=1, signs=FANCY):
    return draw(PICTURES[name][place], width, height, signs)


# ---- what is drawn


@settings(deadline=None)
@given(st.sampled_from(sorted(PICTURES)), st.integers(1, 300), st.integers(0, 90), st.integers(0, 2), st.booleans())
@example("large", 80, 23, 1, False)
@example("hostile", 80, 23, 1, True)
def test_it_fits_into_any_terminal(name, width, height, place, is_ascii):
    lines = shown(name, width, height, place, ASCII if is_ascii else FANCY)

    assert len(lines) <= height
    assert all(cell_len(line.plain) <= width for line in lines)
    assert all(line.plain.isprintable() for line in lines)
    assert not is_ascii or all(line.plain.isascii() for line in lines)
    assert all(" on " not in f" {span.style} " for line in lines for span in line.spans)
    assert SECRET not in "".join(line.plain for line in lines)


def test_in_80_by_24_the_limit_is_marked_and_what_is_left_out_is_counted():
    lines = [line.plain for line in shown("large", 80, 23)]
    (limit,) = [stage.name for stage in PICTURES["large"][1].stages if stage.is_limit] or ["consumer"]
    stages = lines[lines.index(next(line for line in lines if line.startswith("stage "))) + 1 :]
    rows = stages[: next(place for place, line in enumerate(stages) if line.startswith("  …"))]
    more = int(stages[len(rows)].split()[1])

    assert lines[0].startswith("● draining  3s")
    assert f"limited by {limit}" in lines[0]
    assert len(rows) >= 10
    assert len(rows) + more == len(PICTURES["large"][1].rows())
    assert any(line.startswith("share of") for line in lines)
    assert 20 <= len(lines) <= 23


def test_a_large_terminal_shows_all():
    lines = [line.plain for line in shown("large", 200, 100)]

    assert not any("of less interest" in line or "nearer to" in line for line in lines)
    for stage in PICTURES["large"][1].stages:
        assert any(line[2:].startswith(f"{stage.name} ") for line in lines), stage.name
    assert any("world / eu" in line and "75%" in line for line in lines)


def test_the_rows_of_a_small_plan():
    lines = [line.plain for line in shown("small", 100, 40)]
    (title,) = [place for place, line in enumerate(lines) if line.startswith("stage ")]
    rows = lines[title + 1 : title + 6]

    assert " ".join(lines[title].split()) == "stage in/s out/s holds busy p50 p99 failed waits for link"
    assert [line[2:15].split("  ")[0] for line in rows] == ["big", "call big", "small", "call small", "batch"]
    assert [line[0] for line in rows].count("▶") == 1
    assert lines[2] == PICTURES["small"][1].advice[:100]
    assert lines[3].startswith("went on after ")
    assert "Busy in call big" in lines[3]


def test_a_wide_terminal_shows_how_long_inputs_waited():
    lines = [line.plain for line in shown("small", 120, 40)]

    assert any(line.endswith("out/s waiting longest wait") for line in lines)
    assert any("tenants / big" in line and line.endswith("s") for line in lines)


def test_what_is_full_and_what_fails_is_coloured_and_a_loss_is_counted():
    async def main():
        async with every(0.125, range(10**6)).buffer(4, overflow="drop_oldest").map(nap).open() as run:
            with trio.move_on_after(9):
                async for _ in run:
                    await trio.lowlevel.checkpoint()
            return picture(run.report, None, "running")

    lines = draw(run_virtual(main), 140, 30)
    (arrivals,) = [line for line in lines if line.plain.startswith("  arrivals")]

    assert arrivals.plain.split()[-1] == "4/4"
    assert "yellow" in {span.style for span in arrivals.spans}
    assert int(arrivals.plain.split()[7]) > 50


def test_names_are_shown_and_do_nothing():
    text = "\n".join(line.plain for line in shown("hostile", 400, 60))

    assert "</script><script>window.hacked = 1</script>" in text
    assert "\\u202e\\ud800\\n" in text


@given(st.floats(0, 1), st.integers(0, 60), st.one_of(st.none(), st.floats(0, 1)))
def test_a_bar_is_full_only_if_it_is(part, cells, due):
    drawn = bar(part, cells, ASCII)

    assert len(drawn) == len(bar(part, cells, ASCII, due)) == cells
    if cells > 1:
        assert (drawn == "#" * cells) == (part == 1)
        assert (drawn == "." * cells) == (part == 0)
        assert abs(drawn.count("#") - part * cells) <= 1


@given(st.floats(0, 1e20))
def test_numbers_are_short(number):
    assert len(words.count(number)) <= 6
    assert len(words.rate(number)) <= 6
    assert len(words.seconds(min(number, 1e8))) <= 7
    assert len(words.part(min(number, 1.0))) <= 4


def test_numbers():
    assert [words.count(each) for each in (0, 7, 9999, 10_000, 123_456, 2_500_000)] == [
        *("0", "7", "9999", "10k", "123k", "2.5M"),
    ]
    assert [words.rate(each) for each in (None, 0, 0.001, 0.25, 3.42, 64.2, 12_345)] == [
        *("-", "0", "<0.01", "0.25", "3.4", "64", "12.3k"),
    ]
    assert [words.seconds(each) for each in (None, 0, 2.5e-6, 0.0125, 0.9999, 1.25, 90, 150, 5400, 90_000)] == [
        *("-", "0s", "2us", "12.5ms", "1.0s", "1.2s", "90s", "2.5min", "1.5h", "1.0d"),
    ]


# ---- how it is watched


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def is_clean(text):
    """Whether the cursor was hidden, and is shown again, below the last picture."""
    end = text.rindex("\x1b[?25h")
    return text.rindex("\x1b[?25l") < end and text.endswith("\n\x1b[?25h")


def seconds(count):
    return every(1, range(count))


@in_virtual_time
async def test_it_ends_by_itself_with_a_last_picture():
    file = Terminal()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, seconds(5).map(nap).open() as run:
            nursery.start_soon(partial(watch, run, file=file))
            async for _ in run:
                pass

    assert is_clean(file.getvalue())
    assert "completed" in file.getvalue()
    assert "5 taken, 5 delivered" in file.getvalue()


@in_virtual_time
async def test_it_shows_a_run_that_is_over():
    file = io.StringIO()
    async with seconds(2).open() as run:
        pass
    await watch(run, file=file)

    assert file.getvalue() == "0.0 s: left; taken 0, delivered 0 (-/s), in flight 0\n"


@in_virtual_time
async def test_what_fails_is_told_by_its_type():
    async def fail(item):
        raise Boom(SECRET)

    file = Terminal()
    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery, seconds(2).map(fail).open() as run:
            nursery.start_soon(partial(watch, run, file=file, period=0.1))
            async for _ in run:
                pass

    assert is_clean(file.getvalue())
    assert "failed: Boom" in file.getvalue()
    assert SECRET not in file.getvalue()


@in_virtual_time
async def test_cancelled_it_leaves_the_run_and_a_clean_terminal():
    file = Terminal()
    async with seconds(9).open() as run:
        with trio.move_on_after(3.5) as scope:
            await watch(run, file=file)
        received = [item async for item in run]

    assert scope.cancelled_caught
    assert received == [*range(9)]
    assert is_clean(file.getvalue())


@in_virtual_time
async def test_cancelled_it_tells_how_far_the_run_is():
    file = io.StringIO()
    async with seconds(9).open() as run:
        with trio.move_on_after(3.5):
            await watch(run, file=file, period=1000)

    assert [line.partition(";")[0] for line in file.getvalue().splitlines()] == ["0.0 s: running", "3.5 s: running"]


@in_virtual_time
async def test_it_fits_into_the_terminal_and_is_not_cut_off():
    file = Terminal()
    console = {"COLUMNS": "80", "LINES": "24"}
    async with large().open() as run, trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in console.items():
                patch.setenv(name, value)
            nursery.start_soon(partial(watch, run, file=file))
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
    frames = file.getvalue().split("\r\x1b[2K")

    assert "of less interest" in frames[-1]
    assert not any(line.strip() == "..." for line in file.getvalue().splitlines())
    assert max(frame.count("\n") for frame in frames) <= 23


@in_virtual_time
async def test_ctrl_c_takes_effect_while_it_waits_not_while_it_draws(interrupts):
    class Interrupted(Terminal):
        drawn = 0

        def write(self, text):
            super().write(text)
            if "● running" in text and not self.drawn:
                signal.raise_signal(signal.SIGINT)
                self.drawn = 1
            return len(text)

    file = Interrupted()
    async with seconds(9).open() as run:
        with pytest.raises(KeyboardInterrupt):
            await watch(run, file=file)

    assert file.drawn
    assert is_clean(file.getvalue())


@in_virtual_time
async def test_a_drain_and_an_abort_are_seen_at_once():
    """Not only after the next period."""
    file = io.StringIO()
    async with trio.open_nursery() as nursery, Pipeline.from_async_iterable(endless).map(nap).open() as run:
        nursery.start_soon(partial(watch, run, file=file, period=1000))
        await trio.sleep(2.5)
        run.drain_nowait()
        await trio.sleep(2.5)
        run.abort()
        with pytest.raises(Aborted):
            await run.receive()

    told = [line.partition(";")[0] for line in file.getvalue().splitlines()]
    assert told == ["0.0 s: running", "2.5 s: draining", "5.0 s: aborted"]


@in_virtual_time
async def test_lines_come_more_rarely_as_time_goes_by():
    file = io.StringIO()
    async with trio.open_nursery() as nursery, seconds(2000).open() as run:
        nursery.start_soon(partial(watch, run, file=file))
        async for _ in run:
            pass
    times = [float(line.partition(" s")[0]) for line in file.getvalue().splitlines()]

    assert "\x1b" not in file.getvalue()
    assert times[:5] == [0, 1, 2, 3, 4]
    assert times[-1] == 2000
    assert len(times) < 80
    assert max(later - earlier for earlier, later in pairwise(times)) <= 60.1


@in_virtual_time
async def test_several_tasks_may_watch_and_none_holds_the_run_up():
    files = [io.StringIO() for _ in range(5)]
    async with trio.open_nursery() as nursery, seconds(20).open() as run:
        for file in files:
            nursery.start_soon(partial(watch, run, file=file))
        async for _ in run:
            pass

    assert run.report.elapsed == 20
    assert len({file.getvalue().splitlines()[-1] for file in files}) == 1


@in_virtual_time
async def test_a_reader_that_has_gone_ends_watching_not_the_run():
    class Gone(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    async with trio.open_nursery() as nursery, seconds(5).open() as run:
        nursery.start_soon(partial(watch, run, file=Gone()))
        assert [item async for item in run] == [*range(5)]


@in_virtual_time
async def test_a_file_of_few_characters_gets_the_others_escaped():
    line = seconds(3).map(nap, name="名前")
    for kind, sign in ((io.TextIOWrapper, "s: running"), (AsciiTerminal, "* running")):
        bytes_ = io.BytesIO()
        file = kind(bytes_, encoding="ascii")
        async with trio.open_nursery() as nursery, line.open() as run:
            nursery.start_soon(partial(watch, run, file=file))
            async for _ in run:
                pass
        file.flush()
        assert sign in bytes_.getvalue().decode("ascii")
        assert "\\u540d\\u524d" in bytes_.getvalue().decode("ascii")


class AsciiTerminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", ["TERM"])
def test_a_dumb_terminal_gets_lines(name, monkeypatch):
    monkeypatch.setenv(name, "dumb")
    file = Terminal()

    async def main():
        async with seconds(1).open() as run:
            pass
        await watch(run, file=file)

    run_virtual(main)
    assert "\x1b" not in file.getvalue()


def test_without_rich_the_error_names_the_extra_and_lines_need_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)

    async def main(file):
        async with seconds(1).open() as run:
            pass
        await watch(run, file=file)

    with pytest.raises(ImportError, match=r'pip install "funcpipe-trio\[live\]"'):
        run_virtual(partial(main, Terminal()))
    run_virtual(partial(main, io.StringIO()))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"run": 3}, TypeError, "watch: run must be a Run, not 3"),
        ({"run": seconds(1)}, TypeError, "watch: run must be a Run, not a Pipeline"),
        ({"period": 0}, ValueError, "watch: period must be a number of seconds > 0, finite, not 0"),
        ({"period": "1"}, TypeError, "watch: period must be a number of seconds > 0, not a str of length 1"),
        ({"file": "x.txt"}, TypeError, "watch: file must be a text file to write to, not a str of length 5"),
        ({"keys": nap}, TypeError, "watch: keys must be a sync function, not the async function nap"),
        ({"keys": 3}, TypeError, "watch: keys must be callable, not 3"),
        ({"keys": lambda: ""}, TypeError, "watch: keys must take 1 arguments"),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, message):
    async def main():
        async with seconds(1).open() as run:
            await watch(**{"run": run, "file": io.StringIO(), **arguments})

    with pytest.raises(kind) as caught:
        run_virtual(main)
    assert str(caught.value).splitlines()[0].startswith(message)


@in_virtual_time
async def test_another_trio_run_is_refused_while_the_run_goes_on():
    """It would wait there for what happens here."""
    async with seconds(1).open() as run:
        with pytest.raises(StateError, match="watch: must be called in the trio run that opened the run"):
            await trio.to_thread.run_sync(trio.run, partial(watch, run, file=io.StringIO()))
    await trio.to_thread.run_sync(trio.run, partial(watch, run, file=io.StringIO()))


def test_a_picture_is_what_rich_shows():
    """The text is taken as it is: no markup, no emoji codes."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(Text("[red]:smile:"), markup=False)

    assert console.file.getvalue() == "[red]:smile:\n"


# ---- in a real terminal

PROGRAM = """
import trio
from functools import partial
from funcpipe_trio import Pipeline, watch

async def items():
    for number in range({count}):
        await trio.sleep(0.01)
        yield number

async def main():
    async with trio.open_nursery() as nursery, Pipeline.from_async_iterable(items).open() as run:
        nursery.start_soon(watch, run)
        async for number in run:
            if number == 3:
                print("printed meanwhile", flush=True)
            {then}

trio.run(main)
"""


def in_a_terminal(program, interrupt, stdout=None):
    """Run a program in a terminal of its own, and interrupt it when it has drawn; give its status and what it wrote."""
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=other, stdout=stdout or other, stderr=other, env=environment, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    os.close(other)
    written = b""
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        while True:
            try:
                some = os.read(main, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not some:
                break
            written += some
            if interrupt and written.count(b"\x1b[?25l") and b"printed meanwhile" in written:
                process.send_signal(signal.SIGINT)
                interrupt = False
    finally:
        status = process.wait()
        watchdog.cancel()
        os.close(main)
    return status, written.decode()


def test_what_is_written_to_a_file_stays_there(tmp_path):
    """While the picture is on the terminal, as standard error."""
    program = PROGRAM.format(count=40, then="pass").replace("(watch, run)", "(partial(watch, run, file=sys.stderr))")
    with (tmp_path / "out").open("w+") as file:
        status, written = in_a_terminal("import sys\n" + program, False, file)
        file.seek(0)

        assert (status, file.read()) == (0, "printed meanwhile\n")
    assert "completed" in written
    assert "printed meanwhile" not in written


@pytest.mark.parametrize(
    ("count", "then", "interrupt", "end"),
    [
        (40, "pass", False, "completed"),
        (10**6, "pass", True, "KeyboardInterrupt"),
        (10**6, "if number == 40: raise RuntimeError", False, "RuntimeError"),
    ],
)
def test_a_terminal_is_left_clean(count, then, interrupt, end, interrupts):
    status, written = in_a_terminal(PROGRAM.format(count=count, then=then), interrupt)

    assert (status == 0) == (end == "completed")
    assert end in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "\x1b[2Kprinted meanwhile\r\n" in written  # on a line that was emptied for it, above the next picture
    assert "\x1b[?1049h" not in written  # what was on the screen stays


def test_the_face_has_it():
    assert funcpipe_trio.watch is watch
