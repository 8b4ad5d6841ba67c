"""What the pages say is there, is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    """No page sends its reader to a file that is not there."""
    named = set(re.findall(r"(?:tests|docs|benchmarks|funcpipe_trio)/[\w/.*]+", page.read_text()))
    missing = [name for name in named if not list(ROOT.glob(name.rstrip("./")))]

    assert not missing


def test_every_promise_is_in_the_table():
    """P1 to P19 each have a row, or are said to come with their policy."""
    text = (ROOT / "docs" / "promises.md").read_text()

    assert [number for number in range(1, 20) if not re.search(rf"\bP{number}\b", text)] == []
