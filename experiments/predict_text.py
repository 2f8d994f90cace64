"""Classify texts with a trained run.

    python -m experiments.predict_text --run_dir=runs/… "some text" "-5 degrees"
    python -m experiments.predict_text --run_dir=runs/… --input=texts.txt --out=answers.csv
    python -m experiments.predict_text --run_dir=runs/… --dataset=csv --data_path=texts.csv --text_fields=title,text
    … | python -m experiments.predict_text --run_dir=runs/… --format=jsonl

One text an argument, a line, a row of CSV or JSON, or a .txt file in a folder, read as ``train_text`` reads them; ids
are kept. Answers are ``id,label,class,confidence,note`` lines, in the order of the texts: ``note`` is why a text has no
answer, because it has no words or, with --skip_bad_rows, because it cannot be read. With --explain lines go on with
``explanation,logit,baseline,gap``: what words add to the class's logit, that logit, the one of the text with all words
masked, and by how much the sum over the words misses the difference. Lines of standard input or a pipe are answered
when they pause. What begins with ``--name`` is a flag; anything else, ``-name`` too, and all behind ``--``, is a text.
"""

import sys
from collections.abc import Iterable

from experiments import launch, signals
from files.errors import UserError
from text_cls.prediction_config import PredictionConfig

_RUN_DIR = "Folder of a finished run, or of a published classifier (config.json, weights, tokeniser)."
FLAGS = launch.define(PredictionConfig(), _RUN_DIR, arguments=True)


class _Output:
    """Standard output, and what has gone there."""

    def __init__(self, config: PredictionConfig) -> None:
        self._out, self.lines, self.ended = config.out, 0, False

    def __call__(self, text: str) -> None:
        print(text, end="", flush=True)
        self.lines += text.count("\n")

    def written(self) -> str:
        """For whoever has interrupted the script."""
        if self.ended:
            return "all answers were written"
        if self._out or not self.lines:
            return f"nothing was written{f' to {self._out}' if self._out else ''}"
        return f"at least {self.lines:,} lines of answers were written, those of later texts were not"


def main(arguments: list[str]) -> None:
    """Texts from the arguments, a file or standard input → answers on standard output or in a file."""
    config = launch.read(PredictionConfig(), FLAGS)
    output = _Output(config)
    signals.begins_anew(output.written)
    if not FLAGS.run_dir:
        raise UserError("--run_dir: name the folder of a finished run, or of a published classifier")
    if arguments and (config.input or config.path):
        raise UserError(f"{arguments[0]!r} is a text, and --input or --data_path names others: use one of them")

    from text_cls.prediction import dry_run, predict
    from training.hosts import hosts

    texts = arguments or _standard_input(config)

    if FLAGS.dry_run:
        dry_run(config, FLAGS.run_dir, texts)
        return
    summary = predict(config, FLAGS.run_dir, texts, output)
    output.ended = True
    if hosts().chief:
        for note in summary.notes:
            print(f"note: {note}", file=sys.stderr)
        if config.out:
            without = f", {summary.unanswered:,} without an answer: see their notes" if summary.unanswered else ""
            print(f"{config.out}: {summary.texts:,} texts{without}")


def _standard_input(config: PredictionConfig) -> Iterable[str]:
    """Its lines, when they are asked for."""
    from pathlib import Path

    from text_cls.data.streams import Stream
    from text_cls.data.text_files import read_lines

    if sys.stdin is None:
        return ()
    if not hasattr(sys.stdin, "buffer"):  # where it was replaced
        return read_lines(sys.stdin, Path("standard input"))
    return Stream(sys.stdin.buffer, "standard input", config.encoding)


if __name__ == "__main__":
    launch.launch(main, FLAGS)
