"""The vision bridge's scripts as a user runs them: a tiny encoder, a network with random weights, few texts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scripts import ROOT, fails_each, succeeds
from tests.test_backbones import state_of

ENCODER = ROOT / "tests" / "golden" / "tiny" / "bert"
NAMES = ("layout", "images", "class_means", "z_norm", "maps", "curves", "activation")


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Forty texts of two classes, told apart by their words."""
    folder = tmp_path_factory.mktemp("bridge")
    rng = np.random.default_rng(0)
    words = (["good", "great", "film", "the"], ["bad", "poor", "film", "the"])
    with open(folder / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for k in range(60):
            writer.writerow([" ".join(rng.choice(words[k % 2], 12)), ("up", "down")[k % 2]])
    return [
        "--dataset=csv", f"--data_path={folder / 'texts.csv'}", f"--encoder={ENCODER}", "--max_length=12",
        f"--cache_dir={folder / 'cache'}", "--height=12", "--width=12", "--perplexity=5", "--weights=random:1",
        "--num_epochs=2", "--batch_size=8", "--enlarge=10", "--devices=cpu", "--shards=1", "--validation_share=0.2",
        "--test_share=0.2",
    ]  # fmt: skip


def test_every_stage_the_pictures_and_the_result(flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--backbone=squeezenet1_1", f"--run_dir={run}"]
    assert "nothing was written" in succeeds("imdb_images", *flags, *more, "--dry_run") and not run.exists()
    out = succeeds("imdb_images", *flags, *more)
    result = json.loads((run / "result.json").read_text())
    assert result["weights"] == "random" and "note: the extractor's weights are random" in out
    assert {"test_accuracy", "val_accuracy", "probe_linear_on_features", "probe_linear_on_maps", "probe_mlp_on_pixels",
            "layout_filled", "choice_scaling"} <= set(result)  # fmt: skip
    for name in NAMES:
        with Image.open(run / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0
    again = succeeds("imdb_images", *flags, "--backbone=squeezenet1_1", f"--run_dir={tmp_path / 'again'}")
    assert "laying out" not in again  # every stage came from the cache
    repeated = json.loads((tmp_path / "again" / "result.json").read_text())
    same = [name for name in result if "seconds" not in name and "per_second" not in name]
    assert {name: result[name] for name in same} == {name: repeated[name] for name in same}
    assert "finished before" in succeeds("imdb_images", *flags, *more)
    half = succeeds("imdb_images", *flags, "--backbone=squeezenet1_1", "--precision=mixed_bfloat16", "--engine=pca",
                    "--head_reconstruction=0.1", f"--run_dir={tmp_path / 'half'}")  # fmt: skip
    assert "/text" in half and "/text" not in again  # features of another precision are not those in the cache
    assert "layout_kl_divergence" not in json.loads((tmp_path / "half" / "result.json").read_text())


def test_the_author_s_preset(flags: list[str], tmp_path: Path) -> None:
    """Batch statistics of images and extractor: the maps cannot be cached and are computed in every step."""
    succeeds("imdb_images", *flags, "--preset=author", "--backbone=shufflenet_v2_x1_0", f"--run_dir={tmp_path / 'a'}")
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["choice_fit_rows"] == "all" and result["best_step"] == result["steps"]
    assert "probe_linear_on_pixels" in result and "probe_linear_on_maps" not in result


def test_the_table_with_controls(flags: list[str], tmp_path: Path) -> None:
    run = tmp_path / "table"
    given = [flag for flag in flags if not flag.startswith(("--weights", "--num_epochs", "--cache_dir"))]
    np.savez(tmp_path / "squeezenet.npz", **state_of("squeezenet1_1"))
    cache = tmp_path / "cache"
    more = [*given, "--rows=squeezenet1_1,alexnet", "--seeds=2", "--control_row=squeezenet1_1", "--control_seeds=2",
            "--noablations", "--missing=random", f"--weights_of=squeezenet1_1={tmp_path / 'squeezenet.npz'}",
            f"--weights_dir={tmp_path}", f"--cache_dir={cache}", f"--run_dir={run}", "--num_epochs=1"]  # fmt: skip
    out = succeeds("imdb_table", *more)
    assert "alexnet with random weights, as --missing=random asks" in out and "published minus random weights" in out
    assert len(list(cache.glob("bridge/maps-*.npy"))) == 2 * 3  # of the rows; those of the controls are removed
    with open(run / "table.csv", newline="") as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    runs = {path.parent.name: json.loads(path.read_text()) for path in run.glob("runs/*/result.json")}
    seeds = [runs[f"squeezenet1_1-seed{k}"]["test_accuracy"] for k in (0, 1)]
    assert float(lines["SqueezeNet 1.1"]["test"]) == pytest.approx(np.mean(seeds))
    assert (lines["SqueezeNet 1.1"]["weights"], lines["AlexNet"]["weights"]) == ("squeezenet.npz", "random")
    assert {"linear on features", "as many networks of random weights", "shuffled pixels"} <= set(lines)  # fmt: skip
    assert "| AlexNet | random |" in (run / "table.md").read_text() and (run / "table.png").exists()
    best = max(lines["SqueezeNet 1.1"], lines["AlexNet"], key=lambda line: float(line["validation"]))
    assert json.loads((run / "result.json").read_text())["test_accuracy"] == pytest.approx(float(best["test"]))


WRONG = [
    ("imdb_images", ["--backbone=lenet"], "no extractor 'lenet'"),
    ("imdb_images", ["--weights=nowhere.pth"], "nowhere.pth"),
    ("imdb_images", ["--height=2", "--width=2", "--pixels=assignment"], "are too few to give each"),
    ("imdb_images", ["--perplexity=100"], "too few for a perplexity of 100"),
    ("imdb_images", ["--enlarge=2"], "maps of 3×3: 4 convolutions of 4×4 need at least 13"),
    ("imdb_images", ["--head_dense=10,x"], "--head_dense=10,x: whole numbers above 0 are needed, or none"),
    ("imdb_images", ["--head_filters=", "--head_reconstruction=1"], "a decoder mirrors the head's convolutions"),
    ("imdb_images", ["--last_layer=3"], "--last_layer=3 of an encoder of 3 layers"),
    ("imdb_images", ["--preset=author", "--patience=3"], "--patience=3 without early stopping"),
    ("imdb_table", ["--rows=alexnet", "--weights_of=vgg16"], "write ROW=FILE"),
    ("imdb_table", ["--rows="], "--rows=: name at least one extractor"),
    ("imdb_table", ["--rows=alexnet", "--control_row=vgg16", "--shuffle_pixels"], "shuffled pixels are one of"),
    ("imdb_table", ["--rows=squeezenet1_1", "--control_row=lenet"], "no extractor 'lenet'"),
]  # fmt: skip


@pytest.mark.parametrize("script", ["imdb_images", "imdb_table"])
def test_wrong_flags(script: str, flags: list[str], tmp_path: Path) -> None:
    wrong = [(more, message) for name, more, message in WRONG if name == script]
    errors = fails_each(script, [[*flags, *more, f"--run_dir={tmp_path / 'r'}"] for more, _ in wrong])
    assert not (tmp_path / "r").exists()
    for error, (more, message) in zip(errors, wrong, strict=True):
        assert error.startswith("error: ") and message in error, more
