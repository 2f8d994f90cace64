"""Tasks with --truncate=windows, and where there is no such thing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from files.errors import UserError
from tests.little_model import rows_of
from tests.refusals import refused
from tests.scripts import ROOT, fails, parses, succeeds
from text_cls.config import ClassifierConfig, EmbeddingConfig, FineTuningConfig
from text_cls.encoders.checkpoints import read_checkpoint
from text_cls.encoders.published_classifier import read_published
from text_cls.predictor import Predictor
from text_cls.prepared import make_tokeniser
from text_cls.tokens.length_config import TunedEncoderConfig
from training.backends import Placement

TINY = ROOT / "tests" / "golden" / "tiny"
LONG = "the good film a bad scene with an actor"  # more words than are read at a time, seven
SMALL = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--min_count=1", "--max_length=8",
         "--linear=none"]  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (lambda: ClassifierConfig.of(stride=9), "--stride=9 is for --truncate=windows"),
        (lambda: FineTuningConfig.of(max_windows=9), "--max_windows=9 is for --truncate=windows"),
        (lambda: FineTuningConfig.of(truncate="windows", max_length=20, stride=19), "--stride=19 leaves out words"),
        (lambda: ClassifierConfig.of(truncate="windows", max_windows=1), "max_windows=1"),
        (lambda: EmbeddingConfig.of(truncate="windows"), "truncate='windows'"),
    ],
)
def test_choices_that_cannot_be(choices: Callable[[], Any], message: str) -> None:
    assert message in refused(choices)


@pytest.mark.parametrize("script", ["train_text", "finetune_bert"])
def test_the_flags(script: str) -> None:
    parses(script, "--truncate=windows", "--max_length=20", "--stride=18", "--max_windows=9")


def test_a_published_classifier_has_no_windows(tmp_path: Path) -> None:
    shutil.copytree(TINY / "bert_classifier", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"triptych": {"truncate": "windows"}}))
    with pytest.raises(UserError, match="truncate is 'windows'"):
        read_published(tmp_path / "model")


def test_pairs_have_no_windows() -> None:
    encoder = TunedEncoderConfig(max_length=8, truncate="windows", encoder=str(TINY / "bert"))
    checkpoint = read_checkpoint(TINY / "bert")
    assert "--truncate=windows: pairs of texts are always cut" in refused(
        lambda: make_tokeniser(checkpoint, encoder, "pair")
    )


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Texts that only words behind the first seven tell apart."""
    rows = [(f"{LONG} up up up up up", "a"), (f"{LONG} down down down down down", "b")] * 20
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return ["--dataset=csv", f"--data_path={tmp_path}/texts.csv", f"--cache_dir={tmp_path}/cache", "--devices=cpu",
            "--batch_size=8"]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_goes_on_with_windows(flags: list[str], tmp_path: Path, one_replica: Placement) -> None:
    """One that reads the head cannot tell the classes; one that goes on from it and reads all can."""
    one, two = tmp_path / "one", tmp_path / "two"
    said = succeeds("train_text", *flags, *SMALL, "--num_steps=2", f"--run_dir={one}")
    assert "; 8 tokens a training text" in said
    more = [*flags, *SMALL, "--truncate=windows", f"--init_from={one}", f"--run_dir={two}"]
    said = succeeds("train_text", *more, "--num_steps=60", "--learning_rate=0.02", "--eval_every=60")
    assert "4.0 windows of 8 tokens a training text" in said
    assert json.loads((two / "result.json").read_text())["test_accuracy"] == 1.0
    answers = Predictor.load(two, one_replica).classify([f"{LONG} up up up up up", f"{LONG} down down down down down"])
    assert [own[0].name for own in answers] == ["a", "b"]
    (row,) = rows_of(succeeds("predict_text", f"--run_dir={two}", f"{LONG} up up up up up"))
    assert row["class"] == "a" and float(row["confidence"]) == pytest.approx(answers[0][0].confidence, abs=1e-5)
    error = fails("export_text", f"--run_dir={two}", f"--out={tmp_path}/saved", "--onnx=false")
    assert "--truncate=windows: the exported graph cannot split a text" in error and not (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_fine_tuned_encoder(flags: list[str], tmp_path: Path, one_replica: Placement) -> None:
    encoder = [f"--encoder={TINY / 'bert'}", "--max_length=8", "--truncate=windows", "--stride=5"]
    more = ["--num_steps=2", "--export", "--pooling=pooler", f"--run_dir={tmp_path}/run"]
    said = succeeds("finetune_bert", *flags, *encoder, *more)
    assert "windows of 8 tokens a training text" in said
    assert "the classifier is not written, only its encoder: transformers knows no --truncate=windows" in said
    assert (tmp_path / "run" / "encoder").is_dir() and not (tmp_path / "run" / "classifier").exists()
    predictor = Predictor.load(tmp_path / "run", one_replica)
    pieces = len(predictor.tokeniser.tokenise([(LONG,)]).ids)
    assert predictor.encode([(LONG,)]).num_windows.tolist() == [1 + -(-(pieces - 6) // 5)]
