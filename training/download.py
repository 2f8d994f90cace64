"""Files from public addresses into a cache, checked by hash."""

import os
from pathlib import Path

from training.errors import UserError


def default_cache() -> Path:
    """``$TRIPTYCH_CACHE``, or ``~/.cache/triptych``."""
    return Path(os.environ.get("TRIPTYCH_CACHE") or Path.home() / ".cache" / "triptych")


def fetch(url: str, file_hash: str, cache: Path, unpack: str = "") -> Path:
    """The local copy of ``url``, downloaded if it is not there yet.

    Args:
        url: the public address.
        file_hash: MD5 or SHA-256 that the file must have.
        cache: where it is kept.
        unpack: the folder that the archive at ``url`` holds; its path is returned in place of the file's.

    Raises:
        UserError: there is no network or the file is not what it should be; says which file to put where.
    """
    import keras

    name = url.rsplit("/", 1)[1]
    try:
        path = keras.utils.get_file(
            name, url, file_hash=file_hash, cache_dir=str(cache), cache_subdir="downloads", extract=bool(unpack)
        )
    except Exception as error:  # get_file raises bare Exception for a failed address and ValueError for a wrong hash
        raise UserError(
            f"cannot download {url} ({str(error).splitlines()[0]}): fetch it by hand and put it at "
            f"{cache / 'downloads' / name}, or pass --data_path"
        ) from error
    path = Path(path)
    return path / unpack if unpack and path.name != unpack and (path / unpack).is_dir() else path
