"""The one way a script starts and ends. Imports nothing heavy, so that ``--help`` is quick.

A script is the flags of its configuration and a ``main`` that reads them; ``train_text.py`` is one to copy.
"""

import errno
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from experiments import config_flags
from files.errors import Interrupted, UserError
from training.options import Config, earlier_names

Main = Callable[[list[str]], None]  # is given what is no flag
read = config_flags.read
_RUN_DIR = "Folder of this run; resumed if it exists with the same flags. [runs/NAME-DATE]"
_DRY_RUN = "Build everything, print sizes and costs, take one step, write nothing."


class ScriptFlags(flags.FlagValues):
    """The flags of one script, apart from those of others in the same process.

    Attributes:
        earlier: names that flags had in earlier versions → today's.
        arguments: whether the script takes arguments that are no flags.
    """

    earlier: dict[str, str]
    arguments: bool


def define(config: Config, run_dir: str = _RUN_DIR, arguments: bool = False) -> ScriptFlags:
    """The flags of a script: those of a configuration, ``--run_dir`` and ``--dry_run``."""
    values = ScriptFlags()
    values.__dict__.update(earlier=earlier_names(config), arguments=arguments)  # attributes, not flags
    flags.DEFINE_string("run_dir", "", run_dir, values)
    flags.DEFINE_bool("dry_run", False, _DRY_RUN, values)
    config_flags.define(config, values)
    return values


def launch(main: Main, values: ScriptFlags) -> None:
    """Runs a script; a user's mistake ends with one line on standard error and a non-zero status."""
    for name in list(values):
        flags.FLAGS[name] = values[name]
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], values[name])  # --help lists them, and --helpfull:
        flags.FLAGS.register_flag_by_module(sys.argv[0], values[name])
    values.mark_as_parsed()
    app.run(
        lambda argv: run(lambda: main(argv[1:])),
        flags_parser=lambda argv: parse(argv, flags.FLAGS, values),
    )


def execute(main: Main, values: ScriptFlags, argv: list[str]) -> None:
    """``launch`` of a command line inside a process that is up, such as one that runs tests."""
    values.unparse_flags()
    run(lambda: main(parse(argv, values, values)[1:]))


def parse(argv: list[str], parser: flags.FlagValues, values: ScriptFlags) -> list[str]:
    """Parses a command line and returns what is no flag; exits with one line where it is wrong."""
    try:
        rest = config_flags.parse(parser, argv, values.earlier)
    except UserError as error:
        sys.exit(f"error: {error}")
    if len(rest) > 1 and not values.arguments:
        sys.exit(f"error: unexpected argument {rest[1]!r}; see --help")
    return rest


def run(main: Callable[[], None]) -> None:
    """``main``, with a user's mistakes and interruptions turned into messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        main()
        end: str | int = 0
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        end = 130
    except UserError as error:
        end = f"error: {error}"
    except KeyboardInterrupt:
        end = "interrupted"
    except BrokenPipeError:
        end = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        end = (f"error: {error.filename or 'a file'}: cannot be written ({error.strerror}); "
               "make room and run the same command with the same --run_dir again")  # fmt: skip
    # An exception keeps its frames, and they keep tf.data's iterators: one whose thread is in Python's hands when the
    # interpreter shuts down never ends. So everything is released before.
    gc.collect()
    if end:
        sys.exit(end)


def run_dir(given: str, name: str) -> Path:
    """``--run_dir``, or a new folder under ``runs/``."""
    from training.run import new_folder

    return Path(given).expanduser() if given else new_folder(name)
