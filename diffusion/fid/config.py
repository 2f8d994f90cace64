"""All choices of a distance between two sets of images."""

import dataclasses
from typing import Self

from diffusion.data.config import ReadingConfig
from diffusion.fid.feature_config import FeatureConfig
from diffusion.process.config import SamplerConfig
from training.config import TaskConfig
from training.options import nested, option


@dataclasses.dataclass(frozen=True)
class FidConfig(TaskConfig):
    """The Fréchet distance and further figures between two sets of images."""

    a: str = option("", "Set of real images; the first argument.")
    b: str = option("", "Set of images that is compared with A; the second argument.")
    num_images: int = option(
        0,
        "Largest number of images of each set, drawn at random by --seed; also the number that a model makes; 0: all.",
        low=0,
    )
    split_seed: int = option(
        0,
        "Seed of the split of NAME:SPLIT if the data set has no splits, as --seed of ddpm; RUN_DIR:SPLIT uses the seed "
        "of its run.",
        low=0,
        high=2**32 - 1,
    )
    test_share: float = option(
        0.1, "Share of the images of NAME:SPLIT that is held out, as --test_share of ddpm.", low=0.0, high=1.0
    )
    statistics_of: str = option(
        "",
        "Tool that wrote the files of statistics or features, if the files do not say it.",
        choices="diffusion.fid.statistics:SAID",
    )
    batch_size: int = option(32, "Images in a batch.", low=1)
    reading: ReadingConfig = nested(ReadingConfig)
    features: FeatureConfig = nested(FeatureConfig)
    metrics: tuple[str, ...] | None = option(
        None,
        "Figures besides FID; prdc: precision, recall, density, coverage; is: the Inception Score. [all that both "
        "sides allow]",
        choices="diffusion.fid.quality:METRICS",
    )
    per_class: bool = option(False, "Also FID, precision and recall of each class; both sets need classes.")
    extrapolate: bool = option(False, "Also extrapolate FID to infinitely many images of B.")
    bootstrap: int = option(0, "Number of resamples for a bootstrap interval of the distance; 0: no interval.", low=0)
    sampler: SamplerConfig = nested(SamplerConfig)
    feature_cache: bool = option(
        True,
        "Keep features in --cache_dir, for other runs; otherwise in the run's folder only. Features of images that a "
        "model makes are never kept there.",
        affects_result=False,
    )

    def settled(self) -> Self:
        """Only ancestral sampling of a model has a variance; how many steps that has is the model's to say."""
        asks = self.sampler.sampler == "ancestral" and self.sampler.sampling_steps
        return self if asks else dataclasses.replace(self, sampler=self.sampler.of_process(0))
