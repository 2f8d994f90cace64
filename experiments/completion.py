"""Completion of ``triptych`` in a shell: names of scripts, of flags, of flagfiles, and values of flags.

eval "$(triptych completion bash)"                              in ~/.bashrc
eval "$(triptych completion zsh)"                               in ~/.zshrc, after compinit
triptych completion fish > ~/.config/fish/completions/triptych.fish
"""

from collections.abc import Iterable, Iterator, Sequence

from experiments import catalogue, flagfiles, launch
from files.errors import UserError
from training.options import Config

FLAGS = launch.define(Config(), run_dir=None, arguments=True)

_BASH = """\
_triptych() {
    local line="${COMP_LINE:0:COMP_POINT}" words word found
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    COMPREPLY=()
    while IFS= read -r found; do
        [[ $word == *=* ]] && found="${found#"${word%%=*}="}"  # bash replaces what stands behind the =
        [[ -n $found ]] && COMPREPLY+=("$found")
    done < <(triptych --complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _triptych triptych
"""
_ZSH = """\
#compdef triptych
_triptych() {
    local -a found open
    found=("${(@f)$(triptych --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    open=(${(M)found:#*=})
    found=(${found:#*=})
    if (( ${#found} + ${#open} )); then
        compadd -S '' -a open
        compadd -a found
    else
        compset -P '*='
        _files
    fi
}
compdef _triptych triptych
"""
_FISH = """\
function __triptych_complete
    set -l word (commandline -ct)
    set -l words (commandline -opc) "$word"
    set -l found (triptych --complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        string join \\n -- $found
    else
        set -l flag (string match -r '^--[^=]*=' -- "$word")
        __fish_complete_path (string replace -- "$flag" '' "$word") | string replace -r '^' -- "$flag"
    end
end
complete -c triptych -f -a '(__triptych_complete)'
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def main(arguments: list[str]) -> None:
    """The shell's script on standard output."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise UserError(f"name a shell: {', '.join(SHELLS)}; see --help")
    print(SHELLS[arguments[0]], end="")


def candidates(words: Sequence[str]) -> list[str]:
    """Completions of the last word of a command line; empty if the shell should complete names of files.

    Args:
        words: the words after ``triptych``; the last one is incomplete, and may be empty.
    """
    *before, last = words or [""]
    if not before:
        return [name for name in _as_written(catalogue.scripts(), last) if name.startswith(last)]
    script = catalogue.module_name(before[0])
    if script not in catalogue.scripts():
        return []
    if script == "completion" and len(before) == 1 and not last.startswith("-"):
        return [shell for shell in SHELLS if shell.startswith(last)]
    flags = launch.flags_of(script)
    name, equals, value = last.removeprefix("--").partition("=")
    if last.startswith("--") and equals:
        return [f"--{name}={one}" for one in _values(flags, name, value)]
    if last.startswith("-"):
        return [flag for flag in _written(flags, negated=last.startswith("--no")) if flag.startswith(last)]
    asked = before[-1].removeprefix("--")
    needs = before[-1].startswith("--") and (asked == "flagfile" or (asked in flags and not flags[asked].boolean))
    return _values(flags, asked, last) if needs else []


def _as_written(names: Iterable[str], word: str) -> list[str]:
    """The names with dashes, if the user writes dashes."""
    return [name.replace("_", "-") for name in names] if "-" in word else list(names)


def _written(flags: launch.ScriptFlags, negated: bool) -> Iterator[str]:
    """Every flag as written, with ``=`` if it takes a value; ``negated``: also ``--noNAME`` of switches."""
    yield from ("--flagfile=", "--help")
    for name in sorted(flags):
        switch = flags[name].boolean
        yield f"--{name}" if switch else f"--{name}="
        if switch and negated:
            yield f"--no{name}"


def _values(flags: launch.ScriptFlags, name: str, begun: str) -> list[str]:
    """Completions of a flag's value; for a list, of its last item."""
    parser = flags[name].parser if name in flags else None
    of_item = getattr(parser, "item", None)  # what reads the items of a list
    if name in ("flagfile", "flagfiles"):
        choices = flagfiles.names()
    else:
        choices = getattr(of_item or parser, "enum_values", None) or []
    head, comma, item = begun.rpartition(",") if of_item else ("", "", begun)
    return [f"{head}{comma}{one}" for one in choices if one.startswith(item)]


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=0)
