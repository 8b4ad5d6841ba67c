"""What the README shows is what runs."""

import re
import runpy
from pathlib import Path

import pytest
import trio
import trio.testing

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)[number]


@pytest.fixture
def printed(monkeypatch, tmp_path, capsys):
    """Run the example in virtual time, and give what it prints."""
    script = tmp_path / "example.py"
    script.write_text(block("python"))
    run = trio.run
    monkeypatch.setattr(trio, "run", lambda main: run(main, clock=trio.testing.MockClock(autojump_threshold=0)))
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_example_prints_the_plan_that_is_shown(printed):
    """The plan in the README is the example's plan, to the letter."""
    assert printed.startswith(block("text") + "\n")


def test_example_reports_what_became_of_every_item(printed):
    """All 260 texts are embedded, and leave in batches; the report says what was the limit."""
    assert "260 taken" in printed
    assert "completed" in printed
    assert "limited by: " in printed


def test_example_has_at_most_thirty_lines_of_code():
    """It stays something to read at one go."""
    lines = [line for line in block("python").splitlines() if line.strip()]

    assert len(lines) <= 30


def test_own_pipelines_can_be_proven(tmp_path, capsys):
    """The second example puts a pipeline through two campaigns, and prints their sums."""
    script = tmp_path / "example.py"
    script.write_text(block("python", 1))
    runpy.run_path(str(script), run_name="__main__")

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("cancel_everywhere of make: ")
    assert second.startswith("fail_everywhere of make: ")
