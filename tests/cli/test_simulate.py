"""The command `funcpipe simulate`: what it prints, and that whatever it refuses it refuses before it simulates.

Mutants that die here: a wrong value that ends in a traceback; an option that is looked at only when the work is done;
an empty file that is left behind.
"""

import signal
from pathlib import Path

import pytest
import trio

from funcpipe_trio import Pipeline, RateLimit, Recorder, Step
from funcpipe_trio._cli import simulating
from funcpipe_trio._cli.main import main
from funcpipe_trio._recording import simulation
from funcpipe_trio.testing import run_virtual


async def embed(number: int) -> int:
    await trio.sleep(1)
    return number


def plan() -> Pipeline[int]:
    step = Step(embed).rate_limit(RateLimit(3, burst=1))
    return Pipeline.from_iterable(range(12), name="numbers").map(step, concurrency=2)


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, str]:
    """Return the target and the recording, as the command takes them."""
    recorder = Recorder()
    run_virtual(lambda: plan().run(record=recorder))
    recorder.recording.save(tmp_path / "run.jsonl")
    return f"{__file__}:plan", str(tmp_path / "run.jsonl")


def test_the_table(given, capsys):
    assert main(["simulate", *given, "--set", "embed.concurrency=1,4"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "settings",
        "as recorded",
        "as it was, simulated",
        "embed.concurrency=1",
        "embed.concurrency=4",
    ]
    assert lines[1].split() == ["as", "recorded", "6.333", "s", "1.89"]
    assert lines[3].split()[1:3] == ["12.000", "s"]
    assert lines[4].split()[1:3] == ["4.667", "s"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "x"], "--set must be PART.SETTING=VALUE"),
        (
            ["--set", "embed.concurrency=4,a"],
            "--set: Pipeline.map: concurrency must be an int >= 1, not a str",
        ),
        (["--set", "embed.concurrency=4,0"], "--set: Pipeline.map: concurrency must be >= 1, not 0"),
        (["--set", "embde.concurrency=4"], "--set: Pipeline.with_settings: settings['embde'] must name a part"),
        (["--set", "embed.concurrency=" + ",".join(["1"] * 65)], "--set: 65 combinations are too many"),
        (["--plot", "a.nothing"], "--plot: the file must have the name of a format, such as .svg"),
        (["--plot", "a"], "--plot: the file must have the name of a format"),
        (["--plot", "/no/such/folder/a.svg"], "--plot: /no/such/folder/a.svg cannot be written: No such file"),
    ],
)
def test_what_is_refused_before_anything_is_simulated(given, options, said, capsys, monkeypatch):
    monkeypatch.setattr(simulating, "simulate", None)

    assert main(["simulate", *given, *options]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith(f"funcpipe: {said}")


def test_a_picture_is_drawn_and_nothing_is_left_where_none_is(given, tmp_path):
    good, bad = tmp_path / "good.svg", tmp_path / "bad.svg"

    assert main(["simulate", *given, "--set", "embed.concurrency=1,2", "--plot", str(good)]) == 0
    assert main(["simulate", *given, "--set", "embed.concurrency=a", "--plot", str(bad)]) == 2

    assert good.read_text(encoding="utf-8").startswith("<?xml")
    assert not bad.exists()


def test_ctrl_c_ends_it_with_a_single_line(given, capsys, monkeypatch):
    """In the middle of a simulation, where nurseries are open."""
    monkeypatch.setattr(simulation._Theatre, "_forget", lambda *_: signal.raise_signal(signal.SIGINT))

    assert main(["simulate", *given]) == 130
    assert capsys.readouterr().err == "funcpipe: interrupted\n"
