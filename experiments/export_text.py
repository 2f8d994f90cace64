"""A trained text classifier as one folder that TensorFlow alone loads: strings in, classes and confidences out.

    python -m experiments.export_text --run_dir=runs/… --out=classifier
    python -m experiments.export_text --run_dir=runs/… --out=classifier --onnx=false

The folder is a SavedModel with the cleaning, the tokeniser and the linear path inside, beside it ``network.onnx``
(token ids, and the linear path's scores if the run has one → probabilities) and ``export.json``, which says what goes
in and comes out. Both are compared with evaluation on the run's own texts before the folder is put in its place.
Elsewhere:

    tf.saved_model.load("classifier").signatures["serving_default"](texts=tf.constant(["some text"]))
"""

from experiments import launch
from text_cls.export_config import ExportConfig

FLAGS = launch.define(ExportConfig(), "Folder of a finished run, or of a published classifier.")


def main(arguments: list[str]) -> None:
    """Writes the folder, or says what it would be."""
    from text_cls.exporting import dry_run, export_text

    config = launch.read(ExportConfig(), FLAGS)
    run_dir = launch.trained_run(FLAGS.run_dir, "a finished run")
    if FLAGS.dry_run:
        dry_run(config, run_dir)
    else:
        export_text(config, run_dir)


if __name__ == "__main__":
    launch.launch(main, FLAGS)
