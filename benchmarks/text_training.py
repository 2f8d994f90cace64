"""Examples per second of training the same encoder here and in PyTorch, in one call.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.text_training --data_path=../shared/data/ag_news

The model: width 128, 2 pre-norm layers, 4 heads, ffn 256, GELU, dropout 0.1, vocabulary 20,000, mean pooling, AdamW
with clipping at 1.0; the texts: AG News training rows of their real lengths, at most 128 tokens. Three sides take
turns, each in a process of its own that idles while another runs, and every turn trains the same number of examples:

* ours: the engine's own step and batches, as ``train_text`` runs them;
* torch fixed: ``nn.TransformerEncoder``, every text padded to 128;
* torch sorted: the same, as a good user writes it: batches of similar length, padded to their longest, fused AdamW.

``--sides=ours,two devices,jax`` compares ours with itself: on two logical CPU devices, which shows what a strategy
costs, and on JAX.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.engine import training_turn
from benchmarks.turns import Turn, answer, keep_to_cores, take_turns_on

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", "../shared/data/ag_news", "Folder with train.csv or train_subset.csv, and test.csv.")
flags.DEFINE_integer("batch_size", 64, "Rows of a batch.")
flags.DEFINE_integer("steps", 40, "Training steps per measurement.")
flags.DEFINE_integer("rounds", 7, "Measurements of each implementation.")
flags.DEFINE_integer("threads", 2, "CPU threads of each implementation.")
flags.DEFINE_list("sides", ["ours", "torch fixed", "torch sorted"], "Implementations; each is compared with the first.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("arrays", "", "Internal: the encoded texts.")

VOCABULARY, MAX_LENGTH, WIDTH, LAYERS, HEADS, FFN, CLASSES, DROPOUT = 20000, 128, 128, 2, 4, 256, 4, 0.1
OURS = {"ours": "cpu", "two devices": "cpu:2", "jax": "cpu"}  # side → --devices


def prepare(path: Path) -> None:
    """Encodes the texts once, the same ids for every side."""
    from text_cls.config import DataConfig
    from text_cls.data.splits import load
    from text_cls.tokens.preprocess import Cleaner, tokenise
    from text_cls.tokens.tokenisers import WordTokeniser
    from text_cls.tokens.vocabulary import Vocabulary

    texts = load(DataConfig("ag_news", Path(FLAGS.data_path))).train
    corpus = tokenise(texts.fields, Cleaner())
    tokeniser = WordTokeniser(Cleaner(), Vocabulary.build(corpus, VOCABULARY), MAX_LENGTH)
    encoded = tokeniser.encode(corpus, texts.labels)
    lengths = encoded.lengths
    print(f"{len(lengths):,} texts, {lengths.mean():.1f} tokens on average, {lengths.max()} at most")
    np.savez(path, ids=encoded.ids, offsets=encoded.offsets, labels=encoded.labels)


def ours(arrays: dict[str, np.ndarray], devices: str) -> Turn:
    """The engine's own train step over its own batches."""
    from text_cls.batches import training_batches
    from text_cls.layers.transformer import build_classifier
    from text_cls.layers.transformer_config import TransformerConfig
    from text_cls.objective import make_loss_fn
    from text_cls.tokens.encoding import Encoded
    from training.adamw import AdamW
    from training.config import TrainingConfig
    from training.job import Job
    from training.placement import make_placement

    placement = make_placement(devices)
    config = TransformerConfig(VOCABULARY, CLASSES, MAX_LENGTH, WIDTH, LAYERS, HEADS, FFN, DROPOUT)
    with placement.scope():
        model = build_classifier(config)
        optimizer = AdamW(1e-3)
        optimizer.build(model.trainable_variables)
    encoded = Encoded(arrays["ids"], arrays["offsets"], arrays["labels"])
    batches = training_batches(encoded, FLAGS.batch_size, seed=0)
    job = Job(model, optimizer, make_loss_fn(model), lambda step: batches, dict)
    return training_turn(job, placement, TrainingConfig(num_steps=1), FLAGS.steps)


def torch_batches(arrays: dict[str, np.ndarray], sort: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids [B, T] and labels [B], without end; ``sort`` puts texts of similar length together."""
    lengths, rng = np.diff(arrays["offsets"]), np.random.default_rng(0)
    while True:
        order = rng.permutation(len(lengths))
        if sort:  # by length within pools of 50 batches, then the batches shuffled
            pools = np.array_split(order, max(1, len(order) // (50 * FLAGS.batch_size)))
            order = np.concatenate([pool[np.argsort(lengths[pool])] for pool in pools])
        starts = np.arange(0, len(order) - FLAGS.batch_size + 1, FLAGS.batch_size)
        for start in rng.permutation(starts):
            rows = order[start : start + FLAGS.batch_size]
            padded = int(lengths[rows].max()) if sort else MAX_LENGTH
            tokens = np.zeros((len(rows), padded), np.int64)
            for place, row in enumerate(rows):
                tokens[place, : lengths[row]] = arrays["ids"][arrays["offsets"][row] : arrays["offsets"][row + 1]]
            yield tokens, arrays["labels"][rows].astype(np.int64)


def torch_side(arrays: dict[str, np.ndarray], sort: bool) -> Turn:
    """The peer; ``sort`` makes it the good user's version."""
    import torch
    from torch import nn

    torch.set_num_threads(FLAGS.threads)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FFN, DROPOUT, "gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
            self.positions = nn.Buffer(torch.randn(MAX_LENGTH, WIDTH))
            self.drop, self.head = nn.Dropout(DROPOUT), nn.Linear(WIDTH, CLASSES)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            padding = tokens == 0
            x = self.drop(self.tokens(tokens) * WIDTH**0.5 + self.positions[: tokens.shape[1]])
            x = self.encoder(x, src_key_padding_mask=padding)
            weight = (~padding).unsqueeze(-1).float()
            return self.head(self.drop((x * weight).sum(1) / weight.sum(1)))

    model = Classifier().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01, fused=sort)
    criterion, stream = nn.CrossEntropyLoss(), torch_batches(arrays, sort)

    def turn() -> int:
        examples = 0
        for _ in range(FLAGS.steps):
            tokens, labels = map(torch.from_numpy, next(stream))
            optimizer.zero_grad(set_to_none=True)
            criterion(model(tokens), labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            examples += len(labels)
        return examples

    return turn


def play(side: str) -> None:
    """Answers every line on standard input with a turn's examples per second."""
    with np.load(FLAGS.arrays) as file:
        arrays = dict(file)
    if side == "jax":
        os.environ["KERAS_BACKEND"] = side
    answer(ours(arrays, OURS[side]) if side in OURS else torch_side(arrays, sort=side == "torch sorted"))


def main(argv: list[str]) -> None:
    """Lets the sides take turns and prints medians and ratios."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        play(FLAGS.side)
        return
    options = [f"--{name}={FLAGS[name].value}" for name in ("batch_size", "steps", "threads")]
    take_turns_on(prepare, "benchmarks.text_training", options, FLAGS.sides, FLAGS.rounds, "examples")


if __name__ == "__main__":
    app.run(main)
