"""Classify texts with a trained run.

    python -m experiments.predict_text --run_dir=runs/… "some text" "another"
    python -m experiments.predict_text --run_dir=runs/… --input=texts.txt
    … | python -m experiments.predict_text --run_dir=runs/…

One text an argument or a line; answers ``id,label,class,confidence`` lines, as in ``predictions.csv``.
"""

import sys
from pathlib import Path

from absl import app, flags

from experiments import launch
from training.errors import UserError

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", None, "Folder of a finished run.", required=True)
flags.DEFINE_string("input", "", "File with one text a line (.gz, .xz, .zst as they are); '-' for standard input.")
flags.DEFINE_string("separator", "", "What stands between the fields of a text, such as headline and description.")
flags.DEFINE_integer("top", 1, "Classes to list for each text, the likeliest first.", lower_bound=1)
flags.DEFINE_string("devices", "cpu", "auto, cpu or gpu.")


def main(argv: list[str]) -> None:
    """Texts from the arguments, the file or standard input → lines on standard output."""
    texts = argv[1:] or _lines()
    if not texts:
        raise UserError("no text given: pass texts as arguments, --input=FILE, or lines on standard input")

    from text_cls.predictor import Predictor
    from training.strategy import make_strategy

    predictor = Predictor.load(Path(FLAGS.run_dir) / "model", make_strategy(FLAGS.devices))
    split = FLAGS.separator
    fields = [tuple(text.split(split)) if split else (text,) for text in texts]
    print(_answers(predictor.probabilities(predictor.encode(fields)), predictor.classes), end="")


def _lines() -> list[str]:
    from text_cls.readers import open_text

    if FLAGS.input and FLAGS.input != "-":
        with open_text(Path(FLAGS.input)) as file:
            lines = list(file)
    else:
        lines = list(sys.stdin)
    return [line.strip() for line in lines if line.strip()]


def _answers(probabilities, classes) -> str:
    from text_cls.predictor import predictions_csv

    return predictions_csv([str(i + 1) for i in range(len(probabilities))], probabilities, classes, FLAGS.top)


if __name__ == "__main__":
    app.run(lambda argv: launch.run(lambda: main(argv)))
