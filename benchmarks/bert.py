"""Feature extraction and fine-tuning beside ``transformers`` on PyTorch: same weights, texts, float type and threads.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.bert --data_path=../shared/data/imdb_reviews_50k.csv.xz

Three sides take turns, each in a process of its own that idles while another runs, and every turn handles the same
texts, from token ids to [CLS] vectors, or to updated weights:

* ours: ``text_cls.features`` and the engine's own training step, as the scripts run them;
* fixed: ``transformers``, every text padded to the greatest length;
* dynamic: the same with its own dynamic padding, texts in order of length; fused AdamW for training.

``--task=embed`` embeds IMDB reviews of at most 256 pieces in batches of 32; ``--task=finetune`` trains on AG News texts
of at most 128 pieces in batches of 32.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.engine import training_turn
from benchmarks.turns import Turn, answer, keep_to_cores, take_turns_on

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", "", "imdb_reviews_50k.csv.xz for embed, the AG News folder for finetune.")
flags.DEFINE_enum("task", "embed", ["embed", "finetune"], "What is measured.")
flags.DEFINE_enum("pooling", "cls", ["cls", "mean"], "embed: pooling of the last layer.")
flags.DEFINE_integer("texts", 256, "Texts per measurement.")
flags.DEFINE_integer("rounds", 5, "Measurements of each implementation.")
flags.DEFINE_integer("threads", 2, "CPU threads of each implementation.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("arrays", "", "Internal: the encoded texts.")

SIDES = ("ours", "fixed", "dynamic")
BATCH, CLASSES = 32, 4


def _folder() -> Path:
    from files.download import default_cache
    from text_cls.encoders.checkpoints import resolve

    return resolve("minilm", default_cache())


def prepare(path: Path) -> None:
    """Encodes the texts once, the same ids for every side."""
    from text_cls.config import DataConfig
    from text_cls.data.splits import draw_rows, load
    from text_cls.encoders.checkpoints import read_checkpoint
    from text_cls.tokens.tokenisers import PieceTokeniser

    dataset, length = ("imdb", 256) if FLAGS.task == "embed" else ("ag_news", 128)
    texts = draw_rows(load(DataConfig(dataset, Path(FLAGS.data_path))).train, FLAGS.texts, True, 0, "train")
    tokeniser = PieceTokeniser(read_checkpoint(_folder()).tokeniser(), length)
    encoded = tokeniser.encode(tokeniser.tokenise(texts.fields), texts.labels)
    print(f"{len(texts):,} texts, {encoded.lengths.mean():.1f} pieces on average, {encoded.lengths.max()} at most")
    np.savez(path, ids=encoded.ids, offsets=encoded.offsets, labels=encoded.labels)


def ours_embed(arrays: dict[str, np.ndarray]) -> Turn:
    """``text_cls.features`` without the file."""
    from text_cls.batches import sorted_batches
    from text_cls.encoders.checkpoints import read_checkpoint
    from text_cls.features import feature_encoder, make_feature_fn
    from text_cls.tokens.encoding import Encoded
    from training.evaluation import make_evaluator
    from training.placement import make_placement

    placement = make_placement("cpu")
    checkpoint = read_checkpoint(_folder())
    encoder = feature_encoder(checkpoint, [checkpoint.config.num_layers], FLAGS.pooling)
    evaluate = make_evaluator(make_feature_fn(encoder, FLAGS.pooling), placement)
    encoded = Encoded(arrays["ids"], arrays["offsets"], arrays["labels"])
    return lambda: len(evaluate(sorted_batches(encoded, BATCH))["features"])


def ours_finetune(arrays: dict[str, np.ndarray]) -> Turn:
    """The engine's own train step over its own batches, as ``finetune_bert`` runs them."""
    from text_cls.batches import training_batches
    from text_cls.encoders.bert import build_classifier
    from text_cls.encoders.checkpoints import load_encoder, read_checkpoint
    from text_cls.encoders.config import BertClassifierConfig
    from text_cls.objective import make_loss_fn
    from text_cls.tokens.encoding import Encoded
    from training.adamw import AdamW
    from training.config import TrainingConfig
    from training.job import Job
    from training.placement import make_placement

    placement = make_placement("cpu")
    checkpoint = read_checkpoint(_folder())
    model = build_classifier(BertClassifierConfig(checkpoint.config, CLASSES))
    load_encoder(checkpoint, model.get_layer("encoder"))
    optimizer = AdamW(5e-5)
    optimizer.build(model.trainable_variables)
    encoded = Encoded(arrays["ids"], arrays["offsets"], arrays["labels"])
    batches = training_batches(encoded, BATCH, seed=0)
    job = Job(model, optimizer, make_loss_fn(model), lambda step: batches, dict)
    return training_turn(job, placement, TrainingConfig(num_steps=1), FLAGS.texts // BATCH)


def _padded(arrays: dict[str, np.ndarray], rows: np.ndarray, length: int) -> np.ndarray:
    tokens = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        ids = arrays["ids"][arrays["offsets"][row] : arrays["offsets"][row + 1]]
        tokens[place, : len(ids)] = ids
    return tokens


def _peer_batches(arrays: dict[str, np.ndarray], dynamic: bool) -> list[np.ndarray]:
    """Batches in order of length, padded to their longest or all to the greatest length."""
    lengths = np.diff(arrays["offsets"])
    order = np.argsort(-lengths, kind="stable") if dynamic else np.arange(len(lengths))
    groups = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    return [_padded(arrays, rows, lengths[rows].max() if dynamic else lengths.max()) for rows in groups]


def peer_embed(arrays: dict[str, np.ndarray], dynamic: bool) -> Turn:
    """``BertModel`` in inference mode."""
    import torch
    from transformers import BertModel

    torch.set_num_threads(FLAGS.threads)
    model = BertModel.from_pretrained(_folder(), add_pooling_layer=False).eval()

    def turn() -> int:
        done = 0
        with torch.inference_mode():
            for tokens in map(torch.from_numpy, _peer_batches(arrays, dynamic)):
                mask = tokens != 0
                hidden = model(tokens, attention_mask=mask).last_hidden_state
                if FLAGS.pooling == "cls":
                    done += len(hidden[:, 0].numpy())
                else:
                    weight = mask.unsqueeze(-1).float()
                    done += len(((hidden * weight).sum(1) / weight.sum(1)).numpy())
        return done

    return turn


def peer_finetune(arrays: dict[str, np.ndarray], dynamic: bool) -> Turn:
    """``BertForSequenceClassification`` with AdamW and clipping."""
    import torch
    from transformers import BertForSequenceClassification

    torch.set_num_threads(FLAGS.threads)
    model = BertForSequenceClassification.from_pretrained(_folder(), num_labels=CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-5, weight_decay=0.01, fused=dynamic)
    rng = np.random.default_rng(0)

    def turn() -> int:
        done = 0
        groups = _peer_batches(arrays, dynamic)
        for place in rng.permutation(len(groups)):
            tokens = torch.from_numpy(groups[place])
            labels = torch.from_numpy(rng.integers(0, CLASSES, len(tokens)))
            optimizer.zero_grad(set_to_none=True)
            model(tokens, attention_mask=tokens != 0, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += len(tokens)
        return done

    return turn


def play(side: str) -> None:
    """Answers every line on standard input with a turn's texts per second."""
    with np.load(FLAGS.arrays) as file:
        arrays = dict(file)
    sides: dict[tuple[str, bool], Callable[[], Turn]] = {
        ("embed", True): lambda: ours_embed(arrays),
        ("finetune", True): lambda: ours_finetune(arrays),
        ("embed", False): lambda: peer_embed(arrays, side == "dynamic"),
        ("finetune", False): lambda: peer_finetune(arrays, side == "dynamic"),
    }
    answer(sides[FLAGS.task, side == "ours"]())


def main(argv: list[str]) -> None:
    """Lets the sides take turns and prints medians and ratios."""
    if FLAGS.side:
        keep_to_cores(FLAGS.threads)
        play(FLAGS.side)
        return
    options = [f"--{name}={FLAGS[name].value}" for name in ("task", "pooling", "texts", "threads")]
    take_turns_on(prepare, "benchmarks.bert", options, SIDES, FLAGS.rounds, "texts")


if __name__ == "__main__":
    app.run(main)
