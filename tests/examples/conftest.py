"""How the tests load an example as a module, run it here, and start it as a program of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Ctrl-C is ignored in a program that was started with SIGINT ignored, as a background job is. This takes it back, and
# becomes the program.
INTERRUPTIBLE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)"
BECOME = "os.execv(sys.executable, sys.orig_argv[3:])"


@pytest.fixture
def start(tmp_path):
    """Start examples by name, in `tmp_path`, after some code; what still runs at the end is killed."""
    started = []

    def start(name, *arguments, after="pass", **how):
        example = [sys.executable, "-u", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
        how = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
        how["env"] = {**os.environ, **how.get("env", {})}
        process = subprocess.Popen([sys.executable, "-c", f"{INTERRUPTIBLE}; {after}; {BECOME}", *example], **how)
        started.append(process)
        return process

    yield start
    for process in started:
        with process:  # closes its pipes, and waits
            process.kill()


@pytest.fixture(scope="module")
def load():
    """Load examples by name, as modules that are there until the last test of the file has ended."""
    loaded = []

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up, and one example imports another
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the file's `example` in `tmp_path`, with the database `out.db`; give status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, db="out.db"):
        status = example.main([*map(str, arguments), "--db", str(db)])
        return status, *capsys.readouterr()

    return run
