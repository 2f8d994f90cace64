"""A text run is what it was: what is judged is what is saved, and nothing that it depends on can be exchanged."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.scripts import ROOT, fails, run, succeeds
from text_cls import job_results
from text_cls.predictor import Predictor
from text_cls.task import TextJob
from training.backends import Placement

TINY = ROOT / "tests" / "golden" / "tiny" / "bert"


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(40):
            writer.writerow([("good film of the year", "bad film of the day")[row % 2], ("up", "down")[row % 2]])
    return ["--dataset=csv", f"--data_path={tmp_path}/texts.csv", "--devices=cpu", "--batch_size=8", "--num_steps=3",
            f"--cache_dir={tmp_path}/cache", f"--run_dir={tmp_path}/run"]  # fmt: skip


@pytest.mark.slow
def test_low_rank_updates_are_merged_before_they_are_judged(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 the merged kernels give other numbers than kernel and update apart."""
    updates: list[float] = []
    judge = job_results.split_report

    def judging(job: TextJob, split: str) -> dict:
        model = job.predictor.model
        updates.extend(float(np.abs(v.numpy()).max()) for v in model.variables if v.name == "lora_kernel_b")
        return judge(job, split)

    monkeypatch.setattr("text_cls.job.split_report", judging)
    lora = ["--lora_rank=2", "--precision=mixed_bfloat16", "--learning_rate=0.05", "--tsne=0"]
    succeeds("finetune_bert", *flags, *lora, f"--encoder={TINY}", "--max_length=12")
    assert len(updates) == 2 * 3 * 4 and max(updates) == 0.0  # two splits, three blocks of four kernels
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["precision"] == "mixed_bfloat16"


@pytest.mark.slow
def test_an_exchanged_tokeniser_is_refused(flags: list[str], tmp_path: Path) -> None:
    encoder, result = tmp_path / "encoder", tmp_path / "run" / "result.json"
    shutil.copytree(TINY, encoder)
    command = ["finetune_bert", *flags, f"--encoder={encoder}", "--max_length=12", "--tsne=0"]
    succeeds(*command)
    words = (encoder / "vocab.txt").read_text().splitlines()
    swapped = "\n".join([*words[:-2], *words[:-3:-1]]) + "\n"
    for name, changed in (("vocab.txt", swapped), ("tokenizer_config.json", '{"do_lower_case": false}')):
        before = (encoder / name).read_bytes() if (encoder / name).exists() else None
        (encoder / name).write_text(changed)
        assert "was made of other data (tokeniser;" in fails(*command)  # finished before
        result.rename(tmp_path / "result.json")
        assert "was made of other data (tokeniser;" in fails(*command)  # and when it would go on
        (tmp_path / "result.json").rename(result)
        (encoder / name).unlink() if before is None else (encoder / name).write_bytes(before)
    assert "finished before" in succeeds(*command)


def test_stop_words_and_ids_of_a_finished_run_are_looked_at(
    flags: list[str], tmp_path: Path, one_replica: Placement
) -> None:
    """And its predictor is one folder."""
    words, unlabelled = tmp_path / "stop.txt", tmp_path / "test.csv"
    words.write_text("the")
    unlabelled.write_text("id,text\na1,good film\na2,bad film\n")
    small = ["--width=16", "--ffn_width=16", "--num_heads=2", "--num_layers=1", "--min_count=1"]
    command = ["train_text", *flags, *small, f"--stop_words={words}", f"--test_path={unlabelled}"]
    succeeds(*command)
    assert "finished before" in run(*command).stdout
    unlabelled.write_text("id,text\nb1,good film\nb2,bad film\n")
    assert "was made of other data (unlabeled_ids;" in fails(*command)
    unlabelled.write_text("id,text\na1,good film\na2,bad film\n")
    words.write_text("the of")
    assert "was made of other data (" in (error := fails(*command)) and "tokeniser" in error
    predictor = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert predictor["tokeniser"]["stop_words"] == ["the"]
    shutil.move(tmp_path / "run" / "model", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    assert Predictor.load(tmp_path / "elsewhere", one_replica).classes == ("down", "up")


@pytest.mark.parametrize("script", ["train_text", "baselines_text", "embed_text"])
def test_a_dry_run_says_what_is_odd_about_the_data(flags: list[str], tmp_path: Path, script: str) -> None:
    with (tmp_path / "texts.csv").open("a") as file:
        file.write("a row,with,a comma too many\n")
    own = [flag for flag in flags if flag.startswith(("--data", "--cache_dir", "--run_dir"))]
    encoder = [f"--encoder={TINY}", "--max_length=12"] if script == "embed_text" else []
    done = succeeds(script, *own, *encoder, "--skip_bad_rows", "--dry_run")
    assert "note: 1 bad rows left out, the first:" in done and not (tmp_path / "run").exists()
