"""What was entered is left once; here, where a strike of Ctrl-C comes in a moment that no trace function can choose.

Mutants that die here: a block that is not left because the signal came just before its end; one that is left twice.
"""

import pytest

from funcpipe_trio import Pipeline
from funcpipe_trio._runtime.core.held import Held
from funcpipe_trio.testing import run_virtual

CALL_EXIT = Held._call_exit


class Entered:
    left = 0

    def __enter__(self):
        return "ab"

    def __exit__(self, *_error):
        self.left += 1


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_strike_around_the_end_of_its_block(monkeypatch, when):
    resource = Entered()

    def struck(held, *told):
        if when == "behind":
            CALL_EXIT(held, *told)
        raise KeyboardInterrupt

    monkeypatch.setattr(Held, "_call_exit", struck)
    with pytest.raises(KeyboardInterrupt):
        run_virtual(Pipeline.using(lambda: resource, iter).collect)

    assert resource.left == 1
