"""A trained diffusion model: seeds and labels in, images out; the artefact a training run leaves behind.

Image i of seed s is the same in any batch, on any number of devices: all its noise is a function of (s, i, row).
``N`` images, ``B`` batch, ``F`` frames, ``H, W, C`` of each.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion import noise
from diffusion.batches import SampleBatch, sample_batches
from diffusion.process import DiffusionProcess
from diffusion.samplers import PredictX0, SamplerConfig, sample
from diffusion.unet import UNetConfig, build_unet
from training.checkpoint import fingerprint, load_weights, write_weights
from training.errors import UserError
from training.loop import make_mapper
from training.run import write_text
from training.strategy import Placement


class Wish(NamedTuple):
    """Which images are asked for.

    Attributes:
        number: [N] numbers of the images.
        label: [N] classes, or None for images of no class in particular.
        mix: [N] shares of ``to_seed``'s noise in x_T, or None.
    """

    number: np.ndarray
    label: np.ndarray | None = None
    mix: np.ndarray | None = None


def make_predict_x0(
    model: keras.Model, process: DiffusionProcess, config: SamplerConfig, label: Any | None, num_classes: int
) -> PredictX0:
    """The network as samplers see it: guided (Eq. 6, Ho & Salimans 2022), as a prediction of x_0, clipped."""

    def predict_x0(x: Any, t: Any) -> Any:
        times = ops.broadcast_to(t, ops.shape(x)[:1])
        if not num_classes:
            output = model([x, times], training=False)
        elif config.guidance == 1.0:
            output = model([x, times, label], training=False)
        else:
            labels = ops.concatenate([label, ops.full_like(label, num_classes)])
            both = model([ops.concatenate([x, x]), ops.concatenate([times, times]), labels], training=False)
            conditional, unconditional = ops.split(both, 2)
            output = unconditional + config.guidance * (conditional - unconditional)
        x0 = process.predict_x0(ops.cast(output, "float32"), x, times)
        return ops.clip(x0, -1.0, 1.0) if config.clip else x0

    return predict_x0


def slerp(a: Any, b: Any, share: Any) -> Any:
    """From ``a`` (share 0) to ``b`` (share 1) along the great circle (App. D.5, Song et al. 2021); share [B]."""
    axes, share = tuple(range(1, len(a.shape))), ops.reshape(share, (-1,) + (1,) * (len(a.shape) - 1))
    product = ops.sum(a * b, axis=axes, keepdims=True)
    length = ops.sqrt(ops.sum(a * a, axis=axes, keepdims=True) * ops.sum(b * b, axis=axes, keepdims=True))
    angle = ops.arccos(ops.clip(product / length, -0.999999, 0.999999))
    return (ops.sin((1.0 - share) * angle) * a + ops.sin(share * angle) * b) / ops.sin(angle)


def to_pixels(x: Any) -> Any:
    """−1 … 1 → uint8 0 … 255."""
    return ops.cast(ops.clip(ops.round((x + 1.0) * 127.5), 0.0, 255.0), "uint8")


class Generator:
    """A U-Net with its process and classes."""

    def __init__(
        self, config: UNetConfig, process: DiffusionProcess, classes: tuple[str, ...], placement: Placement
    ) -> None:
        self.config, self.process, self.classes, self.placement = config, process, tuple(classes), placement
        with placement.strategy.scope():
            self.model = build_unet(config)
        self._compiled: dict[tuple, Callable] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.config.height, self.config.width, self.config.channels

    def stream(
        self,
        sampler: SamplerConfig,
        wish: Wish,
        seed: int = 0,
        batch_size: int = 64,
        to_seed: int | None = None,
        num_frames: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Makes images, batch by batch, in order.

        Args:
            sampler: how.
            wish: which.
            seed: of all noise.
            batch_size: images at a time; changes nothing but speed and memory.
            to_seed: the other end of an interpolation of x_T.
            num_frames: predictions of x_0 on the way.

        Yields:
            ``image`` [B, H, W, C] uint8, and ``frames`` [B, F, H, W, C] uint8 where asked for.

        Raises:
            UserError: classes asked of a model without, unknown classes, or guidance without classes.
        """
        self.check(sampler, wish)
        key = (sampler, seed, to_seed, num_frames)
        if key not in self._compiled:
            self._compiled[key] = make_mapper(self._make_sample_fn(*key), self.placement)
        count = len(wish.number)
        label = np.full(count, len(self.classes)) if wish.label is None else wish.label
        mix = np.zeros(count) if wish.mix is None else wish.mix
        return self._compiled[key](sample_batches(wish.number, label, mix, min(batch_size, self._round_up(count))))

    def images(self, sampler: SamplerConfig, wish: Wish, seed: int = 0, batch_size: int = 64) -> np.ndarray:
        """[N, H, W, C] uint8: ``stream``, collected."""
        return np.concatenate([part["image"] for part in self.stream(sampler, wish, seed, batch_size)])

    def fingerprint(self) -> str:
        """SHA-256 of the weights and what goes with them."""
        return fingerprint(self.model.trainable_variables, repr((self.config, self.process, self.classes)))

    def wish(self, number: np.ndarray) -> Wish:
        """Images of these numbers, the classes in turns where the model has any."""
        return Wish(number, number % len(self.classes) if self.classes else None)

    def _round_up(self, count: int) -> int:
        multiple = self.placement.strategy.num_replicas_in_sync * self.placement.shards
        return -(-count // multiple) * multiple

    def check(self, sampler: SamplerConfig, wish: Wish) -> None:
        """Raises UserError for what ``stream`` would refuse."""
        sampler.table(self.process)
        if wish.label is not None and not self.classes:
            raise UserError("this model was trained without classes: it cannot be asked for one")
        if (
            wish.label is not None
            and len(wish.label)
            and not 0 <= wish.label.min() <= wish.label.max() < len(self.classes)
        ):
            raise UserError(f"class numbers must lie between 0 and {len(self.classes) - 1}")
        if sampler.guidance != 1.0 and wish.label is None:
            raise UserError(f"guidance {sampler.guidance} needs classes to be guided to")

    def _make_sample_fn(self, config: SamplerConfig, seed: int, to_seed: int | None, num_frames: int) -> Callable:
        table = config.table(self.process)

        def sample_fn(batch: SampleBatch) -> dict[str, Any]:
            x = noise.normal(seed, batch.number, 0, self.shape)
            if to_seed is not None:
                x = slerp(x, noise.normal(to_seed, batch.number, 0, self.shape), batch.mix)
            predict_x0 = make_predict_x0(self.model, self.process, config, batch.label, len(self.classes))
            image, frames = sample(
                table, predict_x0, lambda row: noise.normal(seed, batch.number, row + 1, self.shape), x, num_frames
            )
            values = {"image": to_pixels(image)}
            return values | {"frames": to_pixels(ops.swapaxes(frames, 0, 1))} if num_frames else values

        return sample_fn

    def save_config(self, folder: Path) -> None:
        """Writes ``config.json``; done before training, so that an unfinished run can be looked at."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "unet": dataclasses.asdict(self.config),
            "process": dataclasses.asdict(self.process),
            "classes": self.classes,
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")

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
            raw = json.loads(path.read_text(encoding="utf-8"))
            process, classes = DiffusionProcess(**raw["process"]), tuple(raw["classes"])
            config = UNetConfig(**raw["unet"])
            if config.num_classes != len(classes) or not isinstance(process.num_steps, int):
                raise ValueError(f"{config.num_classes} classes and the names {classes}, T = {process.num_steps}")
            generator = cls(config, process, classes, placement)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"{path}: not a generator's configuration ({error})") from error
        load_weights(weights or folder / "weights.safetensors", generator.model.variables)
        return generator
