"""The vision bridge from texts to an accuracy, stage after stage; what ``imdb_images`` and ``imdb_table`` share.

Every stage is kept in the cache under the hash of all that it depends on, so that a second run, or another row of the
table, finds what it needs.
"""

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import bert_flags, launch, text_data, text_job
from training.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    import numpy as np

    from text_cls.data import Splits
    from training.loop import Job, Settings
    from training.run import Run
    from training.strategy import Placement
    from vision_bridge.classifier import HeadConfig
    from vision_bridge.layout import LayoutConfig, PixelMap
    from vision_bridge.presets import Choices
    from vision_bridge.table import Row

FLAGS = flags.FLAGS
SPLITS = ("train", "validation", "test")


def define_flags() -> None:
    """Flags of the data, the encoder and every stage."""
    launch.define_shared_flags()
    launch.define_training_flags(
        batch_size=32, num_epochs=15.0, learning_rate=0.0, schedule="constant", warmup=0.0, weight_decay=0.0, shards=1
    )  # one shard: batch norms are to see the batch, not as much of it as falls to a core
    text_data.define_data_flags(join_fields="space")
    text_job.define_length_flags(max_length=256)
    bert_flags.define_flags()
    for module in (launch, text_data, text_job, bert_flags):
        flags.adopt_module_key_flags(module)
    flags.DEFINE_enum("preset", "corrected", ["corrected", "author"], "Choices of the flags marked *.")
    flags.DEFINE_integer(
        "last_layer", None, "* Last of the six hidden states, counted down from the encoder's last.", 0
    )
    flags.DEFINE_enum("scaling", None, ["standardize", "min_max", "log"], "* Of the features.")
    flags.DEFINE_enum("distance", None, ["euclidean", "cosine", "correlation"], "* Between features.")
    flags.DEFINE_enum("init", None, ["pca", "random"], "* Start of the t-SNE.")
    flags.DEFINE_enum("fit_rows", None, ["train", "all"], "* Rows that the layout sees; all leaks.")
    flags.DEFINE_enum("rectangle", None, ["smallest", "mistaken"], "* Around the layout.")
    flags.DEFINE_enum("pixels", None, ["bins", "points", "assignment"], "* How points become pixels.")
    flags.DEFINE_enum("z_norm", None, ["train", "batch"], "* Mean and deviation of the images.")
    flags.DEFINE_enum("bn_mode", None, ["frozen", "batch"], "* Batch norms of the extractor.")
    flags.DEFINE_bool("early_stopping", None, "* Weights of the best validation accuracy, not the last.")
    flags.DEFINE_enum(
        "engine",
        "tsne",
        ["tsne", "tsne_exact", "sklearn", "sklearn_exact", "opentsne", "kernel_pca", "pca"],
        "Of the layout.",
    )
    flags.DEFINE_float("perplexity", 30.0, "Of the t-SNE.", 1.0)
    flags.DEFINE_integer("layout_seed", 0, "Of a random start of the layout.", 0)
    flags.DEFINE_integer("height", 50, "Of the image in pixels.", 1)
    flags.DEFINE_integer("width", 50, "Of the image in pixels.", 1)
    flags.DEFINE_bool("shuffle_pixels", False, "Control: the features' pixels anywhere on the image.")
    flags.DEFINE_integer("enlarge", 3, "Side of the square that a pixel becomes for the extractor.", 1)
    flags.DEFINE_string("weights", "", "Of the extractor: a file, random or random:SEED. [the published ones]")
    flags.DEFINE_string("weights_dir", "", "Folder of torchvision's files, instead of downloading them.")
    flags.DEFINE_integer("map_pool", 1, "Average the maps over squares of this side: less to store and to train on.", 1)
    flags.DEFINE_float("encoder_rate", 0.0, "Learning rate of the convolutional encoder; 0: the table's.", 0.0)
    flags.DEFINE_list("head_filters", None, "Of the head's convolutions, in order; empty: none. [the table's]")
    flags.DEFINE_integer("head_kernel", None, "Side of the head's convolutions. [the table's]", 1)
    flags.DEFINE_integer("head_pooled", None, "Side that its maps are averaged to; 0: as they are. [the table's]", 0)
    flags.DEFINE_list("head_dense", None, "Widths of its hidden layers; empty: none. [the table's]")
    flags.DEFINE_bool("head_map_norm", None, "Normalise the frozen maps by batch. [false]")
    flags.DEFINE_float("head_map_dropout", None, "Dropout of the frozen maps. [0]", 0.0, 0.99)
    flags.DEFINE_float("head_dropout", None, "Dropout after its convolutions. [the table's]", 0.0, 0.99)
    flags.DEFINE_float("head_dense_dropout", None, "Dropout after its hidden layers. [the table's]", 0.0, 0.99)
    flags.DEFINE_float("head_reconstruction", None, "Weight of a decoder's squared error; 0: no decoder. [0]", 0.0)
    flags.DEFINE_integer("batch_tokens", 8192, "Positions of a batch of the text encoder.", 1)


def choices() -> "Choices":
    """The preset, with the flags that were given in place of its own choices.

    Raises:
        UserError: flags that contradict each other.
    """
    from vision_bridge.presets import PRESETS, Choices

    chosen = dataclasses.replace(PRESETS[FLAGS.preset], **_given(Choices))
    if FLAGS.patience and not chosen.early_stopping:
        raise UserError(f"--patience={FLAGS.patience} without early stopping: add --early_stopping, or leave it out")
    return chosen


def rate(row: "Row") -> float:
    """The classifier's learning rate."""
    return FLAGS.learning_rate or row.rate


def encoder_rate(row: "Row") -> float:
    """The convolutional encoder's."""
    return FLAGS.encoder_rate or row.encoder_rate


def head_config(row: "Row") -> "HeadConfig":
    """The classifier's shape: the row's, with the flags that were given in place of its own.

    Raises:
        UserError: a width that is not a whole number above 0.
    """
    given = _given(type(row.head), "head_")
    for name in {"filters", "dense"} & given.keys():
        if not all(width.isdecimal() and int(width) for width in given[name]):
            raise UserError(f"--head_{name}={','.join(given[name])}: whole numbers above 0 are needed, or none")
        given[name] = tuple(int(width) for width in given[name])
    return dataclasses.replace(row.head, **given)


def _given(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a dataclass whose flags were given."""
    values = {field.name: FLAGS[prefix + field.name].value for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value is not None}


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@dataclasses.dataclass
class Stage:
    """A stage's arrays [N, ...] by split, and the key of all that they depend on."""

    key: str
    arrays: "dict[str, np.ndarray]"

    def rows(self, split: str) -> "np.ndarray":
        """The split's array."""
        return self.arrays[split]


@dataclasses.dataclass
class Bridge:
    """Everything up to the images.

    Attributes:
        splits: the texts.
        placement: where things run.
        choices: see ``Choices``.
        layers: hidden states that the features are.
        features: [N, D].
        pixel_map: the layout.
        images: [N, H, W].
    """

    splits: "Splits"
    placement: "Placement"
    choices: "Choices"
    layers: list[int]
    features: Stage
    pixel_map: "PixelMap"
    images: Stage

    def labels(self, split: str) -> "np.ndarray":
        """[N] int32."""
        return self.splits.parts()[split].labels  # type: ignore[return-value]


def prepare(placement: "Placement") -> "tuple[Splits, Any, Any, Any]":
    """Splits, their word pieces, checkpoint and tokeniser of the flags."""
    checkpoint = bert_flags.read_encoder()
    tokeniser = bert_flags.make_tokeniser(checkpoint)
    splits, corpora = bert_flags.tokenise(tokeniser)
    if splits.unlabeled is not None:
        raise UserError(f"--test_path={FLAGS.test_path} has no labels, and this script predicts none: leave it out")
    return splits, corpora, checkpoint, tokeniser


def build(
    prepared: "tuple[Splits, Any, Any, Any]", placement: "Placement", chosen: "Choices", shuffle: bool = False
) -> Bridge:
    """Features, layout and images, from the cache where they are there."""
    splits, corpora, checkpoint, tokeniser = prepared
    layers = chosen.layers(checkpoint.config.num_layers)
    features = _features(splits, corpora, checkpoint, tokeniser, layers, placement)
    pixel_map, layout_key = _layout(features, chosen)
    if shuffle:
        pixel_map, layout_key = pixel_map.shuffled(FLAGS.layout_seed), _key(layout_key, "shuffled", FLAGS.layout_seed)
    images = _images(features, pixel_map, layout_key)
    return Bridge(splits, placement, chosen, layers, features, pixel_map, images)


def _folder() -> Path:
    folder = launch.cache_dir() / "bridge"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _features(
    splits: "Splits", corpora: Any, checkpoint: Any, tokeniser: Any, layers: list[int], placement: "Placement"
) -> Stage:
    of_all = bert_flags.features_key(checkpoint, tokeniser, layers)
    keys = {name: _key(texts.fingerprint(), of_all) for name, texts in splits.parts().items()}
    arrays = bert_flags.embed_splits(
        splits, corpora, checkpoint, tokeniser, layers, "cls", placement,
        lambda name: _folder() / f"features-{keys[name]}.npy",
    )  # fmt: skip
    return Stage(_key(keys), {name: array.reshape(len(array), -1) for name, array in arrays.items()})


def _layout_config(chosen: "Choices") -> "LayoutConfig":
    from vision_bridge.layout import LayoutConfig

    return LayoutConfig(
        FLAGS.height, FLAGS.width, chosen.scaling, chosen.distance, FLAGS.engine, FLAGS.perplexity, chosen.init,
        FLAGS.layout_seed, chosen.rectangle, chosen.pixels,
    )  # fmt: skip


def _layout(features: Stage, chosen: "Choices") -> "tuple[PixelMap, str]":
    import numpy as np

    from training.functions import compiled
    from vision_bridge.layout import ALGORITHM, PixelMap

    config = _layout_config(chosen)
    key = _key(features.key, dataclasses.asdict(config), chosen.fit_rows, ALGORITHM)
    path = _folder() / f"layout-{key}.safetensors"
    if not path.exists():
        rows = features.rows("train")
        if chosen.fit_rows == "all":
            rows = np.concatenate([features.rows(split) for split in SPLITS])
        print(f"laying out {rows.shape[1]:,} features by {len(rows):,} rows, {config.engine}", flush=True)
        start = time.monotonic()

        def on_progress(step: int, divergence: float) -> None:
            print(f"  step {step}: divergence {divergence:.4f}, {time.monotonic() - start:.0f} s", flush=True)

        PixelMap.fit(rows, config, compiled, on_progress).save(path)
    return PixelMap.load(path), key


def _images(features: Stage, pixel_map: "PixelMap", layout_key: str) -> Stage:
    import numpy as np

    from training.arrays import GrowingArray

    arrays = {}
    for name in SPLITS:
        rows, path = features.rows(name), _folder() / f"images-{_key(features.key, layout_key, name)}.npy"
        file = GrowingArray(path, (len(rows), *pixel_map.shape), "float32", {"layout": layout_key, "split": name})
        if file.done < len(rows):
            pixel_map.transform(rows, file.array)
            file.save(len(rows))
        arrays[name] = np.load(path, mmap_mode="r")
    return Stage(_key(features.key, layout_key), arrays)


@dataclasses.dataclass
class Extraction:
    """A frozen extractor and what the classifier is fed.

    Attributes:
        weights: what the extractor's weights are.
        x: maps [N, h, w, K], or images where the maps depend on the batch.
        maps_of: ``x`` of a batch → maps.
        shape: h, w, K.
        cached: whether ``x`` are maps.
    """

    weights: str
    x: Stage
    maps_of: Any
    shape: tuple[int, int, int]
    cached: bool

    def remove(self) -> None:
        """Deletes the maps from the cache."""
        from training.arrays import remove

        for array in self.x.arrays.values() if self.cached else ():
            remove(array)


def load_extractor(placement: "Placement", chosen: "Choices", row: "Row", weights: str) -> "tuple[keras.Model, str]":
    """The row's network with its weights, and what they are; refuses images too small for it."""
    from vision_bridge.backbones import build_backbone
    from vision_bridge.classifier import check_maps
    from vision_bridge.maps import map_shape
    from vision_bridge.weights import load_backbone

    height, width = FLAGS.height * FLAGS.enlarge, FLAGS.width * FLAGS.enlarge
    with placement.strategy.scope():
        model = build_backbone(row.backbone, height, width, chosen.bn_mode)
    check_maps(map_shape(model, FLAGS.map_pool), head_config(row))
    folder = Path(FLAGS.weights_dir) if FLAGS.weights_dir else None
    return model, load_backbone(row.backbone, weights, folder, launch.cache_dir(), model)


def check_features(prepared: "tuple[Splits, Any, Any, Any]", chosen: "Choices") -> None:
    """Refuses a grid or a perplexity that cannot be, before the features are computed."""
    from vision_bridge.embedding import TSNE_ENGINES
    from vision_bridge.layout import check_grid
    from vision_bridge.tsne import check_perplexity

    encoder = prepared[2].config
    count = len(chosen.layers(encoder.num_layers)) * encoder.width
    check_grid(count, _layout_config(chosen))
    if FLAGS.engine in TSNE_ENGINES:
        check_perplexity(count, FLAGS.perplexity)


def extract(bridge: Bridge, model: "keras.Model", weights: str) -> Extraction:
    """The frozen maps of every image by a network from ``load_extractor``, from the cache where they are there."""
    import keras

    from training.checkpoint import fingerprint
    from vision_bridge.backbones import has_norms
    from vision_bridge.images import fit_normalization
    from vision_bridge.maps import cache_maps, make_maps_of, map_shape

    chosen, enlarge = bridge.choices, FLAGS.enlarge
    normalization = fit_normalization(bridge.images.rows("train"), chosen.z_norm == "batch")
    maps_of, shape = make_maps_of(model, normalization, enlarge, FLAGS.map_pool), map_shape(model, FLAGS.map_pool)
    of_batch = chosen.z_norm == "batch" or (chosen.bn_mode == "batch" and has_norms(model))
    if of_batch:  # then an image's maps depend on the others
        return Extraction(weights, bridge.images, maps_of, shape, False)
    what = {"images": bridge.images.key, "weights": fingerprint(model.variables, model.name), "enlarge": enlarge,
            "pool": FLAGS.map_pool, "normalization": list(normalization)}  # fmt: skip
    arrays = {}
    for split in SPLITS:
        images, path = bridge.images.rows(split), _folder() / f"maps-{_key(what, split)}.npy"
        print(f"{model.name} maps of {len(images):,} {split} images, {'×'.join(map(str, shape))}", flush=True)
        progress = keras.utils.Progbar(len(images), unit_name="image")
        arrays[split] = cache_maps(
            maps_of, shape, images, bridge.placement, path, what | {"split": split}, FLAGS.batch_size, progress.update
        )
    return Extraction(weights, Stage(_key(what), arrays), lambda x: keras.ops.cast(x, "float32"), shape, True)


def make_job(
    x: Stage, labels: "dict[str, np.ndarray]", num_classes: int, extraction: Extraction, row: "Row",
    placement: "Placement", settings: "Settings",
) -> "tuple[Job, Callable[[str], dict[str, float]]]":  # fmt: skip
    """What the engine trains, and split → its mean figures."""
    import keras
    import numpy as np

    from training.loop import Job, make_evaluator
    from vision_bridge.batches import evaluation_batches, training_batches
    from vision_bridge.classifier import build_head, is_encoder, make_loss_fn

    keras.utils.set_random_seed(settings.seed)
    config = head_config(row)
    ratio = encoder_rate(row) / rate(row)
    with placement.strategy.scope():
        head = build_head(extraction.shape, num_classes, config)
        optimizer = launch.make_optimizer(
            settings.num_steps, rate(row), epsilon=1e-8, rate_of=lambda v: ratio if is_encoder(v) else 1.0
        )
        optimizer.build(head.trainable_variables)
    loss_fn = make_loss_fn(head, extraction.maps_of, config)
    score = make_evaluator(lambda batch: loss_fn(batch, False, None), placement)

    def figures(split: str) -> dict[str, float]:
        values = score(evaluation_batches(x.rows(split), labels[split], FLAGS.batch_size))
        return {name: float(np.mean(value)) for name, value in values.items()}

    job = Job(
        model=head,
        optimizer=optimizer,
        loss_fn=loss_fn,
        train=lambda step: training_batches(x.rows("train"), labels["train"], FLAGS.batch_size, settings.seed, step),
        evaluate=lambda: figures("validation"),
    )
    return job, figures


def train(
    run: "Run", bridge: Bridge, extraction: Extraction, row: "Row", seed: int
) -> "tuple[dict[str, Any], keras.Model]":
    """Trains encoder and classifier on the frozen maps, and scores the test split once: the result and the model."""
    import numpy as np

    from training.loop import fit
    from vision_bridge.controls import wilson_interval

    settings = loop_settings(len(bridge.labels("train")), bridge.choices, seed)
    labels = {split: bridge.labels(split) for split in SPLITS}
    job, figures = make_job(
        extraction.x, labels, len(bridge.splits.classes), extraction, row, bridge.placement, settings
    )
    state = fit(job, bridge.placement, run, settings)
    validation, test = figures("validation"), figures("test")
    low, high = wilson_interval(test["accuracy"], len(labels["test"]))
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    passes = [line["accuracy"] for line in lines if line["split"] == "validation"]
    result = {
        "test_accuracy": test["accuracy"],
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "val_accuracy": validation["accuracy"],
        "val_accuracy_mean_of_passes": float(np.mean(passes)),  # the figure of the author's code
        "test_loss": test["loss"],
        "backbone": row.backbone,
        "weights": extraction.weights,
        "maps": "×".join(map(str, extraction.shape)),
        "learning_rate": rate(row),
        "encoder_rate": encoder_rate(row),
        "train_seconds": state.seconds,
        "examples_per_second": state.step * FLAGS.batch_size / state.seconds,
        "num_parameters": job.model.count_params(),
        "steps": state.step,
        "best_step": state.best_step,
        "seed": seed,
        **{f"choice_{name}": value for name, value in dataclasses.asdict(bridge.choices).items()},
        **{f"layout_{name}": value for name, value in bridge.pixel_map.figures().items()},
    }
    return result, job.model


def loop_settings(rows: int, chosen: "Choices", seed: int) -> "Settings":
    """The loop's settings: the flags', by the preset's choice of weights."""
    settings = launch.settings(-(-rows // FLAGS.batch_size))
    return dataclasses.replace(settings, seed=seed, select=settings.select if chosen.early_stopping else "")


def summary(bridge: Bridge) -> str:
    """Data, features and layout, three lines."""
    sizes = ", ".join(f"{len(texts):,} {name}" for name, texts in bridge.splits.parts().items())
    figures, (height, width) = bridge.pixel_map.figures(), bridge.pixel_map.shape
    return (
        f"{FLAGS.dataset}: {sizes}; {len(bridge.splits.classes)} classes\n"
        f"features: {bridge.features.rows('train').shape[1]:,}, [CLS] of layers {bridge.layers} of {FLAGS.encoder}\n"
        f"layout: {height}×{width}, {figures['filled']:,} pixels filled ({figures['fill']:.0%}), "
        f"{figures['sharing']:,} features share one, {figures['most_on_a_pixel']} at most"
    )


def dry_run(prepared: "tuple[Splits, Any, Any, Any]", placement: "Placement", rows: "list[Row]") -> None:
    """Prints sizes and the cost of a step of the first row on made-up images, and writes nothing."""
    import numpy as np

    from vision_bridge.backbones import build_backbone
    from vision_bridge.images import Normalization
    from vision_bridge.maps import make_maps_of, map_shape
    from vision_bridge.weights import set_random_weights

    splits, _, checkpoint, _ = prepared
    chosen = choices()
    layers = chosen.layers(checkpoint.config.num_layers)
    height, width = FLAGS.height * FLAGS.enlarge, FLAGS.width * FLAGS.enlarge
    with placement.strategy.scope():
        models = [build_backbone(row.backbone, height, width, chosen.bn_mode) for row in rows]
    row, model = rows[0], models[0]
    set_random_weights(model, FLAGS.seed)
    maps_of = make_maps_of(model, Normalization(0, 1, chosen.z_norm == "batch"), FLAGS.enlarge, FLAGS.map_pool)
    images = np.random.default_rng(0).standard_normal((FLAGS.batch_size, FLAGS.height, FLAGS.width), np.float32)
    x = Stage("", dict.fromkeys(SPLITS, images))
    labels = dict.fromkeys(SPLITS, np.zeros(FLAGS.batch_size, np.int32))
    extraction = Extraction("random", x, maps_of, map_shape(model, FLAGS.map_pool), False)
    settings = loop_settings(len(splits.train), chosen, FLAGS.seed)
    job, _ = make_job(x, labels, len(splits.classes), extraction, row, placement, settings)
    sizes = ", ".join(f"{len(texts):,} {name}" for name, texts in splits.parts().items())
    examples = sum(len(texts) for texts in splits.parts().values())
    print(
        f"{FLAGS.dataset}: {sizes}; {len(splits.classes)} classes; "
        f"{len(layers) * checkpoint.config.width:,} features, [CLS] of layers {layers}\n"
        + "".join(_size(map_shape(one, FLAGS.map_pool), one.name, examples) for one in models)
        + f"model: {job.model.count_params():,} parameters; {settings.num_steps:,} steps of {FLAGS.batch_size}"
    )
    for note in splits.notes:
        print(f"note: {note}")
    _, cost = launch.first_step(job, placement, settings)
    print(f"one step, extractor included, on made-up images: {cost}; nothing was written")


def _size(shape: tuple[int, int, int], name: str, examples: int) -> str:
    gigabytes = 2 * math.prod(shape) * examples / 2**30
    return f"maps: {'×'.join(map(str, shape))} of {name}, {gigabytes:.1f} GiB in the cache\n"


def probes(bridge: Bridge, extraction: Extraction, seed: int) -> dict[str, float]:
    """Test accuracy of simple classifiers on the raw features, the pixel means and the frozen maps."""
    from vision_bridge.controls import Data, linear_probe, mlp_probe, pooled

    found = {}
    stages = {"features": bridge.features, "pixels": bridge.images} | (
        {"maps": extraction.x} if extraction.cached else {}
    )
    for name, stage in stages.items():
        arrays = {split: pooled(stage.rows(split)) if name == "maps" else stage.rows(split) for split in SPLITS}
        print(f"logistic regression on {name}, {'×'.join(map(str, arrays['train'].shape[1:]))}", flush=True)
        train, validation, test = (Data(a.reshape(len(a), -1), bridge.labels(split)) for split, a in arrays.items())
        found[f"probe_linear_on_{name}"] = linear_probe(train, validation, test).test_accuracy
        if name == "pixels":
            found["probe_mlp_on_pixels"] = mlp_probe(train, validation, test, seed).test_accuracy
    return found


def check(row_names: list[str]) -> None:
    """Refuses what cannot be, before any work."""
    from vision_bridge.table import ROWS

    unknown = [name for name in row_names if name not in ROWS]
    if unknown:
        raise UserError(f"no extractor {unknown[0]!r}: use {', '.join(ROWS)}")
