"""What the pages say is there, is there."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PAGES_THAT_RUN = [
    *("adaptive.md", "blame.md", "branches.md", "errors.md", "fair_by.md", "fan_in.md", "hub.md", "keys.md"),
    *("limits.md", "loops.md", "operators.md", "own.md", "resources.md", "review.md", "second_calls.md"),
    *("service.md", "steps.md", "testing.md", "timing.md", "watch.md", "whatif.md", "windows.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    """No page sends its reader to a file that is not there."""
    text = page.read_text()
    named = set(re.findall(r"(?:tests|docs|benchmarks|funcpipe_trio)/[\w/.*]+", text))
    inside = re.findall(r"(?<![\w/])(?:_base|policies|_sansio|_plan|_runtime|testing)/[\w/]+\.py", text)
    named |= {f"funcpipe_trio/{name}" for name in inside}
    missing = [name for name in named if not list(ROOT.glob(name.rstrip("./")))]

    assert not missing


def test_every_promise_is_in_the_table():
    """P1 to P19 each have a row."""
    text = (ROOT / "docs" / "promises.md").read_text()

    assert [number for number in range(1, 20) if not re.search(rf"^\| P{number} \|", text, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES_THAT_RUN)
def test_the_examples_of_a_page_run_and_print_what_it_shows(page, monkeypatch, tmp_path, capsys):
    """The page's code runs, in virtual time, and each text block, and drawing, is in what it prints."""
    text = (ROOT / "docs" / page).read_text()
    script = tmp_path / "example.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)))
    run = trio.run

    def run_in_virtual_time(main, *args, **how):
        how.setdefault("clock", trio.testing.MockClock(autojump_threshold=0))
        return run(main, *args, **how)

    monkeypatch.setattr(trio, "run", run_in_virtual_time)
    monkeypatch.chdir(tmp_path)  # an example may write a file
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out

    assert [shown for shown in re.findall(r"```(?:text|mermaid)\n(.*?)```", text, re.S) if shown not in printed] == []


def test_the_example_of_runners_runs_as_a_script(tmp_path):
    """With worker processes, which load it again: it prints its plan, and the largest sum of digits."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "runners.md").read_text(), re.S)
    script = tmp_path / "example.py"
    script.write_text(code)

    done = subprocess.run([sys.executable, "-X", "dev", script], capture_output=True, text=True, check=False)

    largest = max(sum(map(int, str(3**number))) for number in range(1000))
    assert (done.returncode, done.stderr) == (0, "")
    assert "    call chunked digits on up to 2 processes\n" in done.stdout
    assert done.stdout.splitlines()[-1] == str(largest)
