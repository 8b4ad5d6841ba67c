"""What holds for every example as a program: how it begins, and how it ends when it is stopped or not read.

Where Ctrl-C strikes is not left to chance: the program sends it to itself, from a module that Python imports before
any other (`sitecustomize`) or instead of another.
"""

import os
import subprocess

import pytest

LONG = {
    "crawl": ["--pages", "9999"],
    "embed_tenants": ["a=here"],
    "fan_out": ["/dev/stdin"],
    "index_folders": ["here"],
    "noisy_tenant": ["--seconds", "300"],
    "overload": ["--seconds", "300"],
}
SHORT = LONG | {
    "crawl": ["--pages", "9", "--rate", "500"],
    "noisy_tenant": ["--seconds", "0.1"],
    "overload": ["--seconds", "0.1"],
}
CTRL_C = "import os, signal\ndef ctrl_c(*_): os.kill(os.getpid(), signal.SIGINT)\n"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C, pipes and /dev/stdin of POSIX")


@pytest.fixture(autouse=True)
def here(tmp_path):
    """A folder to embed or to index."""
    (tmp_path / "here").mkdir()
    for number in range(20):
        (tmp_path / "here" / f"{number}.txt").write_text("\n\n".join(f"words {number} {each}" for each in range(5)))


@pytest.fixture
def end(start, tmp_path):
    """Run an example with a module of ours on its path, to its end; give status, stdout, and complaints."""

    def end(name, *arguments, module="sitecustomize", code="", **how):
        (tmp_path / "ours").mkdir()
        (tmp_path / "ours" / f"{module}.py").write_text(code)
        process = start(name, *arguments, env={"PYTHONPATH": str(tmp_path / "ours")}, stdin=subprocess.PIPE, **how)
        out, err = process.communicate('- - - [-] "GET / HTTP/1.1" 200 1\n' * 20_000, timeout=60)
        return process.returncode, out, [line for line in (err or "").splitlines() if not line.startswith("  ")]

    return end


@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_while_it_imports_ends_it_in_a_line(end, name):
    assert end(name, *LONG[name], module="argparse", code=f"{CTRL_C}ctrl_c()") == (130, "", [f"{name}: interrupted"])


@pytest.mark.parametrize("name", SHORT)
def test_ctrl_c_while_it_ends_is_no_more_than_a_line(end, name):
    """Also when all was done before."""
    status, out, complaints = end(name, *SHORT[name], code=f"{CTRL_C}import atexit\natexit.register(ctrl_c)")

    assert (status, complaints) == (130, [f"{name}: interrupted"])
    assert "limited by: " in out


@pytest.mark.parametrize("number", [5, 8])
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_while_a_task_starts_ends_it_in_a_line(end, name, number):
    """Between the two steps in which a nursery takes a task over: one that is lost there is waited for, forever."""
    code = f"""{CTRL_C}
import trio
class Strikes(trio.abc.Instrument):
    started = 0
    def task_spawned(self, task):
        self.started += 1
        if self.started == {number}:
            ctrl_c()
run = trio.run
trio.run = lambda *arguments, **names: run(*arguments, **names, instruments=[Strikes()])
"""
    status, _, complaints = end(name, *LONG[name], code=code)

    assert (status, len(complaints)) == (130, 1), complaints
    assert complaints[0].startswith(f"{name}: interrupted")


@pytest.mark.parametrize("name", SHORT)
def test_a_closed_pipe_ends_it_without_a_word(end, name):
    """As ``| head -1`` does."""
    read, write = os.pipe()
    os.close(read)
    try:
        status, _, complaints = end(name, *SHORT[name], stdout=write)
    finally:
        os.close(write)

    assert (status, complaints) == (141, [])


@pytest.mark.parametrize("name", SHORT)
def test_output_that_finds_no_room_is_one_line(end, name):
    with open("/dev/full", "w") as full:
        status, _, complaints = end(name, *SHORT[name], stdout=full)

    assert (status, len(complaints)) == (1, 1)
    assert complaints[0].startswith(f"{name}: ")


@pytest.mark.parametrize("name", SHORT)
def test_it_needs_no_output(end, name):
    """Both closed, so that the next files and sockets would take their places."""
    assert end(name, *SHORT[name], after="os.close(1); os.close(2)") == (0, "", [])


@pytest.mark.parametrize("name", SHORT)
def test_help_is_plain_text(start, name):
    """No colour is used, nor any other code of a terminal."""
    process = start(name, "--help", env={"COLUMNS": "40", "TERM": "dumb", "NO_COLOR": "1"})
    out, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"usage: {name}.py ")
    assert out.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", SHORT)
def test_an_unknown_argument_is_refused(start, name):
    process = start(name, "--nonsense")
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"usage: {name}.py ")


def test_an_error_of_ours_keeps_its_traceback(end):
    """What is no Ctrl-C and no lost output is a mistake in the program, and is shown as such."""
    status, _, complaints = end(
        "overload", code="import trio\ndef run(*_, **__): raise KeyError('ours')\ntrio.run = run"
    )

    assert (status, complaints[-1]) == (1, "KeyError: 'ours'")
