"""The example of overload: its three plans in virtual time, and then all of it, real.

In virtual time every instant is exact, and each test fails if the operation it is about is taken out of its plan. In
the real run no clock is asked: what came is what was shown, sent or dropped, whatever this machine is doing.
"""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import Script, run_virtual

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "overload.py"


@pytest.fixture(scope="module")
def example(load):
    return load("overload")


class Slow:
    """Takes what it is called with, a time each, and remembers when it began."""

    def __init__(self, takes):
        self.takes = takes
        self.calls = []

    async def __call__(self, item):
        self.calls.append((trio.current_time(), item))
        await trio.sleep(self.takes)


def script(pairs):
    return Pipeline.from_async_iterable(Script(pairs))


def test_the_gauge_shows_the_latest_reading(example):
    """Each time it is free: the newest that there is, and nothing older."""
    show = Slow(1.0625)  # never free at the instant of a reading: which of the two is first would be chance
    readings = script([(number / 4, number) for number in range(16)])

    report = run_virtual(example.gauge(readings, show).run)

    assert show.calls == [(0, 0), (1.0625, 4), (2.125, 8), (3.1875, 12), (4.25, 15)]
    assert report.dropped == 16 - 5


def test_a_sensor_that_falls_silent_is_a_failure(example):
    """Five seconds after its last reading; that one is shown."""
    show = Slow(1)

    with pytest.raises(trio.TooSlowError, match=r"^the stream was too slow at 'idle_timeout'\n") as caught:
        run_virtual(example.gauge(script([(0, "a"), (3, "b"), (60, "c")]), show).run)

    assert [item for _, item in show.calls] == ["a", "b"]
    assert caught.value.__notes__ == ["timeout of 5 s without an item", "in stage 'idle_timeout'"]


def test_the_archive_gets_batches_at_its_pace(example):
    """One each quarter of a second; of those that cannot wait the oldest are dropped: what is left is the newest."""
    send = Slow(0.01)
    readings = script([(number // 500 / 16, number) for number in range(500 * 32)])

    report = run_virtual(example.archive(readings, send).run)

    starts = [at for at, _ in send.calls]
    assert starts == [number / 4 for number in range(len(starts))]
    assert send.calls[-1][1][-1] == 500 * 32 - 1
    assert sum(link.dropped for link in report.links) == 32 - len(starts) > 0


def test_settings_are_loaded_when_a_save_is_over(example):
    """Once for each save, however many writes it was."""
    load = Slow(0)

    run_virtual(example.settings(script([(0, 1), (0.125, 2), (0.25, 3), (5, 4), (5.125, 5)]), load).run)

    assert load.calls == [(0.5, 3), (5.125, 5)]


def test_all_of_it_as_a_script():
    """It prints three plans and three reports, and what came is what was shown, sent or dropped."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", SCRIPT, "--seconds", "1"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "  | link of 1, drops the oldest when full\n" in done.stdout
    gauge, archive, settings, contract = done.stdout.splitlines()[-4:]
    came, shown, dropped = map(int, re.findall(r"\d+", gauge))
    assert came == shown + dropped
    came, sent, batches, lost = map(int, re.findall(r"\d+", archive))
    assert (came - sent) // 500 <= lost
    assert batches > 0
    seen, loaded, superseded = map(int, re.findall(r"\d+", settings))
    assert seen == loaded + superseded
    most, allowed = map(int, re.findall(r"\d+", contract))
    assert 0 < most <= allowed


@pytest.mark.parametrize(
    "arguments", [["--seconds", "0"], ["--seconds", "nan"], ["--rate", "0"], ["--settings", "none"]]
)
def test_a_wrong_argument_is_refused(arguments):
    """Before anything starts, in a line."""
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "must be" in done.stderr


def test_names_of_files_are_shown_as_a_terminal_can_show_them(example, tmp_path, capsys):
    """Of a file that is not there, and of one whose first word is not a number."""
    with pytest.raises(SystemExit):
        example.main(["--settings", f"{tmp_path}/no\x1b[2J"])
    path = tmp_path / "set\n\x1b[2J"
    path.write_text("much")
    run_virtual(example.Gauge().load, trio.Path(path), 0.0)
    refused, complaint = capsys.readouterr().err.splitlines()[-2:]

    assert refused.endswith(f"--settings must be a file: {tmp_path}/no\\x1b[2J")
    assert complaint == f"{tmp_path}/set\\n\\x1b[2J: the first word must be a number"


def test_ctrl_c_stops_it(start, tmp_path):
    """In a line that says what was done; the reports are shown as at the end."""
    path = tmp_path / "limit.txt"
    path.write_text("20")
    program = start("overload", "--seconds", "500", "--settings", path)
    for line in program.stdout:
        if line.startswith("settings:"):
            break
    program.send_signal(signal.SIGINT)
    rest, errors = program.communicate(timeout=60)

    assert program.returncode == 130
    assert re.fullmatch(
        r"overload: interrupted: [\d,]+ readings shown, [\d,]+ sent, settings loaded \d+ times\n", errors
    )
    if "\nsettings: cancelled" in rest:  # it came when all had begun
        assert rest.splitlines()[-1].startswith("the archive counted at most ")
