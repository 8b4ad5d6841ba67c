"""`funcpipe run` in processes of its own, with real signals: how it ends, and what it prints.

Mutants that die here: another exit status; a report that is printed twice, or on standard error; a signal that kills
while the run is at work; a traceback of this package; a file whose functions a worker process cannot import.
"""

import contextlib
import errno
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from funcpipe_trio._cli.main import main
from tests._kit import STRIDE

ROOT = Path(__file__).parents[2]
APP = """
import logging, os, signal, subprocess, sys, time
import trio
from funcpipe_trio import OnError, Pipeline, Step, processes

if "TELL" in os.environ:
    logging.basicConfig(level="INFO", format="%(message)s")

async def ticks():
    for number in range(10**9):
        yield number
        await trio.sleep(0.01)

async def silent():
    await trio.sleep_forever()
    yield 1

async def call(number):
    await trio.sleep(0.02)
    return number

async def slow(number):
    await trio.sleep(1000)

async def stubborn(number):
    with trio.CancelScope(shield=True):
        await trio.sleep(1000)

async def fail(number):
    raise OSError("no space")

async def fail_when_cancelled(number):
    if number:
        return number
    try:
        await trio.sleep(1000)
    finally:
        raise OSError("no space")

async def fail_in_a_group(number):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, number)

async def fail_late(number):
    await trio.sleep(0.5)
    raise OSError("no space")

def kill(number):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)

def square(number):
    return number ** 2

def square_slowly(number):
    time.sleep(0.1)
    return number ** 2

def end_children(number):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    program.terminate()
    fork = os.fork()
    if not fork:
        time.sleep(1000)
    os.kill(fork, signal.SIGTERM)
    return program.wait(), os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])

good = Pipeline.from_async_iterable(ticks).map(call, concurrency=4)
quiet = Pipeline.from_async_iterable(silent).map(call)
slow = Pipeline.from_async_iterable(ticks).map(slow, concurrency=2)
stubborn = Pipeline.from_async_iterable(ticks).map(stubborn, concurrency=2)
failing = Pipeline.from_iterable([1]).map(fail)
in_a_group = Pipeline.from_iterable([1]).map(fail_in_a_group)
failing_late = Pipeline.from_async_iterable(ticks).map(fail_late)
skipping = Pipeline.from_iterable([1, 2]).map(fail, on_error=OnError.skip())
deaf = Pipeline.from_async_iterable(ticks).map(kill)
at_once = Pipeline.from_iterable([1]).map(call)
printing = Pipeline.from_iterable(range(3)).tap(print)
elsewhere = Pipeline.from_iterable(range(3)).map(Step(square).on(processes(1))).tap(print)
in_workers = Pipeline.from_async_iterable(ticks).map(Step(square_slowly).on(processes(2)), concurrency=2).tap(
    lambda _: print("one", file=sys.stderr, flush=True)
)
children = Pipeline.from_iterable([1]).map(Step(end_children).on(processes(1))).tap(print)
cannot = Pipeline.from_iterable([1]).map(len, concurrency=2)
timing_out = Pipeline.from_async_iterable(silent).idle_timeout(0.01)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def killing(process):
    """Kill a process in a minute, so that no test waits for ever; until it is cancelled."""
    limit = threading.Timer(60, process.kill)
    limit.daemon = True
    limit.start()
    return limit


class Program:
    """The command at work."""

    def __init__(self, *arguments, stdout=subprocess.PIPE, tell=True, **how):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "funcpipe_trio", "run", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **({"TELL": "1"} if tell else {})},
            **how,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # tests may run in the background
        )

        self.limit = killing(self.process)

    def wait_for(self, said):
        """Wait until it has said something on standard error."""
        for line in self.process.stderr:
            if said in line:
                return line
        raise AssertionError(f"it ended with {self.process.wait()} before it said {said!r}")

    def ended(self, *numbers):
        """Send signals, and return how it ended: status, what it printed, and said after what was waited for."""
        for number in numbers:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def begin(folder):
    """Return what begins a program; none is left behind."""
    programs = []

    def begin(*arguments, **how):
        programs.append(Program(*arguments, **how))
        return programs[-1]

    yield begin
    for program in programs:
        program.limit.cancel()
        with program.process as process:
            process.kill()


def is_report(text, outcome):
    """Whether a text is one report, and nothing else."""
    return text.startswith(f"{outcome} after ") and text.count(" taken") == 1 and text.endswith("%\n")


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("plan", ["good", "quiet"])
def test_a_signal_drains_it(begin, plan, number):
    program = begin(f"app:{plan}")
    program.wait_for("begins")

    status, out, err = program.ended(number)

    assert status == 0
    assert is_report(out, "drained")
    assert ", 0 discarded\n" in out
    assert re.sub(r"\d+", "N", err).splitlines() == [
        f"run N of '{'ticks' if plan == 'good' else 'silent'}': drains",
        f"run N of '{'ticks' if plan == 'good' else 'silent'}': drained after N.N s; N delivered, N discarded",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_its_processes_drains_it_too(begin, number):
    """As a terminal sends Ctrl-C, and supervisors SIGTERM: the workers are still needed."""
    program = begin("app.py:in_workers", start_new_session=True)
    program.wait_for("one")
    os.killpg(program.process.pid, number)

    status, out, err = program.ended()

    assert (status, is_report(out, "drained")) == (0, True), err
    assert ", 0 failed, 0 dropped, 0 discarded\n" in out


def test_what_a_worker_starts_can_be_terminated(folder):
    """Programs and forks of functions are not spared as their worker is."""
    done = command("app.py:children")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"({-signal.SIGTERM}, {-signal.SIGTERM})\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_aborts_it(begin, number):
    program = begin("app.py:slow")
    program.wait_for("begins")
    program.process.send_signal(signal.SIGTERM)
    program.wait_for("drains")

    status, out, err = program.ended(number)

    assert status == 130
    assert is_report(out, "aborted")
    assert "is aborted" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_third_signal_ends_the_program_whatever_it_does(begin, number):
    """A call that cannot be cancelled: the run is aborted, and waits for it."""
    program = begin("app:stubborn")
    for said in ("begins", "drains", "is aborted"):
        program.wait_for(said)
        program.process.send_signal(number)

    assert program.ended() == (-number, "", "")


def test_so_it_does_while_the_event_loop_is_held_up(begin):
    assert begin("app:deaf", tell=False).ended() == (-signal.SIGTERM, "", "")


def test_the_grace_period_has_a_status_of_its_own(begin):
    """What is left is discarded, and the report says so."""
    program = begin("app:slow", "--grace", "0.1")
    program.wait_for("begins")

    status, out, err = program.ended(signal.SIGTERM)

    assert status == 124
    assert is_report(out, "drained")
    assert ", 0 discarded\n" not in out
    assert "is not drained within its grace period" in err


def test_a_failure_while_it_drains_is_a_failure(begin):
    program = begin("app:failing_late")
    program.wait_for("begins")

    status, out, _err = program.ended(signal.SIGTERM)

    assert status == 1
    assert out.startswith("failed after ")


def test_a_signal_at_any_moment(begin):
    """It ends the program as any other before the run has begun and after it is over; in between it drains the run.

    The moments are spread over several times what a program needs to begin its run.
    """
    since = time.monotonic()
    begin("app:good").wait_for("begins")
    start = time.monotonic() - since
    for part in range(0, 14, STRIDE):
        programs = [(each, begin(f"app:{each}", tell=False)) for each in ("good", "quiet", "at_once")]
        time.sleep(start * part / 4)
        for plan, program in programs:
            number = signal.SIGINT if plan == "quiet" else signal.SIGTERM
            status, out, err = program.ended(number)
            if not out and "Exception ignored in" in err and "KeyboardInterrupt" in err:
                continue  # it came while Python imported modules, in a callback that swallows errors: nobody gets it
            before = (1, 130) if number == signal.SIGINT and not out else ()  # 1: while Python itself starts
            assert status in (0, -number, *before), err
            assert not out or is_report(out, "drained") or (plan == "at_once" and is_report(out, "completed"))
            assert out or status, "it has ended well without a report"


# ---- shown meanwhile


def asked(url):
    """Answer the status and the body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("arguments", [[], ["--bind", "localhost"]])
def test_the_page_is_served_while_it_runs(begin, arguments):
    """On this machine only; it is not ready any more while it drains, and ends with the run."""
    program = begin("app:slow", "--web", "0", *arguments)
    (url,) = re.findall(r"http://\S+", program.wait_for("funcpipe: http://"))
    program.wait_for("begins")

    assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):\d+/", url)
    assert asked(url)[0] == 200
    assert asked(f"{url}ready") == (200, '{"state": "running"}')
    assert 'funcpipe_run_taken_total{pipeline="app:slow"} ' in asked(f"{url}metrics")[1]
    with urllib.request.urlopen(f"{url}events", timeout=30) as events:
        assert events.readline()
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("drains")
        assert asked(f"{url}ready") == (503, '{"state": "draining"}')
        status, out, err = program.ended(signal.SIGTERM)

    assert status == 130
    assert is_report(out, "aborted")
    assert len(err.splitlines()) == 2, err  # that it is aborted, and how it ended


def test_an_address_that_is_taken_begins_no_run(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("app:good", "--web", str(port))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"funcpipe: --web: nothing can listen on 127.0.0.1, port {port}: {os.strerror(errno.EADDRINUSE)}\n"
    )


def test_it_is_watched_by_lines_where_there_is_no_terminal(folder):
    done = command("app:at_once", "--live")

    lines, report = done.stdout.split("\n\n", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "completed; taken 1, delivered 1" in lines
    assert is_report(report, "completed")


def test_lines_that_nobody_reads_do_not_end_it(begin):
    """It goes on, as a service; only its report finds nobody."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = begin("app:good", "--live", stdout=writer)
    finally:
        os.close(writer)
    program.wait_for("begins")

    status, _out, err = program.ended(signal.SIGTERM)

    assert status == 141
    assert "drained after" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("columns", [80, 200])
def test_in_a_terminal_a_picture_stays_above_the_report(folder, columns):
    """Ctrl-C of the terminal drains it; the cursor is shown again."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    process = subprocess.Popen(
        [sys.executable, "-m", "funcpipe_trio", "run", "app:good", "--live"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: _control(theirs),  # noqa: PLW1509  # as above
    )
    os.close(theirs)
    limit = killing(process)
    shown = b""
    with process, contextlib.suppress(OSError):  # which is what the end of a terminal reads as
        while more := os.read(ours, 65536):
            if b"running" in shown + more and b"running" not in shown:
                os.write(ours, b"\x03")
            shown += more
    limit.cancel()
    os.close(ours)

    assert process.returncode == 0
    picture, report = shown.decode().rsplit("\x1b[?25h", 1)
    assert "drained" in picture
    assert "\r\ndrained after " in report
    assert "\x1b" not in report


def _control(terminal):
    """Make a terminal the one that controls this process, so that its Ctrl-C is a signal."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# ---- without signals


def command(*arguments, **how):
    program = [sys.executable, "-m", "funcpipe_trio", "run", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, **how)


@pytest.mark.parametrize(
    ("plan", "status", "begin"),
    [
        ("at_once", 0, "completed after "),
        ("skipping", 0, "completed after "),
        ("failing", 1, "failed after "),
        ("timing_out", 1, "failed after "),
    ],
)
def test_a_plan_that_ends_by_itself(folder, plan, status, begin):
    done = command(f"app:{plan}")

    assert (done.returncode, done.stdout.startswith(begin), done.stdout.count(" taken")) == (status, True, 1)


def test_a_failure_is_told_once(folder):
    """Its text in the report; its stage, item and lines on standard error, with the user's lines only."""
    done = command("app:failing")

    assert done.stdout.endswith("error: OSError: no space\n")
    line = APP.splitlines().index('    raise OSError("no space")') + 1
    where = f'  File "{folder}/app.py", line {line}, in fail\n    raise OSError("no space")\n'
    assert done.stderr == f"funcpipe: the run failed: in stage 'fail', item 0\n{where}"
    assert command("app:timing_out").stderr == (
        "funcpipe: the run failed: timeout of 0.01 s without an item; in stage 'idle_timeout'\n"
    )


def test_of_a_group_each_error_is_told(folder):
    """The group itself says nothing of what happened."""
    done = command("app:in_a_group")

    assert done.stdout.endswith("error: ExceptionGroup: Exceptions from Trio nursery (1 sub-exception)\n")
    line = APP.splitlines().index('    raise OSError("no space")') + 1
    lines = done.stderr.splitlines()
    assert lines[0] == "funcpipe: the run failed: in stage 'fail_in_a_group', item 0"
    at = lines.index("OSError: no space, raised")
    assert lines[at + 1 :] == [f'  File "{folder}/app.py", line {line}, in fail', '    raise OSError("no space")']


def test_what_the_plan_prints_comes_before_the_report(folder):
    done = command("app:printing")

    assert done.stdout.startswith("0\n1\n2\ncompleted after ")
    assert done.stderr == ""


@pytest.mark.parametrize("target", ["app:elsewhere", "app.py:elsewhere"])
def test_worker_processes_find_the_functions_of_the_file(folder, target):
    done = command(target)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0\n1\n4\ncompleted after ")


@pytest.mark.parametrize("plan", ["at_once", "printing"])
def test_output_that_nobody_reads(begin, plan):
    """No traceback, and the status of a program whose output was closed."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = begin(f"app:{plan}", stdout=writer, tell=False)
    finally:
        os.close(writer)

    status, _out, err = program.ended()

    assert (status, "Traceback" in err) == (141, False)


def test_a_reader_of_one_line(folder):
    shell = f"set -o pipefail; '{sys.executable}' -m funcpipe_trio run app:printing | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout, done.stderr) == ("0\n", "")
    assert done.returncode in (0, 141)  # all may be in the pipe before it is closed


def test_without_standard_output(folder):
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m funcpipe_trio run app:at_once >&-"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["app:nothing"], "funcpipe: 'app:nothing': there is no 'nothing'; pipelines: "),
        (["app:cannot"], "funcpipe: the plan cannot work:\nmap 'len': with concurrency, fn must be an async function"),
        (["app:good", "--grace", "-1"], "argument --grace: must be a number of seconds >= 0, not '-1'"),
        (["app:good", "--grace", "nan"], "argument --grace: must be a number of seconds >= 0, not 'nan'"),
        (["app:good", "--web", "65536"], "argument --web: must be a number from 0 to 65535, not '65536'"),
        (["app:good", "--web", "x"], "argument --web: must be a number from 0 to 65535, not 'x'"),
        (["app:good", "--bind", "::1"], "funcpipe: --bind says where --web listens, so it needs --web PORT"),
        (["app:good", "--web", "0", "--bind", "no such"], "funcpipe: --web: nothing can listen on no such, port 0: "),
        (["app:good", "--web", "0", "--bind", "192.0.2.1"], "funcpipe: --web: nothing can listen on 192.0.2.1, port 0"),
    ],
)
def test_wrong_use_begins_no_run(folder, arguments, message):
    done = command(*arguments, env={**os.environ, "TELL": "1"})

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not {"Traceback", "begins"} & {*re.findall(r"\w+", done.stderr)}


@pytest.mark.parametrize(("missing", "extra"), [("hypercorn", "web"), ("rich", "live")])
def test_a_package_that_is_missing_is_named(folder, missing, extra, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    status = main(["run", "app:at_once", *(["--live"] if extra == "live" else ["--web", "0"])])

    assert (status, capsys.readouterr().err) == (
        2,
        f'funcpipe: --{extra} needs {missing}\nUse `pip install "funcpipe-trio[{extra}]"`.\n',
    )
