"""The layers: imports go down only, and the pure ones know nothing of trio, time or chance."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import funcpipe_trio

ROOT = Path(funcpipe_trio.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

FLOORS = {
    "_base": 0,
    "policies": 1,
    "_sansio": 2,
    "_plan": 2,
    "_runtime": 3,
    "_recording": 4,
    "step": 4,
    "pipeline": 5,
    "merging": 6,
    "service": 7,
    "exporters": 8,
    "codecs": 1,
    "testing": 7,
    "_watch": 7,
    "_cli": 8,
    "__main__": 9,
    "__init__": 9,
}
PURE = {"_base", "policies", "_sansio", "_plan"}
WORLD = {"trio", "outcome", "asyncio", "time", "random", "threading"}


def layer(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(module: Path) -> list[tuple[str, bool]]:
    """Return what a module imports when it is loaded: names from the package's root on, and whether they are ours."""
    tree = ast.parse((ROOT / module).read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            if not node.level:
                found.append((node.module or "", False))
                continue
            package = module.parent.parts[: len(module.parent.parts) - node.level + 1]
            target = ".".join((*package, *filter(None, [node.module])))
            found += [(target, True)] if target else [(alias.name, True) for alias in node.names]
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down_only(module):
    """A module imports from its own folder or from a lower floor, never across or up."""
    own = layer(module)
    for target, ours in imports(module):
        if ours:
            other = target.partition(".")[0]
            assert other == own or FLOORS[other] < FLOORS[own], f"{module} imports {target}"
        else:
            assert not target.startswith("funcpipe_trio"), f"{module}: say it with dots"


ROOMS = (
    *("core", "reports", "links", "fair_channel", "hub", "runners", "calls"),
    *("operations", "junctions", "stages", "pools", "run"),
)
"""Of the runtime, in their order."""
OF_ROOMS = [module for module in MODULES if layer(module) == "_runtime" and len(module.parts) == 3]


@pytest.mark.parametrize("module", OF_ROOMS, ids=str)
def test_rooms_of_the_runtime_import_from_those_above_only(module):
    """So each can be read with what is above it alone."""
    room = ROOMS.index(module.parts[1])
    for target, ours in imports(module):
        if ours and target.startswith("_runtime."):
            assert ROOMS.index(target.split(".")[1]) <= room, f"{module} imports {target}"


def test_all_of_the_runtime_is_in_a_room():
    assert {module.parts[1] for module in OF_ROOMS} == set(ROOMS)
    assert {str(module) for module in MODULES if layer(module) == "_runtime"} == {
        *map(str, OF_ROOMS),
        "_runtime/__init__.py",
    }


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module) in PURE], ids=str)
def test_pure_layers_know_nothing_of_the_world(module):
    """Policies, machines and plans are told the time and chance; they never ask."""
    outside = {target.partition(".")[0] for target, ours in imports(module) if not ours}

    assert not outside & WORLD


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_private_names_of_trio(module):
    """Only what trio promises is used; the one file that must do otherwise says so."""
    uses = re.search(r"(?<!funcpipe_)trio\._", (ROOT / module).read_text()) is not None

    assert uses == (module == Path("_runtime/core/task_order.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_functions_fit_in_the_eye(module):
    """No function is longer than 40 lines, docstring aside; public docstrings may say as much as they must."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < 40, f"{module}: {node.name}"


RARE = {
    *("adapting", "advice", "again", "balancing", "batching", "between", "circuit", "combining", "deadline"),
    *("elsewhere", "expanding", "flat_map", "held", "keyed", "keyed_batching", "latest", "loop", "made"),
    *("map_some", "nested", "on_end", "or_else", "orders", "own", "own_by_key", "paced"),
    *("plan_settings", "rejoining", "resources", "restarting", "sorting", "stream_timeout", "threaded", "through"),
    *("tolerant_merge", "using", "windows", "worker_processes", "worker_program"),
    *(
        "cost_link",
        "costs",
        "eager",
        "gate",
        "coalescing",
        "gated",
        "hedging",
        "keep_alive",
        "keyed_admission",
        "rendezvous",
        "stop_when",
    ),
}
HEAVY = {"asyncio", "concurrent.futures", "matplotlib", "multiprocessing", "rich", "statistics"}


def test_what_is_rare_waits_for_its_first_use():
    """To import the package does not import what few programs need; catches an import that goes back to the top."""
    code = "import sys, trio; before = set(sys.modules); import funcpipe_trio; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())

    assert "funcpipe_trio._runtime.run.build" in loaded
    assert not loaded & HEAVY
    assert not {name for name in loaded if "._runtime." in name and name.rpartition(".")[2] in RARE}
    assert {name for name in loaded if "._watch." in name} == {
        f"funcpipe_trio._watch.{name}" for name in ("app", "live")
    }


PUBLIC = {
    "funcpipe_trio",
    "funcpipe_trio.codecs",
    "funcpipe_trio.merging",
    *(f"funcpipe_trio.exporters{name}" for name in ("", ".opentelemetry", ".prometheus")),
    "funcpipe_trio.pipeline",
    "funcpipe_trio.service",
    "funcpipe_trio.step",
    *(f"funcpipe_trio.policies{name}" for name in ("", ".adaptive", ".circuit_breaker", ".fair_share", ".on_error")),
    *(f"funcpipe_trio.policies.{name}" for name in ("on_full", "rate_limit", "retry")),
    "funcpipe_trio.testing",
    "funcpipe_trio.testing.strategies",
}


def test_the_public_modules_are_these():
    """All else is behind an underscore: it may change in any version."""
    names = {".".join(("funcpipe_trio", *module.with_suffix("").parts)) for module in MODULES}
    names = {name.removesuffix(".__init__") for name in names}

    assert {name for name in names if "._" not in name} == PUBLIC


CLASSES = [face for face in vars(funcpipe_trio).values() if isinstance(face, type)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_public_class_says_where_a_user_finds_it(cls):
    """In tracebacks, pickles and pages."""
    assert (cls.__module__, getattr(funcpipe_trio, cls.__name__)) == ("funcpipe_trio", cls)


@pytest.mark.parametrize("name", ["Backoff", "CircuitBreaker", "FairShare", "Failure", "RateLimit", "Retry", "Threads"])
def test_the_annotations_of_a_value_mean_what_they_did(name):
    """Where they were written: what makes values of settings, or of random ones, asks."""
    cls = getattr(funcpipe_trio, name)

    hints = typing.get_type_hints(cls)
    assert {each.name for each in dataclasses.fields(cls)} <= set(hints)
    assert set(inspect.signature(cls).parameters) <= set(typing.get_type_hints(cls.__init__))
    assert not any(isinstance(hint, str | typing.ForwardRef) for hint in hints.values())


def test_what_public_signatures_name_is_public():
    """Types that a user has to write down are found at the top."""
    assert {"Stop", "Skip", "Emit", "Divert", "Threads", "Processes", "InExecutor"} <= set(vars(funcpipe_trio))


def test_everything_public_is_importable_from_the_top():
    """Each name of the package's face has a docstring and comes from one of its modules."""
    names = [name for name in vars(funcpipe_trio) if not name.startswith("_")]
    faces = [getattr(funcpipe_trio, name) for name in names]

    for face in faces:
        assert face.__doc__ or not callable(face)
    assert {"Pipeline", "FairChannel", "FairShare", "fair_merge", "PlanError"} <= set(names)
