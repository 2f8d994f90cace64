"""Adding something is one entry in one place: after it, configurations, flags and tasks know it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags
from keras import ops

from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import SCHEDULES as NOISE_SCHEDULES
from diffusion.process.process import DiscreteProcess, Schedule, make_process
from diffusion.sampling.samplers import SAMPLERS, Sampler, ddim, make_table
from diffusion.sampling.spacings import SPACINGS
from experiments import config_flags
from text_cls.config import ClassifierConfig
from text_cls.data.datasets import DATASETS, DataSet
from text_cls.data.found_rows import FoundRows
from text_cls.data.readers import Row
from text_cls.evaluation.class_weights import CLASS_WEIGHTS
from text_cls.evaluation.metrics import FIGURES
from text_cls.layers.pooling import POOLINGS
from text_cls.task import train_classifier
from training.adamw import AdamW
from training.figures import Cost
from training.optimizers import OPTIMIZERS
from training.schedules import SHAPES
from vision_bridge.frozen.backbones import build_backbone
from vision_bridge.frozen.extractors import EXTRACTORS


def _rows(*ignored: Any) -> FoundRows:
    words = {"sun": "warm bright", "rain": "wet grey"}
    return FoundRows([Row((f"{words[k]} day {i}",), k, f"here:{i}", str(i)) for i in range(30) for k in words])


@pytest.mark.slow
def test_a_classifier_of_new_parts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def quick(schedule: Any, config: Any, rate_of: Any, epsilon: float) -> AdamW:
        seen.append(config.learning_rate)
        return AdamW(schedule, beta_1=0.5, rate_of=rate_of)

    for registry, name, entry in (
        (DATASETS, "weather", DataSet(_rows)),
        (POOLINGS, "sum", lambda x, real: ops.sum(x * ops.cast(real, x.dtype), axis=1)),
        (OPTIMIZERS, "quick", quick),
        (SHAPES, "half", lambda step, warmup, total: 0.5 + 0.0 * step),
        (CLASS_WEIGHTS, "double", lambda labels, num_classes: np.full(num_classes, 2.0, np.float32)),
        (FIGURES, "mistakes", lambda p: Cost((p.predicted != p.labels).sum())),
    ):
        monkeypatch.setitem(registry, name, entry)  # type: ignore[arg-type]
    choices = {"dataset": "weather", "pooling": "sum", "optimizer": "quick", "schedule": "half",
               "class_weights": "double", "select": "mistakes", "width": 8, "ffn_width": 8, "num_heads": 1,
               "num_layers": 1, "max_length": 8, "min_count": 1, "batch_size": 8, "num_epochs": 3.0,
               "learning_rate": 0.05, "devices": "cpu", "shards": 1, "report": False,
               "cache_dir": tmp_path / "cache"}  # fmt: skip
    values = flags.FlagValues()
    config_flags.define(ClassifierConfig(), values)
    config_flags.parse(values, ["script", *(f"--{name}={value}" for name, value in choices.items())], {})
    config = config_flags.read(ClassifierConfig(), values)
    assert config == ClassifierConfig.of(**choices)
    result = train_classifier(config, tmp_path / "run")
    assert result["test_mistakes"] == 0 and result["test_accuracy"] == 1.0 and seen == [0.05]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["split"] == "train"]
    assert rates == pytest.approx([0.025] * len(rates))
    best = [line["step"] for line in lines if line["split"] == "validation" and line["mistakes"] == 0]
    assert result["best_step"] == best[0]


def test_a_sampler_of_new_parts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    straight = Schedule(DiscreteProcess, ("diffusion_steps",), lambda config: np.linspace(0.01, 0.03, 100))
    monkeypatch.setitem(NOISE_SCHEDULES, "straight", straight)
    monkeypatch.setitem(SPACINGS, "ends", lambda process, steps: np.linspace(process.last, 1, steps))
    new = Sampler(lambda config, process, levels: ddim(levels, 0.5 * config.eta), ("eta",), "ends")
    monkeypatch.setitem(SAMPLERS, "calm", new)
    process = make_process(ProcessConfig(100, noise_schedule="straight"))
    assert isinstance(process, DiscreteProcess)
    assert process.alpha_bar[2] == pytest.approx(0.99 * (0.99 - 0.02 / 99))
    table, old = (
        make_table(SamplerConfig(name, 5, spacing, eta=eta), process)
        for name, spacing, eta in (("calm", "", 1.0), ("ddim", "uniform", 0.5))
    )
    np.testing.assert_allclose(table.weights, old.weights)


def test_an_extractor_of_new_parts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one = EXTRACTORS["alexnet"]._replace(build=lambda b, x: b.conv(x, "only", 5, 3))
    monkeypatch.setitem(EXTRACTORS, "one_layer", one)
    assert build_backbone("one_layer", 20, 20).output_shape == (None, 18, 18, 5)
