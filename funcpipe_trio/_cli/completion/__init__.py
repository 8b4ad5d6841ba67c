"""How does a shell complete the command? By a script for it, made from the parser by shtab when that has changed.

So nothing is imported when somebody presses the Tab key, and users need nothing but this package.
"""

from __future__ import annotations

from pathlib import Path

SCRIPTS = {"bash": Path(__file__).parent / "funcpipe.bash", "zsh": Path(__file__).parent / "_funcpipe"}
"""The scripts, by the name of the shell; under the names by which the shells find them."""
