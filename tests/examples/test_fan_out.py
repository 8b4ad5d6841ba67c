"""The example that sorts a log: what each branch gets, however its run ends; then all of it, as a program."""

import gzip
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import Scenario, cancel_everywhere, explore_schedules

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "fan_out.py"


@pytest.fixture(scope="module")
def example(load):
    return load("fan_out")


def started(*arguments, **how):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **how,
    )


def test_each_line_is_archived_and_sorted(example, tmp_path):
    """By its own rule, in the order of the log, none twice, none lost."""
    lines = list(example.made_up(3000))
    log = tmp_path / "access.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    done = started(log, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with gzip.open(tmp_path / "out" / "archive.log.gz", "rt") as archive:
        assert archive.read().splitlines() == lines
    failed = [line for line in lines if '" 503 ' in line]
    written = (tmp_path / "out" / "errors.txt").read_text().splitlines()
    assert written == [*failed, f"# {len(failed)} of /api/orders"]
    strange = [line for line in lines if line.startswith("GET")]
    assert (tmp_path / "out" / "unreadable.txt").read_text().splitlines() == strange
    sizes = [int(line.split()[0]) for line in (tmp_path / "out" / "traffic.txt").read_text().splitlines()]
    answered = [line for line in lines if line not in failed and line not in strange]
    assert sum(sizes) == sum(int(line.split()[-1]) for line in answered)
    assert f"3000 lines: {len(answered)} answered, {len(failed)} failed, {len(strange)} unreadable" in done.stdout


def test_without_a_log_it_makes_one_up(tmp_path):
    done = started(cwd=tmp_path)
    assert done.returncode == 0
    assert "20000 lines: 19660 answered, 320 failed, 20 unreadable" in done.stdout
    with gzip.open(tmp_path / "funcpipe_sorted_log" / "archive.log.gz", "rt") as archive:
        assert len(archive.read().splitlines()) == 20000


def test_wrong_arguments_are_one_line(tmp_path):
    done = started(tmp_path / "nowhere.log")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"fan_out: there is no log {tmp_path / 'nowhere.log'}"]
    done = started(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"fan_out: {tmp_path} is a folder, not a log\n")
    (tmp_path / "file").write_text("")
    done = started("--out", tmp_path / "file")
    problem = f"fan_out: cannot make the folder {tmp_path / 'file'}: File exists\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", problem)


def test_interrupted_it_keeps_what_was_written(start, tmp_path):
    """Ctrl-C in the middle of a long log: the files are whole, as far as they go."""
    line = '192.0.2.1 - - [27/Nov/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1\n'
    (tmp_path / "long.log").write_text(line * 1_000_000)
    out = tmp_path / "out"
    program = start("fan_out", "long.log", "--out", out)
    archive = out / "archive.log.gz"
    while not (archive.exists() and archive.stat().st_size):
        assert program.poll() is None, program.stderr.read()
    program.send_signal(signal.SIGINT)
    told, errors = program.communicate(timeout=60)

    assert (program.returncode, errors) == (130, f"fan_out: interrupted; {out} holds what was written until then\n")
    with gzip.open(archive, "rt") as file:
        assert set(file) == {line}
    answered = int((out / "traffic.txt").read_text().removesuffix(" /\n"))
    assert 0 < answered < 1_000_000
    assert told.splitlines()[-2:] == [
        f"{answered} lines: {answered} answered, 0 failed, 0 unreadable",
        f"written: {out}",
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/stdin")
def test_a_pipe_is_a_log(start, tmp_path):
    """And so is nothing at all; a line may be as long as it likes, come in parts, and want its end."""
    program = start("fan_out", "/dev/null", "/dev/stdin", "--out", "out", stdin=subprocess.PIPE)
    _, errors = program.communicate("a\n\nb" + "c" * 100_000 + "\nd", timeout=60)

    assert (program.returncode, errors) == (0, "")
    with gzip.open(tmp_path / "out" / "archive.log.gz", "rt") as archive:
        lines = archive.read().splitlines()
    assert (lines[:2], lines[-1], "".join(lines)) == (["a", ""], "d", "ab" + "c" * 100_000 + "d")


@pytest.mark.skipif(os.name != "posix", reason="makes a FIFO")
def test_ctrl_c_does_not_wait_for_who_writes_into_a_pipe(start, tmp_path):
    """Neither while no other process has opened it, nor while nothing arrives."""
    os.mkfifo(tmp_path / "pipe")
    for writers in (0, 1):
        writer = os.open(tmp_path / "pipe", os.O_RDWR) if writers else None
        program = start("fan_out", "pipe", "--out", "out")
        while program.stdout.readline() != "consumer\n":
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
        assert (program.returncode, len(errors.splitlines())) == (130, 1)
        if writer is not None:
            os.close(writer)


def test_however_it_ends_no_line_is_lost(example):
    """The plan itself, under many orders of tasks and stopped at any step."""

    def make():
        tally = example.Tally(io.BytesIO(), io.BytesIO())
        return example.plan(Pipeline.from_iterable(example.made_up(40)), io.BytesIO(), tally)

    explore_schedules(Scenario(make), seeds=range(30))
    cancel_everywhere(Scenario(make), every=11)


def test_names_of_any_bytes_are_shown_and_kept(tmp_path):
    """A path in a log may be no text, and hold the codes that rename a terminal: shown escaped, written as it is."""
    path = b"/caf\xe9\x1b]0;x\x07"
    line = b'192.0.2.1 - - [27/Nov/2026:00:00:00 +0000] "GET ' + path + b' HTTP/1.1" 503 1'
    log, out = tmp_path / "access\n\x1b[2J.log", tmp_path / "out\x1b[2J"
    log.write_bytes(line + b"\n")

    done = started(log, "--out", out, env={"PYTHONIOENCODING": "ascii:strict"})

    assert (done.returncode, done.stderr) == (0, "")
    assert "  failed 1 times: /caf\\xe9\\x1b]0;x\\x07\n" in done.stdout
    assert done.stdout.endswith(f"written: {tmp_path}/out\\x1b[2J\n")
    assert done.stdout.replace("\n", "").isprintable()
    assert (out / "errors.txt").read_bytes() == line + b"\n# 1 of " + path + b"\n"
    assert (out / "traffic.txt").read_bytes() == b""


def test_a_log_that_is_not_there_is_named_in_a_line(tmp_path):
    """Whatever its name holds."""
    done = started(tmp_path / "no\n\x1b[2Jlog")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fan_out: there is no log {tmp_path}/no\\n\\x1b[2Jlog\n"
