"""Our side of ``benchmarks.gpu``, under JAX: the packages' own functions, as the scripts call them.

Every function returns one turn's work, and a check: numbers that the peer must also find.
"""

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.gpu_sizes import AVERAGES, CHECKED_STEPS, CLIP, DECAYS, EPSILON, RATES, Arrays, Sizes, weight
from benchmarks.turns import Turn

if TYPE_CHECKING:
    from training.backends import Placement


class Noisy(NamedTuple):
    """A batch for the network alone."""

    x_t: Any  # [B, H, W, C]
    t: Any  # [B]
    mask: Any  # [B]


def prepare(workload: str, sizes: Sizes, dropout: float) -> Arrays:
    """Weights and batches, the same for both sides; run on the CPU."""
    draw = np.random.default_rng(0)
    if workload == "matmul":
        return {}
    if workload == "tsne":
        p = draw.random((sizes.points, sizes.points)) ** 8  # a few near pairs have most of the sum
        p = np.triu(p, 1) + np.triu(p, 1).T
        return {"p": (p / p.sum()).astype(np.float32), "points": draw.standard_normal((sizes.points, 2))}
    bert = workload in ("finetune", "features")
    model: Any = _classifier(sizes, dropout) if bert else _unet(sizes, dropout)
    weights = {f"weights/{v.path}": weight(v.path, v.shape, draw).astype(np.float32) for v in model.trainable_variables}
    return weights | (_texts(workload, sizes, draw) if bert else _images(sizes, draw))


def _texts(workload: str, sizes: Sizes, draw: np.random.Generator) -> Arrays:
    bert = sizes.bert
    rows = bert.texts if workload == "finetune" else bert.feature_texts
    tokens = draw.integers(5, bert.vocabulary, (rows, bert.tokens))
    length = draw.integers(bert.tokens // 2, bert.tokens + 1, (rows, 1))
    tokens = np.where(np.arange(bert.tokens) < length, tokens, 0).astype(np.int32)
    return {"tokens": tokens, "label": draw.integers(0, bert.classes, rows).astype(np.int32)}


def _images(sizes: Sizes, draw: np.random.Generator) -> Arrays:
    """Images, what our loss draws for them, and the sampler's table."""
    from diffusion.process import noise
    from diffusion.process.config import ProcessConfig
    from diffusion.process.process import make_process
    from diffusion.sampling.samplers import make_table
    from diffusion.sampling.table import M0, X

    unet, process = sizes.unet, make_process(ProcessConfig())
    shape, number = (unet.size, unet.size, unet.channels), np.arange(unet.images, dtype=np.int32)
    u = np.asarray(noise.uniform(0, number, noise.TIME, 1))[:, 0]
    table = make_table(_sampler(sizes), process)
    return {
        "image": draw.integers(0, 256, (unet.images, *shape), np.uint8),
        "t": 1 + np.floor(u * process.num_steps).astype(np.int32),
        "eps": np.asarray(noise.normal(0, number, noise.NOISE, shape)),
        "start": np.asarray(noise.normal(0, number, noise.sampling_stream(), shape)),
        "alpha": process.alpha.astype(np.float32),
        "sigma": process.sigma.astype(np.float32),
        "times": table.times,
        "of_x": table.weights[:, 0, X].astype(np.float32),
        "of_x0": table.weights[:, 0, M0].astype(np.float32),
    }


def _bert_config(sizes: Sizes, dropout: float) -> Any:
    from text_cls.encoders.config import BertConfig

    b = sizes.bert
    return BertConfig(
        b.vocabulary, b.width, b.layers, b.heads, b.ffn, b.positions, dropout=dropout, attention_dropout=dropout
    )


def _classifier(sizes: Sizes, dropout: float) -> Any:
    from text_cls.encoders.bert import build_classifier
    from text_cls.encoders.config import BertClassifierConfig

    config = _bert_config(sizes, dropout)
    return build_classifier(BertClassifierConfig(config, sizes.bert.classes, head_dropout=dropout))


def _unet_config(sizes: Sizes, dropout: float) -> Any:
    from diffusion.network.config import UNetConfig

    u = sizes.unet
    return UNetConfig(u.size, u.size, u.channels, u.base, u.multipliers, u.blocks, u.attention, 1, dropout, u.groups)


def _unet(sizes: Sizes, dropout: float) -> Any:
    from diffusion.network.unet import build_unet

    return build_unet(_unet_config(sizes, dropout))


def _sampler(sizes: Sizes) -> Any:
    from diffusion.process.config import SamplerConfig

    return SamplerConfig("ddim", sizes.unet.sampling_steps)


def _load(model: Any, arrays: Arrays) -> Any:
    for variable in model.trainable_variables:
        variable.assign(arrays[f"weights/{variable.path}"])
    return model


def turn_of(
    workload: str, sizes: Sizes, arrays: Arrays, placement: "Placement", precision: str, dropout: float
) -> tuple[Turn, Arrays]:
    """The turn of a workload, and its check."""
    if workload == "matmul":
        return _matmul(sizes, precision), {}
    if workload == "tsne":
        return _tsne(sizes, arrays)
    if workload == "features":
        return _features(sizes, arrays, placement)
    if workload == "sampling":
        return _sampling(sizes, arrays, placement, dropout)
    return (_finetune if workload == "finetune" else _train_unet)(sizes, arrays, placement, precision, dropout)


def _matmul(sizes: Sizes, precision: str) -> Turn:
    import jax
    from jax import numpy as jnp

    draw, steps = np.random.default_rng(0), sizes.steps["matmul"]
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    a, b = (jnp.asarray(draw.standard_normal((sizes.matrix, sizes.matrix)), dtype) for _ in range(2))
    product = jax.jit(jnp.matmul)

    def turn() -> int:
        for _ in range(steps):
            last = product(a, b)
        last.block_until_ready()
        return steps

    return turn


def _tsne(sizes: Sizes, arrays: Arrays) -> tuple[Turn, Arrays]:
    """Always in float32, as the bridge runs it."""
    from scipy.sparse import csr_matrix

    from training.functions import compiled
    from training.session import precision
    from vision_bridge.layouts.tsne_exact import exact

    points, steps = arrays["points"], sizes.steps["tsne"]
    with precision("float32"):
        objective = exact(csr_matrix(arrays["p"]), compiled)
        first = objective(points)

    def turn() -> int:
        with precision("float32"):
            for _ in range(steps):
                objective(points)
        return steps

    return turn, {"divergence": np.array(first.value), "gradient": first.gradient}


def _features(sizes: Sizes, arrays: Arrays, placement: "Placement") -> tuple[Turn, Arrays]:
    from text_cls.batches import Batch
    from text_cls.encoders.bert import build_encoder
    from text_cls.features import make_feature_fn
    from training.evaluation import make_evaluator
    from training.feed import Batches, spec_of

    bert, steps = sizes.bert, sizes.steps["features"]
    encoder = _load(build_encoder(_bert_config(sizes, 0.1), cls_only=True), arrays)
    evaluate = make_evaluator(make_feature_fn(encoder, "cls"), placement)
    rows = np.arange(bert.feature_texts, dtype=np.int32)
    batch = Batch(arrays["tokens"], arrays["label"], rows, np.ones(len(rows), np.float32))

    def features(count: int) -> np.ndarray:
        return evaluate(Batches(lambda: itertools.repeat(batch, count), spec_of(batch)))["features"]

    return lambda: len(features(steps)) * bert.tokens, {"features": features(1)[:, 0].astype(np.float32)}


def _sampling(sizes: Sizes, arrays: Arrays, placement: "Placement", dropout: float) -> tuple[Turn, Arrays]:
    from diffusion.generator import Generator
    from diffusion.process.config import ProcessConfig
    from diffusion.process.process import make_process

    count, steps = sizes.unet.images, sizes.steps["sampling"]
    generator = Generator(_unet_config(sizes, dropout), make_process(ProcessConfig()), (), placement)
    _load(generator.model, arrays)

    def images(batches: int) -> np.ndarray:
        return generator.images(_sampler(sizes), generator.request(np.arange(batches * count)), count)

    return lambda: len(images(steps)), {"image": images(1).astype(np.float32)}


def _finetune(
    sizes: Sizes, arrays: Arrays, placement: "Placement", precision: str, dropout: float
) -> tuple[Turn, Arrays]:
    from keras import ops

    from text_cls.batches import Batch
    from text_cls.objective import make_loss_fn

    rows = np.arange(sizes.bert.texts, dtype=np.int32)
    batch = Batch(arrays["tokens"], arrays["label"], rows, np.ones(len(rows), np.float32))
    model = _load(_classifier(sizes, dropout), arrays)
    answer = lambda b: {"probabilities": ops.softmax(model(b.tokens, training=False))}  # noqa: E731
    check = _mapped(placement, answer, batch, "probabilities")
    turn, losses = _training(
        "finetune", sizes.steps["finetune"], model, make_loss_fn(model), batch, placement, precision
    )
    return lambda: turn() * sizes.bert.tokens, check | (losses if not dropout else {})


def _train_unet(
    sizes: Sizes, arrays: Arrays, placement: "Placement", precision: str, dropout: float
) -> tuple[Turn, Arrays]:
    from diffusion.batches import ImageBatch
    from diffusion.process.config import ProcessConfig
    from diffusion.process.objective import make_loss_fn
    from diffusion.process.process import make_process

    count = sizes.unet.images
    number, mask = np.arange(count, dtype=np.int32), np.ones(count, np.float32)
    batch = ImageBatch(arrays["image"], np.zeros(count, np.int32), number, mask)
    model = _load(_unet(sizes, dropout), arrays)
    noisy = Noisy(arrays["eps"], arrays["t"], mask)
    output = _mapped(placement, lambda b: {"output": model([b.x_t, b.t], training=False)}, noisy, "output")
    loss_fn = make_loss_fn(model, make_process(ProcessConfig()))
    turn, losses = _training("unet", sizes.steps["unet"], model, loss_fn, batch, placement, precision)
    return turn, output | (losses if not dropout else {})


def _mapped(placement: "Placement", function: Any, batch: Any, name: str) -> Arrays:
    from training.feed import spec_of

    mapper = placement.map(function, spec_of(batch))
    return {name: mapper.run(mapper.prepare(batch))[name]}


def _training(
    workload: str, steps: int, model: Any, loss_fn: Any, batch: Any, placement: "Placement", precision: str
) -> tuple[Turn, Arrays]:
    """Steps of the engine on a batch that is on the device already; a turn's number is that of its examples."""
    from training.config import TrainingConfig
    from training.feed import spec_of
    from training.job import make_job
    from training.train_step import make_train_step

    training = TrainingConfig(
        num_steps=10**6, learning_rate=RATES[workload], schedule="constant", warmup=0, clip_norm=CLIP,
        weight_decay=DECAYS[workload], ema_decay=AVERAGES[workload], precision=precision,
    )  # fmt: skip
    job = make_job(model, loss_fn, lambda step: None, dict, placement, training, 0, epsilon=EPSILON)  # type: ignore
    step = make_train_step(job, placement, training, spec_of(batch))
    walk = itertools.repeat(step.prepare(batch))
    first = [step.run(walk, number, 1, {}) for number in range(CHECKED_STEPS)]
    means = ((name, [float(sums[name] / sums["count"]) for sums in first]) for name in ("loss", "gradient_norm"))
    losses = {name: np.array(values) for name, values in means}
    done = itertools.count(CHECKED_STEPS, steps)

    def turn() -> int:
        return int(float(step.run(walk, next(done), steps, {})["count"]))  # waits for the device

    return turn, losses
