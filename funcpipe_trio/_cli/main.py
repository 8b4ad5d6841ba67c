"""What does the command `funcpipe` do? It describes, compares and reviews plans, runs one, and asks what if.

The rule: the answer goes to standard output, everything else to standard error; the exit status says what a script has
to know. Output that nobody reads any more, as after ``| head -1``, and Ctrl-C end it without a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from .._base.errors import PlanError
from .._base.shown import escaped
from .._plan.diff import diff
from .._plan.formats import FORMATS
from .._plan.review import Finding, review
from .._plan.rules import RULES
from .._recording.recording import Recording
from ..service import GRACE
from .completion import SCRIPTS
from .running import ABORTED, FAILED, LATE, Refused, Shown, run, writable
from .target import TargetError, find, find_document, found

WRONG_USE = 2
INTERRUPTED = 130  # as a shell shows a program that Ctrl-C ended
CLOSED_PIPE = 141  # and one whose output nobody read

_TARGET = "MODULE:NAME or FILE.py:NAME of a pipeline, or of a function without arguments that returns one"
_STATUS = """exit status:
  0    described; simulated; equal; no findings; completed or drained (run)
  1    different (diff); findings (review); failed (run)
  2    wrong use, no such pipeline, or a plan that cannot work
  124  drained, but not within the grace period (run)
  130  Ctrl-C; aborted by a second signal (run)
  141  the output was closed"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not all terminals can show all names
    try:
        status = _answered(arguments)
        if sys.stdout is not None:  # it was closed before the program began
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return CLOSED_PIPE
    return status


def _answered(arguments: Sequence[str] | None) -> int:
    given = parser().parse_args(arguments)
    try:
        status: int = given.answer(given)
    except TargetError as error:
        return _say(str(error), WRONG_USE)
    except PlanError as error:
        return _say(f"the plan cannot work:\n{error}", WRONG_USE)
    except (Refused, ValueError) as error:  # such as a rule that is not known
        return _say(str(error), WRONG_USE)
    return status


def _say(message: str, status: int) -> int:
    lines = [escaped(line) for line in message.splitlines()]
    print(*[f"funcpipe: {lines[0]}", *lines[1:]], sep="\n", file=sys.stderr)
    return status


# ---- the commands


def _describe(given: argparse.Namespace) -> int:
    print(find(given.target).describe(given.format))
    return 0


def _diff(given: argparse.Namespace) -> int:
    changes = diff(find_document(given.old), find_document(given.new))
    if changes:
        print(changes)
    return 1 if changes else 0


def _review(given: argparse.Namespace) -> int:
    findings = review(find(given.target), given.max_in_flight, ignore=given.ignore)
    for finding in findings:
        print(_told(finding))
    return 1 if findings else 0


def _run(given: argparse.Namespace) -> int:
    address = "127.0.0.1" if given.bind is None else given.bind
    if given.bind is not None and given.web is None:
        raise Refused("--bind says where --web listens, so it needs --web PORT")
    with found(given.target) as plan:
        return run(plan, given.grace, Shown(given.target, given.live, given.web, address, given.record))


def _simulate(given: argparse.Namespace) -> int:
    from . import simulating  # what it needs is not needed to describe a plan

    recording = _loaded(given.recording)
    if given.plot is not None:
        simulating.check_picture(given.plot)
    with found(given.target) as plan, writable("--plot", given.plot):
        settings = [simulating.placed(each, plan) for each in map(simulating.parsed, given.set)]
        rows = simulating.compared(plan, recording, settings, given.seed, given.open_loop)
        print(simulating.table(rows))
        if given.plot is not None:
            title = f"{given.target}: {recording.taken} items in {recording.elapsed:.6g} s"
            simulating.plot(rows, settings, given.plot, title)
    return 0


def _loaded(path: str) -> Recording:
    try:
        return Recording.load(path)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def _completion(given: argparse.Namespace) -> int:
    print(SCRIPTS[given.shell].read_text(encoding="utf-8"), end="")
    return 0


def _told(finding: Finding) -> str:
    """Return a finding as one line, or wrapped to the width of a terminal."""
    if not sys.stdout.isatty():
        return finding.describe()
    width = max(20, shutil.get_terminal_size().columns - 1)
    head, *more = (f"{finding.where}: {finding.what} [{finding.rule}]", finding.why, finding.fix)
    lines = [textwrap.wrap(escaped(head), width, subsequent_indent="  ")]
    lines += [textwrap.wrap(escaped(each), width, initial_indent="  ", subsequent_indent="  ") for each in more]
    return "\n".join(line for each in lines for line in each)


# ---- the arguments


class _Form(argparse.HelpFormatter):
    """Wraps texts around the command line by line, and tables below their first column."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.splitlines():
            below = "" if line == line.lstrip() else "      "
            lines += textwrap.wrap(line, width, initial_indent=indent, subsequent_indent=indent + below) or [""]
        return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form: dict[str, Any] = {"formatter_class": _Form, "allow_abbrev": False}
    made = argparse.ArgumentParser(
        "funcpipe", description="Describe, compare, review, run and simulate pipelines.", epilog=_STATUS, **form
    )
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_describe(commands.add_parser("describe", help="show a plan", description="Show a plan.", **form))
    told = "Tell what changed between two plans: a line for each change, and what they do to the bound."
    _add_diff(commands.add_parser("diff", help="tell what changed between two plans", description=told, **form))
    told = "Find what is probably not meant in a plan. To a terminal findings are wrapped, elsewhere each is one line."
    _add_review(commands.add_parser("review", help="find what is probably not meant", description=told, **form))
    told = "Run a plan until it ends. SIGTERM or Ctrl-C drains it, a second one aborts it, a third ends the program."
    _add_run(commands.add_parser("run", help="run a plan as a service", description=told, **form))
    told = "Say what a recorded run would have been with other settings: the plan runs again, in virtual time."
    _add_simulate(
        commands.add_parser("simulate", help="say what a recorded run would have been", description=told, **form)
    )
    told = "Print a script by which a shell completes this command."
    _add_completion(commands.add_parser("completion", help="print a script for a shell", description=told, **form))
    return made


def _add_describe(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0, or 2 for wrong use"
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    told = f"{', '.join(FORMATS)}; mermaid and dot (Graphviz) are drawings"
    parser.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=told)
    parser.set_defaults(answer=_describe)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0 if they are equal, 1 if not, 2 for wrong use"
    told = f"{_TARGET}; or FILE.json, which describe --format json has written"
    parser.add_argument("old", metavar="OLD", help=told)
    parser.add_argument("new", metavar="NEW", help="the same")
    parser.set_defaults(answer=_diff)


def _add_review(parser: argparse.ArgumentParser) -> None:
    rules = "\n".join(f"  {rule.name:<20}{rule.what}" for rule in RULES)
    parser.epilog = f"rules:\n{rules}\n\nexit status: 0 without findings, 1 with some, 2 for wrong use"
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    told = "the most items that the plan may hold; by default any number"
    parser.add_argument("--max-in-flight", type=int, metavar="N", help=told)
    told = "leave out a rule; may be given several times"
    parser.add_argument("--ignore", action="append", default=[], metavar="RULE", help=told)
    parser.set_defaults(answer=_review)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""exit status:
  0    completed, or drained after a signal
  {FAILED}    failed
  2    wrong use, no such pipeline, or a plan that cannot work
  {LATE}  drained, but not within the grace period: what was left was discarded
  {ABORTED}  aborted by a second signal

A signal that comes before the run has begun ends the program as any other."""
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    told = "how long it may drain; inf: without limit; by default 30"
    parser.add_argument("--grace", type=_seconds, default=GRACE, metavar="SECONDS", help=told)
    parser.add_argument("--live", action="store_true", help="show in the terminal what it is doing")
    told = "serve a page that shows what it is doing, with /ready and /metrics; 0: any free port"
    parser.add_argument("--web", type=_port, metavar="PORT", help=told)
    told = "where to serve it: by default 127.0.0.1, so for this machine only"
    parser.add_argument("--bind", metavar="ADDRESS", help=told)
    told = "write how long everything took into a file, for simulate; a file that is there is replaced"
    parser.add_argument("--record", metavar="FILE", help=told)
    parser.set_defaults(answer=_run)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0, or 2 for wrong use, a plan that cannot work, or a recording that does not fit"
    parser.add_argument("target", metavar="TARGET", help=_TARGET)
    parser.add_argument("recording", metavar="RECORDING", help="the file of a Recording of one of its runs")
    told = "values of a setting, as in embed.concurrency=2,4,8; given several times, all combinations are simulated"
    parser.add_argument("--set", action="append", default=[], metavar="PART.SETTING=VALUES", help=told)
    told = "a source whose items come when they came, whoever waits; may be given several times"
    parser.add_argument("--open-loop", action="append", default=[], metavar="SOURCE", help=told)
    told = "chooses samples, and the order of what happens at one instant; by default 0"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=told)
    parser.add_argument("--plot", metavar="FILE", help="draw throughput and p99 into a file, such as out.svg")
    parser.set_defaults(answer=_simulate)


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """to use it:
  bash  eval "$(funcpipe completion bash)", in ~/.bashrc
  zsh   eval "$(funcpipe completion zsh)", in ~/.zshrc, behind compinit"""
    parser.add_argument("shell", choices=tuple(SCRIPTS), metavar="SHELL", help=" or ".join(SCRIPTS))
    parser.set_defaults(answer=_completion)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"must be a number of seconds >= 0, not {text!r}")


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= (port := int(text)) <= _LAST_PORT:
            return port
    raise argparse.ArgumentTypeError(f"must be a number from 0 to {_LAST_PORT}, not {text!r}")


_LAST_PORT = 65535


if __name__ == "__main__":
    sys.exit(main())
