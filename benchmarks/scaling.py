"""The paper model of docs/distributed.md: what a step computes and what it reduces, and how it would scale.

    python -m benchmarks.scaling

Nothing is measured here. Operations and bytes are counted from the recipes' networks; how fast a card computes and a
link carries are assumptions, given by flags. A reduction waits for all gradients, as the engine's does on TensorFlow,
so a step takes t_compute + t_reduce, and the efficiency is t_compute / (t_compute + t_reduce).
"""

from typing import NamedTuple

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_float("peak", 989.0, "TFLOP/s of a card (H100 SXM, bfloat16, dense).")
flags.DEFINE_float("share", 0.35, "Share of the peak that a step reaches.")
flags.DEFINE_float("inside", 400.0, "GB/s that each card of a host sends while all do (NVLink 4: 450 at most).")
flags.DEFINE_float("between", 50.0, "GB/s that each host sends to the next (400 Gbit/s).")
flags.DEFINE_float("latency", 30.0, "Microseconds of each step of a ring between hosts.")
FLOAT = 4  # bytes of a gradient


class Recipe(NamedTuple):
    """What one example costs.

    Attributes:
        name: in the table.
        batch: examples a card.
        flops: of an example's update: forward, and twice that backward.
        dense: parameters whose gradient is reduced as a whole.
        table: parameters of the embedding, which is reduced as a whole between hosts.
        rows: numbers in the embedding's rows of an example's tokens, which are sent inside a host.
    """

    name: str
    batch: int
    flops: float
    dense: int
    table: int
    rows: int


def bert_base(batch: int, tokens: int = 512) -> Recipe:
    """12 layers of width 768, feed-forward 3072 (Devlin et al. 2019), fine-tuned."""
    from text_cls.encoders.bert import build_classifier
    from text_cls.encoders.config import BertClassifierConfig, BertConfig

    config = BertConfig()
    parameters = build_classifier(BertClassifierConfig(config, 2)).count_params()
    table = config.vocabulary_size * config.width
    blocks = config.num_layers * (4 * config.width**2 + 2 * config.width * config.ffn_width)
    attention = config.num_layers * 2 * 2 * tokens * config.width  # scores and their product with the values
    forward = tokens * (2 * blocks + attention)
    return Recipe(f"BERT-base, {tokens} tokens", batch, 3 * forward, parameters - table, table, tokens * config.width)


def cifar10(batch: int) -> Recipe:
    """The U-Net of Ho et al. (2020) on 32×32 images; 12.1 GFLOP forward (counted by XLA, see ``benchmarks.ddpm``)."""
    from diffusion.network.config import UNetConfig
    from diffusion.network.unet import build_unet

    return Recipe("CIFAR-10 U-Net", batch, 3 * 12.1e9, build_unet(UNetConfig()).count_params(), 0, 0)


def seconds(recipe: Recipe, cards: int, hosts: int) -> tuple[float, float, float]:
    """Of computing and of reducing, and the bytes that a card sends, in one step on so many cards of each host."""
    compute = recipe.batch * recipe.flops / (FLAGS.peak * FLAGS.share * 1e12)
    n = cards * hosts
    if n == 1:
        return compute, 0.0, 0.0
    # A ring sends every number 2 (n − 1) / n times. Inside a host rows are gathered: a card gets those of all others.
    table = 2 * (n - 1) / n * recipe.table if hosts > 1 else (n - 1) * recipe.batch * recipe.rows
    sent = FLOAT * (2 * (n - 1) / n * recipe.dense + table)
    reduce = sent / (FLAGS.inside * 1e9)
    if hosts > 1:  # the ring goes over the link between hosts once a round
        reduce = max(reduce, sent / (FLAGS.between * 1e9)) + 2 * (n - 1) * FLAGS.latency * 1e-6
    return compute, reduce, sent


def main(argv: list[str]) -> None:
    """Prints the table."""
    print(f"{FLAGS.peak:.0f} TFLOP/s × {FLAGS.share:.0%} a card; {FLAGS.inside:.0f} GB/s inside a host, "
          f"{FLAGS.between:.0f} GB/s between hosts")  # fmt: skip
    print(f"{'recipe':24s} {'a card':>7s} {'cards':>9s} {'GFLOP':>8s} {'MB sent':>8s} {'compute':>9s} {'reduce':>9s} "
          f"{'efficiency':>10s} {'examples/s':>11s}")  # fmt: skip
    for recipe in (bert_base(3), bert_base(32), cifar10(16), cifar10(128)):
        for cards, hosts in ((1, 1), (8, 1), (8, 4)):
            compute, reduce, sent = seconds(recipe, cards, hosts)
            share, n, flops = compute / (compute + reduce), cards * hosts, recipe.batch * recipe.flops
            print(
                f"{recipe.name:24s} {recipe.batch:7d} {f'{hosts} × {cards}':>9s} {flops / 1e9:8,.0f} "
                f"{sent / 1e6:8,.0f} {1e3 * compute:6.1f} ms {1e3 * reduce:6.1f} ms {share:10.0%} "
                f"{n * recipe.batch / (compute + reduce):11,.0f}"
            )


if __name__ == "__main__":
    app.run(main)
