"""The table: what it refuses before anything is computed, and results of its trainings that cannot be used."""

import json
from pathlib import Path

import pytest

from experiments.bridge import ImdbTableConfig
from files.errors import UserError
from training.config import TaskConfig
from training.run import Run
from vision_bridge.table import result_of

RESULT = {
    "test_accuracy": 0.5, "test_accuracy_low": 0.4, "test_accuracy_high": 0.6, "val_accuracy": 0.7,
    "weights": "random", "maps": "5×5×256",
}  # fmt: skip


@pytest.mark.parametrize("seeds", [2, 5])
def test_seeds_of_random_weights_must_be_seeds(seeds: int) -> None:
    most = 2**32 - seeds  # the last seed is 2³² − 1

    def config(seed: int, row: str = "alexnet") -> ImdbTableConfig:
        return ImdbTableConfig.of(rows=("alexnet",), control_row=row, control_seeds=seeds, seed=seed)

    assert config(most).seed == most and config(2**32 - 1, "").seed == 2**32 - 1
    for seed in (most + 1, 2**32 - 1):
        with pytest.raises(UserError, match=rf"--seed={seed} with --control_seeds={seeds}: .*at most {most}"):
            config(seed)


@pytest.mark.parametrize("name", RESULT)
@pytest.mark.parametrize("value", [None, "x", float("nan"), [], "missing"], ids=str)
def test_a_damaged_result_of_a_training_is_said(tmp_path: Path, name: str, value: object) -> None:
    if value == "x" and isinstance(RESULT[name], str):
        return
    with Run.open(tmp_path / "run", TaskConfig()) as run:
        assert result_of(run) is None
        run.write_json("result.json", RESULT)
        assert result_of(run) == RESULT
        changed = RESULT | {name: value}
        if value == "missing":
            del changed[name]
        (run.path / "result.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"result\.json: damaged: no {name} in it; remove it"):
            result_of(run)
        (run.path / "result.json").write_text(json.dumps(RESULT)[:-9])
        with pytest.raises(UserError, match=r"result\.json: malformed JSON.*; remove it"):
            result_of(run)
