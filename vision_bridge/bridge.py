"""The vision bridge up to the frozen maps: features → layout → images → maps.

The cache keeps every stage under the hash of everything that it depends on: a second run, or another row of the table,
does not compute it again. ``N`` rows, ``D`` features, ``H``×``W`` the image, ``h``×``w``×``K`` maps.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np

from files.arrays import GrowingArray
from training.backends import Placement
from training.functions import compiled
from training.named_arrays import fingerprint
from training.progress import Progress
from training.session import precision_now
from training.shared_arrays import Filling, filling
from vision_bridge.cache import Cache, Stage, key_of
from vision_bridge.classifier import check_maps
from vision_bridge.config import BridgeConfig
from vision_bridge.frozen.backbones import build_backbone, has_norms
from vision_bridge.frozen.extractors import EXTRACTORS, Extractor
from vision_bridge.frozen.images import Normalization, fit_normalization
from vision_bridge.frozen.maps import MapShape, fill_maps, make_maps_of, make_stream, map_shape, sampled_maps
from vision_bridge.frozen.storage import MOST_SAMPLED, PACKINGS, MapStatistics
from vision_bridge.frozen.weights import load_backbone
from vision_bridge.layouts.feature_counts import check_layout, notes
from vision_bridge.layouts.layout import ALGORITHM, Layout

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The features that become images, from any source.

    Attributes:
        arrays: [N, D] by split, perhaps memory-mapped.
        labels: [N] by split: numbers of classes, or floats.
        classes: names of the classes; empty: the labels are quantities.
        key: hash of everything that the arrays depend on.
        groups: names of the columns' groups.
        kind: what a group is, for pictures.
        about: what the features are, for the log.
        names: of the D columns; empty: they have none.
        column_groups: [D] number of each column's group; None: the groups follow one another and have equal sizes.
    """

    arrays: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]
    key: str
    groups: tuple[str, ...]
    kind: str = "group of features"
    about: str = ""
    names: tuple[str, ...] = ()
    column_groups: np.ndarray | None = None

    @property
    def group_of(self) -> np.ndarray:
        """[D] number of each column's group."""
        if self.column_groups is not None:
            return self.column_groups
        count = self.arrays["train"].shape[1]
        return np.arange(count) * len(self.groups) // count


class Network(NamedTuple):
    """A frozen extractor with its weights.

    Attributes:
        name: in ``EXTRACTORS``.
        model: images [B, H, W, 3] → maps [B, h, w, K].
        weights: a description of the weights, for the result.
    """

    name: str
    model: keras.Model
    weights: str

    @property
    def extractor(self) -> Extractor:
        """Its record in ``EXTRACTORS``."""
        return EXTRACTORS[self.name]

    def fingerprint(self) -> str:
        """SHA-256 of name and weights."""
        return fingerprint(self.model.variables, self.model.name)


class Maps(NamedTuple):
    """The input of a head.

    Attributes:
        network: computes the maps.
        x: maps; or images, if the maps depend on the batch or are not stored.
        by: network → images [B, H, W] → maps [B, h, w, K] float32.
        maps_of: ``x`` of a batch → maps [B, h, w, K] float32.
        shape: of a row's maps.
        cached: whether ``x`` are maps.
        alone: whether an image's maps do not depend on the other images of its batch.
        statistics: of each map; None if neither head nor cache needs them.
    """

    network: Network
    x: Stage
    by: Callable[[keras.Model], Callable[[Any], Any]]
    maps_of: Callable[[Any], Any]
    shape: MapShape
    cached: bool
    alone: bool = True
    statistics: MapStatistics | None = None

    @classmethod
    def of_images(cls, config: BridgeConfig, network: Network, images: Stage, z: Normalization) -> Self:
        """Maps that are not stored."""
        by = partial(make_maps_of, normalization=z, enlarge=config.enlarge, pool=config.map_pool)
        return cls(network, images, by, by(network.model), map_shape(network.model, config.map_pool), cached=False)

    def remove(self) -> None:
        """Deletes the maps from the cache."""
        if self.cached:
            self.x.remove()


@dataclasses.dataclass(frozen=True, eq=False)
class Bridge:
    """The stages, each computed at its first use.

    Attributes:
        config: every choice.
        features: the features to lay out.
        cache: folder of intermediate results.
        placement: where models run.
    """

    config: BridgeConfig
    features: Features
    cache: Path
    placement: Placement

    @cached_property
    def layout_key(self) -> str:
        """Hash of everything that the layout depends on before pixels are shuffled, except the rounding of sums."""
        layout = dataclasses.asdict(self.config.layout())
        return key_of(self.features.key, layout, self.config.chosen.fit_rows, ALGORITHM, precision_now())

    @cached_property
    def pixel_map(self) -> Layout:
        """The layout."""
        key = self.layout_key
        pixel_map = self._files.file(
            "layout", key, ".safetensors",
            lambda path: self._lay_out().save(path, key), lambda path: Layout.load(path, key),
        )  # fmt: skip
        return pixel_map.shuffled(self.config.layout_seed) if self.config.shuffle_pixels else pixel_map

    @cached_property
    def images(self) -> Stage:
        """[N, H, W] float32 by split; with ``--channels=groups`` [N, H, W, G]."""
        pixel_map, features, channels = self.pixel_map, self.features.arrays, self.channels

        def fill(split: str, file: GrowingArray) -> None:
            pixel_map.transform(features[split], file.array, self.features.group_of if channels else None)
            file.save(len(features[split]))

        # The layout itself, not its key: t-SNE gives another layout on another number of cores.
        depends_on = {"features": self.features.key, "layout": pixel_map.fingerprint()}
        depends_on |= {"groups": key_of(self.features.group_of.tolist())} if channels else {}
        return self._files.stage("images", depends_on, features, (*pixel_map.shape, *channels), "float32", fill)

    @property
    def channels(self) -> tuple[int, ...]:
        """(G,); empty for gray images."""
        return (len(self.features.groups),) if self.config.channels == "groups" else ()

    @cached_property
    def normalization(self) -> Normalization:
        """The z-normalisation of the images."""
        return fit_normalization(self.images.arrays["train"], self.config.chosen.z_norm == "batch")

    def load(self, name: str, weights: str) -> Network:
        """``load_network`` of the bridge's configuration."""
        return load_network(self.config, name, weights, self.cache, self.placement)

    def maps(self, network: Network) -> Maps:
        """The frozen maps of every image."""
        config, chosen, model = self.config, self.config.chosen, network.model
        z = self.normalization
        maps = Maps.of_images(config, network, self.images, z)
        depends_on = {"images": self.images.key, "weights": network.fingerprint(),
                      "enlarge": config.enlarge, "pool": config.map_pool, "normalization": list(z),
                      "precision": precision_now()}  # fmt: skip
        statistics = None
        if config.head_of(network.extractor).map_norm or config.map_storage == "int8":
            statistics = self._statistics(maps.maps_of, depends_on | {"bn_mode": chosen.bn_mode})
        by_batch = chosen.z_norm == "batch" or (chosen.bn_mode == "batch" and has_norms(model))
        maps = maps._replace(alone=not by_batch, statistics=statistics)
        if by_batch or config.map_storage == "none":
            return maps

        packing = PACKINGS[config.map_storage](statistics or MapStatistics.neutral(maps.shape.channels))
        stream = make_stream(maps.maps_of, packing, self.placement)

        def fill(split: str, file: Filling) -> None:
            images = self.images.arrays[split]
            print(f"{model.name} maps of {len(images):,} {split} images, {'×'.join(map(str, maps.shape))}", flush=True)
            progress = Progress(len(images), "image", file.done)
            fill_maps(stream, images, file, config.training.batch_size, progress.update)

        if packing.dtype == "int8":
            assert statistics is not None
            error = float(np.sqrt(np.mean(np.square(statistics.error))))
            print(f"maps as int8: rounded by {error:.3f} deviations of a map (root mean square)", flush=True)
            depends_on |= {"statistics": key_of([value.tolist() for value in statistics])}
        stage = self._files.stage("maps", depends_on, self.images.arrays, maps.shape, packing.dtype, fill, filling)
        return maps._replace(x=stage, maps_of=packing.unpack, cached=True)

    def learning(self, maps: Maps) -> Maps:
        """The same maps, which must not be cached ones, by a copy of the extractor whose convolutions learn."""
        network = maps.network
        model = build_network(self.config, network.name, self.placement)
        model.set_weights(network.model.get_weights())
        model.trainable = True  # the norms' numbers never learn
        return maps._replace(network=network._replace(model=model), maps_of=maps.by(model))

    def _statistics(self, maps_of: Callable[[Any], Any], depends_on: dict[str, Any]) -> MapStatistics:
        key, images = key_of("statistics", depends_on, MOST_SAMPLED), self.images.arrays["train"]

        def make(path: Path) -> None:
            MapStatistics.of(sampled_maps(maps_of, images, self.config.training.batch_size)).save(path, key)

        return self._files.file("map_statistics", key, ".safetensors", make, lambda path: MapStatistics.load(path, key))

    def summary(self) -> str:
        """Features and layout, two lines."""
        figures, (height, width) = self.pixel_map.figures(), self.pixel_map.shape
        return (
            f"features: {self.features.arrays['train'].shape[1]:,}, {self.features.about}\n"
            f"layout: {height}×{width}, {figures['filled']:,} pixels filled ({figures['fill']:.0%}), "
            f"{figures['sharing']:,} features share one, {figures['most_on_a_pixel']} at most"
        )

    @property
    def _files(self) -> Cache:
        return Cache(self.cache / "bridge")

    def _lay_out(self) -> Layout:
        layout, arrays = self.config.layout(), self.features.arrays
        rows = arrays["train"]
        if self.config.chosen.fit_rows == "all":
            rows = np.concatenate([arrays[split] for split in SPLITS])
        print(f"laying out {rows.shape[1]:,} features by {len(rows):,} rows, {layout.engine}", flush=True)
        for note in notes(rows.shape[1], layout):
            print(f"note: {note}", flush=True)
        start = time.monotonic()

        def on_progress(step: int, divergence: float) -> None:
            print(f"  step {step}: divergence {divergence:.4f}, {time.monotonic() - start:.0f} s", flush=True)

        return Layout.fit(rows, layout, compiled, on_progress, self.features.names)


def check_features(config: BridgeConfig, count: int) -> None:
    """Raises UserError if image or perplexity do not fit ``count`` features; called before features are computed."""
    check_layout(count, config.layout())


def load_network(config: BridgeConfig, name: str, weights: str, cache: Path, placement: Placement) -> Network:
    """An extractor with its weights.

    Args:
        config: size of the images and of the maps, batch norms, folder of the weights.
        name: one of ``EXTRACTORS``.
        weights: see ``load_backbone``.
        cache: where downloads go.
        placement: where it runs.

    Raises:
        UserError: weights that cannot be loaded, or images too small for the extractor and the head.
    """
    model = build_network(config, name, placement)
    check_maps(map_shape(model, config.map_pool), config.head_of(EXTRACTORS[name]))
    return Network(name, model, load_backbone(name, weights, config.weights_dir, cache, model))


def build_network(config: BridgeConfig, name: str, placement: Placement) -> keras.Model:
    """An extractor for the configuration's images, without published weights."""
    height, width = config.height * config.enlarge, config.width * config.enlarge
    with placement.scope():
        return build_backbone(name, height, width, config.chosen.bn_mode)
