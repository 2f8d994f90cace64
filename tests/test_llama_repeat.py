"""``experiments.repeat`` of fine-tuning Llama 3.2 Vision."""

import csv
from pathlib import Path

import pytest

from experiments.repeat import repeat
from experiments.repeat_plan import PlannedRun, RepeatConfig
from tests.little_llama import write_checkpoint, write_pairs
from training.repetitions import main_figures
from vision_bridge.llama.task import finetune
from vision_bridge.llama.task_config import FinetuneLlamaConfig

pytest.importorskip("tiktoken")


@pytest.mark.slow
def test_exact_matches_over_seeds_are_the_table(tmp_path: Path) -> None:
    found = {}

    def launcher(run: PlannedRun) -> str:
        assert isinstance(run.config, FinetuneLlamaConfig)
        found[run.seed] = finetune(run.config, run.path)["test_exact_match"]
        return ""

    more = [
        "--dataset=pairs", f"--data_path={write_pairs(tmp_path)}",
        f"--checkpoint={write_checkpoint(tmp_path / 'base')}", f"--cache_dir={tmp_path / 'cache'}", "--lora_rank=2",
        "--batch_size=4", "--num_steps=10", "--learning_rate=0.05", "--devices=cpu", "--shards=1",
    ]  # fmt: skip
    repeat(RepeatConfig(script="finetune_llama", seeds=(0, 1)), more, tmp_path / "runs", launcher)
    with (tmp_path / "runs" / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["finished"] == "2" and set(found) == {0, 1}
    assert float(row["test_exact_match_mean"]) == pytest.approx(sum(found.values()) / 2)


def test_of_each_kind_of_question_no_figure_is_shown_unless_asked() -> None:
    known = ["test_loss", "test_exact_match", "test_exact_match Which digit is this?", "train_seconds", "steps"]
    assert main_figures(known) == ["test_exact_match", "train_seconds"]
