"""Going on from a finished run, whatever the task: where its model lies, which may be gone once another run has begun.

The run that goes on keeps a copy of its source until it is finished, so that the source may be moved or removed then.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from files.artefacts import CONFIG
from files.documents import file_sha256, read_object
from files.errors import UserError
from files.writing import is_held_back
from training.run import Run
from training.run_config import read_own

START = "start"  # the copy of the source in the folder of the run that goes on


class Origin(NamedTuple):
    """A finished run that another one starts from.

    Attributes:
        run: its folder, which may be gone once the other one has begun.
        folder: of its model.
        fingerprint: of the file of its weights.
        is_new: whether the run that goes on has still to begin.
    """

    run: Path
    folder: Path
    fingerprint: str
    is_new: bool


def find_origin(run: Path, weights: str, run_dir: Path | str | None = None) -> Origin:
    """The model of the run of ``--init_from``.

    Where it is gone, what the run in ``run_dir`` has of it stands in: the copy with which it began, or, once it is
    finished, its own model; nothing is trained then.

    Args:
        run: its folder.
        weights: name of the file of weights in a folder of models.
        run_dir: of the run that goes on; None where nothing is to be written.

    Raises:
        UserError: it has no model, or one that is not finished.
    """
    folder, before = run / "model", None
    if run_dir is not None:
        before = (read_own(Path(run_dir) / "data.json") or {}).get("init_from")
    if run_dir is not None and before is not None and not folder.exists():
        own = [Path(run_dir) / name for name in (START, "model")]
        folder = next((folder for folder in own if (folder / CONFIG).exists()), folder)
        return Origin(run, folder, str(before), False)
    if not (folder / CONFIG).is_file():
        raise UserError(f"--init_from={run}: no trained model there (model/{CONFIG} is missing)")
    if not (folder / weights).is_file():
        raise UserError(f"--init_from={run}: its training has not ended; finish it, or start from another run")
    return Origin(run, folder, file_sha256(folder / weights), before is None)


def inputs_of(fingerprint: str | None) -> dict[str, str]:
    """What a run depends on besides its configuration and its data: the source's weights; None for no source."""
    return {} if fingerprint is None else {"init_from": fingerprint}


def keep(run: Run, save: Callable[[Path], None]) -> None:
    """Has the source saved into the folder of the run that begins with it."""
    if not (run.path / START / CONFIG).exists():
        save(run.path / START)


def drop(run: Run) -> None:
    """Removes the copy from the folder of a run that is finished."""
    if not is_held_back(run.path / START):
        shutil.rmtree(run.path / START, ignore_errors=True)


def seen_before(run: Path, fingerprints: Mapping[str, str], what: str) -> tuple[str, ...]:
    """A note where held-out examples are not those of the source, which may have been trained on some of them.

    Args:
        run: the source's folder.
        fingerprints: of the held-out splits by name.
        what: the examples are, in the plural.
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
        f"figures are too good then; use the same data, seed and shares, or {what} that it cannot have seen",
    )
