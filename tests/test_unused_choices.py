"""Choices of sampling and of distances that would change nothing are refused, and what is misunderstood is said."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.config import SampleConfig
from diffusion.fid.config import FidConfig
from diffusion.fid.feature_config import FeatureConfig
from diffusion.fid_task import _check_sampler, dry_run
from diffusion.process.config import SamplerConfig
from diffusion.sampling_task import numbers_of_classes
from tests.refusals import refused


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"format": "png", "animate": True}, "--animate is not used by --format=png, only by grid: leave it out"),
        ({"format": "npz", "columns": 3}, "--columns is not used by --format=npz, only by grid: leave it out"),
        ({"unconditional": True, "classes": ("a",)}, "--classes and --unconditional exclude each other"),
        ({"first_image": 2**32 - 5, "num_images": 6}, "--first_image=4294967291: a seed has 4,294,967,296 images"),
        ({"first_image": 2**32 - 5, "num_images": 1, "interpolate_to": 1}, "and 8 from there are asked for; lower it"),
        ({"first_image": 2**32}, "4294967295 or less"),
    ],
)
def test_choices_of_sampling(choices: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: SampleConfig(**choices).check_used())


def test_choices_that_are_used() -> None:
    SampleConfig(columns=3, animate=True).check_used()
    SampleConfig(format="png", interpolate_to=3, first_image=2**32 - 64).check_used()


def test_classes_are_named_as_they_must_be_written() -> None:
    generator: Any = SimpleNamespace(classes=("cat", "dogs, large", 'so-called "fish"'))
    message = refused(lambda: numbers_of_classes(("dogs",), generator))
    assert message == ('--classes: the model does not know dogs; it knows cat, "dogs, large", "so-called ""fish"""')
    np.testing.assert_array_equal(numbers_of_classes(("dogs, large",), generator), [1])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.fromarray(np.full((8, 8), 80 * k, np.uint8)).save(tmp_path / name / f"{k}.png")
    return str(tmp_path / "a"), str(tmp_path / "b")


def _config(folders: tuple[str, str], **choices: Any) -> FidConfig:
    features = FeatureConfig("keras", weights="random:0")
    return FidConfig(devices="cpu", a=folders[0], b=folders[1], metrics=(), features=features, **choices)


def test_a_sampler_needs_a_model(folders: tuple[str, str]) -> None:
    for sampler, message in (
        (SamplerConfig(sampling_steps=5), "--sampling_steps=5 is about sampling, and neither A nor B is a model"),
        (SamplerConfig("ddim"), "--sampler=ddim is about sampling"),
        (SamplerConfig("ancestral", variance="small"), "--sampler=ancestral is about sampling"),
    ):
        assert message in refused(lambda sampler=sampler: dry_run(_config(folders, sampler=sampler)))
    _check_sampler(_config(folders), [])


def test_a_model_is_the_second_set(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("diffusion.fid_task.is_of_model", lambda source: source.name == folders[0])
    dry_run(_config(folders, sampler=SamplerConfig(sampling_steps=5)))
    assert f"note: A, {folders[0]}, is of a model, and B is not" in capsys.readouterr().out
    dry_run(_config(folders[::-1]))
    assert "is of a model" not in capsys.readouterr().out
