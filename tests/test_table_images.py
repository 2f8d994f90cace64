"""Tables through the whole vision bridge, from a script and from Python: small images, random weights, few rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vision_bridge.plots
from experiments.tabular import TableImagesConfig, name_of, train_table
from files.errors import UserError
from tests.scripts import fails_each, succeeds
from training.config_files import as_flags, load
from vision_bridge.bridge import Features
from vision_bridge.controls import STRENGTHS, rmse_interval
from vision_bridge.layouts.layout import Layout
from vision_bridge.tables.features import load_table

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "height": 10, "width": 10, "enlarge": 4, "head_filters": (), "head_dense": (), "head_pooled": 0,
    "learning_rate": 1e-3, "num_epochs": 2.0, "batch_size": 16, "devices": "cpu", "engine": "pca", "map_pool": 1,
}  # fmt: skip
PICTURES = ("layout", "images", "class_means", "z_norm", "maps", "curves", "activation")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _flags(config: TableImagesConfig) -> list[str]:
    return [*(f"--{name}={value}" for name, value in as_flags(config).items()), f"--cache_dir={config.cache_dir}"]


@pytest.fixture(scope="module")
def wine(cache: Path) -> TableImagesConfig:
    return TableImagesConfig.of(dataset="wine", cache_dir=cache, **SMALL)


@pytest.fixture(scope="module")
def trained(wine: TableImagesConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of the script, and what the script printed."""
    path = tmp_path_factory.mktemp("run") / "run"
    return path, succeeds("table_images", *_flags(wine), f"--run_dir={path}")


def test_a_table_of_classes(trained: tuple[Path, str], wine: TableImagesConfig) -> None:
    path, output = trained
    result = json.loads((path / "result.json").read_text())
    assert result["weights"] == "random" and "note: the extractor's weights are random" in output
    assert "wine: 113 train, 29 validation, 36 test rows; 3 classes" in output
    assert {"test_accuracy", "test_accuracy_low", "val_accuracy", "probe_mlp_on_pixels"} <= set(result)
    features = load_table(wine.data, wine.seed).features
    fits = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500)) for c in STRENGTHS]
    scores = [
        [model.score(features.arrays[part], features.labels[part]) for part in ("validation", "test")]
        for model in (fit.fit(features.arrays["train"], features.labels["train"]) for fit in fits)
    ]
    assert result["probe_linear_on_features"] == max(scores, key=lambda pair: pair[0])[1]
    for name in PICTURES:
        with Image.open(path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0
    assert not (path / "predicted.png").exists()
    data = json.loads((path / "data.json").read_text())
    assert data["columns"] == load_wine().feature_names and data["splits"]["test"]["rows"] == 36


def test_python_goes_on_where_the_script_was(
    trained: tuple[Path, str], wine: TableImagesConfig, capsys: pytest.CaptureFixture
) -> None:
    path, _ = trained
    assert load(path / "config.json", TableImagesConfig()).data == wine.data
    result = train_table(wine, path)
    assert result == json.loads((path / "result.json").read_text())
    assert "finished before, test accuracy" in capsys.readouterr().out


def test_a_run_that_was_stopped_before_its_pictures_gets_them(
    trained: tuple[Path, str], wine: TableImagesConfig, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(trained[0], path)
    lacking, kept = ("layout", "activation", "stages"), (path / "images.png").stat().st_mtime_ns
    for name in lacking:
        (path / f"{name}.png").unlink()
    before = (path / "result.json").read_bytes()
    assert train_table(wine, path) == json.loads(before)
    assert (path / "result.json").read_bytes() == before
    for name in lacking:
        with Image.open(path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0
    assert (path / "images.png").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_changed_table_is_other_data(trained: tuple[Path, str], wine: TableImagesConfig, tmp_path: Path) -> None:
    """A file whose rows changed, under the same name, is refused in the folder of the earlier run."""
    rows = np.column_stack([load_wine().data, load_wine().target])
    np.save(tmp_path / "t.npy", rows)
    config = TableImagesConfig.of(data_path=tmp_path / "t.npy", cache_dir=wine.cache_dir, probes=False, **SMALL)
    first = train_table(config, tmp_path / "run")
    rows[:, 0] += 1
    np.save(tmp_path / "t.npy", rows)
    with pytest.raises(UserError, match="was made of other data"):
        train_table(config, tmp_path / "run")
    assert first["seed"] == 0 and name_of(config) == "t"


@pytest.mark.slow
def test_a_table_of_quantities(cache: Path, tmp_path: Path) -> None:
    """The target is a multiple of one column, which a linear head on the maps can find."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    target = 500 + 40 * x[:, 0] + rng.normal(0, 2, 300)
    lines = ["a,b,c,d,e,f,price", *(",".join(map(str, (*row, y))) for row, y in zip(x, target, strict=True))]
    (tmp_path / "prices.csv").write_text("\n".join(lines))
    config = TableImagesConfig.of(
        data_path=tmp_path / "prices.csv", label_field="price", task="regression", cache_dir=cache,
        **SMALL | {"num_epochs": 30.0, "pixels": "assignment"},
    )  # fmt: skip
    output = succeeds("table_images", *_flags(config), f"--run_dir={tmp_path / 'run'}")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    labels = load_table(config.data, config.seed).features.labels
    spread = float(np.std(labels["test"]))
    assert result["test_rmse_low"] < result["test_rmse"] < result["test_rmse_high"] < 0.8 * spread
    assert result["test_r2"] == pytest.approx(1 - (result["test_rmse"] / spread) ** 2, abs=1e-4)
    assert result["probe_mean"] == pytest.approx(np.sqrt(np.mean((labels["test"] - labels["train"].mean()) ** 2)))
    assert result["probe_linear_on_features"] < 3 and result["test_mae"] < result["test_rmse"]
    assert "test_accuracy" not in result and "test rmse" in output and "a quantity" in output
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["split"] == "validation"]
    best = min(evaluations, key=lambda line: line["rmse"])
    assert result["best_step"] == best["step"] and result["val_rmse"] == pytest.approx(best["rmse"])
    for name in (*PICTURES, "predicted"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0
    errors = rmse_interval(np.full(9, result["test_rmse"]))
    assert errors.low == errors.high == pytest.approx(result["test_rmse"])
    assert "finished before, test rmse" in succeeds("table_images", *_flags(config), f"--run_dir={tmp_path / 'run'}")


def test_columns_are_named_on_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wine: TableImagesConfig
) -> None:
    features = load_table(wine.data, 0).features
    seen: list[str] = []
    monkeypatch.setattr(vision_bridge.plots, "as_written", lambda texts: seen.extend(text.get_text() for text in texts))
    found = Layout.fit(features.arrays["train"], wine.bridge.layout())
    vision_bridge.plots.layout(found, found.corners, features, tmp_path / "layout.png")
    assert seen[-13:] == list(features.names)
    seen.clear()
    nameless = Features(features.arrays, features.labels, (), "", ("one", "two"))
    assert nameless.group_of.tolist() == [0] * 7 + [1] * 6
    vision_bridge.plots.layout(found, found.corners, nameless, tmp_path / "layout.png")
    assert not set(seen) & set(features.names)


def test_a_dry_run_reads_the_table_and_writes_nothing(wine: TableImagesConfig, tmp_path: Path) -> None:
    for choices in ({"dataset": "wine"}, {"dataset": "diabetes"}):
        config = TableImagesConfig.of(cache_dir=wine.cache_dir, **choices, **SMALL)
        output = succeeds("table_images", *_flags(config), f"--run_dir={tmp_path / 'run'}", "--dry_run")
        assert "columns of features" in output and "nothing was written" in output
    assert not (tmp_path / "run").exists()


WRONG = [
    ([], "--data_path is needed, or --dataset with one of breast_cancer"),
    (["--dataset=wines"], "--dataset=wines: value should be one of <own|breast_cancer"),
    (["--dataset=wine", "--label_field=x"], "--label_field with --dataset=wine"),
    (["--data_path=nowhere.csv"], "nowhere.csv: no such file"),
    (["--dataset=wine", "--height=2", "--width=2", "--pixels=assignment"], "are too few to give each of 13"),
    (["--dataset=wine", "--last_layer=1"], "--last_layer is for encoders of texts"),
]  # fmt: skip


def test_wrong_flags(wine: TableImagesConfig, tmp_path: Path) -> None:
    shared = [flag for flag in _flags(wine) if not flag.startswith("--dataset")]
    errors = fails_each("table_images", [[*shared, *more, f"--run_dir={tmp_path / 'r'}"] for more, _ in WRONG])
    for error, (_, message) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ") and message in error, error


@pytest.mark.slow
def test_a_channel_for_each_group_of_columns(cache: Path, tmp_path: Path) -> None:
    grouped = {"column_groups": ("mean *", "* error", "worst *"), "channels": "groups", "probe_layers": True}
    config = TableImagesConfig.of(dataset="breast_cancer", cache_dir=cache, **(SMALL | grouped))
    table = load_table(config.data, config.seed)
    assert table.features.groups == ("mean *", "* error", "worst *")
    assert np.bincount(table.features.group_of).tolist() == [10, 10, 10]
    result = train_table(config, tmp_path / "run")
    layout = Layout.load(tmp_path / "run" / "layout.safetensors")
    images = layout.transform(table.features.arrays["test"], channel_of=table.features.group_of)
    assert images.shape[1:] == (10, 10, 3)
    layers = [name for name in result if name.startswith("probe_linear_on_into_features.")]
    assert len(layers) == 8 and result["test_accuracy"] > 0.7 and min(result[name] for name in layers) > 0.7
    for name in (*PICTURES, "stages"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            assert min(picture.size) > 50, name
    assert (
        json.loads((tmp_path / "run" / "probes.json").read_text())["maps"]["linear"] == result["probe_linear_on_maps"]
    )
    for patterns, message in (
        (("mean *",), "radius error, .* fit none of them"),
        (("*", "x*"), "no column is left for x"),
    ):
        wrong = TableImagesConfig.of(dataset="breast_cancer", column_groups=patterns)
        with pytest.raises(UserError, match=message):
            load_table(wrong.data, 0)
