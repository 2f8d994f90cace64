"""The vision bridge from a script and from Python: a tiny encoder, networks with random weights, few texts."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from experiments import bridge
from experiments.bridge import ImdbImagesConfig, train_bridge
from files.errors import UserError
from tests import little_texts
from tests.scripts import fails_each, succeeds
from tests.test_backbones import state_of
from text_cls.config import EmbeddingConfig
from text_cls.features import embed_texts
from training.config_files import as_flags, load
from training.session import session
from vision_bridge.config import PRESETS, BridgeConfig
from vision_bridge.layouts.layout import Layout
from vision_bridge.task import resolved

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = ("layout", "images", "class_means", "z_norm", "maps", "curves", "activation")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ImdbImagesConfig:
    """Sixty texts of two classes, told apart by their words; small images and a small head."""
    folder = tmp_path_factory.mktemp("bridge")
    encoder = little_texts.write(folder, lambda k: 12)
    return ImdbImagesConfig.of(
        dataset="csv", data_path=folder / "texts.csv", validation_share=0.2, test_share=0.2, encoder=str(encoder),
        max_length=12, height=12, width=12, perplexity=5.0, weights="random:1", enlarge=4, backbone="squeezenet1_1",
        head_kernel=2, head_filters=(6, 4), head_pooled=2, head_dense=(8,), head_reconstruction=0.1, batch_size=8,
        num_epochs=2.0, select="reconstruction", devices="cpu", cache_dir=folder / "cache",
    )  # fmt: skip


@pytest.fixture(scope="module")
def flags(config: ImdbImagesConfig) -> list[str]:
    """The same on a command line."""
    return [*(f"--{name}={value}" for name, value in as_flags(config).items()), f"--cache_dir={config.cache_dir}"]


class Trained(NamedTuple):
    """A run of the script."""

    path: Path
    output: str

    def result(self) -> dict:
        return json.loads((self.path / "result.json").read_text())


@pytest.fixture(scope="module")
def trained(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("run") / "run"
    return Trained(path, succeeds("imdb_images", *flags, f"--run_dir={path}"))


def test_every_stage_the_pictures_and_the_result(trained: Trained) -> None:
    result = trained.result()
    assert result["weights"] == "random" and "note: the extractor's weights are random" in trained.output
    assert "laying out" in trained.output and "/text" in trained.output
    assert {"test_accuracy", "val_accuracy", "probe_linear_on_features", "probe_linear_on_maps", "probe_mlp_on_pixels",
            "layout_filled", "layout_kl_divergence", "choice_scaling"} <= set(result)  # fmt: skip
    evaluations = [line for line in _metrics(trained.path) if line["split"] == "validation"]
    best = min(evaluations, key=lambda line: line["reconstruction"])  # the smaller, the better
    assert result["best_step"] == best["step"] and len(evaluations) == 2
    for name in PICTURES:
        with Image.open(trained.path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0


def _metrics(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if not name.endswith("per_second")} for line in lines]


@pytest.mark.slow
def test_python_gives_what_the_script_gave(
    trained: Trained, config: ImdbImagesConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kept = load(trained.path / "config.json", ImdbImagesConfig())
    assert kept == dataclasses.replace(config, cache_dir=None)
    result = train_bridge(config, tmp_path / "again")
    output = capsys.readouterr().out
    assert "laying out" not in output and "/text" not in output and "/image" not in output  # all came from the cache
    assert _metrics(tmp_path / "again") == _metrics(trained.path)
    layouts = [Layout.load(path / "layout.safetensors").fingerprint() for path in (tmp_path / "again", trained.path)]
    assert layouts[0] == layouts[1]
    same = [name for name in result if "seconds" not in name and "per_second" not in name]
    assert {name: result[name] for name in same} == {name: trained.result()[name] for name in same}
    assert train_bridge(config, tmp_path / "again") == result and "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer_config.json"])
def test_another_tokeniser_is_other_data(
    trained: Trained, config: ImdbImagesConfig, file: str, capsys: pytest.CaptureFixture
) -> None:
    """The encoder's weights are the same, and so are the texts."""
    path = Path(config.encoder.encoder) / file
    before = path.read_text()
    *words, one, two = before.splitlines() if file == "vocab.txt" else ("", "")
    other = "\n".join([*words, two, one]) + "\n" if words else '{"do_lower_case": false}'
    try:
        path.write_text(other)
        with pytest.raises(UserError, match=r"was made of other data \(tokeniser; see its data\.json\)"):
            train_bridge(config, trained.path)
    finally:
        path.write_text(before)
    train_bridge(config, trained.path)
    assert "finished before" in capsys.readouterr().out


def test_flags_of_a_run_are_taken_up(trained: Trained, tmp_path: Path) -> None:
    """Those of this version, and those of version 0.2: None where nothing was given, and earlier names."""
    replay = f"--flagfile={trained.path / 'flags.txt'}"
    assert "finished before" in succeeds("imdb_images", replay, f"--run_dir={trained.path}")
    shutil.copytree(trained.path, tmp_path / "old")
    (tmp_path / "old" / "config.json").unlink()
    text = (tmp_path / "old" / "flags.txt").read_text().replace("--optimizer=adamw\n", "")
    text = text.replace("--conv_learning_rate=", "--encoder_rate=") + "--bn_mode=None\n--weights_dir=\n"
    (tmp_path / "old" / "flags.txt").write_text(text)
    assert "finished before" in succeeds("imdb_images", replay, f"--run_dir={tmp_path / 'old'}")


@pytest.mark.slow
def test_layers_are_pooled_as_asked(config: ImdbImagesConfig, tmp_path: Path) -> None:
    """The features of ``--pooling=mean`` are those that ``embed_texts`` writes, layer by layer."""
    with session(config, config.bridge.training) as placement:
        texts = bridge._prepare(config)
        of = {
            pooling: bridge._features(dataclasses.replace(config, pooling=pooling), [1, 2], texts, placement)
            for pooling in ("cls", "mean")
        }
    embedding = EmbeddingConfig(data=config.data, encoder=config.encoder, layers=(1, 2), pooling="mean", devices="cpu")
    embed_texts(embedding, tmp_path)
    expected = np.load(tmp_path / "test.npy")  # [N, layers, width]
    np.testing.assert_array_equal(of["mean"].arrays["test"], expected.reshape(len(expected), -1))
    assert of["mean"].key != of["cls"].key and "mean of the pieces in layers [1, 2]" in of["mean"].about
    assert np.abs(of["mean"].arrays["test"] - of["cls"].arrays["test"]).max() > 0.01


def test_a_dry_run_writes_nothing(flags: list[str], tmp_path: Path) -> None:
    output = succeeds("imdb_images", *flags, f"--run_dir={tmp_path / 'run'}", "--dry_run")
    assert "maps: 5×5×256 of squeezenet1_1" in output and "nothing was written" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_author_s_preset_in_another_precision(flags: list[str], tmp_path: Path) -> None:
    """Batch statistics of images and extractor: the maps cannot be cached and are computed in every step."""
    more = ["--preset=author", "--backbone=resnet18", "--engine=pca", "--precision=mixed_bfloat16", "--num_steps=2",
            "--eval_every=1", "--select=accuracy"]  # fmt: skip
    output = succeeds("imdb_images", *flags, *more, f"--run_dir={tmp_path}")
    assert "/text" in output  # features of another precision are not those in the cache
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["choice_fit_rows"] == "all" and "layout_kl_divergence" not in result
    assert "probe_linear_on_pixels" in result and "probe_linear_on_maps" not in result
    assert result["best_step"] == result["steps"] == 2  # without early stopping, the last weights
    assert [resolved(BridgeConfig(preset=name), 9).select for name in PRESETS] == ["accuracy", ""]


def test_the_table_with_controls(flags: list[str], tmp_path: Path) -> None:
    run, cache = tmp_path / "table", tmp_path / "cache"
    np.savez(tmp_path / "squeezenet.npz", **state_of("squeezenet1_1"))
    shared = [flag for flag in flags if not flag.startswith(("--backbone", "--probe"))]
    more = [*shared, "--weights=", "--head_filters=", "--head_dense=", "--head_pooled=0",
            "--head_reconstruction=0", "--select=accuracy", "--num_steps=1",
            "--rows=squeezenet1_1,alexnet", "--seeds=1", "--control_row=squeezenet1_1", "--control_seeds=2",
            "--noablations", "--missing_weights=random", f"--weights_of=squeezenet1_1={tmp_path / 'squeezenet.npz'}",
            f"--weights_dir={tmp_path}", f"--cache_dir={cache}", f"--run_dir={run}"]  # fmt: skip
    out = succeeds("imdb_table", *more)
    assert "alexnet with random weights, as --missing_weights=random asks" in out
    assert "published minus random weights" in out
    assert len(list(cache.glob("bridge/maps-*.npy"))) == 2 * 3  # of the rows; those of the controls are removed
    with open(run / "table.csv", newline="") as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    runs = {path.parent.name: json.loads(path.read_text()) for path in run.glob("runs/*/result.json")}
    seeds = [runs[f"squeezenet1_1-seed{k}"]["test_accuracy"] for k in (0, 1)]
    assert float(lines["published weights"]["test"]) == pytest.approx(np.mean(seeds))
    assert float(lines["published weights"]["sd"]) == pytest.approx(np.std(seeds, ddof=1))
    assert float(lines["SqueezeNet 1.1"]["test"]) == seeds[0] and not lines["SqueezeNet 1.1"]["sd"]
    assert (lines["SqueezeNet 1.1"]["weights"], lines["AlexNet"]["weights"]) == ("squeezenet.npz", "random")
    assert {"as many networks of random weights", "shuffled pixels"} <= set(lines)
    assert next(iter(lines)) == "linear on features" and out.count("simple models on features") == 1
    found = json.loads((run / "probes.json").read_text())["features"]["linear"]
    line, result = lines["linear on features"], json.loads((run / "result.json").read_text())
    assert float(line["test low"]) < found == float(line["test"]) == result["probe_linear_on_features"]
    assert "| AlexNet | random |" in (run / "table.md").read_text() and (run / "table.png").exists()
    best = max(lines["SqueezeNet 1.1"], lines["AlexNet"], key=lambda line: float(line["validation"]))
    assert result["test_accuracy"] == pytest.approx(float(best["test"]))
    replay = f"--flagfile={run / 'flags.txt'}"
    assert "finished before" in succeeds("imdb_table", replay, f"--run_dir={run}")
    dry = succeeds("imdb_table", replay, f"--cache_dir={cache}", "--dry_run")
    assert dry.count("maps: ") == 2 and "nothing was written" in dry


WRONG = [
    ("imdb_images", ["--backbone=lenet"], "--backbone=lenet: value should be one of <alexnet|"),
    ("imdb_images", ["--weights=nowhere.pth"], "nowhere.pth"),
    ("imdb_images", ["--height=2", "--width=2", "--pixels=assignment"], "are too few to give each"),
    ("imdb_images", ["--perplexity=100"], "too few for a perplexity of 100"),
    ("imdb_images", ["--head_kernel=4"], "maps of 5×5: 2 convolutions of 4×4 need at least 7"),
    ("imdb_images", ["--head_dense=10,x"], "--head_dense=10,x"),
    ("imdb_images", ["--head_filters=", "--head_reconstruction=1"], "needs convolutions in the head"),
    ("imdb_images", ["--last_layer=3"], "--last_layer=3 of an encoder of 3 layers"),
    ("imdb_images", ["--preset=author", "--patience=3"], "--patience=3 without early stopping"),
    ("imdb_images", ["--encoder_rate=1"], "--encoder_rate has another name now: --conv_learning_rate"),
    ("imdb_images", ["--encoder_learning_rate=1"], "another name now: --conv_learning_rate"),
    ("imdb_table", ["--rows=alexnet", "--weights_of=vgg16"], "write ROW=FILE"),
    ("imdb_table", ["--rows="], "--rows=: name at least one extractor"),
    ("imdb_table", ["--rows=alexnet", "--control_row=vgg16", "--shuffle_pixels"], "shuffled pixels are one of"),
    ("imdb_table", ["--rows=squeezenet1_1", "--control_row=lenet"], "--control_row=lenet is not known"),
    ("imdb_table", ["--control_row=vgg16", "--seed=4294967292"], "--seed=4294967292 with --control_seeds=5: "),
    ("imdb_table", ["--missing=random"], "--missing has another name now: --missing_weights"),
]  # fmt: skip


@pytest.mark.parametrize("script", ["imdb_images", "imdb_table"])
def test_wrong_flags(script: str, flags: list[str], tmp_path: Path) -> None:
    wrong = [(more, message) for name, more, message in WRONG if name == script]
    shared = [flag for flag in flags if script == "imdb_images" or not flag.startswith(("--backbone", "--probe"))]
    errors = fails_each(script, [[*shared, *more, f"--run_dir={tmp_path / 'r'}"] for more, _ in wrong])
    assert not (tmp_path / "r").exists()
    for error, (more, message) in zip(errors, wrong, strict=True):
        assert error.startswith("error: ") and message in error, (more, error)
