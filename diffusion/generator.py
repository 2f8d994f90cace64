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
from diffusion.config import ProcessConfig, SamplerConfig, UNetConfig
from diffusion.process import DiffusionProcess
from diffusion.samplers import make_table
from diffusion.sampling import make_predict_x0, sample, slerp, to_pixels
from diffusion.unet import build_unet
from files.documents import read_sealed, write_sealed
from files.errors import UserError
from training.checkpoint import fingerprint, load_weights, write_weights
from training.evaluation import make_mapper
from training.session import precision, precision_now
from training.strategy import Placement

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
        with placement.strategy.scope():
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
        multiple = self.placement.strategy.num_replicas_in_sync * self.placement.shards
        return -(-count // multiple) * multiple

    def _make_sample_fn(self, config: SamplerConfig, interpolate: bool, num_frames: int) -> Callable:
        table = make_table(config, self.process)

        def sample_fn(batch: SampleBatch) -> dict[str, Any]:
            def draw(seed: Any, stream: Any) -> Any:
                return noise.normal(seed, batch.number, stream, self.shape)

            x = draw(batch.seed, 0)
            if interpolate:
                x = slerp(x, draw(batch.to_seed, 0), batch.mix)
            predict_x0 = make_predict_x0(self.model, self.process, config, batch.label, len(self.classes))
            sampled = sample(table, predict_x0, lambda row: draw(batch.seed, row + 1), x, num_frames)
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

    def save_config(self, folder: Path) -> None:
        """Writes ``config.json``; done before training, so that an unfinished run can be sampled."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "unet": dataclasses.asdict(self.config),
            "process": dataclasses.asdict(self.process.config),
            "classes": self.classes,
            "precision": self.precision,
        }
        write_sealed(folder / "config.json", config)

    def save(self, folder: Path) -> None:
        """Writes ``config.json`` and ``weights.safetensors``."""
        self.save_config(folder)
        write_weights(folder / "weights.safetensors", self.model.variables)

    @classmethod
    def of_run(cls, run_dir: Path, placement: Placement) -> "Generator":
        """The model of a run folder; of an unfinished run, the averaged weights of its last evaluation."""
        weights = run_dir / "model" / "weights.safetensors"
        unfinished = run_dir / "checkpoints" / "best.safetensors"
        return cls.load(run_dir / "model", placement, weights if weights.is_file() else unfinished)

    @classmethod
    def load(cls, folder: Path, placement: Placement, weights: Path | None = None) -> "Generator":
        """Reads a folder that ``save`` wrote; ``weights`` in place of its own, where training has not ended.

        Raises:
            UserError: something is missing, damaged, or of another model.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise UserError(f"{folder}: no trained model there (config.json is missing)")
        try:
            raw = read_sealed(path)
            config, classes = UNetConfig(**_of_today(raw["unet"])), tuple(raw["classes"])
            process = DiffusionProcess(ProcessConfig(**_of_today(raw["process"])))
            if config.num_classes != len(classes):
                raise ValueError(f"{config.num_classes} classes and the names {classes}")
            with precision(raw.get("precision", "float32")):
                generator = cls(config, process, classes, placement)
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            raise UserError(f"{path}: not a generator's configuration ({error})") from error
        load_weights(weights or folder / "weights.safetensors", generator.model.variables)
        return generator


def _of_today(raw: dict[str, Any]) -> dict[str, Any]:
    return {_EARLIER.get(name, name): value for name, value in raw.items()}
