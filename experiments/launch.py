"""How every script starts and ends. Imports no large library, so that ``--help`` is quick.

A script consists of the flags of its configuration and a ``main`` that reads them; ``train_text.py`` is a model.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path

from absl import app, flags

from experiments import config_flags, failures, signals
from files.errors import Interrupted, UserError
from training.options import Config, earlier_names

Main = Callable[[list[str]], None]  # called with the arguments that are no flags
read = config_flags.read
_RUN_DIR = "Folder of this run; resumed if it exists with the same flags. [runs/NAME-DATE]"
_DRY_RUN = "Build everything, print sizes and costs, take one step, write nothing."
_TENSORFLOW = 2_900  # megabytes of address space, measured: with 2,800 it crashes or hangs while it is loaded


class ScriptFlags(flags.FlagValues):
    """The flags of one script, separate from those of other scripts in the same process.

    Attributes:
        earlier: names that flags had in earlier versions → today's.
        arguments: whether the script takes arguments that are no flags.
    """

    earlier: dict[str, str]
    arguments: bool


def define(config: Config, run_dir: str | None = _RUN_DIR, arguments: bool = False) -> ScriptFlags:
    """The flags of a script: those of a configuration, ``--run_dir`` and ``--dry_run``.

    Args:
        config: its choices, with their defaults.
        run_dir: help of ``--run_dir``; None: a script without a run, which has neither of these two flags.
        arguments: whether the script takes arguments that are no flags.
    """
    values = ScriptFlags()
    values.__dict__.update(earlier=earlier_names(config), arguments=arguments)  # attributes, not flags
    if run_dir is not None:
        flags.DEFINE_string("run_dir", "", run_dir, values)
        flags.DEFINE_bool("dry_run", False, _DRY_RUN, values)
    config_flags.define(config, values)
    return values


def launch(main: Main, values: ScriptFlags, memory: int = _TENSORFLOW) -> None:
    """Runs a script; a user's mistake ends with one line on standard error and a non-zero status.

    Args:
        main: what it does.
        values: its flags.
        memory: megabytes of address space that its libraries take.
    """

    def checked_main(argv: list[str]) -> None:
        failures.check_memory(memory)
        failures.check_backend()
        main(argv[1:])

    begin()
    for name in list(values):
        flags.FLAGS[name] = values[name]
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], values[name])  # --help lists them, and --helpfull:
        flags.FLAGS.register_flag_by_module(sys.argv[0], values[name])
    values.mark_as_parsed()
    app.run(
        lambda argv: run(lambda: checked_main(argv), list(values), of_process=True),
        flags_parser=lambda argv: parse(argv, flags.FLAGS, values),
    )


def begin() -> None:
    """The first step of a process: signals end it from now on, and any terminal can show its output."""
    signals.end_on_signals()
    _set_encodings()


def flags_of(script: str) -> ScriptFlags:
    """The flags of ``experiments.SCRIPT``."""
    return import_module(f"experiments.{script}").FLAGS


def execute(main: Main, values: ScriptFlags, argv: list[str]) -> None:
    """``launch`` of a command line inside a running process, such as one of tests."""
    values.unparse_flags()
    run(lambda: main(parse(argv, values, values)[1:]), list(values))


def parse(argv: list[str], parser: flags.FlagValues, values: ScriptFlags) -> list[str]:
    """Parses a command line and returns the words that are no flags; exits with one line if it is wrong."""
    try:
        rest = config_flags.parse(parser, argv, values.earlier, values.arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except (BrokenPipeError, SystemExit) as end:  # of --help, whose output "| head" may not read to its end
        _mute()
        sys.exit(end.code if isinstance(end, SystemExit) else 1)
    if len(rest) > 1 and not values.arguments:
        sys.exit(f"error: unexpected argument {rest[1]!r}; see --help")
    return rest


def run(main: Callable[[], None], flag_names: Collection[str] = (), of_process: bool = False) -> None:
    """Runs ``main`` and turns users' mistakes, interruptions and failures of the system into messages.

    Args:
        main: the function.
        flag_names: flags that a message may recommend.
        of_process: whether the process ends with it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stage = signals.MainStage(of_process)
    end: str | int | None = 0
    try:
        try:
            stage.enter()
            main()
            _flush()
            stage.close()
        except (Exception, KeyboardInterrupt) as error:
            end = signals.STATUS if stage.asked else _end_of(error, flag_names)
            stage.close()
            if end is None:
                raise
            if isinstance(error, OSError):
                _mute()
            if end == signals.STATUS:
                print(error if isinstance(error, Interrupted) else signals.line(), file=sys.stderr, flush=True)
    except KeyboardInterrupt:  # between the two stages
        end = signals.STATUS
        print(signals.line(), file=sys.stderr, flush=True)
    finally:
        stage.leave()
    if stage.asked and of_process:
        os._exit(signals.STATUS)  # at once: threads of libraries are not waited for
    if end:
        sys.exit(end)


def _end_of(error: BaseException, flag_names: Collection[str]) -> str | int | None:
    """A message or an exit status; None for a fault of the program."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return signals.STATUS
    if isinstance(error, UserError):
        return f"error: {' '.join(str(error).splitlines())}"
    if isinstance(error, BrokenPipeError):
        return 1  # the reader of the output has closed it
    message = failures.message(error, flag_names)
    return message and f"error: {message}"


def _set_encodings() -> None:
    """Output escapes characters that its encoding lacks; standard input is UTF-8, like files."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _mute() -> None:
    """Drops output that cannot be written: else Python would try again at the end, and print an error."""
    try:
        _flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def trained_run(given: str, what: str = "a trained model") -> Path:
    """``--run_dir`` of a script that uses an existing run; raises UserError if it is not given."""
    if not given:
        raise UserError(f"--run_dir: name the folder of {what}")
    return Path(given).expanduser()


def run_dir(given: str, name: str) -> Path:
    """``--run_dir``, or a new folder under ``runs/``."""
    from training.run import new_folder

    path = Path(given).expanduser() if given else new_folder(name)
    signals.goes_on_in(path)
    return path
