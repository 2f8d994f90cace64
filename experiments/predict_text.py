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

    from text_cls.prediction import dry_run, predict
    from training.hosts import hosts

    texts = arguments or (_lines(config) if hosts().chief else [])  # the chief's are taken

    if FLAGS.dry_run:
        dry_run(config, FLAGS.run_dir, texts)
        return
    answers = predict(config, FLAGS.run_dir, texts)
    if hosts().chief:
        print(answers, end="")


def _lines(config: PredictionConfig) -> list[str]:
    from text_cls.text_files import open_text, read_lines

    if config.input and config.input != "-":
        path = Path(config.input)
        with open_text(path, config.max_megabytes) as file:
            return [line.strip() for line in read_lines(file, path) if line.strip()]
    return [line.strip() for line in sys.stdin if line.strip()]


if __name__ == "__main__":
    launch.launch(main, FLAGS)
