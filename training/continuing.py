"""Starting a run from the weights of a finished run (its source), for any task.

The new run keeps a copy of the source until it is finished, so that the source may be moved or removed after the start.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from files.artefacts import CONFIG
from files.documents import file_sha256, read_object
from files.errors import UserError
from files.writing import is_held_back
from training.run import Run
from training.run_config import read_own

START = "start"  # the copy of the source in the folder of the new run


class Savable(Protocol):
    """A trained model with all that belongs to it."""

    def save(self, folder: Path) -> None:
        """Writes it into ``folder``."""


Trained = TypeVar("Trained", bound=Savable)


class Source(NamedTuple, Generic[Trained]):
    """A finished run that a new run starts from.

    Attributes:
        run: its folder, which may have been removed since the new run began.
        trained: its model.
        fingerprint: of its file of weights.
        is_new: whether the new run has not begun yet.
    """

    run: Path
    trained: Trained
    fingerprint: str
    is_new: bool


class Origin(NamedTuple):
    """Where the model of a ``Source`` is; the other attributes are those of ``Source``."""

    folder: Path
    fingerprint: str
    is_new: bool


def find_origin(run: Path, weights: str, run_dir: Path | str | None = None) -> Origin:
    """The model of the run of ``--init_from``.

    If it has been removed, the run in ``run_dir`` provides a substitute: its copy of the source, or, if it is finished,
    its own model, because nothing will be trained.

    Args:
        run: folder of the source.
        weights: name of the file of weights in the folder of a model.
        run_dir: of the new run; None if nothing is written.

    Raises:
        UserError: the source has no model, or its training has not ended.
    """
    folder, before = run / "model", None
    if run_dir is not None:
        before = (read_own(Path(run_dir) / "data.json") or {}).get("init_from")
    if run_dir is not None and before is not None and not folder.exists():
        own = [Path(run_dir) / name for name in (START, "model")]
        folder = next((folder for folder in own if (folder / CONFIG).exists()), folder)
        return Origin(folder, str(before), False)
    if not (folder / CONFIG).is_file():
        raise UserError(f"--init_from={run}: no trained model there (model/{CONFIG} is missing)")
    if not (folder / weights).is_file():
        raise UserError(f"--init_from={run}: its training has not ended; finish it, or start from another run")
    return Origin(folder, file_sha256(folder / weights), before is None)


def inputs_of(source: Source[Any] | None) -> dict[str, str]:
    """The entry of ``data.json`` for the source's weights."""
    return {} if source is None else {"init_from": source.fingerprint}


def keep(source: Source[Any] | None, run: Run) -> None:
    """Saves a copy of the source into the folder of the new run."""
    if source is not None and not (run.path / START / CONFIG).exists():
        source.trained.save(run.path / START)


def drop(run: Run) -> None:
    """Removes the copy of the source from the folder of a finished run."""
    if not is_held_back(run.path / START):
        shutil.rmtree(run.path / START, ignore_errors=True)


def seen_before(run: Path, fingerprints: Mapping[str, str], what: str) -> tuple[str, ...]:
    """A note if held-out examples differ from those of the source, which may then have been trained on some of them.

    Args:
        run: the source's folder.
        fingerprints: of the held-out splits by name.
        what: plural noun for the examples, such as texts.
    """
    path = run / "data.json"
    if not run.exists():
        return ()
    before = read_object(path) if path.exists() else {}
    others = [name for name, value in fingerprints.items() if (before.get(name) or {}).get("sha256") != value]
    if not others:
        return ()
    return (
        f"the {' and '.join(others)} {what} are not those of {run}, which may have been trained on some of them: "
        f"figures are then too good; use the same data, seed and shares, or {what} that it cannot have seen",
    )
