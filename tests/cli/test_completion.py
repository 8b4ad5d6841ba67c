"""The scripts for shells know what the command knows now, and bash completes by them.

When one of these fails because a command or an option has changed, write the scripts anew: see `.ci/completion.py`.
"""

import argparse
import re
import shutil
import subprocess

import pytest

from funcpipe_trio._cli.completion import SCRIPTS
from funcpipe_trio._cli.main import main, parser


def commands():
    """Return the parser of each command, by its name."""
    (action,) = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return action.choices


def options(of):
    return {option for action in of._actions for option in action.option_strings}


def test_bash_knows_all_commands_and_options():
    text = SCRIPTS["bash"].read_text()
    lists = {name: set(words.split()) for name, words in re.findall(r"^_shtab_funcpipe_?(\w*?)=\((.*)\)$", text, re.M)}

    assert lists["subparsers"] == set(commands())
    assert lists["option_strings"] == options(parser())
    for name, command in commands().items():
        assert lists[f"{name}_option_strings"] == options(command)


def test_zsh_knows_all_commands_and_options():
    text = SCRIPTS["zsh"].read_text()

    assert set(re.findall(r"^        (\w+)\) _arguments", text, re.M)) == set(commands())
    for name, command in commands().items():
        (known,) = re.findall(rf"^_shtab_funcpipe_{name}_options=\((.*?)^\)", text, re.M | re.S)
        assert all(option in known for option in options(command))
        assert known.count('"--') + known.count('"*--') == len(options(command)) - 2  # not -h and --help


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["ru"], ["run"]),
        (["run", "--g"], ["--grace"]),
        (["describe", "--format", "m"], ["mermaid"]),
        (["run", "ap"], ["app.py"]),
        (["diff", "app.py:a", "ap"], ["app.py"]),
        (["completion", ""], ["bash", "zsh"]),
        (["run", "--nothing-like-it"], []),
    ],
)
def test_bash_completes(tmp_path, words, completed):
    (tmp_path / "app.py").touch()
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f". '{SCRIPTS['bash']}'; COMP_WORDS=(funcpipe {line}); COMP_CWORD={len(words)}; "
        'compopt() { :; }; _shtab_funcpipe; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert (done.stdout.split(), done.stderr) == (completed, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_reads_its_script():
    subprocess.run(["zsh", "-n", SCRIPTS["zsh"]], check=True)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr() == (SCRIPTS[shell].read_text(), "")


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "fish"])

    assert stopped.value.code == 2
    assert "invalid choice: 'fish' (choose from" in capsys.readouterr().err
