"""Classify texts with a trained run.

    python -m experiments.predict_text --run_dir=runs/… "some text" "another"
    python -m experiments.predict_text --run_dir=runs/… --input=texts.txt
    … | python -m experiments.predict_text --run_dir=runs/…

One text an argument or a line; answers ``id,label,class,confidence`` lines, as in ``predictions.csv``.
"""

import sys
from pathlib import Path

from experiments import launch
from files.errors import UserError
from text_cls.config import PredictionConfig

FLAGS = launch.define(PredictionConfig(), "Folder of a finished run.", arguments=True)


def main(arguments: list[str]) -> None:
    """Texts from the arguments, the file or standard input → lines on standard output."""
    config = launch.read(PredictionConfig(), FLAGS)
    if not FLAGS.run_dir:
        raise UserError("--run_dir: name the folder of a finished run")
    texts = arguments or _lines(config.input)
    if not texts:
        raise UserError("no text given: pass texts as arguments, --input=FILE, or lines on standard input")

    from text_cls.predictor import Predictor, predictions_csv
    from training.strategy import make_strategy

    predictor = Predictor.load(Path(FLAGS.run_dir).expanduser() / "model", make_strategy(config.devices))
    if FLAGS.dry_run:
        print(f"{len(texts):,} texts, {predictor.model.count_params():,} parameters; nothing was written")
        return
    fields = [tuple(text.split(config.separator)) if config.separator else (text,) for text in texts]
    probabilities = predictor.probabilities(predictor.encode(fields))
    ids = [str(i + 1) for i in range(len(probabilities))]
    print(predictions_csv(ids, probabilities, predictor.classes, config.top), end="")


def _lines(path: str) -> list[str]:
    from text_cls.readers import open_text

    if path and path != "-":
        with open_text(Path(path)) as file:
            lines = list(file)
    else:
        lines = list(sys.stdin)
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":
    launch.launch(main, FLAGS)
