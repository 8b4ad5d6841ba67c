"""Write the scripts by which bash and zsh complete the command `funcpipe`, from its parser.

Run it when a command or an option has changed: ``uv run --with shtab python .ci/completion.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

from funcpipe_trio._cli.completion import SCRIPTS
from funcpipe_trio._cli.main import parser


def actions(of: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in of._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)


def main() -> None:
    """Write a script for each shell."""
    for shell, path in SCRIPTS.items():
        made = parser()
        for action in actions(made):
            if action.dest in ("target", "old", "new"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
        path.write_text(shtab.complete(made, shell=shell).rstrip() + "\n")


if __name__ == "__main__":
    main()
