"""The cache: how much it holds, and what of it is deleted on request.

    python -m experiments.cache
    python -m experiments.cache --delete
    python -m experiments.cache --delete --unused_days=0 --kinds=bridge

Only what Triptych has computed is ever deleted, and only with --delete: the next run that needs it computes it again.
Downloaded files stay. Nothing that a process is writing is deleted.
"""

import dataclasses
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import launch
from experiments.runs_text import ago, aligned
from files.cached import Entry, delete, entries, shown_size, size_below
from files.download import cache_of
from files.errors import UserError
from files.writing import remove_drafts
from training.options import Config, option

_KEY = "[0-9a-f]{24}"


class Kind(NamedTuple):
    """A folder of the cache with entries that can be computed again: what they are, and their files' names."""

    what: str
    names: re.Pattern[str]

    @classmethod
    def of(cls, what: str, pattern: str) -> "Kind":
        return cls(what, re.compile(pattern))


KINDS = {
    "bridge": Kind.of(
        "features, layouts, images, maps",
        rf"((?:features|layout|images|maps|map_statistics)-{_KEY})\.(?:npy|json|safetensors)",
    ),
    "features": Kind.of("Inception features of images", rf"(features-{_KEY})\.(?:npy|json)"),
    "llama": Kind.of("Llama's states of pictures", rf"((?:states|aspect-ratios)-{_KEY})\.(?:npy|json)"),
    "tokenised": Kind.of("tokenised texts", rf"({_KEY})\.npz"),
    "xla": Kind.of("what XLA compiled, on JAX", r"(.+-[0-9a-f]{64})-(?:cache|atime)"),
}
_OTHERS = "downloads and weights: never deleted"
_DAY = 86_400
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class CacheConfig(Config):
    """The choices of showing and emptying the cache."""

    cache_dir: Path | None = option(None, "The cache. [$TRIPTYCH_CACHE or ~/.cache/triptych]")
    delete: bool = option(False, "Delete the entries of --kinds that nothing has used for --unused_days.")
    kinds: tuple[str, ...] = option(tuple(KINDS), "Kinds of entries to delete.", choices=tuple(KINDS))
    unused_days: float = option(30.0, "Days since the last use, as the file system notes it; 0: all entries.", low=0.0)

    def check(self) -> None:
        if not self.kinds:
            raise UserError(f"--kinds is empty: name one or more of {', '.join(KINDS)}")


FLAGS = launch.define(CacheConfig(), run_dir=None)


def main(arguments: list[str]) -> None:
    """Prints what the cache holds, or deletes what the flags choose."""
    manage(launch.read(CacheConfig(), FLAGS), lambda text: print(text, flush=True))


def manage(config: CacheConfig, say: Say) -> None:
    """Shows the cache; with ``delete``, deletes what was not used for long.

    Raises:
        UserError: there is no such cache, or it cannot be changed.
        OSError: it cannot be read.
    """
    folder = cache_of(config.cache_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the first run that computes something makes it")
    found = {name: entries(folder / name, kind.names) for name, kind in KINDS.items()}
    latest = time.time() - config.unused_days * _DAY
    kinds = list(dict.fromkeys(config.kinds))
    old = [entry for kind in kinds for entry in found[kind] if entry.used <= latest]
    if config.delete:
        for kind in kinds:
            remove_drafts(folder / kind)
        say(_deleted(old))
    else:
        say(_listed(folder, found, latest, config.unused_days))
        say(f"--delete would delete {_amount(old)} of {', '.join(kinds)}")
    say(f"free on the disk: {shown_size(shutil.disk_usage(folder).free)}")


def _deleted(old: Sequence[Entry]) -> str:
    gone: list[Entry] = []
    kept: list[Entry] = []
    for entry in old:
        (gone if delete(entry) else kept).append(entry)
    in_use = f"; {_amount(kept)} stay: a process is writing them" if kept else ""
    return f"deleted {_amount(gone)}{in_use}"


def _listed(folder: Path, found: Mapping[str, Sequence[Entry]], latest: float, days: float) -> str:
    rows = []
    for kind, of_kind in found.items():
        old = sum(entry.size for entry in of_kind if entry.used <= latest)
        size = sum(entry.size for entry in of_kind)
        used = ago(max((entry.used for entry in of_kind), default=None))
        rows.append([kind, f"{len(of_kind):,}", shown_size(size), shown_size(old), used, KINDS[kind].what])
    total = size_below(folder) + sum(size_below(folder / kind) for kind in KINDS if (folder / kind).is_symlink())
    rest = total - sum(entry.size for of_kind in found.values() for entry in of_kind)
    rows.append(["others", "", shown_size(rest), "", "", _OTHERS])
    titles = ["kind", "entries", "size", f"unused {days:g} days", "last used", "what it is"]
    return f"{folder}: {shown_size(total)}\n{aligned(titles, rows)}"


def _amount(of: Sequence[Entry]) -> str:
    return f"{len(of):,} entries, {shown_size(sum(entry.size for entry in of))}"


if __name__ == "__main__":
    launch.launch(main, FLAGS, memory=0)
