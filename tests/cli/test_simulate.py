"""``funcpipe simulate``: its table, what can be set and how, what is wrong use, and its picture.

Mutants that die here: a combination that is left out, or doubled; a value that is read as another type; a name that
ends at the wrong dot; a status that is another; a traceback; a table of the wrong run.
"""

import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from funcpipe_trio import FairShare, Pipeline, Recorder, fair_merge
from funcpipe_trio._cli import simulating
from funcpipe_trio._cli.main import main
from funcpipe_trio._cli.running import Refused
from funcpipe_trio._cli.simulating import Setting, parsed, placed
from funcpipe_trio.testing import run_virtual

ROOT = Path(__file__).parents[2]
APP = """
import trio
from funcpipe_trio import FairShare, Pipeline, RateLimit, Step, fair_merge

async def embed(item):
    await trio.sleep(1)
    return item

async def arrivals():
    for number in range(8):
        await trio.sleep(0.25)
        yield number

plan = Pipeline.from_async_iterable(arrivals).buffer(50).map(embed, concurrency=1).map(embed, concurrency=4)
plan = plan.map(embed, name="a name. with.dots", concurrency=4)
lines = {name: Pipeline.from_iterable(range(6), name=name) for name in ("gold", "free")}
fair = fair_merge(lines, FairShare({"gold": 2}), name="fair").map(
    Step(embed).rate_limit(RateLimit(5)).timeout(9), name="embed"
)
other = Pipeline.from_iterable([1], name="else").map(embed)
cannot = Pipeline.from_iterable([1]).map(int, concurrency=2)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "app", raising=False)  # of another test
    space = {}
    exec(APP, space)
    for name in ("plan", "fair"):
        recorder = Recorder()
        run_virtual(partial(space[name].run, record=recorder))
        recorder.recording.save(tmp_path / f"{name}.jsonl")
    yield tmp_path
    sys.modules.pop("app", None)


@pytest.fixture
def run(folder, capsys):
    def call(*arguments):
        try:
            status = main(["simulate", *map(str, arguments)])
        except SystemExit as stopped:  # from argparse
            status = stopped.code
        return status, *capsys.readouterr()

    return call


def rows(out):
    """Return the table as the label and the elapsed seconds of each row."""
    return [tuple(re.split(r"  +", each)[:2]) for each in out.splitlines()]


# ---- the table


def test_the_first_rows_are_the_run_and_the_same_again(run):
    status, out, err = run("app:plan", "plan.jsonl")

    assert (status, err) == (0, "")
    assert out == (
        "settings               elapsed  items/s  p99 of calls  limited by\n"
        "as recorded           10.250 s     0.78\n"
        "as it was, simulated  10.250 s     0.78       0.950 s  embed\n"
    )


def test_each_value_has_a_row(run):
    _status, out, _err = run("app:plan", "plan.jsonl", "--set", "embed.concurrency=2,4,8")

    assert rows(out)[3:] == [
        ("embed.concurrency=2", "6.500 s"),
        ("embed.concurrency=4", "5.000 s"),
        ("embed.concurrency=8", "5.000 s"),
    ]


def test_several_settings_are_combined_the_last_one_first(run):
    _status, out, _err = run(
        *("app:plan", "plan.jsonl", "--set", "embed.concurrency=1,8", "--set", "embed#2.concurrency=4,1")
    )

    assert [label for label, _ in rows(out)[3:]] == [
        "embed.concurrency=1 embed#2.concurrency=4",
        "embed.concurrency=1 embed#2.concurrency=1",
        "embed.concurrency=8 embed#2.concurrency=4",
        "embed.concurrency=8 embed#2.concurrency=1",
    ]


def test_a_name_may_have_dots_and_spaces(run):
    status, out, err = run("app:plan", "plan.jsonl", "--set", "a name. with.dots.concurrency=1,2")

    assert (status, err) == (0, "")
    assert [label for label, _ in rows(out)[3:]] == [f"a name. with.dots.concurrency={each}" for each in (1, 2)]


def test_arrivals_come_when_they_came(run):
    closed, opened = (
        rows(run("app:plan", "plan.jsonl", "--set", "embed.concurrency=8", *more)[1])
        for more in ((), ("--open-loop", "arrivals"))
    )
    assert closed == opened
    assert opened[3] == ("embed.concurrency=8", "5.000 s")


@pytest.mark.parametrize(
    "setting",
    [
        'fair.weights={"gold": 1, "free": 3}',
        "embed.rate_limit.rate=2,2.5,3",
        "embed.timeout=2.5,30",
        "embed.idempotent=false,true",
        "fair.capacity=1,2",
        "embed.ordered=false",
    ],
)
def test_values_are_numbers_fractions_objects_and_booleans(run, setting):
    status, out, err = run("app:fair", "fair.jsonl", "--set", setting)

    assert (status, err) == (0, "")
    assert len(rows(out)) > 3


def test_a_seed_may_be_any_int(run):
    assert run("app:plan", "plan.jsonl", "--seed", "-7") == run(
        "app:plan", "plan.jsonl", "--seed", "12345678901234567890"
    )


# ---- how values are read


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("a.b=1", Setting("a", "b", (1,), ("1",))),
        ("a.b.c=1.5,x", Setting("a", "b.c", (1.5, "x"), ("1.5", "x"))),
        ("a.b=3/2", Setting("a", "b", (Fraction(3, 2),), ("3/2",))),
        ("a.b=3/0,a/b", Setting("a", "b", ("3/0", "a/b"), ("3/0", "a/b"))),
        ("a.b=true,null", Setting("a", "b", (True, None), ("true", "null"))),
        ('a.b={"x": 1, "y": 2}', Setting("a", "b", ({"x": 1, "y": 2},), ('{"x": 1, "y": 2}',))),
        ("a.b=[1,2]", Setting("a", "b", ([1, 2],), ("[1,2]",))),
        ("a.b==", Setting("a", "b", ("=",), ("=",))),
        ("a.b=1,", Setting("a", "b", (1, ""), ("1", ""))),
        ("a.b=" + "1" * 5000, Setting("a", "b", ("1" * 5000,), ("1" * 5000,))),
        ("a.b=" + "[" * 100_000, Setting("a", "b", ("[" * 100_000,), ("[" * 100_000,))),
    ],
)
def test_a_setting_is_read(text, setting):
    assert parsed(text) == setting
    assert [type(each) for each in parsed(text).values] == [type(each) for each in setting.values]


@pytest.mark.parametrize("text", ["", "a", "a.b", "a=1", ".a=1", "a.=1", "a.b=", "=", "=1", ".=1"])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(Refused, match=r"^--set must be PART\.SETTING=VALUE\[,VALUE \.\.\.\], such as embed"):
        parsed(text)


def test_the_longest_name_of_a_part_counts():
    line = Pipeline.from_iterable([1], name="a").map(str, name="a.b")

    assert placed(Setting("a", "b.c", (1,), ("1",)), line)[:2] == ("a.b", "c")
    assert placed(Setting("a", "c", (1,), ("1",)), line)[:2] == ("a", "c")
    assert placed(Setting("z", "c.d", (1,), ("1",)), line)[:2] == ("z", "c.d")
    joined = fair_merge({"k": line}, FairShare(), name="a.b.c")
    assert placed(Setting("a", "b.c.capacity", (1,), ("1",)), joined)[:2] == ("a.b.c", "capacity")


# ---- wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "funcpipe simulate: error: the following arguments are required: TARGET, RECORDING"),
        (("app:plan",), "funcpipe simulate: error: the following arguments are required: RECORDING"),
        (("app:nothing", "plan.jsonl"), "funcpipe: "),
        (("app:plan", "nothing.jsonl"), "funcpipe: nothing.jsonl: No such file or directory"),
        (("app:plan", "."), "funcpipe: .: Is a directory"),
        (("app:plan", "app.py"), "funcpipe: Recording.load: app.py, line 1 must be a JSON object"),
        (("app:other", "plan.jsonl"), "funcpipe: simulate: the recording must have 'else', which it does not; it has"),
        (("app:cannot", "plan.jsonl"), "funcpipe: the plan cannot work:\n"),
        (("app:plan", "plan.jsonl", "--set", "embed"), "funcpipe: --set must be PART.SETTING=VALUE"),
        (("app:plan", "plan.jsonl", "--set", "nothing.size=1"), "settings['nothing'] must name a part of the plan"),
        (("app:plan", "plan.jsonl", "--set", "embed.size=1"), "settings['embed']['size'] must name a setting"),
        (("app:plan", "plan.jsonl", "--set", "embed.fn=1"), "must name a setting, not a function"),
        (("app:plan", "plan.jsonl", "--set", "embed.concurrency=0"), "concurrency must be >= 1, not 0"),
        (("app:plan", "plan.jsonl", "--set", "embed.concurrency=x"), "concurrency must be an int >= 1, not a str"),
        (("app:plan", "plan.jsonl", "--set", "embed.concurrency=true"), "concurrency must be an int >= 1"),
        (("app:plan", "plan.jsonl", "--set", "embed.concurrency=1", "--set", "embed.concurrency=2"),
         "funcpipe: --set embed.concurrency is given twice\nWrite all its values in one, as in embed.concurrency=1,2"),
        (("app:plan", "plan.jsonl", "--set", f"embed.concurrency={','.join(map(str, range(1, 66)))}"),
         "funcpipe: --set: 65 combinations are too many; there may be 64"),
        (("app:plan", "plan.jsonl", "--open-loop", "embed"), "open_loop must name sources of the plan, not 'embed'"),
        (("app:plan", "plan.jsonl", "--open-loop", ""), "open_loop must not be empty"),
        (("app:plan", "plan.jsonl", "--seed", "x"), "argument --seed: invalid int value: 'x'"),
        (("app:plan", "plan.jsonl", "--nothing"), "unrecognized arguments: --nothing"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_use_has_status_two(run, arguments, message):
    status, out, err = run(*arguments)

    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_its_help_tells_the_status(run):
    status, out, err = run("--help")

    assert (status, err) == (0, "")
    assert "exit status: 0, or 2 for wrong use" in out


# ---- the picture


def test_a_picture_has_a_point_for_each_row(run, folder):
    pytest.importorskip("matplotlib", reason="it draws")
    status, _out, err = run("app:plan", "plan.jsonl", "--set", "embed.concurrency=1,2", "--plot", "out.svg")

    assert (status, err) == (0, "")
    text = (folder / "out.svg").read_text()
    for said in ("items/s", "p99 of calls, s", "as recorded", "app:plan: 8 items in 10.25 s", ">embed.concurrency<"):
        assert said in text
    first = (folder / "out.svg").read_bytes()
    run("app:plan", "plan.jsonl", "--set", "embed.concurrency=1,2", "--plot", "out.svg")
    assert (folder / "out.svg").read_bytes() == first, "the same picture each time"


def test_a_picture_of_a_run_that_took_no_time_is_drawn(run, folder):
    pytest.importorskip("matplotlib", reason="it draws")
    (folder / "quick.py").write_text("from funcpipe_trio import Pipeline\nplan = Pipeline.from_iterable([1])\n")
    recorder = Recorder()
    run_virtual(partial(Pipeline.from_iterable([1]).run, record=recorder))
    recorder.recording.save(folder / "quick.jsonl")

    status, out, err = run("quick.py:plan", "quick.jsonl", "--plot", "out.png")

    assert (status, err) == (0, "")
    assert rows(out)[1:] == [("as recorded", "0.000 s"), ("as it was, simulated", "0.000 s")]
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["nowhere/out.svg", "out.what"])
def test_a_picture_that_cannot_be_written_is_refused(run, path):
    pytest.importorskip("matplotlib", reason="it draws")
    status, out, err = run("app:plan", "plan.jsonl", "--plot", path)

    assert status == 2
    assert len(rows(out)) == 3, "the table is there"
    assert err.startswith("funcpipe: --plot: ")


def test_without_what_draws_it_names_the_extra(run, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run("app:plan", "plan.jsonl", "--plot", "out.svg")

    assert status == 2
    assert len(rows(out)) == 3, "the table is there"
    assert err == f"funcpipe: {simulating._NO_MATPLOTLIB}\n"


# ---- as a program


def program(*arguments):
    begin = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # not ignored, as in a shell
    code = f"{begin}; from funcpipe_trio._cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, "simulate", *arguments]


def started(folder, *arguments):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        program(*arguments), cwd=folder, env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}, **how
    )


def test_output_that_nobody_reads_ends_it_quietly(folder):
    values = ",".join(f"5.{'0' * 4000}{number}" for number in range(30))  # more than a pipe holds
    with started(folder, "app:fair", "fair.jsonl", "--set", f"embed.rate_limit.rate={values}") as running:
        running.stdout.close()
        err = running.stderr.read()
        assert (running.wait(60), err) == (141, "")


def test_ctrl_c_ends_it_with_one_line(folder):
    text = (folder / "fair.jsonl").read_text()
    endless = re.sub(r'("role":"items","seen":)6', r"\g<1>1000000000000", text)
    (folder / "endless.jsonl").write_text(endless)
    (folder / "told.py").write_text(f"print('here', flush=True)\n{APP}")
    with started(folder, "told:fair", "endless.jsonl") as running:
        running.stdout.readline()
        running.stdout.read(0)
        for _ in range(12):
            running.send_signal(signal.SIGINT)
            try:
                running.wait(5)  # a second signal would strike while Python ends
            except subprocess.TimeoutExpired:
                continue
            break
        assert (running.returncode, running.stderr.read()) == (130, "funcpipe: interrupted\n")
