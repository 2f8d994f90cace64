"""A trained diffusion model: seeds and labels in, images out; the artefact of a training run.

Image i of seed s is the same in any batch, on any number of devices: all its noise is a function of (s, i, row).
``N`` images, ``B`` batch, ``F`` frames, ``H, W, C`` of each.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from diffusion import noise
from diffusion.batches import ImageRequest, SampleBatch, sample_batches
from diffusion.process import DiffusionProcess
from diffusion.process_config import ProcessConfig, SamplerConfig
from diffusion.samplers import make_table
from diffusion.sampling import make_predict_x0, sample, slerp, to_pixels
from diffusion.unet import build_unet
from diffusion.unet_config import UNetConfig
from files.artefacts import CONFIG, read_artefact, write_artefact
from files.documents import shown
from files.errors import UserError
from training.backends import Placement
from training.checkpoint import fingerprint, load_weights, write_weights
from training.config import TrainingConfig
from training.evaluation import make_mapper
from training.placement import multiple_of
from training.session import precision, precision_now

_WEIGHTS = "weights.safetensors"
# Names in the config.json of versions before 0.3.
_EARLIER = {
    "multipliers": "channel_multipliers",
    "attention_sizes": "attention_resolutions",
    "num_steps": "diffusion_steps",
    "schedule": "noise_schedule",
}


class Generator:
    """A U-Net with its process and classes; it computes in the precision in which it was trained."""

    def __init__(
        self, config: UNetConfig, process: DiffusionProcess, classes: tuple[str, ...], placement: Placement
    ) -> None:
        self.config, self.process, self.classes, self.placement = config, process, tuple(classes), placement
        self.precision = precision_now()
        self.notes: tuple[str, ...] = ()  # what a reader of its images should know
        with placement.scope():
            self.model = build_unet(config)
        self._compiled: dict[tuple, Callable] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.config.height, self.config.width, self.config.channels

    def request(self, number: np.ndarray, seed: int = 0) -> ImageRequest:
        """Images of these numbers, of all classes cyclically, if the model has classes."""
        return ImageRequest(number, number % len(self.classes) if self.classes else None, seed)

    def stream(
        self, sampler: SamplerConfig, request: ImageRequest, batch_size: int = 64, num_frames: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """Makes images, batch by batch, in order.

        Args:
            sampler: how.
            request: which.
            batch_size: images in a batch; changes only speed and memory.
            num_frames: number of intermediate predictions of x_0.

        Yields:
            ``image`` [B, H, W, C] uint8, and ``frames`` [B, F, H, W, C] uint8 if ``num_frames``.

        Raises:
            UserError: classes for a model without classes, unknown classes, or guidance without classes.
        """
        self.check(sampler, request)
        key = (sampler, request.to_seed is not None, num_frames)
        if key not in self._compiled:
            self._compiled[key] = make_mapper(self._make_sample_fn(*key), self.placement)
        size = min(batch_size, self._round_up(len(request)))
        return self._compiled[key](sample_batches(request, len(self.classes), size))

    def images(self, sampler: SamplerConfig, request: ImageRequest, batch_size: int = 64) -> np.ndarray:
        """[N, H, W, C] uint8: ``stream``, collected."""
        return np.concatenate([part["image"] for part in self.stream(sampler, request, batch_size)])

    def check(self, sampler: SamplerConfig, request: ImageRequest) -> None:
        """Raises UserError for what ``stream`` would refuse."""
        make_table(sampler, self.process)
        label = request.label
        if label is not None and not self.classes:
            raise UserError("this model was trained without classes: it cannot make images of a class")
        if label is not None and len(label) and not 0 <= label.min() <= label.max() < len(self.classes):
            raise UserError(f"class numbers must lie between 0 and {len(self.classes) - 1}")
        if sampler.guidance != 1.0 and label is None:
            raise UserError(f"guidance {sampler.guidance} needs classes")

    def _round_up(self, count: int) -> int:
        multiple = multiple_of(self.placement)
        return -(-count // multiple) * multiple

    def _make_sample_fn(self, config: SamplerConfig, interpolate: bool, num_frames: int) -> Callable:
        table = make_table(config, self.process)

        def sample_fn(batch: SampleBatch) -> dict[str, Any]:
            def draw(seed: Any, stream: Any) -> Any:
                return noise.normal(seed, batch.number, stream, self.shape)

            def draw_noise(row: Any) -> Any:
                return draw(batch.seed, noise.sampling_stream(row))

            x = draw(batch.seed, noise.sampling_stream())
            if interpolate:
                x = slerp(x, draw(batch.to_seed, noise.sampling_stream()), batch.mix)
            predict_x0 = make_predict_x0(self.model, self.process, config, batch.label, len(self.classes))
            sampled = sample(table, predict_x0, draw_noise, x, num_frames)
            values = {"image": to_pixels(sampled.image)}
            if sampled.frames is not None:
                values["frames"] = to_pixels(ops.swapaxes(sampled.frames, 0, 1))
            return values

        return sample_fn

    def fingerprint(self) -> str:
        """SHA-256 of weights, configuration, process, classes and precision."""
        return fingerprint(
            self.model.trainable_variables, repr((self.config, self.process, self.classes, self.precision))
        )

    def save_config(self, folder: Path, files: tuple[str, ...] = ()) -> None:
        """Writes ``config.json``, which names the ``files`` beside it.

        It is done before training, without files, so that an unfinished run can be sampled.
        """
        config = {
            "unet": dataclasses.asdict(self.config),
            "process": dataclasses.asdict(self.process.config),
            "classes": self.classes,
            "precision": self.precision,
        }
        write_artefact(folder, config, files)

    def save(self, folder: Path) -> None:
        """Writes ``weights.safetensors``, and ``config.json`` that names it."""
        write_weights(folder / _WEIGHTS, self.model.variables)
        self.save_config(folder, (_WEIGHTS,))

    @classmethod
    def of_run(cls, run_dir: Path, placement: Placement) -> "Generator":
        """The model of a run folder; of an unfinished run, the averaged weights of its last evaluation."""
        weights = run_dir / "model" / _WEIGHTS
        unfinished = run_dir / "checkpoints" / "best.safetensors"
        return cls.load(run_dir / "model", placement, weights if weights.is_file() else unfinished)

    @classmethod
    def load(cls, folder: Path, placement: Placement, weights: Path | None = None) -> "Generator":
        """Reads a folder that ``save`` wrote; ``weights`` in place of its own, where training has not ended.

        Raises:
            UserError: something is missing, damaged, of another model, or not what was saved with the rest.
        """
        raw, weights = read_artefact(folder), weights or folder / _WEIGHTS
        try:
            config, process = UNetConfig(**_of_today(raw["unet"])), ProcessConfig(**_of_today(raw["process"]))
            classes = _classes(raw["classes"], config.num_classes)
            how = TrainingConfig(precision=raw.get("precision", "float32")).precision
            _check_size(config, weights)
            with precision(how):
                generator = cls(config, DiffusionProcess(process), classes, placement)
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            what = " ".join(str(error).split())[:300]
            raise UserError(f"{folder / CONFIG}: not a generator's configuration ({what})") from error
        load_weights(weights, generator.model.variables)
        return generator


def _classes(names: Any, count: int) -> tuple[str, ...]:
    """The names of classes in a configuration; raises ValueError for what are none, or another number of them."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes are {shown(names)}, not a list of names")
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{count:,} classes and the names {shown(names)}")
    return tuple(names)


def _check_size(config: UNetConfig, weights: Path) -> None:
    """Raises ValueError for a larger network than a file can hold, before memory is taken for it.

    Counted are the second convolution of every residual block, 3×3×C×C, and the embeddings of the classes.
    """
    numbers = 4 * config.base_width * (config.num_classes + 1 if config.num_classes else 0)
    for multiplier in config.channel_multipliers:
        numbers += (2 * config.num_blocks + 1) * 9 * (config.base_width * multiplier) ** 2
    if weights.is_file() and 2 * numbers > weights.stat().st_size:  # bfloat16, or float32
        raise ValueError(f"a network of more than {numbers:,} parameters, which {weights.name} does not hold")


def _of_today(raw: dict[str, Any]) -> dict[str, Any]:
    return {_EARLIER.get(name, name): value for name, value in raw.items()}
