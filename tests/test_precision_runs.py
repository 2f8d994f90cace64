"""Every script that trains does it in bfloat16: it learns, stops and goes on exactly, and says in what it was made.

Run on JAX too, by ``test_precision.py``.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors

from experiments import ddpm, train_text
from files.tensors import read_tensors
from tests.scripts import ROOT, fails, parses, succeeds
from training.checkpoint import Checkpointer

ENCODER = ROOT / "tests" / "golden" / "tiny" / "bert"
COMMON = ["--devices=cpu", "--shards=1", "--warmup=0", "--log_every=5", "--eval_every=20", "--num_steps=40",
          "--precision=bfloat16"]  # fmt: skip
WORDS = (["good", "great", "film", "the"], ["bad", "poor", "film", "the"])


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    with open(folder / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for k in range(60):
            writer.writerow([" ".join(rng.choice(WORDS[k % 2], 12)), ("up", "down")[k % 2]])
    return ["--dataset=csv", f"--data_path={folder}/texts.csv", f"--cache_dir={folder}/cache", "--max_length=12"]


def _command(script: str, texts: list[str]) -> list[str]:
    """A few seconds of training."""
    if script == "ddpm":
        sizes = ["--base_width=8", "--channel_multipliers=1", "--num_blocks=1", "--attention_resolutions=",
                 "--num_groups=4", "--diffusion_steps=50", "--sampling_steps=2", "--num_samples=4"]  # fmt: skip
        return [script, *sizes, *COMMON, "--batch_size=16", "--learning_rate=0.002"]
    encoder = [f"--encoder={ENCODER}"]
    sizes = {
        "train_text": ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--min_count=1",
                       "--learning_rate=0.01"],
        "finetune_bert": [*encoder, "--tsne=0", "--learning_rate=0.03", "--head_dropout=0"],
        "imdb_images": [*encoder, "--height=10", "--width=10", "--perplexity=5", "--weights=random:1", "--enlarge=3",
                        "--backbone=squeezenet1_1", "--head_kernel=2", "--head_filters=6,4", "--head_pooled=2",
                        "--head_dense=8", "--learning_rate=0.005"],
    }  # fmt: skip
    return [script, *texts, *sizes[script], *COMMON, "--batch_size=8", "--ema_decay=0.9"]


def _losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


def _stopping(save: Callable) -> Callable:
    def stop(self: Checkpointer, state: object, history: str) -> None:
        save(self, state, history)
        raise KeyboardInterrupt

    return stop


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_text", "finetune_bert", "ddpm", "imdb_images"])
def test_training_in_bfloat16(script: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = _command(script, texts)
    succeeds(*command, f"--run_dir={tmp_path / 'whole'}")
    losses = _losses(tmp_path / "whole")
    assert np.mean(losses[-2:]) < 0.95 * losses[0], losses
    assert '"precision": "bfloat16"' in (tmp_path / "whole" / "config.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", _stopping(Checkpointer.save))
        fails(*command, f"--run_dir={tmp_path / 'parts'}")
    succeeds(*command, f"--run_dir={tmp_path / 'parts'}")
    assert _losses(tmp_path / "parts") == losses
    ends = [tmp_path / name / "checkpoints" / "last.safetensors" for name in ("whole", "parts")]
    found, expected = ({n: a for n, a in read_tensors(end)[0].items() if n != "history"} for end in ends)
    for one, two in zip(found.values(), expected.values(), strict=True):  # Keras counts on in the names
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    with safetensors.safe_open(ends[0], "numpy") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    kernels = [kind for name, kind in kinds.items() if name.startswith("model/") and name.endswith("kernel")]
    assert len(kernels) > 2 and kernels.count("F32") == 1  # what gives the logits, or the noise
    assert {kind for name, kind in kinds.items() if name.startswith("optimizer/")} <= {"F32", "I32", "I64"}
    for statistics in (kind for name, kind in kinds.items() if "/moving_" in name):
        assert statistics == "F32"
    for artefact in (tmp_path / "whole").glob("model/config.json"):
        assert json.loads(artefact.read_text())["precision"] == "bfloat16"


@pytest.mark.slow
def test_a_model_of_bfloat16_is_used_in_it(texts: list[str], tmp_path: Path) -> None:
    """Answers and images of the folder alone; the network is as large as its file says."""
    succeeds(*_command("train_text", texts), f"--run_dir={tmp_path / 'text'}", "--num_steps=2")
    answers = succeeds("predict_text", f"--run_dir={tmp_path / 'text'}", "--devices=cpu", "good great film")
    assert answers.splitlines()[0].startswith("id,") and len(answers.splitlines()) == 2
    command = [*_command("ddpm", texts), "--base_width=32", "--num_steps=2", "--num_samples=1"]
    succeeds(*command, f"--run_dir={tmp_path / 'ddpm'}")
    sampled = ["--sampling_steps=2", "--num_images=2", "--devices=cpu"]
    succeeds("sample_ddpm", f"--run_dir={tmp_path / 'ddpm'}", *sampled)


def test_runs_and_flagfiles_of_an_earlier_version_are_taken_up(texts: list[str], tmp_path: Path) -> None:
    """Version 0.4 called it tensorfloat32."""
    command = [flag for flag in _command("train_text", texts) if "precision" not in flag]
    today = [*command, "--precision=tf32", "--num_steps=2"]
    run = [f"--run_dir={tmp_path / 'run'}", "--num_steps=2"]
    succeeds(*today, f"--run_dir={tmp_path / 'first'}")
    (tmp_path / "run").mkdir()
    _write_earlier(tmp_path / "first" / "flags.txt", tmp_path / "run" / "flags.txt")
    succeeds(*today, *run)
    for name in ("config.json", "model/config.json"):
        _write_earlier(tmp_path / "run" / name, tmp_path / "run" / name)
    for how in ("tf32", "tensorfloat32"):
        assert "finished before" in succeeds(*command, f"--precision={how}", *run)
    replay = f"--flagfile={tmp_path / 'run' / 'flags.txt'}"
    assert "finished before" in succeeds("train_text", replay, run[0])
    message = fails("train_text", replay, run[0], "--precision=float32")
    assert "--precision=tf32 there, float32 here" in message
    (tmp_path / "run" / "result.json").unlink()
    resumed = succeeds(*command, "--precision=tf32", *run)
    assert "resumed at step 2" in resumed
    answers = succeeds("predict_text", run[0], "--devices=cpu", "good great film")
    assert len(answers.splitlines()) == 2


def _write_earlier(path: Path, to: Path) -> None:
    text = path.read_text()
    assert "tf32" in text
    to.write_text(text.replace("tf32", "tensorfloat32"))


def test_names_of_an_earlier_version_are_read_and_not_offered() -> None:
    for module, name in ((train_text, "train_text"), (ddpm, "ddpm")):
        parses(name, "--precision=tensorfloat32")
        assert module.launch.read(_config(module), module.FLAGS).training.precision == "tf32"
        offered = module.FLAGS["precision"].help
        assert offered.startswith("<float32|tf32|bfloat16|mixed_bfloat16>: ") and "tensorfloat32" not in offered
        message = fails(name, "--precision=half")
        assert "value should be one of <float32|tf32|bfloat16|mixed_bfloat16>" in message


def _config(module: object) -> object:
    return next(value for name, value in vars(module).items() if name.endswith("Config"))()
