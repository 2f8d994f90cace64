"""A trained diffusion model: seeds and labels in, images out; the artefact of a training run.

Image i of seed s is the same in any batch, on any number of devices: all its noise is a function of (s, i, row).
``N`` images, ``B`` batch, ``F`` frames, ``H, W, C`` of each.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from diffusion.batches import ImageRequest, SampleBatch, sample_batches
from diffusion.data.pixel_ranges import Range
from diffusion.enlarging import condition, said
from diffusion.generator_config import parse_saved
from diffusion.network.config import UNetConfig
from diffusion.network.unet import build_unet
from diffusion.process import noise
from diffusion.process.config import OF_TRAINING, SamplerConfig
from diffusion.process.process import Process, make_process
from diffusion.sampling.guidance import Network, Pair, make_predict
from diffusion.sampling.loop import sample, slerp, to_pixels
from diffusion.sampling.samplers import make_levels, make_table, warnings
from files.artefacts import CONFIG, read_artefact, write_artefact
from files.errors import UserError
from training.backends import Placement
from training.evaluation import make_mapper
from training.named_arrays import fingerprint, load_weights, write_weights
from training.placement import multiple_of
from training.run_config import read_own
from training.session import precision, precision_now

WEIGHTS = "weights.safetensors"


class Generator:
    """A U-Net with its process and classes; it computes in the precision in which it was trained."""

    def __init__(self, config: UNetConfig, process: Process, classes: tuple[str, ...], placement: Placement) -> None:
        self.config, self.process, self.classes, self.placement = config, process, tuple(classes), placement
        self.precision = precision_now()
        self.notes: tuple[str, ...] = ()  # for readers of its images
        self.label_dropout: float | None = None  # in training; None: not known
        self.worse: Generator | None = None  # guidance pushes away from it; None: from predictions without a class
        self.enlarge = 0  # factor by which it enlarges images; 0: it makes images from noise alone
        self.range: Range | None = None  # black and white of its training images; None: they had 8 bits
        with placement.scope():
            self.model = build_unet(config)
        self._compiled: dict[tuple, Callable] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.config.height, self.config.width, self.config.channels

    def request(self, number: np.ndarray, seed: int = 0) -> ImageRequest:
        """Images of these numbers; image i has the class i modulo the number of classes, if there are classes."""
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
            UserError: classes for a model without classes, unknown classes, guidance without classes, or a model that
                enlarges images and none to enlarge.
        """
        self.check(sampler, request)
        sampler = self.settled(sampler)
        key = (sampler, request.to_seed is not None, num_frames)
        if key not in self._compiled:
            self._compiled[key] = make_mapper(self._make_sample_fn(*key), self.placement)
        size = min(batch_size, self.round_up(len(request)))
        return self._compiled[key](sample_batches(request, len(self.classes), size))

    def images(self, sampler: SamplerConfig, request: ImageRequest, batch_size: int = 64) -> np.ndarray:
        """[N, H, W, C] uint8: ``stream``, collected."""
        return np.concatenate([part["image"] for part in self.stream(sampler, request, batch_size)])

    def check(self, sampler: SamplerConfig, request: ImageRequest) -> None:
        """Raises UserError for a request that ``stream`` cannot serve."""
        make_table(self.settled(sampler), self.process)
        self._check_source(request.source)
        label = request.label
        if label is not None and not self.classes:
            raise UserError("this model was trained without classes: it cannot make images of a class")
        if label is not None and len(label) and not 0 <= label.min() <= label.max() < len(self.classes):
            raise UserError(f"class numbers must lie between 0 and {len(self.classes) - 1}")
        if sampler.guidance != 1.0 and label is None and not self.worse:
            raise UserError(f"guidance {sampler.guidance} needs classes of the images: set classes, or guidance 1")
        if sampler.guidance != 1.0 and self.label_dropout == 0.0 and not self.worse:
            raise UserError(
                f"guidance {sampler.guidance}: this model was trained with --label_dropout=0 and cannot predict "
                "without a class; leave out --guidance, or train with --label_dropout=0.1"
            )
        if label is None and self.classes and self.label_dropout == 0.0:
            raise UserError("this model was trained with --label_dropout=0 and cannot make images without a class")
        if sampler.variance == "learned" and not self.config.learned_variance:
            raise UserError("--variance=learned: this model was trained without --learned_variance")

    def _check_source(self, source: np.ndarray | None) -> None:
        """Raises UserError for a model that enlarges and no images, or for images and a model that does not enlarge."""
        if self.enlarge and source is None:
            raise UserError(
                f"this model enlarges images {self.enlarge} times and cannot make images from noise alone: use "
                "python -m experiments.edit_images --edit=enlarge --images=FOLDER"
            )
        if source is not None and not self.enlarge:
            raise UserError("this model was trained without --enlarge: it cannot enlarge images")

    def guided_by(self, worse: "Generator") -> None:
        """From now on, guidance pushes away from the predictions of ``worse`` (autoguidance, Karras et al. 2024).

        Raises:
            UserError: its images, classes, inputs, outputs or process differ from this model's.
        """
        pairs = {
            "images": (self.shape, worse.shape),
            "classes": (self.classes, worse.classes),
            "input channels": (self.config.input_channels, worse.config.input_channels),
            "output channels": (self.config.output_channels, worse.config.output_channels),
            "enlargements": (self.enlarge, worse.enlarge),
        }
        for what, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise UserError(f"--autoguidance: {what} of the worse model are {theirs}, those of this model {mine}")
        mine, theirs = self.process.config, worse.process.config
        others = {name: value for name, value in mine.differences(theirs).items() if name not in OF_TRAINING}
        if others:
            said = ", ".join(f"--{name}={value} there, {getattr(mine, name)} here" for name, value in others.items())
            raise UserError(f"--autoguidance: the worse model has another process, {said}")
        self.worse = worse
        self._compiled.clear()

    def settled(self, sampler: SamplerConfig) -> SamplerConfig:
        """The same with the learned variance, if the network has one and the user chose no variance."""
        learned = self.config.learned_variance and sampler.sampler == "ancestral" and sampler.variance == "auto"
        return dataclasses.replace(sampler, variance="learned") if learned else sampler

    def warnings(self, sampler: SamplerConfig) -> list[str]:
        """Warnings about choices that are allowed but rarely useful."""
        return warnings(self.settled(sampler), self.process)

    def round_up(self, count: int) -> int:
        """The smallest number of images, ``count`` or more, that the devices share evenly."""
        multiple = multiple_of(self.placement)
        return -(-count // multiple) * multiple

    def _make_sample_fn(self, config: SamplerConfig, interpolate: bool, num_frames: int) -> Callable:
        levels = make_levels(config, self.process)
        table = make_table(config, self.process, levels)
        start = self.process.start(levels)

        def sample_fn(batch: SampleBatch) -> dict[str, Any]:
            def draw(seed: Any, stream: Any) -> Any:
                return noise.normal(seed, batch.number, stream, self.shape)

            def draw_noise(row: Any) -> Any:
                return draw(batch.seed, noise.sampling_stream(row))

            x = draw(batch.seed, noise.sampling_stream())
            if interpolate:
                x = slerp(x, draw(batch.to_seed, noise.sampling_stream()), batch.mix)
            networks = self.networks(batch.label, batch.source if self.enlarge else None)
            predict = make_predict(*networks, self.process, config, self.config.learned_variance)
            sampled = sample(table, predict, draw_noise, start * x, num_frames)
            values = {"image": to_pixels(sampled.image)}
            if sampled.frames is not None:
                values["frames"] = to_pixels(ops.swapaxes(sampled.frames, 0, 1))
            return values

        return sample_fn

    def networks(self, label: Any, source: Any | None = None) -> tuple[Network, Pair | None]:
        """The network for labels [B], and the pair of predictions for guidance; see ``guidance.make_predict``.

        ``source``: [B, h, w, C] the small images, if the network enlarges images.
        """
        no_class = len(self.classes)
        seen = [] if source is None else [condition(source, *self.shape[:2])]

        def run(x: Any, t: Any, label: Any, before: Any, seen: Any) -> Any:
            beside = [*([before] if self.config.self_condition else []), *seen]
            inputs = self.process.network_inputs(x, t, label if no_class else None, beside)
            return ops.cast(self.model(inputs, training=False), "float32")

        def both(x: Any, t: Any, before: Any) -> tuple[Any, Any]:
            twice = lambda part: ops.concatenate([part, part])  # noqa: E731
            labels = ops.concatenate([label, ops.full_like(label, no_class)])
            first, second = ops.split(run(twice(x), twice(t), labels, twice(before), [twice(one) for one in seen]), 2)
            return first, second

        def network(x: Any, t: Any, before: Any) -> Any:
            return run(x, t, label, before, seen)

        if self.worse:
            other, _ = self.worse.networks(label, source)
            return network, lambda x, t, before: (network(x, t, before), other(x, t, before))
        return network, both if no_class else None

    def computing_in(self, how: str) -> "Generator":
        """The same model in another precision of ``TrainingConfig``; itself if ``how`` is empty or its own."""
        if how in ("", self.precision):
            return self
        other = copy.copy(self)
        with precision(how), self.placement.scope():
            other.precision, other.model, other._compiled = precision_now(), build_unet(self.config), {}
        for variable, known in zip(other.model.variables, self.model.variables, strict=True):
            variable.assign(known.value)
        return other

    def fingerprint(self) -> str:
        """SHA-256 of weights, configuration, process, classes and precision."""
        process = f"DiffusionProcess(config={self.process.config!r})"  # the form of versions before 0.10
        about = f"({self.config!r}, {process}, {self.classes!r}, {self.precision!r}{said(self.enlarge)})"
        return fingerprint(self.model.trainable_variables, about)

    def save_config(self, folder: Path, files: tuple[str, ...] = ()) -> None:
        """Writes ``config.json``, which names the ``files`` in the same folder.

        Called before training without files, so that an unfinished run can be sampled.
        """
        config = {
            "unet": dataclasses.asdict(self.config),
            "process": dataclasses.asdict(self.process.config),
            "classes": self.classes,
            "precision": self.precision,
            "label_dropout": self.label_dropout,
        } | ({} if self.range is None else {"range": list(self.range)})
        config |= {"enlarge": self.enlarge} if self.enlarge else {}
        write_artefact(folder, config, files)

    def save(self, folder: Path) -> None:
        """Writes ``weights.safetensors``, and ``config.json`` that names it."""
        write_weights(folder / WEIGHTS, self.model.variables)
        self.save_config(folder, (WEIGHTS,))

    @classmethod
    def of_run(cls, run_dir: Path | str, placement: Placement) -> "Generator":
        """The model of a run folder; of an unfinished run, the averaged weights of its last evaluation, or of
        the best one by the figure of --select."""
        run_dir = Path(run_dir).expanduser()
        weights = run_dir / "model" / WEIGHTS
        unfinished = run_dir / "checkpoints" / "best.safetensors"
        generator = cls.load(run_dir / "model", placement, weights if weights.is_file() else unfinished)
        if generator.label_dropout is None and generator.classes:  # versions before 0.10 wrote it to the run only
            about = read_own(run_dir / "config.json") or {}
            generator.label_dropout = (about.get("config") or {}).get("label_dropout")
        return generator

    @classmethod
    def load(cls, folder: Path | str, placement: Placement, weights: Path | None = None) -> "Generator":
        """Reads a folder that ``save`` wrote; ``weights`` is another file of weights, if training has not ended.

        Raises:
            UserError: a file is missing, damaged, of another model, or not saved together with the others.
        """
        folder = Path(folder).expanduser()
        raw, weights = read_artefact(folder), weights or folder / WEIGHTS
        try:
            saved = parse_saved(raw, weights)
            with precision(saved.precision):
                generator = cls(saved.unet, make_process(saved.process), saved.classes, placement)
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            what = " ".join(str(error).split())[:300]
            raise UserError(f"{folder / CONFIG}: not a generator's configuration ({what})") from error
        load_weights(weights, generator.model.variables)
        generator.label_dropout, generator.enlarge = saved.label_dropout, saved.enlarge
        if saved.range is not None:
            generator.range = saved.range
            generator.notes = (f"images are of pixels of which {saved.range} are black and white",)
        return generator
