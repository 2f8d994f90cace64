"""The command ``triptych``, and ``python -m experiments``: a list of the scripts, or one of them.

triptych
triptych train-text --flagfile=bbc_news
"""

import runpy
import sys
from collections.abc import Sequence

from experiments import catalogue, launch

COMPLETE = "--complete"  # triptych --complete WORD… prints the completions of the last word for a shell, one a line
_HELP = ("", "help", "-h", "-help", "--help")


def main() -> None:
    """Runs the script that the command line names, just as ``python -m experiments.NAME`` does, or lists them all."""
    launch.begin()
    words = sys.argv[1:]
    name = catalogue.module_name(words[0]) if words else ""
    if name in catalogue.scripts():
        sys.argv[1:] = words[1:]
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    else:
        launch.run(lambda: answer(words), of_process=True)


def answer(words: Sequence[str]) -> None:
    """Answers a command line without a script; raises UserError for an unknown script."""
    first = words[0] if words else ""
    if first in _HELP:
        print(listing())
    elif first == "--version":
        from training.run import version

        print(version())
    elif first == COMPLETE:
        from experiments.completion import candidates  # here, since a script is not imported before it runs

        print("".join(f"{one}\n" for one in candidates(words[1:])), end="")
    else:
        catalogue.find(first)


def listing() -> str:
    """The scripts, a line each."""
    known = catalogue.scripts().values()
    widest = max(len(script.name) for script in known)
    lines = [f"  {script.name:{widest}}  {script.line.replace('``', '')}" for script in known]
    return "\n".join(["triptych NAME --flag=value …  or  python -m experiments.NAME --flag=value …", "", *lines, "",
                      "triptych NAME --help has the flags of a script."])  # fmt: skip
