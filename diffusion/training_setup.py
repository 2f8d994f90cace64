"""Everything that training a diffusion model needs, made and checked before training starts."""

import dataclasses
from pathlib import Path

import numpy as np

from diffusion.batches import ImageRequest
from diffusion.config import DdpmConfig
from diffusion.continuing import Source, network_of, read_source, start_from
from diffusion.data.datasets import Splits, load, rule_of_run
from diffusion.data.pixel_ranges import parse_range
from diffusion.enlarging import condition_of, network_for, request_of
from diffusion.fid.extractors import Extractor, build_extractor
from diffusion.generator import Generator
from diffusion.process.objective import Conditioning, make_loss_fn
from diffusion.process.process import make_process
from diffusion.wording import counted
from files.documents import shown
from files.download import cache_of
from files.errors import UserError
from training.backends import Placement
from training.config import TrainingConfig
from training.job import LossFn
from training.progress import Progress


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that training needs, checked before training starts.

    Attributes:
        config: every choice.
        training: the choices of training, with the numbers of steps resolved.
        splits: the images, without those of classes that the network does not learn.
        generator: the network that is trained.
        loss_fn: of this network.
        request: the images of the grids.
        extractor: of FIDs, or None.
        source: the run that this one starts from, or None.
    """

    config: DdpmConfig
    training: TrainingConfig
    splits: Splits
    generator: Generator
    loss_fn: LossFn
    request: ImageRequest
    extractor: Extractor | None
    source: Source | None = None

    def summary(self) -> str:
        """The sizes of data and model, two lines."""
        config, splits = self.config, self.splits
        height, width, channels = self.generator.shape
        classes = f" in {len(splits.classes)} classes" if splits.classes else ""
        return (
            f"{config.data.dataset}: {len(splits.train):,} images of {width}×{height}×{channels}{classes}, "
            f"{splits.held_out()}\n"
            f"model: {self.generator.model.count_params():,} parameters; {self.training.num_steps:,} steps of "
            f"{self.training.batch_size}"
        )


def prepare(config: DdpmConfig, placement: Placement, run_dir: Path | None = None) -> Setup:
    """Reads the data and builds everything; ``run_dir``: a folder whose images an earlier version may have split."""
    data = config.data if run_dir is None else rule_of_run(run_dir, config.data)
    if data != config.data and config.training.select:
        raise UserError(
            f"--run_dir={run_dir} is of a version that chose the weights by the test images: its test figures are "
            "better than they should be; choose another folder, or see them with --splits=two"
        )
    source = read_source(config.init_from, placement, run_dir)
    progress = Progress(None, "image")
    splits = load(data, config.seed, progress.update)
    progress.finish()
    if config.class_conditional:
        every, splits = splits.classes, splits.learnable()
        _check_classes(config, splits, every)
    classes = splits.classes if config.class_conditional else ()
    unet = network_for(config.enlarge, config.unet.for_images(splits.train.pixels.shape, len(classes)))
    if source is not None:
        unet = network_of(source, unet, config.process, config.enlarge)
    generator = Generator(unet, make_process(config.process), classes, placement)
    generator.range = splits.range or parse_range(data.range)
    if source is not None:
        splits = dataclasses.replace(splits, notes=splits.notes + start_from(source, generator, config.unet, splits))
    generator.label_dropout, generator.enlarge = config.label_dropout if classes else None, config.enlarge
    given = Conditioning(len(classes), config.label_dropout, unet.self_condition, condition_of(config.enlarge))
    loss_fn = make_loss_fn(generator.model, generator.process, given, config.min_snr_gamma, unet.learned_variance)
    request = generator.request(np.arange(config.num_samples), config.seed)
    if config.enlarge:
        request = request_of(generator, splits.validation.spread(config.num_samples), config.seed)
    generator.check(config.sampler, request)
    training = config.training.resolved(max(1, len(splits.train) // config.training.batch_size))
    _check_fid(config, training)
    extractor = None
    if config.fid_every:
        extractor = build_extractor(config.features, cache_of(config.cache_dir))
    return Setup(config, training, splits, generator, loss_fn, request, extractor, source)


def _check_classes(config: DdpmConfig, splits: Splits, classes: tuple[str, ...]) -> None:
    """Raises UserError unless training images are of two classes or more; ``classes``: of all images."""
    where = config.data.data_path or config.data.dataset
    if splits.train.labels is None:
        raise UserError(f"--class_conditional: {where} has no labels (folders, or an array); use --noclass_conditional")
    if len(splits.classes) < 2:
        only, remedy = shown(splits.classes[0]), "; "
        if len(classes) > 1:
            shares = f"--test_share={config.data.test_share:g}, --validation_share={config.data.validation_share:g}"
            images = counted(len(splits.train), "training image")
            remedy = f", of {len(classes):,} in its {images} ({shares}): hold out fewer images, or "
        raise UserError(f"--class_conditional: {where} has one class, {only}{remedy}use --noclass_conditional")


def _check_fid(config: DdpmConfig, training: TrainingConfig) -> None:
    """Raises UserError unless the FID is measured at evaluations, and at all of them if it selects the weights."""
    if config.fid_every % training.eval_every:
        raise UserError(f"--fid_every={config.fid_every} is not a multiple of --eval_every={training.eval_every}")
    if training.select == "fid" and config.fid_every != training.eval_every:
        raise UserError(
            f"--select=fid needs a FID at every evaluation: set --fid_every={training.eval_every} as --eval_every"
        )
