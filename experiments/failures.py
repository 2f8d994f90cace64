"""Messages for errors of the system that a user can fix: one line, or nothing."""

import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from files.errors import UserError
from training import BACKENDS

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG,
            errno.ELOOP)  # fmt: skip
_MEMORY_FLAGS = ("batch_size", "batch_tokens", "max_length", "max_train", "image_size")
_FOLDER_FLAGS = ("run_dir", "out", "cache_dir")
_OURS = ("experiments", "text_cls", "diffusion", "vision_bridge", "training", "files")


def message(error: BaseException, flags: Collection[str]) -> str | None:
    """The message for an error; None for a bug of the program.

    Args:
        error: raised by ``main``.
        flags: names of the flags that the script has.
    """
    limit = memory_limit()
    if limit and _came_from_import(error):
        return f"its libraries cannot be loaded{_reason(_first(error))}: {_limited(limit)}; raise that limit"
    if _is_want_of_memory(error):
        return f"out of memory{_reason(error)}: {_smaller(flags)}{'; ' if limit else ''}{_limited(limit)}"
    if isinstance(error, ImportError):
        return _import_message(error)
    if isinstance(error, UnicodeDecodeError):
        return f"standard input or a file is not UTF-8 ({error.reason} at byte {error.start}): convert it with iconv"
    if isinstance(error, OSError) and error.errno:
        return _system_message(error, flags)
    return None


def _is_want_of_memory(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}  # TensorFlow is not imported for this
    return (
        isinstance(error, MemoryError)
        or "ResourceExhaustedError" in names
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and str(error).startswith(("RESOURCE_EXHAUSTED", "can't start new thread")))
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f" ({text[:200]}{'…' if len(text) > 200 else ''})" if text else ""


def _smaller(flags: Collection[str]) -> str:
    here = [f"--{name}" for name in _MEMORY_FLAGS if name in flags]
    return f"choose a smaller {' or '.join(here)}, or free some" if here else "free some, or use a larger machine"


def memory_limit() -> int:
    """Megabytes of address space that the process may have; 0: no limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if soft == resource.RLIM_INFINITY else soft // 2**20


def check_memory(needed: int) -> None:
    """Checks that the libraries, of ``needed`` megabytes, fit into the memory limit; else some of them would hang.

    Raises:
        UserError: the limit is too low.
    """
    limit = memory_limit()
    if 0 < limit < needed:
        raise UserError(f"{_limited(limit)}, and its libraries alone take {needed:,}: raise that limit")


def check_backend() -> None:
    """Checks ``KERAS_BACKEND`` before Keras reads it.

    Raises:
        UserError: tasks do not run on this backend.
    """
    name = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={name}: tasks run on {' or '.join(BACKENDS)}; set it to one of them")


def _limited(limit: int) -> str:
    return f"the process may have {limit:,} MB of memory (ulimit -v)" if limit else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(error: BaseException) -> BaseException:
    return list(_causes(error))[-1]


def _came_from_import(error: BaseException) -> bool:
    """Whether an import failed; with too little memory a library can raise any error."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        trace = trace.tb_next
    return isinstance(error, ImportError)


def _import_message(error: ImportError) -> str | None:
    """The message for a library that is missing or cannot be loaded; None for a wrong import in our own code."""
    if (error.name or "").split(".")[0] in _OURS:
        return None
    if isinstance(error, ModuleNotFoundError):
        return f"the library {error.name} is not installed: pip install {error.name}"
    first = [cause for cause in _causes(error) if isinstance(cause, ImportError)][-1]
    return f"a library cannot be loaded{_reason(first)}: install it again, with what it needs"


def _system_message(error: OSError, flags: Collection[str]) -> str | None:
    name, what = error.filename, error.strerror or "failed"
    file = os.fsdecode(name) if isinstance(name, str | bytes) else "standard output or a file"
    if error.errno in _FULL:
        return (
            f"{file}: cannot be written ({what}); make room, perhaps in the cache (python -m experiments.cache), and "
            "run the same command with the same --run_dir again"
        )
    if error.errno in _REFUSED:
        folders = [f"--{flag}" for flag in _FOLDER_FLAGS if flag in flags]
        cache = ", or set $TRIPTYCH_CACHE" if "cache_dir" in flags else ""
        readable = not Path(file).is_file() or os.access(file, os.R_OK)
        return (
            f"{file}: {'not writable' if readable else 'not readable'} ({what}): choose another folder with "
            f"{' or '.join(folders)}{cache}, or change its permissions"
        )
    return f"{file}: {what}; fix this and run the same command again" if name is not None else None
