"""``sample_ddpm --precision``: a trained model that computes in another number format."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from diffusion import sampling_task
from diffusion.config import SampleConfig
from diffusion.generator import Generator
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from files.errors import UserError
from training.placement import make_placement
from training.session import precision

UNET = UNetConfig(4, 4, 1, 4, (1,), 1, (), num_groups=2)
SAMPLE = SampleConfig(num_images=3, sampler=SamplerConfig("ddim", 2), format="npz", devices="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a float32 model whose weights are none of them 0."""
    folder = tmp_path_factory.mktemp("run")
    with precision("float32"):
        generator = Generator(UNET, make_process(ProcessConfig(20, target="x0")), (), make_placement("cpu", shards=1))
    rng = np.random.default_rng(0)
    for variable in generator.model.trainable_variables:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    generator.save(folder / "model")
    (folder / "result.json").write_text("{}")
    return folder


def _images(run: Path, out: Path, how: str = "") -> np.ndarray:
    sampling_task.sample_images(dataclasses.replace(SAMPLE, out=out, precision=how), run)
    return np.load(out / "images.npz")["images"]


@pytest.mark.slow
def test_a_folder_says_in_which_precision_its_images_were_made(run: Path, tmp_path: Path) -> None:
    """Those of another differ a little; the model's own by its name is the model's own, another is refused."""
    own, narrow = _images(run, tmp_path / "own"), _images(run, tmp_path / "narrow", "mixed_bfloat16")
    assert 0 < np.abs(own.astype(int) - narrow.astype(int)).max() < own.std()
    before = (tmp_path / "own" / "images.npy").read_bytes()
    np.testing.assert_array_equal(_images(run, tmp_path / "own", "float32"), own)
    with pytest.raises(UserError, match=r"images\.npy.*model") as error:
        _images(run, tmp_path / "own", "mixed_bfloat16")
    assert "\n" not in str(error.value)
    assert (tmp_path / "own" / "images.npy").read_bytes() == before


def test_the_model_itself_is_left_alone(run: Path) -> None:
    generator = Generator.of_run(run, make_placement("cpu", shards=1))
    narrow = generator.computing_in("mixed_bfloat16")
    assert (generator.precision, narrow.precision) == ("float32", "mixed_bfloat16")
    assert generator.computing_in("") is generator.computing_in("float32") is generator
    for ours, theirs in zip(narrow.model.get_weights(), generator.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert generator.fingerprint() != narrow.fingerprint()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision='float16' is not known: use one of , float32, mixed_bfloat16"):
        SampleConfig(precision="float16")
