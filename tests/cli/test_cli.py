"""The command `funcpipe`: what it prints, what it says when there is nothing to print, and how it ends.

Mutants that die here: a status that is another; an answer on standard error, or an error on standard output; a
traceback of the package in place of the user's; a module of one file that the next file gets; `__main__` as the name of
a file.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from funcpipe_trio import Pipeline
from funcpipe_trio._cli.main import main

ROOT = Path(__file__).parents[2]
APP = """
from funcpipe_trio import Pipeline, Step
from helpers import size

async def embed(text):
    return text

def make(concurrency=2):
    return Pipeline.from_iterable(["a"], name="texts").map(Step(embed).timeout(3), concurrency=concurrency).batch(size)

def other():
    return make(5)

def needs(size):
    return make(size)

def fails():
    raise ValueError("no database")

def refused():
    return make().batch(-1)

async def waits():
    return make()

class Factory:
    plan = make()

careless = Pipeline.from_iterable(["a"], name="texts").map(Step(embed)).batch(max_delay=1)
cannot = Pipeline.from_iterable(["a"]).map(int, concurrency=2)
plan = make()
number = 3
_hidden = plan
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "helpers.py").write_text("size = 4\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("app", "helpers", "broken", "typo"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(folder, capsys):
    def call(*arguments):
        before = list(sys.path), sys.argv
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as stopped:  # from argparse
            status = stopped.code
        assert (list(sys.path), sys.argv) == before
        return status, *capsys.readouterr()

    return call


def command(*arguments, **how):
    program = [sys.executable, "-m", "funcpipe_trio", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, **how)


# ---- targets


@pytest.mark.parametrize(
    "target", ["app:plan", "app:make", "app.py:plan", "./app.py:make", "app:Factory.plan", "app:_hidden"]
)
def test_a_pipeline_is_found(run, target):
    status, out, err = run("describe", target)

    assert (status, err) == (0, "")
    assert out.startswith("pipeline: 2 stages, items in flight: at most 82\nsource texts: iterable\n")


def test_a_file_elsewhere_is_found_with_what_is_beside_it(run, folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    assert run("describe", f"{folder}/app.py:plan")[0] == 0
    assert not {"app", "helpers"} & set(sys.modules)


def test_a_file_is_no_script(run, folder):
    """What is behind ``__name__ == "__main__"`` does not run."""
    (folder / "script.py").write_text(APP + '\nif __name__ == "__main__":\n    raise SystemExit("it ran")\n')

    assert run("describe", "script.py:plan")[0] == 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("app", "'app' must be MODULE:NAME or FILE.py:NAME, such as app:plan or src/app.py:make_plan"),
        (":plan", "':plan' must be MODULE:NAME or FILE.py:NAME, such as app:plan or src/app.py:make_plan"),
        ("nothing:plan", "there is no module 'nothing' here or among the installed ones"),
        ("nothing.py:plan", "there is no file 'nothing.py'"),
        (
            "app:plna",
            "'app:plna': there is no 'plna'; pipelines: 'careless', 'cannot', 'plan'; "
            "functions without arguments: 'make', 'other', 'fails', 'refused'",
        ),
        ("app:Factory.plna", "'app:Factory.plna': there is no 'plna'; pipelines: 'plan'"),
        ("app:number", "'app:number' must be a pipeline, or a function without arguments that returns one, not 3"),
        (
            "app:Factory",
            "'app:Factory' must be a pipeline, or a function without arguments that returns one, not the type Factory",
        ),
        (
            "app:needs",
            "'app:needs' must be a pipeline, or a function without arguments that returns one; it must be given 'size'",
        ),
        (
            "app:waits",
            "'app:waits' must be a pipeline, or a function without arguments that returns one; it returned a coroutine",
        ),
        (
            "app:cannot",
            "the plan cannot work:\nmap 'int': with concurrency, fn must be an async function, or give something to "
            "await; int never does.\nUse Step(fn).on(threads(4)), or leave out concurrency.",
        ),
        ("nothing.json:plan", "there is no module 'nothing' here or among the installed ones"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(run, target, message):
    if target == "nothing.json:plan":
        message = "there is no module 'nothing.json' here or among the installed ones"

    assert run("describe", target) == (2, "", f"funcpipe: {message}\n")


@pytest.mark.parametrize("place", ["broken", "broken.py"])
def test_an_error_of_the_users_module_is_shown_with_their_traceback_only(run, folder, place):
    (folder / "broken.py").write_text("import typo\n")
    (folder / "typo.py").write_text("def start():\n    return undefined\n\nstart()\n")
    status, out, err = run("describe", f"{place}:plan")

    assert (status, out) == (2, "")
    assert err.startswith(f"funcpipe: importing {place} failed:\nTraceback (most recent call last):\n")
    assert re.findall(r'File "(.*?)", line (\d+)', err) == [
        (str(folder / "broken.py"), "1"),
        (str(folder / "typo.py"), "4"),
        (str(folder / "typo.py"), "2"),
    ]
    assert err.endswith("NameError: name 'undefined' is not defined\n")


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("app:fails", "ValueError: no database"),
        ("app:refused", "ValueError: Pipeline.batch: max_items must be >= 1, not -1"),
    ],
)
def test_an_error_of_the_users_factory_is_shown_with_their_traceback_only(run, folder, target, last):
    """Also if the package raises it, because of what they wrote."""
    status, _out, err = run("describe", target)

    assert status == 2
    assert err.startswith(f"funcpipe: calling {target} failed:\n")
    assert set(re.findall(r'File "(.*?)"', err)) == {str(folder / "app.py")}
    assert err.endswith(f"{last}\n")


def test_errors_of_syntax_and_exits_are_errors_of_the_user(run, folder):
    (folder / "broken.py").write_text("def plan(:\n")
    assert run("describe", "broken.py:plan")[2].endswith("SyntaxError: invalid syntax\n")
    (folder / "broken.py").write_text("raise SystemExit(5)\n")
    status, _out, err = run("describe", "broken.py:plan")
    assert (status, err.splitlines()[-1]) == (2, "SystemExit: 5")


# ---- describe


@pytest.mark.parametrize("format", ["text", "mermaid", "dot", "json"])
def test_a_plan_is_described_in_each_form(run, format):
    status, out, err = run("describe", "app:plan", "--format", format)

    assert (status, err) == (0, "")
    assert out == sys.modules["app"].plan.describe(format) + "\n"


def test_functions_of_a_file_are_named_by_the_file(run):
    _status, out, _err = run("describe", "app.py:plan", "--format", "json")

    assert '"app:embed"' in out


# ---- diff


def test_equal_plans_have_no_difference(run):
    assert run("diff", "app:plan", "app.py:make") == (0, "", "")


def test_a_difference_has_status_one(run):
    assert run("diff", "app:plan", "app:other") == (
        1,
        "map embed: concurrency 2 -> 5\nitems in flight: at most 82 -> 85 (embed 66 -> 69)\n",
        "",
    )


def test_two_versions_of_a_file_have_each_their_own_modules(run, folder):
    """As of two checkouts: functions have the same names, and what is beside a file belongs to it."""
    new = folder / "new"
    new.mkdir()
    (new / "app.py").write_text(APP)
    (new / "helpers.py").write_text("size = 9\n")

    assert run("diff", "app.py:plan", "new/app.py:plan")[:2] == (
        1,
        "batch: max_items 4 -> 9\nitems in flight: at most 82 -> 162 (embed 66 -> 146)\n",
    )


def test_a_plan_is_compared_with_what_was_written_before(run, folder):
    (folder / "plan.json").write_text(run("describe", "app:plan", "--format", "json")[1])

    assert run("diff", "plan.json", "app:plan") == (0, "", "")
    assert run("diff", "plan.json", "app:other")[0] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'plan.json' cannot be read: Expecting property name"),
        ("[]", "'plan.json' must be what `funcpipe describe --format json` of this version writes"),
        (json.dumps({"schema": 1, "line": 3}), "'plan.json' must be what `funcpipe describe --format json` of this"),
        (json.dumps({"schema": 99}), "'plan.json' must be what `funcpipe describe --format json` of this version"),
        (None, "'plan.json' cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_description_is_refused(run, folder, text, message):
    if text is not None:
        (folder / "plan.json").write_text(text)
    status, out, err = run("diff", "plan.json", "app:plan")

    assert (status, out) == (2, "")
    assert err.startswith(f"funcpipe: {message}")


# ---- review


def test_findings_have_status_one_and_a_line_each(run):
    status, out, err = run("review", "app:careless")

    assert (status, err) == (1, "")
    assert [line.partition(" [")[0] for line in out.splitlines()] == [
        "embed: the call of 'embed' has no timeout.",
        "batch: the batch has no max_items.",
    ]


def test_a_plan_without_findings_says_nothing(run):
    assert run("review", "app:plan") == (0, "", "")


def test_what_is_meant_can_be_ignored(run):
    assert run("review", "app:careless", "--ignore", "timeout", "--ignore", "batch-size") == (0, "", "")


def test_a_bound_can_be_asked_for(run):
    assert run("review", "app:plan", "--max-in-flight", 82)[0] == 0
    status, out, _err = run("review", "app:plan", "--max-in-flight", 81)
    assert (status, out.partition(" [")[0]) == (
        1,
        "plan: items in flight: at most 82, more than 81 (embed at most 66, texts at most 16).",
    )


# ---- wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "funcpipe: error: the following arguments are required: COMMAND"),
        (("play", "app:plan"), "invalid choice: 'play'"),
        (("describe",), "funcpipe describe: error: the following arguments are required: TARGET"),
        (("describe", "app:plan", "--format", "svg"), "invalid choice: 'svg'"),
        (("diff", "app:plan"), "funcpipe diff: error: the following arguments are required: NEW"),
        (("review", "app:plan", "--max-in-flight", "x"), "invalid int value: 'x'"),
        (("review", "app:plan", "--max-in-flight", "0"), "funcpipe: review: max_in_flight must be >= 1, not 0"),
        (("review", "app:plan", "--ignore", "speed"), "funcpipe: review: ignore must name rules, which are batch-size"),
    ],
    ids=str,
)
def test_wrong_use_has_status_two(run, arguments, message):
    status, out, err = run(*arguments)

    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("arguments", [(), ("describe",), ("diff",), ("review",)], ids=str)
@pytest.mark.parametrize("columns", [40, 120])
def test_help_fits_the_terminal_and_tells_the_status(run, arguments, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, err = run(*arguments, "--help")

    assert (status, err) == (0, "")
    assert "exit status" in out
    _usage, _, rest = out.partition("\n\n")  # argparse breaks its usage between options only
    assert max(map(len, rest.splitlines())) <= columns


# ---- where it runs


def test_it_is_a_command_and_a_module(folder):
    script = Path(sys.executable).with_name("funcpipe")
    if not script.exists():
        pytest.skip("the package is not installed with its commands here")
    done = subprocess.run([script, "describe", "app:plan"], cwd=folder, capture_output=True, text=True, check=True)

    assert (
        command("describe", "app:plan", cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout == done.stdout
    )


def test_output_that_nobody_reads_ends_it_quietly(folder):
    """As in ``funcpipe describe app:plan | head -1``, with more output than a pipe holds."""
    (folder / "long.py").write_text(
        "from funcpipe_trio import *\nplan = concat(*[Pipeline.from_iterable([1]) for _ in range(3000)])\n"
    )
    program = [sys.executable, "-m", "funcpipe_trio", "describe", "long.py:plan"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        first = running.stdout.readline()
        running.stdout.close()
        err = running.stderr.read()
        status = running.wait(60)

    assert first.startswith("pipeline: 3000 stages")
    assert (status, err) == (141, "")


def test_ctrl_c_ends_it_with_one_line(folder):
    (folder / "slow.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    begin = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # not ignored, as in a shell
    code = f"{begin}; from funcpipe_trio._cli.main import main; sys.exit(main())"
    program = [sys.executable, "-c", code, "describe", "slow.py:plan"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        program,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _out, err = running.communicate(timeout=60)

    assert (running.returncode, err) == (130, "funcpipe: interrupted\n")


def test_it_works_without_any_output(folder):
    """As under ``>&-``: then only the status is left."""
    code = f'exec "{sys.executable}" -m funcpipe_trio diff app:plan app:other >&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", code], cwd=folder, env=environment, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr) == (1, b"")


def test_names_that_an_encoding_lacks_are_escaped(folder):
    (folder / "names.py").write_text(
        "from funcpipe_trio import *\nplan = Pipeline.from_iterable([1], name='名前')\n", encoding="utf-8"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = command("describe", "names.py:plan", cwd=folder, env=environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert "source \\u540d\\u524d: iterable" in done.stdout


def test_findings_are_wrapped_to_a_narrow_terminal(folder):
    """At 40 columns; without a terminal each is one line, which `grep` and CI can read."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    program = [sys.executable, "-m", "funcpipe_trio", "review", "app:careless"]
    with subprocess.Popen(program, cwd=folder, env=environment, stdout=theirs, stdin=subprocess.DEVNULL) as running:
        os.close(theirs)
        text = b""
        while True:
            try:
                read = os.read(ours, 4096)
            except OSError:  # its end is closed
                break
            if not read:
                break
            text += read
        assert running.wait(60) == 1
    os.close(ours)
    lines = text.decode().splitlines()

    assert max(map(len, lines)) < 40
    assert lines[:2] == ["embed: the call of 'embed' has no", "  timeout. [timeout]"]


def test_nothing_runs(run, folder):
    """Neither a source nor a function of the plan, whatever is asked."""
    (folder / "app.py").write_text(
        "from funcpipe_trio import *\n"
        "def never(*_): raise SystemExit('it ran')\n"
        "plan = Pipeline.from_iterable(never).map(never).filter(never).fair_by(never, max_keys=2)\n"
    )

    for arguments in (("describe", "app.py:plan"), ("diff", "app.py:plan", "app.py:plan"), ("review", "app.py:plan")):
        assert run(*arguments)[0] == 0


def test_a_pipeline_of_this_process_is_the_users_own(run):
    """A module is imported once, as anywhere: its pipeline is the one that others have."""
    run("describe", "app:plan")

    assert isinstance(sys.modules["app"].plan, Pipeline)
