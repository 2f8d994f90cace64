"""Texts per second of ``predict_text`` from raw lines, and the latency of one sentence; both beside transformers.

    python -m benchmarks.prediction --data_path=../shared/data/ag_news
    pip install -r benchmarks/requirements.txt
    python -m benchmarks.prediction --checkpoint=FOLDER

Without ``--checkpoint``: the default model of ``train_text``, from ``--run_dir`` or trained for a few steps, which
costs what a trained one does. AG News texts, one a line, go through the script in a process of its own, once all of
them and once one line, so that start-up is known, and through ``Predictor.classify`` one at a time in a process that is
up. The aim is 3,000 texts/s on two cores, and a sentence in less than 50 ms.

With ``--checkpoint``: ``Predictor.classify`` and ``transformers``' pipeline on the same whole classifier
(BertForSequenceClassification, DistilBertForSequenceClassification), texts and threads. They take turns, each in a
process of its own that idles while the other runs: batches of ``--batch_size`` rows, then one sentence at a time. Both
cut texts at ``--max_length``. The pipeline is given its texts in order of length, as a good user does. The aim is 1.3
times its rate, and no less for one sentence.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from absl import app, flags

from benchmarks.turns import Turn, answer, keep_to_cores, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_string("data_path", "../shared/data/ag_news", "Folder with train.csv or train_subset.csv, and test.csv.")
flags.DEFINE_string("run_dir", "", "Folder of a run of train_text; empty: a new run of a few steps.")
flags.DEFINE_string("checkpoint", "", "Folder of a whole classifier: compare with transformers on it.")
flags.DEFINE_integer("texts", 20_000, "Texts per measurement; 1/40 of them in the comparison with transformers.")
flags.DEFINE_integer("rounds", 5, "Measurements, of each implementation; medians are printed.")
flags.DEFINE_integer("batch_size", 32, "transformers: rows of a batch.")
flags.DEFINE_integer("max_length", 128, "With --checkpoint: longest text in tokens, for both.")
flags.DEFINE_integer("threads", 2, "CPU cores of each implementation.")
flags.DEFINE_string("side", "", "Internal: the implementation that this process runs.")
flags.DEFINE_string("lines", "", "Internal: the file of texts.")

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "pipeline")
ONE = 50  # sentences of a turn that answers them one at a time


def write_lines(path: Path, count: int) -> None:
    """AG News training texts, title and description in one line each."""
    from text_cls.config import DataConfig
    from text_cls.data.splits import load

    fields = load(DataConfig("ag_news", Path(FLAGS.data_path), join_fields="space")).train.fields
    texts = [" ".join(" ".join(text).split()) for text in fields]
    path.write_text("".join(f"{texts[i % len(texts)]}\n" for i in range(count)), encoding="utf-8")


def script(name: str, *arguments: str) -> float:
    """Seconds that a script takes in a process of its own, start-up included."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def train(folder: Path) -> Path:
    """A run of the default model, a few steps long."""
    run_dir = folder / "run"
    data = Path(FLAGS.data_path).resolve()
    script("train_text", "--dataset=ag_news", f"--data_path={data}", "--join_fields=space", "--num_steps=20",
           "--test_rows=100", "--devices=cpu", f"--cache_dir={folder}/cache", f"--run_dir={run_dir}")  # fmt: skip
    return run_dir


def measure_script(run_dir: Path, folder: Path) -> None:
    """Prints the rate of many lines, with and without what one line takes."""
    many, one, out = folder / "many.txt", folder / "one.txt", folder / "answers.csv"
    write_lines(many, FLAGS.texts)
    write_lines(one, 1)
    whole, start_up, rates = [], [], []
    for number in range(FLAGS.rounds):
        for path, seconds in ((many, whole), (one, start_up)):
            seconds.append(script("predict_text", f"--run_dir={run_dir}", f"--input={path}", f"--out={out}"))
        rates.append(FLAGS.texts / (whole[-1] - start_up[-1]))
        print(
            f"round {number + 1}: {whole[-1]:.1f} s, start-up {start_up[-1]:.1f} s, {rates[-1]:,.0f} texts/s",
            flush=True,
        )
    print(
        f"{FLAGS.texts:,} texts: {median(rates):,.0f} texts/s, {FLAGS.texts / median(whole):,.0f} with the "
        f"{median(start_up):.1f} s of start-up; medians of {FLAGS.rounds}"
    )


def measure_latency(run_dir: Path, folder: Path) -> None:
    """Prints what one sentence takes in a process that is up."""
    from text_cls.predictor import Predictor

    predictor = Predictor.load(run_dir)
    write_lines(folder / "some.txt", 300)
    texts = (folder / "some.txt").read_text(encoding="utf-8").splitlines()
    taken = []
    for text in [*texts[:20], *texts]:
        start = time.perf_counter()
        predictor.classify([text])
        taken.append(1000 * (time.perf_counter() - start))
    taken = sorted(taken[20:])
    print(f"one sentence: {median(taken):.1f} ms, {taken[len(taken) * 95 // 100]:.1f} ms or less for 95 of 100")


def ours(texts: list[str], single: bool) -> Turn:
    """``Predictor`` on the checkpoint."""
    from benchmarks.classifier import cutting

    predictor = cutting(Path(FLAGS.checkpoint), FLAGS.max_length)
    if single:
        return lambda: sum(len(predictor.classify([text])) for text in texts[:ONE])
    return lambda: len(predictor.classify(texts))


def pipeline(texts: list[str], single: bool) -> Turn:
    """transformers' own, on the same threads."""
    import torch
    from transformers import pipeline as make_pipeline

    torch.set_num_threads(FLAGS.threads)
    classify = make_pipeline("text-classification", FLAGS.checkpoint, device="cpu")
    options = {"truncation": True, "max_length": FLAGS.max_length}
    if single:
        return lambda: sum(len(classify(text, **options)) for text in texts[:ONE])
    return lambda: len(classify(sorted(texts, key=len), batch_size=FLAGS.batch_size, **options))


def play() -> None:
    """Answers every line on standard input with a turn's texts per second."""
    keep_to_cores(FLAGS.threads)
    side, _, single = FLAGS.side.partition(" ")
    texts = Path(FLAGS.lines).read_text(encoding="utf-8").splitlines()
    answer((ours if side == "ours" else pipeline)(texts, bool(single)))


def compare(folder: Path) -> None:
    """Lets the sides take turns, first in batches, then one sentence at a time."""
    lines = folder / "lines.txt"
    write_lines(lines, FLAGS.texts // 40)
    names = ("data_path", "checkpoint", "batch_size", "max_length", "threads")
    options = [f"--lines={lines}", *(f"--{name}={FLAGS[name].value}" for name in names)]
    base = [sys.executable, "-m", "benchmarks.prediction", *options]
    for how in ("", " single"):
        print("one sentence at a time:" if how else "in batches:", flush=True)
        take_turns({side: [*base, f"--side={side}{how}"] for side in SIDES}, FLAGS.rounds, "texts")


def main(_: list[str]) -> None:
    """Prints the figures."""
    if FLAGS.side:
        play()
        return
    keep_to_cores(FLAGS.threads)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if FLAGS.checkpoint:
            compare(folder)
            return
        run_dir = Path(FLAGS.run_dir).resolve() if FLAGS.run_dir else train(folder)
        measure_script(run_dir, folder)
        measure_latency(run_dir, folder)


if __name__ == "__main__":
    app.run(main)
