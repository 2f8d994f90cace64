"""Seconds from a script's command to its first step, on both backends, and of its ``--help``.

    python -m benchmarks.startup
    python -m benchmarks.startup --backends=jax --cases=train_text --again=1

The first step is over when its line of the log is there; a script that does not train is over when it ends. Data are
BBC News, digits, and sixty texts with a tiny encoder. Everything is measured in a cache of its own that is filled by
one run before, as the second run of a user finds it. The aim is 20 s and, for ``--help``, 1 s on two cores.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["tensorflow", "jax"], "Backends.")
flags.DEFINE_list("cases", [], "Cases to measure; empty: all.")
flags.DEFINE_integer("again", 3, "Measurements; the median is printed.")

ROOT = Path(__file__).resolve().parents[1]
ENCODER = ROOT / "tests" / "golden" / "tiny" / "bert"
FIRST = ["--log_every=1", "--num_steps=1", "--devices=cpu"]
BRIDGE = ["--height=10", "--width=10", "--perplexity=5", "--weights=random:1", "--enlarge=3",
          "--backbone=squeezenet1_1", "--head_kernel=2", "--head_filters=6,4", "--head_pooled=2", "--head_dense=8",
          "--batch_size=8"]  # fmt: skip
SMALL_UNET = ["--base_width=8", "--channel_multipliers=1", "--num_blocks=1", "--attention_resolutions=",
              "--num_groups=4", "--diffusion_steps=50", "--sampling_steps=2", "--num_samples=4"]  # fmt: skip
TRAINED = " step 1/1 "  # in the log, once the first step is taken


def commands(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Case → arguments after ``python -m experiments.``, and what its output has once the first step is over.

    ``NEW`` is a run folder of its own for each run. The first two cases train what others use.
    """
    texts = ["--dataset=csv", f"--data_path={folder}/texts.csv", "--max_length=12", f"--cache_dir={folder}/cache"]
    encoder = [*texts, f"--encoder={ENCODER}"]
    digits, text = folder / "digits", folder / "text"
    return {
        "text": (["train_text", *texts, *FIRST, "--min_count=1", f"--run_dir={text}"], ""),
        "digits": (["ddpm", *SMALL_UNET, *FIRST, f"--run_dir={digits}"], ""),
        "train_text": (["train_text", *texts, *FIRST, "--min_count=1", "--run_dir=NEW"], TRAINED),
        "train_text on bbc_news": (
            ["train_text", "--dataset=bbc_news", *FIRST, f"--cache_dir={folder}/cache", "--run_dir=NEW"], TRAINED,
        ),
        "predict_text": (["predict_text", f"--run_dir={text}", "--devices=cpu", "a good film"], ""),
        "finetune_bert": (["finetune_bert", *encoder, *FIRST, "--tsne=0", "--run_dir=NEW"], TRAINED),
        "embed_text": (["embed_text", *encoder, "--devices=cpu", "--run_dir=NEW"], ""),
        "ddpm on digits": (["ddpm", *SMALL_UNET, *FIRST, "--run_dir=NEW"], TRAINED),
        "ddpm on digits, as it comes": (["ddpm", *FIRST, "--run_dir=NEW"], TRAINED),
        "sample_ddpm": (
            ["sample_ddpm", f"--run_dir={digits}", "--sampling_steps=2", "--num_images=4", "--devices=cpu"], "",
        ),
        "imdb_images": (["imdb_images", *encoder, *BRIDGE, *FIRST, "--run_dir=NEW"], TRAINED),
    }  # fmt: skip


def write_texts(path: Path) -> None:
    """Sixty texts of two classes."""
    rng = np.random.default_rng(0)
    words = (["good", "great", "film", "the"], ["bad", "poor", "film", "the"])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for k in range(60):
            writer.writerow([" ".join(rng.choice(words[k % 2], 12)), ("up", "down")[k % 2]])


def seconds(arguments: list[str], mark: str, environment: dict[str, str]) -> float:
    """Until the mark is in the output, or until the end where there is none."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", f"experiments.{arguments[0]}", *arguments[1:]],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    found, lines = None, []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if mark and mark in line and found is None:
            found = time.perf_counter() - start
            process.terminate()
    process.wait()
    if found is None and (mark or process.returncode):
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{''.join(lines[-20:])}")
    return time.perf_counter() - start if found is None else found


def measured(arguments: list[str], mark: str, environment: dict[str, str], folder: Path) -> float:
    """The median, after a run that fills the cache."""
    taken = []
    for _ in range(FLAGS.again + 1):
        new = folder / f"run-{time.monotonic_ns()}"
        taken.append(seconds([a.replace("NEW", str(new)) for a in arguments], mark, environment))
    return median(taken[1:])


def _environment(backend: str) -> dict[str, str]:
    return {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}


def main(_: list[str]) -> None:
    """Prints one table of first steps and one of ``--help``."""
    print(
        f"| until the first step, s | {' | '.join(FLAGS.backends)} |\n|---|{'---|' * len(FLAGS.backends)}", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        folders = {backend: Path(name) / backend for backend in FLAGS.backends}
        for folder in folders.values():
            folder.mkdir()
            write_texts(folder / "texts.csv")
            for case in ("text", "digits"):
                seconds(*commands(folder)[case], _environment(folder.name))
        for case in FLAGS.cases or list(commands(Path(name)))[2:]:
            row = []
            for backend, folder in folders.items():
                row.append(measured(*commands(folder)[case], _environment(backend), folder))
            print(f"| {case} | {' | '.join(f'{s:.1f}' for s in row)} |", flush=True)
        print("\n| `--help`, s | |\n|---|---|", flush=True)
        for script in sorted(path.stem for path in (ROOT / "experiments").glob("*.py")):
            if "launch.launch(" in (ROOT / "experiments" / f"{script}.py").read_text():
                taken = [_help(script) for _ in range(FLAGS.again)]
                print(f"| {script} | {median(taken):.2f} |", flush=True)


def _help(script: str) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", f"experiments.{script}", "--help"], cwd=ROOT, capture_output=True)
    assert b"--run_dir" in done.stdout
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
