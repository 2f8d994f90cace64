"""``sample_ddpm`` and ``fid`` of a run with a learned variance whose labels were never dropped: one tiny run."""

import json
from pathlib import Path

import numpy as np
import pytest

from files.documents import write_json
from files.writing import write_text
from tests.little_ddpm import TINY
from tests.scripts import fails, succeeds

ANCESTRAL = ["--sampler=ancestral", "--sampling_steps=4", "--num_images=5", "--format=npz", "--devices=cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "run"
    succeeds("ddpm", *TINY, "--learned_variance", "--label_dropout=0", f"--run_dir={path}")
    return path


@pytest.mark.slow
def test_the_bound_is_among_the_figures(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert {"test_bits_per_dim", "test_bits_per_dim_se", "val_bits_per_dim"} <= result.keys()


@pytest.mark.slow
def test_images_of_another_variance_are_others(run: Path, tmp_path: Path) -> None:
    """auto is the learned variance here: an array of the small one is not taken for it."""
    flags = [f"--run_dir={run}", *ANCESTRAL, f"--out={tmp_path / 'out'}"]
    succeeds("sample_ddpm", *flags, "--variance=small")
    assert "holds another array (variance 'small', not 'learned')" in fails("sample_ddpm", *flags)
    succeeds("sample_ddpm", *flags[:-1], f"--out={tmp_path / 'other'}")
    small, learned = (np.load(tmp_path / name / "images.npy") for name in ("out", "other"))
    assert (small != learned).any()


@pytest.mark.slow
def test_images_that_an_earlier_version_made_are_not_made_again(run: Path, tmp_path: Path) -> None:
    """What version 0.9 wrote beside them does not name the choices that came later."""
    flags = [f"--run_dir={run}", *ANCESTRAL, f"--out={tmp_path}"]
    succeeds("sample_ddpm", *flags)
    said = (tmp_path / "images.json").read_text()
    later = (
        "guidance_rescale",
        "guidance_interval",
        "churn",
        "churn_between",
        "churn_noise",
        "autoguidance",
        "precision",
    )
    assert '"variance"' in said and not [name for name in later if f'"{name}"' in said]


@pytest.mark.slow
@pytest.mark.parametrize("recorded", ["in the model", "in the run alone"])
def test_what_was_never_learned_is_refused(run: Path, tmp_path: Path, recorded: str) -> None:
    """A prediction without a class, by whatever flag it would be used; versions before 0.10 say it in the run alone."""
    about = json.loads((run / "model" / "config.json").read_text())
    assert about["label_dropout"] == 0.0
    path = run
    if recorded == "in the run alone":
        path = tmp_path / "older"
        (path / "model").mkdir(parents=True)
        for name in ("config.json", "result.json", "data.json", "model/weights.safetensors"):
            (path / name).write_bytes((run / name).read_bytes())
        older = {name: value for name, value in about.items() if name not in ("label_dropout", "sha256")}
        write_json(path / "model" / "config.json", older)
        write_text(path / "flags.txt", (run / "flags.txt").read_text())
    for flags in (["--unconditional"], ["--guidance=2"]):
        assert "trained with --label_dropout=0" in fails("sample_ddpm", f"--run_dir={path}", "--num_images=2", *flags)
    fid = [
        "fid",
        str(path),
        str(path),
        "--features=keras",
        "--weights=random:0",
        "--num_images=4",
        "--guidance=2",
        "--dry_run",
    ]
    assert "trained with --label_dropout=0" in fails(*fid)


def test_a_bound_of_whole_times_alone(tmp_path: Path) -> None:
    tiny = [flag for flag in TINY if not flag.startswith("--diffusion_steps")]
    for schedule in ("edm", "flow"):
        flags = [*tiny, "--learned_variance", f"--noise_schedule={schedule}", f"--run_dir={tmp_path / schedule}"]
        assert "--learned_variance needs discrete times" in fails("ddpm", *flags)
        assert not (tmp_path / schedule).exists()
