"""Every task on JAX, without TensorFlow, against the same task on TensorFlow; what either writes, the other reads."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from files.tensors import read_tensors
from tests import little_texts
from tests.jax_scripts import CPUS, Jax, interrupted
from tests.little_ddpm import TINY
from tests.scripts import ROOT, Done, run, succeeds

pytest.importorskip("jax")
FIRST_STEP, CURVE, RESUMED, PREDICTED = 1e-5, 1e-3, 1e-4, 1e-5
STEPS = 20


@pytest.fixture(scope="module")
def jax(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jax]:
    cache = str(tmp_path_factory.mktemp("cache"))  # of everything: the same task is compiled once
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    process = Jax(TRIPTYCH_CACHE=cache, **kept)
    yield process
    process.close()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Command lines without ``--run_dir``."""
    folder = tmp_path_factory.mktemp("data")
    encoder = little_texts.write(folder, lambda k: 5 + k % 8)
    texts = ["--dataset=csv", f"--data_path={folder / 'texts.csv'}", "--validation_share=0.2", "--test_share=0.2",
             f"--cache_dir={folder / 'cache'}", "--max_length=12"]  # fmt: skip
    train = ["--devices=cpu", "--log_every=1", "--tensorboard", "--shards=1"]
    small = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--min_count=1", "--bigram_buckets=31"]
    bert = [f"--encoder={encoder}", "--batch_size=8", "--learning_rate=0.003"]
    many = [f"--num_steps={STEPS}", "--eval_every=10"]
    head = ["--height=12", "--width=12", "--perplexity=5", "--enlarge=4", "--head_kernel=2", "--head_filters=6,4",
            "--head_pooled=2", "--head_dense=8", "--head_reconstruction=0.1", "--batch_size=8",
            f"--encoder={encoder}"]  # fmt: skip
    return {
        "text": ["train_text", *texts, *train, *small, *many, "--batch_size=8", "--max_length=8"],
        "bert": ["finetune_bert", *texts, *train, *bert, *many, "--label_smoothing=0.1", "--max_length=7"],
        "lora": ["finetune_bert", *texts, *train, *bert, "--num_steps=6", "--mlm_epochs=0.5", "--pooling=mean",
                 "--lora_rank=2", "--accumulate=2", "--export", "--tsne=10", "--ema_decay=0.9"],
        "budget": ["finetune_bert", *texts, *train, *bert, "--num_steps=6", "--batch_tokens=96", "--layer_decay=0.9",
                   "--mlm_epochs=0.5"],
        "embed": ["embed_text", *texts, f"--encoder={encoder}", "--devices=cpu", "--layers=1,-1", "--pooling=mean"],
        "ddpm": ["ddpm", *TINY, *train, *many, "--num_samples=4"],
        "head": ["imdb_images", *texts, *train, *head, "--num_epochs=4", "--backbone=squeezenet1_1",
                 "--weights=random:1", "--select=reconstruction"],
        "table": ["imdb_table", *texts, *train, *head, "--num_epochs=1", "--rows=squeezenet1_1",
                  "--missing_weights=random", "--control_row="],
    }  # fmt: skip


class Pair(NamedTuple):
    """The run folders of a task."""

    tensorflow: Path
    jax: Path


class Pairs:
    """Runs each task once, at the same time on both."""

    def __init__(self, tasks: dict[str, list[str]], jax: Jax, folder: Path) -> None:
        self.tasks, self._jax, self._folder = tasks, jax, folder

    def __getitem__(self, name: str) -> Pair:
        pair = Pair(self._folder / name / "tensorflow", self._folder / name / "jax")
        if not pair.jax.exists():
            self._jax.start(*self.tasks[name], f"--run_dir={pair.jax}")
            here = run(*self.tasks[name], f"--run_dir={pair.tensorflow}")
            done = self._jax.wait()
            assert (here.returncode, done.returncode) == (0, 0), here.stderr + done.stderr
        return pair


@pytest.fixture(scope="module")
def pairs(tasks: dict[str, list[str]], jax: Jax, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return Pairs(tasks, jax, tmp_path_factory.mktemp("runs"))


def _files(path: Path) -> list[str]:
    """Without earlier bests, which depend on how often a figure grew, and TensorBoard's, named by process."""
    apart = ("best_before", "tfevents")
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if not any(x in file.name for x in apart))


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith(("per_second", "seconds"))} for line in lines]


def _assert_alike(one: list[dict[str, Any]], two: list[dict[str, Any]], tolerance: float) -> None:
    """The same figures in the same order, with numbers that differ by at most the tolerance."""
    assert [list(line) for line in one] == [list(line) for line in two]
    for a, b in zip(one, two, strict=True):
        for name, value in a.items():
            if isinstance(value, str):
                assert b[name] == value
            else:
                assert b[name] == pytest.approx(value, rel=tolerance, abs=tolerance), (a["step"], a["split"], name)


LONG = ["text", "bert", "ddpm", "head"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ddpm", "head", "lora", "budget", "table", "bert")]


@pytest.mark.parametrize("name", ["text", *SLOW])
def test_a_run_is_the_same_on_both(pairs: Pairs, name: str) -> None:
    one, two = pairs[name]
    assert _files(one) == _files(two)
    found = list(one.rglob("metrics.jsonl"))
    assert found
    for file in found:
        lines, others = _lines(file.parent), _lines(two / file.parent.relative_to(one))
        if file.parent == one and name in LONG:
            assert lines[-1]["step"] == STEPS
        _assert_alike(lines[:1], others[:1], FIRST_STEP)
        _assert_alike(lines, others, CURVE)


def _stop(task: list[str], path: Path, jax: Jax | None) -> None:
    """A run folder with the checkpoint of half of the steps."""
    command = [*task, f"--run_dir={path}"]
    if jax is not None:
        done = jax.run(*command, stops=True)
    else:
        with interrupted():
            done = run(*command)
    assert done.returncode == 130 and (path / "checkpoints").is_dir(), done.stderr


def _go_on(task: list[str], path: Path, jax: Jax | None) -> list[dict[str, Any]]:
    command = [*task, f"--run_dir={path}"]
    done = run(*command) if jax is None else jax.run(*command)
    assert done.returncode == 0, done.stderr
    return _lines(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "ddpm"])
def test_either_goes_on_from_the_others_checkpoint(pairs: Pairs, jax: Jax, tmp_path: Path, name: str) -> None:
    """And each from its own; on JAX too a run that was stopped is bit for bit what it would have been."""
    task, whole = pairs.tasks[name], pairs[name]
    _stop(task, tmp_path / "of_tensorflow", None)
    _stop(task, tmp_path / "of_jax", jax)
    shutil.copytree(tmp_path / "of_jax", tmp_path / "own")
    _assert_alike(_lines(whole.tensorflow), _go_on(task, tmp_path / "of_tensorflow", jax), RESUMED)
    _assert_alike(_lines(whole.tensorflow), _go_on(task, tmp_path / "of_jax", None), RESUMED)
    assert _go_on(task, tmp_path / "own", jax) == _lines(whole.jax)
    one, two = (read_tensors(path / "model" / "weights.safetensors")[0] for path in (whole.jax, tmp_path / "own"))
    for a, b in zip(one.values(), two.values(), strict=True):  # in their order: Keras counts on in the names
        np.testing.assert_array_equal(a, b)


def _confidences(done: Done) -> tuple[list[str], np.ndarray]:
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    return [row["class"] for row in rows], np.array([float(row["confidence"]) for row in rows])


@pytest.mark.parametrize("name", ["text", pytest.param("bert", marks=pytest.mark.slow)])
def test_a_classifier_of_either_answers_the_same_on_the_other(pairs: Pairs, jax: Jax, name: str) -> None:
    for path in pairs[name]:
        command = ["predict_text", f"--run_dir={path}", "--devices=cpu", "good film", "bad the poor", "the film the"]
        classes, confidences = _confidences(run(*command))
        others, found = _confidences(jax.run(*command))
        assert classes == others
        np.testing.assert_allclose(found, confidences, atol=PREDICTED)


def test_features_of_texts_are_the_same(pairs: Pairs) -> None:
    one, two = pairs["embed"]
    assert _files(one) == _files(two)
    for split in ("train", "validation", "test"):
        np.testing.assert_allclose(np.load(one / f"{split}.npy"), np.load(two / f"{split}.npy"), atol=PREDICTED)


@pytest.mark.slow
def test_a_diffusion_model_of_either_draws_the_same_on_the_other(pairs: Pairs, jax: Jax, tmp_path: Path) -> None:
    for k, path in enumerate(pairs["ddpm"]):
        command = ["sample_ddpm", f"--run_dir={path}", "--sampling_steps=4", "--num_images=8", "--devices=cpu"]
        succeeds(*command, f"--out={tmp_path}/{k}_here")
        jax.succeeds(*command, f"--out={tmp_path}/{k}_jax")
        _assert_images_alike(tmp_path / f"{k}_here", tmp_path / f"{k}_jax")


def _assert_images_alike(one: Path, two: Path) -> None:
    from PIL import Image

    assert _files(one) == _files(two)
    pictures = [file for file in _files(one) if file.endswith(".png")]
    assert pictures
    for name in pictures:
        a, b = (np.asarray(Image.open(path / name)).astype(int) for path in (one, two))
        assert np.abs(a - b).max() <= 1 and a.std() > 0


def test_features_of_images_are_the_same(pairs: Pairs, jax: Jax, tmp_path: Path) -> None:
    import keras

    rng = np.random.default_rng(0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", images=rng.integers(0, 256, (30, 8, 8, 3), np.uint8))
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3, activation="relu")(image))
    keras.Model(image, x).save(tmp_path / "m.keras")
    command = ["fid", f"{tmp_path}/a.npz", f"{tmp_path}/b.npz", f"--features={tmp_path}/m.keras", "--devices=cpu"]
    succeeds(*command, f"--run_dir={tmp_path}/here")
    jax.succeeds(*command, f"--run_dir={tmp_path}/jax")
    assert _files(tmp_path / "here") == _files(tmp_path / "jax")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("here", "jax")]
    assert results[1]["fid"] == pytest.approx(results[0]["fid"], rel=1e-4)
    with np.load(tmp_path / "here" / "a.npz") as one, np.load(tmp_path / "jax" / "a.npz") as two:
        np.testing.assert_allclose(one["mu"], two["mu"], rtol=1e-4)


@pytest.fixture(scope="module")
def short(tasks: dict[str, list[str]], jax: Jax, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A task, and a run of it on one device."""
    task = [*tasks["text"], "--num_steps=6", "--eval_every=3", "--dropout=0.1"]
    path = tmp_path_factory.mktemp("short") / "run"
    jax.succeeds(*task, f"--run_dir={path}")
    return task, path


WAYS = [
    pytest.param([f"--devices=cpu:{CPUS}"], 1e-5, id="two devices"),
    pytest.param(["--accumulate=2"], 1e-5, id="micro-batches", marks=pytest.mark.slow),
    pytest.param([f"--devices=cpu:{CPUS}", "--accumulate=2"], 1e-5, id="both", marks=pytest.mark.slow),
    pytest.param(["--xla"], 0.0, id="xla", marks=pytest.mark.slow),
    pytest.param(["--deterministic"], 0.0, id="deterministic", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("flags", "tolerance"), WAYS)
def test_devices_and_micro_batches_change_nothing(
    short: tuple[list[str], Path], jax: Jax, tmp_path: Path, flags: list[str], tolerance: float
) -> None:
    task, path = short
    jax.succeeds(*task, *flags, f"--run_dir={tmp_path / 'run'}")
    _assert_alike(_lines(path), _lines(tmp_path / "run"), tolerance)


def test_what_cannot_be_had_is_said(pairs: Pairs, jax: Jax, tmp_path: Path) -> None:
    task = [*pairs.tasks["text"], f"--run_dir={tmp_path}/run"]
    for flag, message in (
        ("--devices=gpu", "--devices=gpu asks for 1 GPU(s) and JAX sees 0"),
        (f"--devices=cpu:{CPUS + 1}", "start a new process"),
        ("--shards=2", "--shards=2: JAX spreads a batch over the cores itself"),
    ):
        done = jax.run(*task, flag)
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, flag
    assert not (tmp_path / "run").exists()


def test_a_tensorflow_checkpoint_needs_tensorflow(pairs: Pairs, jax: Jax, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "tiny" / "tf1", tmp_path / "tf1")
    command = [*pairs.tasks["embed"], f"--encoder={tmp_path}/tf1", f"--run_dir={tmp_path}/run"]
    done = jax.run(*command)
    assert done.returncode == 1 and "pip install tensorflow" in done.stderr and done.stderr.count("\n") == 1


def test_tensorboard_reads_the_figures(pairs: Pairs) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for path in pairs["text"]:
        for split in ("train", "validation"):
            events = accumulator.EventAccumulator(str(path / "tensorboard" / split)).Reload()
            lines = [line for line in _lines(path) if line["split"] == split]
            assert len(lines) in (2, STEPS)
            for name in ("loss", "accuracy"):
                found = [(event.step, event.value) for event in events.Scalars(name)]
                assert found == [(line["step"], np.float32(line[name])) for line in lines]
