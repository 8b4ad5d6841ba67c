"""A recording is what it was when it is read again, and a file that is not sound is refused, with its line.

Mutants that die here: a kind of sample that is written and not read, or read as another; a check that is left out; a
line that is missing or doubled; an error of another type, or one that does not say where.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from funcpipe_trio import Pipeline, Recording, Retry, Step, simulate
from funcpipe_trio.testing.strategies import pipelines
from tests.operators.catalogue import CASES, Feed, tokens
from tests.recording._recorded import recorded

on_disk = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def attempted(item: int) -> int:
    await trio.sleep(0.25)
    if item == 2:
        raise OSError(item)
    return item


def line() -> Pipeline[Any]:
    """Return a plan whose recording has most kinds of tapes."""
    step = Step(attempted).retry(Retry(2, lambda error: True))
    return (
        Pipeline.from_iterable(range(4), name="numbers")
        .filter(lambda item: item != 1)
        .map(step, name="step")
        .flat_map(lambda item: [item] * item)
    )


def written(recording: Recording, path: Path) -> list[str]:
    recording.save(path)
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def assert_comes_back(recording: Recording, path: Path) -> None:
    recording.save(path)
    again = Recording.load(path)
    assert again == recording
    assert repr(again) == repr(recording)


# ---- round trips


@pytest.mark.parametrize("max_samples", [3, 10_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_comes_back_as_it_was(case, max_samples, path):
    assert_comes_back(recorded(case.make(Feed(tokens(9), 0.7)), max_samples=max_samples), path)


@on_disk
@given(plan=pipelines(), max_samples=st.sampled_from([1, 3, 100]))
def test_any_recording_comes_back(plan, max_samples, path):
    assert_comes_back(recorded(plan, max_samples=max_samples), path)


def test_the_simulations_of_both_are_the_same(path):
    recording = recorded(line())
    recording.save(path)

    one, other = simulate(line(), recording), simulate(line(), Recording.load(path))

    assert (one.describe(), repr(one.error)) == (other.describe(), repr(other.error))
    assert one.outcome == "failed"


def test_recordings_of_other_runs_are_not_equal():
    one, other = recorded(line()), recorded(line(), max_samples=2)

    assert one == recorded(line())
    assert one != other


def test_a_file_that_is_there_is_replaced(path):
    path.write_text("x" * 10**5)

    assert_comes_back(recorded(line()), str(path))


def test_names_of_every_alphabet_come_back(path):
    plan = Pipeline.from_iterable([1], name="quelle ä\u2028\x85 \ud800").map(attempted, name="\U0001f600\n")

    assert_comes_back(recorded(plan), path)


# ---- damage


def refusal(path: Path) -> str:
    """Return what is said of a file, without its path."""
    with pytest.raises(ValueError, match=re.escape(f"Recording.load: {path}")) as caught:
        Recording.load(path)
    assert type(caught.value) is ValueError
    return str(caught.value).removeprefix(f"Recording.load: {path}").removeprefix(",").removeprefix(" ")


def test_a_file_that_is_cut_anywhere_is_refused(path):
    text = "\n".join(written(recorded(line()), path))
    for size in range(1, len(text)):
        path.write_text(text[:size])
        number = text[:size].count("\n", 0, size - 1) + 1
        assert refusal(path).startswith(f"line {number} must be "), size


def test_a_line_that_is_missing_doubled_or_of_another_place_is_refused(path):
    lines = written(recorded(line()), path)
    for number in range(len(lines)):
        without = lines[:number] + lines[number + 1 :]
        for damaged in (without, [*lines, lines[number]], [*without, lines[number]][:-1], ["", *lines]):
            path.write_text("\n".join(damaged))
            assert refusal(path).startswith("line ")


VALUES = ["-1", "1e999", "1" + "0" * 400, "1" + "0" * 5000, "NaN", "-Infinity", '"x"', "true", "{}", "[[]]", "[null,1]"]


def test_a_value_in_the_place_of_another_is_refused_or_right(path):
    """Nothing but a `ValueError` comes out of it; what is taken can be simulated, and has a report."""
    lines = written(recorded(line()), path)
    for number, text in enumerate(lines):
        for found in re.finditer(r"(?<=[:,\[])(\"[^\"]*\"|[\d.]+|null|true|false)(?=[,\]}])", text):
            for value in VALUES:
                damaged = text[: found.start()] + value + text[found.end() :]
                path.write_text("\n".join([*lines[:number], damaged, *lines[number + 1 :]]))
                try:
                    taken = Recording.load(path)
                except ValueError as error:
                    assert f"{path}, line " in str(error), damaged
                else:
                    assert value in ("true", '"x"', "-1", "{}"), damaged
                    with contextlib.suppress(ValueError):  # of a part that has another name now
                        simulate(line(), taken)


def head(**changes: Any) -> str:
    right = {"elapsed": 1.0, "taken": 1, "delivered": 1, "outcome": "completed", "seed": None}
    right |= {"has_consumer": True, "changes": [], "tapes": 1}
    return json.dumps({"funcpipe_trio recording": 1, **right, **changes})


def tape(role: str, samples: Any, **changes: Any) -> str:
    count = len(samples) if isinstance(samples, list) else 1
    return json.dumps({"part": "a", "path": "b", "role": role, "seen": count, "samples": samples, **changes})


FAILURE = {"type": "OSError", "answers": {}}
REFUSED = [
    ("", "must not be empty"),
    ("\n", "line 1 must be a JSON object; it is cut off, say"),
    ("[]", "line 1 must be a JSON object"),
    ('{"a":' * 10_000, "line 1 must be a JSON object; it is cut off, say"),
    ("{}", "line 1 must be the head of a recording, with 'funcpipe_trio recording'"),
    ('{"version": 1}', "line 1 must be the head of a recording, with 'funcpipe_trio recording'"),
    *((head(**{"funcpipe_trio recording": value}), f"line 1 must be of version 1, not {text}") for value, text in (
        (2, "2"), (True, "true"), (1.0, "1.0"), ("1", '"1"'), (None, "null"), ([1], "[1]")
    )),
    *((head(**{name: value}), f"line 1 has no '{name}' of the right form") for name, value in (
        ("elapsed", -1), ("elapsed", True), ("elapsed", 1e13), ("elapsed", "1"), ("elapsed", None),
        ("taken", 1.0), ("taken", -1), ("taken", False), ("taken", 2**63), ("delivered", None),
        ("outcome", "running"), ("outcome", ""), ("outcome", ["left"]), ("seed", "x"), ("seed", 1.5),
        ("seed", 1 << 64), ("seed", -1), ("seed", True),
        ("has_consumer", 1), ("changes", {}), ("changes", [1]),
        ("changes", [[1, "leave"]]), ("changes", [[-1, "drain"]]),
        ("changes", [[1, "drain", 2]]), ("tapes", None), ("tapes", -1), ("tapes", True),
    )),
    (head(), "line 1 must be the last of 2 lines, by what the first one says"),
    (head(tapes=0) + "\n" + tape("answers", [True]), "line 2 must be the last of 1 lines, by what the first one says"),
    *((f"{head()}\n{line}", f"line 2 {said}") for line, said in (
        (tape("x", []), "has a role that is not known, 'x'"),
        (tape("answers", [], part=1), "must have a part, a path and a role"),
        (tape("answers", [], path=None), "must have a part, a path and a role"),
        (tape("answers", {}), "must have the number seen, and samples"),
        (tape("answers", [], seen=True), "must have the number seen, and samples"),
        (tape("answers", [True], seen=2), "must have as many samples as it has seen, or numbers"),
        (tape("answers", [True], seen=2, numbers=[2]), "must have numbers below that of what was seen"),
        (tape("answers", [True], seen=2, numbers=[-1]), "must have numbers >= 0"),
        (tape("answers", [True], seen=2, numbers=1), "must have numbers >= 0"),
        (tape("answers", [True], seen=2, numbers=[0, 1]), "must have one number for each sample, in order"),
        (tape("answers", [1, 1], seen=2, numbers=[1, 0]), "must have one number for each sample, in order"),
        (tape("answers", [1, 1], seen=2, numbers=[1, 1]), "must have one number for each sample, in order"),
        (tape("bursts", []), "must have one sample"),
        (tape("bursts", [[1, 1], [1, 1]]), "must have one sample"),
        (tape("answers", [{"type": 1, "answers": {}}]), "has a failure of a wrong form"),
        (tape("answers", [{"type": "a\0", "answers": {}}]), "has a failure of a wrong form"),
        (tape("answers", [{"type": "\ud800", "answers": {}}]), "has a failure of a wrong form"),
        (tape("answers", [{"type": "A", "answers": []}]), "has a failure of a wrong form"),
        (tape("answers", [{"type": "A", "answers": {"retry.on": "secret"}}]), "has a failure of a wrong form"),
        (tape("answers", [{"fraction": [1, 0]}]), "has a wrong fraction"),
        (tape("answers", [{"fraction": [1, -2]}]), "has a wrong fraction"),
        (tape("answers", [{"fraction": [1.0, 2]}]), "has a wrong fraction"),
        (tape("answers", [{"fraction": [1]}]), "has a wrong fraction"),
    )),
    *((f"{head()}\n{tape(role, [value])}", f"line 2 must have {role} as samples; that with index 0 is not one")
      for role, values in (
        ("calls", ([], "x", True, None, [[1, 2]], [[]], [[1, FAILURE, 2]], -1, 1e13)),
        ("answers", (None, [1], {"a": 1})),
        ("children", (1, [FAILURE])),
        ("counts", (1.0, [1], [FAILURE, 1], [1, 2], [-1, FAILURE])),
        ("pulls", ([1], None)), ("arrivals", ([1], None)), ("holds", ([1], None)),
        ("ends", (None, [])), ("items", (1,)), ("bursts", (1, [1], [1.5, 1], [1, -1], [1, 1, 1])),
    ) for value in values),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_wrong_is_said(text, said, path):
    path.write_text(text)

    assert refusal(path) == said


def test_what_is_right_is_taken(path):
    path.write_text(head(changes=[[0.5, "pause"], [1, "resume"]]) + "\n" + tape("calls", [1, [1, [2, FAILURE], [3]]]))

    assert Recording.load(path).changes == ((0.5, "pause"), (1.0, "resume"))


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "must be text"), ("utf-8-sig", "line 1 must be a JSON")])
def test_other_encodings_are_refused(encoding, said, path):
    path.write_text(head(tapes=0), encoding=encoding)

    assert refusal(path).startswith(said)


def test_what_cannot_be_read_is_an_error_of_the_system(tmp_path):
    for wrong in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(OSError, match=re.escape(str(wrong))):
            Recording.load(wrong)
    with pytest.raises(OSError, match="nothing"):
        recorded(line()).save(tmp_path / "nothing" / "run.jsonl")


def test_a_failure_that_a_file_tells_of_is_played(path):
    plan = Pipeline.from_iterable([1], name="a").map(attempted, name="a")
    items = json.dumps({"part": "a", "path": "items", "role": "items", "seen": 1, "numbers": [], "samples": []})
    path.write_text(f"{head(tapes=2)}\n{tape('calls', [[[1, FAILURE]]])}\n{items}".replace('"b"', '"fn"'))

    with pytest.raises(ValueError, match="the recording must have 'a#2', which it does not; it has 'a'"):
        simulate(plan, Recording.load(path))


@pytest.mark.parametrize("seed", [0, 1 << 63, (1 << 64) - 1])
def test_any_seed_that_a_run_draws_is_read(tmp_path, seed):
    """They have 64 bits."""
    recording = Recording(1.0, 1, 1, "completed", seed, has_consumer=False, changes=(), tapes={})
    recording.save(tmp_path / "run.jsonl")

    assert Recording.load(tmp_path / "run.jsonl").seed == seed
