"""Classify texts with a trained run.

    python -m experiments.predict_text --run_dir=runs/… "some text" "-5 degrees"
    python -m experiments.predict_text --run_dir=runs/… --input=texts.txt --out=answers.csv
    python -m experiments.predict_text --run_dir=runs/… --dataset=csv --data_path=texts.csv --text_fields=title,text
    … | python -m experiments.predict_text --run_dir=runs/… --format=jsonl

One text an argument, a line, a row of CSV or JSON, or a .txt file in a folder, read as ``train_text`` reads them; ids
are kept. Answers are ``id,label,class,confidence,note`` lines, in the order of the texts: ``note`` is why a text has no
answer, because it has no words or, with --skip_bad_rows, because it cannot be read. What begins with ``--name`` is a
flag; anything else, and all behind ``--``, is a text.
"""

import sys
from collections.abc import Iterator

from experiments import launch
from files.errors import UserError
from text_cls.prediction_config import PredictionConfig

FLAGS = launch.define(PredictionConfig(), "Folder of a finished run.", arguments=True)


def main(arguments: list[str]) -> None:
    """Texts from the arguments, a file or standard input → answers on standard output or in a file."""
    config = launch.read(PredictionConfig(), FLAGS)
    if not FLAGS.run_dir:
        raise UserError("--run_dir: name the folder of a finished run")
    if arguments and (config.input or config.path):
        raise UserError(f"{arguments[0]!r} is a text, and --input or --data_path names others: use one of them")

    from text_cls.prediction import dry_run, predict
    from training.hosts import hosts

    texts = arguments or _standard_input(config)

    if FLAGS.dry_run:
        dry_run(config, FLAGS.run_dir, texts)
        return
    summary = predict(config, FLAGS.run_dir, texts, lambda text: print(text, end=""))
    if hosts().chief:
        for note in summary.notes:
            print(f"note: {note}", file=sys.stderr)
        if config.out:
            without = f", {summary.unanswered:,} without an answer: see their notes" if summary.unanswered else ""
            print(f"{config.out}: {summary.texts:,} texts{without}")


def _standard_input(config: PredictionConfig) -> Iterator[str]:
    """Its lines, when they are asked for."""
    from pathlib import Path

    from text_cls.text_files import read_lines

    if sys.stdin is None:
        return
    if config.encoding != "auto" and hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding=config.encoding)
    yield from read_lines(sys.stdin, Path("standard input"))


if __name__ == "__main__":
    launch.launch(main, FLAGS)
