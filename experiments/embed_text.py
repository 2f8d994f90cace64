"""Frozen features of texts: hidden states of an encoder's layers, one array a split.

python -m experiments.embed_text --dataset=bbc_news --layers=4,5,6
"""

from absl import flags

from experiments import bert_flags, launch, text_data, text_job
from training.errors import UserError

FLAGS = flags.FLAGS

launch.define_shared_flags()
text_data.define_data_flags(join_fields="space")
text_job.define_length_flags(max_length=256)
bert_flags.define_flags()
for module in (launch, text_data, text_job, bert_flags):
    flags.adopt_module_key_flags(module)
flags.DEFINE_list("layers", ["-1"], "Hidden states: 0 is the embeddings', 1 the first layer's; -1 the last.")
flags.DEFINE_enum("pooling", "cls", ["cls", "mean", "max"], "How the pieces' vectors become the text's.")
flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the arrays.")
flags.DEFINE_integer("batch_tokens", 8192, "Positions of a batch.", 1)


def main() -> None:
    """Writes ``SPLIT.npy`` [N, layers, width] and ``SPLIT_labels.npy`` [N] for every split."""
    import numpy as np

    path = launch.run_dir(f"embed_text-{FLAGS.dataset}")
    launch.check_run(path)
    placement = launch.make_placement()
    checkpoint = bert_flags.read_encoder()
    layers = _layers(checkpoint.config.num_layers)
    tokeniser = bert_flags.make_tokeniser(checkpoint)

    from text_cls.features import check_layers

    check_layers(checkpoint.config, layers)
    splits, corpora = bert_flags.tokenise(tokeniser)
    sizes = ", ".join(f"{len(texts):,} {name}" for name, texts in splits.parts().items())
    print(f"{FLAGS.dataset}: {sizes}; layers {layers} of {checkpoint.path}, {FLAGS.pooling}")
    if FLAGS.dry_run:
        print("nothing was written")
        return
    run = launch.open_data_run(path, splits)
    arrays = bert_flags.embed_splits(
        splits, corpora, checkpoint, tokeniser, layers, FLAGS.pooling, placement, lambda name: path / f"{name}.npy",
        FLAGS.dtype,
    )  # fmt: skip
    for name, texts in splits.parts().items():
        if texts.labels is not None:
            np.save(path / f"{name}_labels.npy", texts.labels)
        run.say(f"{name}.npy {arrays[name].shape} {arrays[name].dtype}")


def _layers(depth: int) -> list[int]:
    try:
        layers = [int(text) for text in FLAGS.layers]
    except ValueError as error:
        raise UserError(
            f"--layers={','.join(FLAGS.layers)}: use numbers from 0 to {depth}, or -1 for the last"
        ) from error
    return [depth + 1 + layer if layer < 0 else layer for layer in layers]


if __name__ == "__main__":
    launch.launch(main)
